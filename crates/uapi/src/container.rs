//! The container fd: interface version, extensions, IOMMU types.
//!
//! Source: linux/vfio.h.

use crate::macros::numbers;

/// What `VFIO_GET_API_VERSION` answers.
pub const VFIO_API_VERSION: u32 = 0;

numbers! {
    /// A number for `VFIO_CHECK_EXTENSION`; the IOMMU types among them are also the arguments of
    /// `VFIO_SET_IOMMU`. Both take it by value.
    Extension {
        /// The type1 IOMMU; unmap may remove more or less than asked.
        Type1 = 1, "VFIO_TYPE1_IOMMU";
        /// PowerPC's IOMMU.
        SpaprTce = 2, "VFIO_SPAPR_TCE_IOMMU";
        /// The type1 IOMMU; unmap never cuts a mapping.
        Type1V2 = 3, "VFIO_TYPE1v2_IOMMU";
        /// DMA is coherent with the caches, whatever a device asks.
        DmaCc = 4, "VFIO_DMA_CC_IOMMU";
        /// PowerPC's error handling.
        Eeh = 5, "VFIO_EEH";
        /// Type1 with two stages of translation; answered 1 until Linux 6.12, reserved since.
        Type1Nesting = 6, "__VFIO_RESERVED_TYPE1_NESTING_IOMMU";
        /// PowerPC's IOMMU, second interface.
        SpaprTceV2 = 7, "VFIO_SPAPR_TCE_v2_IOMMU";
        /// No IOMMU: unsafe, and without mapping requests.
        NoIommu = 8, "VFIO_NOIOMMU_IOMMU";
        /// [`UnmapFlags::ALL`](crate::type1::UnmapFlags::ALL).
        UnmapAll = 9, "VFIO_UNMAP_ALL";
        /// [`UnmapFlags::VADDR`](crate::type1::UnmapFlags::VADDR) and
        /// [`MapFlags::VADDR`](crate::type1::MapFlags::VADDR).
        UpdateVaddr = 10, "VFIO_UPDATE_VADDR";
    }
}
