//! The memory behind mappings: a replay needs some, and where it is does not matter.

use serde_json::{Value, json};

/// Addresses keep their place in this many bytes, the largest page there is.
const ALIGN: u64 = 0x1_0000;

/// A memory of a replay, as large as the largest use so far.
pub(super) struct Memory {
    name: &'static str,
    kind: &'static str,
    prot: &'static str,
    size: u64,
}

impl Memory {
    /// Readable and writable.
    pub(super) const WRITABLE: Self = Self { name: "rw", kind: "shared", prot: "rw", size: 0 };
    /// Readable.
    pub(super) const READABLE: Self = Self { name: "ro", kind: "shared", prot: "r", size: 0 };
    /// Nothing.
    pub(super) const HOLE: Self = Self { name: "hole", kind: "hole", prot: "none", size: 0 };

    /// An address that stands for `vaddr` with `size` bytes behind it, and the line that makes the
    /// memory when there was not enough.
    pub(super) fn at(&mut self, vaddr: u64, size: u64) -> (String, Option<Value>) {
        let offset = vaddr % ALIGN;
        let needed = size.saturating_add(ALIGN);
        let line = (needed > self.size).then(|| {
            self.size = needed.checked_next_power_of_two().unwrap_or(needed);
            json!({
                "op": "mem",
                "name": self.name,
                "kind": self.kind,
                "prot": self.prot,
                "size": format!("{:#x}", self.size),
                "align": format!("{ALIGN:#x}"),
            })
        });
        (format!("{}+{offset:#x}", self.name), line)
    }
}
