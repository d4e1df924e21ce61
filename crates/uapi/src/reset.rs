//! Resetting a slot or bus with every device on it.
//!
//! Source: linux/vfio.h.

use crate::macros::{flags, wire};

wire! {
    /// In and out of `VFIO_DEVICE_GET_PCI_HOT_RESET_INFO`; `count` [`PciDependentDevice`] follow.
    #[doc(alias = "vfio_pci_hot_reset_info")]
    HotResetInfo {
        /// In: size of the caller's buffer in bytes.
        argsz: u32,
        /// Out: [`HotResetFlags`].
        flags: u32,
        /// Out: devices affected; written also when they do not fit (ENOSPC).
        count: u32,
    }
}

impl HotResetInfo {
    /// The smallest `argsz` accepted, in bytes.
    pub const MIN_ARGSZ: u32 = 12;
}

flags! {
    /// What the first field of each [`PciDependentDevice`] says, in [`HotResetInfo::flags`].
    HotResetFlags {
        /// A device id, not a group id.
        DEV_ID = 1 << 0, "VFIO_PCI_HOT_RESET_FLAG_DEV_ID";
        /// With `DEV_ID`: the caller owns all of them.
        DEV_ID_OWNED = 1 << 1, "VFIO_PCI_HOT_RESET_FLAG_DEV_ID_OWNED";
    }
}

wire! {
    /// One device a hot reset affects. Out.
    #[doc(alias = "vfio_pci_dependent_device")]
    PciDependentDevice {
        /// The group's id, or the device's id within the iommufd.
        #[doc(alias = "devid")]
        group_id: u32,
        /// PCI segment (domain).
        segment: u16,
        /// PCI bus.
        bus: u8,
        /// PCI slot (upper five bits) and function.
        devfn: u8,
    }
}

/// A device id: owned, but not by an id of its own.
pub const VFIO_PCI_DEVID_OWNED: u32 = 0;

/// A device id: not owned by the caller. -1 in the header.
pub const VFIO_PCI_DEVID_NOT_OWNED: u32 = u32::MAX;

wire! {
    /// In of `VFIO_DEVICE_PCI_HOT_RESET`; `count` group fds (i32) follow.
    #[doc(alias = "vfio_pci_hot_reset")]
    HotReset {
        /// Size of this structure with the fds, in bytes.
        argsz: u32,
        /// Zero.
        flags: u32,
        /// How many fds follow.
        count: u32,
    }
}

impl HotReset {
    /// The smallest `argsz` accepted, in bytes.
    pub const MIN_ARGSZ: u32 = 12;
}
