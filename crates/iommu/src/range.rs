//! Inclusive ranges of I/O virtual addresses.
//!
//! A range is `first..=last`: the last byte may be 2^64-1, which a half-open range cannot say, and
//! a range is never empty. Every sum is checked here, once.

use core::fmt;

/// An inclusive range of I/O virtual addresses, never empty: `first <= last`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct IovaRange {
    first: u64,
    last: u64,
}

impl IovaRange {
    /// The whole 64-bit space.
    pub const ALL: Self = Self { first: 0, last: u64::MAX };

    /// `first..=last`; `None` when `last < first`.
    #[must_use]
    pub const fn new(first: u64, last: u64) -> Option<Self> {
        if first <= last { Some(Self { first, last }) } else { None }
    }

    /// `first..=last` if that contains `iova`.
    #[inline]
    pub(crate) const fn around(iova: u64, first: u64, last: u64) -> Option<Self> {
        if first <= iova && iova <= last { Some(Self { first, last }) } else { None }
    }

    /// `size` bytes from `first`; `None` when `size` is 0 or the last byte would lie beyond 2^64-1.
    #[must_use]
    pub const fn sized(first: u64, size: u64) -> Option<Self> {
        match size.checked_sub(1) {
            None => None,
            Some(more) => match first.checked_add(more) {
                None => None,
                Some(last) => Some(Self { first, last }),
            },
        }
    }

    /// The first byte.
    #[must_use]
    pub const fn first(self) -> u64 {
        self.first
    }

    /// The last byte (inclusive).
    #[must_use]
    pub const fn last(self) -> u64 {
        self.last
    }

    /// The number of bytes, modulo 2^64: the whole space gives 0.
    #[must_use]
    pub const fn size(self) -> u64 {
        self.last.wrapping_sub(self.first).wrapping_add(1)
    }

    /// Whether `iova` lies inside.
    #[must_use]
    pub const fn contains(self, iova: u64) -> bool {
        self.first <= iova && iova <= self.last
    }

    /// Whether `other` lies wholly inside.
    #[must_use]
    pub const fn covers(self, other: Self) -> bool {
        self.first <= other.first && other.last <= self.last
    }

    /// Whether the two share a byte.
    #[must_use]
    pub const fn overlaps(self, other: Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }

    /// The bytes both hold.
    #[must_use]
    pub fn intersection(self, other: Self) -> Option<Self> {
        Self::new(self.first.max(other.first), self.last.min(other.last))
    }

    /// The bytes of `self` below and above `other`: what subtracting `other` leaves.
    #[must_use]
    pub fn without(self, other: Self) -> (Option<Self>, Option<Self>) {
        let below =
            other.first.checked_sub(1).and_then(|l| Self::new(self.first, l.min(self.last)));
        let above = other.last.checked_add(1).and_then(|f| Self::new(f.max(self.first), self.last));
        (below, above)
    }
}

impl fmt::Display for IovaRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}..={:#x}", self.first, self.last)
    }
}

impl fmt::Debug for IovaRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_top_of_the_space_is_reachable() {
        let page = IovaRange::sized(u64::MAX - 0xfff, 0x1000).unwrap();
        assert_eq!((page.last(), page.size()), (u64::MAX, 0x1000));
        assert_eq!(IovaRange::sized(u64::MAX - 0xfff, 0x1001), None);
        assert_eq!(IovaRange::ALL.size(), 0);
    }

    #[test]
    fn empty_is_no_range() {
        assert_eq!(IovaRange::sized(5, 0), None);
        assert_eq!(IovaRange::new(5, 4), None);
    }

    #[test]
    fn without_leaves_both_sides() {
        let r = |a, b| IovaRange::new(a, b).unwrap();
        assert_eq!(r(0, 9).without(r(3, 5)), (Some(r(0, 2)), Some(r(6, 9))));
        assert_eq!(r(3, 5).without(r(0, 9)), (None, None));
        assert_eq!(r(0, 4).without(r(3, 9)), (Some(r(0, 2)), None));
        assert_eq!(r(0, 4).without(r(7, 9)), (Some(r(0, 4)), None));
        assert_eq!(r(7, 9).without(r(0, 4)), (None, Some(r(7, 9))));
        assert_eq!(r(0, u64::MAX).without(r(5, u64::MAX)), (Some(r(0, 4)), None));
    }
}
