//! A domain: one set of page tables, shared by groups whose IOMMU can share it.

use alloc::vec::Vec;

use crate::host::{Group, Host, Iommu, MsiPolicy, ReservedKind, ReservedRegion};
use crate::pool::Consumer;
use crate::{IovaRange, PageSizes, Pool, Prot, Window};

/// A group in a domain, with the facts of the host that translation needs.
#[derive(Clone, Debug)]
pub struct Member {
    /// The group's number.
    pub group: u32,
    /// Its reserved regions.
    pub reserved: Vec<ReservedRegion>,
    /// The physical address its devices' MSIs must reach.
    pub doorbell: u64,
    /// Sets of interrupts enabled through its doorbell's binding and not yet disabled.
    pub enabled: u64,
}

/// How MSIs of a domain's devices find their doorbells.
#[derive(Clone, Debug)]
pub(crate) enum Msis {
    /// They are not translated.
    Untranslated,
    /// Through the driver's window; what is bound there stays as long as the domain.
    Fixed(Pool),
    /// Through the user's windows.
    User {
        /// The domain's own pages of the container's windows.
        pool: Pool,
        /// Windows that the IOMMU's container may have.
        max_windows: u32,
    },
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
    msis: Msis,
}

impl Domain {
    /// A domain for `group` alone.
    pub(crate) fn new(host: &Host, iommu: &Iommu, group: &Group) -> Self {
        let pool = Pool::new(host.page_size, Prot::WRITE);
        // A hardware MSI range wins over a software window (kernel-semantics 4.1, step 10).
        let hardware_msi = group.reserved.iter().any(|r| r.kind == ReservedKind::Msi);
        let msis = match iommu.msi {
            MsiPolicy::Fixed { window } if !hardware_msi => {
                let mut pool = pool;
                let prot = Prot::READ | Prot::WRITE;
                pool.add(Window { range: window, prot, consumer: Consumer::MSI });
                Msis::Fixed(pool)
            }
            MsiPolicy::User { max_windows } => Msis::User { pool, max_windows },
            _ => Msis::Untranslated,
        };
        let mut domain = Self {
            iommu: group.iommu,
            aperture: iommu.aperture,
            page_sizes: iommu.page_sizes,
            write_only: iommu.write_only,
            coherent: iommu.coherent,
            members: Vec::new(),
            msis,
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
            enabled: 0,
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
    #[inline]
    pub fn member(&self, group: u32) -> Option<&Member> {
        self.members.iter().find(|m| m.group == group)
    }

    pub(crate) fn member_mut(&mut self, group: u32) -> Option<&mut Member> {
        self.members.iter_mut().find(|m| m.group == group)
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
    #[inline]
    pub const fn write_only(&self) -> bool {
        self.write_only
    }

    /// Whether its DMA is cache coherent by force.
    #[must_use]
    pub const fn coherent(&self) -> bool {
        self.coherent
    }

    /// The windows for doorbells and what is bound in them; `None` where MSIs are not translated.
    #[must_use]
    pub const fn pool(&self) -> Option<&Pool> {
        match &self.msis {
            Msis::Untranslated => None,
            Msis::Fixed(pool) | Msis::User { pool, .. } => Some(pool),
        }
    }

    /// How many windows users may register here; `None` where they may not.
    #[must_use]
    pub const fn max_windows(&self) -> Option<u32> {
        match &self.msis {
            Msis::User { max_windows, .. } => Some(*max_windows),
            _ => None,
        }
    }

    pub(crate) const fn pool_mut(&mut self) -> Option<&mut Pool> {
        match &mut self.msis {
            Msis::Untranslated => None,
            Msis::Fixed(pool) | Msis::User { pool, .. } => Some(pool),
        }
    }

    /// The pool of windows that users register.
    pub(crate) const fn user_pool_mut(&mut self) -> Option<&mut Pool> {
        match &mut self.msis {
            Msis::User { pool, .. } => Some(pool),
            _ => None,
        }
    }

    /// Whether the page tables can express a permission, and nothing more than it.
    pub(crate) fn expresses(&self, prot: Prot) -> bool {
        self.write_only || prot != Prot::WRITE
    }

    /// The doorbell pages that devices of the domain can need: distinct, ascending.
    pub(crate) fn doorbell_pages(&self, page_size: u64) -> alloc::collections::BTreeSet<u64> {
        let page = |m: &Member| m.doorbell & !page_size.wrapping_sub(1);
        self.members.iter().map(page).collect()
    }
}
