//! What the members of a request say.

use iommu::IovaRange;
use serde_json::Value;
use trace::{Outcome, parse_number};

/// A number of a request.
pub(super) fn number(outcome: &Outcome, member: &str) -> Option<u64> {
    outcome.number(member)
}

/// A number of an answer.
pub(super) fn answered(outcome: &Outcome, member: &str) -> Option<u64> {
    value(outcome.got.get(member)?)
}

fn value(value: &Value) -> Option<u64> {
    match value {
        Value::Number(number) => number.as_u64(),
        Value::String(text) => parse_number(text),
        _ => None,
    }
}

/// The addresses that a request is about.
pub(super) fn range(outcome: &Outcome) -> Option<IovaRange> {
    IovaRange::sized(number(outcome, "iova")?, number(outcome, "size")?)
}

/// Whether a request has a flag.
pub(super) fn has_flag(outcome: &Outcome, word: &str, bit: u64) -> bool {
    match outcome.member("flags") {
        Some(Value::Array(list)) => {
            list.iter().any(|f| f == word || value(f).is_some_and(|n| n & bit != 0))
        }
        Some(other) => value(&other).is_some_and(|n| n & bit != 0),
        None => false,
    }
}

/// What was answered, in a word.
pub(super) fn answer(outcome: &Outcome) -> String {
    match outcome.got.get("errno") {
        Some(Value::String(errno)) => errno.clone(),
        Some(other) => other.to_string(),
        None => match outcome.got.get("killed") {
            Some(signal) => signal.to_string(),
            None => outcome.got.get("ret").map_or_else(|| "nothing".into(), Value::to_string),
        },
    }
}
