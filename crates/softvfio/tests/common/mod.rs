//! What tests of the command share.
#![allow(dead_code, reason = "each test file uses its part")]

use std::io::Write;
use std::process::{Command, Output, Stdio};

pub(crate) const SOFTVFIO: &str = env!("CARGO_BIN_EXE_softvfio");

/// Runs the command from the top of the repository, with `input` on standard input.
pub(crate) fn fed(arguments: &[&str], input: &[u8]) -> Output {
    let mut child = Command::new(SOFTVFIO)
        .args(arguments)
        .env_remove("NO_COLOR")
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A child that does not read its input has its reasons.
    let _ = child.stdin.take().unwrap().write_all(input);
    child.wait_with_output().unwrap()
}

pub(crate) fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// Whether programs can be run here; said aloud where no world can be made, which CI must.
pub(crate) fn can_run() -> bool {
    let output = fed(&["run", "-q", "--", "true"], b"");
    if !output.status.success() {
        let excused = output.status.code() == Some(125) && std::env::var_os("CI").is_none();
        assert!(excused, "{output:?}");
        println!("skipped: {}", text(&output.stderr));
    }
    output.status.success()
}
