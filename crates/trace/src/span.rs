//! Where the members of a JSON object stand in its text, so that a line can be answered without
//! rewriting what it says, and an error can name a column.

use std::ops::Range;

/// A member of an object: where its key (with quotes) and its value stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) key: Range<usize>,
    pub(crate) value: Range<usize>,
}

/// The members of the object in `text`, which is valid JSON.
pub(crate) fn members(text: &str) -> Vec<Member> {
    let bytes = text.as_bytes();
    let mut found = Vec::new();
    let mut at = skip_space(bytes, 0) + 1;
    loop {
        at = skip_space(bytes, at);
        if bytes.get(at) != Some(&b'"') {
            return found;
        }
        let key = at..skip_string(bytes, at);
        let colon = skip_space(bytes, key.end);
        let start = skip_space(bytes, colon + 1);
        let end = skip_value(bytes, start);
        found.push(Member { key, value: start..end });
        at = skip_space(bytes, end);
        if bytes.get(at) != Some(&b',') {
            return found;
        }
        at += 1;
    }
}

/// The column, from 1, of the value of member `key`, or of the object when it has none.
pub(crate) fn column(text: &str, key: &str) -> usize {
    let quoted = serde_json::Value::from(key).to_string();
    members(text)
        .into_iter()
        .rfind(|m| text.get(m.key.clone()) == Some(quoted.as_str()))
        .map_or(1, |m| m.value.start + 1)
}

/// `text` with member `want` set to `answer`, at the end; the other members as they stand.
pub(crate) fn with_want(text: &str, answer: &str) -> String {
    let mut rest = String::with_capacity(text.len() + answer.len() + 10);
    let members = members(text);
    let mut kept = 0;
    for member in &members {
        if text.get(member.key.clone()) != Some("\"want\"") {
            if kept > 0 {
                rest.push(',');
            }
            rest.push_str(text.get(member.key.start..member.value.end).unwrap_or_default());
            kept += 1;
        }
    }
    if kept == members.len() {
        // As the recording program does it: the text up to the closing brace, then the answer.
        let body = text.rfind('}').and_then(|end| text.get(..end)).unwrap_or(text);
        let comma = if kept > 0 { "," } else { "" };
        return format!("{body}{comma}\"want\":{answer}}}");
    }
    let comma = if kept > 0 { "," } else { "" };
    format!("{{{rest}{comma}\"want\":{answer}}}")
}

fn skip_space(bytes: &[u8], mut at: usize) -> usize {
    while bytes.get(at).is_some_and(u8::is_ascii_whitespace) {
        at += 1;
    }
    at
}

/// Past the string that starts at `at`.
fn skip_string(bytes: &[u8], mut at: usize) -> usize {
    at += 1;
    while let Some(&byte) = bytes.get(at) {
        at += match byte {
            b'"' => return at + 1,
            b'\\' => 2,
            _ => 1,
        };
    }
    at
}

/// Past the value that starts at `at`.
fn skip_value(bytes: &[u8], mut at: usize) -> usize {
    let mut depth = 0_usize;
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'"' => at = skip_string(bytes, at),
            b'{' | b'[' => {
                depth += 1;
                at += 1;
            }
            b'}' | b']' if depth == 0 => return at,
            b'}' | b']' => {
                depth -= 1;
                at += 1;
            }
            b',' if depth == 0 => return at,
            _ if depth == 0 && byte.is_ascii_whitespace() => return at,
            _ => at += 1,
        }
        if depth == 0 && matches!(bytes.get(at), Some(b',' | b'}' | b']') | None) {
            return at;
        }
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = r#" {"op":"map", "x" : [1,{"want":2}] ,"want":{"ret":0},"n":null}"#;

    #[test]
    fn members_and_columns() {
        let values: Vec<&str> = members(LINE).into_iter().map(|m| &LINE[m.value]).collect();
        assert_eq!(values, [r#""map""#, r#"[1,{"want":2}]"#, r#"{"ret":0}"#, "null"]);
        assert_eq!(column(LINE, "x"), 21);
        assert_eq!(column(LINE, "nothing"), 1);
        assert_eq!(members("{}"), []);
    }

    #[test]
    fn a_want_is_added_or_replaced() {
        assert_eq!(with_want(r#"{"op":"x","a": 1}"#, "{}"), r#"{"op":"x","a": 1,"want":{}}"#);
        assert_eq!(
            with_want(LINE, r#"{"ret":1}"#),
            r#"{"op":"map","x" : [1,{"want":2}],"n":null,"want":{"ret":1}}"#
        );
        assert_eq!(with_want(r#"{"want":3}"#, "4"), r#"{"want":4}"#);
    }
}
