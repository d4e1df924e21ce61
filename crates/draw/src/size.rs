//! Sizes and ranges for people, and numbers of theirs.

use iommu::IovaRange;
use trace::size::{Bytes, Count, UNITS};

/// The number of bytes of a range, which may be 2^64.
#[must_use]
pub fn bytes(range: IovaRange) -> u128 {
    u128::from(range.last() - range.first()) + 1
}

/// A number of bytes, as [`Bytes`] has it.
#[must_use]
pub fn human(bytes: u128) -> String {
    Bytes(bytes).to_string()
}

/// First and last byte, and the size.
#[must_use]
pub fn span(range: IovaRange) -> String {
    format!("{:#x}\u{2013}{:#x} \u{b7} {}", range.first(), range.last(), human(bytes(range)))
}

/// A count with its digits in groups of three.
#[must_use]
pub fn count(number: u64) -> String {
    Count(number.into()).to_string()
}

/// `text`, cut to `width` characters with an ellipsis.
#[must_use]
pub fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(width.saturating_sub(1)).collect();
    short.truncate(short.trim_end().len());
    if width > 0 {
        short.push('\u{2026}');
    }
    short
}

/// The words of a text; a number and its unit are one.
fn words(text: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        let unit = UNITS.contains(&word.trim_end_matches([',', ';', '.']));
        match words.last_mut().filter(|last| unit && last.ends_with(|c: char| c.is_ascii_digit())) {
            Some(number) => *number += &format!(" {word}"),
            None => words.push(word.to_owned()),
        }
    }
    words
}

/// `text` in lines of at most `width` characters, broken between words where there are any; at most
/// `lines`, the last of which ends in an ellipsis when more would follow.
#[must_use]
pub fn wrap(text: &str, width: usize, lines: usize) -> Vec<String> {
    let width = width.max(1);
    let mut out: Vec<String> = Vec::new();
    let mut line = String::new();
    for word in words(text) {
        let mut word: Vec<char> = word.chars().collect();
        loop {
            let used = line.chars().count();
            let room = width.saturating_sub(used + usize::from(used > 0));
            if word.len() <= room {
                if used > 0 {
                    line.push(' ');
                }
                line.extend(word);
                break;
            }
            if used > 0 {
                out.push(std::mem::take(&mut line));
                continue;
            }
            // A word longer than a line.
            let rest = word.split_off(width);
            out.push(word.into_iter().collect());
            word = rest;
        }
    }
    if !line.is_empty() {
        out.push(line);
    }
    if out.len() > lines {
        let rest = out.split_off(lines.saturating_sub(1)).join(" ");
        out.push(cut(&rest, width));
    }
    out
}

/// A number in decimal or, after `0x`, in hexadecimal.
#[must_use]
pub fn parse(text: &str) -> Option<u64> {
    match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans() {
        assert_eq!(span(IovaRange::ALL), "0x0\u{2013}0xffffffffffffffff \u{b7} 16 EiB");
    }

    #[test]
    fn lines_are_never_too_long() {
        assert_eq!(wrap("one two three", 7, 9), ["one two", "three"]);
        assert_eq!(wrap("abcdefghij k", 4, 9), ["abcd", "efgh", "ij k"]);
        assert_eq!(wrap("one two three four", 5, 2), ["one", "two\u{2026}"]);
        assert_eq!(wrap("", 5, 2), [""; 0]);
        assert_eq!(wrap("0x0 \u{b7} 16 KiB, used", 8, 9), ["0x0 \u{b7}", "16 KiB,", "used"]);
        assert_eq!(wrap("KiB 1 KiB", 5, 9), ["KiB", "1 KiB"]);
        assert_eq!(cut("abcdef", 4), "abc\u{2026}");
    }
}
