//! Standard output: whoever reads it may have seen enough, a disk may be full, a terminal is narrow.

use std::io::{self, ErrorKind, IsTerminal, Write};
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
    if_read(out.write_all(text.as_bytes()).and_then(|()| out.flush()))
}

/// How writing went: a reader who has seen enough is no failure.
pub(crate) fn if_read(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

/// Whether to colour what goes to a stream (<https://no-color.org>).
pub(crate) fn wants_colour(stream: &impl IsTerminal) -> bool {
    plan::Style::for_output(stream.is_terminal()).colour
}

/// Characters of a line, where standard output is a terminal.
pub(crate) fn terminal_width() -> Option<usize> {
    let size = || console::Term::stdout().size_checked();
    io::stdout().is_terminal().then(size).flatten().map(|(_, columns)| usize::from(columns))
}

/// Text for people, broken between words where a terminal would break it anywhere.
pub(crate) fn for_terminal(text: String) -> String {
    match terminal_width() {
        Some(width) => fold(&text, width.max(40)),
        None => text,
    }
}

/// The most characters of a line of help.
pub(crate) const HELP_WIDTH: usize = 80;

/// The help that was asked for, for a stream: clap breaks no lines.
pub(crate) fn help(asked: &clap::Error, stream: &impl IsTerminal) -> String {
    let text = asked.render();
    for_help(&if wants_colour(stream) { text.ansi().to_string() } else { text.to_string() })
}

/// Text as narrow as help is everywhere.
pub(crate) fn for_help(text: &str) -> String {
    fold(text, terminal_width().map_or(HELP_WIDTH, |width| width.clamp(40, HELP_WIDTH)))
}

/// Where what follows of a line begins: below the last thing that stands in a column of its own, in
/// the left half.
fn hanging(line: &str, width: usize) -> usize {
    let line = console::strip_ansi_codes(line);
    let begin = line.chars().take_while(|c| *c == ' ').count() + 2;
    let (mut column, mut spaces) = (0, 0);
    for (at, c) in line.chars().enumerate().skip(begin).take_while(|(at, _)| *at <= width / 2) {
        if c == ' ' {
            spaces += 1;
            continue;
        }
        if spaces > 1 {
            column = at;
        }
        spaces = 0;
    }
    column.max(begin)
}

/// Lines of at most `width` characters, those that follow indented, as far as there are spaces.
/// Escape sequences take no room.
fn fold(text: &str, width: usize) -> String {
    let mut out = String::new();
    for line in text.split_inclusive('\n') {
        let indent = hanging(line, width);
        let (mut used, mut space, mut escape) = (0, None, false);
        let mut begin = out.len();
        for c in line.chars() {
            escape |= c == '\u{1b}';
            if c == ' ' && !escape && used >= indent {
                space = Some((out.len(), used));
            }
            out.push(c);
            if escape || c == '\n' {
                escape &= c != 'm';
                continue;
            }
            used += 1;
            if let Some((at, before)) = space.filter(|(at, _)| used > width && *at > begin) {
                let rest = out.split_off(at);
                out.truncate(out.trim_end_matches(' ').len());
                out.push('\n');
                begin = out.len();
                out.push_str(&" ".repeat(indent));
                out.push_str(rest.trim_start_matches(' '));
                let spaces = rest.len() - rest.trim_start_matches(' ').len();
                used = indent + used - before - spaces;
                space = None;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_folded_between_words() {
        assert_eq!(fold("short\n\n  two words\n", 20), "short\n\n  two words\n");
        assert_eq!(
            fold("  one two three four five\n", 12),
            "  one two\n    three\n    four\n    five\n"
        );
        assert_eq!(fold("unbreakableunbreakable x\n", 8), "unbreakableunbreakable\n  x\n");
        assert_eq!(
            fold("  key    a value of some words\n", 20),
            "  key    a value of\n         some words\n"
        );
        assert_eq!(fold("no end of a line", 10), "no end of\n  a line");
        assert_eq!(fold("\u{1b}[1mbold\u{1b}[0m words\n", 10), "\u{1b}[1mbold\u{1b}[0m words\n");
        assert_eq!(
            fold("\u{1b}[1mbold\u{1b}[0m and words\n", 10),
            "\u{1b}[1mbold\u{1b}[0m and\n  words\n"
        );
        for width in 3..40 {
            let text =
                "  a list   of words, \u{1b}[31mred\u{1b}[0m ones\u{2026} and so on and on and on";
            for line in fold(text, width.max(14)).lines() {
                assert!(console::measure_text_width(line) <= width.max(14), "{width}: {line:?}");
            }
        }
    }
}
