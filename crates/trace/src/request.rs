//! One request: an operation with members, read as the recording program reads them.
//!
//! Every scalar is text: `4096`, `"4096"` and `"0x1000"` are the same number, `true` is 1. Numbers
//! are C's: `0x` is hexadecimal, a leading 0 octal, a minus sign wraps.

use std::borrow::Cow;

use crate::members::{Members, Raw};
use crate::names::{Names, number_of, words};
use crate::reader::kind;

/// A member that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BadMember {
    /// Its name.
    pub(crate) member: String,
    /// What was expected.
    pub(crate) expected: String,
}

/// A request's members, and the text that they stand in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request<'a> {
    text: &'a str,
    members: &'a Members,
}

type Read<T> = Result<T, BadMember>;

impl<'a> Request<'a> {
    /// The request of a line.
    pub(crate) fn new(text: &'a str, members: &'a Members) -> Self {
        Self { text, members }
    }

    /// A member.
    fn get(self, member: &str) -> Option<&'a Raw> {
        self.members.get(self.text, member)
    }

    /// Complains about a member.
    pub(crate) fn bad<T>(self, member: &str, expected: impl Into<String>) -> Read<T> {
        let mut expected = expected.into();
        if let Some(value) = self.get(member) {
            let shown: String = value.to_value(self.text).to_string().chars().take(40).collect();
            expected = format!("{expected}, found {member} {shown}");
        }
        Err(BadMember { member: member.to_owned(), expected })
    }

    /// Whether there is such a member.
    pub(crate) fn has(self, member: &str) -> bool {
        self.get(member).is_some()
    }

    /// A scalar as text; lists count as absent, as in the recording program.
    pub(crate) fn text(self, member: &str) -> Read<Option<Cow<'a, str>>> {
        match self.get(member) {
            None | Some(Raw::Array(_)) => Ok(None),
            Some(value) => self.scalar(member, value).map(Some),
        }
    }

    fn scalar(self, member: &str, value: &'a Raw) -> Read<Cow<'a, str>> {
        match value {
            Raw::String(text) => Ok(Cow::Borrowed(text.get(self.text))),
            Raw::Number(number) => Ok(Cow::Owned(number.to_string())),
            Raw::Bool(true) => Ok(Cow::Borrowed("true")),
            Raw::Bool(false) => Ok(Cow::Borrowed("false")),
            Raw::Null => Ok(Cow::Borrowed("null")),
            Raw::Array(_) | Raw::Object(_) => {
                let what = kind(&value.to_value(self.text));
                self.bad(member, format!("a number or a string, not {what}"))
            }
        }
    }

    /// A scalar as text, or `default`.
    pub(crate) fn text_or(self, member: &str, default: &'a str) -> Read<Cow<'a, str>> {
        Ok(self.text(member)?.unwrap_or(Cow::Borrowed(default)))
    }

    /// A number, or `default`.
    pub(crate) fn number(self, member: &str, default: u64) -> Read<u64> {
        match self.get(member) {
            None | Some(Raw::Array(_)) => Ok(default),
            Some(value) => match self.number_of(member, value)? {
                Some(number) => Ok(number),
                None => self.bad(member, "a number of at most 64 bits"),
            },
        }
    }

    /// A scalar as a number.
    pub(crate) fn number_of(self, member: &str, value: &Raw) -> Read<Option<u64>> {
        if let Raw::Number(number) = value
            && let Some(number) = number.as_u64().filter(|number| *number != 0)
        {
            // As its text says.
            return Ok(Some(number));
        }
        Ok(parse_number(&self.scalar(member, value)?))
    }

    /// The low 32 bits of a number, as a C assignment takes them.
    pub(crate) fn number32(self, member: &str, default: u32) -> Read<u32> {
        Ok(low32(self.number(member, u64::from(default))?))
    }

    /// A number by its word or as such.
    pub(crate) fn named(self, member: &str, names: Names, default: u32) -> Read<u32> {
        let Some(text) = self.text(member)? else { return Ok(default) };
        match number_of(names, &text).or_else(|| parse_number(&text).map(low32)) {
            Some(number) => Ok(number),
            None => self.bad(member, format!("a number or one of {}", words(names))),
        }
    }

    /// A list of scalars as text.
    pub(crate) fn list(self, member: &str) -> Read<Option<Vec<Cow<'a, str>>>> {
        match self.get(member) {
            Some(Raw::Array(values)) => {
                if values.len() > 1100 {
                    return self.bad(member, "a list of at most 1100");
                }
                values.iter().map(|v| self.scalar(member, v)).collect::<Read<_>>().map(Some)
            }
            _ => Ok(None),
        }
    }

    /// Flags: one number, or a list of words and numbers.
    pub(crate) fn flags(self, member: &str, names: Names, default: u32) -> Read<u32> {
        let Some(list) = self.list(member)? else { return self.number32(member, default) };
        let mut flags = 0;
        for text in list {
            match number_of(names, &text).or_else(|| parse_number(&text).map(low32)) {
                Some(bits) => flags |= bits,
                None => return self.bad(member, format!("numbers and words of {}", words(names))),
            }
        }
        Ok(flags)
    }

    /// A slot number below `count`.
    pub(crate) fn slot(self, member: &str, count: usize) -> Read<usize> {
        match usize::try_from(self.number(member, 0)?) {
            Ok(slot) if slot < count => Ok(slot),
            _ => self.bad(member, format!("a slot below {count}")),
        }
    }

    /// Bytes in hexadecimal; an odd last digit does not count.
    pub(crate) fn bytes(self, member: &str, limit: usize) -> Read<Option<Vec<u8>>> {
        let Some(text) = self.text(member)? else { return Ok(None) };
        if text.len() / 2 > limit {
            return self.bad(member, format!("at most {limit} bytes"));
        }
        let digits = text.as_bytes().chunks_exact(2).map(|two| {
            let text = std::str::from_utf8(two).ok()?;
            u8::from_str_radix(text, 16).ok().filter(|_| two.iter().all(u8::is_ascii_hexdigit))
        });
        match digits.collect() {
            Some(bytes) => Ok(Some(bytes)),
            None => self.bad(member, "bytes as hexadecimal digits"),
        }
    }
}

/// What a 32-bit member keeps of a number.
pub(crate) fn low32(number: u64) -> u32 {
    (number & 0xffff_ffff) as u32
}

/// A number as C's `strtoull(.., 0)` reads it, all of the text; `true` is 1, `false` 0.
#[must_use]
pub fn parse_number(text: &str) -> Option<u64> {
    let (negative, digits) = match text.as_bytes().first()? {
        b't' if text == "true" => return Some(1),
        b'f' if text == "false" => return Some(0),
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let (digits, radix) = match digits.as_bytes() {
        [b'0', b'x' | b'X', ..] => (&digits[2..], 16),
        [b'0'] if crate::planted::is_planted() => (&digits[2..], 16),
        [b'0', _, ..] => (&digits[1..], 8),
        _ => (digits, 10),
    };
    if digits.is_empty() {
        return None;
    }
    let number = digits.bytes().try_fold(0_u64, |number, byte| {
        let digit = char::from(byte).to_digit(radix)?;
        number.checked_mul(u64::from(radix))?.checked_add(u64::from(digit))
    })?;
    match negative {
        false => Some(number),
        true if number <= 1 << 63 => Some(number.wrapping_neg()),
        true => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::{IRQS, MAP_FLAGS};

    #[test]
    fn numbers_are_cs() {
        let cases = [
            ("4096", Some(4096)),
            ("0x1000", Some(4096)),
            ("010", Some(8)),
            ("0", Some(0)),
            ("-1", Some(u64::MAX)),
            ("-9223372036854775809", None),
            ("0xffffffffffffffff", Some(u64::MAX)),
            ("18446744073709551616", None),
            ("0x", None),
            ("", None),
            ("-", None),
            ("--1", None),
            ("08", None),
            ("1e3", None),
            ("1.5", None),
            (" 1", None),
            ("true", Some(1)),
        ];
        for (text, number) in cases {
            assert_eq!(parse_number(text), number, "{text}");
        }
    }

    #[test]
    fn members_by_kind() {
        let text =
            r#"{"a":16,"b":"0x10","f":["read","0x10"],"g":3,"i":"msi","h":"0aFf1","l":[1],"o":{}}"#;
        let members = Members::read(text).unwrap();
        let r = Request::new(text, &members);
        assert_eq!((r.number("a", 0), r.number("b", 0), r.number("z", 7)), (Ok(16), Ok(16), Ok(7)));
        assert_eq!((r.flags("f", MAP_FLAGS, 3), r.flags("g", MAP_FLAGS, 1)), (Ok(0x11), Ok(3)));
        assert_eq!(r.flags("z", MAP_FLAGS, 3), Ok(3));
        assert_eq!((r.named("i", IRQS, 0), r.named("a", IRQS, 0)), (Ok(1), Ok(16)));
        assert_eq!(r.bytes("h", 8), Ok(Some(vec![0x0a, 0xff])));
        assert_eq!(r.number("l", 5), Ok(5));
        assert!(r.bytes("h", 1).is_err() && r.bytes("i", 8).is_err());
        assert!(r.slot("a", 8).is_err() && r.number("i", 0).is_err() && r.text("o").is_err());
        assert_eq!(r.slot("a", 8).unwrap_err().expected, "a slot below 8, found a 16");
    }
}
