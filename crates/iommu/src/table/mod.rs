//! The mapping table: disjoint inclusive ranges of I/O virtual addresses, each with a value.
//!
//! This is the truth about an address space; everything else (the translation cache, pictures,
//! traces) is derived from it. Ranges are `first..=last` and may end at 2^64-1.
//!
//! # Shape
//!
//! A B+-tree with wide nodes in dense arenas (`arena`: numbers instead of pointers). A leaf
//! (`leaf`) holds up to `LEAF` sorted ranges and, beside them, their values; an inner node (`inner`)
//! up to `INNER` children. Among many mappings the inner nodes stay in the processor's caches and
//! the leaves do not: a search waits for memory once, for the ranges of one leaf.
//!
//! # Invariants
//!
//! * Inner node: key `i` is a lower bound of everything below child `i` and an upper bound
//!   (exclusive) of the *first* addresses below child `i-1`; key 0 equals the node's key in its
//!   parent, and is 0 on the left edge.
//! * Every node but the root holds at least 3/8 of its capacity; an inner root has two children or
//!   more.
//! * Leaves are linked in address order.
//! * Leaves that are allocated and not in use are empty.
//!
//! Nothing recurses, and a broken invariant could lose an answer but never panic.

mod arena;
#[cfg(test)]
mod check;
mod edit;
mod gaps;
mod inner;
mod iter;
mod leaf;
#[cfg(test)]
mod tests;

use core::fmt;

use self::arena::Arena;
use self::inner::Inner;
pub use self::iter::{Ascending, Descending};
use self::leaf::{LEAF, Leaf};
use crate::range::IovaRange;

/// The end of the chain of leaves.
const NONE: u32 = u32::MAX;

/// An ordered set of disjoint ranges with a value each. See the [module](self).
#[derive(Clone)]
pub struct MappingTable<V> {
    inners: Arena<Inner, 1>,
    leaves: Arena<Leaf<V>, 4>,
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

/// Where a mapping is stored: a leaf and the rank in it. Valid until the next change.
pub(crate) type Place = (u32, usize);

/// Bits that a [`Place`]'s second part needs.
pub(crate) const RANK_BITS: u32 = LEAF.next_power_of_two().ilog2();

impl<V: Copy> MappingTable<V> {
    /// An empty table; allocates nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self { inners: Arena::new(), leaves: Arena::new(), root: 0, height: 0, len: 0 }
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
        self.inners.bytes().saturating_add(self.leaves.bytes())
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
        let (place, range) = self.below(iova).filter(|(_, range)| range.contains(iova))?;
        Some((range, self.leaves.get_mut(place.0)?.value_mut(place.1)?))
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
        let leaf = self.leaves.get(self.leaf_of(range.first()))?;
        let rank = leaf.rank(range.first());
        let low = match rank.checked_sub(1) {
            Some(under) => leaf.range(under),
            None => self.end_of(leaf.prev).map(|(_, range)| range),
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
        let high = match leaf.range(rank) {
            Some(next) if next.first() > range.last() => None,
            _ => self.locate(range.last()).map(|(_, found, _)| found),
        };
        high.filter(|r| r.last() > range.last())
    }

    /// As [`get`](Self::get), and where the mapping is stored.
    #[inline]
    pub(crate) fn locate(&self, iova: u64) -> Option<(Place, IovaRange, &V)> {
        let (place, range) = self.below(iova).filter(|(_, range)| range.contains(iova))?;
        Some((place, range, self.leaves.get(place.0)?.value(place.1)?))
    }

    /// The mapping stored at `place`, if it contains `iova`. Any place may be asked for: leaves that
    /// are not in use are empty.
    #[inline]
    pub(crate) fn at(&self, (leaf, rank): Place, iova: u64) -> Option<(IovaRange, &V)> {
        let leaf = self.leaves.get(leaf)?;
        if planted!(StaleHintTrusted) {
            return leaf.get(rank);
        }
        Some((leaf.range_around(rank, iova)?, leaf.value(rank)?))
    }

    /// As [`at`](Self::at), or somewhere else in that leaf: mappings that came or went before it
    /// may have moved it.
    #[inline]
    pub(crate) fn near(&self, place: Place, iova: u64) -> Option<(IovaRange, &V)> {
        self.at(place, iova).or_else(|| {
            let leaf = self.leaves.get(place.0)?;
            let rank = leaf.rank(iova).checked_sub(1)?;
            Some((leaf.range_around(rank, iova)?, leaf.value(rank)?))
        })
    }

    /// The mapping with the greatest first address at or below `key`: where, and its range.
    #[inline]
    fn below(&self, key: u64) -> Option<(Place, IovaRange)> {
        let number = self.leaf_of(key);
        let leaf = self.leaves.get(number)?;
        match leaf.rank(key).checked_sub(1) {
            Some(rank) => Some(((number, rank), leaf.range(rank)?)),
            // The bound of a leaf may lie below its first key: the answer ends the leaf before.
            None => self.end_of(leaf.prev),
        }
    }

    /// The last mapping of a leaf.
    #[inline]
    fn end_of(&self, number: u32) -> Option<(Place, IovaRange)> {
        let leaf = self.leaves.get(number)?;
        let rank = leaf.len().checked_sub(1)?;
        Some(((number, rank), leaf.range(rank)?))
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
