//! Reserved IOVA of a domain, handed out page by page.
//!
//! A pool holds windows: ranges of IOVA set aside for a [`Consumer`]. A consumer binds keys (for
//! MSIs: doorbell pages, by physical address) to pages of its windows; a key bound twice is bound
//! once and counted. Every operation takes time logarithmic in windows and bindings.

use alloc::collections::{BTreeMap, BTreeSet};

use crate::{IovaRange, Prot};

/// Who uses a window. MSIs are the first; another is another number, not another interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Consumer(pub u32);

impl Consumer {
    /// Doorbells of interrupt controllers; the key is the doorbell page's physical address.
    pub const MSI: Self = Self(0);
}

/// A range of IOVA set aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Where; whole pages.
    pub range: IovaRange,
    /// What devices may do there.
    pub prot: Prot,
    /// For whom.
    pub consumer: Consumer,
}

/// Why a key got no page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoPage {
    /// The consumer has no window.
    NoWindow,
    /// It has, but none that permits what a binding needs.
    NotPermitted,
    /// Every page of them is bound.
    Full,
}

/// A bound page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Its first IOVA.
    pub iova: u64,
    /// How often its key was bound and not yet released.
    pub references: u64,
}

#[derive(Clone, Debug)]
struct Held {
    window: Window,
    /// Runs of free pages: first byte to last byte.
    free: BTreeMap<u64, u64>,
    used_pages: u64,
}

/// The windows of a domain and what is bound in them.
#[derive(Clone, Debug)]
pub struct Pool {
    page_size: u64,
    windows: BTreeMap<u64, Held>,
    /// Windows with a free page in which bindings of the consumer are permitted.
    room: BTreeSet<(Consumer, u64)>,
    slots: BTreeMap<(Consumer, u64), Slot>,
    by_iova: BTreeMap<u64, (Consumer, u64)>,
    /// What a binding needs of its window.
    needs: Prot,
}

impl Pool {
    /// An empty pool with pages of `page_size` bytes (a power of two), whose bindings need windows
    /// that permit `needs`.
    #[must_use]
    pub const fn new(page_size: u64, needs: Prot) -> Self {
        Self {
            page_size,
            windows: BTreeMap::new(),
            room: BTreeSet::new(),
            slots: BTreeMap::new(),
            by_iova: BTreeMap::new(),
            needs,
        }
    }

    /// Adds a window. Whoever adds it has checked that it is made of whole pages and overlaps no
    /// other.
    pub fn add(&mut self, window: Window) {
        let (first, last) = (window.range.first(), window.range.last());
        let free = BTreeMap::from([(first, last)]);
        self.windows.insert(first, Held { window, free, used_pages: 0 });
        self.note_room(first);
    }

    /// Takes a window back when nothing is bound in it; whether it did.
    pub fn remove(&mut self, range: IovaRange) -> bool {
        let first = range.first();
        let idle = |h: &Held| h.window.range == range && h.used_pages == 0;
        match self.windows.get(&first) {
            Some(held) if idle(held) => {
                self.room.remove(&(held.window.consumer, first));
                self.windows.remove(&first);
                true
            }
            _ => false,
        }
    }

    /// Pages bound in the window that starts at `first`.
    #[must_use]
    pub fn used_pages(&self, first: u64) -> u64 {
        self.windows.get(&first).map_or(0, |h| h.used_pages)
    }

    /// The windows, ascending.
    pub fn windows(&self) -> impl Iterator<Item = Window> {
        self.windows.values().map(|h| h.window)
    }

    /// What is bound, by key.
    pub fn bindings(&self) -> impl Iterator<Item = (Consumer, u64, Slot)> {
        self.slots.iter().map(|((consumer, key), slot)| (*consumer, *key, *slot))
    }

    /// The page of `key`: the one it has, or the lowest free page of the lowest window with room.
    ///
    /// # Errors
    /// [`NoPage`] says what is missing; nothing has changed.
    pub fn bind(&mut self, consumer: Consumer, key: u64) -> Result<Slot, NoPage> {
        if let Some(slot) = self.slots.get_mut(&(consumer, key)) {
            slot.references = slot.references.saturating_add(1);
            return Ok(*slot);
        }
        let Some(iova) = self.take(consumer) else { return Err(self.why_none(consumer)) };
        let slot = Slot { iova, references: 1 };
        self.slots.insert((consumer, key), slot);
        self.by_iova.insert(iova, (consumer, key));
        Ok(slot)
    }

    /// Gives one reference back; frees the page with the last. Whether it was freed.
    pub fn release(&mut self, consumer: Consumer, key: u64) -> bool {
        let Some(slot) = self.slots.get_mut(&(consumer, key)) else { return false };
        slot.references = slot.references.saturating_sub(1);
        let Slot { iova, references } = *slot;
        if references > u64::from(planted!(ReleaseFreesEarly)) {
            return false;
        }
        self.slots.remove(&(consumer, key));
        self.by_iova.remove(&iova);
        self.give(iova);
        true
    }

    /// What is bound at the page of `iova`.
    #[must_use]
    pub fn resolve(&self, iova: u64) -> Option<(Consumer, u64)> {
        self.by_iova.get(&iova.wrapping_sub(self.offset(iova))).copied()
    }

    /// The part of an address below its page.
    #[must_use]
    pub const fn offset(&self, address: u64) -> u64 {
        address & self.page_size.wrapping_sub(1)
    }

    /// Takes the lowest free page of the lowest window that has one.
    fn take(&mut self, consumer: Consumer) -> Option<u64> {
        let (_, first) = *self.room.range((consumer, 0)..=(consumer, u64::MAX)).next()?;
        let held = self.windows.get_mut(&first)?;
        let (iova, last) = held.free.pop_first()?;
        let next = iova.checked_add(self.page_size).filter(|next| *next <= last);
        if let Some(next) = next {
            held.free.insert(next, last);
        }
        held.used_pages = held.used_pages.saturating_add(1);
        if held.free.is_empty() {
            self.room.remove(&(consumer, first));
        }
        Some(iova)
    }

    /// Puts a page back, joining the runs it touches.
    fn give(&mut self, iova: u64) {
        let Some((&first, held)) = self.windows.range_mut(..=iova).next_back() else { return };
        let mut run = (iova, iova.saturating_add(self.page_size.wrapping_sub(1)));
        let below = held.free.range(..iova).next_back().map(|(f, l)| (*f, *l));
        if let Some((f, l)) = below
            && l.checked_add(1) == Some(iova)
        {
            held.free.remove(&f);
            run.0 = f;
        }
        if let Some(above) = run.1.checked_add(1)
            && let Some(l) = held.free.remove(&above)
        {
            run.1 = l;
        }
        held.free.insert(run.0, run.1);
        held.used_pages = held.used_pages.saturating_sub(1);
        self.note_room(first);
    }

    fn note_room(&mut self, first: u64) {
        if let Some(held) = self.windows.get(&first)
            && held.window.prot.contains(self.needs)
            && !held.free.is_empty()
        {
            self.room.insert((held.window.consumer, first));
        }
    }

    fn why_none(&self, consumer: Consumer) -> NoPage {
        let mut own = self.windows.values().filter(|h| h.window.consumer == consumer).peekable();
        if own.peek().is_none() {
            NoPage::NoWindow
        } else if own.all(|h| !h.window.prot.contains(self.needs)) {
            NoPage::NotPermitted
        } else {
            NoPage::Full
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    const OTHER: Consumer = Consumer(7);

    fn window(first: u64, pages: u64, prot: Prot, consumer: Consumer) -> Window {
        Window { range: IovaRange::sized(first, pages << 12).unwrap(), prot, consumer }
    }

    fn pool() -> Pool {
        Pool::new(0x1000, Prot::WRITE)
    }

    #[test]
    fn pages_are_taken_from_below_and_come_back() {
        let mut p = pool();
        p.add(window(0x8000, 2, Prot::all(), Consumer::MSI));
        p.add(window(0x4000, 1, Prot::WRITE, Consumer::MSI));
        let iovas: Vec<u64> =
            (1..4).map(|key| p.bind(Consumer::MSI, key << 12).unwrap().iova).collect();
        assert_eq!(iovas, [0x4000, 0x8000, 0x9000]);
        assert_eq!(p.bind(Consumer::MSI, 0x9000), Err(NoPage::Full));
        assert_eq!(p.bind(Consumer::MSI, 0x1000), Ok(Slot { iova: 0x4000, references: 2 }));
        assert_eq!(p.resolve(0x8040), Some((Consumer::MSI, 0x2000)));
        assert!(!p.release(Consumer::MSI, 0x1000));
        assert!(p.release(Consumer::MSI, 0x1000));
        assert!(!p.release(Consumer::MSI, 0x1000));
        assert!(p.release(Consumer::MSI, 0x2000));
        assert_eq!(p.resolve(0x8040), None);
        assert_eq!(p.bind(Consumer::MSI, 0x7000).unwrap().iova, 0x4000);
        assert!(!p.remove(IovaRange::sized(0x8000, 0x2000).unwrap()));
        assert!(p.release(Consumer::MSI, 0x3000));
        assert!(p.remove(IovaRange::sized(0x8000, 0x2000).unwrap()));
        assert_eq!(p.bind(Consumer::MSI, 0x9000), Err(NoPage::Full));
    }

    #[test]
    fn a_window_must_permit_what_a_binding_needs() {
        let mut p = pool();
        assert_eq!(p.bind(Consumer::MSI, 0), Err(NoPage::NoWindow));
        p.add(window(0x4000, 1, Prot::READ, Consumer::MSI));
        assert_eq!(p.bind(Consumer::MSI, 0), Err(NoPage::NotPermitted));
        p.add(window(0x8000, 1, Prot::WRITE, Consumer::MSI));
        assert_eq!(p.bind(Consumer::MSI, 0).unwrap().iova, 0x8000);
        assert_eq!(p.bind(Consumer::MSI, 0x1000), Err(NoPage::Full));
    }

    #[test]
    fn another_consumer_has_its_own_windows() {
        let mut p = pool();
        p.add(window(0x4000, 1, Prot::all(), OTHER));
        assert_eq!(p.bind(Consumer::MSI, 0x1000), Err(NoPage::NoWindow));
        assert_eq!(p.bind(OTHER, 0x1000).unwrap().iova, 0x4000);
        p.add(window(0x2000, 1, Prot::all(), Consumer::MSI));
        assert_eq!(p.bind(Consumer::MSI, 0x1000).unwrap().iova, 0x2000);
        assert_eq!(p.resolve(0x4fff), Some((OTHER, 0x1000)));
    }

    #[test]
    fn the_last_page_of_the_space_can_be_bound() {
        let mut p = pool();
        p.add(window(u64::MAX - 0x1fff, 2, Prot::all(), Consumer::MSI));
        assert_eq!(p.bind(Consumer::MSI, 0x1000).unwrap().iova, u64::MAX - 0x1fff);
        assert_eq!(p.bind(Consumer::MSI, 0x2000).unwrap().iova, u64::MAX - 0xfff);
        assert!(p.release(Consumer::MSI, 0x2000) && p.release(Consumer::MSI, 0x1000));
        assert!(p.remove(IovaRange::new(u64::MAX - 0x1fff, u64::MAX).unwrap()));
    }

    #[test]
    fn runs_join_again() {
        let mut p = pool();
        p.add(window(0, 64, Prot::all(), Consumer::MSI));
        for order in [[3u64, 5, 4, 0, 1, 2], [0, 1, 2, 3, 4, 5], [5, 4, 3, 2, 1, 0]] {
            for key in 0..6 {
                p.bind(Consumer::MSI, key << 12).unwrap();
            }
            for key in order {
                assert!(p.release(Consumer::MSI, key << 12));
            }
            let held = p.windows.get(&0).unwrap();
            assert_eq!(held.free, BTreeMap::from([(0, (64 << 12) - 1)]));
        }
    }
}
