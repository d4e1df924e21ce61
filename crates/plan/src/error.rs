//! Bad input: which file or argument, where in it, and what was expected there.

use std::fmt;

/// Input that cannot be used. Prints as one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadInput {
    /// The file, or the argument as it was given.
    pub place: String,
    /// Line and column in a file, from 1, where known.
    pub at: Option<(usize, usize)>,
    /// A clause: what was expected, or what is wrong.
    pub what: String,
}

impl BadInput {
    /// Something about a whole file or argument.
    pub fn new(place: impl fmt::Display, what: impl Into<String>) -> Self {
        Self { place: place.to_string(), at: None, what: what.into() }
    }

    /// Something at a place in a file.
    pub fn at(
        place: impl fmt::Display,
        line: usize,
        column: usize,
        what: impl Into<String>,
    ) -> Self {
        Self { at: Some((line, column)), ..Self::new(place, what) }
    }
}

impl fmt::Display for BadInput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A path may hold anything; what is printed stays one line.
        let one_line = |text: &str| text.replace(['\n', '\r'], " ");
        write!(f, "{}", one_line(&self.place))?;
        if let Some((line, column)) = self.at {
            write!(f, ":{line}:{column}")?;
        }
        write!(f, ": {}", one_line(&self.what))
    }
}

impl std::error::Error for BadInput {}
