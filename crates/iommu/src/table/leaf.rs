//! Where entries are stored: in clusters of four that belong to a leaf.
//!
//! A leaf's entries fill its clusters' places `0..len` in no particular order; the tag of a key
//! says which place. Adding an entry never moves another, removing one moves the last into the
//! gap, and clusters come and go with the number of entries, so that little room is unused.
//!
//! A place without an entry is *vacant*: a range that contains nothing. Whoever looks at a place
//! by number without knowing whether it is in use (the translation cache) thus finds an entry that
//! is in the table, or nothing.

use super::arena::Arena;
use super::run::Run;
use super::{LEAF, NONE};
use crate::range::IovaRange;

/// Entries per cluster.
pub(super) const CLUSTER: usize = 4;
/// Clusters per leaf.
const CLUSTERS: usize = LEAF / CLUSTER;
/// Places that stay free when a cluster is given back.
const SLACK: usize = 1;

/// A mapping as stored.
#[derive(Clone, Copy)]
pub(super) struct Entry<V> {
    first: u64,
    last: u64,
    pub(super) value: V,
}

/// Room for entries of the leaf `owner`.
#[derive(Clone, Copy)]
pub(super) struct Cluster<V> {
    entries: [Entry<V>; CLUSTER],
    owner: u32,
}

/// Sorted first addresses, each with the place of its entry.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Leaf {
    pub(super) run: Run<u8, LEAF>,
    /// The clusters there are, then [`NONE`].
    clusters: [u32; CLUSTERS],
    pub(super) prev: u32,
    pub(super) next: u32,
}

// Three lines of keys and one with the rest.
const _: () = assert!(size_of::<Leaf>() == 256);

/// The entries of all leaves.
#[derive(Clone)]
pub(super) struct Store<V> {
    pub(super) leaves: Arena<Leaf, 8>,
    pub(super) clusters: Arena<Cluster<V>, 16>,
}

impl<V: Copy> Entry<V> {
    pub(super) fn new(range: IovaRange, value: V) -> Self {
        Self { first: range.first(), last: range.last(), value }
    }

    /// The range; `None` for a vacant place.
    #[inline]
    pub(super) fn range(&self) -> Option<IovaRange> {
        IovaRange::new(self.first, self.last)
    }

    #[inline]
    pub(super) fn contains(&self, iova: u64) -> bool {
        self.first <= iova && iova <= self.last
    }

    fn vacant(value: V) -> Self {
        Self { first: 1, last: 0, value }
    }
}

impl Leaf {
    pub(super) fn new() -> Self {
        Self { run: Run::new(), prev: NONE, next: NONE, clusters: [NONE; CLUSTERS] }
    }

    /// The first cluster that `places` places do without.
    #[inline]
    fn cluster_beyond(&self, places: usize) -> Option<u32> {
        let beyond = self.clusters.get(places.div_ceil(CLUSTER)).copied();
        beyond.filter(|cluster| *cluster != NONE)
    }

    /// The cluster of a place, and the place within it.
    #[inline]
    fn cluster(&self, place: usize) -> (u32, usize) {
        let cluster = self.clusters.get(place / CLUSTER).copied().unwrap_or(NONE);
        (cluster, place % CLUSTER)
    }
}

impl<V: Copy> Store<V> {
    pub(super) const fn new() -> Self {
        Self { leaves: Arena::new(), clusters: Arena::new() }
    }

    /// The cluster and the place within it of the entry at `rank` of a leaf.
    #[inline]
    pub(super) fn ranked(&self, leaf: &Leaf, rank: usize) -> (u32, usize) {
        leaf.cluster(leaf.run.tag(rank).map_or(LEAF, usize::from))
    }

    /// A place by number: vacant or in use.
    #[inline]
    pub(super) fn entry(&self, (cluster, place): (u32, usize)) -> Option<&Entry<V>> {
        self.clusters.get(cluster)?.entries.get(place)
    }

    #[inline]
    pub(super) fn entry_mut(&mut self, (cluster, place): (u32, usize)) -> Option<&mut Entry<V>> {
        self.clusters.get_mut(cluster)?.entries.get_mut(place)
    }

    /// Stores an entry at `rank` of a leaf that has room.
    #[inline]
    pub(super) fn put(&mut self, leaf: u32, rank: usize, entry: Entry<V>) {
        let Some(node) = self.leaves.get_mut(leaf) else { return };
        let place = node.run.len();
        node.run.insert(rank, entry.first, tag(place));
        if let Some(number) = node.clusters.get_mut(place / CLUSTER)
            && *number == NONE
        {
            let entries = [Entry::vacant(entry.value); CLUSTER];
            *number = self.clusters.push(Cluster { entries, owner: leaf });
        }
        let at = node.cluster(place);
        if let Some(stored) = self.entry_mut(at) {
            *stored = entry;
        }
    }

    /// Takes the entry at `rank` out of a leaf.
    #[inline]
    pub(super) fn take(&mut self, leaf: u32, rank: usize) -> Option<Entry<V>> {
        let node = self.leaves.get_mut(leaf)?;
        let (_, gap) = node.run.remove(rank)?;
        let last = node.run.len();
        node.run.retag(tag(last), gap);
        let (gap, end) = (node.cluster(usize::from(gap)), node.cluster(last));
        let wasteful = node.cluster_beyond(last.wrapping_add(SLACK)).is_some();
        let end = self.entry_mut(end)?;
        let moved = *end;
        *end = Entry::vacant(moved.value);
        // The entry taken may be the last one itself.
        let gap = self.entry_mut(gap)?;
        let taken = if gap.range().is_some() { core::mem::replace(gap, moved) } else { moved };
        if wasteful {
            self.give_back(leaf, SLACK);
        }
        Some(taken)
    }

    /// Moves the entries of leaf `from` with a rank of `keep` and more to leaf `to`, which is
    /// empty.
    pub(super) fn split(&mut self, from: u32, to: u32, keep: usize) {
        let Some(node) = self.leaves.get_mut(from) else { return };
        let upper = node.run.split(keep);
        let low = *node;
        let mut free = [0u8; LEAF];
        let mut frees = 0usize;
        for (key, place) in upper.keys().iter().zip(upper.tags()) {
            let at = low.cluster(usize::from(*place));
            let Some(stored) = self.entry_mut(at) else { continue };
            let entry = core::mem::replace(stored, Entry::vacant(stored.value));
            debug_assert_eq!(entry.first, *key);
            let end = self.leaves.get(to).map_or(0, |n| n.run.len());
            self.put(to, end, entry);
            if usize::from(*place) < keep
                && let Some(slot) = free.get_mut(frees)
            {
                *slot = *place;
                frees = frees.saturating_add(1);
            }
        }
        // As many low entries lie at or above `keep` as places below it have become free.
        let mut free = free.iter().take(frees);
        for old in low.run.tags().iter().filter(|place| usize::from(**place) >= keep) {
            let Some(new) = free.next() else { break };
            let Some(stored) = self.entry_mut(low.cluster(usize::from(*old))) else { continue };
            let entry = core::mem::replace(stored, Entry::vacant(stored.value));
            if let Some(stored) = self.entry_mut(low.cluster(usize::from(*new))) {
                *stored = entry;
            }
            if let Some(node) = self.leaves.get_mut(from) {
                node.run.retag(*old, *new);
            }
        }
        self.give_back(from, SLACK);
    }

    /// Frees an empty leaf. When another leaf had to take its number, returns the one it had.
    pub(super) fn free_leaf(&mut self, leaf: u32) -> Option<u32> {
        self.give_back(leaf, 0);
        let old = self.leaves.swap_remove(leaf)?;
        let moved = *self.leaves.get(leaf)?;
        for cluster in &moved.clusters {
            if let Some(cluster) = self.clusters.get_mut(*cluster) {
                cluster.owner = leaf;
            }
        }
        Some(old)
    }

    /// Frees the clusters of a leaf that are unused when `slack` places are to stay free.
    fn give_back(&mut self, leaf: u32, slack: usize) {
        while let Some(node) = self.leaves.get_mut(leaf)
            && node.cluster_beyond(node.run.len().saturating_add(slack)).is_some()
            && let Some(last) = node.clusters.iter_mut().rfind(|cluster| **cluster != NONE)
        {
            let freed = core::mem::replace(last, NONE);
            self.free_cluster(freed);
        }
    }

    fn free_cluster(&mut self, cluster: u32) {
        let Some(old) = self.clusters.swap_remove(cluster) else { return };
        let Some(owner) = self.clusters.get(cluster).map(|c| c.owner) else { return };
        if let Some(node) = self.leaves.get_mut(owner) {
            for number in &mut node.clusters {
                *number = if *number == old { cluster } else { *number };
            }
        }
    }
}

/// A place as stored in a leaf: below [`LEAF`].
fn tag(place: usize) -> u8 {
    u8::try_from(place).unwrap_or(u8::MAX)
}

#[cfg(test)]
impl<V: Copy> Store<V> {
    /// Panics when a leaf's clusters are not its own, too many, or hold more than its entries.
    /// Returns how many they are.
    pub(super) fn check_clusters(&self, leaf: u32) -> usize {
        let node = self.leaves.get(leaf).unwrap();
        let held = node.clusters.iter().take_while(|cluster| **cluster != NONE).count();
        assert!(node.clusters[held..].iter().all(|cluster| *cluster == NONE));
        let len = node.run.len();
        assert!(
            held * CLUSTER >= len && held * CLUSTER < len + SLACK + CLUSTER + 1,
            "{held} for {len}"
        );
        for place in 0..held * CLUSTER {
            let (number, at) = node.cluster(place);
            assert!((number as usize) < self.clusters.len());
            let cluster = self.clusters.get(number).unwrap();
            assert_eq!(cluster.owner, leaf);
            assert_eq!(
                cluster.entries[at].range().is_some(),
                place < len,
                "place {place} of {len}"
            );
        }
        held
    }
}
