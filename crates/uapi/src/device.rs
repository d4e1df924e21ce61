//! The device fd: information about the device as a whole.
//!
//! Source: linux/vfio.h.

use crate::{
    cap::Capability,
    macros::{constants, flags, wire},
};

wire! {
    /// In and out of `VFIO_DEVICE_GET_INFO`; capabilities follow.
    #[doc(alias = "vfio_device_info")]
    DeviceInfo {
        /// In: size of the caller's buffer in bytes. Out: the size needed, when it was too small
        /// for the capabilities.
        argsz: u32,
        /// Out: [`DeviceFlags`].
        flags: u32,
        /// Out: region indexes are below this.
        num_regions: u32,
        /// Out: interrupt indexes are below this.
        num_irqs: u32,
        /// Out: bytes from the start of this structure to the first capability, 0 for none.
        cap_offset: u32,
        /// Zero.
        pad: u32,
    }
}

impl DeviceInfo {
    /// The smallest `argsz` accepted, in bytes: everything before `cap_offset`.
    pub const MIN_ARGSZ: u32 = 16;
}

flags! {
    /// What the device is and can, in [`DeviceInfo::flags`].
    DeviceFlags {
        /// `VFIO_DEVICE_RESET` works.
        RESET = 1 << 0, "VFIO_DEVICE_FLAGS_RESET";
        /// A PCI device.
        PCI = 1 << 1, "VFIO_DEVICE_FLAGS_PCI";
        /// A platform device.
        PLATFORM = 1 << 2, "VFIO_DEVICE_FLAGS_PLATFORM";
        /// An AMBA device.
        AMBA = 1 << 3, "VFIO_DEVICE_FLAGS_AMBA";
        /// An s390 channel device.
        CCW = 1 << 4, "VFIO_DEVICE_FLAGS_CCW";
        /// An s390 crypto device.
        AP = 1 << 5, "VFIO_DEVICE_FLAGS_AP";
        /// A Freescale management-complex device.
        FSL_MC = 1 << 6, "VFIO_DEVICE_FLAGS_FSL_MC";
        /// There are capabilities.
        CAPS = 1 << 7, "VFIO_DEVICE_FLAGS_CAPS";
        /// A CDX device.
        CDX = 1 << 8, "VFIO_DEVICE_FLAGS_CDX";
    }
}

constants! {
    /// Capabilities of [`DeviceInfo`].
    CAPABILITIES: u16 {
        /// s390 PCI: base.
        VFIO_DEVICE_INFO_CAP_ZPCI_BASE = 1;
        /// s390 PCI: function group.
        VFIO_DEVICE_INFO_CAP_ZPCI_GROUP = 2;
        /// s390 PCI: utility string.
        VFIO_DEVICE_INFO_CAP_ZPCI_UTIL = 3;
        /// s390 PCI: function path.
        VFIO_DEVICE_INFO_CAP_ZPCI_PFIP = 4;
        /// [`PciAtomicCompCap`].
        VFIO_DEVICE_INFO_CAP_PCI_ATOMIC_COMP = 5;
    }
}

wire! {
    /// Capability, after its header: the widths of atomic operations the root port completes.
    #[doc(alias = "vfio_device_info_cap_pci_atomic_comp")]
    PciAtomicCompCap {
        /// [`AtomicFlags`].
        flags: u32,
        /// Zero.
        reserved: u32,
    }
}

impl Capability for PciAtomicCompCap {
    const ID: u16 = VFIO_DEVICE_INFO_CAP_PCI_ATOMIC_COMP;
    const VERSION: u16 = 1;
}

flags! {
    /// Widths, in [`PciAtomicCompCap::flags`].
    AtomicFlags {
        /// 32 bits.
        COMP32 = 1 << 0, "VFIO_PCI_ATOMIC_COMP32";
        /// 64 bits.
        COMP64 = 1 << 1, "VFIO_PCI_ATOMIC_COMP64";
        /// 128 bits.
        COMP128 = 1 << 2, "VFIO_PCI_ATOMIC_COMP128";
    }
}
