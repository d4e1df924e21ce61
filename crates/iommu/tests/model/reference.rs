//! The reference model: a vector of mappings, searched from end to end, and the kernel's rules
//! (kernel-semantics 2, 3, 4, 6) in the words of the reference. Nothing of the engine's logic is
//! used, only its types of answers.

use std::sync::Arc;

use iommu::refusal::Field;
use iommu::{
    Host, IovaRange, LockBudget, MapRefusal, MapRequest, MmId, OverLimit, PinError, Prot,
    ReservedRegion, VaddrRefusal,
};

use super::op::Op;
use super::outcome::Outcome;
use super::span::{Span, TOP};
use super::world::walk;

/// How a run begins.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub(crate) page_size: u64,
    pub(crate) max_mappings: u32,
    /// The kernel's stray dirty bits are mirrored.
    pub(crate) stray: bool,
    /// Version 1 of the container's rules for unmapping.
    pub(crate) v1: bool,
    /// Pages that each client has locked elsewhere.
    pub(crate) locked_elsewhere: u64,
}

/// What an address space should be.
#[derive(Clone, Debug)]
pub(crate) struct Model {
    pub(crate) setup: Setup,
    pub(crate) host: Arc<Host>,
    /// In no order.
    pub(crate) maps: Vec<Mapping>,
    pub(crate) domains: Vec<Domain>,
    pub(crate) valid: Vec<Span>,
    pub(crate) pins: Vec<Pin>,
    pub(crate) tracking: bool,
    /// The last step and what it must have answered.
    pub(crate) op: Op,
    pub(crate) expected: Outcome,
}

#[derive(Clone, Debug)]
pub(crate) struct Mapping {
    pub(crate) span: Span,
    pub(crate) vaddr: u64,
    pub(crate) mm: MmId,
    pub(crate) prot: Prot,
    pub(crate) invalid: bool,
    pub(crate) may_lock: bool,
    /// The pin's number, and the byte of it that the mapping begins with.
    pub(crate) pin: Option<(usize, u128)>,
    /// The kernel's dirty bitmap, a bit each, its spare words included. None while tracking is off,
    /// nor for mappings too large to look at.
    pub(crate) bits: Vec<bool>,
}

#[derive(Clone, Debug)]
pub(crate) struct Pin {
    pub(crate) number: usize,
    pub(crate) vaddr: u64,
    pub(crate) size: u128,
    pub(crate) charged: u128,
    pub(crate) payer: MmId,
    /// Once two mappings shared it, its charge stays where it is.
    pub(crate) shared: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Domain {
    pub(crate) iommu: usize,
    pub(crate) groups: Vec<u32>,
    /// The window of doorbells and the physical pages bound, in order of first use.
    pub(crate) window: Option<(Span, Vec<u64>)>,
}

impl Model {
    pub(crate) fn new(setup: Setup, host: Arc<Host>) -> Self {
        Self {
            setup,
            host,
            maps: Vec::new(),
            domains: Vec::new(),
            valid: Vec::new(),
            pins: Vec::new(),
            tracking: false,
            op: Op::Nothing,
            expected: Outcome::Done,
        }
    }

    pub(crate) fn page_size(&self) -> u64 {
        self.setup.page_size
    }

    /// `iova_pgsizes`: what every domain has; sizes below a CPU page count as the CPU's. Domains
    /// that share none (a kernel's `ctz` of 0) meet at the largest of their smallest pages.
    pub(crate) fn page_sizes(&self) -> u64 {
        let all = self.domains.iter().map(|d| self.host.iommus[d.iommu].page_sizes.0);
        let common = all.clone().fold(u64::MAX, |a, b| a & b);
        let shared = if common == 0 { all.map(smallest).max().unwrap_or(0) } else { common };
        let page = self.page_size();
        let below = (0..64).map(|b| 1u64 << b).filter(|b| *b < page).any(|b| shared & b != 0);
        let whole = shared / page * page;
        if below { whole | page } else { shared }
    }

    pub(crate) fn granule(&self) -> u64 {
        smallest(self.page_sizes())
    }

    pub(crate) fn available(&self) -> u32 {
        self.setup.max_mappings - self.maps.len() as u32
    }

    /// Pages that `mm` has locked, here and elsewhere.
    pub(crate) fn locked(&self, mm: MmId) -> u128 {
        let here = self.pins.iter().filter(|p| p.payer == mm).map(|p| p.charged);
        u128::from(self.setup.locked_elsewhere) + here.sum::<u128>()
    }

    /// The mappings' spans, ascending.
    pub(crate) fn spans(&self) -> Vec<Span> {
        let mut spans: Vec<Span> = self.maps.iter().map(|m| m.span).collect();
        spans.sort_unstable();
        spans
    }

    pub(crate) fn at(&self, iova: u128) -> Option<&Mapping> {
        self.maps.iter().find(|m| m.span.holds(iova))
    }

    pub(crate) fn at_mut(&mut self, span: Span) -> &mut Mapping {
        self.maps.iter_mut().find(|m| m.span == span).expect("the mapping is there")
    }

    /// The lowest mapping that meets `span`.
    pub(crate) fn lowest_in(&self, span: Span) -> Option<&Mapping> {
        self.maps.iter().filter(|m| m.span.meets(span)).min_by_key(|m| m.span)
    }

    /// Mappings that start in `span`, ascending.
    pub(crate) fn starting_in(&self, span: Span) -> Vec<Span> {
        self.spans().into_iter().filter(|s| span.holds(s.first)).collect()
    }

    /// The mapping that `span` would cut.
    pub(crate) fn cut_by(&self, span: Span) -> Option<IovaRange> {
        let low = self.at(span.first).filter(|m| m.span.first != span.first);
        let high = self.at(span.end - 1).filter(|m| m.span.end != span.end);
        low.or(high).map(|m| m.span.range())
    }

    /// Regions that mappings keep out of, by group in order of domain and attachment.
    pub(crate) fn reserved(&self) -> Vec<(u32, &ReservedRegion)> {
        let groups = self.domains.iter().flat_map(|d| &d.groups);
        groups
            .flat_map(|g| {
                let group = self.host.groups.iter().find(|h| h.number == *g).expect("attached");
                group.reserved.iter().map(move |r| (*g, r))
            })
            .collect()
    }

    pub(crate) fn reserved_spans(&self) -> Vec<Span> {
        let all = self.host.groups.iter().flat_map(|g| &g.reserved);
        all.map(|r| Span::of(r.range)).collect()
    }

    pub(crate) fn map(&mut self, request: &MapRequest) -> Result<(), MapRefusal> {
        let MapRequest { range, vaddr, prot, budget } = *request;
        let span = Span::of(range);
        if prot.is_empty() {
            return Err(MapRefusal::NoAccess);
        }
        if u128::from(vaddr) + span.size() > TOP || span.size() == TOP {
            return Err(MapRefusal::VaddrWraps { vaddr, size: range.size() });
        }
        if let Some((field, value)) = self.misaligned(span, vaddr) {
            return Err(MapRefusal::Misaligned { field, value, granule: self.granule() });
        }
        if let Some(existing) = self.lowest_in(span) {
            let existing = existing.span.range();
            return Err(MapRefusal::Overlaps { existing, nearest: self.nearest(span) });
        }
        if self.maps.len() as u32 == self.setup.max_mappings {
            return Err(MapRefusal::NoEntriesLeft { limit: self.setup.max_mappings });
        }
        if !self.valid.is_empty() && !self.valid.iter().any(|v| span.inside(*v)) {
            let (why, nearest) = (self.unusable(span), self.nearest(span));
            return Err(MapRefusal::NotUsable { why, nearest });
        }
        let mut charged = None;
        if !self.domains.is_empty() {
            let pages = self.try_pin(vaddr, span, prot, budget).map_err(|e| match e {
                NoPin::Fault(error) => MapRefusal::Pin(error),
                NoPin::Limit(error) => MapRefusal::OverLimit(error),
            })?;
            charged = Some(pages);
        }
        let pages = span.size() / u128::from(self.granule());
        if self.tracking && pages > 0x7fff_ffff {
            return Err(MapRefusal::TooManyPages { pages: pages as u64 });
        }
        let pin = charged.map(|pages| (self.add_pin(vaddr, span, pages, budget.mm), 0));
        self.maps.push(Mapping {
            span,
            vaddr,
            mm: budget.mm,
            prot,
            invalid: false,
            may_lock: budget.limit_pages.is_none(),
            pin,
            bits: Vec::new(),
        });
        self.fresh_bits(span);
        Ok(())
    }

    pub(crate) fn add_pin(&mut self, vaddr: u64, span: Span, charged: u128, payer: MmId) -> usize {
        let number = self.pins.last().map_or(0, |p| p.number + 1);
        let size = span.size();
        self.pins.push(Pin { number, vaddr, size, charged, payer, shared: false });
        number
    }

    /// Pins page by page, charging as it goes: whichever page fails first decides.
    pub(crate) fn try_pin(
        &self,
        vaddr: u64,
        span: Span,
        prot: Prot,
        budget: LockBudget,
    ) -> Result<u128, NoPin> {
        let write = prot.contains(Prot::WRITE);
        let walk = walk(vaddr, span.size() as u64, write, self.page_size());
        let locked = self.locked(budget.mm);
        let wanted = u128::from(walk.charged_pages);
        if let Some(limit) = budget.limit_pages
            && wanted > 0
            && locked + wanted > u128::from(limit)
        {
            return Err(NoPin::Limit(OverLimit {
                locked_pages: locked as u64,
                wanted_pages: walk.charged_pages,
                limit_pages: limit,
            }));
        }
        match walk.fault {
            Some((vaddr, why)) => {
                Err(NoPin::Fault(PinError { vaddr, charged_pages: walk.charged_pages, why }))
            }
            None => Ok(wanted),
        }
    }

    pub(crate) fn misaligned(&self, span: Span, vaddr: u64) -> Option<(Field, u64)> {
        let granule = u128::from(self.granule());
        let values =
            [(Field::Size, span.size()), (Field::Iova, span.first), (Field::Vaddr, vaddr.into())];
        let found = values.into_iter().find(|(_, v)| v % granule != 0);
        found.map(|(field, v)| (field, v as u64))
    }

    pub(crate) fn cut(&mut self, at: u64) -> Result<(), MapRefusal> {
        let granule = self.granule();
        if !at.is_multiple_of(granule) {
            return Err(MapRefusal::Misaligned { field: Field::Iova, value: at, granule });
        }
        let at = u128::from(at);
        let Some(whole) = self.at(at).filter(|m| m.span.first != at).cloned() else {
            return Ok(());
        };
        if self.available() == 0 {
            return Err(MapRefusal::NoEntriesLeft { limit: self.setup.max_mappings });
        }
        let into = at - whole.span.first;
        let (low, high) = (Span::new(whole.span.first, at), Span::new(at, whole.span.end));
        if let Some((number, _)) = whole.pin {
            self.pins.iter_mut().filter(|p| p.number == number).for_each(|p| p.shared = true);
        }
        let upper = Mapping {
            span: high,
            vaddr: whole.vaddr + into as u64,
            pin: whole.pin.map(|(number, offset)| (number, offset + into)),
            ..whole.clone()
        };
        self.at_mut(whole.span).span = low;
        self.maps.push(upper);
        self.fresh_bits(low);
        self.fresh_bits(high);
        Ok(())
    }

    /// Takes mappings away; pins that nobody has any more go with them.
    pub(crate) fn remove(&mut self, spans: &[Span]) -> u64 {
        self.maps.retain(|m| !spans.contains(&m.span));
        let maps = &self.maps;
        self.pins.retain(|p| maps.iter().any(|m| m.pin.is_some_and(|(n, _)| n == p.number)));
        (spans.iter().map(|s| s.size()).sum::<u128>() % TOP) as u64
    }

    /// `VFIO_IOMMU_UNMAP_DMA` as far as it is the container's: version 2 refuses to cut, version 1
    /// stops at a mapping that starts before the range.
    pub(crate) fn unmap(&mut self, range: IovaRange) -> Result<u64, IovaRange> {
        let span = Span::of(range);
        if self.setup.v1 {
            if self.at(span.first).is_some_and(|m| m.span.first < span.first) {
                return Ok(0);
            }
        } else if let Some(existing) = self.cut_by(span) {
            return Err(existing);
        }
        Ok(self.remove(&self.starting_in(span)))
    }

    pub(crate) fn invalidate(&mut self, range: IovaRange) -> Result<u64, VaddrRefusal> {
        let spans = self.starting_in(Span::of(range));
        if let Some(span) = spans.iter().find(|s| self.at(s.first).is_some_and(|m| m.invalid)) {
            return Err(VaddrRefusal::AlreadyInvalid { existing: span.range() });
        }
        spans.iter().for_each(|s| self.at_mut(*s).invalid = true);
        Ok((spans.iter().map(|s| s.size()).sum::<u128>() % TOP) as u64)
    }

    pub(crate) fn update(
        &mut self,
        range: IovaRange,
        vaddr: u64,
        budget: LockBudget,
    ) -> Result<(), VaddrRefusal> {
        let span = Span::of(range);
        if u128::from(vaddr) + span.size() > TOP {
            return Err(VaddrRefusal::VaddrWraps { vaddr, size: range.size() });
        }
        if let Some((field, value)) = self.misaligned(span, vaddr) {
            return Err(VaddrRefusal::Misaligned { field, value, granule: self.granule() });
        }
        let Some(found) = self.lowest_in(span).cloned() else {
            return Err(VaddrRefusal::NothingMapped { wanted: range });
        };
        let existing = found.span.range();
        if !found.invalid {
            return Err(VaddrRefusal::StillValid { existing });
        }
        if existing != range {
            return Err(VaddrRefusal::NotExact { wanted: range, existing });
        }
        let moves = found.mm != budget.mm;
        let locked = self.locked(budget.mm);
        let number = found.pin.map(|(n, _)| n);
        let pin = self.pins.iter_mut().find(|p| Some(p.number) == number && !p.shared);
        if let Some(pin) = pin.filter(|_| moves) {
            if let Some(limit_pages) = budget.limit_pages
                && pin.charged > 0
                && locked + pin.charged > u128::from(limit_pages)
            {
                return Err(VaddrRefusal::OverLimit(OverLimit {
                    locked_pages: locked as u64,
                    wanted_pages: pin.charged as u64,
                    limit_pages,
                }));
            }
            pin.payer = budget.mm;
        }
        let mapping = self.at_mut(span);
        mapping.vaddr = vaddr;
        mapping.invalid = false;
        if moves {
            mapping.mm = budget.mm;
            mapping.may_lock = budget.limit_pages.is_none();
        }
        Ok(())
    }
}

/// Why memory was not pinned.
pub(crate) enum NoPin {
    Fault(PinError),
    Limit(OverLimit),
}

/// The smallest size of a bitmap of sizes.
pub(crate) fn smallest(sizes: u64) -> u64 {
    (0..64).map(|b| 1u64 << b).find(|b| sizes & b != 0).expect("some page size")
}
