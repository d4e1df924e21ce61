//! A domain: one set of page tables, shared by groups whose IOMMU can share it.

use alloc::vec::Vec;

use crate::host::{Group, Host, Iommu, MsiPolicy, ReservedKind, ReservedRegion};
use crate::{DoorbellTable, IovaRange, PageSizes};

/// A group in a domain, with the facts of the host that translation needs.
#[derive(Clone, Debug)]
pub struct Member {
    /// The group's number.
    pub group: u32,
    /// Its reserved regions.
    pub reserved: Vec<ReservedRegion>,
    /// The physical address its devices' MSIs must reach.
    pub doorbell: u64,
}

/// Groups behind one IOMMU that share its page tables.
#[derive(Clone, Debug)]
pub struct Domain {
    iommu: usize,
    aperture: IovaRange,
    page_sizes: PageSizes,
    write_only: bool,
    coherent: bool,
    members: Vec<Member>,
    doorbells: Option<DoorbellTable>,
}

impl Domain {
    /// A domain for `group` alone.
    pub(crate) fn new(host: &Host, iommu: &Iommu, group: &Group) -> Self {
        // A hardware MSI range wins over a software window (kernel-semantics 4.1, step 10).
        let hardware_msi = group.reserved.iter().any(|r| r.kind == ReservedKind::Msi);
        let doorbells = match iommu.msi {
            MsiPolicy::Fixed { window } if !hardware_msi => {
                Some(DoorbellTable::new(window, host.page_size))
            }
            _ => None,
        };
        let mut domain = Self {
            iommu: group.iommu,
            aperture: iommu.aperture,
            page_sizes: iommu.page_sizes,
            write_only: iommu.write_only,
            coherent: iommu.coherent,
            members: Vec::new(),
            doorbells,
        };
        domain.join(host, group);
        domain
    }

    /// Adds a group.
    pub(crate) fn join(&mut self, host: &Host, group: &Group) {
        self.members.push(Member {
            group: group.number,
            reserved: group.reserved.clone(),
            doorbell: host.controllers.get(group.controller).map_or(0, |c| c.doorbell),
        });
    }

    /// Removes a group; whether the domain is empty now.
    pub(crate) fn leave(&mut self, group: u32) -> bool {
        self.members.retain(|m| m.group != group);
        self.members.is_empty()
    }

    /// Whether `group` could share this domain: the same IOMMU driver and coherency.
    pub(crate) fn accepts(&self, iommu: &Iommu, group: &Group) -> bool {
        self.iommu == group.iommu && self.coherent == iommu.coherent
    }

    /// The member with that number.
    #[must_use]
    pub fn member(&self, group: u32) -> Option<&Member> {
        self.members.iter().find(|m| m.group == group)
    }

    /// The groups in it, in order of attachment.
    #[must_use]
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// The addresses its page tables express.
    #[must_use]
    pub const fn aperture(&self) -> IovaRange {
        self.aperture
    }

    /// The page sizes of its hardware.
    #[must_use]
    pub const fn page_sizes(&self) -> PageSizes {
        self.page_sizes
    }

    /// Whether a mapping can be written and not read.
    #[must_use]
    pub const fn write_only(&self) -> bool {
        self.write_only
    }

    /// Whether its DMA is cache coherent by force.
    #[must_use]
    pub const fn coherent(&self) -> bool {
        self.coherent
    }

    /// The doorbells bound in it; `None` where MSIs are not translated.
    #[must_use]
    pub const fn doorbells(&self) -> Option<&DoorbellTable> {
        self.doorbells.as_ref()
    }

    pub(crate) fn doorbells_mut(&mut self) -> Option<&mut DoorbellTable> {
        self.doorbells.as_mut()
    }
}
