//! Changing the table: insertion, removal, and keeping nodes within their bounds.
//!
//! Splits are made from the root down before a full leaf takes its mapping; merges are made after a
//! removal, one per descent, until the path to the key is sound. Both are rare (one in about
//! [`LEAF`]/2 changes), so they look their nodes up anew instead of carrying a path along: node
//! numbers change when a freed node's place is filled by the last one.

use core::ops::RangeInclusive;

use super::inner::{INNER, Inner};
use super::leaf::{LEAF, Leaf};
use super::{MappingTable, NONE, Overlap};
use crate::range::IovaRange;

/// Neighbours with no more mappings than this together become one leaf, with room left.
const LEAF_MERGE: usize = LEAF - 2;
/// Fewer mappings than this and a leaf is filled up or merged.
pub(super) const LEAF_MIN: usize = LEAF_MERGE / 2;
/// As [`LEAF_MERGE`], for children of inner nodes.
const INNER_MERGE: usize = INNER / 4 * 3;
/// As [`LEAF_MIN`], for children of inner nodes.
pub(super) const INNER_MIN: usize = INNER_MERGE / 2;

impl<V: Copy> MappingTable<V> {
    /// Adds a mapping.
    ///
    /// # Errors
    ///
    /// [`Overlap`] when it shares a byte with a mapping; nothing is changed then.
    pub fn insert(&mut self, range: IovaRange, value: V) -> Result<(), Overlap> {
        self.insert_with(range, || Ok(value))
    }

    /// Adds a mapping whose value is made only once its place is known to be free: in one search.
    ///
    /// # Errors
    ///
    /// [`Overlap`] as for [`insert`](Self::insert), else what `value` refuses with; nothing is
    /// changed then.
    pub fn insert_with<E: From<Overlap>>(
        &mut self,
        range: IovaRange,
        value: impl FnOnce() -> Result<V, E>,
    ) -> Result<(), E> {
        let first = range.first();
        let mut number = self.leaf_of(first);
        let Some(leaf) = self.leaves.get(number) else {
            let value = value()?;
            number = self.leaves.push(Leaf::new(value));
            if let Some(leaf) = self.leaves.get_mut(number) {
                leaf.put(0, range, value);
                self.len = 1;
            }
            return Ok(());
        };
        let rank = leaf.rank(first);
        let under = match rank.checked_sub(1) {
            Some(rank) => leaf.range(rank),
            None => self.end_of(leaf.prev).map(|(_, range)| range),
        };
        let above = leaf.range(rank).or_else(|| self.leaves.get(leaf.next)?.range(0));
        let shares = |existing: &IovaRange| existing.overlaps(range);
        if let Some(existing) = under.filter(shares).or(above.filter(shares)) {
            return Err(Overlap { existing }.into());
        }
        let full = leaf.is_full();
        let value = value()?;
        let mut rank = rank;
        if full {
            self.make_room(first);
            number = self.leaf_of(first);
            rank = self.leaves.get(number).map_or(0, |leaf| leaf.rank(first));
        }
        if let Some(leaf) = self.leaves.get_mut(number) {
            leaf.put(rank, range, value);
            self.len = self.len.saturating_add(1);
        }
        Ok(())
    }

    /// Removes the mapping whose first byte is exactly `first`.
    pub fn remove(&mut self, first: u64) -> Option<(IovaRange, V)> {
        let number = self.leaf_of(first);
        let leaf = self.leaves.get(number)?;
        let rank = leaf.rank(first).checked_sub(1)?;
        if leaf.range(rank)?.first() != first {
            return None;
        }
        self.remove_at(number, rank)
    }

    /// Removes the mapping that is exactly `range`.
    pub fn remove_exact(&mut self, range: IovaRange) -> Option<V> {
        let number = self.leaf_of(range.first());
        let leaf = self.leaves.get(number)?;
        let rank = leaf.rank(range.first()).checked_sub(1)?;
        if leaf.range(rank)? != range {
            return None;
        }
        self.remove_at(number, rank).map(|(_, value)| value)
    }

    /// Removes the lowest mapping whose first byte lies in `within`: what a loop that unmaps a
    /// range does until there is none, in one search each.
    pub fn remove_first_in(&mut self, within: IovaRange) -> Option<(IovaRange, V)> {
        let mut number = self.leaf_of(within.first());
        let mut leaf = self.leaves.get(number)?;
        // Mappings that begin below the first address, not at it.
        let mut rank = match within.first().checked_sub(1) {
            Some(below) => leaf.rank(below),
            None => 0,
        };
        if rank >= leaf.len() {
            (number, rank) = (leaf.next, 0);
            leaf = self.leaves.get(number)?;
        }
        if leaf.range(rank)?.first() > within.last() {
            return None;
        }
        self.remove_at(number, rank)
    }

    /// Removes the mapping at `rank` of a leaf.
    #[inline]
    fn remove_at(&mut self, leaf: u32, rank: usize) -> Option<(IovaRange, V)> {
        let node = self.leaves.get_mut(leaf)?;
        let (range, value) = node.take(rank)?;
        let small = node.len() < LEAF_MIN;
        self.len = self.len.saturating_sub(1);
        if small {
            while self.mend(range.first()) {}
        }
        Some((range, value))
    }

    /// Splits the leaf of `key`, and first every full node above it.
    fn make_room(&mut self, key: u64) {
        let root_is_full =
            self.height == 0 || self.inners.get(self.root).is_some_and(|node| node.is_full());
        if root_is_full {
            let mut root = Inner::new();
            root.push(0, self.root);
            self.root = self.inners.push(root);
            self.height = self.height.saturating_add(1);
        }
        let mut at = self.root;
        for level in (1..=self.height).rev() {
            let Some(node) = self.inners.get(at) else { return };
            let position = node.position_of(key);
            let child = node.child_of(key);
            if level == 1 {
                if !self.lean(at, position, child, key) {
                    self.split_leaf(at, position, child);
                }
                return;
            }
            if self.inners.get(child).is_some_and(|node| node.is_full()) {
                self.split_inner(at, position, child);
            }
            at = self.inners.get(at).map_or(NONE, |node| node.child_of(key));
        }
    }

    /// When a row of ascending or descending addresses goes on at an end of the full leaf `child`,
    /// moves mappings to the neighbour on the other side, if that has much room: split leaves would
    /// stay half empty behind such a row.
    fn lean(&mut self, parent: u32, position: usize, child: u32, key: u64) -> bool {
        let rank = self.leaves.get(child).map_or(0, |n| n.rank(key));
        let low = match rank {
            0 => Some(position),
            LEAF => position.checked_sub(1),
            _ => None,
        };
        let Some((low, (a, b))) = low.and_then(|low| Some((low, self.siblings(parent, low)?)))
        else {
            return false;
        };
        let other = if a == child { b } else { a };
        let roomy = self.leaves.get(other).is_some_and(|n| n.len() <= LEAF_MERGE - 4);
        if roomy {
            self.mend_leaves(parent, low);
        }
        roomy
    }

    /// Moves the upper children of `child`, at `position` of `parent`, to a new node.
    fn split_inner(&mut self, parent: u32, position: usize, child: u32) {
        let Some(node) = self.inners.get_mut(child) else { return };
        let upper = node.split(INNER / 2);
        let bound = upper.key(0).unwrap_or(u64::MAX);
        let upper = self.inners.push(upper);
        if let Some(node) = self.inners.get_mut(parent) {
            node.insert(position.saturating_add(1), bound, upper);
        }
    }

    /// Moves the upper mappings of leaf `child`, at `position` of `parent`, to a new leaf.
    fn split_leaf(&mut self, parent: u32, position: usize, child: u32) {
        let Some(node) = self.leaves.get_mut(child) else { return };
        let next = node.next;
        let Some(full) = node.split(LEAF / 2) else { return };
        let bound = full.range(0).map_or(u64::MAX, IovaRange::first);
        // What is allocated and not in use stays empty: a chunk begins as copies of one leaf.
        let upper = self.leaves.push(full.emptied());
        if let Some(leaf) = self.leaves.get_mut(upper) {
            *leaf = full;
        }
        self.link(child, upper);
        self.link(upper, next);
        if let Some(node) = self.inners.get_mut(parent) {
            node.insert(position.saturating_add(1), bound, upper);
        }
    }

    /// Repairs the topmost node on the way to `key` that holds too little. `false`: there is none.
    fn mend(&mut self, key: u64) -> bool {
        let mut at = self.root;
        for level in (1..=self.height).rev() {
            let Some(node) = self.inners.get(at) else { return false };
            let position = node.position_of(key);
            let child = node.child_of(key);
            if at == self.root && node.len() == 1 {
                self.root = child;
                self.height = self.height.saturating_sub(1);
                self.free_inner(at);
                return true;
            }
            let low = position.saturating_sub(1);
            if level == 1 {
                let small = self.leaves.get(child).is_some_and(|n| n.len() < LEAF_MIN);
                if small {
                    self.mend_leaves(at, self.emptier_pair(at, position));
                }
                return small;
            }
            if self.inners.get(child).is_some_and(|n| n.len() < INNER_MIN) {
                self.mend_inners(at, low);
                return true;
            }
            at = child;
        }
        false
    }

    /// The lower position of the pair of leaves that the one at `position` of `parent` forms with
    /// its emptier neighbour.
    fn emptier_pair(&self, parent: u32, position: usize) -> usize {
        let Some(low) = position.checked_sub(1) else { return position };
        let children = self.inners.get(parent).map_or(&[][..], |n| n.children());
        let len = |at: usize| Some(self.leaves.get(*children.get(at)?)?.len());
        if len(position.saturating_add(1)).is_some_and(|right| Some(right) < len(low)) {
            position
        } else {
            low
        }
    }

    /// Merges the leaves at `low` and `low + 1` of `parent`, or makes them equally full.
    fn mend_leaves(&mut self, parent: u32, low: usize) {
        let high = low.saturating_add(1);
        let Some((a, b)) = self.siblings(parent, low) else { return };
        let len = |t: &Self, n| t.leaves.get(n).map_or(0, Leaf::len);
        let (mut below, mut above) = (len(self, a), len(self, b));
        let merge = below.saturating_add(above) <= LEAF_MERGE;
        while !merge && below > above.saturating_add(1) {
            self.shift(a, below.saturating_sub(1), b, 0);
            (below, above) = (len(self, a), len(self, b));
        }
        while above > 0 && (merge || above > below.saturating_add(1)) {
            self.shift(b, 0, a, below);
            (below, above) = (len(self, a), len(self, b));
        }
        let next = self.leaves.get(b).map_or(NONE, |n| n.next);
        let bound = self.leaves.get(b).and_then(|n| n.range(0)).map(IovaRange::first);
        let Some(node) = self.inners.get_mut(parent) else { return };
        match bound {
            Some(bound) => node.set_key(high, bound),
            None => {
                node.remove(high);
                self.link(a, next);
                self.free_leaf(b);
            }
        }
    }

    /// Moves a mapping to another leaf.
    fn shift(&mut self, from: u32, rank: usize, to: u32, new: usize) {
        let taken = self.leaves.get_mut(from).and_then(|leaf| leaf.take(rank));
        if let (Some((range, value)), Some(leaf)) = (taken, self.leaves.get_mut(to)) {
            leaf.put(new, range, value);
        }
    }

    /// Merges the inner nodes at `low` and `low + 1` of `parent`, or makes them equally full.
    fn mend_inners(&mut self, parent: u32, low: usize) {
        let high = low.saturating_add(1);
        let Some((a, b)) = self.siblings(parent, low) else { return };
        let (Some(mut below), Some(mut above)) =
            (self.inners.get(a).copied(), self.inners.get(b).copied())
        else {
            return;
        };
        let merge = below.len().saturating_add(above.len()) <= INNER_MERGE;
        while below.len() > above.len().saturating_add(1) && !merge {
            let last = below.len().saturating_sub(1);
            let Some((key, tag)) = below.remove(last) else { return };
            above.insert(0, key, tag);
        }
        while above.len() > 0 && (merge || above.len() > below.len().saturating_add(1)) {
            let Some((key, tag)) = above.remove(0) else { return };
            below.push(key, tag);
        }
        for (number, node) in [(a, below), (b, above)] {
            if let Some(place) = self.inners.get_mut(number) {
                *place = node;
            }
        }
        let Some(node) = self.inners.get_mut(parent) else { return };
        match above.key(0) {
            Some(bound) => node.set_key(high, bound),
            None => {
                node.remove(high);
                self.free_inner(b);
            }
        }
    }

    /// The children at `low` and `low + 1` of `parent`.
    fn siblings(&self, parent: u32, low: usize) -> Option<(u32, u32)> {
        let children = self.inners.get(parent)?.children();
        Some((*children.get(low)?, *children.get(low.saturating_add(1))?))
    }

    /// Makes leaf `b` follow leaf `a`; either may be [`NONE`].
    fn link(&mut self, a: u32, b: u32) {
        if let Some(node) = self.leaves.get_mut(a) {
            node.next = b;
        }
        if let Some(node) = self.leaves.get_mut(b) {
            node.prev = a;
        }
    }

    /// Frees an empty leaf no node refers to any more.
    fn free_leaf(&mut self, leaf: u32) {
        let Some(old) = self.leaves.swap_remove(leaf) else { return };
        let Some(node) = self.leaves.get(leaf) else { return };
        let (prev, next, key) = (node.prev, node.next, node.range(0).map_or(0, IovaRange::first));
        self.link(prev, leaf);
        self.link(leaf, next);
        self.repoint(key, old, leaf, 1..=1);
    }

    /// Frees an inner node no node refers to any more.
    fn free_inner(&mut self, inner: u32) {
        let Some(old) = self.inners.swap_remove(inner) else { return };
        let Some(node) = self.inners.get(inner).copied() else { return };
        if self.root == old {
            self.root = inner;
            return;
        }
        self.repoint(node.key(0).unwrap_or(0), old, inner, 2..=self.height);
    }

    /// Makes the node above `old` refer to `new` instead: the one on the way to `key` whose level
    /// (1 just above the leaves) is in `levels`.
    fn repoint(&mut self, key: u64, old: u32, new: u32, levels: RangeInclusive<u32>) {
        let mut at = self.root;
        for level in (1..=self.height).rev() {
            let Some(node) = self.inners.get_mut(at) else { return };
            at = node.child_of(key);
            if at == old && levels.contains(&level) {
                node.replace(old, new);
                return;
            }
        }
    }
}
