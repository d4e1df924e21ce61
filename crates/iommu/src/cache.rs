//! The translation cache: from a page to the place of its mapping, filled on use.
//!
//! A cached *hint* says where in the [`MappingTable`] the mapping of a page was last found. It is
//! checked against the table on every use: a hint whose mapping does not hold the address is no
//! hit, and because mappings are disjoint a mapping that does hold it is the right one. So a stale
//! hint costs a search and can never give a wrong answer; unmapping has nothing to cut; readers
//! share the cache without a lock, each hint being one atomic word.
//!
//! Hints exist for pages of 4 KiB and for superpages of 2 MiB and 1 GiB. A mapping that covers a
//! whole superpage needs one hint for it. Memory is bounded ([`TranslationCache::with_limit`]).

use alloc::vec::Vec;
use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};

use crate::range::IovaRange;
use crate::table::{MappingTable, PLACES, Place};

/// Bytes of hints at most, unless said otherwise.
pub const DEFAULT_LIMIT: usize = 64 << 20;

/// Hints allocated at first.
const FIRST_HINTS: usize = 4096;
/// Hints per cache line: neighbouring pages share one.
const LINE: usize = 8;
/// A page's place within a line.
const LINE_MASK: usize = LINE - 1;
/// Bytes per hint.
const HINT_BYTES: usize = size_of::<AtomicU64>();
/// Page sizes with hints of their own, as shifts.
const SHIFTS: [u32; 3] = [12, 21, 30];
/// Bits of a hint that hold the place within a cluster.
const SLOT_BITS: u32 = PLACES.ilog2();
/// Bits of a hint that hold the place; the rest is the tag.
const PLACE_BITS: u32 = 32;

/// Hints from pages to mappings. See the [module](self).
#[derive(Default)]
pub struct TranslationCache {
    /// A power of two of words, or none: tag (upper half), cluster, place.
    hints: Vec<AtomicU64>,
    limit: Limit,
}

struct Limit(usize);

impl Default for Limit {
    fn default() -> Self {
        Self(DEFAULT_LIMIT)
    }
}

impl TranslationCache {
    /// A cache of at most `limit` bytes; allocates nothing until [`fit`](Self::fit).
    #[must_use]
    pub const fn with_limit(limit: usize) -> Self {
        Self { hints: Vec::new(), limit: Limit(limit) }
    }

    /// Bytes of heap held; never above the limit.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.hints.capacity().saturating_mul(HINT_BYTES)
    }

    /// Grows the cache for a table of `mappings` mappings, within the limit. Call it after adding
    /// mappings; a growth forgets all hints and happens once per doubling.
    pub fn fit(&mut self, mappings: usize) {
        let wanted = mappings.saturating_mul(2).max(FIRST_HINTS);
        if wanted <= self.hints.len() {
            return;
        }
        let fitting = (self.limit.0 / HINT_BYTES).checked_ilog2().map_or(0, |bits| 1 << bits);
        let hints = wanted.checked_next_power_of_two().map_or(fitting, |n| n.min(fitting));
        if hints > self.hints.len() {
            self.hints = Vec::new();
            self.hints.reserve_exact(hints);
            self.hints.extend((0..hints).map(|_| AtomicU64::new(0)));
        }
    }

    /// Forgets all hints and frees their memory.
    pub fn clear(&mut self) {
        self.hints = Vec::new();
    }

    /// The hint for a page, and the tag it must bear.
    fn hint(&self, page: u64, shift: u32) -> Option<(&AtomicU64, u64)> {
        let mask = self.hints.len().checked_sub(1)?;
        // Fibonacci hashing; the shift keeps page sizes apart.
        let line = (page >> LINE.ilog2()) ^ (u64::from(shift) << 56);
        let hash = line.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let hash = hash ^ (hash >> 32);
        // Pages of a line keep their distance, but lines begin anywhere: mappings are aligned,
        // and their first pages should not all meet in the first place of a line.
        let within = page.wrapping_add(hash >> 29) & LINE_MASK as u64;
        let at = (hash as usize & mask & !LINE_MASK) | within as usize;
        let tag = (page ^ (u64::from(shift) << 26)) << PLACE_BITS;
        Some((self.hints.get(at)?, tag))
    }

    /// The hinted place of a page's mapping.
    fn probe(&self, page: u64, shift: u32) -> Option<Place> {
        let (hint, tag) = self.hint(page, shift)?;
        let hint = hint.load(Ordering::Relaxed);
        if (hint ^ tag) >> PLACE_BITS != 0 {
            return None;
        }
        let place = hint as u32;
        Some((place >> SLOT_BITS, place as usize & (PLACES - 1)))
    }

    /// Remembers where the mapping of `iova` is.
    fn fill(&self, iova: u64, range: IovaRange, place: Place) {
        let covers = |shift: &u32| {
            let first = iova >> shift << shift;
            IovaRange::sized(first, 1 << shift).is_some_and(|page| range.covers(page))
        };
        let shift = SHIFTS.into_iter().rev().find(covers).unwrap_or(SHIFTS[0]);
        let (cluster, slot) = place;
        if cluster >> (PLACE_BITS - SLOT_BITS) == 0
            && let Some((hint, tag)) = self.hint(iova >> shift, shift)
        {
            let place = u64::from(cluster << SLOT_BITS) | slot as u64;
            hint.store(tag | place, Ordering::Relaxed);
        }
    }
}

impl fmt::Debug for TranslationCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TranslationCache").field("bytes", &self.bytes()).finish_non_exhaustive()
    }
}

impl<V: Copy> MappingTable<V> {
    /// The mapping that contains `iova`: what [`get`](Self::get) answers, sooner for a page asked
    /// for before. `cache` may have served another table; it then only takes longer.
    #[must_use]
    pub fn lookup(&self, iova: u64, cache: &TranslationCache) -> Option<(IovaRange, &V)> {
        for shift in SHIFTS {
            let place = cache.probe(iova >> shift, shift);
            if let Some(found) = place.and_then(|place| self.at(place, iova)) {
                return Some(found);
            }
        }
        let (place, range, value) = self.locate(iova)?;
        cache.fill(iova, range, place);
        Some((range, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn r(first: u64, size: u64) -> IovaRange {
        IovaRange::sized(first, size).unwrap()
    }

    #[test]
    fn lookup_is_get_while_the_table_changes() {
        let (mut table, mut cache) = (MappingTable::new(), TranslationCache::default());
        let mut state = 1u64;
        for step in 0..20_000u64 {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let first = ((state >> 40) % 600) << 20;
            let size = [0x1000, 0x3000, 0x20_0000, 0x4000_0000][(state >> 33) as usize % 4];
            if state >> 63 == 0 || step % 1000 < 300 {
                let _ = table.insert(r(first, size), step);
                cache.fit(table.len());
            } else {
                table.remove(first);
            }
            for at in [first, first + 0x1fff, first + 0x12_3456, u64::MAX - (state >> 50)] {
                assert_eq!(table.lookup(at, &cache), table.get(at));
                assert_eq!(table.lookup(at, &cache), table.get(at));
            }
        }
    }

    #[test]
    fn memory_stays_within_the_limit() {
        let mut table = MappingTable::new();
        table.insert(r(0x1000, 1 << 40), ()).unwrap();
        for limit in [0, 1, 100, 4096, 1 << 20] {
            let mut cache = TranslationCache::with_limit(limit);
            cache.fit(usize::MAX);
            assert!(cache.bytes() <= limit);
            for at in (0x1000..1u64 << 40).step_by(0x2000_1000) {
                assert!(table.lookup(at, &cache).is_some());
            }
            assert!(cache.bytes() <= limit);
        }
    }
}
