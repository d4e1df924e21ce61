//! Free address space between mappings.

use super::MappingTable;
use crate::range::IovaRange;

impl<V: Copy> MappingTable<V> {
    /// The lowest multiple of `align` from which `size` free bytes lie inside `within`.
    ///
    /// `None` when there is no such place, or when `size` or `align` is 0. `align` need not be a
    /// power of two. One pass over the mappings from the bottom of `within` up to the answer.
    #[must_use]
    pub fn lowest_gap(&self, size: u64, align: u64, within: IovaRange) -> Option<u64> {
        let up = |iova: u64| iova.checked_next_multiple_of(align);
        let mut fit = IovaRange::sized(up(within.first())?, size)?;
        for (taken, _) in self.up_from(fit.first()) {
            if fit.last() < taken.first() {
                break;
            }
            fit = IovaRange::sized(up(taken.last().checked_add(1)?)?, size)?;
            if fit.last() > within.last() {
                return None;
            }
        }
        within.covers(fit).then_some(fit.first())
    }

    /// The highest multiple of `align` from which `size` free bytes lie inside `within`.
    ///
    /// `None` when there is no such place, or when `size` or `align` is 0. `align` need not be a
    /// power of two. One pass over the mappings from the top of `within` down to the answer.
    #[must_use]
    pub fn highest_gap(&self, size: u64, align: u64, within: IovaRange) -> Option<u64> {
        let more = size.checked_sub(1)?;
        let below = |last: u64| {
            let first = last.checked_sub(more)?;
            IovaRange::sized(first.checked_sub(first.checked_rem(align)?)?, size)
        };
        let mut fit = below(within.last())?;
        for (taken, _) in self.down_from(within.last()) {
            // `taken` may begin above the place tried, which was moved down to be aligned.
            if taken.last() < fit.first() {
                break;
            }
            if taken.first() <= fit.last() {
                fit = below(taken.first().checked_sub(1)?)?;
            }
            if fit.first() < within.first() {
                return None;
            }
        }
        within.covers(fit).then_some(fit.first())
    }
}
