//! Changing the table: insertion, removal, and keeping nodes within their bounds.
//!
//! Splits are made from the root down before a full leaf takes its entry; merges are made after a
//! removal, one per descent, until the path to the key is sound. Both are rare (one in about
//! [`LEAF`]/2 changes), so they look their nodes up anew instead of carrying a path along: node
//! numbers change when a freed node's place is filled by the last one.

use core::ops::RangeInclusive;

use super::leaf::{CLUSTER, Entry, Leaf};
use super::{INNER, Inner, LEAF, MappingTable, NONE, Overlap};
use crate::range::IovaRange;

/// Neighbours with no more entries than this together become one leaf, with room left.
const LEAF_MERGE: usize = LEAF - 2;
/// Fewer entries than this and a leaf is filled up or merged.
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
        if self.store.leaves.len() == 0 {
            self.store.leaves.push(Leaf::new());
        }
        let mut leaf = self.leaf_of(first);
        let Some(node) = self.store.leaves.get(leaf) else { return Ok(()) };
        let mut rank = node.run.rank(first);

        let under = match rank.checked_sub(1) {
            Some(rank) => Some(self.store.ranked(node, rank)),
            None => self.end_of(node.prev),
        };
        if let Some(e) = under.and_then(|place| self.store.entry(place))
            && let Some(existing) = e.range().filter(|r| r.last() >= first)
        {
            return Err(Overlap { existing }.into());
        }
        let above = match node.run.key(rank) {
            Some(key) => Some((node, rank, key)),
            None => self.store.leaves.get(node.next).and_then(|n| Some((n, 0, n.run.key(0)?))),
        };
        if let Some((node, rank, key)) = above
            && key <= range.last()
            && let Some(existing) =
                self.store.entry(self.store.ranked(node, rank)).and_then(Entry::range)
        {
            return Err(Overlap { existing }.into());
        }

        let full = node.run.is_full();
        let value = value()?;
        if full {
            self.make_room(first);
            leaf = self.leaf_of(first);
            rank = self.store.leaves.get(leaf).map_or(0, |n| n.run.rank(first));
        }
        self.store.put(leaf, rank, Entry::new(range, value));
        self.len = self.len.saturating_add(1);
        Ok(())
    }

    /// Removes the mapping whose first byte is exactly `first`.
    pub fn remove(&mut self, first: u64) -> Option<(IovaRange, V)> {
        let leaf = self.leaf_of(first);
        let run = &self.store.leaves.get(leaf)?.run;
        let rank = run.rank(first).checked_sub(1)?;
        if run.key(rank)? != first {
            return None;
        }
        self.remove_at(leaf, rank)
    }

    /// Removes the mapping that is exactly `range`.
    pub fn remove_exact(&mut self, range: IovaRange) -> Option<V> {
        let leaf = self.leaf_of(range.first());
        let node = self.store.leaves.get(leaf)?;
        let rank = node.run.rank(range.first()).checked_sub(1)?;
        let entry = self.store.entry(self.store.ranked(node, rank))?;
        if entry.range() != Some(range) {
            return None;
        }
        self.remove_at(leaf, rank).map(|(_, value)| value)
    }

    /// Removes the lowest mapping whose first byte lies in `within`: what a loop that unmaps a
    /// range does until there is none, in one search each.
    pub fn remove_first_in(&mut self, within: IovaRange) -> Option<(IovaRange, V)> {
        let mut leaf = self.leaf_of(within.first());
        let mut node = self.store.leaves.get(leaf)?;
        // Keys below the first address, not at it.
        let mut rank = match within.first().checked_sub(1) {
            Some(below) => node.run.rank(below),
            None => 0,
        };
        if rank >= node.run.len() {
            (leaf, rank) = (node.next, 0);
            node = self.store.leaves.get(leaf)?;
        }
        if node.run.key(rank)? > within.last() {
            return None;
        }
        self.remove_at(leaf, rank)
    }

    /// Removes the entry at `rank` of a leaf.
    #[inline]
    fn remove_at(&mut self, leaf: u32, rank: usize) -> Option<(IovaRange, V)> {
        let small = self.store.leaves.get(leaf)?.run.len() <= LEAF_MIN;
        let entry = self.store.take(leaf, rank)?;
        self.len = self.len.saturating_sub(1);
        let range = entry.range()?;
        if small {
            while self.mend(range.first()) {}
        }
        Some((range, entry.value))
    }

    /// Splits the leaf of `key`, and first every full node above it.
    fn make_room(&mut self, key: u64) {
        let root_is_full =
            self.height == 0 || self.inners.get(self.root).is_some_and(|node| node.run.is_full());
        if root_is_full {
            let mut root = Inner::new();
            root.run.push(0, self.root);
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
            if self.inners.get(child).is_some_and(|node| node.run.is_full()) {
                self.split_inner(at, position, child);
            }
            at = self.inners.get(at).map_or(NONE, |node| node.child_of(key));
        }
    }

    /// When a row of ascending or descending addresses goes on at an end of the full leaf `child`,
    /// moves entries to the neighbour on the other side, if that has much room: split leaves would
    /// stay half empty behind such a row.
    fn lean(&mut self, parent: u32, position: usize, child: u32, key: u64) -> bool {
        let rank = self.store.leaves.get(child).map_or(0, |n| n.run.rank(key));
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
        let roomy =
            self.store.leaves.get(other).is_some_and(|n| n.run.len() <= LEAF_MERGE - CLUSTER);
        if roomy {
            self.mend_leaves(parent, low);
        }
        roomy
    }

    /// Moves the upper children of `child`, at `position` of `parent`, to a new node.
    fn split_inner(&mut self, parent: u32, position: usize, child: u32) {
        let Some(node) = self.inners.get_mut(child) else { return };
        let run = node.run.split(INNER / 2);
        let bound = run.key(0).unwrap_or(u64::MAX);
        let upper = self.inners.push(Inner { run });
        if let Some(node) = self.inners.get_mut(parent) {
            node.run.insert(position.saturating_add(1), bound, upper);
        }
    }

    /// Moves the upper entries of leaf `child`, at `position` of `parent`, to a new leaf.
    fn split_leaf(&mut self, parent: u32, position: usize, child: u32) {
        let Some(node) = self.store.leaves.get(child) else { return };
        let next = node.next;
        let upper = self.store.leaves.push(Leaf::new());
        self.store.split(child, upper, LEAF / 2);
        self.link(child, upper);
        self.link(upper, next);
        let bound = self.store.leaves.get(upper).and_then(|n| n.run.key(0)).unwrap_or(u64::MAX);
        if let Some(node) = self.inners.get_mut(parent) {
            node.run.insert(position.saturating_add(1), bound, upper);
        }
    }

    /// Repairs the topmost node on the way to `key` that holds too little. `false`: there is none.
    fn mend(&mut self, key: u64) -> bool {
        let mut at = self.root;
        for level in (1..=self.height).rev() {
            let Some(node) = self.inners.get(at) else { return false };
            let position = node.position_of(key);
            let child = node.child_of(key);
            if at == self.root && node.run.len() == 1 {
                self.root = child;
                self.height = self.height.saturating_sub(1);
                self.free_inner(at);
                return true;
            }
            let low = position.saturating_sub(1);
            if level == 1 {
                let small = self.store.leaves.get(child).is_some_and(|n| n.run.len() < LEAF_MIN);
                if small {
                    self.mend_leaves(at, self.emptier_pair(at, position));
                }
                return small;
            }
            if self.inners.get(child).is_some_and(|n| n.run.len() < INNER_MIN) {
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
        let children = self.inners.get(parent).map_or(&[][..], |n| n.run.tags());
        let len = |at: usize| Some(self.store.leaves.get(*children.get(at)?)?.run.len());
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
        let len = |t: &Self, n| t.store.leaves.get(n).map_or(0, |n: &Leaf| n.run.len());
        let (mut below, mut above) = (len(self, a), len(self, b));
        let merge = below.saturating_add(above) <= LEAF_MERGE;
        while !merge && below > above.saturating_add(1) {
            let Some(entry) = self.store.take(a, below.saturating_sub(1)) else { return };
            self.store.put(b, 0, entry);
            (below, above) = (len(self, a), len(self, b));
        }
        while above > 0 && (merge || above > below.saturating_add(1)) {
            let Some(entry) = self.store.take(b, 0) else { return };
            self.store.put(a, below, entry);
            (below, above) = (len(self, a), len(self, b));
        }
        let next = self.store.leaves.get(b).map_or(NONE, |n| n.next);
        let bound = self.store.leaves.get(b).and_then(|n| n.run.key(0));
        let Some(node) = self.inners.get_mut(parent) else { return };
        match bound {
            Some(bound) => node.run.set_key(high, bound),
            None => {
                node.run.remove(high);
                self.link(a, next);
                self.free_leaf(b);
            }
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
        let merge = below.run.len().saturating_add(above.run.len()) <= INNER_MERGE;
        while below.run.len() > above.run.len().saturating_add(1) && !merge {
            let last = below.run.len().saturating_sub(1);
            let Some((key, tag)) = below.run.remove(last) else { return };
            above.run.insert(0, key, tag);
        }
        while above.run.len() > 0 && (merge || above.run.len() > below.run.len().saturating_add(1))
        {
            let Some((key, tag)) = above.run.remove(0) else { return };
            below.run.push(key, tag);
        }
        for (number, node) in [(a, below), (b, above)] {
            if let Some(place) = self.inners.get_mut(number) {
                *place = node;
            }
        }
        let Some(node) = self.inners.get_mut(parent) else { return };
        match above.run.key(0) {
            Some(bound) => node.run.set_key(high, bound),
            None => {
                node.run.remove(high);
                self.free_inner(b);
            }
        }
    }

    /// The children at `low` and `low + 1` of `parent`.
    fn siblings(&self, parent: u32, low: usize) -> Option<(u32, u32)> {
        let children = self.inners.get(parent)?.run.tags();
        Some((*children.get(low)?, *children.get(low.saturating_add(1))?))
    }

    /// Makes leaf `b` follow leaf `a`; either may be [`NONE`].
    fn link(&mut self, a: u32, b: u32) {
        if let Some(node) = self.store.leaves.get_mut(a) {
            node.next = b;
        }
        if let Some(node) = self.store.leaves.get_mut(b) {
            node.prev = a;
        }
    }

    /// Frees an empty leaf no node refers to any more.
    fn free_leaf(&mut self, leaf: u32) {
        let Some(old) = self.store.free_leaf(leaf) else { return };
        let Some(node) = self.store.leaves.get(leaf).copied() else { return };
        self.link(node.prev, leaf);
        self.link(leaf, node.next);
        self.repoint(node.run.key(0).unwrap_or(0), old, leaf, 1..=1);
    }

    /// Frees an inner node no node refers to any more.
    fn free_inner(&mut self, inner: u32) {
        let Some(old) = self.inners.swap_remove(inner) else { return };
        let Some(node) = self.inners.get(inner).copied() else { return };
        if self.root == old {
            self.root = inner;
            return;
        }
        self.repoint(node.run.key(0).unwrap_or(0), old, inner, 2..=self.height);
    }

    /// Makes the node above `old` refer to `new` instead: the one on the way to `key` whose level
    /// (1 just above the leaves) is in `levels`.
    fn repoint(&mut self, key: u64, old: u32, new: u32, levels: RangeInclusive<u32>) {
        let mut at = self.root;
        for level in (1..=self.height).rev() {
            let Some(node) = self.inners.get_mut(at) else { return };
            at = node.child_of(key);
            if at == old && levels.contains(&level) {
                node.run.retag(old, new);
                return;
            }
        }
    }
}
