//! Changing the table: insertion, removal, and keeping nodes within their bounds.
//!
//! Splits are made from the root down before a full leaf takes its entry; merges are made after a
//! removal, one per descent, until the path to the key is sound. Both are rare (one in about
//! [`LEAF`]/2 changes), so they look their nodes up anew instead of carrying a path along: node
//! numbers change when a freed node's place is filled by the last one.

use alloc::vec::Vec;
use core::mem;
use core::ops::RangeInclusive;

use super::run::Run;
use super::{Entry, INNER, Inner, LEAF, Leaf, MappingTable, NONE, Overlap};
use crate::range::IovaRange;

/// Neighbours with no more entries than this together become one leaf, with room left.
const LEAF_MERGE: usize = LEAF / 4 * 3;
/// Fewer entries than this and a leaf is filled up or merged.
pub(super) const LEAF_MIN: usize = LEAF_MERGE / 2;
/// As [`LEAF_MERGE`], for children of inner nodes.
const INNER_MERGE: usize = INNER / 4 * 3;
/// As [`LEAF_MIN`], for children of inner nodes.
pub(super) const INNER_MIN: usize = INNER_MERGE / 2;
/// Room added to a full block, in entries: it bounds what a leaf can leave unused.
const STEP: usize = LEAF / 8;
/// Room a block may keep after removals, in entries.
const SPARE: usize = STEP + STEP / 2;

impl<V> MappingTable<V> {
    /// Adds a mapping.
    ///
    /// # Errors
    ///
    /// [`Overlap`] when it shares a byte with a mapping; nothing is changed then.
    pub fn insert(&mut self, range: IovaRange, value: V) -> Result<(), Overlap> {
        let first = range.first();
        if self.leaves.len() == 0 {
            self.add_leaf(Leaf::new(), Vec::new());
        }
        let mut leaf = self.leaf_of(first);
        let Some(node) = self.leaves.get(leaf) else { return Ok(()) };
        let mut rank = node.run.rank(first);

        let under = match rank.checked_sub(1) {
            Some(rank) => self.ranked(leaf, rank),
            None => self.end_of(node.prev),
        };
        if let Some(e) = under.and_then(|place| self.entry(place))
            && e.range.last() >= first
        {
            return Err(Overlap { existing: e.range });
        }
        let above = match node.run.key(rank) {
            Some(key) => Some((leaf, rank, key)),
            None => self.leaves.get(node.next).and_then(|n| Some((node.next, 0, n.run.key(0)?))),
        };
        if let Some((leaf, rank, key)) = above
            && key <= range.last()
            && let Some(e) = self.ranked(leaf, rank).and_then(|place| self.entry(place))
        {
            return Err(Overlap { existing: e.range });
        }

        if node.run.is_full() {
            self.make_room(first);
            leaf = self.leaf_of(first);
            rank = self.leaves.get(leaf).map_or(0, |n| n.run.rank(first));
        }
        self.put(leaf, rank, Entry { range, value });
        self.len = self.len.saturating_add(1);
        Ok(())
    }

    /// Removes the mapping whose first byte is exactly `first`.
    pub fn remove(&mut self, first: u64) -> Option<(IovaRange, V)> {
        let leaf = self.leaf_of(first);
        let run = &self.leaves.get(leaf)?.run;
        let rank = run.rank(first).checked_sub(1)?;
        if run.key(rank)? != first {
            return None;
        }
        let small = run.len() <= LEAF_MIN;
        let Entry { range, value } = self.take(leaf, rank)?;
        self.len = self.len.saturating_sub(1);
        if small {
            while self.mend(first) {}
        }
        Some((range, value))
    }

    /// Stores an entry at `rank` of a leaf that has room.
    fn put(&mut self, leaf: u32, rank: usize, entry: Entry<V>) {
        let (Some(node), Some(block)) =
            (self.leaves.get_mut(leaf), self.blocks.get_mut(leaf as usize))
        else {
            return;
        };
        node.run.insert(rank, entry.range.first(), slot(block.len()));
        if block.len() == block.capacity() {
            block.reserve_exact(STEP);
        }
        block.push(entry);
    }

    /// Takes the entry at `rank` out of a leaf.
    fn take(&mut self, leaf: u32, rank: usize) -> Option<Entry<V>> {
        let node = self.leaves.get_mut(leaf)?;
        let block = self.blocks.get_mut(leaf as usize)?;
        let (_, tag) = node.run.remove(rank)?;
        let last = block.len().checked_sub(1)?;
        node.run.retag(slot(last), tag);
        let entry = (usize::from(tag) <= last).then(|| block.swap_remove(usize::from(tag)));
        if block.capacity().saturating_sub(block.len()) > SPARE {
            block.shrink_to(block.len().saturating_add(SPARE / 2));
        }
        entry
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
                self.split_leaf(at, position, child, key);
                return;
            }
            if self.inners.get(child).is_some_and(|node| node.run.is_full()) {
                self.split_inner(at, position, child);
            }
            at = self.inners.get(at).map_or(NONE, |node| node.child_of(key));
        }
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
    fn split_leaf(&mut self, parent: u32, position: usize, child: u32, key: u64) {
        let (Some(node), Some(block)) =
            (self.leaves.get_mut(child), self.blocks.get_mut(child as usize))
        else {
            return;
        };
        // Where a row of ascending or descending addresses goes on, leave the other side full.
        let rank = node.run.rank(key);
        let keep = match rank {
            0 => LEAF_MIN,
            LEAF => LEAF - LEAF_MIN,
            _ => LEAF / 2,
        };
        let mut run = node.run.split(keep);
        let (low, high) = split_block(mem::take(block), &mut node.run, &mut run);
        *block = low;
        let bound = run.key(0).unwrap_or(u64::MAX);
        let next = mem::replace(&mut node.next, NONE);
        let upper = self.add_leaf(Leaf { run, prev: child, next }, high);
        self.link(child, upper);
        self.link(upper, next);
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
                let small = self.leaves.get(child).is_some_and(|n| n.run.len() < LEAF_MIN);
                if small {
                    self.mend_leaves(at, low);
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

    /// Merges the leaves at `low` and `low + 1` of `parent`, or makes them equally full.
    fn mend_leaves(&mut self, parent: u32, low: usize) {
        let high = low.saturating_add(1);
        let Some((a, b)) = self.siblings(parent, low) else { return };
        let lens = |t: &Self| {
            let len = |n| t.leaves.get(n).map_or(0, |n: &Leaf| n.run.len());
            (len(a), len(b))
        };
        let (mut below, mut above) = lens(self);
        if below.saturating_add(above) <= LEAF_MERGE {
            self.merge_leaves(a, b);
            if let Some(node) = self.inners.get_mut(parent) {
                node.run.remove(high);
            }
            self.free_leaf(b);
            return;
        }
        while below.abs_diff(above) > 1 {
            if below > above {
                let Some(entry) = self.take(a, below.saturating_sub(1)) else { return };
                self.put(b, 0, entry);
            } else {
                let Some(entry) = self.take(b, 0) else { return };
                self.put(a, below, entry);
            }
            (below, above) = lens(self);
        }
        let bound = self.leaves.get(b).and_then(|n| n.run.key(0));
        if let (Some(node), Some(bound)) = (self.inners.get_mut(parent), bound) {
            node.run.set_key(high, bound);
        }
    }

    /// Moves all entries of leaf `b` to the leaf before it, and unlinks `b`.
    fn merge_leaves(&mut self, a: u32, b: u32) {
        let Some(from) = self.leaves.get(b).copied() else { return };
        let entries = self.blocks.get_mut(b as usize).map(mem::take).unwrap_or_default();
        if let (Some(node), Some(block)) = (self.leaves.get_mut(a), self.blocks.get_mut(a as usize))
        {
            let base = slot(block.len());
            for (key, tag) in from.run.keys().iter().zip(from.run.tags()) {
                node.run.push(*key, tag.saturating_add(base));
            }
            block.reserve_exact(entries.len());
            block.extend(entries);
        }
        self.link(a, from.next);
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
        let run = &self.inners.get(parent)?.run;
        Some((run.tag(low)?, run.tag(low.saturating_add(1))?))
    }

    /// Adds a leaf with its block.
    fn add_leaf(&mut self, leaf: Leaf, block: Vec<Entry<V>>) -> u32 {
        self.blocks.push(block);
        self.leaves.push(leaf)
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

    /// Frees a leaf no node refers to any more.
    fn free_leaf(&mut self, leaf: u32) {
        if (leaf as usize) < self.blocks.len() {
            self.blocks.swap_remove(leaf as usize);
        }
        // Half free: give back half of that, so that the next growth is as far as the next return.
        let (used, held) = (self.blocks.len(), self.blocks.capacity());
        if held / 2 > used {
            self.blocks.shrink_to(used.saturating_add(used / 2));
        }
        let Some(old) = self.leaves.swap_remove(leaf) else { return };
        let Some(node) = self.leaves.get(leaf).copied() else { return };
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

/// Parts the entries of a block between two leaves and renumbers the places in both runs.
fn split_block<V>(
    block: Vec<Entry<V>>,
    low: &mut Run<u8, LEAF>,
    high: &mut Run<u8, LEAF>,
) -> (Vec<Entry<V>>, Vec<Entry<V>>) {
    let mut is_high = [false; LEAF];
    for tag in high.tags() {
        if let Some(place) = is_high.get_mut(usize::from(*tag)) {
            *place = true;
        }
    }
    let mut places = [0; LEAF];
    let mut lows = Vec::with_capacity(low.len().saturating_add(STEP));
    let mut highs = Vec::with_capacity(high.len().saturating_add(STEP));
    for ((entry, is_high), place) in block.into_iter().zip(is_high).zip(&mut places) {
        let side = if is_high { &mut highs } else { &mut lows };
        *place = slot(side.len());
        side.push(entry);
    }
    let moved = |tag: u8| places.get(usize::from(tag)).copied().unwrap_or(0);
    low.map_tags(moved);
    high.map_tags(moved);
    (lows, highs)
}

/// A place in a block as stored in a leaf: below [`LEAF`].
fn slot(place: usize) -> u8 {
    u8::try_from(place).unwrap_or(u8::MAX)
}
