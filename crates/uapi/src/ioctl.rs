//! Request numbers, and their names by the kind of fd they are sent to.
//!
//! Every request is `_IO(';', 100 + n)`: 0x3b64 and up, with neither size nor direction in the
//! number. One number serves several kinds of fd (0x3b71 maps DMA on a container and hot-resets
//! through a device), so a number has a name only together with a [`RequestKind`]. The kernel
//! compares the full 32 bits: `_IOW(';', 113, ...)` is another, unknown request.
//!
//! Source: linux/vfio.h; the table of kernel-semantics section 0.

use core::fmt;

use crate::macros::constants;

/// `';'`, the type byte of all VFIO requests (bits 8..16 of the number).
pub const VFIO_TYPE: u8 = b';';

/// The first number within the type.
pub const VFIO_BASE: u32 = 100;

constants! {
    /// Requests of a container fd (/dev/vfio/vfio).
    CONTAINER: u32 {
        /// Container: the version of this interface, always 0. No argument.
        VFIO_GET_API_VERSION = 0x3b64;
        /// Container: whether an [`Extension`](crate::container::Extension) is there. Argument by
        /// value; answers 0 or a positive number.
        VFIO_CHECK_EXTENSION = 0x3b65;
        /// Container: chooses the IOMMU type. Argument by value.
        VFIO_SET_IOMMU = 0x3b66;
        /// Container: in and out [`Type1Info`](crate::type1::Type1Info) and capabilities.
        VFIO_IOMMU_GET_INFO = 0x3b70;
        /// Container: in [`DmaMap`](crate::type1::DmaMap).
        VFIO_IOMMU_MAP_DMA = 0x3b71;
        /// Container: in and out [`DmaUnmap`](crate::type1::DmaUnmap).
        VFIO_IOMMU_UNMAP_DMA = 0x3b72;
        /// Container: sPAPR only, no argument.
        VFIO_IOMMU_ENABLE = 0x3b73;
        /// Container: sPAPR only, no argument.
        VFIO_IOMMU_DISABLE = 0x3b74;
        /// Container: in [`DirtyPages`](crate::type1::DirtyPages). sPAPR gives this number another
        /// meaning.
        VFIO_IOMMU_DIRTY_PAGES = 0x3b75;
        /// Container: sPAPR only.
        VFIO_IOMMU_SPAPR_UNREGISTER_MEMORY = 0x3b76;
        /// Container: sPAPR only.
        VFIO_IOMMU_SPAPR_TCE_CREATE = 0x3b77;
        /// Container: sPAPR only.
        VFIO_IOMMU_SPAPR_TCE_REMOVE = 0x3b78;
        /// Container: sPAPR error handling only.
        VFIO_EEH_PE_OP = 0x3b79;
    }
}

constants! {
    /// Requests of a group fd (/dev/vfio/N).
    GROUP: u32 {
        /// Group: in and out [`GroupStatus`](crate::group::GroupStatus).
        VFIO_GROUP_GET_STATUS = 0x3b67;
        /// Group: in, pointer to an i32, the container's fd.
        VFIO_GROUP_SET_CONTAINER = 0x3b68;
        /// Group: the argument is ignored.
        VFIO_GROUP_UNSET_CONTAINER = 0x3b69;
        /// Group: in, pointer to a NUL-terminated name (for PCI `0000:00:01.0`); answers the fd.
        VFIO_GROUP_GET_DEVICE_FD = 0x3b6a;
    }
}

constants! {
    /// Requests of a device fd, by either way of opening it.
    DEVICE: u32 {
        /// Device: in and out [`DeviceInfo`](crate::device::DeviceInfo) and capabilities.
        VFIO_DEVICE_GET_INFO = 0x3b6b;
        /// Device: in and out [`RegionInfo`](crate::region::RegionInfo) and capabilities.
        VFIO_DEVICE_GET_REGION_INFO = 0x3b6c;
        /// Device: in and out [`IrqInfo`](crate::irq::IrqInfo).
        VFIO_DEVICE_GET_IRQ_INFO = 0x3b6d;
        /// Device: in [`IrqSet`](crate::irq::IrqSet) and data. May answer a positive number.
        VFIO_DEVICE_SET_IRQS = 0x3b6e;
        /// Device: function reset. No argument.
        VFIO_DEVICE_RESET = 0x3b6f;
        /// Device: in and out [`HotResetInfo`](crate::reset::HotResetInfo) and devices.
        VFIO_DEVICE_GET_PCI_HOT_RESET_INFO = 0x3b70;
        /// Device: in [`HotReset`](crate::reset::HotReset) and group fds.
        VFIO_DEVICE_PCI_HOT_RESET = 0x3b71;
        /// Device: mediated graphics devices only.
        VFIO_DEVICE_QUERY_GFX_PLANE = 0x3b72;
        /// Device: mediated graphics devices only.
        VFIO_DEVICE_GET_GFX_DMABUF = 0x3b73;
        /// Device: in [`IoEventFd`](crate::ioeventfd::IoEventFd).
        VFIO_DEVICE_IOEVENTFD = 0x3b74;
        /// Device: in [`FeatureHeader`](crate::feature::FeatureHeader), data in or out.
        VFIO_DEVICE_FEATURE = 0x3b75;
        /// Device opened through its own node: in and out [`BindIommufd`](crate::cdev::BindIommufd).
        VFIO_DEVICE_BIND_IOMMUFD = 0x3b76;
        /// Device opened through its own node: in and out [`AttachPt`](crate::cdev::AttachPt).
        VFIO_DEVICE_ATTACH_IOMMUFD_PT = 0x3b77;
        /// Device opened through its own node: in [`DetachPt`](crate::cdev::DetachPt).
        VFIO_DEVICE_DETACH_IOMMUFD_PT = 0x3b78;
        /// The data fd of a migrating device, which no device here hands out; listed with the
        /// device so that a stray one has a name.
        VFIO_MIG_GET_PRECOPY_INFO = 0x3b79;
    }
}

/// The kind of fd a request was sent to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RequestKind {
    /// /dev/vfio/vfio.
    Container,
    /// /dev/vfio/N.
    Group,
    /// What `VFIO_GROUP_GET_DEVICE_FD` answers.
    Device,
}

impl RequestKind {
    /// All three.
    pub const ALL: &'static [Self] = &[Self::Container, Self::Group, Self::Device];

    /// `container`, `group` or `device`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Container => "container",
            Self::Group => "group",
            Self::Device => "device",
        }
    }

    /// The reverse of [`name`](Self::name).
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.name() == name)
    }

    /// (C name, number) of the requests this kind of fd has.
    #[must_use]
    pub const fn requests(self) -> &'static [(&'static str, u32)] {
        match self {
            Self::Container => CONTAINER,
            Self::Group => GROUP,
            Self::Device => DEVICE,
        }
    }
}

impl fmt::Display for RequestKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A request number sent to a kind of fd, known or not.
///
/// Prints as its C name, or as the number: `VFIO_IOMMU_MAP_DMA`, `0x3bff`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Request {
    /// The fd's kind.
    pub kind: RequestKind,
    /// The full 32-bit number.
    pub number: u32,
}

impl Request {
    /// The number `number`, sent to an fd of kind `kind`.
    #[must_use]
    pub const fn new(kind: RequestKind, number: u32) -> Self {
        Self { kind, number }
    }

    /// The request of `kind` called `name`.
    #[must_use]
    pub fn from_name(kind: RequestKind, name: &str) -> Option<Self> {
        let (_, number) = kind.requests().iter().find(|(known, _)| *known == name)?;
        Some(Self::new(kind, *number))
    }

    /// The C name, when this kind of fd has such a request.
    #[must_use]
    pub fn name(self) -> Option<&'static str> {
        let (name, _) = self.kind.requests().iter().find(|(_, known)| *known == self.number)?;
        Some(name)
    }
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "{:#x}", self.number),
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use super::*;

    #[test]
    fn one_number_two_names() {
        let named = |kind| Request::new(kind, 0x3b71).to_string();
        assert_eq!(named(RequestKind::Container), "VFIO_IOMMU_MAP_DMA");
        assert_eq!(named(RequestKind::Device), "VFIO_DEVICE_PCI_HOT_RESET");
        assert_eq!(named(RequestKind::Group), "0x3b71");
    }

    #[test]
    fn encoded_sizes_are_other_requests() {
        let request = Request::new(RequestKind::Container, 0x4020_3b71);
        assert_eq!((request.name(), request.to_string()), (None, "0x40203b71".into()));
    }

    #[test]
    fn every_name_is_found_again_and_each_number_has_one_name() {
        for &kind in RequestKind::ALL {
            assert_eq!(RequestKind::from_name(kind.name()), Some(kind));
            for &(name, number) in kind.requests() {
                let request = Request::new(kind, number);
                assert_eq!(request.name(), Some(name));
                assert_eq!(Request::from_name(kind, name), Some(request));
            }
        }
        assert_eq!(Request::from_name(RequestKind::Group, "VFIO_IOMMU_MAP_DMA"), None);
    }
}
