//! Commands that say nothing unless they fail.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

/// The repository.
pub(crate) fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_path_buf()
}

/// Where the workspace builds; parts with other flags build in folders of it.
pub(crate) fn target_dir() -> PathBuf {
    match env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => root().join(dir),
        None => root().join("target"),
    }
}

/// Cargo, in the repository.
pub(crate) fn cargo(args: &[&str]) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(args).current_dir(root());
    command
}

/// What a command printed, both streams, and how it ended.
pub(crate) struct Finished {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs a command to its end and keeps what it prints.
pub(crate) fn capture(command: &mut Command) -> Result<Finished, String> {
    let output = command.output().map_err(|e| format!("{}: {e}", line(command)))?;
    Ok(Finished {
        status: output.status,
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// Runs a command; what it prints is shown only when it fails. Returns its standard output.
pub(crate) fn quiet(command: &mut Command) -> Result<String, String> {
    let finished = capture(command)?;
    if finished.status.success() {
        return Ok(finished.stdout);
    }
    eprint!("{}{}", finished.stdout, finished.stderr);
    Err(format!("{}: {}", line(command), finished.status))
}

/// Runs a command that prints as it goes.
pub(crate) fn loud(command: &mut Command) -> Result<(), String> {
    let status = command.status().map_err(|e| format!("{}: {e}", line(command)))?;
    if status.success() { Ok(()) } else { Err(format!("{}: {status}", line(command))) }
}

/// Whether a program can be started.
pub(crate) fn exists(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok_and(|o| o.status.success())
}

fn line(command: &Command) -> String {
    let mut line = Path::new(command.get_program())
        .file_name()
        .map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    for arg in command.get_args() {
        line.push(' ');
        line.push_str(&arg.to_string_lossy());
    }
    line
}
