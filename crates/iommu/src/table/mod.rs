//! The mapping table: disjoint inclusive ranges of I/O virtual addresses, each with a value.
//!
//! This is the truth about an address space; everything else (the translation cache, pictures,
//! traces) is derived from it. Ranges are `first..=last` and may end at 2^64-1.
//!
//! # Shape
//!
//! A B+-tree with wide nodes in dense arenas (`arena`: numbers instead of pointers). A leaf
//! holds up to `LEAF` sorted first addresses and, for each, the place of its entry in the leaf's
//! clusters (`leaf`). So a search reads few, contiguous cache lines, an insertion moves
//! addresses and bytes instead of entries, and memory stays near the entries' own size however
//! full the leaves are.
//!
//! # Invariants
//!
//! * Inner node: key `i` is a lower bound of everything below child `i` and an upper bound
//!   (exclusive) of the *first* addresses below child `i-1`; key 0 equals the node's key in its
//!   parent, and is 0 on the left edge.
//! * Every node but the root holds at least 3/8 of its capacity; an inner root has two children or
//!   more.
//! * Leaves are linked in address order.
//!
//! Nothing recurses, and a broken invariant could lose an answer but never panic.

mod arena;
#[cfg(test)]
mod check;
mod edit;
mod gaps;
mod iter;
mod leaf;
mod run;
#[cfg(test)]
mod tests;

use core::fmt;

use self::arena::Arena;
pub use self::iter::{Ascending, Descending};
use self::leaf::{Entry, Store};
use self::run::Run;
use crate::range::IovaRange;

/// Mappings per leaf at most. Measured: see `benches/table.rs`.
const LEAF: usize = 24;
/// Children per inner node at most.
const INNER: usize = 128;
/// The end of the chain of leaves.
const NONE: u32 = u32::MAX;

/// An ordered set of disjoint ranges with a value each. See the [module](self).
#[derive(Clone)]
pub struct MappingTable<V> {
    inners: Arena<Inner, 1>,
    store: Store<V>,
    /// An inner node when `height > 0`, else a leaf.
    root: u32,
    /// Levels of inner nodes above the leaves.
    height: u32,
    len: usize,
}

/// The range to be inserted shares bytes with a mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[error("overlaps the mapping {existing}")]
pub struct Overlap {
    /// The lowest mapping it overlaps.
    pub existing: IovaRange,
}

/// Children, by the lower bounds of what lies below them.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
struct Inner {
    run: Run<u32, INNER>,
}

/// Where an entry is stored: a cluster and a place in it. Valid until the next change.
pub(crate) type Place = (u32, usize);

/// Places per cluster: a [`Place`]'s second part is below.
pub(crate) const PLACES: usize = leaf::CLUSTER;

impl<V: Copy> MappingTable<V> {
    /// An empty table; allocates nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self { inners: Arena::new(), store: Store::new(), root: 0, height: 0, len: 0 }
    }

    /// The number of mappings.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no mapping.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Removes every mapping and frees all memory.
    pub fn clear(&mut self) {
        *self = Self::new();
    }

    /// Bytes of heap held.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let entries = self.store.clusters.bytes().saturating_add(self.store.leaves.bytes());
        self.inners.bytes().saturating_add(entries)
    }

    /// The mapping that contains `iova`.
    #[must_use]
    #[inline]
    pub fn get(&self, iova: u64) -> Option<(IovaRange, &V)> {
        self.locate(iova).map(|(_, range, value)| (range, value))
    }

    /// The mapping that contains `iova`, its value open to change.
    #[must_use]
    pub fn get_mut(&mut self, iova: u64) -> Option<(IovaRange, &mut V)> {
        let (place, range, _) = self.locate(iova)?;
        Some((range, &mut self.store.entry_mut(place)?.value))
    }

    /// The lowest mapping whose last byte is at or above `iova`: the one that contains it, or else
    /// the next one.
    #[must_use]
    pub fn next_from(&self, iova: u64) -> Option<(IovaRange, &V)> {
        self.up_from(iova).next()
    }

    /// The lowest mapping that shares a byte with `range`.
    #[must_use]
    pub fn first_overlap(&self, range: IovaRange) -> Option<(IovaRange, &V)> {
        self.next_from(range.first()).filter(|(found, _)| found.first() <= range.last())
    }

    /// The mapping that removing all of `range` would cut in two: one that holds its first byte
    /// and starts before it, or else one that holds its last byte and ends after it.
    #[must_use]
    pub fn cut_by(&self, range: IovaRange) -> Option<IovaRange> {
        let leaf = self.store.leaves.get(self.leaf_of(range.first()))?;
        let rank = leaf.run.rank(range.first());
        let entry = |place| self.store.entry(place).and_then(Entry::range);
        let low = match rank.checked_sub(1) {
            Some(under) => entry(self.store.ranked(leaf, under)),
            None => self.end_of(leaf.prev).and_then(entry),
        };
        if let Some(low) = low.filter(|r| r.last() >= range.first()) {
            if low.first() < range.first() {
                return Some(low);
            }
            if low.last() >= range.last() {
                return (low.last() > range.last()).then_some(low);
            }
        }
        // One search is enough unless the range goes on beyond this leaf.
        let high = match leaf.run.key(rank) {
            Some(next) if next > range.last() => None,
            _ => self.locate(range.last()).map(|(_, found, _)| found),
        };
        high.filter(|r| r.last() > range.last())
    }

    /// As [`get`](Self::get), and where the mapping is stored.
    #[inline]
    pub(crate) fn locate(&self, iova: u64) -> Option<(Place, IovaRange, &V)> {
        let place = self.below(iova)?;
        let entry = self.store.entry(place).filter(|e| e.contains(iova))?;
        Some((place, entry.range()?, &entry.value))
    }

    /// The mapping stored at `place`, if it contains `iova`. Any place may be asked for.
    #[inline]
    pub(crate) fn at(&self, place: Place, iova: u64) -> Option<(IovaRange, &V)> {
        // Beyond the end, a chunk's rest holds what was there before.
        if place.0 as usize >= self.store.clusters.len() {
            return None;
        }
        let holds = |e: &&Entry<V>| e.contains(iova) || planted!(StaleHintTrusted);
        let entry = self.store.entry(place).filter(holds)?;
        Some((entry.range()?, &entry.value))
    }

    /// The mapping with the greatest first address at or below `key`.
    #[inline]
    fn below(&self, key: u64) -> Option<Place> {
        let leaf = self.store.leaves.get(self.leaf_of(key))?;
        match leaf.run.rank(key).checked_sub(1) {
            Some(rank) => Some(self.store.ranked(leaf, rank)),
            // The bound of a leaf may lie below its first key: the answer ends the leaf before.
            None => self.end_of(leaf.prev),
        }
    }

    /// The last entry of a leaf.
    #[inline]
    fn end_of(&self, leaf: u32) -> Option<Place> {
        let leaf = self.store.leaves.get(leaf)?;
        Some(self.store.ranked(leaf, leaf.run.len().checked_sub(1)?))
    }

    /// The leaf whose bounds hold `key`.
    #[inline]
    fn leaf_of(&self, key: u64) -> u32 {
        let mut at = self.root;
        for _ in 0..self.height {
            at = self.inners.get(at).map_or(at, |node| node.child_of(key));
        }
        at
    }
}

impl Inner {
    fn new() -> Self {
        Self { run: Run::new() }
    }

    /// The position of the child whose bounds hold `key`.
    #[inline]
    fn position_of(&self, key: u64) -> usize {
        self.run.rank(key).saturating_sub(1)
    }

    /// The child whose bounds hold `key`.
    #[inline]
    fn child_of(&self, key: u64) -> u32 {
        self.run.tag(self.position_of(key)).unwrap_or(NONE)
    }
}

impl<V: Copy> Default for MappingTable<V> {
    fn default() -> Self {
        Self::new()
    }
}

impl<V: Copy + fmt::Debug> fmt::Debug for MappingTable<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}
