//! Colour, for terminals that want it.

use std::fmt::Display;

/// Whether to colour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Style {
    /// Escape sequences are written.
    pub colour: bool,
}

impl Style {
    /// Coloured where output goes to a terminal and nobody says otherwise (`NO_COLOR`, `TERM=dumb`).
    #[must_use]
    pub fn for_output(is_terminal: bool) -> Self {
        let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|value| value == "dumb");
        Self { colour: is_terminal && !unwanted && !dumb }
    }

    /// What matters.
    #[must_use]
    pub fn bold(self, text: impl Display) -> String {
        self.paint("1", text)
    }

    /// What is well.
    #[must_use]
    pub fn good(self, text: impl Display) -> String {
        self.paint("32", text)
    }

    /// What is not.
    #[must_use]
    pub fn bad(self, text: impl Display) -> String {
        self.paint("1;31", text)
    }

    /// What to think about.
    #[must_use]
    pub fn warn(self, text: impl Display) -> String {
        self.paint("33", text)
    }

    /// What matters less.
    #[must_use]
    pub fn dim(self, text: impl Display) -> String {
        self.paint("2", text)
    }

    fn paint(self, code: &str, text: impl Display) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_string() }
    }
}
