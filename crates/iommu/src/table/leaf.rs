//! A leaf: sorted ranges, and beside them the values they have.
//!
//! Both lie in one piece, so that a search which found the leaf needs a page of memory or two, and
//! the ranges alone tell what is mapped. Keeping values in order, too, costs their moving, but no
//! step from a range to its value.
//!
//! The first addresses of all cache lines are compared at once: the loads do not depend on each
//! other, so a cold leaf costs one memory latency, and there is no branch to miss.

use super::NONE;
use crate::range::IovaRange;

/// Mappings per leaf at most.
pub(super) const LEAF: usize = 24;
/// Ranges per cache line of 64 bytes.
const LINE: usize = 4;

/// First and last byte.
type Ends = [u64; 2];
/// Sorted behind all ranges, and contains nothing.
const UNUSED: Ends = [u64::MAX, 0];

/// Mappings in address order.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Leaf<V> {
    /// Ascending, then [`UNUSED`].
    ranges: [Ends; LEAF],
    len: u32,
    pub(super) prev: u32,
    pub(super) next: u32,
    /// Values of 32 bytes then never share two cache lines.
    _rest_of_line: [u32; 13],
    /// In the order of the ranges. Unused places hold any value.
    values: [V; LEAF],
}

impl<V: Copy> Leaf<V> {
    /// An empty leaf. Its unused places need some value.
    pub(super) fn new(value: V) -> Self {
        Self {
            ranges: [UNUSED; LEAF],
            len: 0,
            prev: NONE,
            next: NONE,
            _rest_of_line: [0; 13],
            values: [value; LEAF],
        }
    }

    /// The number of mappings.
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.len as usize
    }

    /// Whether no further mapping fits.
    #[inline]
    pub(super) fn is_full(&self) -> bool {
        self.len() >= LEAF
    }

    /// The number of mappings whose first byte is at or below `key`.
    #[inline]
    pub(super) fn rank(&self, key: u64) -> usize {
        // Unused places begin at the greatest address: only for that one they would count.
        if key == u64::MAX {
            return self.len();
        }
        let begins = |[first, _]: &Ends| usize::from(*first <= key);
        let (lines, _) = self.ranges.as_chunks::<LINE>();
        let begun = lines.iter().fold(0usize, |n, [ends, ..]| n.wrapping_add(begins(ends)));
        let Some(at) = begun.checked_sub(1) else { return 0 };
        let Some([_, more @ ..]) = lines.get(at) else { return 0 };
        let rank = at.wrapping_mul(LINE).wrapping_add(1);
        more.iter().fold(rank, |n, ends| n.wrapping_add(begins(ends)))
    }

    /// The range at `rank`; `None` beyond the last.
    #[inline]
    pub(super) fn range(&self, rank: usize) -> Option<IovaRange> {
        let [first, last] = *self.ranges.get(rank)?;
        IovaRange::new(first, last)
    }

    /// The range at `rank`, if it contains `iova`.
    #[inline]
    pub(super) fn range_around(&self, rank: usize, iova: u64) -> Option<IovaRange> {
        let [first, last] = *self.ranges.get(rank)?;
        IovaRange::around(iova, first, last)
    }

    /// The value at `rank`, which must be below the length to mean anything.
    #[inline]
    pub(super) fn value(&self, rank: usize) -> Option<&V> {
        self.values.get(rank)
    }

    /// As [`value`](Self::value).
    #[inline]
    pub(super) fn value_mut(&mut self, rank: usize) -> Option<&mut V> {
        self.values.get_mut(rank)
    }

    /// The mapping at `rank`.
    #[inline]
    pub(super) fn get(&self, rank: usize) -> Option<(IovaRange, &V)> {
        Some((self.range(rank)?, self.value(rank)?))
    }

    /// Puts a mapping at `rank` if there is room; the caller keeps the order.
    #[inline]
    pub(super) fn put(&mut self, rank: usize, range: IovaRange, value: V) {
        let len = self.len();
        if rank > len || len >= LEAF {
            return;
        }
        let next = rank.wrapping_add(1);
        self.ranges.copy_within(rank..len, next);
        self.values.copy_within(rank..len, next);
        if let (Some(r), Some(v)) = (self.ranges.get_mut(rank), self.values.get_mut(rank)) {
            (*r, *v) = ([range.first(), range.last()], value);
        }
        self.len = self.len.wrapping_add(1);
    }

    /// Takes the mapping at `rank` out.
    #[inline]
    pub(super) fn take(&mut self, rank: usize) -> Option<(IovaRange, V)> {
        let (len, next) = (self.len(), rank.wrapping_add(1));
        let taken = (self.range(rank)?, *self.value(rank)?);
        self.ranges.copy_within(next..len, rank);
        self.values.copy_within(next..len, rank);
        self.len = self.len.saturating_sub(1);
        if let Some(unused) = self.ranges.get_mut(self.len as usize) {
            *unused = UNUSED;
        }
        Some(taken)
    }

    /// Takes the mappings from rank `at` on out; `None` when `at` is no rank.
    pub(super) fn split(&mut self, at: usize) -> Option<Self> {
        let mut upper = Self::new(*self.value(at)?);
        for rank in at..self.len() {
            let (range, value) = self.get(rank)?;
            upper.put(upper.len(), range, *value);
        }
        self.ranges.get_mut(at..)?.fill(UNUSED);
        self.len = self.len.saturating_sub(upper.len);
        Some(upper)
    }

    /// An empty leaf in its place.
    pub(super) fn emptied(&self) -> Self {
        let [value, ..] = self.values;
        Self::new(value)
    }
}

#[cfg(test)]
impl<V: Copy> Leaf<V> {
    /// Panics when the length and the ranges do not agree.
    pub(super) fn check(&self) {
        assert!((0..self.len()).all(|rank| self.range(rank).is_some()));
        assert!(self.ranges[self.len()..].iter().all(|ends| *ends == UNUSED));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rank_agrees_with_counting() {
        let mut leaf = Leaf::new(());
        assert_eq!(leaf.rank(u64::MAX), 0);
        for len in 1..=LEAF {
            let first = len as u64 * 3 + 10;
            leaf.put(len - 1, IovaRange::new(first, first + 1).unwrap(), ());
            for key in (0..LEAF as u64 * 3 + 20).chain([u64::MAX]) {
                let count = (0..len).filter(|at| leaf.range(*at).unwrap().first() <= key).count();
                assert_eq!(leaf.rank(key), count, "{key} among {len}");
            }
        }
        assert!(leaf.is_full());
    }

    #[test]
    fn the_greatest_address_is_an_address_like_others() {
        let mut leaf = Leaf::new(7);
        let top = IovaRange::new(u64::MAX, u64::MAX).unwrap();
        leaf.put(0, top, 1);
        assert_eq!((leaf.rank(u64::MAX - 1), leaf.rank(u64::MAX)), (0, 1));
        assert_eq!(leaf.take(0), Some((top, 1)));
        assert!(leaf.take(0).is_none());
        leaf.check();
    }

    #[test]
    fn splitting_frees_the_upper_places() {
        let mut leaf = Leaf::new(0);
        let range = |at: u64| IovaRange::new(at * 9, at * 9 + 5).unwrap();
        (0..LEAF).for_each(|at| leaf.put(at, range(at as u64), at));
        leaf.put(0, range(99), 99);
        assert_eq!((leaf.len(), leaf.get(0)), (LEAF, Some((range(0), &0))), "full");
        let upper = leaf.split(20).unwrap();
        assert_eq!((leaf.len(), upper.len()), (20, LEAF - 20));
        assert!((20..LEAF).all(|at| upper.get(at - 20) == Some((range(at as u64), &at))));
        assert!(leaf.split(LEAF).is_none());
        [leaf, upper, upper.emptied()].iter().for_each(Leaf::check);
    }
}
