//! Standard output: whoever reads it may have seen enough, and a disk may be full.

use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;

/// Writes text and exits with `status`; with `failed` when that cannot be, for another reason than
/// that nobody reads it.
pub(crate) fn print(text: &str, status: u8, failed: u8) -> ExitCode {
    match write(text) {
        Ok(()) => ExitCode::from(status),
        Err(error) => {
            eprintln!("softvfio: cannot write: {error}");
            ExitCode::from(failed)
        }
    }
}

/// Writes text, if anybody reads it.
pub(crate) fn write(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error),
        _ => Ok(()),
    }
}
