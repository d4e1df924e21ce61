//! Any line, as serde reads it, which knows all of JSON.

use std::collections::HashSet;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::Number;

use super::{MANY, Member, Members, Raw, Text, tag};

/// Reads an object whose members are there once: which of two would count, nobody could say.
pub(super) struct AsMembers<'t>(pub(super) &'t str);

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
