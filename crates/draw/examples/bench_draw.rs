//! What `softvfio draw`, `replay` and `explain` cost for traces with a million maps, beside reading the
//! same lines as JSON values and forgetting them. `cargo xtask bench draw` builds and runs it:
//!
//! ```text
//! bench_draw SOFTVFIO [MAPS]       measures that program; prints a table
//! bench_draw write KIND MAPS       writes a trace: live, scattered, churn, refused
//! bench_draw read FILE             the peer
//! ```
//!
//! Processor time is counted and not the time of day, so that other work on the machine shows less.

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

/// What the maps of a trace are.
const KINDS: [(&str, &str); 4] = [
    ("live", "neighbouring pages, all there at the end"),
    ("scattered", "ranges of 4 KiB to 1 MiB in random order, all there at the end"),
    ("churn", "pages, each unmapped by the next request"),
    ("refused", "neighbouring pages, a limit of 65,535"),
];

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let done = match args[..] {
        ["write", kind, maps] => match maps.parse() {
            Ok(maps) => write(kind, maps, &mut BufWriter::new(io::stdout().lock())),
            Err(_) => Err(io::Error::other(format!("{maps}: expected a number"))),
        },
        ["read", file] => read(file),
        [program] => measure(program, 1_000_000),
        [program, maps] => maps.parse().map_or_else(
            |_| Err(io::Error::other(format!("{maps}: expected a number"))),
            |maps| measure(program, maps),
        ),
        _ => Err(io::Error::other("expected SOFTVFIO [MAPS]")),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("bench_draw: {why}");
            ExitCode::FAILURE
        }
    }
}

/// Pseudo-random numbers, the same ones every time.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}

fn write(kind: &str, maps: u64, out: &mut dyn Write) -> io::Result<()> {
    let limit = if kind == "refused" { 65_535 } else { u64::from(u32::MAX) };
    writeln!(
        out,
        r#"{{"built_in":"x86-intel","kernel":"6.12.1","module_params":{{"dma_entry_limit":{limit}}}}}"#
    )?;
    let opened = ["mem", "open_container", "open_group", "set_container", "set_iommu"];
    for op in opened {
        writeln!(out, r#"{{"op":"{op}","want":{{"ret":0}}}}"#)?;
    }
    let map = |out: &mut dyn Write, iova: u64, size: u64, want: &str| {
        let offset = iova % 0x10_0000;
        writeln!(
            out,
            r#"{{"op":"map","iova":"{iova:#x}","size":"{size:#x}","vaddr":"buf+{offset:#x}","want":{{{want}}}}}"#
        )
    };
    // Above 4 GiB nothing is reserved.
    let base = 1 << 32;
    match kind {
        "live" | "refused" => {
            for n in 0..maps {
                let fits = n < limit;
                let want = if fits { r#""ret":0"# } else { r#""errno":"ENOSPC""# };
                map(out, base + (n << 12), 0x1000, want)?;
            }
        }
        "scattered" => {
            let mut numbers = Numbers(1);
            let mut places: Vec<u64> = (0..maps).collect();
            for n in (1..places.len()).rev() {
                places.swap(n, numbers.below(n as u64 + 1) as usize);
            }
            for place in places {
                let size = 0x1000 << numbers.below(9);
                map(out, base + (place << 20), size, r#""ret":0"#)?;
            }
        }
        "churn" => {
            for n in 0..maps {
                let iova = base + ((n % 4096) << 13);
                map(out, iova, 0x1000, r#""ret":0"#)?;
                writeln!(
                    out,
                    r#"{{"op":"unmap","iova":"{iova:#x}","size":"0x1000","want":{{"ret":0,"size":"0x1000"}}}}"#
                )?;
            }
        }
        _ => return Err(io::Error::other(format!("{kind}: no kind of trace"))),
    }
    out.flush()
}

/// Every line as a JSON value, one at a time.
fn read(file: &str) -> io::Result<()> {
    let mut members = 0;
    for line in BufReader::with_capacity(1 << 18, File::open(file)?).lines() {
        let value: serde_json::Value = serde_json::from_str(&line?)?;
        members += value.as_object().map_or(0, serde_json::Map::len);
    }
    println!("{members}");
    Ok(())
}

fn measure(program: &str, maps: u64) -> io::Result<()> {
    let own = std::env::current_exe()?;
    println!("| trace | of {maps} maps | draw | beside JSON values | replay | explain |");
    println!("|---|---|---|---|---|---|");
    for (kind, what) in KINDS {
        let file = std::env::temp_dir().join(format!("bench_draw-{}.jsonl", std::process::id()));
        write(kind, maps, &mut BufWriter::new(File::create(&file)?))?;
        let row = || -> io::Result<()> {
            let (peer, _) = run(Command::new(&own).arg("read").arg(&file))?;
            let (draw, memory) = run(Command::new(program).arg("draw").arg(&file))?;
            let (replay, _) = run(Command::new(program).arg("replay").arg(&file))?;
            let (explain, _) = run(Command::new(program).arg("explain").arg(&file))?;
            println!(
                "| {kind} | {what} | {draw:.2} s, {memory} MiB | {peer:.2} s, {:.2} | {replay:.2} s | {explain:.2} s |",
                draw / peer
            );
            Ok(())
        };
        let done = row();
        std::fs::remove_file(&file)?;
        done?;
    }
    Ok(())
}

/// Runs a program: processor seconds, and MiB at its peak.
fn run(command: &mut Command) -> io::Result<(f64, u64)> {
    let before = of_children()?;
    let mut child = command.stdout(Stdio::null()).spawn()?;
    let status = format!("/proc/{}/status", child.id());
    let mut peak: u64 = 0;
    let ended = loop {
        // Until it ends the kernel tells its peak.
        let told = std::fs::read_to_string(&status).unwrap_or_default();
        let line = told.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok());
        peak = kib.unwrap_or(0).max(peak);
        if let Some(ended) = child.try_wait()? {
            break ended;
        }
        std::thread::sleep(Duration::from_millis(1));
    };
    if !ended.success() {
        return Err(io::Error::other(format!("{ended}")));
    }
    Ok((of_children()? - before, peak.div_ceil(1024)))
}

/// Processor seconds of every program that was run and has ended.
fn of_children() -> io::Result<f64> {
    /// Of a second, in `/proc`.
    const TICKS: f64 = 100.0;
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    // After the name, which may hold anything: the state, then numbers.
    let numbers = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace();
    let ticks: u32 = numbers.skip(13).take(2).filter_map(|n| n.parse::<u32>().ok()).sum();
    Ok(f64::from(ticks) / TICKS)
}
