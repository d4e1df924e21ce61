//! Walks over the mappings in address order, both ways.

use core::iter::FusedIterator;

use super::{MappingTable, NONE};
use crate::range::IovaRange;

/// Mappings in ascending order. Made by [`MappingTable::iter`] and [`MappingTable::up_from`].
pub struct Ascending<'a, V> {
    table: &'a MappingTable<V>,
    leaf: u32,
    /// The rank of the next mapping.
    rank: usize,
}

/// Mappings in descending order. Made by [`MappingTable::down_from`].
pub struct Descending<'a, V> {
    table: &'a MappingTable<V>,
    leaf: u32,
    /// One above the rank of the next mapping.
    rank: usize,
}

impl<V: Copy> MappingTable<V> {
    /// All mappings, ascending.
    #[must_use]
    pub fn iter(&self) -> Ascending<'_, V> {
        self.up_from(0)
    }

    /// Mappings whose last byte is at or above `iova`, ascending.
    #[must_use]
    pub fn up_from(&self, iova: u64) -> Ascending<'_, V> {
        let leaf = self.leaf_of(iova);
        let Some(node) = self.store.leaves.get(leaf) else {
            return Ascending { table: self, leaf: NONE, rank: 0 };
        };
        let rank = node.run.rank(iova);
        let reaches = |place| self.store.entry(place).is_some_and(|e| e.contains(iova));
        match rank.checked_sub(1) {
            Some(under) if reaches(self.store.ranked(node, under)) => {
                Ascending { table: self, leaf, rank: under }
            }
            // As in `below`: the leaf before may end with a mapping that reaches here.
            None if self.end_of(node.prev).is_some_and(reaches) => {
                let before = self.store.leaves.get(node.prev);
                let rank = before.map_or(0, |n| n.run.len().saturating_sub(1));
                Ascending { table: self, leaf: node.prev, rank }
            }
            _ => Ascending { table: self, leaf, rank },
        }
    }

    /// Mappings that share a byte with `range`, ascending.
    pub fn overlapping(&self, range: IovaRange) -> impl Iterator<Item = (IovaRange, &V)> {
        self.up_from(range.first()).take_while(move |(found, _)| found.first() <= range.last())
    }

    /// The mapping at `rank` of a leaf.
    fn ranked(&self, leaf: u32, rank: usize) -> Option<(IovaRange, &V)> {
        let node = self.store.leaves.get(leaf).filter(|node| rank < node.run.len())?;
        let entry = self.store.entry(self.store.ranked(node, rank))?;
        Some((entry.range()?, &entry.value))
    }

    /// Mappings whose first byte is at or below `iova`, descending.
    #[must_use]
    pub fn down_from(&self, iova: u64) -> Descending<'_, V> {
        let leaf = self.leaf_of(iova);
        let rank = self.store.leaves.get(leaf).map_or(0, |node| node.run.rank(iova));
        Descending { table: self, leaf, rank }
    }
}

impl<'a, V: Copy> Iterator for Ascending<'a, V> {
    type Item = (IovaRange, &'a V);

    fn next(&mut self) -> Option<Self::Item> {
        let node = self.table.store.leaves.get(self.leaf)?;
        if self.rank >= node.run.len() {
            (self.leaf, self.rank) = (node.next, 0);
        }
        let rank = self.rank;
        self.rank = rank.saturating_add(1);
        self.table.ranked(self.leaf, rank)
    }
}

impl<'a, V: Copy> Iterator for Descending<'a, V> {
    type Item = (IovaRange, &'a V);

    fn next(&mut self) -> Option<Self::Item> {
        let node = self.table.store.leaves.get(self.leaf)?;
        if self.rank == 0 {
            self.leaf = node.prev;
            self.rank = self.table.store.leaves.get(self.leaf)?.run.len();
        }
        self.rank = self.rank.checked_sub(1)?;
        self.table.ranked(self.leaf, self.rank)
    }
}

impl<V: Copy> FusedIterator for Ascending<'_, V> {}
impl<V: Copy> FusedIterator for Descending<'_, V> {}

impl<'a, V: Copy> IntoIterator for &'a MappingTable<V> {
    type Item = (IovaRange, &'a V);
    type IntoIter = Ascending<'a, V>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}
