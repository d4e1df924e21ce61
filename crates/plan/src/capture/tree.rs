//! The files of a tree, small and of any content.

use std::fs;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use crate::BadInput;

/// Bytes of a file that are read; sysfs files have a page.
const MAX_FILE: u64 = 64 * 1024;

/// A directory with `sys` and `proc` in it.
pub(super) struct Tree {
    root: PathBuf,
}

impl Tree {
    /// The tree at a directory.
    pub(super) fn at(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// Whether it is this machine's own.
    pub(super) fn is_this_machine(&self) -> bool {
        self.root == Path::new("/")
    }

    /// A path for a message.
    pub(super) fn show(&self, path: &str) -> String {
        self.root.join(path).display().to_string()
    }

    /// Whether something is there, be it a link that leads nowhere.
    pub(super) fn exists(&self, path: &str) -> bool {
        fs::symlink_metadata(self.root.join(path)).is_ok()
    }

    /// The names in a directory, sorted; none where it is not there.
    pub(super) fn list(&self, path: &str) -> Result<Vec<String>, BadInput> {
        let bad = |error: std::io::Error| {
            BadInput::new(self.show(path), format!("cannot be read: {error}"))
        };
        let entries = match fs::read_dir(self.root.join(path)) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(bad)?,
        };
        let mut names = Vec::new();
        for entry in entries {
            let name = entry.map_err(bad)?.file_name();
            let not_text = |_| BadInput::new(self.show(path), "expected names in UTF-8");
            names.push(name.into_string().map_err(not_text)?);
        }
        names.sort();
        Ok(names)
    }

    /// A file's bytes; `None` where it is not there.
    pub(super) fn bytes(&self, path: &str) -> Result<Option<Vec<u8>>, BadInput> {
        let bad = |error: std::io::Error| {
            BadInput::new(self.show(path), format!("cannot be read: {error}"))
        };
        let file = match fs::File::open(self.root.join(path)) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            file => file.map_err(bad)?,
        };
        let mut bytes = Vec::new();
        file.take(MAX_FILE).read_to_end(&mut bytes).map_err(bad)?;
        Ok(Some(bytes))
    }

    /// A file's lines; none where it is not there.
    pub(super) fn lines(&self, path: &str) -> Result<Vec<String>, BadInput> {
        let Some(bytes) = self.bytes(path)? else { return Ok(Vec::new()) };
        let text = String::from_utf8(bytes).map_err(|error| {
            let good = error.utf8_error().valid_up_to();
            let line = error.as_bytes()[..good].iter().filter(|b| **b == b'\n').count() + 1;
            BadInput::at(self.show(path), line, 1, "expected UTF-8 text")
        })?;
        Ok(text.lines().map(str::to_owned).collect())
    }

    /// A file's first line, trimmed; `None` where it is not there.
    pub(super) fn line(&self, path: &str) -> Result<Option<String>, BadInput> {
        let lines = self.lines(path)?;
        Ok(lines.first().map(|line| line.trim().to_owned()))
    }

    /// A file that consists of a hexadecimal number.
    pub(super) fn hexadecimal(&self, path: &str) -> Result<u64, BadInput> {
        let text = self.line(path)?.unwrap_or_default();
        let digits = text.strip_prefix("0x").unwrap_or(&text);
        u64::from_str_radix(digits, 16).map_err(|_| {
            let found: String = text.chars().take(40).collect();
            BadInput::at(
                self.show(path),
                1,
                1,
                format!("expected a hexadecimal number, found {found:?}"),
            )
        })
    }

    /// The last part of where a link leads.
    pub(super) fn link(&self, path: &str) -> Option<String> {
        let target = fs::read_link(self.root.join(path)).ok()?;
        target.file_name()?.to_str().map(str::to_owned)
    }
}
