//! Groups that come and go.

use alloc::vec::Vec;

use crate::event::Event;
use crate::host::{Group, Host, Iommu, Limits, ReservedKind, ReservedRegion};
use crate::refusal::{AttachRefusal, excluding};
use crate::space::map::{Unpinnable, pin};
use crate::space::{AddressSpace, Env, Mapping};
use crate::valid::ValidRanges;
use crate::{Domain, IovaRange, PageSizes, Pinned};

/// The region that keeps a group from being given to a user at all: a device of it needs a range
/// mapped to itself for good (`require_direct`).
#[must_use]
pub fn needs_direct(group: &Group) -> Option<&ReservedRegion> {
    group.reserved.iter().find(|r| r.kind == ReservedKind::Direct)
}

impl AddressSpace {
    /// Attaches a group: into the domain of an earlier one that can share it, else into a domain of
    /// its own. What is mapped holds for it at once.
    ///
    /// `limit_pages` is the locked-memory limit for mappings made before there was an IOMMU, whose
    /// memory is pinned now.
    ///
    /// # Errors
    /// The first that applies, in the kernel's order (kernel-semantics 4.1). Nothing has changed
    /// then.
    pub fn attach(
        &mut self,
        host: &Host,
        limits: &Limits,
        number: u32,
        limit_pages: Option<u64>,
        env: &mut Env<'_>,
    ) -> Result<(), AttachRefusal> {
        if self.invalid_vaddrs != 0
            && let Some((mapping, _)) = self.table.iter().find(|(_, m)| m.vaddr_is_invalid())
        {
            return Err(AttachRefusal::VaddrInvalid { mapping });
        }
        if self.domain_of(number).is_some() {
            return Err(AttachRefusal::AlreadyAttached { group: number });
        }
        let unknown = AttachRefusal::UnknownGroup { group: number };
        let Some(group) = host.group(number) else { return Err(unknown) };
        let Some(iommu) = host.iommu_of(group) else { return Err(unknown) };
        if let Some(region) = needs_direct(group) {
            return Err(AttachRefusal::NeedsDirect { group: number, region: region.clone() });
        }
        let valid = self.valid_with(iommu, group)?;
        if !iommu.msi_isolated && !limits.allow_unsafe_interrupts {
            return Err(AttachRefusal::UnsafeInterrupts { group: number });
        }
        self.check_page_size(iommu, number)?;
        self.check_windows(iommu, group)?;
        self.pin_unpinned(limit_pages, env)?;
        let mut merged = false;
        for domain in &mut self.domains {
            if domain.accepts(iommu, group) {
                domain.join(host, group);
                merged = true;
                break;
            }
        }
        if !merged {
            self.domains.push(Domain::new(host, iommu, group));
            self.give_windows();
        }
        self.valid = valid;
        self.update_page_sizes();
        env.observer.event(&Event::Attached { group: number, merged });
        Ok(())
    }

    /// Detaches a group. Interrupts it has enabled give their doorbells back; with the last group
    /// every mapping goes. Whether the group was attached.
    ///
    /// The valid ranges are computed anew from the groups that stay, so they may grow.
    pub fn detach(&mut self, group: u32, env: &mut Env<'_>) -> bool {
        let Some(at) = self.domains.iter().position(|d| d.member(group).is_some()) else {
            return false;
        };
        let enabled = self.domains.get(at).and_then(|d| d.member(group)).map_or(0, |m| m.enabled);
        for _ in 0..enabled {
            self.release_doorbell(group, env);
        }
        let empty = self.domains.get_mut(at).is_some_and(|d| d.leave(group));
        if empty {
            self.domains.remove(at);
        }
        if self.domains.is_empty() {
            self.drop_all_windows(env);
            self.unmap(IovaRange::ALL, env);
            self.valid = ValidRanges::default();
        } else if !planted!(DetachKeepsRanges) {
            self.rebuild_valid();
        }
        self.update_page_sizes();
        env.observer.event(&Event::Detached { group });
        true
    }

    /// The valid ranges once `group` has joined.
    fn valid_with(&self, iommu: &Iommu, group: &Group) -> Result<ValidRanges, AttachRefusal> {
        let (number, aperture) = (group.number, iommu.aperture);
        let outside = |mapping| AttachRefusal::Aperture { group: number, aperture, mapping };
        let mut valid = if self.domains.is_empty() {
            ValidRanges::from_aperture(aperture)
        } else {
            self.valid.clone()
        };
        if let Some(span) = valid.span() {
            if !span.overlaps(aperture) {
                return Err(outside(None));
            }
            let stranded = |side: (Option<IovaRange>, bool)| {
                let (range, narrower) = side;
                let (existing, _) = self.table.first_overlap(range.filter(|_| narrower)?)?;
                Some(existing)
            };
            let (below, above) = IovaRange::ALL.without(aperture);
            // A container without a domain has no ranges yet: whatever is mapped must fit.
            let fresh = self.domains.is_empty();
            let sides = [
                (below, fresh || aperture.first() > span.first()),
                (above, fresh || aperture.last() < span.last()),
            ];
            if let Some(mapping) = sides.into_iter().find_map(stranded) {
                return Err(outside(Some(mapping)));
            }
        }
        for region in excluding(&group.reserved) {
            let mut range = region.range;
            if planted!(AttachMissesLastByte) {
                range =
                    IovaRange::new(range.first(), range.last().wrapping_sub(1)).unwrap_or(range);
            }
            if let Some((mapping, _)) = self.table.first_overlap(range) {
                return Err(AttachRefusal::Reserved {
                    group: number,
                    region: region.clone(),
                    mapping,
                });
            }
        }
        valid.clip(aperture);
        for region in excluding(&group.reserved) {
            valid.subtract(region.range);
        }
        if valid.is_empty() {
            return Err(AttachRefusal::NothingValid { group: number });
        }
        Ok(valid)
    }

    /// Mappings made while pages could be smaller need not fit the pages of a new IOMMU.
    fn check_page_size(&self, iommu: &Iommu, group: u32) -> Result<(), AttachRefusal> {
        let granule = iommu.page_sizes.smallest();
        let within = granule.wrapping_sub(1);
        let unfit = |r: &IovaRange| r.first() & within != 0 || r.size() & within != 0;
        match self.table.iter().map(|(r, _)| r).find(unfit) {
            Some(mapping) => Err(AttachRefusal::PageSize { group, granule, mapping }),
            None => Ok(()),
        }
    }

    /// Pins what was mapped while there was no IOMMU: all of it or nothing.
    fn pin_unpinned(
        &mut self,
        limit_pages: Option<u64>,
        env: &mut Env<'_>,
    ) -> Result<(), AttachRefusal> {
        if !self.domains.is_empty() {
            return Ok(());
        }
        let waiting: Vec<(IovaRange, Mapping)> =
            self.table.iter().filter(|(_, m)| !m.is_pinned()).map(|(r, m)| (r, *m)).collect();
        let mut done: Vec<(IovaRange, Mapping, Pinned)> = Vec::new();
        for (range, mapping) in waiting {
            match pin(range, mapping.vaddr, mapping.prot, mapping.budget(limit_pages), env) {
                Ok(pinned) => done.push((range, mapping, pinned)),
                Err(unpinnable) => {
                    for (_, mapping, pinned) in done {
                        env.locked.uncharge(mapping.mm, pinned.charged_pages);
                        env.pinner.unpin(pinned.id);
                    }
                    return Err(match unpinnable {
                        Unpinnable::Pin(error) => AttachRefusal::Pin { mapping: range, error },
                        Unpinnable::OverLimit(error) => {
                            AttachRefusal::OverLimit { mapping: range, error }
                        }
                    });
                }
            }
        }
        for (range, _, pinned) in done {
            if let Some((_, m)) = self.table.get_mut(range.first()) {
                m.set_pinned(pinned);
            }
        }
        Ok(())
    }

    /// What the groups that stayed allow. When that would be nothing, the old ranges stay.
    fn rebuild_valid(&mut self) {
        let mut apertures = self.domains.iter().map(Domain::aperture);
        let Some(first) = apertures.next() else { return };
        let Some(common) = apertures.try_fold(first, |c, next| c.intersection(next)) else {
            return;
        };
        let mut valid = ValidRanges::from_aperture(common);
        for member in self.domains.iter().flat_map(Domain::members) {
            for region in excluding(&member.reserved) {
                valid.subtract(region.range);
            }
        }
        if !valid.is_empty() {
            self.valid = valid;
        }
    }

    /// The sizes that every domain has. Domains that share none meet at the largest of their
    /// smallest pages: the others make it up of theirs. (A kernel counts the trailing zeros of 0.)
    fn update_page_sizes(&mut self) {
        let sizes = || self.domains.iter().map(Domain::page_sizes);
        let mut common = sizes().fold(PageSizes::ALL, PageSizes::and);
        if common == PageSizes(0) {
            common = PageSizes(sizes().map(PageSizes::smallest).max().unwrap_or(0));
        }
        let before = self.page_sizes.smallest();
        self.page_sizes = common.for_cpu_pages(self.page_size);
        if self.page_sizes.smallest() != before {
            self.renew_dirty();
        }
    }
}
