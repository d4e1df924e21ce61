//! The members of a line's object, by where they stand in its text: a trace has millions of them, and
//! a string that is looked at once need not be copied.
//!
//! What holds: reading a text as [`Members`] and as `serde_json`'s map gives the same values, and the
//! same complaints.

mod any;
mod scan;

use serde::de::DeserializeSeed;
use serde_json::{Map, Number, Value};

/// Members from which on their names are hashed to find one that is there twice.
const MANY: usize = 64;

/// The members of an object, each there once, in the order of the text. They are read with the text
/// that they were made of.
#[derive(Clone, Debug, Default)]
pub(crate) struct Members {
    list: Vec<Member>,
    /// A bit for each tag that is, or was, there: most members that are asked for are not.
    tags: u64,
}

/// A member.
#[derive(Clone, Debug)]
struct Member {
    /// Of its name: nearly always enough to tell it from others.
    tag: u32,
    key: Text,
    value: Raw,
}

/// A string: where it stands in the text, or, when it has escapes there, what it says.
#[derive(Clone, Debug)]
pub(crate) enum Text {
    Stands { at: u32, len: u32 },
    Says(Box<str>),
}

/// A value.
#[derive(Clone, Debug)]
pub(crate) enum Raw {
    Null,
    Bool(bool),
    Number(Number),
    String(Text),
    Array(Vec<Raw>),
    Object(Vec<(Text, Raw)>),
}

impl Members {
    /// The members of the object in `text`.
    pub(crate) fn read(text: &str) -> serde_json::Result<Self> {
        if let Some(members) = scan::members(text) {
            return Ok(members);
        }
        let mut from = serde_json::Deserializer::from_str(text);
        let members = any::AsMembers(text).deserialize(&mut from)?;
        from.end()?;
        Ok(members)
    }

    /// The member `name`.
    pub(crate) fn get(&self, text: &str, name: &str) -> Option<&Raw> {
        let place = self.place(text, tag(name), name)?;
        self.list.get(place).map(|m| &m.value)
    }

    /// Takes the member `name` out.
    pub(crate) fn remove(&mut self, text: &str, name: &str) -> Option<Raw> {
        let place = self.place(text, tag(name), name)?;
        Some(self.list.remove(place).value)
    }

    /// The same as a map.
    pub(crate) fn to_map(&self, text: &str) -> Map<String, Value> {
        let own = |m: &Member| (m.key.get(text).to_owned(), m.value.to_value(text));
        self.list.iter().map(own).collect()
    }

    fn place(&self, text: &str, tag: u32, name: &str) -> Option<usize> {
        if self.tags & bit(tag) == 0 {
            return None;
        }
        self.list.iter().position(|m| m.is_called(text, tag, name))
    }

    fn push(&mut self, member: Member) {
        self.tags |= bit(member.tag);
        self.list.push(member);
    }
}

/// The length of a name, as far as that fits, its first and its last byte.
#[inline]
fn tag(name: &str) -> u32 {
    let [first, last] =
        [name.bytes().next(), name.bytes().next_back()].map(Option::unwrap_or_default);
    u32::from_le_bytes([first, last, name.len().min(0xff) as u8, 0])
}

/// The bit of a tag.
#[inline]
fn bit(tag: u32) -> u64 {
    1 << (tag.wrapping_mul(0x9e37_79b9) >> 26)
}

impl Member {
    /// Whether this is its name, whose tag is `tag`.
    #[inline]
    fn is_called(&self, text: &str, tag: u32, name: &str) -> bool {
        self.tag == tag && self.key.says(text, name)
    }
}

impl Text {
    /// The place of `part`, which is a part of `text`, in it.
    fn of(part: &str, text: &str) -> Self {
        let at = part.as_ptr().addr().wrapping_sub(text.as_ptr().addr());
        match (u32::try_from(at), u32::try_from(part.len())) {
            (Ok(at), Ok(len)) => Self::Stands { at, len },
            _ => Self::Says(part.into()),
        }
    }

    /// Whether it says `name`.
    #[inline]
    fn says(&self, text: &str, name: &str) -> bool {
        match self {
            Self::Stands { at, len } => {
                let at = *at as usize;
                text.as_bytes().get(at..at + *len as usize) == Some(name.as_bytes())
            }
            Self::Says(own) => **own == *name,
        }
    }

    /// What it says.
    pub(crate) fn get<'a>(&'a self, text: &'a str) -> &'a str {
        match self {
            Self::Stands { at, len } => {
                let at = *at as usize;
                text.get(at..at + *len as usize).unwrap_or_default()
            }
            Self::Says(text) => text,
        }
    }
}

impl Raw {
    /// The same as a value of its own.
    pub(crate) fn to_value(&self, text: &str) -> Value {
        match self {
            Self::Null => Value::Null,
            Self::Bool(yes) => Value::Bool(*yes),
            Self::Number(number) => Value::Number(number.clone()),
            Self::String(string) => Value::String(string.get(text).to_owned()),
            Self::Array(list) => list.iter().map(|value| value.to_value(text)).collect(),
            Self::Object(members) => Value::Object(map(members, text)),
        }
    }

    /// Whether this is the scalar `value`.
    pub(crate) fn is_scalar(&self, text: &str, value: &Value) -> bool {
        match (self, value) {
            (Self::Null, Value::Null) => true,
            (Self::Bool(a), Value::Bool(b)) => a == b,
            (Self::Number(a), Value::Number(b)) => a == b,
            (Self::String(a), Value::String(b)) => a.get(text) == b,
            _ => false,
        }
    }
}

/// In an object that is a value, the last of two members of one name counts, as in every reader of
/// JSON values.
fn map(members: &[(Text, Raw)], text: &str) -> Map<String, Value> {
    let own = |(key, value): &(Text, Raw)| (key.get(text).to_owned(), value.to_value(text));
    members.iter().map(own).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Read both ways, a text says the same.
    fn same(text: &str) {
        let ours = Members::read(text).map(|members| members.to_map(text));
        let theirs: serde_json::Result<Map<String, Value>> = serde_json::from_str(text);
        match (ours, theirs) {
            (Ok(ours), Ok(theirs)) => {
                let order = |map: &Map<String, Value>| map.keys().cloned().collect::<Vec<_>>();
                assert_eq!((order(&ours), &ours), (order(&theirs), &theirs), "{text}");
            }
            (ours, theirs) => {
                let [ours, theirs] = [ours, theirs].map(|r| r.unwrap_err().to_string());
                assert_eq!(ours, theirs, "{text}");
            }
        }
    }

    #[test]
    fn values_and_complaints_are_serdes() {
        let values = [
            "null",
            "true",
            "0",
            "-0",
            "-1",
            "18446744073709551615",
            "18446744073709551616",
            "1.50",
            "1e3",
            "1e400",
            r#""""#,
            r#""0x10""#,
            r#""a\"b\u00e9\n""#,
            "\"\u{e9}\"",
            "[]",
            r#"[1,["x",{}],null]"#,
            r#"{"a":1,"b":{"c":"d"},"a":2}"#,
            r#""\ud800""#,
            "\"\t\"",
            "01",
            "nul",
            "[1,]",
            "{,}",
            "-",
            "00",
            "-01",
            "1.",
            "123456789012345678",
            "-123456789012345678",
            "1234567890123456789",
            "truex",
            "\"",
            "[1 2]",
            "[,]",
            "{\"a\"}",
            "[[[[[[[[[1]]]]]]]]]",
        ];
        for value in values {
            same(&format!("{{\"op\":{value}, \"t\\u0061il\" : [{value}] }}"));
            same(&format!(
                " {{\"op\"\t: {value} , \"a\":[ {value},{value} ], \"o\":{{\"a\":{value}}}}}  "
            ));
            same(&format!(" {{\"op\":{value}"));
            same(&format!("{{\"op\":{value}}} {value}"));
        }
        same("");
        same("{");
        same("{}");
        same("{\"a\":1,}");
        same("{\"a\":1");
        same(&format!("{{\"a\":{}", "[".repeat(1000)));
    }

    #[test]
    fn members_are_found_by_what_their_names_say() {
        let text = r#"{"op":"map","\u0061":{"ret":0},"n":16}"#;
        let mut members = Members::read(text).unwrap();
        let name = |raw: Option<&Raw>| raw.map(|raw| raw.to_value(text));
        assert_eq!(name(members.get(text, "op")), Some("map".into()));
        assert_eq!(name(members.remove(text, "a").as_ref()), Some(serde_json::json!({"ret": 0})));
        assert!(members.get(text, "a").is_none() && members.get(text, "x").is_none());
        assert!(members.get(text, "n").unwrap().is_scalar(text, &16.into()));
        assert!(!members.get(text, "n").unwrap().is_scalar(text, &16.0.into()));
    }

    #[test]
    fn a_second_member_is_found_among_few_and_among_many() {
        assert!(Members::read(r#"{"a":1,"\u0061":2}"#).is_err());
        assert!(Members::read(r#"{"bitmap_size":1,"bitmap_pgsize":2,"bitmap_":3}"#).is_ok());
        for count in [1, MANY - 1, MANY, MANY + 1, 5000] {
            let all: Vec<String> = (0..count).map(|n| format!("\"{n}\":{n}")).collect();
            let text = format!("{{{}}}", all.join(","));
            assert_eq!(Members::read(&text).unwrap().list.len(), count);
            for again in [0, count - 1] {
                let text = format!("{{{},\"{again}\":0}}", all.join(","));
                let error = Members::read(&text).unwrap_err().to_string();
                assert!(error.starts_with(&format!("a second member \"{again}\"")), "{error}");
            }
        }
    }
}
