//! The words that requests use for numbers.

use vfio::Abi;

/// Words and what they mean.
pub(crate) type Names = &'static [(&'static str, u32)];

pub(crate) const MAP_FLAGS: Names =
    &[("read", 1), ("write", 2), ("vaddr", 4), ("reserved_msi_iova", 1 << 31)];
pub(crate) const UNMAP_FLAGS: Names =
    &[("get_dirty_bitmap", 1), ("all", 2), ("vaddr", 4), ("reserved_msi_iova", 1 << 31)];
const MAP_FLAGS_V6: Names = &[("read", 1), ("write", 2), ("reserved_msi_iova", 4)];
const UNMAP_FLAGS_V6: Names = &[("get_dirty_bitmap", 1), ("all", 2), ("reserved_msi_iova", 4)];
pub(crate) const DIRTY_FLAGS: Names = &[("start", 1), ("stop", 2), ("get_bitmap", 4)];
pub(crate) const IOMMU_TYPES: Names = &[
    ("type1", 1),
    ("spapr_tce", 2),
    ("type1v2", 3),
    ("dma_cc", 4),
    ("eeh", 5),
    ("type1_nesting", 6),
    ("spapr_tce_v2", 7),
    ("noiommu", 8),
    ("unmap_all", 9),
    ("update_vaddr", 10),
    ("msi_windows", 0x8001),
];
pub(crate) const RESERVED_KINDS: Names = &[
    ("direct", 0),
    ("direct-relaxable", 1),
    ("reserved", 2),
    ("msi", 3),
    ("sw-msi", 4),
    ("window", 5),
];
pub(crate) const REGIONS: Names = &[
    ("bar0", 0),
    ("bar1", 1),
    ("bar2", 2),
    ("bar3", 3),
    ("bar4", 4),
    ("bar5", 5),
    ("rom", 6),
    ("config", 7),
    ("vga", 8),
];
pub(crate) const IRQS: Names = &[("intx", 0), ("msi", 1), ("msix", 2), ("err", 3), ("req", 4)];
pub(crate) const IRQ_FLAGS: Names = &[
    ("data_none", 1),
    ("data_bool", 2),
    ("data_eventfd", 4),
    ("action_mask", 8),
    ("action_unmask", 16),
    ("action_trigger", 32),
];

/// Flags of a map, in an ABI. Where there are no windows their flag has a word all the same, so that
/// a script can show it refused.
pub(crate) fn map_flags(abi: Abi) -> Names {
    if abi == Abi::MsiV6 { MAP_FLAGS_V6 } else { MAP_FLAGS }
}

/// The same for an unmap.
pub(crate) fn unmap_flags(abi: Abi) -> Names {
    if abi == Abi::MsiV6 { UNMAP_FLAGS_V6 } else { UNMAP_FLAGS }
}

/// The number of a word.
pub(crate) fn number_of(names: Names, word: &str) -> Option<u32> {
    names.iter().find(|(name, _)| *name == word).map(|&(_, number)| number)
}

/// The words, for people.
pub(crate) fn words(names: Names) -> String {
    names.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
}
