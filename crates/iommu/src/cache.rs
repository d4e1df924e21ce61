//! The translation cache: from a page to the place of its mapping, filled on use.
//!
//! A cached *hint* says where in the [`MappingTable`] the mapping of a page was last found. It is
//! checked against the table on every use: a hint to a mapping that does not hold the address is no
//! hit, and because mappings are disjoint a mapping that does hold it is the right one. So a stale
//! hint costs a search (often of one leaf only) and can never give a wrong answer; unmapping has
//! nothing to cut; readers share the cache without a lock, each hint being one atomic word.
//!
//! Hints exist for pages of 4 KiB and for superpages of 2 MiB and 1 GiB. A mapping that covers a
//! whole superpage needs one hint for it, whichever page in it is asked for. Its pages get hints of
//! their own only where there is room: those are asked for first.
//!
//! # Memory
//!
//! Nothing is held before the first use. Hints live in generations, each twice as large as the one
//! before: when the current one fills up, the next takes over and is filled in turn. Readers can
//! do that (it takes no `&mut`); generations left behind are freed by [`fit`], and all of them
//! together never exceed the limit.
//!
//! [`fit`]: TranslationCache::fit

#[cfg(test)]
mod tests;

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use once_cell::race::OnceBox;

use crate::range::IovaRange;
use crate::table::{MappingTable, Place, RANK_BITS};

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
/// Bits of a hint that hold the leaf and the rank; the rest is the tag.
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

/// A hash table whose buckets are pairs of hints. A hint is a tag (upper half), a leaf and a
/// rank in it; 0 where there is none.
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

    /// Whether so many hints are in use that new ones displace others: at a quarter, about one in
    /// thirty finds its pair taken.
    fn is_full(&self) -> bool {
        self.used.load(Ordering::Relaxed) as usize > self.hints() / 4
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
        let rank = hint as usize & ((1 << RANK_BITS) - 1);
        ((hint ^ tag) >> HALF == 0).then_some((hint as u32 >> RANK_BITS, rank))
    }

    /// Remembers the mapping for as much around `iova` as one hint can tell.
    fn fill(&self, iova: u64, range: IovaRange, place: Place) {
        let covers = |shift: &u32| {
            let first = iova >> shift << shift;
            IovaRange::sized(first, 1 << shift).is_some_and(|page| range.covers(page))
        };
        let shift = SHIFTS.into_iter().rev().find(covers).unwrap_or(SHIFTS[0]);
        let Some((pair, tag)) = self.pair(iova, shift) else { return };
        let Some(hint) = hint(tag, place) else { return };
        let [a, b] = pair;
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

    /// A hint for the page alone where the superpage has one: the next access asks for it first.
    /// Displaces nothing, since it is not needed.
    fn fill_page(&self, iova: u64, place: Place) {
        let Some((pair, tag)) = self.pair(iova, SHIFTS[0]) else { return };
        let Some(hint) = hint(tag, place) else { return };
        let ours = |slot: &&AtomicU64| (slot.load(Ordering::Relaxed) ^ tag) >> HALF == 0;
        let free = |slot: &&AtomicU64| slot.load(Ordering::Relaxed) == 0;
        if let Some(stale) = pair.iter().find(ours) {
            stale.store(hint, Ordering::Relaxed);
        } else if let Some(free) = pair.iter().find(free) {
            free.store(hint, Ordering::Relaxed);
            self.used.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// A hint to a place; `None` for a leaf whose number takes too many bits.
fn hint(tag: u64, (leaf, rank): Place) -> Option<u64> {
    let fits = leaf >> (HALF - RANK_BITS) == 0;
    fits.then(|| tag | u64::from(leaf << RANK_BITS) | rank as u64)
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
        // What is likely stays small enough to be part of the caller.
        if let Some(hints) = cache.current()
            && let Some(place) = hints.probe(iova, SHIFTS[0])
            && let Some(found) = self.at(place, iova)
        {
            return Some(found);
        }
        self.lookup_on(iova, cache)
    }

    /// [`lookup`](Self::lookup) where the hint for the 4 KiB page is not at once the answer.
    #[inline(never)]
    fn lookup_on(&self, iova: u64, cache: &TranslationCache) -> Option<(IovaRange, &V)> {
        let hints = cache.current();
        let hinted = |shift| {
            let place = hints?.probe(iova, shift)?;
            self.near(place, iova).map(|found| (place, found))
        };
        let [page, large, huge] = SHIFTS;
        // Most pages without a hint of their own are part of a superpage.
        if let Some((place, found)) = hinted(large).or_else(|| hinted(huge)) {
            if let Some(hints) = hints.filter(|hints| !hints.is_full()) {
                hints.fill_page(iova, place);
            }
            return Some(found);
        }
        if let Some((_, found)) = hinted(page) {
            return Some(found);
        }
        let (place, range, value) = self.locate(iova)?;
        cache.fill(iova, range, place, self.len());
        Some((range, value))
    }
}
