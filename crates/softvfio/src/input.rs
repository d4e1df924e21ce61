//! What arguments name. Names of files need not be UTF-8; messages show what can be read of them.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use serde_json::{Map, Value};
use trace::ReadError;

/// Bytes that a file may have which is read whole.
const MAX_FILE: u64 = 8 << 20;

/// A name, to be printed: one line, whatever is in it.
pub(crate) fn shown(name: &OsStr) -> String {
    name.to_string_lossy().replace(['\n', '\r'], " ").replace(char::is_control, "\u{fffd}")
}

pub(crate) fn exists(name: &OsStr) -> bool {
    Path::new(name).exists()
}

/// Whether something looks like the name of a built-in thing, not like a file, and there is no file.
pub(crate) fn is_no_file(name: &OsStr) -> bool {
    let bytes = name.as_encoded_bytes();
    !bytes.contains(&b'/') && !bytes.contains(&b'.') && name != "-" && !exists(name)
}

/// A file; `-` is standard input.
pub(crate) fn open(name: &OsStr) -> Result<Box<dyn BufRead + Send>, ReadError> {
    if name == "-" {
        return Ok(Box::new(BufReader::new(io::stdin())));
    }
    match File::open(name) {
        Ok(opened) => Ok(Box::new(BufReader::with_capacity(1 << 16, opened))),
        Err(error) => Err(cannot_open(name, &error)),
    }
}

pub(crate) fn cannot_open(name: &OsStr, error: &io::Error) -> ReadError {
    bad_file(name, 0, 0, format!("a readable file: {error}"))
}

fn bad_file(name: &OsStr, line: u64, column: usize, expected: String) -> ReadError {
    ReadError { file: shown(name), line, column, expected }
}

/// The header of a host: a built-in one's, or that in a file.
pub(crate) fn host(name: &OsStr) -> Result<Map<String, Value>, String> {
    plan::host::header(Path::new(name)).map_err(|bad| bad.to_string())
}

/// A small text, whole.
pub(crate) fn text(name: &OsStr) -> Result<String, ReadError> {
    let mut bytes = Vec::new();
    let read = open(name)?.take(MAX_FILE + 1).read_to_end(&mut bytes);
    read.map_err(|error| cannot_open(name, &error))?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(bad_file(name, 0, 0, "a file of at most 8 MiB".into()));
    }
    String::from_utf8(bytes).map_err(|error| {
        let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = good.split(|byte| *byte == b'\n').count();
        let column = good.iter().rev().take_while(|byte| **byte != b'\n').count() + 1;
        bad_file(name, line as u64, column, "UTF-8 text".into())
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt;

    use super::*;

    #[test]
    fn a_text_names_the_place() {
        let file = std::env::temp_dir().join(format!("softvfio-input-{}", std::process::id()));
        std::fs::write(&file, b"one\ntw\xff").unwrap();
        let bad = text(file.as_os_str()).unwrap_err();
        std::fs::remove_file(&file).unwrap();
        assert_eq!((bad.line, bad.column), (2, 3));
        let bad = text(OsStr::new("/dev/zero")).unwrap_err().to_string();
        assert_eq!(bad, "/dev/zero: expected a file of at most 8 MiB");
        assert_eq!(shown(OsStr::new("a\u{1b}[31m")), "a\u{fffd}[31m");
        let odd = OsStr::from_bytes(b"/nowhere/\xff\n");
        let bad = text(odd).unwrap_err().to_string();
        assert!(bad.starts_with("/nowhere/\u{fffd} : expected a readable file"), "{bad}");
    }
}
