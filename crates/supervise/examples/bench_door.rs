//! What the door costs, against what it stands beside, in one run: a table for docs/performance.md.
//!
//! `cargo xtask bench` runs it; `qemu-img` adds its rows where it is installed.

#![expect(unsafe_code, reason = "the client asks the kernel itself")]

use std::io::{Read, Write};
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::fs::FileExt;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use rustix::thread::{CpuSet, sched_setaffinity};
use softvfio_supervise::kinds::DeviceSpec;
use softvfio_supervise::session::{DEFAULT_HOST, Program, Session};

type Any<T> = Result<T, Box<dyn std::error::Error>>;

/// Requests and round trips of a sample.
const ROUNDS: u32 = 5000;
/// Samples; the median counts.
const SAMPLES: usize = 9;

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let done = match args.next().as_deref() {
        Some("client") => client(),
        Some("idle") => idle(),
        Some("interrupted") => interrupted(),
        // A part of the table.
        Some("requests") => requests(),
        Some("interrupts") => interrupts(),
        Some("images") => images(),
        // Cargo's `--bench`, or nothing.
        _ => table(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench_door: {error}");
            ExitCode::FAILURE
        }
    }
}

fn table() -> Any<()> {
    println!("| what | softvfio | beside it | ratio |");
    println!("|---|---|---|---|");
    requests()?;
    interrupts()?;
    start_up()?;
    idle_share()?;
    images()
}

fn pin(cpu: usize) -> Any<()> {
    let mut set = CpuSet::new();
    set.set(cpu);
    Ok(sched_setaffinity(None, &set)?)
}

fn median(mut samples: Vec<f64>) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples[samples.len() / 2]
}

fn nanoseconds(time: Duration) -> f64 {
    time.as_nanos() as f64 / f64::from(ROUNDS)
}

/// A round trip of one byte through two pipes between two processes, everything on one core.
fn ping_pong() -> Any<f64> {
    let mut echo = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let (mut to, mut from) =
        (echo.stdin.take().ok_or("stdin")?, echo.stdout.take().ok_or("stdout")?);
    let mut samples = Vec::new();
    for _ in 0..SAMPLES {
        let start = Instant::now();
        for _ in 0..ROUNDS {
            to.write_all(&[1])?;
            from.read_exact(&mut [0])?;
        }
        samples.push(nanoseconds(start.elapsed()));
    }
    drop(to);
    echo.wait()?;
    Ok(median(samples))
}

fn requests() -> Any<()> {
    // The session's threads and its client are started on the core that this thread is on.
    pin(0)?;
    requests_on("one core")?;
    sched_setaffinity(None, &all_cpus())?;
    requests_on("any core")
}

fn requests_on(place: &str) -> Any<()> {
    let pipe = ping_pong()?;
    let text = run("edu,mmio=none", &[&std::env::current_exe()?.to_string_lossy(), "client"])?;
    for line in text.lines() {
        let (what, time) = line.rsplit_once(' ').ok_or("the client's line")?;
        let time: f64 = time.parse()?;
        println!(
            "| {what}, {place} | {time:.0} ns | {pipe:.0} ns (pipe round trip) | {:.2} |",
            time / pipe
        );
    }
    Ok(())
}

fn all_cpus() -> CpuSet {
    let mut set = CpuSet::new();
    (0..std::thread::available_parallelism().map_or(1, usize::from).max(64))
        .for_each(|n| set.set(n));
    set
}

/// Runs a program in a session; its output.
fn run(device: &str, program: &[&str]) -> Any<String> {
    run_on(DEFAULT_HOST, device, program)
}

fn run_on(host: &str, device: &str, program: &[&str]) -> Any<String> {
    let (from, to) = rustix::pipe::pipe()?;
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        std::fs::File::from(from).read_to_string(&mut text).map(|_| text)
    });
    let mut session = Session::new().host(host);
    if !device.is_empty() {
        session = session.device(device.parse::<DeviceSpec>()?.make()?);
    }
    let ready = session.place()?;
    let (command, args) = program.split_first().ok_or("no program")?;
    let mut program = Program::new(command).args(args);
    program.stdio[1] = Some(rustix::fd::AsFd::as_fd(&to));
    ready.run(&program)?;
    drop(to);
    Ok(reader.join().map_err(|_| "the reader")??)
}

/// What the session runs: requests on a container.
fn client() -> Any<()> {
    let file = std::fs::File::options().read(true).write(true).open("/dev/vfio/vfio")?;
    let group = std::fs::File::options().read(true).write(true).open("/dev/vfio/1")?;
    let request = |file: &std::fs::File, number: u64, arg: u64| {
        // SAFETY: an argument by value, or the address of what the request takes.
        let answer = unsafe { libc::ioctl(file.as_raw_fd(), number, arg) };
        if answer < 0 { Err(std::io::Error::last_os_error()) } else { Ok(answer) }
    };
    let mut fd = file.as_raw_fd();
    request(&group, 0x3b68, &raw mut fd as u64)?;
    request(&file, 0x3b66, 3)?;
    let page = vec![0_u8; 1 << 21];
    let vaddr = (page.as_ptr() as u64 + 0xfff) & !0xfff;
    let map = [32_u64 | 3 << 32, vaddr, 0x10_0000, 0x1000];
    let unmap = [24_u64, 0x10_0000, 0x1000];
    let mut info = [0_u8; 256];
    info[0] = 255;
    let measure = |what: &str, f: &mut dyn FnMut() -> std::io::Result<()>| -> Any<()> {
        let mut samples = Vec::new();
        for _ in 0..SAMPLES {
            let start = Instant::now();
            for _ in 0..ROUNDS {
                f()?;
            }
            samples.push(nanoseconds(start.elapsed()));
        }
        println!("{what} {}", median(samples));
        Ok(())
    };
    measure("GET_API_VERSION", &mut || request(&file, 0x3b64, 0).map(drop))?;
    measure("IOMMU_GET_INFO", &mut || request(&file, 0x3b70, info.as_ptr() as u64).map(drop))?;
    measure("MAP_DMA and UNMAP_DMA", &mut || {
        let mut unmap = unmap;
        request(&file, 0x3b71, &raw const map as u64)?;
        request(&file, 0x3b72, &raw mut unmap as u64).map(drop)
    })
}

/// From the write that lets edu send its MSI until the client has read its eventfd: where the MSI's
/// address is translated, and where it is not.
fn interrupts() -> Any<()> {
    pin(0)?;
    let client = std::env::current_exe()?;
    let client = client.to_string_lossy();
    let (mut translated, mut plain) = (Vec::new(), Vec::new());
    for _ in 0..SAMPLES {
        for (host, times) in [("arm-smmuv3-its-user", &mut translated), ("x86-intel", &mut plain)] {
            let text = run_on(host, "edu,mmio=none", &[&client, "interrupted"])?;
            times.push(text.trim().parse()?);
        }
    }
    let (translated, plain) = (median(translated), median(plain));
    println!(
        "| MSI to wake-up, one core | {translated:.0} ns (through a window) | {plain:.0} ns (untranslated) | {:.2} |",
        translated / plain
    );
    sched_setaffinity(None, &all_cpus())?;
    Ok(())
}

/// What the session runs: interrupts of edu, the median time of one.
fn interrupted() -> Any<()> {
    let open = |path| std::fs::File::options().read(true).write(true).open(path);
    let (container, group) = (open("/dev/vfio/vfio")?, open("/dev/vfio/1")?);
    let request = |file: &std::fs::File, number: u64, arg: u64| {
        // SAFETY: an argument by value, or the address of what the request takes.
        let answer = unsafe { libc::ioctl(file.as_raw_fd(), number, arg) };
        if answer < 0 { Err(std::io::Error::last_os_error()) } else { Ok(answer) }
    };
    let mut fd = container.as_raw_fd();
    request(&group, 0x3b68, &raw mut fd as u64)?;
    request(&container, 0x3b66, 3)?;
    if request(&container, 0x3b65, 0x8001)? == 1 {
        let window = [32_u64 | 1 << 63 | 3 << 32, 0, 0x4000_0000, 0x1000];
        request(&container, 0x3b71, window.as_ptr() as u64)?;
    }
    let fd = request(&group, 0x3b6a, c"0000:01:00.0".as_ptr() as u64)?;
    // SAFETY: the descriptor is new, and ours.
    let device = unsafe { std::fs::File::from_raw_fd(fd) };
    let region = |index: u32| -> Any<u64> {
        let mut info = [32, 0, index, 0, 0, 0, 0, 0];
        request(&device, 0x3b6c, info.as_mut_ptr() as u64)?;
        Ok(u64::from(info[6]) | u64::from(info[7]) << 32)
    };
    device.write_all_at(&[6, 0], region(7)? + 4)?;
    let event = rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC)?;
    let irqs = [24, 0x24, 1, 0, 1, event.as_raw_fd().cast_unsigned()];
    request(&device, 0x3b6e, irqs.as_ptr() as u64)?;
    let raise = region(0)? + 0x60;
    let mut event = std::fs::File::from(event);
    let mut samples = Vec::new();
    for _ in 0..ROUNDS / 2 {
        let start = Instant::now();
        device.write_all_at(&[1, 0, 0, 0], raise)?;
        event.read_exact(&mut [0; 8])?;
        samples.push(start.elapsed().as_nanos() as f64);
    }
    println!("{}", median(samples));
    Ok(())
}

fn start_up() -> Any<()> {
    let (mut plain, mut ours) = (Vec::new(), Vec::new());
    for _ in 0..21 {
        let start = Instant::now();
        Command::new("true").status()?;
        plain.push(start.elapsed().as_secs_f64() * 1e3);
        let start = Instant::now();
        run("", &["true"])?;
        ours.push(start.elapsed().as_secs_f64() * 1e3);
    }
    let (plain, ours) = (median(plain), median(ours));
    println!(
        "| start and end of `true` | {ours:.1} ms | {plain:.1} ms (plain) | +{:.1} ms |",
        ours - plain
    );
    Ok(())
}

/// A client that opens its device and sleeps: what the device's thread takes of a core.
fn idle() -> Any<()> {
    std::thread::sleep(Duration::from_secs(3));
    Ok(())
}

fn idle_share() -> Any<()> {
    let busy = || -> Any<f64> {
        let stat = std::fs::read_to_string("/proc/self/stat")?;
        let fields: Vec<&str> = stat.rsplit(')').next().ok_or("stat")?.split_whitespace().collect();
        Ok((fields[11].parse::<f64>()? + fields[12].parse::<f64>()?) / 100.0)
    };
    let (start, before) = (Instant::now(), busy()?);
    run("nvme", &[&std::env::current_exe()?.to_string_lossy(), "idle"])?;
    let share = (busy()? - before) / start.elapsed().as_secs_f64();
    println!("| a session whose client sleeps 3 s | {:.1} % of a core | | |", share * 100.0);
    Ok(())
}

fn images() -> Any<()> {
    if Command::new("qemu-img").arg("--version").stdout(Stdio::null()).status().is_err() {
        println!("qemu-img is not installed: its rows are left out");
        return Ok(());
    }
    let path = std::env::temp_dir().join(format!("softvfio-bench-{}.img", std::process::id()));
    let mut image = std::fs::File::create(&path)?;
    for _ in 0..256 {
        image.write_all(&vec![0x5a; 1 << 20])?;
    }
    drop(image);
    let result = (|| {
        for (size, depth, count) in [("4k", 1, 20_000), ("4k", 32, 60_000), ("128k", 8, 8_000)] {
            for write in [false, true] {
                compare(&path.to_string_lossy(), size, depth, count, write)?;
            }
        }
        Ok(())
    })();
    std::fs::remove_file(&path)?;
    result
}

fn compare(path: &str, size: &str, depth: u32, count: u32, write: bool) -> Any<()> {
    let (depth, count) = (depth.to_string(), count.to_string());
    let mut args = vec!["bench", "-f", "raw", "-d", &depth, "-c", &count, "-s", size];
    if write {
        args.push("-w");
    }
    let seconds = |text: &str| -> Any<f64> {
        let word = text.split_whitespace().rev().nth(1).ok_or("qemu-img's last line")?;
        Ok(word.parse()?)
    };
    let (mut ours, mut plain) = (Vec::new(), Vec::new());
    for _ in 0..5 {
        let beside = Command::new("qemu-img").args(&args).arg(path).output()?;
        plain.push(seconds(&String::from_utf8_lossy(&beside.stdout))?);
        let mut program = vec!["qemu-img"];
        program.extend(&args);
        program.push("nvme://0000:01:00.0/1");
        ours.push(seconds(&run(&format!("nvme,file={path}"), &program)?)?);
    }
    let (ours, plain) = (median(ours), median(plain));
    let what = if write { "writes" } else { "reads" };
    println!(
        "| qemu-img bench, {size} {what}, depth {depth} | {ours:.3} s | {plain:.3} s (-f raw) | {:.2}x as fast |",
        plain / ours
    );
    Ok(())
}
