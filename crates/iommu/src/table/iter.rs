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
        let number = self.leaf_of(iova);
        let Some(leaf) = self.leaves.get(number) else {
            return Ascending { table: self, leaf: NONE, rank: 0 };
        };
        let rank = leaf.rank(iova);
        // As in `below`: the leaf before may end with a mapping that reaches here.
        let under = match rank.checked_sub(1) {
            Some(under) => leaf.range(under).map(|range| ((number, under), range)),
            None => self.end_of(leaf.prev),
        };
        let (leaf, rank) = match under {
            Some((place, range)) if range.contains(iova) => place,
            _ => (number, rank),
        };
        Ascending { table: self, leaf, rank }
    }

    /// Mappings that share a byte with `range`, ascending.
    pub fn overlapping(&self, range: IovaRange) -> impl Iterator<Item = (IovaRange, &V)> {
        self.up_from(range.first()).take_while(move |(found, _)| found.first() <= range.last())
    }

    /// Mappings whose first byte is at or below `iova`, descending.
    #[must_use]
    pub fn down_from(&self, iova: u64) -> Descending<'_, V> {
        let leaf = self.leaf_of(iova);
        let rank = self.leaves.get(leaf).map_or(0, |node| node.rank(iova));
        Descending { table: self, leaf, rank }
    }
}

impl<'a, V: Copy> Iterator for Ascending<'a, V> {
    type Item = (IovaRange, &'a V);

    fn next(&mut self) -> Option<Self::Item> {
        let node = self.table.leaves.get(self.leaf)?;
        if self.rank >= node.len() {
            (self.leaf, self.rank) = (node.next, 0);
        }
        let rank = self.rank;
        self.rank = rank.saturating_add(1);
        self.table.leaves.get(self.leaf)?.get(rank)
    }
}

impl<'a, V: Copy> Iterator for Descending<'a, V> {
    type Item = (IovaRange, &'a V);

    fn next(&mut self) -> Option<Self::Item> {
        let node = self.table.leaves.get(self.leaf)?;
        if self.rank == 0 {
            self.leaf = node.prev;
            self.rank = self.table.leaves.get(self.leaf)?.len();
        }
        self.rank = self.rank.checked_sub(1)?;
        self.table.leaves.get(self.leaf)?.get(self.rank)
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
