//! Lines that are read by a thread of their own.
//!
//! What a line was read into goes back to that thread when nobody wants it any more: memory that one
//! thread takes and another gives back makes both wait for each other in the allocator.

use std::io::BufRead;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use crate::members::{Members, Raw};
use crate::reader::{Line, ReadError, Source};

/// Lines that change hands together, and bytes of them after which they do.
const LINES: usize = 512;
const BYTES: usize = 1 << 18;
/// How many such lots the reader is ahead.
const LOTS: usize = 4;

/// Some lines, and what came after them.
struct Lot {
    lines: Vec<Line>,
    /// The end, or what cannot be read; `None`: there is more.
    end: Option<Result<(), ReadError>>,
}

/// What is left of a line.
pub(crate) type Spent = (String, Members, Option<Raw>);

/// The lines of a source, in order.
pub(crate) struct Ahead {
    lots: Receiver<Lot>,
    spent: Vec<Spent>,
    back: SyncSender<Vec<Spent>>,
    lines: std::vec::IntoIter<Line>,
    end: Option<Result<(), ReadError>>,
}

impl Ahead {
    /// Reads until the end, or until nobody wants lines any more.
    pub(crate) fn start<R: BufRead + Send + 'static>(mut source: Source<R>) -> Self {
        let (to, lots) = sync_channel(LOTS);
        let (back, returned) = sync_channel::<Vec<Spent>>(LOTS);
        std::thread::spawn(move || {
            loop {
                drop(returned.try_iter().collect::<Vec<_>>());
                let lot = read(&mut source);
                let over = lot.end.is_some();
                if to.send(lot).is_err() || over {
                    return;
                }
            }
        });
        Self { lots, spent: Vec::new(), back, lines: Vec::new().into_iter(), end: None }
    }

    /// Gives back what a line was read into.
    pub(crate) fn give_back(&mut self, spent: Spent) {
        self.spent.push(spent);
        if self.spent.len() >= LINES {
            // When nobody takes it, it goes here.
            let _ = self.back.try_send(std::mem::take(&mut self.spent));
        }
    }

    pub(crate) fn next(&mut self, file: &str) -> Result<Option<Line>, ReadError> {
        loop {
            if let Some(line) = self.lines.next() {
                return Ok(Some(line));
            }
            if let Some(end) = &self.end {
                return end.clone().map(|()| None);
            }
            let Ok(Lot { lines, end }) = self.lots.recv() else {
                // Nothing that the thread does may panic; if it does, this is not the end.
                let expected = "a readable file: its reader is gone".into();
                return Err(ReadError { file: file.into(), line: 0, column: 0, expected });
            };
            (self.lines, self.end) = (lines.into_iter(), end);
        }
    }
}

fn read<R: BufRead>(source: &mut Source<R>) -> Lot {
    let (mut lines, mut bytes) = (Vec::with_capacity(LINES), 0);
    while lines.len() < LINES && bytes < BYTES {
        match source.read_line() {
            Ok(Some(line)) => {
                bytes += line.text.len();
                lines.push(line);
            }
            Ok(None) => return Lot { lines, end: Some(Ok(())) },
            Err(error) => return Lot { lines, end: Some(Err(error)) },
        }
    }
    Lot { lines, end: None }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use crate::Reader;

    #[test]
    fn the_same_lines_and_the_same_end() {
        let line = |i: usize| format!("{{\"i\":{i},\"pad\":\"{}\"}}\n\n", "x".repeat(i % 997));
        for (lines, end) in
            [(0, ""), (1, ""), (5000, ""), (511, "{"), (512, "[]"), (2000, "{\"a\":1}")]
        {
            let text: String = (0..lines).map(line).collect::<String>() + end;
            let mut here = Reader::new(Cursor::new(text.clone()), "f");
            let mut ahead = Reader::new(Cursor::new(text), "f").ahead();
            loop {
                let (one, other) = (here.read_line(), ahead.read_line());
                let shown = |read: &Result<_, _>| format!("{read:?}");
                assert_eq!(shown(&one), shown(&other));
                if !matches!(one, Ok(Some(_))) {
                    // It stays so.
                    assert_eq!(shown(&ahead.read_line()), shown(&other));
                    break;
                }
            }
        }
    }

    #[test]
    fn nobody_needs_to_read_to_the_end() {
        let text = "{}\n".repeat(100_000);
        let mut reader = Reader::new(Cursor::new(text), "f").ahead();
        assert!(reader.read_line().unwrap().is_some());
    }
}
