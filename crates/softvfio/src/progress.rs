//! How far reading a file has come, on standard error; nothing when that is no terminal, or when it is
//! done before anybody wonders.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use trace::{ReadError, Reader};

use crate::input::{cannot_open, open, shown};

/// Files below this are read before a bar could be seen.
const LARGE: u64 = 4 << 20;

/// A reader of `file` that shows how far it is, and the bar, to be cleared at the end.
pub(crate) fn reader(file: &OsStr) -> Result<(Box<dyn BufRead + Send>, ProgressBar), ReadError> {
    let size = std::fs::metadata(file).map_or(0, |m| m.len());
    if file == "-" || size < LARGE {
        return Ok((open(file)?, ProgressBar::hidden()));
    }
    let opened = File::open(file).map_err(|error| cannot_open(file, &error))?;
    let bar = ProgressBar::with_draw_target(Some(size), ProgressDrawTarget::stderr_with_hz(5));
    let style = ProgressStyle::with_template("{prefix} [{bar:30}] {percent}% {eta} left");
    if let Ok(style) = style {
        bar.set_style(style.progress_chars("=> "));
    }
    // A long path would push the bar out of the line.
    bar.set_prefix(shown(Path::new(file).file_name().unwrap_or(file)));
    bar.enable_steady_tick(Duration::from_millis(500));
    let read = BufReader::with_capacity(1 << 18, bar.wrap_read(opened));
    Ok((Box::new(read), bar))
}

/// A trace's lines: of a file with a bar they are read by a thread of their own.
pub(crate) fn lines<R: BufRead + Send + 'static>(
    input: R,
    name: impl Into<String>,
    bar: &ProgressBar,
) -> Reader<R> {
    let reader = Reader::new(input, name);
    if bar.length().is_some() { reader.ahead() } else { reader }
}
