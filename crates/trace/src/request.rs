//! One request: an operation with members, read as the recording program reads them.
//!
//! Every scalar is text: `4096`, `"4096"` and `"0x1000"` are the same number, `true` is 1. Numbers
//! are C's: `0x` is hexadecimal, a leading 0 octal, a minus sign wraps.

use std::borrow::Cow;

use serde_json::{Map, Value};

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

/// A request's members.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request<'a>(pub(crate) &'a Map<String, Value>);

type Read<T> = Result<T, BadMember>;

impl<'a> Request<'a> {
    /// Complains about a member.
    pub(crate) fn bad<T>(self, member: &str, expected: impl Into<String>) -> Read<T> {
        let mut expected = expected.into();
        if let Some(value) = self.0.get(member) {
            let shown: String = value.to_string().chars().take(40).collect();
            expected = format!("{expected}, found {member} {shown}");
        }
        Err(BadMember { member: member.to_owned(), expected })
    }

    /// Whether there is such a member.
    pub(crate) fn has(self, member: &str) -> bool {
        self.0.contains_key(member)
    }

    /// A scalar as text; lists count as absent, as in the recording program.
    pub(crate) fn text(self, member: &str) -> Read<Option<Cow<'a, str>>> {
        match self.0.get(member) {
            None | Some(Value::Array(_)) => Ok(None),
            Some(value) => self.scalar(member, value).map(Some),
        }
    }

    fn scalar(self, member: &str, value: &'a Value) -> Read<Cow<'a, str>> {
        match value {
            Value::String(text) => Ok(Cow::Borrowed(text)),
            Value::Number(number) => Ok(Cow::Owned(number.to_string())),
            Value::Bool(true) => Ok(Cow::Borrowed("true")),
            Value::Bool(false) => Ok(Cow::Borrowed("false")),
            Value::Null => Ok(Cow::Borrowed("null")),
            Value::Array(_) | Value::Object(_) => {
                self.bad(member, format!("a number or a string, not {}", kind(value)))
            }
        }
    }

    /// A scalar as text, or `default`.
    pub(crate) fn text_or(self, member: &str, default: &'a str) -> Read<Cow<'a, str>> {
        Ok(self.text(member)?.unwrap_or(Cow::Borrowed(default)))
    }

    /// A number, or `default`.
    pub(crate) fn number(self, member: &str, default: u64) -> Read<u64> {
        match self.text(member)? {
            None => Ok(default),
            Some(text) => match parse_number(&text) {
                Some(number) => Ok(number),
                None => self.bad(member, "a number of at most 64 bits"),
            },
        }
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
        match self.0.get(member) {
            Some(Value::Array(values)) => {
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

/// A number as C's `strtoull(.., 0)` reads it, all of the text.
pub(crate) fn parse_number(text: &str) -> Option<u64> {
    match text {
        "true" => return Some(1),
        "false" => return Some(0),
        _ => {}
    }
    let (negative, digits) = match text.as_bytes().first()? {
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
    if !digits.bytes().all(|b| b.is_ascii_alphanumeric()) {
        return None;
    }
    let number = u64::from_str_radix(digits, radix).ok()?;
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

    fn members(text: &str) -> Map<String, Value> {
        serde_json::from_str(text).unwrap()
    }

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
        let map = members(
            r#"{"a":16,"b":"0x10","f":["read","0x10"],"g":3,"i":"msi","h":"0aFf1","l":[1],"o":{}}"#,
        );
        let r = Request(&map);
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
