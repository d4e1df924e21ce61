//! The model's groups: attach, detach (kernel-semantics 4), doorbells (5.3) and translation.

use iommu::{
    AttachRefusal, BindRefusal, Fault, FaultReason, Group, LockBudget, MmId, MsiPolicy, Prot,
    ReservedKind,
};

use super::outcome::Target;
use super::reference::{Domain, Model, NoPin, smallest};
use super::span::{Span, TOP};

impl Model {
    pub(crate) fn attach(
        &mut self,
        number: u32,
        limit_pages: Option<u64>,
        allow_unsafe: bool,
    ) -> Result<(), AttachRefusal> {
        let invalid = self.maps.iter().filter(|m| m.invalid).map(|m| m.span).min();
        if let Some(span) = invalid {
            return Err(AttachRefusal::VaddrInvalid { mapping: span.range() });
        }
        if self.domains.iter().any(|d| d.groups.contains(&number)) {
            return Err(AttachRefusal::AlreadyAttached { group: number });
        }
        let host = self.host.clone();
        let group = host.groups.iter().find(|g| g.number == number);
        let Some((group, iommu)) = group.and_then(|g| Some((g, host.iommus.get(g.iommu)?))) else {
            return Err(AttachRefusal::UnknownGroup { group: number });
        };
        if let Some(r) = group.reserved.iter().find(|r| r.kind == ReservedKind::Direct) {
            return Err(AttachRefusal::NeedsDirect { group: number, region: r.clone() });
        }
        let valid = self.valid_with(group)?;
        if !iommu.msi_isolated && !allow_unsafe {
            return Err(AttachRefusal::UnsafeInterrupts { group: number });
        }
        let granule = smallest(iommu.page_sizes.0);
        let step = u128::from(granule);
        let unfit = |s: &Span| !s.first.is_multiple_of(step) || !s.end.is_multiple_of(step);
        if let Some(span) = self.spans().into_iter().find(unfit) {
            return Err(AttachRefusal::PageSize { group: number, granule, mapping: span.range() });
        }
        self.pin_what_waits(limit_pages)?;

        let before = self.granule();
        match self.domains.iter_mut().find(|d| d.iommu == group.iommu) {
            Some(domain) => domain.groups.push(number),
            None => {
                let hardware = group.reserved.iter().any(|r| r.kind == ReservedKind::Msi);
                let window = match iommu.msi {
                    MsiPolicy::Fixed { window } if !hardware => {
                        Some((Span::of(window), Vec::new()))
                    }
                    _ => None,
                };
                self.domains.push(Domain { iommu: group.iommu, groups: vec![number], window });
            }
        }
        self.valid = valid;
        self.renew_bits(before);
        Ok(())
    }

    pub(crate) fn detach(&mut self, number: u32) -> bool {
        if !self.domains.iter().any(|d| d.groups.contains(&number)) {
            return false;
        }
        let before = self.granule();
        self.domains.iter_mut().for_each(|d| d.groups.retain(|g| *g != number));
        self.domains.retain(|d| !d.groups.is_empty());
        if self.domains.is_empty() {
            self.remove(&self.spans());
            self.valid.clear();
        } else {
            let apertures = self.domains.iter().map(|d| self.host.iommus[d.iommu].aperture);
            let spans: Vec<Span> = apertures.map(Span::of).collect();
            let first = spans.iter().map(|s| s.first).max().unwrap_or(0);
            let end = spans.iter().map(|s| s.end).min().unwrap_or(TOP);
            let excluded: Vec<Span> = self
                .reserved()
                .into_iter()
                .filter(|(_, r)| r.kind != ReservedKind::DirectRelaxable)
                .map(|(_, r)| Span::of(r.range))
                .collect();
            let valid = without(vec![Span::new(first, end)], &excluded);
            if !valid.is_empty() {
                self.valid = valid;
            }
        }
        self.renew_bits(before);
        true
    }

    pub(crate) fn bind(&mut self, number: u32) -> Result<u64, BindRefusal> {
        let page_size = self.page_size();
        let Some(domain) = self.domains.iter_mut().find(|d| d.groups.contains(&number)) else {
            return Err(BindRefusal::NotAttached { group: number });
        };
        let group = self.host.groups.iter().find(|g| g.number == number).expect("attached");
        let doorbell = self.host.controllers[group.controller].doorbell;
        let Some((window, bound)) = &mut domain.window else { return Ok(doorbell) };
        let (page, offset) = (doorbell / page_size, doorbell % page_size);
        let pages = (window.size() / u128::from(page_size)) as u64;
        if !bound.contains(&page) {
            if bound.len() as u64 == pages {
                return Err(BindRefusal::WindowFull { window: window.range(), pages });
            }
            bound.push(page);
        }
        let nth = bound.iter().position(|p| *p == page).expect("bound") as u64;
        Ok(window.first as u64 + nth * page_size + offset)
    }

    pub(crate) fn translate(&self, number: u32, iova: u64, access: Prot) -> Result<Target, Fault> {
        let fault = |reason| Err(Fault { iova, access, reason });
        let Some(domain) = self.domains.iter().find(|d| d.groups.contains(&number)) else {
            return fault(FaultReason::NoDomain);
        };
        let Some(mapping) = self.at(u128::from(iova)) else {
            return match self.doorbell_at(domain, number, iova) {
                Some(address) => Ok(Target::Doorbell(address)),
                None => fault(FaultReason::NotMapped),
            };
        };
        let prot = mapping.prot;
        let write_only = prot == Prot::WRITE && self.host.iommus[domain.iommu].write_only;
        let reads = prot.contains(Prot::READ) || (prot == Prot::WRITE && !write_only);
        if access.contains(Prot::READ) && !reads
            || access.contains(Prot::WRITE) && !prot.contains(Prot::WRITE)
        {
            return fault(FaultReason::NotPermitted { prot });
        }
        let Some((number, offset)) = mapping.pin else { return fault(FaultReason::NotPinned) };
        let pin = self.pins.iter().find(|p| p.number == number).expect("a live pin");
        let into = u128::from(iova) - mapping.span.first;
        Ok(Target::Memory {
            home: (u128::from(pin.vaddr) + offset + into) as u64,
            vaddr: mapping.vaddr + into as u64,
            mm: mapping.mm,
            bytes: (mapping.span.end - u128::from(iova)) as u64,
        })
    }

    fn doorbell_at(&self, domain: &Domain, number: u32, iova: u64) -> Option<u64> {
        let at = u128::from(iova);
        if let Some((window, bound)) = &domain.window {
            let into = at.checked_sub(window.first)?;
            let page_size = u128::from(self.page_size());
            let page = bound.get((into / page_size) as usize)?;
            return Some((u128::from(*page) * page_size + into % page_size) as u64);
        }
        let msi = self.reserved().into_iter().any(|(g, r)| {
            g == number && r.kind == ReservedKind::Msi && Span::of(r.range).holds(at)
        });
        msi.then_some(iova)
    }

    /// Steps 6 to 9 of an attach.
    fn valid_with(&self, group: &Group) -> Result<Vec<Span>, AttachRefusal> {
        let aperture = Span::of(self.host.iommus[group.iommu].aperture);
        let refuse = |mapping: Option<Span>| AttachRefusal::Aperture {
            group: group.number,
            aperture: aperture.range(),
            mapping: mapping.map(Span::range),
        };
        if let (Some(low), Some(high)) = (self.valid.first(), self.valid.last())
            && !aperture.meets(Span::new(low.first, high.end))
        {
            return Err(refuse(None));
        }
        // Mappings lie in the valid ranges, so one outside the new aperture is below a higher
        // start or above a lower end.
        let spans = self.spans();
        let below = spans.iter().find(|s| s.first < aperture.first);
        if let Some(span) = below.or(spans.iter().find(|s| s.end > aperture.end)) {
            return Err(refuse(Some(*span)));
        }
        let excluded: Vec<_> =
            group.reserved.iter().filter(|r| r.kind != ReservedKind::DirectRelaxable).collect();
        for region in &excluded {
            if let Some(mapping) = self.lowest_in(Span::of(region.range)) {
                return Err(AttachRefusal::Reserved {
                    group: group.number,
                    region: (*region).clone(),
                    mapping: mapping.span.range(),
                });
            }
        }
        let clipped = if self.domains.is_empty() {
            vec![aperture]
        } else {
            // vfio_iommu_aper_resize: a range that ends with the first byte of the aperture goes,
            // and so does one that starts with its last.
            let stays = |v: &&Span| v.end - 1 > aperture.first && v.first < aperture.end - 1;
            let cut = |v: &Span| Span::new(v.first.max(aperture.first), v.end.min(aperture.end));
            self.valid.iter().filter(stays).map(cut).collect()
        };
        let excluded: Vec<Span> = excluded.into_iter().map(|r| Span::of(r.range)).collect();
        let valid = without(clipped, &excluded);
        if valid.is_empty() {
            return Err(AttachRefusal::NothingValid { group: group.number });
        }
        Ok(valid)
    }

    /// What was mapped without an IOMMU is pinned with the first one: all or nothing.
    fn pin_what_waits(&mut self, limit_pages: Option<u64>) -> Result<(), AttachRefusal> {
        let before = self.clone();
        for span in self.spans() {
            let mapping = self.at(span.first).expect("it is there").clone();
            if mapping.pin.is_some() {
                continue;
            }
            let limit_pages = if mapping.may_lock { None } else { limit_pages };
            let budget = LockBudget { mm: mapping.mm, limit_pages };
            match self.try_pin(mapping.vaddr, span, mapping.prot, budget) {
                Ok(charged) => {
                    let number = self.add_pin(mapping.vaddr, span, charged, mapping.mm);
                    self.at_mut(span).pin = Some((number, 0));
                }
                Err(why) => {
                    *self = before;
                    let mapping = span.range();
                    return Err(match why {
                        NoPin::Fault(error) => AttachRefusal::Pin { mapping, error },
                        NoPin::Limit(error) => AttachRefusal::OverLimit { mapping, error },
                    });
                }
            }
        }
        Ok(())
    }

    /// Pages that the first mapping waiting for its pin would charge to `mm`, for tight limits.
    pub(crate) fn unpinned_charge(&self, mm: MmId) -> u128 {
        let waiting = self.maps.iter().filter(|m| m.pin.is_none() && m.mm == mm && !m.may_lock);
        let free = |m: &super::reference::Mapping| {
            let budget = LockBudget { mm, limit_pages: None };
            self.try_pin(m.vaddr, m.span, m.prot, budget).unwrap_or(0)
        };
        waiting.map(free).sum()
    }

    /// Pages charged for the mapping at a range's first byte.
    pub(crate) fn charge_at(&self, range: iommu::IovaRange) -> u128 {
        let number = self.at(u128::from(range.first())).and_then(|m| m.pin).map(|(n, _)| n);
        self.pins.iter().find(|p| Some(p.number) == number).map_or(0, |p| p.charged)
    }
}

/// Takes holes out of ranges, byte by byte: what stays begins at the start of a range or behind a
/// hole.
fn without(ranges: Vec<Span>, holes: &[Span]) -> Vec<Span> {
    let mut kept = Vec::new();
    for range in ranges {
        let mut at = range.first;
        while at < range.end {
            if let Some(hole) = holes.iter().find(|h| h.holds(at)) {
                at = hole.end;
                continue;
            }
            let next = holes.iter().map(|h| h.first).filter(|first| *first > at).min();
            let end = next.unwrap_or(range.end).min(range.end);
            kept.push(Span::new(at, end));
            at = end;
        }
    }
    kept
}
