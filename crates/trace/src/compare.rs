//! Recorded answers against ours, field by field.

use std::fmt;

use serde_json::{Map, Value};

use crate::fields::Fields;
use crate::members::Raw;

/// A field in which two answers differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The field: `errno`, `caps[2].avail`.
    pub field: String,
    /// What was recorded; nothing when the field was not there.
    pub want: Option<Value>,
    /// What we answered.
    pub got: Option<Value>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let show = |value: &Option<Value>| match value {
            Some(value) => value.to_string(),
            None => "nothing".to_owned(),
        };
        write!(f, "{}: expected {}, got {}", self.field, show(&self.want), show(&self.got))
    }
}

/// Whether `got` is, member by member, the object `want` of `text`. Most answers are; where this
/// cannot tell, [`compare`] can.
pub(crate) fn same(text: &str, want: &Raw, got: &Fields) -> bool {
    let Raw::Object(want) = want else { return false };
    let mut both = want.iter().zip(got.iter());
    want.len() == got.len()
        && both.all(|((name, want), (own, got))| name.get(text) == own && want.is_scalar(text, got))
}

/// The fields in which `got` is not what was recorded; in the recording's order, then ours.
#[must_use]
pub fn compare(want: &Map<String, Value>, got: &Map<String, Value>) -> Vec<Difference> {
    let mut differences = Vec::new();
    objects("", want, got, &mut differences);
    differences
}

fn objects(
    path: &str,
    want: &Map<String, Value>,
    got: &Map<String, Value>,
    found: &mut Vec<Difference>,
) {
    let dot = if path.is_empty() { "" } else { "." };
    for (name, value) in want {
        values(format!("{path}{dot}{name}"), Some(value), got.get(name), found);
    }
    for (name, value) in got.iter().filter(|(name, _)| !want.contains_key(*name)) {
        values(format!("{path}{dot}{name}"), None, Some(value), found);
    }
}

fn values(field: String, want: Option<&Value>, got: Option<&Value>, found: &mut Vec<Difference>) {
    if want == got {
        return;
    }
    match (want, got) {
        (Some(Value::Object(want)), Some(Value::Object(got))) => objects(&field, want, got, found),
        (Some(Value::Array(want)), Some(Value::Array(got))) => {
            for at in 0..want.len().max(got.len()) {
                values(format!("{field}[{at}]"), want.get(at), got.get(at), found);
            }
        }
        _ => found.push(Difference { field, want: want.cloned(), got: got.cloned() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_named_by_path() {
        let map = |text: &str| serde_json::from_str::<Map<String, Value>>(text).unwrap();
        let want = map(r#"{"ret":0,"caps":[{"id":1,"r":[["0x0","0x1"]]},{"id":2}],"a":1}"#);
        let got = map(r#"{"ret":0,"caps":[{"id":1,"r":[["0x0","0x2"]]}],"b":2}"#);
        let found: Vec<String> = compare(&want, &got).iter().map(ToString::to_string).collect();
        assert_eq!(
            found,
            [
                r#"caps[0].r[0][1]: expected "0x1", got "0x2""#,
                r#"caps[1]: expected {"id":2}, got nothing"#,
                "a: expected 1, got nothing",
                "b: expected nothing, got 2",
            ]
        );
        assert_eq!(compare(&want, &want), []);
    }
}
