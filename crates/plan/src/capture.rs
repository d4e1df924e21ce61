//! The machine that a tree of `/sys` and `/proc` describes, as a header (docs/trace-format.md).
//!
//! Text files only; no device is opened and no ioctl made, so what a container's GET_INFO would say
//! is derived: the address width from VT-d's registers, or taken for granted and said so. The
//! formats are those of Linux: `Documentation/ABI/testing/sysfs-kernel-iommu_groups`,
//! `sysfs-class-iommu-*`, `sysfs-bus-pci`; VT-d's capability registers from its specification 4.1,
//! 11.4.2 and 11.4.3.

mod iommus;
mod machine;
mod pci;
mod tree;

use std::path::Path;

use serde_json::{Map, Value};

use crate::BadInput;

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
    machine::capture(root)
}
