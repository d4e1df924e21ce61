//! Why an IOVA cannot be used, and which one near it can.

use crate::refusal::{MapRefusal, Nearest, Unusable, in_the_way};
use crate::space::AddressSpace;
use crate::{Domain, IovaRange};

/// Mappings and holes looked at on either side before giving up: a refusal must not cost more than
/// the request.
const STEPS: usize = 64;

impl AddressSpace {
    /// The legal IOVA nearest to `wanted` on either side, for a mapping of the same size. Looks
    /// past a bounded number of obstacles.
    #[must_use]
    pub fn nearest(&self, wanted: IovaRange) -> Nearest {
        let size = wanted.size();
        Nearest { size, above: self.next_free(wanted, true), below: self.next_free(wanted, false) }
    }

    pub(super) fn overlaps(&self, wanted: IovaRange, existing: IovaRange) -> MapRefusal {
        MapRefusal::Overlaps { existing, nearest: self.nearest(wanted) }
    }

    pub(super) fn not_usable(&self, wanted: IovaRange) -> MapRefusal {
        MapRefusal::NotUsable { why: self.why_unusable(wanted), nearest: self.nearest(wanted) }
    }

    /// What is in the way of `wanted`, assuming something is.
    #[must_use]
    pub fn why_unusable(&self, wanted: IovaRange) -> Unusable {
        if let Some(region) = in_the_way(self.reserved().map(|(_, r)| r), wanted) {
            return Unusable::Reserved(region);
        }
        let mut apertures = self.domains.iter().map(Domain::aperture);
        let common = match apertures.next() {
            Some(first) => apertures.try_fold(first, |common, next| common.intersection(next)),
            None => Some(IovaRange::ALL),
        };
        match common {
            Some(a) if a.covers(wanted) => Unusable::CrossesRanges,
            other => Unusable::OutsideAperture(other),
        }
    }

    fn next_free(&self, wanted: IovaRange, up: bool) -> Option<u64> {
        let size = wanted.size();
        let granule = self.page_sizes.smallest();
        let all = [IovaRange::ALL];
        let valid = if self.valid.is_empty() { &all[..] } else { self.valid.as_slice() };
        let mut at = IovaRange::sized(align(wanted.first(), granule, up)?, size);
        for _ in 0..STEPS {
            // Where the candidate leaves the space, start from the last place that fits.
            let candidate = match at {
                Some(c) => c,
                None if up => return None,
                None => ending_at(u64::MAX, size, granule)?,
            };
            let mapped = self.table.first_overlap(candidate).map(|(existing, _)| existing);
            let obstacle = match mapped.or_else(|| self.window_in(candidate)) {
                Some(existing) => existing,
                None if valid.iter().any(|v| v.covers(candidate)) => {
                    return Some(candidate.first());
                }
                None => hole_at(valid, candidate, up)?,
            };
            at = if up {
                let next = align(obstacle.last().checked_add(1)?, granule, true)?;
                Some(IovaRange::sized(next, size)?)
            } else {
                Some(ending_at(obstacle.first().checked_sub(1)?, size, granule)?)
            };
        }
        None
    }
}

/// The part of the space between valid ranges that keeps `candidate` from being valid: the
/// lowest such hole when going up, the highest when going down.
fn hole_at(valid: &[IovaRange], candidate: IovaRange, up: bool) -> Option<IovaRange> {
    if up {
        // The first valid range that does not end before the candidate.
        let at = valid.iter().position(|v| v.last() >= candidate.first())?;
        let range = valid.get(at)?;
        if candidate.first() < range.first() {
            return IovaRange::new(candidate.first(), range.first().checked_sub(1)?);
        }
        let next = valid.get(at.checked_add(1)?)?;
        IovaRange::new(range.last(), next.first().checked_sub(1)?.max(range.last()))
    } else {
        let at = valid.iter().rposition(|v| v.first() <= candidate.last())?;
        let range = valid.get(at)?;
        if candidate.last() > range.last() {
            return IovaRange::new(range.last().checked_add(1)?, candidate.last());
        }
        let below = valid.get(at.checked_sub(1)?)?;
        IovaRange::new(below.last().checked_add(1)?.min(range.first()), range.first())
    }
}

fn align(value: u64, granule: u64, up: bool) -> Option<u64> {
    let mask = granule.wrapping_sub(1);
    let down = value & !mask;
    if up && down != value { down.checked_add(granule) } else { Some(down) }
}

/// `size` bytes, aligned, that end at `last` or before.
fn ending_at(last: u64, size: u64, granule: u64) -> Option<IovaRange> {
    let first = last.checked_sub(size.wrapping_sub(1))?;
    IovaRange::sized(align(first, granule, false)?, size)
}
