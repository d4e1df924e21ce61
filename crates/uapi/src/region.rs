//! Regions of a device: BARs, expansion ROM, configuration space, VGA.
//!
//! A region is a part of the device fd's file: its index in the bits from 40 up, the offset within
//! it below. Source: linux/vfio.h.

use crate::{
    cap::{Capability, ListCapability},
    macros::{constants, flags, numbers, wire},
};

wire! {
    /// In and out of `VFIO_DEVICE_GET_REGION_INFO`; capabilities follow.
    #[doc(alias = "vfio_region_info")]
    RegionInfo {
        /// In: size of the caller's buffer in bytes. Out: the size needed, when it was too small
        /// for the capabilities.
        argsz: u32,
        /// Out: [`RegionFlags`].
        flags: u32,
        /// In: which region.
        index: u32,
        /// Out: bytes from the start of this structure to the first capability.
        cap_offset: u32,
        /// Out: bytes; 0 for a region the device does not have.
        size: u64,
        /// Out: where the region starts in the device fd's file, in bytes.
        offset: u64,
    }
}

impl RegionInfo {
    /// The smallest `argsz` accepted, in bytes.
    pub const MIN_ARGSZ: u32 = 32;
}

flags! {
    /// What a region allows, in [`RegionInfo::flags`].
    RegionFlags {
        /// `pread`.
        READ = 1 << 0, "VFIO_REGION_INFO_FLAG_READ";
        /// `pwrite`.
        WRITE = 1 << 1, "VFIO_REGION_INFO_FLAG_WRITE";
        /// `mmap`.
        MMAP = 1 << 2, "VFIO_REGION_INFO_FLAG_MMAP";
        /// There are capabilities.
        CAPS = 1 << 3, "VFIO_REGION_INFO_FLAG_CAPS";
    }
}

numbers! {
    /// A region every PCI device has an index for.
    RegionIndex {
        /// BAR 0.
        Bar0 = 0, "VFIO_PCI_BAR0_REGION_INDEX";
        /// BAR 1.
        Bar1 = 1, "VFIO_PCI_BAR1_REGION_INDEX";
        /// BAR 2.
        Bar2 = 2, "VFIO_PCI_BAR2_REGION_INDEX";
        /// BAR 3.
        Bar3 = 3, "VFIO_PCI_BAR3_REGION_INDEX";
        /// BAR 4.
        Bar4 = 4, "VFIO_PCI_BAR4_REGION_INDEX";
        /// BAR 5.
        Bar5 = 5, "VFIO_PCI_BAR5_REGION_INDEX";
        /// Expansion ROM.
        Rom = 6, "VFIO_PCI_ROM_REGION_INDEX";
        /// Configuration space.
        Config = 7, "VFIO_PCI_CONFIG_REGION_INDEX";
        /// Legacy VGA ranges.
        Vga = 8, "VFIO_PCI_VGA_REGION_INDEX";
    }
}

impl RegionIndex {
    /// The number of the BAR, when it is one.
    #[must_use]
    pub const fn bar(self) -> Option<u8> {
        match self {
            Self::Bar0 => Some(0),
            Self::Bar1 => Some(1),
            Self::Bar2 => Some(2),
            Self::Bar3 => Some(3),
            Self::Bar4 => Some(4),
            Self::Bar5 => Some(5),
            Self::Rom | Self::Config | Self::Vga => None,
        }
    }
}

/// Indexes below this are [`RegionIndex`]; a device's own start here.
pub const VFIO_PCI_NUM_REGIONS: u32 = 9;

/// A region's index stands in the file offset's bits from this one up.
///
/// Not in linux/vfio.h: vfio-pci's choice, which programs are told through
/// [`RegionInfo::offset`].
#[doc(alias = "VFIO_PCI_OFFSET_SHIFT")]
pub const OFFSET_SHIFT: u32 = 40;

/// The bits of a file offset below [`OFFSET_SHIFT`].
#[doc(alias = "VFIO_PCI_OFFSET_MASK")]
pub const OFFSET_MASK: u64 = (1 << OFFSET_SHIFT) - 1;

/// Where region `index` starts in the device fd's file, in bytes; bits beyond 64 are lost.
#[must_use]
pub const fn region_offset(index: u32) -> u64 {
    (index as u64) << OFFSET_SHIFT
}

/// The region's index and the offset within it, in bytes, of an offset in the device fd's file.
#[must_use]
pub const fn split_offset(offset: u64) -> (u32, u64) {
    ((offset >> OFFSET_SHIFT) as u32, offset & OFFSET_MASK)
}

constants! {
    /// Capabilities of [`RegionInfo`].
    CAPABILITIES: u16 {
        /// [`SparseMmapCap`].
        VFIO_REGION_INFO_CAP_SPARSE_MMAP = 1;
        /// [`RegionTypeCap`].
        VFIO_REGION_INFO_CAP_TYPE = 2;
        /// [`MsixMappableCap`].
        VFIO_REGION_INFO_CAP_MSIX_MAPPABLE = 3;
        /// POWER9 NVLink; no longer used.
        VFIO_REGION_INFO_CAP_NVLINK2_SSATGT = 4;
        /// POWER9 NVLink; no longer used.
        VFIO_REGION_INFO_CAP_NVLINK2_LNKSPD = 5;
    }
}

wire! {
    /// Capability, after its header: the only parts that can be mapped, as [`SparseMmapArea`] each.
    #[doc(alias = "vfio_region_info_cap_sparse_mmap")]
    SparseMmapCap {
        /// How many areas follow.
        nr_areas: u32,
        /// Zero.
        reserved: u32,
    }
}

impl Capability for SparseMmapCap {
    const ID: u16 = VFIO_REGION_INFO_CAP_SPARSE_MMAP;
    const VERSION: u16 = 1;
}

impl ListCapability for SparseMmapCap {
    type Item = SparseMmapArea;

    fn with_count(count: u32) -> Self {
        Self { nr_areas: count, reserved: 0 }
    }

    fn count(&self) -> u32 {
        self.nr_areas
    }
}

wire! {
    /// One area of [`SparseMmapCap`].
    #[doc(alias = "vfio_region_sparse_mmap_area")]
    SparseMmapArea {
        /// Bytes from the start of the region.
        offset: u64,
        /// Bytes.
        size: u64,
    }
}

wire! {
    /// Capability, after its header: what a device's own region is.
    #[doc(alias = "vfio_region_info_cap_type")]
    RegionTypeCap {
        /// Type; with [`VFIO_REGION_TYPE_PCI_VENDOR_TYPE`] the rest is a vendor id.
        kind: u32,
        /// Meaning depends on the type.
        subtype: u32,
    }
}

impl Capability for RegionTypeCap {
    const ID: u16 = VFIO_REGION_INFO_CAP_TYPE;
    const VERSION: u16 = 1;
}

/// [`RegionTypeCap::kind`]: defined by the PCI vendor whose id is in the low bits.
pub const VFIO_REGION_TYPE_PCI_VENDOR_TYPE: u32 = 1 << 31;

/// [`RegionTypeCap::kind`]: the bits of the vendor id.
pub const VFIO_REGION_TYPE_PCI_VENDOR_MASK: u32 = 0xffff;

/// Capability, a header alone: the BAR holds the MSI-X table, and may be mapped nevertheless.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    zerocopy::FromBytes,
    zerocopy::IntoBytes,
    zerocopy::KnownLayout,
    zerocopy::Immutable,
)]
#[repr(C)]
pub struct MsixMappableCap {}

impl Capability for MsixMappableCap {
    const ID: u16 = VFIO_REGION_INFO_CAP_MSIX_MAPPABLE;
    const VERSION: u16 = 1;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_split_where_they_were_joined() {
        assert_eq!(region_offset(7), 7 << 40);
        assert_eq!(split_offset(region_offset(7) + 0x34), (7, 0x34));
        assert_eq!(split_offset(u64::MAX), (0xff_ffff, OFFSET_MASK));
    }

    #[test]
    fn bars_are_the_first_six() {
        for &index in RegionIndex::ALL {
            let number = index.number();
            assert_eq!(index.bar(), u8::try_from(number).ok().filter(|bar| *bar < 6));
            assert_eq!(RegionIndex::try_from(number), Ok(index));
        }
        assert_eq!(RegionIndex::try_from(9), Err(crate::UnknownNumber(9)));
    }
}
