//! The machine that a tree of `/sys` and `/proc` describes, as a header (docs/trace-format.md).
//!
//! Files only; whoever can ask containers gives [`capture_asking`] a way to. What nobody asks is
//! derived: the address width from VT-d's registers, or taken for granted and said so. The formats
//! are those of Linux: `Documentation/ABI/testing/sysfs-kernel-iommu_groups`,
//! `sysfs-class-iommu-*`, `sysfs-bus-pci`; VT-d's capability registers from its specification 4.1,
//! 11.4.2 and 11.4.3.

mod asking;
mod iommus;
mod machine;
mod pci;
mod tree;

use std::path::Path;

use serde_json::{Map, Value};

use crate::BadInput;

pub use asking::{Ask, Said, Silent};

/// What a tree describes.
#[derive(Clone, Debug)]
pub enum Capture {
    /// A machine with an IOMMU: its header.
    Machine(Map<String, Value>),
    /// A machine without: a sentence on what that means.
    NoIommu(String),
}

/// Captures the machine of the tree at `root`, which has `sys` and `proc` in it.
///
/// # Errors
/// A file that is there cannot be read, or does not have the format it should: which, and where.
pub fn capture(root: &Path) -> Result<Capture, BadInput> {
    Ok(machine::capture(root, None)?.0)
}

/// As [`capture`], of the machine that `ask` is about: a container's own word on address width, page
/// sizes, coherency and the limit on mappings comes before what is derived. Also returns why
/// containers were not asked, a sentence each; the header has them in `not_known`.
///
/// # Errors
/// As of [`capture`].
pub fn capture_asking(root: &Path, ask: Ask<'_>) -> Result<(Capture, Vec<String>), BadInput> {
    machine::capture(root, Some(ask))
}
