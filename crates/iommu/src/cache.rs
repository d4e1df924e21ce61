//! The translation cache: from a page to the place of its mapping, filled on use.
//!
//! A cached *hint* says where in the [`MappingTable`] the mapping of a page was last found. It is
//! checked against the table on every use: a hint whose mapping does not hold the address is no
//! hit, and because mappings are disjoint a mapping that does hold it is the right one. So a stale
//! hint costs a search and can never give a wrong answer; unmapping has nothing to cut; readers
//! share the cache without a lock, each hint being one atomic word.
//!
//! Hints exist for pages of 4 KiB and for superpages of 2 MiB and 1 GiB. A mapping that covers a
//! whole superpage needs one hint for it, whichever page in it is asked for.
//!
//! # Memory
//!
//! Nothing is held before the first use. Hints live in generations, each twice as large as the one
//! before: when the current one fills up, the next takes over and is filled in turn. Readers can
//! do that (it takes no `&mut`); generations left behind are freed by [`fit`], and all of them
//! together never exceed the limit.
//!
//! [`fit`]: TranslationCache::fit

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use once_cell::race::OnceBox;

use crate::range::IovaRange;
use crate::table::{MappingTable, PLACES, Place};

/// Bytes of hints at most, unless said otherwise.
pub const DEFAULT_LIMIT: usize = 64 << 20;

/// Hints of the first generation, as a power of two.
const FIRST_BITS: usize = 10;
/// Generations at most: the last has 2^31 hints.
const GENERATIONS: usize = 22;
/// Hints per mapping that can be of use: a mapping of 256 KiB needs as many.
const HINTS_PER_MAPPING: usize = 64;
/// Hints that a cache may grow to however few the mappings are.
const HINTS_AT_LEAST: usize = 4096;
/// Page sizes with hints of their own, as shifts.
const SHIFTS: [u32; 3] = [12, 21, 30];
/// Pairs of hints per cache line: eight neighbouring pages share one.
const LINE: u64 = 4;
/// Bits of a hint that hold the place within a cluster.
const PLACE_BITS: u32 = PLACES.ilog2();
/// Bits of a hint that hold the cluster and the place; the rest is the tag.
const HALF: u32 = 32;

/// Hints from pages to mappings. See the [module](self).
pub struct TranslationCache {
    generations: [OnceBox<Generation>; GENERATIONS],
    current: AtomicUsize,
    /// The first generation that may still be there.
    oldest: usize,
    /// Held by the one reader that makes the next generation.
    growing: AtomicBool,
    limit: usize,
}

/// A hash table whose buckets are pairs of hints. A hint is a tag (upper half), a cluster and a
/// place in it; 0 where there is none.
struct Generation {
    pairs: Box<[[AtomicU64; 2]]>,
    /// Hints that are not 0.
    used: AtomicU32,
}

impl TranslationCache {
    /// A cache of at most `limit` bytes. Below 8 KiB it stays empty.
    #[must_use]
    pub const fn with_limit(limit: usize) -> Self {
        Self {
            generations: [const { OnceBox::new() }; GENERATIONS],
            current: AtomicUsize::new(0),
            oldest: 0,
            growing: AtomicBool::new(false),
            limit,
        }
    }

    /// Bytes of heap held; never above the limit.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.generations.iter().filter_map(OnceBox::get).map(|g| size_of_val(&*g.pairs)).sum()
    }

    /// Gives memory back: generations left behind, and everything when `mappings`, the number
    /// there now is, has become small for the cache. Takes no time when there is nothing to do.
    pub fn fit(&mut self, mappings: usize) {
        let current = *self.current.get_mut();
        // Eight times what could be of use.
        if FIRST_BITS.saturating_add(current) > useful(mappings.saturating_mul(8)).ilog2() as usize
        {
            self.clear();
            return;
        }
        while self.oldest < current {
            if let Some(old) = self.generations.get_mut(self.oldest) {
                *old = OnceBox::new();
            }
            self.oldest = self.oldest.saturating_add(1);
        }
    }

    /// Forgets all hints and frees their memory.
    pub fn clear(&mut self) {
        *self = Self::with_limit(self.limit);
    }

    /// The hints in use.
    #[inline]
    fn current(&self) -> Option<&Generation> {
        self.generations.get(self.current.load(Ordering::Relaxed))?.get()
    }

    /// Remembers where the mapping of `iova` is, in a table of `mappings` mappings.
    fn fill(&self, iova: u64, range: IovaRange, place: Place, mappings: usize) {
        let current = self.current.load(Ordering::Relaxed);
        let generation = match self.current() {
            None => self.generation(current),
            Some(full) if full.is_full() && full.hints() < useful(mappings) => {
                self.generation(current.saturating_add(1)).or(Some(full))
            }
            some => some,
        };
        if let Some(generation) = generation {
            generation.fill(iova, range, place);
        }
    }

    /// Makes a generation the current one, unless it would exceed the limit.
    fn generation(&self, number: usize) -> Option<&Generation> {
        let slot = self.generations.get(number)?;
        let bits = FIRST_BITS.saturating_add(number);
        // With all before it, a generation is twice its size less the first one's.
        let bytes = size_of::<AtomicU64>() << bits;
        let total = bytes.saturating_mul(2).saturating_sub(size_of::<AtomicU64>() << FIRST_BITS);
        if total > self.limit || self.growing.swap(true, Ordering::Acquire) {
            return None;
        }
        let made = slot.get_or_init(|| Box::new(Generation::new(bits)));
        self.current.store(number, Ordering::Relaxed);
        self.growing.store(false, Ordering::Release);
        Some(made)
    }
}

impl Generation {
    fn new(bits: usize) -> Self {
        // Zeroed by the system where that is free; the rest compiles to nothing.
        let zeroed = vec![[0u64; 2]; 1 << bits.saturating_sub(1)];
        let pairs: Vec<_> = zeroed.into_iter().map(|pair| pair.map(AtomicU64::new)).collect();
        Self { pairs: pairs.into_boxed_slice(), used: AtomicU32::new(0) }
    }

    fn hints(&self) -> usize {
        self.pairs.len().saturating_mul(2)
    }

    /// Whether so many hints are in use that new ones often displace others.
    fn is_full(&self) -> bool {
        self.used.load(Ordering::Relaxed) as usize > self.hints().saturating_mul(3) / 8
    }

    /// The pair for the page of `iova`, and the tag of its hint, in the upper half.
    #[inline]
    fn pair(&self, iova: u64, shift: u32) -> Option<(&[AtomicU64; 2], u64)> {
        let page = (iova >> shift) ^ (u64::from(shift.wrapping_sub(SHIFTS[0])) << 26);
        // Fibonacci hashing of the line; its top bits also turn the pairs within it, since
        // mappings are aligned and their first pages should not all meet in one pair.
        let hash = (page >> 3).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let pair = (page >> 1).wrapping_add(hash >> 62) & (LINE - 1);
        let line = (hash >> HALF) & (self.pairs.len() as u64).wrapping_sub(LINE);
        Some((self.pairs.get((line | pair) as usize)?, page << HALF))
    }

    /// The hinted place of the mapping of `iova`.
    #[inline]
    fn probe(&self, iova: u64, shift: u32) -> Option<Place> {
        let ([a, b], tag) = self.pair(iova, shift)?;
        let (a, b) = (a.load(Ordering::Relaxed), b.load(Ordering::Relaxed));
        let hint = if (a ^ tag) >> HALF == 0 { a } else { b };
        let place = hint as usize & (PLACES - 1);
        ((hint ^ tag) >> HALF == 0).then_some((hint as u32 >> PLACE_BITS, place))
    }

    fn fill(&self, iova: u64, range: IovaRange, (cluster, place): Place) {
        let covers = |shift: &u32| {
            let first = iova >> shift << shift;
            IovaRange::sized(first, 1 << shift).is_some_and(|page| range.covers(page))
        };
        let shift = SHIFTS.into_iter().rev().find(covers).unwrap_or(SHIFTS[0]);
        // A cluster whose number takes more bits goes without a hint.
        if cluster >> (HALF - PLACE_BITS) != 0 {
            return;
        }
        let Some(([a, b], tag)) = self.pair(iova, shift) else { return };
        let hint = tag | u64::from(cluster << PLACE_BITS) | place as u64;
        let replaced = |old: u64| old == 0 || (old ^ tag) >> HALF == 0;
        let (old_a, old_b) = (a.load(Ordering::Relaxed), b.load(Ordering::Relaxed));
        if old_a == 0 || old_b == 0 {
            self.used.fetch_add(1, Ordering::Relaxed);
        }
        if !replaced(old_a) {
            if replaced(old_b) {
                b.store(hint, Ordering::Relaxed);
                return;
            }
            b.store(old_a, Ordering::Relaxed);
        }
        a.store(hint, Ordering::Relaxed);
    }
}

/// Hints that a table of `mappings` mappings can make use of.
fn useful(mappings: usize) -> usize {
    mappings.saturating_mul(HINTS_PER_MAPPING).max(HINTS_AT_LEAST)
}

impl Default for TranslationCache {
    fn default() -> Self {
        Self::with_limit(DEFAULT_LIMIT)
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
    #[inline]
    pub fn lookup(&self, iova: u64, cache: &TranslationCache) -> Option<(IovaRange, &V)> {
        let hints = cache.current();
        let hinted = |shift| self.at(hints?.probe(iova, shift)?, iova);
        let [page, superpages @ ..] = SHIFTS;
        if let Some(found) = hinted(page) {
            return Some(found);
        }
        superpages.into_iter().find_map(hinted).or_else(|| self.search(iova, cache))
    }

    /// [`lookup`](Self::lookup) without a hint.
    #[inline(never)]
    fn search(&self, iova: u64, cache: &TranslationCache) -> Option<(IovaRange, &V)> {
        let (place, range, value) = self.locate(iova)?;
        cache.fill(iova, range, place, self.len());
        Some((range, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn r(first: u64, size: u64) -> IovaRange {
        IovaRange::sized(first, size).unwrap()
    }

    /// Random bits: the state of a linear congruential generator, turned over.
    fn next(state: &mut u64) -> u64 {
        *state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        state.swap_bytes() ^ *state
    }

    #[test]
    fn lookup_is_get_while_the_table_changes() {
        let (mut table, mut cache) = (MappingTable::new(), TranslationCache::default());
        let mut state = 1;
        for step in 0..20_000u64 {
            let first = (next(&mut state) % 600) << 20;
            let size = [0x1000, 0x3000, 0x20_0000, 0x4000_0000][next(&mut state) as usize % 4];
            if next(&mut state).is_multiple_of(2) || step % 1000 < 300 {
                let _ = table.insert(r(first, size), step);
            } else {
                table.remove(first);
            }
            if step % 100 == 0 {
                cache.fit(table.len());
            }
            let far = u64::MAX - next(&mut state) % 0x4000;
            for at in [first, first + 0x1fff, first + 0x12_3456, far] {
                assert_eq!(table.lookup(at, &cache), table.get(at));
                assert_eq!(table.lookup(at, &cache), table.get(at));
            }
        }
    }

    #[test]
    fn the_second_time_a_hint_answers() {
        let (mut table, cache) = (MappingTable::new(), TranslationCache::default());
        table.insert(r(0x1000, 0x2000), 1).unwrap();
        table.insert(r(0x4000_0000, 0x4000_0000), 2).unwrap();
        for (at, shift, same) in [(0x2abc, 12, 0x2000), (0x5678_9abc, 30, 0x4000_0000)] {
            let hinted = |at| cache.current()?.probe(at, shift);
            assert_eq!(hinted(at), None);
            assert!(table.lookup(at, &cache).is_some());
            let (place, ..) = table.locate(at).unwrap();
            assert_eq!((hinted(at), hinted(same)), (Some(place), Some(place)));
        }
        table.remove(0x1000);
        assert_eq!(table.lookup(0x2abc, &cache), None, "a stale hint is no answer");
    }

    /// 1 TiB in pieces that need a hint for every 4 KiB page.
    #[test]
    fn touching_a_tebibyte_page_by_page_stays_within_the_limit() {
        const LAST: u64 = 1 << 40;
        let mut table = MappingTable::new();
        (0..1u64 << 16).for_each(|i| table.insert(r((i << 24) + 0x1000, 0xff_f000), ()).unwrap());
        for limit in [0, 8192, 3 << 20] {
            let mut cache = TranslationCache::with_limit(limit);
            let (mut at, mut peak) = (0, 0);
            while at < LAST {
                assert_eq!(table.lookup(at, &cache).is_some(), at & 0xff_f000 != 0);
                // Every 4 KiB page of some MiB, then far on.
                at += if at % 0x4000_0000 < 0x10_0000 { 0x1000 } else { 0x40_3000 };
                peak = peak.max(cache.bytes());
            }
            assert!(peak <= limit, "{peak} of {limit}");
            assert!(peak >= limit / 4 || limit < 8192, "{peak} of {limit} used");
            cache.fit(table.len());
            assert!(cache.bytes() <= peak);
            cache.fit(1);
            assert!(cache.bytes() <= 4096 * 64);
        }
    }

    #[test]
    fn readers_share_a_cache() {
        extern crate std;
        let (mut table, cache) = (MappingTable::new(), TranslationCache::with_limit(1 << 20));
        (0..3000u64).for_each(|i| table.insert(r(i << 14, 0x3000), i).unwrap());
        std::thread::scope(|scope| {
            for seed in 1..5 {
                let (table, cache) = (&table, &cache);
                scope.spawn(move || {
                    let mut state = seed;
                    for _ in 0..20_000 {
                        let at = next(&mut state) % (3100 << 14);
                        assert_eq!(table.lookup(at, cache), table.get(at));
                    }
                });
            }
        });
        assert!(cache.bytes() <= 1 << 20);
    }
}
