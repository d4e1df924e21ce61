//! A broken axis of addresses, on which a page and a terabyte can both be seen.
//!
//! The space is cut where anything begins or ends. Each segment gets a length that grows with the
//! logarithm of its size, and an empty segment that is far larger than all that is drawn a short
//! one with a break mark. Within a segment the axis is linear; order is kept throughout.

use iommu::IovaRange;

use crate::size::bytes;

/// Addresses between two cuts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Segment {
    /// Which.
    pub range: IovaRange,
    /// How long it should be, in units of the shortest.
    pub weight: f64,
    /// Nothing is there.
    pub empty: bool,
    /// Nothing is there, and it is far too long to be drawn.
    pub broken: bool,
}

/// An axis of addresses.
#[derive(Clone, Debug, PartialEq)]
pub struct Axis {
    segments: Vec<Segment>,
}

/// How much larger than the largest area a gap must be to be broken.
const FAR: u128 = 8;

impl Axis {
    /// An axis over `span` on which all of `areas` can be told apart.
    #[must_use]
    pub fn new(span: IovaRange, areas: &[IovaRange]) -> Self {
        let inside: Vec<IovaRange> =
            areas.iter().filter_map(|area| area.intersection(span)).collect();
        let mut cuts: Vec<u64> = vec![span.first()];
        for area in &inside {
            cuts.push(area.first());
            cuts.extend(area.last().checked_add(1).filter(|end| *end <= span.last()));
        }
        cuts.sort_unstable();
        cuts.dedup();
        let largest = inside.iter().map(|a| bytes(*a)).max().unwrap_or(u128::MAX / FAR);
        let ends = cuts.iter().skip(1).map(|cut| cut - 1).chain([span.last()]);
        let covered = Coverage::new(&inside);
        let segments = cuts.iter().zip(ends).filter_map(|(first, last)| {
            let range = IovaRange::new(*first, last)?;
            let empty = !covered.at(*first);
            let broken = empty && bytes(range) / FAR > largest;
            Some(Segment { range, weight: weight(range, empty, broken), empty, broken })
        });
        Self { segments: segments.collect() }
    }

    /// The segments, ascending, without gaps.
    #[must_use]
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// The sum of all weights.
    #[must_use]
    pub fn weight(&self) -> f64 {
        self.segments.iter().map(|s| s.weight).sum()
    }

    /// Segments that a range reaches into.
    #[must_use]
    pub fn reach(&self, range: IovaRange) -> std::ops::Range<usize> {
        let from = self.segments.partition_point(|s| s.range.last() < range.first());
        let to = self.segments.partition_point(|s| s.range.first() <= range.last());
        from..to.max(from)
    }

    /// The axis with `unit` for each unit of weight, beginning at `top`.
    #[must_use]
    pub fn scaled(&self, top: f64, unit: f64) -> Scale<'_> {
        let mut starts = vec![top];
        let mut at = top;
        for segment in &self.segments {
            at += segment.weight * unit;
            starts.push(at);
        }
        Scale { axis: self, starts }
    }
}

/// Sorted, disjoint ranges.
struct Coverage(Vec<(u64, u64)>);

impl Coverage {
    fn new(ranges: &[IovaRange]) -> Self {
        let mut sorted: Vec<_> = ranges.iter().map(|r| (r.first(), r.last())).collect();
        sorted.sort_unstable();
        let mut merged: Vec<(u64, u64)> = Vec::new();
        for (first, last) in sorted {
            match merged.last_mut() {
                Some(before) if first <= before.1 => before.1 = before.1.max(last),
                _ => merged.push((first, last)),
            }
        }
        Self(merged)
    }

    fn at(&self, iova: u64) -> bool {
        let after = self.0.partition_point(|(first, _)| *first <= iova);
        after > 0 && self.0[after - 1].1 >= iova
    }
}

#[expect(clippy::cast_precision_loss, reason = "a length on paper")]
fn weight(range: IovaRange, empty: bool, broken: bool) -> f64 {
    let pages = (bytes(range) as f64 / 4096.0).max(1.0).log2();
    match (empty, broken) {
        (_, true) => 1.6,
        (true, _) => 0.8 + pages * 0.08,
        _ => 1.0 + pages * 0.12,
    }
}

/// An axis on paper.
#[derive(Clone, Debug)]
pub struct Scale<'a> {
    axis: &'a Axis,
    starts: Vec<f64>,
}

impl Scale<'_> {
    /// Where the first byte of `iova` is.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a length on paper")]
    pub fn at(&self, iova: u64) -> f64 {
        let segments = self.axis.segments();
        let place = segments.partition_point(|s| s.range.last() < iova);
        let Some(segment) = segments.get(place) else { return self.end() };
        let (from, to) = (self.starts[place], self.starts[place + 1]);
        let part = iova.saturating_sub(segment.range.first()) as f64 / bytes(segment.range) as f64;
        from + (to - from) * part
    }

    /// Where a range begins and ends.
    #[must_use]
    pub fn range(&self, range: IovaRange) -> (f64, f64) {
        let end = range.last().checked_add(1).map_or_else(|| self.end(), |end| self.at(end));
        (self.at(range.first()), end)
    }

    /// Where segment `place` begins.
    #[must_use]
    pub fn start_of(&self, place: usize) -> f64 {
        self.starts.get(place).copied().unwrap_or_else(|| self.end())
    }

    /// Where the axis ends.
    #[must_use]
    pub fn end(&self) -> f64 {
        self.starts.last().copied().unwrap_or(0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn r(first: u64, last: u64) -> IovaRange {
        IovaRange::new(first, last).unwrap()
    }

    #[test]
    fn a_page_and_a_terabyte_can_both_be_seen() {
        let (page, tera) = (r(0x1000, 0x1fff), r(1 << 40, (2 << 40) - 1));
        let axis = Axis::new(r(0, u64::MAX), &[page, tera]);
        let scale = axis.scaled(0.0, 10.0);
        let length = |range| scale.range(range).1 - scale.range(range).0;
        assert!(length(page) >= 10.0 && length(tera) > length(page) && length(tera) < 100.0);
        assert_eq!(axis.segments().iter().filter(|s| s.broken).count(), 1);
        assert!((scale.range(r(0, u64::MAX)).1 - scale.end()).abs() < 1e-9);
    }

    #[test]
    fn segments_cover_the_span_in_order() {
        let axis = Axis::new(r(0, 0xffff), &[r(0, 0xfff), r(0x800, 0x2fff), r(0xf000, 0x1_ffff)]);
        let mut next = 0;
        for segment in axis.segments() {
            assert_eq!(segment.range.first(), next);
            next = segment.range.last() + 1;
        }
        assert_eq!(next, 0x1_0000);
        assert_eq!(axis.reach(r(0x900, 0x1000)), 1..3);
    }
}
