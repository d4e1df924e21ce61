//! Places for what has none: free ranges, and the one nearest to where something was wanted.

use iommu::IovaRange;

use crate::layout::{Item, Kind, Layout, Wish, Wishes};
use crate::view::View;

const M: u64 = 1 << 20;

/// Where the MSI window of Linux on Arm is: a habit worth keeping where it is free.
const USUAL_WINDOW: u64 = 0x800_0000;

/// What `taken` leaves of `ranges`; ascending.
pub(crate) fn free(ranges: &[IovaRange], taken: &mut [IovaRange]) -> Vec<IovaRange> {
    taken.sort_unstable();
    let mut left = Vec::new();
    let mut taken = taken.iter().peekable();
    for range in ranges {
        let mut rest = Some(*range);
        while let Some(part) = rest {
            // What ends below this part concerns no later one either: both lists ascend.
            while taken.peek().is_some_and(|t| t.last() < part.first()) {
                taken.next();
            }
            match taken.peek() {
                Some(hole) if hole.overlaps(part) => {
                    let (below, above) = part.without(**hole);
                    left.extend(below);
                    rest = above;
                }
                _ => {
                    left.push(part);
                    rest = None;
                }
            }
        }
    }
    left
}

/// The first address of `size` bytes, aligned, in a free range, nearest to `near`; below wins a tie.
pub(crate) fn nearest(free: &[IovaRange], size: u64, align: u64, near: u64) -> Option<u64> {
    let up = |value: u64| value.checked_next_multiple_of(align);
    let down = |value: u64| value / align * align;
    let mut best: Option<u64> = None;
    for range in free {
        let Some(lowest) = up(range.first()) else { continue };
        let Some(highest) = range.last().checked_sub(size - 1).map(down) else { continue };
        if lowest > highest {
            continue;
        }
        let near_down = down(near).clamp(lowest, highest);
        let near_up = up(near).unwrap_or(highest).clamp(lowest, highest);
        for at in [near_down, near_up] {
            if best.is_none_or(|b| at.abs_diff(near) < b.abs_diff(near)) {
                best = Some(at);
            }
        }
    }
    best
}

/// The lowest such address.
pub(crate) fn lowest(free: &[IovaRange], size: u64, align: u64) -> Option<u64> {
    nearest(free, size, align, 0)
}

/// How a BAR of that size and place is aligned: to its size, as PCI has it, unless it was not.
pub(crate) fn bar_align(size: u64, first: Option<u64>, granule: u64) -> u64 {
    let natural = size.is_power_of_two() && first.is_none_or(|first| first % size == 0);
    if natural { size.max(granule) } else { granule }
}

/// Gives everything a place. What has an address keeps it, whatever the host says; the rest goes
/// where the host allows it if that can be.
///
/// # Errors
/// A sentence: an item ends beyond 2^64, or fits nowhere at all.
pub fn place(wishes: &Wishes, view: &View) -> Result<Layout, String> {
    let mut layout = Layout {
        name: wishes.name.clone(),
        about: wishes.about.clone(),
        sources: wishes.sources.clone(),
        mmio: wishes.mmio.clone(),
        ..Layout::default()
    };
    let lists =
        [(Kind::Window, &wishes.windows), (Kind::Ram, &wishes.ram), (Kind::Bar, &wishes.bars)];
    // What is said comes before what is chosen; order within a list stays.
    let mut taken = Vec::new();
    for (kind, wish) in lists.iter().flat_map(|(kind, list)| list.iter().map(move |w| (*kind, w))) {
        if let Some(first) = wish.first {
            taken.push(sized(kind, wish, first)?);
        }
    }
    for (kind, list) in [lists[1], lists[2], lists[0]] {
        for wish in list {
            let range = match wish.first {
                Some(first) => sized(kind, wish, first)?,
                None => {
                    let first =
                        choose(kind, wish, view, &layout.mmio, &mut taken).ok_or_else(|| {
                            format!("{} {}: no place for it is free", kind.word(), wish.name)
                        })?;
                    let range = sized(kind, wish, first)?;
                    taken.push(range);
                    range
                }
            };
            layout.list_mut(kind).push(Item { name: wish.name.clone(), range });
        }
    }
    Ok(layout)
}

fn sized(kind: Kind, wish: &Wish, first: u64) -> Result<IovaRange, String> {
    IovaRange::sized(first, wish.size).ok_or_else(|| {
        format!(
            "{} {}: expected it to end below 2^64; it has {:#x} bytes from {first:#x}",
            kind.word(),
            wish.name,
            wish.size
        )
    })
}

fn choose(
    kind: Kind,
    wish: &Wish,
    view: &View,
    mmio: &[Item],
    taken: &mut [IovaRange],
) -> Option<u64> {
    let size = wish.size;
    let all = [IovaRange::ALL];
    let windows = || {
        let mut list: Vec<IovaRange> = mmio.iter().map(|i| i.range).collect();
        list.sort_unstable();
        list
    };
    match kind {
        Kind::Ram => {
            let align = if size >= 2 * M { 2 * M } else { view.granule };
            let mut out = taken.to_vec();
            out.extend(windows());
            lowest(&free(&view.valid, &mut out), size, align)
                .or_else(|| lowest(&free(&all, &mut out), size, view.granule))
        }
        Kind::Bar => {
            let align = bar_align(size, None, view.granule);
            // A VMM with a place for BARs uses it, and does not ask the host.
            let own = lowest(&free(&windows(), taken), size, align);
            let above = taken.iter().map(|t| t.last()).max().unwrap_or(0).max(1 << 32);
            let legal = free(&view.valid, taken);
            own.or_else(|| nearest(&legal, size, align, above))
                .or_else(|| nearest(&free(&all, taken), size, align, above))
        }
        Kind::Window => {
            let mut out = taken.to_vec();
            out.extend(windows());
            nearest(&free(&view.valid, &mut out), size, view.granule, USUAL_WINDOW)
                .or_else(|| nearest(&free(&all, &mut out), size, view.granule, USUAL_WINDOW))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn r(first: u64, last: u64) -> IovaRange {
        IovaRange::new(first, last).unwrap()
    }

    #[test]
    fn free_ranges_are_what_is_left() {
        let all = [r(0, 0xff), r(0x200, 0x2ff), r(0x1000, u64::MAX)];
        let mut taken = [r(0x280, 0x10ff), r(0x10, 0x1f), r(0x18, 0x27), r(u64::MAX, u64::MAX)];
        assert_eq!(
            free(&all, &mut taken),
            [r(0, 0xf), r(0x28, 0xff), r(0x200, 0x27f), r(0x1100, u64::MAX - 1)]
        );
        assert_eq!(free(&all, &mut [IovaRange::ALL]), []);
        assert_eq!(free(&all, &mut []), all);
    }

    #[test]
    fn the_nearest_place() {
        let space = [r(0x1000, 0x4fff), r(0x8000, 0xffff)];
        assert_eq!(nearest(&space, 0x1000, 0x1000, 0x6000), Some(0x4000));
        assert_eq!(nearest(&space, 0x1000, 0x1000, 0x7000), Some(0x8000));
        assert_eq!(nearest(&space, 0x1000, 0x1000, 0x9800), Some(0x9000));
        assert_eq!(nearest(&space, 0x8000, 0x8000, 0), Some(0x8000));
        assert_eq!(nearest(&space, 0x8001, 0x1000, 0), None);
        assert_eq!(lowest(&[IovaRange::ALL], u64::MAX, 0x1000), Some(0));
        assert_eq!(nearest(&[IovaRange::ALL], 0x1000, 0x1000, u64::MAX), Some(u64::MAX - 0xfff));
    }
}
