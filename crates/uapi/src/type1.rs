//! The type1 IOMMU: information, map, unmap, dirty pages.
//!
//! Addresses and sizes are in bytes; an `end` is the last byte. Source: linux/vfio.h.

use crate::{
    cap::{Capability, ListCapability},
    macros::{constants, flags, wire},
};

wire! {
    /// In and out of `VFIO_IOMMU_GET_INFO`; capabilities follow.
    #[doc(alias = "vfio_iommu_type1_info")]
    Type1Info {
        /// In: size of the caller's buffer in bytes. Out: the size needed, when it was too small
        /// for the capabilities.
        argsz: u32,
        /// Out: [`InfoFlags`].
        flags: u32,
        /// Out: one bit per page size, bit 12 for 4 KiB.
        iova_pgsizes: u64,
        /// Out: bytes from the start of this structure to the first capability, 0 for none.
        cap_offset: u32,
        /// Zero where it is written; Linux 6.1 does not know it and leaves the caller's bytes.
        pad: u32,
    }
}

impl Type1Info {
    /// The smallest `argsz` accepted, in bytes: everything before `cap_offset`.
    pub const MIN_ARGSZ: u32 = 16;
}

flags! {
    /// What [`Type1Info`] holds.
    InfoFlags {
        /// `iova_pgsizes` is valid.
        PGSIZES = 1 << 0, "VFIO_IOMMU_INFO_PGSIZES";
        /// There are capabilities.
        CAPS = 1 << 1, "VFIO_IOMMU_INFO_CAPS";
    }
}

constants! {
    /// Capabilities of [`Type1Info`].
    CAPABILITIES: u16 {
        /// [`IovaRangeCap`].
        VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE = 1;
        /// [`MigrationCap`].
        VFIO_IOMMU_TYPE1_INFO_CAP_MIGRATION = 2;
        /// [`DmaAvailCap`].
        VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL = 3;
    }
}

wire! {
    /// Capability, after its header: the ranges that may be mapped, as [`RawIovaRange`] each.
    #[doc(alias = "vfio_iommu_type1_info_cap_iova_range")]
    IovaRangeCap {
        /// How many ranges follow.
        nr_iovas: u32,
        /// Zero.
        reserved: u32,
    }
}

impl Capability for IovaRangeCap {
    const ID: u16 = VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE;
    const VERSION: u16 = 1;
}

impl ListCapability for IovaRangeCap {
    type Item = RawIovaRange;

    fn with_count(count: u32) -> Self {
        Self { nr_iovas: count, reserved: 0 }
    }

    fn count(&self) -> u32 {
        self.nr_iovas
    }
}

wire! {
    /// One range of [`IovaRangeCap`], both ends included.
    #[doc(alias = "vfio_iova_range")]
    RawIovaRange {
        /// First byte.
        start: u64,
        /// Last byte.
        end: u64,
    }
}

wire! {
    /// Capability, after its header: what dirty-page tracking can do.
    #[doc(alias = "vfio_iommu_type1_info_cap_migration")]
    MigrationCap {
        /// Zero.
        flags: u32,
        /// Zero.
        reserved: u32,
        /// Page sizes tracked, one bit each.
        pgsize_bitmap: u64,
        /// Largest bitmap of one request, in bytes.
        max_dirty_bitmap_size: u64,
    }
}

impl Capability for MigrationCap {
    const ID: u16 = VFIO_IOMMU_TYPE1_INFO_CAP_MIGRATION;
    const VERSION: u16 = 1;
}

wire! {
    /// Capability, after its header: how many more mappings the container takes.
    #[doc(alias = "vfio_iommu_type1_info_dma_avail")]
    DmaAvailCap {
        /// Mappings left.
        avail: u32,
    }
}

impl Capability for DmaAvailCap {
    const ID: u16 = VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL;
    const VERSION: u16 = 1;
}

wire! {
    /// In of `VFIO_IOMMU_MAP_DMA`; nothing is written back.
    #[doc(alias = "vfio_iommu_type1_dma_map")]
    DmaMap {
        /// Size of the caller's structure in bytes.
        argsz: u32,
        /// [`MapFlags`].
        flags: u32,
        /// Address in the caller's memory.
        vaddr: u64,
        /// First I/O virtual address.
        iova: u64,
        /// Bytes.
        size: u64,
    }
}

impl DmaMap {
    /// The smallest `argsz` accepted, in bytes.
    pub const MIN_ARGSZ: u32 = 32;
}

flags! {
    /// How to map, in [`DmaMap::flags`].
    MapFlags {
        /// The device may read memory.
        READ = 1 << 0, "VFIO_DMA_MAP_FLAG_READ";
        /// The device may write memory.
        WRITE = 1 << 1, "VFIO_DMA_MAP_FLAG_WRITE";
        /// Give a mapping a new `vaddr` after [`UnmapFlags::VADDR`]; excludes the others.
        VADDR = 1 << 2, "VFIO_DMA_MAP_FLAG_VADDR";
    }
}

wire! {
    /// In and out of `VFIO_IOMMU_UNMAP_DMA`; [`Bitmap`] follows under
    /// [`UnmapFlags::GET_DIRTY_BITMAP`].
    #[doc(alias = "vfio_iommu_type1_dma_unmap")]
    DmaUnmap {
        /// In: size of the caller's structure in bytes.
        argsz: u32,
        /// In: [`UnmapFlags`].
        flags: u32,
        /// In: first I/O virtual address.
        iova: u64,
        /// In: bytes to unmap. Out, on success only: bytes unmapped.
        size: u64,
    }
}

impl DmaUnmap {
    /// The smallest `argsz` accepted, in bytes.
    pub const MIN_ARGSZ: u32 = 24;
    /// The smallest `argsz` accepted with [`UnmapFlags::GET_DIRTY_BITMAP`], in bytes.
    pub const MIN_ARGSZ_BITMAP: u32 = 48;
}

flags! {
    /// How to unmap, in [`DmaUnmap::flags`].
    UnmapFlags {
        /// Also report which of the pages were dirty.
        GET_DIRTY_BITMAP = 1 << 0, "VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP";
        /// Everything; `iova` and `size` are 0.
        ALL = 1 << 1, "VFIO_DMA_UNMAP_FLAG_ALL";
        /// Keep the mappings, forget their `vaddr`.
        VADDR = 1 << 2, "VFIO_DMA_UNMAP_FLAG_VADDR";
    }
}

wire! {
    /// Where dirty bits go: bit i stands for page i of the range.
    #[doc(alias = "vfio_bitmap")]
    Bitmap {
        /// In: bytes one bit stands for, a power of two.
        pgsize: u64,
        /// In: bytes of the buffer.
        size: u64,
        /// In: address of the buffer in the caller's memory, 64-bit words.
        data: u64,
    }
}

wire! {
    /// In of `VFIO_IOMMU_DIRTY_PAGES`; [`DirtyBitmapGet`] follows under
    /// [`DirtyFlags::GET_BITMAP`].
    #[doc(alias = "vfio_iommu_type1_dirty_bitmap")]
    DirtyPages {
        /// Size of the caller's structure in bytes.
        argsz: u32,
        /// [`DirtyFlags`], exactly one.
        flags: u32,
    }
}

impl DirtyPages {
    /// The smallest `argsz` accepted, in bytes.
    pub const MIN_ARGSZ: u32 = 8;
    /// The smallest `argsz` accepted with [`DirtyFlags::GET_BITMAP`], in bytes.
    pub const MIN_ARGSZ_BITMAP: u32 = 48;
}

flags! {
    /// What to do about dirty pages, in [`DirtyPages::flags`].
    DirtyFlags {
        /// Start tracking.
        START = 1 << 0, "VFIO_IOMMU_DIRTY_PAGES_FLAG_START";
        /// Stop tracking.
        STOP = 1 << 1, "VFIO_IOMMU_DIRTY_PAGES_FLAG_STOP";
        /// Report and clear the bits of a range.
        GET_BITMAP = 1 << 2, "VFIO_IOMMU_DIRTY_PAGES_FLAG_GET_BITMAP";
    }
}

wire! {
    /// The range to report, right after [`DirtyPages`].
    #[doc(alias = "vfio_iommu_type1_dirty_bitmap_get")]
    DirtyBitmapGet {
        /// In: first I/O virtual address.
        iova: u64,
        /// In: bytes.
        size: u64,
        /// In: where the bits go.
        bitmap: Bitmap,
    }
}
