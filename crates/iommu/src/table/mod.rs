//! The mapping table: disjoint inclusive ranges of I/O virtual addresses, each with a value.
//!
//! This is the truth about an address space; everything else (the translation cache, pictures,
//! traces) is derived from it. Ranges are `first..=last` and may end at 2^64-1.
//!
//! # Shape
//!
//! A B+-tree with wide nodes in dense arenas ([`arena`], numbers instead of pointers). A leaf
//! holds up to [`LEAF`] sorted first addresses and, for each, the place of its entry in the leaf's
//! *block*: a vector of `(range, value)` in no order. So a search reads few, contiguous cache
//! lines, an insertion moves bytes instead of values, and memory stays near the entries' own size
//! however full the leaves are.
//!
//! # Invariants
//!
//! * Inner node: key `i` is a lower bound of everything below child `i` and an upper bound
//!   (exclusive) of the *first* addresses below child `i-1`; key 0 equals the node's key in its
//!   parent, and is 0 on the left edge.
//! * Every node but the root holds at least 3/8 of its capacity; an inner root has two
//!   children or more.
//! * Leaf `n` owns block `n`; places in use are exactly `0..len`.
//! * Leaves are linked in address order.
//!
//! Nothing recurses, and a broken invariant could lose an answer but never panic.

mod arena;
#[cfg(test)]
mod check;
mod edit;
mod gaps;
mod iter;
mod run;
#[cfg(test)]
mod tests;

use alloc::vec::Vec;
use core::fmt;

use self::arena::Arena;
pub use self::iter::{Ascending, Descending};
use self::run::Run;
use crate::range::IovaRange;

/// Mappings per leaf at most. Measured: see `benches/table.rs`.
const LEAF: usize = 32;
/// Children per inner node at most.
const INNER: usize = 64;
/// The end of the chain of leaves.
const NONE: u32 = u32::MAX;

/// An ordered set of disjoint ranges with a value each. See the [module](self).
#[derive(Clone)]
pub struct MappingTable<V> {
    inners: Arena<Inner>,
    leaves: Arena<Leaf>,
    blocks: Vec<Vec<Entry<V>>>,
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

/// A mapping as stored.
#[derive(Clone)]
struct Entry<V> {
    range: IovaRange,
    value: V,
}

/// Sorted first addresses with the place of each entry in the block of the same number.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
struct Leaf {
    run: Run<u8, LEAF>,
    prev: u32,
    next: u32,
}

/// Children, by the lower bounds of what lies below them.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
struct Inner {
    run: Run<u32, INNER>,
}

/// Where an entry is stored: a leaf and a place in its block. Valid until the next change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) leaf: u32,
    pub(crate) slot: u8,
}

impl<V> MappingTable<V> {
    /// An empty table; allocates nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            inners: Arena::new(),
            leaves: Arena::new(),
            blocks: Vec::new(),
            root: 0,
            height: 0,
            len: 0,
        }
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

    /// Bytes of heap held, without what values own themselves. Takes time linear in the leaves.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let places: usize = self.blocks.iter().map(Vec::capacity).sum();
        let blocks = self.blocks.capacity().saturating_mul(size_of::<Vec<Entry<V>>>());
        places
            .saturating_mul(size_of::<Entry<V>>())
            .saturating_add(blocks)
            .saturating_add(self.inners.bytes())
            .saturating_add(self.leaves.bytes())
    }

    /// The mapping that contains `iova`.
    #[must_use]
    pub fn get(&self, iova: u64) -> Option<(IovaRange, &V)> {
        self.at(self.place(iova)?)
    }

    /// The mapping that contains `iova`, its value open to change.
    #[must_use]
    pub fn get_mut(&mut self, iova: u64) -> Option<(IovaRange, &mut V)> {
        let place = self.place(iova)?;
        let entry = self.blocks.get_mut(place.leaf as usize)?.get_mut(usize::from(place.slot))?;
        Some((entry.range, &mut entry.value))
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

    /// Where the mapping that contains `iova` is stored.
    pub(crate) fn place(&self, iova: u64) -> Option<Place> {
        let place = self.below(iova)?;
        self.entry(place).filter(|e| e.range.contains(iova)).map(|_| place)
    }

    /// What is stored at `place`, if anything.
    pub(crate) fn at(&self, place: Place) -> Option<(IovaRange, &V)> {
        self.entry(place).map(|e| (e.range, &e.value))
    }

    fn entry(&self, place: Place) -> Option<&Entry<V>> {
        self.blocks.get(place.leaf as usize)?.get(usize::from(place.slot))
    }

    /// The leaf whose bounds hold `key`.
    fn leaf_of(&self, key: u64) -> u32 {
        let mut at = self.root;
        for _ in 0..self.height {
            at = self.inners.get(at).map_or(at, |node| node.child_of(key));
        }
        at
    }

    /// The entry at `rank` of a leaf.
    fn ranked(&self, leaf: u32, rank: usize) -> Option<Place> {
        Some(Place { leaf, slot: self.leaves.get(leaf)?.run.tag(rank)? })
    }

    /// The last entry of a leaf.
    fn end_of(&self, leaf: u32) -> Option<Place> {
        self.ranked(leaf, self.leaves.get(leaf)?.run.len().checked_sub(1)?)
    }

    /// The mapping with the greatest first address at or below `key`.
    fn below(&self, key: u64) -> Option<Place> {
        let leaf = self.leaf_of(key);
        let node = self.leaves.get(leaf)?;
        match node.run.rank(key).checked_sub(1) {
            Some(rank) => self.ranked(leaf, rank),
            // The bound of a leaf may lie below its first key: the answer ends the leaf before.
            None => self.end_of(node.prev),
        }
    }
}

impl Leaf {
    fn new() -> Self {
        Self { run: Run::new(), prev: NONE, next: NONE }
    }
}

impl Inner {
    fn new() -> Self {
        Self { run: Run::new() }
    }

    /// The position of the child whose bounds hold `key`.
    fn position_of(&self, key: u64) -> usize {
        self.run.rank(key).saturating_sub(1)
    }

    /// The child whose bounds hold `key`.
    fn child_of(&self, key: u64) -> u32 {
        self.run.tag(self.position_of(key)).unwrap_or(NONE)
    }
}

impl<V> Default for MappingTable<V> {
    fn default() -> Self {
        Self::new()
    }
}

impl<V: fmt::Debug> fmt::Debug for MappingTable<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}
