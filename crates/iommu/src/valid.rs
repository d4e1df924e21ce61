//! The addresses mappings may use: apertures minus reserved regions.

use alloc::vec;
use alloc::vec::Vec;

use crate::IovaRange;

/// Ascending, disjoint ranges. Neighbours that touch stay apart, and ends need not be page
/// aligned: both as in the kernel's `iova_list`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ValidRanges(Vec<IovaRange>);

impl ValidRanges {
    /// One range.
    #[must_use]
    pub fn from_aperture(aperture: IovaRange) -> Self {
        Self(vec![aperture])
    }

    /// The ranges, ascending.
    #[must_use]
    pub fn as_slice(&self) -> &[IovaRange] {
        &self.0
    }

    /// Whether there is none: no IOMMU limits the container yet, or nothing is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// From the first byte of the first range to the last byte of the last.
    #[must_use]
    pub fn span(&self) -> Option<IovaRange> {
        IovaRange::new(self.0.first()?.first(), self.0.last()?.last())
    }

    /// The one range that holds all of `wanted`.
    #[must_use]
    pub fn covering(&self, wanted: IovaRange) -> Option<IovaRange> {
        if planted!(OnlyFirstRange) {
            return self.0.first().copied().filter(|r| r.covers(wanted));
        }
        let after = self.0.partition_point(|r| r.first() <= wanted.first());
        self.0.get(after.checked_sub(1)?).copied().filter(|r| r.covers(wanted))
    }

    /// Cuts everything outside `aperture`. A range of which only the aperture's first or last byte
    /// would stay is dropped whole, as the kernel drops it (`vfio_iommu_aper_resize`).
    pub fn clip(&mut self, aperture: IovaRange) {
        self.0.retain_mut(|r| {
            let more_than_an_end = r.last() > aperture.first() && r.first() < aperture.last();
            match r.intersection(aperture) {
                Some(kept) if more_than_an_end => {
                    *r = kept;
                    true
                }
                _ => false,
            }
        });
    }

    /// Takes `hole` out, byte by byte.
    pub fn subtract(&mut self, hole: IovaRange) {
        let mut kept = Vec::with_capacity(self.0.len().saturating_add(1));
        for r in &self.0 {
            let (below, above) = r.without(hole);
            if r.overlaps(hole) {
                kept.extend(below);
                kept.extend(above);
            } else {
                kept.push(*r);
            }
        }
        self.0 = kept;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn r(first: u64, last: u64) -> IovaRange {
        IovaRange::new(first, last).unwrap()
    }

    #[test]
    fn intel_looks_as_the_kernel_reports_it() {
        let mut v = ValidRanges::from_aperture(r(0, 0xffff_ffff_ffff));
        v.subtract(r(0xfee0_0000, 0xfeef_ffff));
        assert_eq!(v.as_slice(), [r(0, 0xfedf_ffff), r(0xfef0_0000, 0xffff_ffff_ffff)]);
        assert_eq!(v.covering(r(0xfedf_f000, 0xfedf_ffff)), Some(r(0, 0xfedf_ffff)));
        assert_eq!(v.covering(r(0xfedf_f000, 0xfef0_0fff)), None);
        assert_eq!(v.covering(r(1 << 48, (1 << 48) + 0xfff)), None);
    }

    #[test]
    fn clipping_drops_the_one_byte_that_would_stay() {
        let mut v = ValidRanges(vec![r(0, 0x1000), r(0x2000, 0x3000)]);
        v.clip(r(0x1000, 0x2fff));
        assert_eq!(v.as_slice(), [r(0x2000, 0x2fff)]);
        v.clip(r(0, u64::MAX));
        assert_eq!(v.as_slice(), [r(0x2000, 0x2fff)]);
        let mut v = ValidRanges(vec![r(0, 0), r(0x1000, 0x1fff), r(0x3000, 0x4000)]);
        v.clip(r(0, 0x3000));
        assert_eq!(v.as_slice(), [r(0x1000, 0x1fff)]);
    }

    #[test]
    fn subtraction_is_by_the_byte() {
        let mut v = ValidRanges::from_aperture(r(0, u64::MAX));
        v.subtract(r(0x1001, 0x1001));
        v.subtract(r(u64::MAX, u64::MAX));
        v.subtract(r(0, 0));
        assert_eq!(v.as_slice(), [r(1, 0x1000), r(0x1002, u64::MAX - 1)]);
    }
}
