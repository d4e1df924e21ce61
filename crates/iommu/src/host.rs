//! A host as data: its IOMMUs, groups, reserved regions and doorbells.
//!
//! Built in, captured from a machine or read from a file; no logic anywhere knows a host by name.

use alloc::collections::BTreeSet;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use crate::{Dialect, IovaRange, PageSizes, Prot};

/// A host, as far as IOMMUs and interrupts go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// How people call it.
    pub name: String,
    /// Which kernel's answers it gives.
    pub dialect: Dialect,
    /// The CPU page size in bytes; a power of two.
    pub page_size: u64,
    /// The IOMMUs.
    pub iommus: Vec<Iommu>,
    /// The interrupt controllers that take MSIs.
    pub controllers: Vec<InterruptController>,
    /// The IOMMU groups.
    pub groups: Vec<Group>,
    /// Limits that an administrator may set.
    pub limits: Limits,
}

impl Host {
    /// The group with that number.
    #[must_use]
    pub fn group(&self, number: u32) -> Option<&Group> {
        self.groups.iter().find(|g| g.number == number)
    }

    /// Doorbell pages of the groups whose MSIs go through windows that users register: what a
    /// window for every device there is must hold.
    #[must_use]
    pub fn doorbell_pages(&self) -> u32 {
        let user =
            |g: &&Group| self.iommu_of(g).is_some_and(|i| matches!(i.msi, MsiPolicy::User { .. }));
        let page = |c: &InterruptController| c.doorbell & !self.page_size.wrapping_sub(1);
        let groups = self.groups.iter().filter(user);
        let pages: BTreeSet<u64> =
            groups.filter_map(|g| self.controllers.get(g.controller)).map(page).collect();
        u32::try_from(pages.len()).unwrap_or(u32::MAX)
    }

    /// The IOMMU of a group.
    #[must_use]
    pub fn iommu_of(&self, group: &Group) -> Option<&Iommu> {
        self.iommus.get(group.iommu)
    }
}

/// One IOMMU (or several that a driver treats alike and that can share a domain).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Iommu {
    /// What it is: `vt-d`, `amd-vi`, `smmuv3`, `virtio-iommu`.
    pub kind: String,
    /// The addresses its page tables can express.
    pub aperture: IovaRange,
    /// Page sizes it can map, one bit each (the hardware's `pgsize_bitmap`).
    pub page_sizes: PageSizes,
    /// Permissions it can express apart: without `WRITE` alone, a write-only mapping can be read.
    pub write_only: bool,
    /// Who owns the address of an MSI.
    pub msi: MsiPolicy,
    /// Whether an interrupt of one device cannot be mistaken for another's (interrupt remapping,
    /// ITS). Without it VFIO refuses the group unless told to allow unsafe interrupts.
    pub msi_isolated: bool,
    /// Whether it enforces cache coherency of DMA.
    pub coherent: bool,
    /// Whether its driver knows nested translation (type 6 of older kernels), though no container
    /// gets it: asking is then `EPERM`, elsewhere `EINVAL`.
    pub nests: bool,
}

/// Who owns the address of an MSI on the way from a device to an interrupt controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MsiPolicy {
    /// The doorbell range is not translated (x86, virtio-iommu with a region of its own).
    Implicit,
    /// The driver chose a window, in which doorbells are bound on first use (Linux on Arm).
    Fixed {
        /// The window, from a reserved region of kind [`ReservedKind::SwMsi`].
        window: IovaRange,
    },
    /// The user registers windows, in which doorbells are bound while interrupts are enabled; until
    /// then nothing is reserved (the proposal of 2016).
    User {
        /// Windows a container may have.
        max_windows: u32,
    },
}

/// An interrupt controller that takes MSIs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterruptController {
    /// What it is: `apic`, `gicv3-its`, `gicv2m`.
    pub kind: String,
    /// The physical address that a device's MSI must reach.
    pub doorbell: u64,
    /// Whether a device's vectors can be added one by one while others are live, so that MSI-X may
    /// grow (x86 interrupt remapping, ITS).
    pub dynamic_msix: bool,
}

/// An IOMMU group: what the IOMMU cannot tell apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Its number: `/dev/vfio/N`.
    pub number: u32,
    /// Index of its IOMMU in [`Host::iommus`].
    pub iommu: usize,
    /// Index of the interrupt controller its devices' MSIs reach, in [`Host::controllers`].
    pub controller: usize,
    /// Its devices by name (`0000:00:03.0`), bridges included.
    pub devices: Vec<String>,
    /// Addresses its devices cannot use, and who says so.
    pub reserved: Vec<ReservedRegion>,
}

/// A range of IOVA that mappings may not (or not freely) use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReservedRegion {
    /// The range.
    pub range: IovaRange,
    /// Its kind.
    pub kind: ReservedKind,
    /// What a device may do there.
    pub prot: Prot,
    /// Who reserved it and why, for people.
    pub owner: String,
}

/// The kinds of reserved region (`enum iommu_resv_type`), in the kernel's order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ReservedKind {
    /// Must stay identity mapped (RMRR, unity map).
    Direct,
    /// Identity mapped at boot; may be dropped on assignment, so mappings may use it.
    DirectRelaxable,
    /// Never usable (the HyperTransport hole).
    Reserved,
    /// The hardware's MSI range, not translated.
    Msi,
    /// The window in which the kernel maps doorbells.
    SwMsi,
}

impl ReservedKind {
    /// Whether mappings must keep out.
    #[must_use]
    pub const fn excludes_mappings(self) -> bool {
        !matches!(self, Self::DirectRelaxable)
    }
}

impl fmt::Display for ReservedKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Direct => "direct",
            Self::DirectRelaxable => "direct-relaxable",
            Self::Reserved => "reserved",
            Self::Msi => "msi",
            Self::SwMsi => "sw-msi",
        })
    }
}

/// Limits that an administrator may set (module parameters of `vfio_iommu_type1`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Mappings a container may hold (`dma_entry_limit`).
    pub dma_entry_limit: u32,
    /// Accept groups whose interrupts are not isolated (`allow_unsafe_interrupts`).
    pub allow_unsafe_interrupts: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self { dma_entry_limit: 65535, allow_unsafe_interrupts: false }
    }
}
