//! Requests of a device opened through its own node (/dev/vfio/devices/vfioN) with an iommufd.
//!
//! An fd that came from a group refuses them; they are here so that traces can print them.
//! Source: linux/vfio.h.

use crate::macros::{flags, wire};

wire! {
    /// In and out of `VFIO_DEVICE_BIND_IOMMUFD`.
    #[doc(alias = "vfio_device_bind_iommufd")]
    BindIommufd {
        /// In: size of the caller's structure in bytes.
        argsz: u32,
        /// In: [`BindFlags`].
        flags: u32,
        /// In: the iommufd.
        iommufd: i32,
        /// Out: the device's id within it.
        out_devid: u32,
        /// In, with [`BindFlags::TOKEN`]: address of a 16-byte UUID in the caller's memory.
        token_uuid_ptr: u64,
    }
}

flags! {
    /// In [`BindIommufd::flags`].
    BindFlags {
        /// `token_uuid_ptr` is valid.
        TOKEN = 1 << 0, "VFIO_DEVICE_BIND_FLAG_TOKEN";
    }
}

wire! {
    /// In and out of `VFIO_DEVICE_ATTACH_IOMMUFD_PT`.
    #[doc(alias = "vfio_device_attach_iommufd_pt")]
    AttachPt {
        /// In: size of the caller's structure in bytes.
        argsz: u32,
        /// In: [`AttachFlags`].
        flags: u32,
        /// In: id of an address space or page table. Out: of the page table attached.
        pt_id: u32,
        /// In, with [`AttachFlags::PASID`]: which address space of the device.
        pasid: u32,
    }
}

flags! {
    /// In [`AttachPt::flags`].
    AttachFlags {
        /// `pasid` is valid.
        PASID = 1 << 0, "VFIO_DEVICE_ATTACH_PASID";
    }
}

wire! {
    /// In of `VFIO_DEVICE_DETACH_IOMMUFD_PT`.
    #[doc(alias = "vfio_device_detach_iommufd_pt")]
    DetachPt {
        /// Size of the caller's structure in bytes.
        argsz: u32,
        /// [`DetachFlags`].
        flags: u32,
        /// With [`DetachFlags::PASID`]: which address space of the device.
        pasid: u32,
    }
}

flags! {
    /// In [`DetachPt::flags`].
    DetachFlags {
        /// `pasid` is valid.
        PASID = 1 << 0, "VFIO_DEVICE_DETACH_PASID";
    }
}
