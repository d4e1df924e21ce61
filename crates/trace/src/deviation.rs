//! Answers in which we knowingly differ from a recording. Never more than 20 rows, each of an
//! operation, a field, a dialect and a condition: none knows a file or a request's number.

use iommu::Dialect;
use serde_json::{Map, Value};

use crate::compare::Difference;

/// Rows there may be.
pub const MAX_ROWS: usize = 20;

/// One way in which we knowingly differ.
#[derive(Clone, Copy, Debug)]
pub struct Deviation {
    /// The operation (`op`).
    pub operation: &'static str,
    /// The field of the answer, as [`Difference::field`] names it.
    pub field: &'static str,
    /// The dialect's name; every dialect when empty.
    pub dialect: &'static str,
    /// When, for people.
    pub condition: &'static str,
    /// The same for us: the request and the difference.
    pub applies: fn(&Map<String, Value>, &Difference) -> bool,
    /// Why we differ.
    pub why: &'static str,
}

/// The rows.
pub const KNOWN: &[Deviation] = &[];

/// The row that explains a difference.
#[must_use]
pub fn find(
    dialect: &Dialect,
    request: &Map<String, Value>,
    difference: &Difference,
) -> Option<&'static Deviation> {
    let operation = request.get("op").and_then(Value::as_str)?;
    KNOWN.iter().find(|row| {
        row.operation == operation
            && row.field == difference.field
            && (row.dialect.is_empty() || row.dialect == dialect.name)
            && (row.applies)(request, difference)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_short_and_says_why() {
        assert!(KNOWN.len() <= MAX_ROWS);
        for row in KNOWN {
            assert!(!row.condition.is_empty() && !row.why.is_empty() && !row.field.is_empty());
            assert!(row.dialect.is_empty() || Dialect::named(row.dialect).is_some());
        }
    }
}
