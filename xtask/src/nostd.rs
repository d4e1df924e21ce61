//! The crates that promise `no_std` link without std.

use std::process::Command;

use crate::command::{capture, cargo, quiet, target_dir};
use crate::steps::Outcome;

/// A workspace of its own: nothing in it may unify features with the crates' tests.
pub(crate) const MANIFEST: &str = "nostd-gate/Cargo.toml";

/// Builds the gate, then once more with std let in on purpose, which must fail.
pub(crate) fn gate() -> Result<Outcome, String> {
    quiet(&mut build(&[]))?;
    let leak = capture(&mut build(&["--features", "std-leak"]))?;
    if leak.status.success() {
        return Err("the gate let std through (feature std-leak built)".into());
    }
    // std's own panic handler beside the gate's.
    if !leak.stderr.contains("E0152") {
        eprint!("{}", leak.stderr);
        return Err("the gate failed with std let in, but not because of std".into());
    }
    Ok(Outcome::Held("and it stops std".into()))
}

/// The gate's own lints.
pub(crate) fn clippy() -> Command {
    let mut command = on_gate("clippy");
    command.args(["--", "-D", "warnings"]);
    command
}

fn build(more: &[&str]) -> Command {
    let mut command = on_gate("build");
    command.args(more);
    command
}

fn on_gate(subcommand: &str) -> Command {
    let mut command = cargo(&[subcommand, "--manifest-path", MANIFEST]);
    command.arg("--target-dir").arg(target_dir().join("nostd"));
    command
}
