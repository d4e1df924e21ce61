//! Lines of a trace, one at a time, and what is wrong with them.

use std::fmt;
use std::io::{self, BufRead, Read};

use serde_json::{Map, Value};

use crate::ahead::{Ahead, Spent};
use crate::members::Members;

/// Bytes a line may have. The longest recorded one has 20 thousand.
pub const MAX_LINE: usize = 8 << 20;

/// A place in a file that cannot be read, and what would have been right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadError {
    /// The file, as it was named.
    pub file: String,
    /// Its line, from 1; 0 when the file as a whole is meant.
    pub line: u64,
    /// The column in bytes, from 1; 0 when the line as a whole is meant.
    pub column: usize,
    /// What was expected, and what was there instead.
    pub expected: String,
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file)?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
        }
        if self.column > 0 {
            write!(f, ":{}", self.column)?;
        }
        write!(f, ": expected {}", self.expected)
    }
}

impl std::error::Error for ReadError {}

/// A JSON object on a line of its own.
#[derive(Debug)]
pub struct Line {
    /// Its number in the file, from 1.
    pub number: u64,
    /// The text, without white space at its end.
    pub text: String,
    /// What it says.
    pub(crate) members: Members,
}

impl Line {
    /// What it says; members keep their order.
    #[must_use]
    pub fn to_map(&self) -> Map<String, Value> {
        self.members.to_map(&self.text)
    }
}

/// Reads JSON Lines; blank lines do not count as lines with something to say.
pub struct Reader<R> {
    lines: Lines<R>,
    file: String,
}

enum Lines<R> {
    /// Read when they are wanted.
    Here(Source<R>),
    /// Read by a thread of their own.
    Ahead(Ahead),
}

impl<R: BufRead> Reader<R> {
    /// Reads `input`, which people call `file`.
    pub fn new(input: R, file: impl Into<String>) -> Self {
        let file = file.into();
        Self { lines: Lines::Here(Source { input, file: file.clone(), number: 0 }), file }
    }

    /// Reads on in a thread of its own, some lines ahead of who wants them: for large inputs that
    /// are there already.
    #[must_use]
    pub fn ahead(self) -> Self
    where
        R: Send + 'static,
    {
        let lines = match self.lines {
            Lines::Here(source) => Lines::Ahead(Ahead::start(source)),
            ahead @ Lines::Ahead(_) => ahead,
        };
        Self { lines, ..self }
    }

    /// How the input is called.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// The next line that is not blank; `None` at the end.
    ///
    /// # Errors
    /// [`ReadError`] for a line that is not a JSON object, too long or not UTF-8, and for an input
    /// that cannot be read.
    pub fn read_line(&mut self) -> Result<Option<Line>, ReadError> {
        match &mut self.lines {
            Lines::Here(source) => source.read_line(),
            Lines::Ahead(ahead) => ahead.next(&self.file),
        }
    }
}

impl<R> Reader<R> {
    /// Gives back what a line was read into.
    pub(crate) fn give_back(&mut self, spent: Spent) {
        if let Lines::Ahead(ahead) = &mut self.lines {
            ahead.give_back(spent);
        }
    }
}

/// Where lines come from.
pub(crate) struct Source<R> {
    input: R,
    file: String,
    number: u64,
}

impl<R: BufRead> Source<R> {
    pub(crate) fn read_line(&mut self) -> Result<Option<Line>, ReadError> {
        loop {
            self.number += 1;
            let mut bytes = Vec::new();
            let limit = MAX_LINE as u64 + 1;
            let read = (&mut self.input).take(limit).read_until(b'\n', &mut bytes);
            match read {
                Err(error) => return Err(self.unreadable(&error)),
                Ok(0) => return Ok(None),
                Ok(n) if n > MAX_LINE => {
                    return Err(self.error(MAX_LINE, "a line of at most 8 MiB"));
                }
                Ok(_) => {}
            }
            if self.number == 1 && bytes.starts_with(b"\xef\xbb\xbf") {
                return Err(self.error(1, "UTF-8 text without a byte order mark"));
            }
            let mut text = match String::from_utf8(bytes) {
                Ok(text) => text,
                Err(error) => {
                    let at = error.utf8_error().valid_up_to() + 1;
                    return Err(self.error(at, "UTF-8 text"));
                }
            };
            text.truncate(text.trim_end().len());
            if !text.is_empty() {
                return self.parse(text).map(Some);
            }
        }
    }

    fn parse(&self, text: String) -> Result<Line, ReadError> {
        let members = if text.trim_start().starts_with('{') {
            Members::read(&text)
        } else {
            match serde_json::from_str::<Value>(&text) {
                Ok(other) => {
                    let what = format!("a JSON object, found {}", kind(&other));
                    return Err(self.error(1, &what));
                }
                Err(error) => Err(error),
            }
        };
        match members {
            Ok(members) => Ok(Line { number: self.number, text, members }),
            Err(error) => {
                let full = error.to_string();
                let what = full.rsplit_once(" at line").map_or(full.as_str(), |(what, _)| what);
                Err(self.error(error.column().max(1), &format!("a JSON object: {what}")))
            }
        }
    }

    fn unreadable(&self, error: &io::Error) -> ReadError {
        let expected = format!("a readable file: {error}");
        ReadError { file: self.file.clone(), line: 0, column: 0, expected }
    }

    fn error(&self, column: usize, expected: &str) -> ReadError {
        let expected = expected.to_owned();
        ReadError { file: self.file.clone(), line: self.number, column, expected }
    }
}

/// What a value is, for people.
pub(crate) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &[u8]) -> Result<Vec<(u64, String)>, String> {
        let mut reader = Reader::new(text, "f");
        let mut lines = Vec::new();
        while let Some(line) = reader.read_line().map_err(|e| e.to_string())? {
            lines.push((line.number, line.text));
        }
        Ok(lines)
    }

    #[test]
    fn lines_blank_lines_and_a_missing_last_newline() {
        let lines = read(b"{\"a\":1}\n\n  \r\n {} \r\n{\"b\":[]}").unwrap();
        assert_eq!(lines.iter().map(|(n, _)| *n).collect::<Vec<_>>(), [1, 4, 5]);
        assert_eq!(lines[1].1, " {}");
    }

    #[test]
    fn errors_name_the_place() {
        let error = |text: &[u8]| read(text).unwrap_err();
        assert_eq!(error(b"{}\n{\"a\":}\n"), "f:2:6: expected a JSON object: expected value");
        assert_eq!(error(b"[1]"), "f:1:1: expected a JSON object, found a list");
        assert_eq!(error(b"{\"a\":\"\xff\"}"), "f:1:7: expected UTF-8 text");
        assert_eq!(
            error(b"{\"a\":1,\"b\":2,\"a\":3}"),
            "f:1:16: expected a JSON object: a second member \"a\""
        );
        assert_eq!(
            error(b"\xef\xbb\xbf{}"),
            "f:1:1: expected UTF-8 text without a byte order mark"
        );
        assert!(error(b"{\"a\":1} x").starts_with("f:1:9: expected a JSON object: trailing"));
        assert!(error(b"{\"a\":").starts_with("f:1:5: expected a JSON object: EOF"));
        assert!(error(&b"[".repeat(1000)).contains("recursion limit"));
        let long = vec![b' '; MAX_LINE + 10];
        assert_eq!(error(&long), format!("f:1:{MAX_LINE}: expected a line of at most 8 MiB"));
    }
}
