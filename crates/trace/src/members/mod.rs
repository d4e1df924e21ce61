//! The members of a line's object, by where they stand in its text: a trace has millions of them, and
//! a string that is looked at once need not be copied.
//!
//! What holds: reading a text as [`Members`] and as `serde_json`'s map gives the same values, and the
//! same complaints.

mod scan;

use std::collections::HashSet;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
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
        let members = AsMembers(text).deserialize(&mut from)?;
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

/// Reads an object whose members are there once: which of two would count, nobody could say.
struct AsMembers<'t>(&'t str);

/// Reads a string.
#[derive(Clone, Copy)]
struct AsText<'t>(&'t str);

/// Reads any value.
#[derive(Clone, Copy)]
struct AsRaw<'t>(&'t str);

impl<'de> DeserializeSeed<'de> for AsMembers<'de> {
    type Value = Members;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Members, D::Error> {
        from.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for AsMembers<'de> {
    type Value = Members;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Members, A::Error> {
        let text = self.0;
        let mut members = Members::default();
        let mut names: HashSet<String> = HashSet::new();
        while let Some(key) = access.next_key_seed(AsText(text))? {
            let name = key.get(text);
            let tag = tag(name);
            let twice = if members.list.len() < MANY {
                members.place(text, tag, name).is_some()
            } else {
                if names.is_empty() {
                    names.extend(members.list.iter().map(|m| m.key.get(text).to_owned()));
                }
                !names.insert(name.to_owned())
            };
            if twice {
                return Err(A::Error::custom(format!("a second member {name:?}")));
            }
            let value = access.next_value_seed(AsRaw(text))?;
            members.push(Member { tag, key, value });
        }
        Ok(members)
    }
}

impl<'de> DeserializeSeed<'de> for AsText<'de> {
    type Value = Text;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Text, D::Error> {
        from.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for AsText<'de> {
    type Value = Text;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_borrowed_str<E>(self, string: &'de str) -> Result<Text, E> {
        Ok(Text::of(string, self.0))
    }

    fn visit_str<E>(self, string: &str) -> Result<Text, E> {
        Ok(Text::Says(string.into()))
    }
}

impl<'de> DeserializeSeed<'de> for AsRaw<'de> {
    type Value = Raw;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Raw, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for AsRaw<'de> {
    type Value = Raw;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any valid JSON value")
    }

    fn visit_unit<E>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }

    fn visit_bool<E>(self, yes: bool) -> Result<Raw, E> {
        Ok(Raw::Bool(yes))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Raw, E> {
        Ok(Raw::Number(number.into()))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Raw, E> {
        Ok(Raw::Number(number.into()))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Raw, E> {
        Ok(Number::from_f64(number).map_or(Raw::Null, Raw::Number))
    }

    fn visit_borrowed_str<E>(self, string: &'de str) -> Result<Raw, E> {
        Ok(Raw::String(Text::of(string, self.0)))
    }

    fn visit_str<E>(self, string: &str) -> Result<Raw, E> {
        Ok(Raw::String(Text::Says(string.into())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Raw, A::Error> {
        let mut list = Vec::new();
        while let Some(value) = access.next_element_seed(self)? {
            list.push(value);
        }
        Ok(Raw::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Raw, A::Error> {
        let mut members = Vec::with_capacity(1);
        while let Some(key) = access.next_key_seed(AsText(self.0))? {
            members.push((key, access.next_value_seed(self)?));
        }
        Ok(Raw::Object(members))
    }
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
