//! Ranges the naive way: `first..end` in 128 bits, where 2^64 is a number like any other.

use iommu::IovaRange;

/// Bytes from `first` up to, not including, `end`; at most 2^64.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Span {
    pub(crate) first: u128,
    pub(crate) end: u128,
}

/// One beyond the last address.
pub(crate) const TOP: u128 = 1 << 64;

impl Span {
    pub(crate) fn new(first: u128, end: u128) -> Self {
        assert!(first < end && end <= TOP, "no span: {first:#x}..{end:#x}");
        Self { first, end }
    }

    pub(crate) fn of(range: IovaRange) -> Self {
        Self::new(u128::from(range.first()), u128::from(range.last()) + 1)
    }

    pub(crate) fn range(self) -> IovaRange {
        IovaRange::new(self.first as u64, (self.end - 1) as u64).expect("a span is never empty")
    }

    pub(crate) fn size(self) -> u128 {
        self.end - self.first
    }

    pub(crate) fn holds(self, at: u128) -> bool {
        self.first <= at && at < self.end
    }

    pub(crate) fn meets(self, other: Self) -> bool {
        self.first.max(other.first) < self.end.min(other.end)
    }

    pub(crate) fn inside(self, other: Self) -> bool {
        other.first <= self.first && self.end <= other.end
    }
}
