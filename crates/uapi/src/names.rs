//! Everything this crate names, as a list: for tools, for tests, for `abi/coverage.toml`.

use crate::{
    cdev::{AttachFlags, BindFlags, DetachFlags},
    container::Extension,
    device::{self, AtomicFlags, DeviceFlags},
    feature::{Feature, FeatureFlags},
    group::GroupFlags,
    ioctl::RequestKind,
    ioeventfd::IoEventFdFlags,
    irq::{IrqIndex, IrqInfoFlags, IrqSetFlags},
    region::{self, RegionFlags, RegionIndex},
    reset::HotResetFlags,
    type1::{self, DirtyFlags, InfoFlags, MapFlags, UnmapFlags},
};

/// What the names of a [`Family`] are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum NameKind {
    /// Request numbers.
    Ioctl,
    /// Arguments of `VFIO_CHECK_EXTENSION`.
    Extension,
    /// Bits of a structure's `flags`.
    Flag,
    /// Capability ids of a structure.
    Capability,
    /// Features of a device.
    Feature,
    /// Region indexes.
    Region,
    /// Interrupt indexes.
    Irq,
}

impl NameKind {
    /// One lower-case word.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ioctl => "ioctl",
            Self::Extension => "extension",
            Self::Flag => "flag",
            Self::Capability => "capability",
            Self::Feature => "feature",
            Self::Region => "region",
            Self::Irq => "irq",
        }
    }
}

/// Names that share a number space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Family {
    /// The kind of fd it belongs to.
    pub fd: RequestKind,
    /// What the numbers are.
    pub kind: NameKind,
    /// The C structure that holds the flags or is followed by the capabilities; empty otherwise.
    pub structure: &'static str,
    /// (C name, number).
    pub names: &'static [(&'static str, u32)],
}

const fn family(
    fd: RequestKind,
    kind: NameKind,
    structure: &'static str,
    names: &'static [(&'static str, u32)],
) -> Family {
    Family { fd, kind, structure, names }
}

/// All families: container, group, device; within each in the header's order.
pub const ALL: &[Family] = {
    use NameKind::{Capability, Extension as Ext, Feature as Feat, Flag, Ioctl, Irq, Region};
    use RequestKind::{Container, Device, Group};
    &[
        family(Container, Ioctl, "", Container.requests()),
        family(Container, Ext, "", Extension::NAMES),
        family(Container, Flag, "vfio_iommu_type1_info", InfoFlags::NAMES),
        family(Container, Capability, "vfio_iommu_type1_info", type1::CAPABILITIES),
        family(Container, Flag, "vfio_iommu_type1_dma_map", MapFlags::NAMES),
        family(Container, Flag, "vfio_iommu_type1_dma_unmap", UnmapFlags::NAMES),
        family(Container, Flag, "vfio_iommu_type1_dirty_bitmap", DirtyFlags::NAMES),
        family(Group, Ioctl, "", Group.requests()),
        family(Group, Flag, "vfio_group_status", GroupFlags::NAMES),
        family(Device, Ioctl, "", Device.requests()),
        family(Device, Flag, "vfio_device_info", DeviceFlags::NAMES),
        family(Device, Capability, "vfio_device_info", device::CAPABILITIES),
        family(Device, Flag, "vfio_device_info_cap_pci_atomic_comp", AtomicFlags::NAMES),
        family(Device, Region, "", RegionIndex::NAMES),
        family(Device, Flag, "vfio_region_info", RegionFlags::NAMES),
        family(Device, Capability, "vfio_region_info", region::CAPABILITIES),
        family(Device, Irq, "", IrqIndex::NAMES),
        family(Device, Flag, "vfio_irq_info", IrqInfoFlags::NAMES),
        family(Device, Flag, "vfio_irq_set", IrqSetFlags::NAMES),
        family(Device, Flag, "vfio_pci_hot_reset_info", HotResetFlags::NAMES),
        family(Device, Flag, "vfio_device_ioeventfd", IoEventFdFlags::NAMES),
        family(Device, Feat, "", Feature::NAMES),
        family(Device, Flag, "vfio_device_feature", FeatureFlags::NAMES),
        family(Device, Flag, "vfio_device_bind_iommufd", BindFlags::NAMES),
        family(Device, Flag, "vfio_device_attach_iommufd_pt", AttachFlags::NAMES),
        family(Device, Flag, "vfio_device_detach_iommufd_pt", DetachFlags::NAMES),
    ]
};
