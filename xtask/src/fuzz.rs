//! Fuzzing on stable Rust: libFuzzer is linked in, the compiler's own coverage pass feeds it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use crate::command::{Finished, capture, cargo, exists, loud, quiet, root, target_dir};
use crate::steps::{Outcome, missing};

/// A workspace of its own: flags and features stay in it.
pub(crate) const MANIFEST: &str = "fuzz/Cargo.toml";

/// What cargo-fuzz passes to a nightly compiler works on stable, without a sanitizer.
const FLAGS: &str = "--cfg fuzzing -Cpasses=sancov-module \
    -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares \
    -Ccodegen-units=1";

/// Named even where it is the host: flags then do not reach build scripts.
const TRIPLE: &str = "x86_64-unknown-linux-gnu";

/// Says which planted bug is on; the targets read it.
const PLANTED: &str = "SOFTVFIO_PLANTED";

/// Seconds within which a planted bug must be found.
const FIND_SECONDS: u32 = 60;

/// Seconds that each target must run clean.
const CLEAN_SECONDS: u32 = 15;

struct Target {
    name: &'static str,
    /// The bug that its smoke run must find.
    planted: &'static str,
    /// Bytes of an input at most.
    max_len: u32,
}

const TARGETS: &[Target] = &[
    Target { name: "ops", planted: "UpdateChargesTwice", max_len: 1024 },
    Target { name: "ioctl_bytes", planted: "vfio", max_len: 2048 },
    Target { name: "nvme", planted: "nvme", max_len: 2048 },
    Target { name: "ioat", planted: "ioat", max_len: 2048 },
    Target { name: "trace_file", planted: "trace", max_len: 16384 },
];

/// Each target finds its planted bug, and nothing without it.
pub(crate) fn smoke() -> Result<Outcome, String> {
    if !cfg!(all(target_arch = "x86_64", target_os = "linux")) {
        return Ok(Outcome::Skipped(format!("fuzzing is set up for {TRIPLE}")));
    }
    if !exists("g++") {
        return missing("g++");
    }
    build()?;
    clippy()?;
    let mut seen = Vec::new();
    for target in TARGETS {
        let began = Instant::now();
        let hunt = run(target, FIND_SECONDS, Some(target.planted), &scratch(target)?)?;
        let found = began.elapsed().as_secs_f64();
        if hunt.status.success() {
            return Err(format!(
                "{} did not find the planted bug {} in {FIND_SECONDS} s",
                target.name, target.planted
            ));
        }
        let folder = scratch(target)?;
        let clean = run(target, CLEAN_SECONDS, None, &folder)?;
        if !clean.status.success() {
            eprint!("{}{}", clean.stdout, clean.stderr);
            return Err(format!(
                "{} found a bug; its input is in {}",
                target.name,
                folder.display()
            ));
        }
        seen.push(format!("{} {found:.1} s", target.name));
    }
    Ok(Outcome::Held(format!("planted bugs found: {}", seen.join(", "))))
}

/// `cargo xtask fuzz TARGET [--seconds N] [--planted]`: what it finds is kept.
pub(crate) fn one(name: &str, options: &[&str]) -> Result<(), String> {
    if name == "--smoke" && options.is_empty() {
        return crate::steps::run_named("fuzz");
    }
    let Some(target) = TARGETS.iter().find(|t| t.name == name) else {
        let names: Vec<_> = TARGETS.iter().map(|t| t.name).collect();
        return Err(format!("no target {name}; there are {}", names.join(", ")));
    };
    let (mut seconds, mut planted) = (60, None);
    let mut options = options.iter();
    while let Some(option) = options.next() {
        match *option {
            "--planted" => planted = Some(target.planted),
            "--seconds" => {
                let value = options.next().and_then(|s| s.parse().ok());
                seconds = value.ok_or("--seconds needs a number")?;
            }
            other => return Err(format!("no option {other}")),
        }
    }
    build()?;
    let folder = target_dir().join("fuzz").join("found").join(name);
    make(&folder)?;
    loud(&mut command(target, seconds, planted, &folder))
}

/// Builds every target.
fn build() -> Result<(), String> {
    quiet(&mut flagged("build")).map(drop)
}

/// Lints of the targets, built as they are run: their build scripts are not built twice.
fn clippy() -> Result<(), String> {
    quiet(flagged("clippy").args(["--", "-D", "warnings"])).map(drop)
}

fn flagged(subcommand: &str) -> Command {
    let mut command = cargo(&[subcommand, "--release", "--manifest-path", MANIFEST]);
    command.args(["--target", TRIPLE]).arg("--target-dir").arg(target_dir().join("fuzz"));
    command.env("RUSTFLAGS", FLAGS);
    command
}

fn run(
    target: &Target,
    seconds: u32,
    planted: Option<&str>,
    folder: &Path,
) -> Result<Finished, String> {
    capture(&mut command(target, seconds, planted, folder))
}

/// libFuzzer on the target: new inputs go to `folder`, which also gets the inputs that crash.
fn command(target: &Target, seconds: u32, planted: Option<&str>, folder: &Path) -> Command {
    let program = target_dir().join("fuzz").join(TRIPLE).join("release").join(target.name);
    let mut command = Command::new(program);
    // A fixed seed: every run tries the same inputs in the same order.
    command.args(["-seed=1", "-timeout=10", "-rss_limit_mb=2048"]);
    command.arg(format!("-max_total_time={seconds}"));
    command.arg(format!("-max_len={}", target.max_len));
    command.arg(format!("-artifact_prefix={}/", folder.display()));
    let words = root().join("fuzz").join("dictionaries").join(target.name);
    if words.exists() {
        command.arg(format!("-dict={}", words.display()));
    }
    command.arg(folder).arg(root().join("fuzz").join("corpus").join(target.name));
    match planted {
        Some(bug) => command.env(PLANTED, bug),
        None => command.env_remove(PLANTED),
    };
    command
}

/// An empty folder for one run.
fn scratch(target: &Target) -> Result<PathBuf, String> {
    let folder = target_dir().join("fuzz").join("smoke").join(target.name);
    if folder.exists() {
        fs::remove_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    }
    make(&folder)?;
    Ok(folder)
}

fn make(folder: &Path) -> Result<(), String> {
    fs::create_dir_all(folder).map_err(|e| format!("{}: {e}", folder.display()))
}
