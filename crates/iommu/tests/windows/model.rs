//! What windows should do, as lists that are searched from end to end. Nothing of the engine's
//! logic is used, only its types of answers.

use softvfio_iommu::refusal::{Field, WindowMisfit};
use softvfio_iommu::{
    AttachRefusal, BindRefusal, Consumer, Doorbell, Group, Host, Iommu, IovaRange, MapRefusal,
    MsiPolicy, PinError, PinFault, Prot, ReservedKind, ReservedRegion, Window, WindowRefusal,
};

use super::lab::{BAD, MAX_MAPPINGS};
use super::world::PAGE;

/// First byte and the byte after the last.
pub(crate) type Span = (u128, u128);

pub(crate) fn span(range: IovaRange) -> Span {
    (range.first().into(), u128::from(range.last()) + 1)
}

pub(crate) fn meet(a: IovaRange, b: IovaRange) -> bool {
    let (a, b) = (span(a), span(b));
    a.0 < b.1 && b.0 < a.1
}

pub(crate) fn inside(a: Span, b: Span) -> bool {
    b.0 <= a.0 && a.1 <= b.1
}

/// An interrupt set that is enabled: its group, the doorbell's page and the page given.
#[derive(Clone, Debug)]
pub(crate) struct Enabled {
    pub(crate) group: u32,
    pub(crate) page: u64,
    pub(crate) iova: u64,
}

#[derive(Clone, Debug)]
pub(crate) struct Domain {
    pub(crate) iommu: usize,
    pub(crate) groups: Vec<u32>,
    /// In order of enabling; the fixed policy never takes one away.
    pub(crate) enabled: Vec<Enabled>,
}

#[derive(Clone, Debug)]
pub(crate) struct Model {
    pub(crate) host: Host,
    pub(crate) maps: Vec<(IovaRange, u64)>,
    pub(crate) windows: Vec<Window>,
    pub(crate) domains: Vec<Domain>,
}

impl Model {
    pub(crate) fn new(host: Host) -> Self {
        Self { host, maps: vec![], windows: vec![], domains: vec![] }
    }

    pub(crate) fn policy(&self, domain: &Domain) -> MsiPolicy {
        self.host.iommus[domain.iommu].msi
    }

    pub(crate) fn group(&self, number: u32) -> &Group {
        self.host.groups.iter().find(|g| g.number == number).expect("a group")
    }

    pub(crate) fn doorbell(&self, number: u32) -> u64 {
        self.host.controllers[self.group(number).controller].doorbell
    }

    pub(crate) fn attached(&self) -> Vec<u32> {
        self.domains.iter().flat_map(|d| d.groups.clone()).collect()
    }

    pub(crate) fn domain_of(&self, group: u32) -> Option<&Domain> {
        self.domains.iter().find(|d| d.groups.contains(&group))
    }

    pub(crate) fn granule(&self) -> u64 {
        let sizes = self.domains.iter().map(|d| self.host.iommus[d.iommu].page_sizes.0);
        sizes.map(|s| s & s.wrapping_neg()).max().unwrap_or(PAGE)
    }

    pub(crate) fn limit(&self) -> Option<u32> {
        let limit = |d: &Domain| match self.policy(d) {
            MsiPolicy::User { max_windows } => Some(max_windows),
            _ => None,
        };
        self.domains.iter().filter_map(limit).min()
    }

    pub(crate) fn sorted(&self) -> Vec<Window> {
        let mut windows = self.windows.clone();
        windows.sort_by_key(|w| w.range);
        windows
    }

    /// Pages bound in a window: the most of any domain.
    pub(crate) fn used(&self, window: IovaRange) -> u64 {
        let user = |d: &&Domain| matches!(self.policy(d), MsiPolicy::User { .. });
        let pages = |d: &Domain| {
            let mut pages: Vec<u64> = d.enabled.iter().map(|e| e.iova).collect();
            pages.sort_unstable();
            pages.dedup();
            pages.iter().filter(|p| window.contains(**p)).count() as u64
        };
        self.domains.iter().filter(user).map(pages).max().unwrap_or(0)
    }

    pub(crate) fn excluded(&self) -> Vec<ReservedRegion> {
        let groups = self.attached();
        let all = groups.iter().flat_map(|g| self.group(*g).reserved.clone());
        all.filter(|r| r.kind != ReservedKind::DirectRelaxable).collect()
    }

    pub(crate) fn aperture(&self) -> Option<IovaRange> {
        let apertures = self.domains.iter().map(|d| self.host.iommus[d.iommu].aperture);
        apertures.min_by_key(|a| a.last())
    }

    /// What the aperture leaves when holes are taken out.
    pub(crate) fn valid(&self, windows: bool) -> Vec<Span> {
        let Some(aperture) = self.aperture() else { return vec![] };
        let end = span(aperture).1;
        let mut holes: Vec<Span> = self.excluded().iter().map(|r| span(r.range)).collect();
        if windows {
            holes.extend(self.windows.iter().map(|w| span(w.range)));
        }
        let mut at = 0;
        let mut valid = vec![];
        while at < end {
            match holes.iter().find(|h| h.0 <= at && at < h.1) {
                Some(hole) => at = hole.1,
                None => {
                    let next = holes.iter().map(|h| h.0).filter(|h| *h > at).min();
                    let to = next.unwrap_or(end).min(end);
                    valid.push((at, to));
                    at = to;
                }
            }
        }
        valid
    }

    fn usable(&self, wanted: Span) -> bool {
        self.domains.is_empty() || self.valid(false).iter().any(|v| inside(wanted, *v))
    }

    fn misaligned(&self, range: IovaRange) -> Option<(Field, u64)> {
        let fields = [(Field::Size, range.size()), (Field::Iova, range.first())];
        fields.into_iter().find(|(_, v)| v % self.granule() != 0)
    }

    fn mapped(&self, range: IovaRange) -> Option<IovaRange> {
        self.maps.iter().map(|m| m.0).filter(|m| meet(*m, range)).min()
    }

    fn window_in(&self, range: IovaRange) -> Option<IovaRange> {
        self.windows.iter().map(|w| w.range).filter(|w| meet(*w, range)).min()
    }

    pub(crate) fn add(&mut self, window: Window) -> Result<(), WindowRefusal> {
        let Window { range, prot, .. } = window;
        let limit = self.limit().ok_or(WindowRefusal::NotTaken)?;
        let nearest = || self.nearest(range);
        if prot.is_empty() {
            return Err(WindowRefusal::NoAccess);
        } else if let Some((field, value)) = self.misaligned(range) {
            return Err(WindowRefusal::Misaligned { field, value, granule: self.granule() });
        } else if let Some(existing) = self.mapped(range) {
            return Err(WindowRefusal::Mapped { existing, nearest: nearest() });
        } else if let Some(existing) = self.window_in(range) {
            return Err(WindowRefusal::Window { existing, nearest: nearest() });
        } else if self.windows.len() as u32 >= limit {
            return Err(WindowRefusal::NoneLeft { limit });
        } else if !self.usable(span(range)) {
            return Err(WindowRefusal::NotUsable { why: self.why(range), nearest: nearest() });
        }
        let cannot = |d: &Domain| {
            matches!(self.policy(d), MsiPolicy::User { .. })
                && !self.host.iommus[d.iommu].write_only
        };
        if prot == Prot::WRITE && self.domains.iter().any(cannot) {
            return Err(WindowRefusal::Permission { prot });
        }
        self.windows.push(window);
        Ok(())
    }

    fn idle(&self, window: IovaRange) -> Result<(), WindowRefusal> {
        let pages = self.used(window);
        if pages == 0 { Ok(()) } else { Err(WindowRefusal::Busy { window, pages }) }
    }

    pub(crate) fn remove(&mut self, wanted: IovaRange) -> Result<bool, WindowRefusal> {
        let Some(existing) = self.window_in(wanted) else { return Ok(false) };
        if existing != wanted {
            return Err(WindowRefusal::NotExact { wanted, existing });
        }
        self.idle(wanted)?;
        self.windows.retain(|w| w.range != wanted);
        Ok(true)
    }

    pub(crate) fn remove_all(&mut self) -> Result<u64, WindowRefusal> {
        self.sorted().iter().try_for_each(|w| self.idle(w.range))?;
        Ok(self.windows.drain(..).map(|w| w.range.size()).sum())
    }

    pub(crate) fn map(&mut self, range: IovaRange, vaddr: u64) -> Result<(), MapRefusal> {
        if let Some((field, value)) = self.misaligned(range) {
            return Err(MapRefusal::Misaligned { field, value, granule: self.granule() });
        } else if let Some(existing) = self.mapped(range) {
            return Err(MapRefusal::Overlaps { existing, nearest: self.nearest(range) });
        } else if let Some(existing) = self.window_in(range) {
            return Err(MapRefusal::InWindow { existing, nearest: self.nearest(range) });
        } else if self.maps.len() as u32 >= MAX_MAPPINGS {
            return Err(MapRefusal::NoEntriesLeft { limit: MAX_MAPPINGS });
        } else if !self.usable(span(range)) {
            let (why, nearest) = (self.why(range), self.nearest(range));
            return Err(MapRefusal::NotUsable { why, nearest });
        } else if vaddr >= BAD && !self.domains.is_empty() {
            return Err(MapRefusal::Pin(unpinnable(vaddr)));
        }
        self.maps.push((range, vaddr));
        Ok(())
    }

    pub(crate) fn unmap(&mut self, range: IovaRange) -> Result<u64, IovaRange> {
        let (first, end) = span(range);
        let cuts = |at: u128| {
            let holds = |m: &&(IovaRange, u64)| span(m.0).0 <= at && at < span(m.0).1;
            let found = self.maps.iter().find(holds).map(|m| m.0);
            found.filter(|m| {
                !(at == first && span(*m).0 == at || at == end - 1 && span(*m).1 == end)
            })
        };
        let low = cuts(first).filter(|m| span(*m).0 < first);
        if let Some(cut) = low.or(cuts(end - 1).filter(|m| span(*m).1 > end)) {
            return Err(cut);
        }
        let starts = |r: IovaRange| first <= span(r).0 && span(r).0 < end;
        let bytes = self.maps.iter().filter(|m| starts(m.0)).map(|m| m.0.size()).sum();
        self.maps.retain(|m| !starts(m.0));
        Ok(bytes)
    }

    pub(crate) fn attach(&mut self, number: u32) -> Result<(), AttachRefusal> {
        if self.attached().contains(&number) {
            return Err(AttachRefusal::AlreadyAttached { group: number });
        }
        let Some(group) = self.host.groups.iter().find(|g| g.number == number) else {
            return Err(AttachRefusal::UnknownGroup { group: number });
        };
        let iommu = &self.host.iommus[group.iommu];
        let granule = iommu.page_sizes.0 & iommu.page_sizes.0.wrapping_neg();
        let lowest =
            |f: &dyn Fn(IovaRange) -> bool| self.maps.iter().map(|m| m.0).filter(|m| f(*m)).min();
        let aperture = iommu.aperture;
        if let Some(mapping) = lowest(&|m| m.last() > aperture.last()) {
            return Err(AttachRefusal::Aperture {
                group: number,
                aperture,
                mapping: Some(mapping),
            });
        }
        for region in group.reserved.iter().filter(|r| r.kind != ReservedKind::DirectRelaxable) {
            if let Some(mapping) = lowest(&|m| meet(m, region.range)) {
                let region = region.clone();
                return Err(AttachRefusal::Reserved { group: number, region, mapping });
            }
        }
        if let Some(mapping) = lowest(&|m| m.first() % granule != 0 || m.size() % granule != 0) {
            return Err(AttachRefusal::PageSize { group: number, granule, mapping });
        }
        for (n, window) in self.sorted().iter().enumerate() {
            if let Some(why) = misfit(iommu, group, window, n as u32) {
                return Err(AttachRefusal::Window { group: number, window: window.range, why });
            }
        }
        let mut bad: Vec<_> = self.maps.iter().filter(|m| m.1 >= BAD).collect();
        bad.sort();
        if let Some((mapping, vaddr)) = bad.first() {
            let error = unpinnable(*vaddr);
            return Err(AttachRefusal::Pin { mapping: *mapping, error });
        }
        let iommu = group.iommu;
        match self.domains.iter_mut().find(|d| d.iommu == iommu) {
            Some(domain) => domain.groups.push(number),
            None => self.domains.push(Domain { iommu, groups: vec![number], enabled: vec![] }),
        }
        Ok(())
    }

    pub(crate) fn detach(&mut self, number: u32) -> bool {
        let was = self.attached().contains(&number);
        while self.disable(number) {}
        self.domains.iter_mut().for_each(|d| d.groups.retain(|g| *g != number));
        self.domains.retain(|d| !d.groups.is_empty());
        if self.domains.is_empty() && was {
            self.windows.clear();
            self.maps.clear();
        }
        was
    }

    /// Doorbell pages of a domain's devices.
    pub(crate) fn needed(&self, domain: &Domain) -> u32 {
        let mut pages: Vec<u64> = domain.groups.iter().map(|g| self.doorbell(*g) / PAGE).collect();
        pages.sort_unstable();
        pages.dedup();
        pages.len() as u32
    }

    pub(crate) fn enable(&mut self, group: u32) -> Result<Doorbell, BindRefusal> {
        let Some(n) = self.domains.iter().position(|d| d.groups.contains(&group)) else {
            return Err(BindRefusal::NotAttached { group });
        };
        let (domain, address) = (&self.domains[n], self.doorbell(group));
        let (page, needed) = (address / PAGE * PAGE, self.needed(domain));
        let fixed = match self.policy(domain) {
            MsiPolicy::Fixed { window } => Some(window),
            MsiPolicy::User { .. } => None,
            _ => return Ok(Doorbell { iova: address, address }),
        };
        let for_msis: Vec<Window> =
            self.sorted().into_iter().filter(|w| w.consumer == Consumer::MSI).collect();
        let writable = for_msis.iter().filter(|w| w.prot.contains(Prot::WRITE)).map(|w| w.range);
        let windows = fixed.map_or_else(|| writable.collect::<Vec<_>>(), |w| vec![w]);
        let pages: Vec<u64> =
            windows.iter().flat_map(|w| (w.first()..=w.last()).step_by(PAGE as usize)).collect();
        let has = domain.enabled.iter().find(|e| e.page == page).map(|e| e.iova);
        let free = pages.iter().find(|p| domain.enabled.iter().all(|e| e.iova != **p));
        let Some(iova) = has.or(free.copied()) else {
            let pages = pages.len() as u64;
            return Err(match fixed {
                Some(window) => BindRefusal::WindowFull { window, pages },
                None if for_msis.is_empty() => BindRefusal::NoWindow { group, needed },
                None if windows.is_empty() => BindRefusal::NoWritableWindow { needed },
                None => BindRefusal::WindowsFull { pages, needed },
            });
        };
        self.domains[n].enabled.push(Enabled { group, page, iova });
        Ok(Doorbell { iova: iova + address % PAGE, address })
    }

    pub(crate) fn disable(&mut self, group: u32) -> bool {
        let Some(n) = self.domains.iter().position(|d| d.groups.contains(&group)) else {
            return false;
        };
        let user = matches!(self.policy(&self.domains[n]), MsiPolicy::User { .. });
        let enabled = &mut self.domains[n].enabled;
        let found = enabled.iter().position(|e| e.group == group).filter(|_| user);
        found.map(|at| enabled.remove(at)).is_some()
    }
}

fn unpinnable(vaddr: u64) -> PinError {
    PinError { vaddr, charged_pages: 0, why: PinFault::NotMapped }
}

fn misfit(iommu: &Iommu, group: &Group, window: &Window, before: u32) -> Option<WindowMisfit> {
    let MsiPolicy::User { max_windows: limit } = iommu.msi else { return None };
    let granule = iommu.page_sizes.0 & iommu.page_sizes.0.wrapping_neg();
    let held = group.reserved.iter().filter(|r| r.kind != ReservedKind::DirectRelaxable);
    let held = held.filter(|r| meet(r.range, window.range)).min_by_key(|r| r.range);
    let (first, end) = span(window.range);
    if !inside((first, end), span(iommu.aperture)) {
        Some(WindowMisfit::Aperture(iommu.aperture))
    } else if let Some(region) = held {
        Some(WindowMisfit::Reserved(region.clone()))
    } else if first % u128::from(granule) != 0 || end % u128::from(granule) != 0 {
        Some(WindowMisfit::PageSize { granule })
    } else if window.prot == Prot::WRITE && !iommu.write_only {
        Some(WindowMisfit::Permission(window.prot))
    } else {
        (before >= limit).then_some(WindowMisfit::TooMany { limit })
    }
}
