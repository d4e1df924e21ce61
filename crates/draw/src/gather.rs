//! Too many ranges become fewer: neighbours with small gaps between them are drawn as one.

use iommu::IovaRange;

use crate::size::bytes;

/// Neighbours taken together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// From the first byte of the first to the last byte of the last.
    pub range: IovaRange,
    /// Which ones, as indexes into what was gathered.
    pub members: std::ops::Range<usize>,
    /// Bytes of all of them; those that lie in several count once.
    pub bytes: u128,
}

/// Gathers `ranges`, sorted by their first byte, into at most `most` clusters.
#[must_use]
pub fn gather(ranges: &[IovaRange], most: usize) -> Vec<Cluster> {
    let most = most.max(1);
    if ranges.len() <= most {
        let single = |(at, range): (usize, &IovaRange)| Cluster {
            range: *range,
            members: at..at + 1,
            bytes: bytes(*range),
        };
        return ranges.iter().enumerate().map(single).collect();
    }
    // The gap before each range but the first; of equal ones the later count as smaller.
    let mut reached = 0;
    let mut gaps: Vec<(u64, usize)> = Vec::with_capacity(ranges.len());
    for (at, range) in ranges.iter().enumerate() {
        if at > 0 {
            gaps.push((range.first().saturating_sub(reached), usize::MAX - at));
        }
        reached = reached.max(range.last());
    }
    // The largest gaps part clusters; not those that are hardly larger than one that does not, or
    // some of many equal neighbours would stand alone.
    let keep = (most - 1).min(gaps.len());
    let at = gaps.len() - keep;
    if keep > 0 && at > 0 {
        gaps.select_nth_unstable(at);
    }
    let dropped = gaps.iter().take(at).map(|(gap, _)| *gap).max();
    gaps.drain(..at);
    gaps.retain(|(gap, _)| dropped.is_none_or(|d| *gap / 2 >= d));
    let mut starts: Vec<usize> = gaps.into_iter().map(|(_, at)| usize::MAX - at).collect();
    starts.push(0);
    starts.sort_unstable();
    let ends = starts.iter().skip(1).copied().chain([ranges.len()]);
    starts.iter().zip(ends).filter_map(|(from, to)| cluster(ranges, *from..to)).collect()
}

fn cluster(ranges: &[IovaRange], members: std::ops::Range<usize>) -> Option<Cluster> {
    let (mut covered, mut reached) = (0, None::<u64>);
    for range in &ranges[members.clone()] {
        let new = match reached {
            Some(last) if range.last() <= last => continue,
            Some(last) => IovaRange::new(range.first().max(last.saturating_add(1)), range.last())?,
            None => *range,
        };
        covered += bytes(new);
        reached = Some(range.last());
    }
    let range = IovaRange::new(ranges.get(members.start)?.first(), reached?)?;
    Some(Cluster { range, members, bytes: covered })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_gaps_stay() {
        let r = |page: u64| IovaRange::sized(page << 12, 0x1000).unwrap();
        let ranges: Vec<_> = [0, 1, 2, 100, 101, 5000].map(r).to_vec();
        let found = gather(&ranges, 3);
        let members: Vec<_> = found.iter().map(|c| c.members.clone()).collect();
        assert_eq!(members, [0..3, 3..5, 5..6]);
        assert_eq!((found[0].bytes, found[1].range.last()), (0x3000, (102 << 12) - 1));
        assert_eq!(gather(&ranges, 1).len(), 1);
        // Neighbours that are all alike stay together.
        assert_eq!(gather(&ranges, 4).len(), 3);
        assert_eq!(gather(&ranges, 6).len(), 6);
        assert_eq!(gather(&[], 6), []);
    }

    #[test]
    fn what_overlaps_counts_once() {
        let r = |first, last| IovaRange::new(first, last).unwrap();
        let found = gather(&[r(0, 99), r(10, 19), r(50, 149), r(1000, 1000)], 2);
        assert_eq!((found[0].bytes, found[0].range, found.len()), (150, r(0, 149), 2));
    }
}
