//! Making mappings.

use crate::event::Event;
use crate::refusal::{Field, MapRefusal};
use crate::space::{AddressSpace, Env, Mapping, SharedPin, State};
use crate::table::Overlap;
use crate::{IovaRange, LockBudget, OverLimit, PinError, PinId, Pinned, Prot};

/// Pages a dirty bitmap can cover (the kernel's `DIRTY_BITMAP_PAGES_MAX`).
pub(super) const BITMAP_PAGES_MAX: u64 = 0x7fff_ffff;

/// A mapping to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapRequest {
    /// Where devices will find it.
    pub range: IovaRange,
    /// The client's address of the first byte.
    pub vaddr: u64,
    /// What devices may do.
    pub prot: Prot,
    /// Who pays for the pages, and how many it may lock.
    pub budget: LockBudget,
}

impl AddressSpace {
    /// Maps `request.range` to the client's memory at `request.vaddr`, pinning it when a domain is
    /// attached.
    ///
    /// # Errors
    /// The first that applies, in the kernel's order: access, wrap and alignment, overlap, number
    /// of mappings, valid ranges, memory and its limit, dirty bitmap. Nothing has changed then.
    pub fn map(&mut self, request: &MapRequest, env: &mut Env<'_>) -> Result<(), MapRefusal> {
        let MapRequest { range, vaddr, prot, budget } = *request;
        if prot.is_empty() {
            return Err(MapRefusal::NoAccess);
        }
        // No request can say 2^64 bytes, and no memory has them.
        let whole = range == IovaRange::ALL;
        if whole || vaddr.checked_add(range.size().wrapping_sub(1)).is_none() {
            return Err(MapRefusal::VaddrWraps { vaddr, size: range.size() });
        }
        let fields =
            [(Field::Size, range.size()), (Field::Iova, range.first()), (Field::Vaddr, vaddr)];
        if let Some((field, value, granule)) = self.misaligned(&fields) {
            return Err(MapRefusal::Misaligned { field, value, granule });
        }

        let mut mapping = Mapping {
            vaddr,
            pin: PinId(0),
            charged_pages: 0,
            mm: budget.mm,
            prot,
            state: State::empty(),
        };
        mapping.state.set(State::MAY_LOCK, budget.limit_pages.is_none());
        let (full, window) = (self.is_full(), self.window_in(range));
        let Self { table, valid, domains, .. } = self;
        // An overlap is found before anything is pinned: pinning can show in the client's memory.
        let made = table.insert_with(range, || {
            if let Some(window) = window {
                return Err(NotMade::InWindow(window));
            }
            if full {
                return Err(NotMade::Full);
            }
            if !valid.is_empty() && valid.covering(range).is_none() {
                return Err(NotMade::NotUsable);
            }
            if !domains.is_empty() {
                mapping.set_pinned(pin(range, vaddr, prot, budget, env)?);
            }
            Ok(mapping)
        });
        made.map_err(|why| match why {
            NotMade::Overlaps(existing) => self.overlaps(range, existing),
            NotMade::InWindow(existing) => {
                MapRefusal::InWindow { existing, nearest: self.nearest(range) }
            }
            NotMade::Full => MapRefusal::NoEntriesLeft { limit: self.max_mappings },
            NotMade::NotUsable => self.not_usable(range),
            NotMade::Unpinnable(why) => why.into(),
        })?;
        if let Err(refusal) = self.start_dirty(range) {
            self.table.remove(range.first());
            if !planted!(FailedMapStaysPinned) {
                release(&mapping, env);
            }
            return Err(refusal);
        }
        self.cache.fit(self.table.len());
        env.observer.event(&Event::Mapped { range, vaddr, mm: budget.mm, prot });
        Ok(())
    }

    /// Splits the mapping that holds `at` so that a mapping starts there; both halves keep their
    /// memory. Nothing happens when one starts there already or nothing is mapped.
    ///
    /// VFIO never does this (version 2 refuses to cut a mapping); iommufd's compatibility mode
    /// does.
    ///
    /// # Errors
    /// [`MapRefusal::Misaligned`] when `at` is no page boundary, [`MapRefusal::NoEntriesLeft`] when
    /// the second half would be one mapping too many.
    pub fn cut(&mut self, at: u64, env: &mut Env<'_>) -> Result<(), MapRefusal> {
        if let Some((field, value, granule)) = self.misaligned(&[(Field::Iova, at)]) {
            return Err(MapRefusal::Misaligned { field, value, granule });
        }
        let Some((range, &whole)) = self.table.get(at) else { return Ok(()) };
        let (Some(below), Some(above)) = (
            at.checked_sub(1).and_then(|l| IovaRange::new(range.first(), l)),
            IovaRange::new(at, range.last()),
        ) else {
            return Ok(());
        };
        if self.is_full() {
            return Err(MapRefusal::NoEntriesLeft { limit: self.max_mappings });
        }
        let mut low = whole;
        if whole.is_pinned() {
            let alone = SharedPin {
                mappings: 1,
                first: range.first(),
                charged_pages: whole.charged_pages,
                mm: whole.mm,
            };
            let shared = self.shared_pins.entry(whole.pin).or_insert(alone);
            shared.mappings = shared.mappings.saturating_add(1);
            low.charged_pages = 0;
            low.state.insert(State::SHARED_PIN);
        }
        let mut high = low;
        high.vaddr = whole.vaddr.wrapping_add(below.size());
        if low.vaddr_is_invalid() && !planted!(CutForgetsInvalid) {
            self.invalid_vaddrs = self.invalid_vaddrs.saturating_add(1);
        }
        self.table.remove(range.first());
        // Both halves lie where the whole was: nothing can be in their way.
        let low_in = self.table.insert(below, low);
        let high_in = self.table.insert(above, high);
        debug_assert!(low_in.is_ok() && high_in.is_ok());
        self.cut_dirty(range, at);
        env.observer.event(&Event::Cut { range, at });
        Ok(())
    }

    /// The first of a request's numbers that is no multiple of the smallest IOMMU page, and that
    /// page's size in bytes.
    pub(super) fn misaligned(&self, fields: &[(Field, u64)]) -> Option<(Field, u64, u64)> {
        let granule = self.page_sizes.smallest();
        let odd = fields.iter().find(|(_, value)| value & granule.wrapping_sub(1) != 0);
        odd.map(|(field, value)| (*field, *value, granule))
    }
}

impl Mapping {
    /// Parts of a mapping that was cut while nothing was pinned get a pin each.
    pub(super) fn set_pinned(&mut self, pinned: Pinned) {
        self.pin = pinned.id;
        self.charged_pages = pinned.charged_pages;
        self.state.insert(State::PINNED);
    }

    /// Who pays for its pages from now on.
    pub(super) fn budget(&self, limit_pages: Option<u64>) -> LockBudget {
        let may_lock = self.state.contains(State::MAY_LOCK);
        LockBudget { mm: self.mm, limit_pages: if may_lock { None } else { limit_pages } }
    }
}

/// Why there is no new entry in the table.
enum NotMade {
    Overlaps(IovaRange),
    InWindow(IovaRange),
    Full,
    NotUsable,
    Unpinnable(Unpinnable),
}

impl From<Overlap> for NotMade {
    fn from(overlap: Overlap) -> Self {
        Self::Overlaps(overlap.existing)
    }
}

impl From<Unpinnable> for NotMade {
    fn from(why: Unpinnable) -> Self {
        Self::Unpinnable(why)
    }
}

/// Why a range could not be pinned and charged.
#[derive(Clone, Copy)]
pub(super) enum Unpinnable {
    Pin(PinError),
    OverLimit(OverLimit),
}

impl From<Unpinnable> for MapRefusal {
    fn from(unpinnable: Unpinnable) -> Self {
        match unpinnable {
            Unpinnable::Pin(error) => Self::Pin(error),
            Unpinnable::OverLimit(over) => Self::OverLimit(over),
        }
    }
}

/// Pins and charges a range. The kernel charges as it pins, page by page: whichever page fails
/// first, for whichever reason, decides.
pub(super) fn pin(
    range: IovaRange,
    vaddr: u64,
    prot: Prot,
    budget: LockBudget,
    env: &mut Env<'_>,
) -> Result<Pinned, Unpinnable> {
    match env.pinner.pin(vaddr, range.size(), prot.contains(Prot::WRITE)) {
        Ok(pinned) => match env.locked.charge(budget, pinned.charged_pages) {
            Ok(()) => Ok(pinned),
            Err(over) => {
                env.pinner.unpin(pinned.id);
                Err(Unpinnable::OverLimit(over))
            }
        },
        Err(error) => match env.locked.check(budget, error.charged_pages) {
            Ok(()) => Err(Unpinnable::Pin(error)),
            Err(over) => Err(Unpinnable::OverLimit(over)),
        },
    }
}

/// Gives back what a mapping with a pin of its own holds.
pub(super) fn release(mapping: &Mapping, env: &mut Env<'_>) {
    if mapping.is_pinned() {
        env.locked.uncharge(mapping.mm, mapping.charged_pages);
        env.pinner.unpin(mapping.pin);
    }
}
