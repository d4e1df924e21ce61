//! MSI windows that the user registers: softvfio's own numbers, not Linux's.
//!
//! The proposal of 2016 with what its review asked for (`reviewed`), and the numbers of its sixth
//! version (`msi-v6`). Values of `reviewed` lie where linux/vfio.h will hardly grow: the top bit of
//! a flags word, identifiers from 0x8000 on. The C side is `include/softvfio.h`.

use crate::cap::{Capability, ListCapability};
use crate::macros::wire;

/// Extension, for `VFIO_CHECK_EXTENSION`: 1 where windows can be registered. Before
/// `VFIO_SET_IOMMU`: with any IOMMU of the host; after it: in this container.
pub const SOFTVFIO_MSI_WINDOWS: u32 = 0x8001;

/// Flag of `VFIO_IOMMU_MAP_DMA` and `VFIO_IOMMU_UNMAP_DMA`: the range is a window for MSI
/// doorbells; `vaddr` is ignored.
pub const SOFTVFIO_DMA_FLAG_RESERVED_MSI_IOVA: u32 = 1 << 31;

/// Flag of `VFIO_IOMMU_GET_INFO`: MSIs are translated, and need a window to be enabled.
pub const SOFTVFIO_INFO_REQUIRE_MSI_MAP: u32 = 1 << 31;

/// Flag of `VFIO_IOMMU_MAP_DMA` and `VFIO_IOMMU_UNMAP_DMA` in version 6 of the proposal, where
/// Linux has `VADDR` today.
pub const MSI_V6_DMA_FLAG_MSI_RESERVED_IOVA: u32 = 1 << 2;

/// Flag of `VFIO_IOMMU_GET_INFO` in version 6 of the proposal, where Linux has `CAPS` today. The
/// value could not be checked against the patch.
pub const MSI_V6_INFO_REQUIRE_MSI_MAP: u32 = 1 << 1;

/// Capability of `VFIO_IOMMU_GET_INFO`: [`ReservedRegionsCap`].
pub const SOFTVFIO_INFO_CAP_RESERVED_REGIONS: u16 = 0x8001;
/// Capability of `VFIO_IOMMU_GET_INFO`: [`MsiWindowsCap`].
pub const SOFTVFIO_INFO_CAP_MSI_WINDOWS: u16 = 0x8002;

/// Kind of a [`RawReservedRegion`]: must stay identity mapped.
pub const RESERVED_DIRECT: u32 = 0;
/// Kind: identity mapped at boot, and mappable.
pub const RESERVED_DIRECT_RELAXABLE: u32 = 1;
/// Kind: never usable.
pub const RESERVED_RESERVED: u32 = 2;
/// Kind: the hardware's MSI range, not translated.
pub const RESERVED_MSI: u32 = 3;
/// Kind: the window in which the kernel maps doorbells.
pub const RESERVED_SW_MSI: u32 = 4;
/// Kind: a window that the user registered.
pub const RESERVED_WINDOW: u32 = 5;

/// The group of a [`RawReservedRegion`] that belongs to the container.
pub const RESERVED_GROUP_CONTAINER: u32 = u32::MAX;

wire! {
    /// Capability, after its header: every reserved region, as [`RawReservedRegion`] each.
    ReservedRegionsCap {
        /// How many regions follow.
        count: u32,
        /// Bytes of one of them: 32.
        entry_size: u32,
    }
}

impl Capability for ReservedRegionsCap {
    const ID: u16 = SOFTVFIO_INFO_CAP_RESERVED_REGIONS;
    const VERSION: u16 = 1;
}

impl ListCapability for ReservedRegionsCap {
    type Item = RawReservedRegion;

    fn with_count(count: u32) -> Self {
        Self { count, entry_size: 32 }
    }

    fn count(&self) -> u32 {
        self.count
    }
}

wire! {
    /// One region of [`ReservedRegionsCap`], both ends included.
    RawReservedRegion {
        /// First byte.
        start: u64,
        /// Last byte.
        last: u64,
        /// [`RESERVED_DIRECT`] and so on.
        kind: u32,
        /// What devices may do there: 1 read, 2 write, as the flags of `VFIO_IOMMU_MAP_DMA`.
        permission: u32,
        /// The IOMMU group that it belongs to, or [`RESERVED_GROUP_CONTAINER`].
        group: u32,
        /// Zero.
        reserved: u32,
    }
}

wire! {
    /// Capability, after its header: windows and how many pages they should have, followed by
    /// [`RawMsiWindow`] each.
    MsiWindowsCap {
        /// Pages that the attached devices' doorbells can take: the largest number over domains.
        pages_needed: u32,
        /// The same for all devices of the host, attached or not: to size for hot-plug.
        pages_host: u32,
        /// Base-2 logarithm of a page's bytes.
        page_shift: u32,
        /// Windows the container may have.
        max_windows: u32,
        /// How many windows follow.
        count: u32,
        /// Zero.
        reserved: u32,
    }
}

impl Capability for MsiWindowsCap {
    const ID: u16 = SOFTVFIO_INFO_CAP_MSI_WINDOWS;
    const VERSION: u16 = 1;
}

impl ListCapability for MsiWindowsCap {
    type Item = RawMsiWindow;

    fn with_count(count: u32) -> Self {
        Self { count, ..Self::default() }
    }

    fn count(&self) -> u32 {
        self.count
    }
}

wire! {
    /// One window of [`MsiWindowsCap`], both ends included.
    RawMsiWindow {
        /// First byte.
        start: u64,
        /// Last byte.
        last: u64,
        /// Pages with a doorbell: the largest number over domains.
        used_pages: u32,
        /// What devices may do there: 1 read, 2 write.
        permission: u32,
    }
}
