//! The table against a vector searched from end to end.

use alloc::vec::Vec;

use proptest::prelude::*;

use super::{MappingTable, Overlap};
use crate::range::IovaRange;

fn r(first: u64, last: u64) -> IovaRange {
    IovaRange::new(first, last).unwrap()
}

/// What the table should be: ranges with values in address order, searched from end to end.
#[derive(Clone, Default)]
struct Model(Vec<(IovaRange, u32)>);

impl Model {
    fn insert(&mut self, range: IovaRange, value: u32) -> Result<(), Overlap> {
        if let Some((existing, _)) = self.0.iter().find(|(e, _)| e.overlaps(range)) {
            return Err(Overlap { existing: *existing });
        }
        let at = self.0.iter().take_while(|(e, _)| e.first() < range.first()).count();
        self.0.insert(at, (range, value));
        Ok(())
    }

    fn remove(&mut self, first: u64) -> Option<(IovaRange, u32)> {
        let at = self.0.iter().position(|(e, _)| e.first() == first)?;
        Some(self.0.remove(at))
    }

    /// The free ranges inside `within`, ascending.
    fn free(&self, within: IovaRange) -> Vec<IovaRange> {
        let (mut free, mut rest) = (Vec::new(), Some(within));
        for (taken, _) in &self.0 {
            let Some(now) = rest.filter(|now| now.overlaps(*taken)) else { continue };
            let (below, above) = now.without(*taken);
            free.extend(below);
            rest = above;
        }
        free.extend(rest);
        free
    }

    fn lowest_gap(&self, size: u64, align: u64, within: IovaRange) -> Option<u64> {
        self.free(within).into_iter().find_map(|free| {
            let at = free.first().checked_next_multiple_of(align)?;
            free.covers(IovaRange::sized(at, size)?).then_some(at)
        })
    }

    fn highest_gap(&self, size: u64, align: u64, within: IovaRange) -> Option<u64> {
        self.free(within).into_iter().rev().find_map(|free| {
            let at = free.last().checked_sub(size.checked_sub(1)?)?;
            let at = at - at.checked_rem(align)?;
            (at >= free.first()).then_some(at)
        })
    }
}

fn compare(table: &MappingTable<u32>, model: &Model, at: u64, window: IovaRange) {
    let owned = |found: Option<(IovaRange, &u32)>| found.map(|(range, value)| (range, *value));
    let find = |f: &dyn Fn(IovaRange) -> bool| model.0.iter().find(|(e, _)| f(*e)).copied();
    assert_eq!(owned(table.get(at)), find(&|e| e.contains(at)));
    assert_eq!(owned(table.next_from(at)), find(&|e| e.last() >= at));
    assert_eq!(owned(table.first_overlap(window)), find(&|e| e.overlaps(window)));
    let cut = |e: IovaRange| e.overlaps(window) && !window.covers(e);
    assert_eq!(table.cut_by(window), find(&cut).map(|(e, _)| e));
    let above = model.0.iter().filter(|(e, _)| e.last() >= at);
    assert!(table.up_from(at).take(70).eq(above.map(|(e, v)| (*e, v)).take(70)));
    let below = model.0.iter().rev().filter(|(e, _)| e.first() <= at);
    assert!(table.down_from(at).take(70).eq(below.map(|(e, v)| (*e, v)).take(70)));
    let inside = model.0.iter().filter(|(e, _)| e.overlaps(window));
    assert!(table.overlapping(window).eq(inside.map(|(e, v)| (*e, v))));
}

fn compare_gaps(
    table: &MappingTable<u32>,
    model: &Model,
    size: u64,
    align: u64,
    window: IovaRange,
) {
    let (low, high) =
        (table.lowest_gap(size, align, window), table.highest_gap(size, align, window));
    assert_eq!(low, model.lowest_gap(size, align, window), "{size:#x} {align:#x} {window}");
    assert_eq!(high, model.highest_gap(size, align, window), "{size:#x} {align:#x} {window}");
}

/// A 64-bit generator (xorshift*), so that long runs need no list of steps.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// An address in one of three crowded places: the bottom, the middle, the top of the space.
    fn iova(&mut self, spread: u64) -> u64 {
        let near = self.below(spread);
        [near, (1 << 63) + near, u64::MAX - near][self.below(3) as usize]
    }

    fn range(&mut self, spread: u64) -> IovaRange {
        let first = self.iova(spread);
        r(first, first.saturating_add(self.below(40)))
    }
}

/// Grows a table to about `peak` mappings, shrinks it, and so on, comparing as it goes.
fn churn(seed: u64, peak: usize, steps: usize) {
    let mut rng = Rng(seed);
    let (mut table, mut model) = (MappingTable::new(), Model::default());
    let (spread, mut growing) = (peak as u64 * 20, true);
    for step in 0..steps {
        growing = match model.0.len() {
            0 => true,
            n if n >= peak => false,
            _ => growing,
        };
        // One step in eight goes against the trend.
        if growing != (rng.below(8) == 0) {
            let (range, value) = (rng.range(spread), step as u32);
            assert_eq!(table.insert(range, value), model.insert(range, value));
        } else {
            let exact = (rng.below(16) > 0).then(|| rng.below(model.0.len().max(1) as u64));
            let at = exact.and_then(|i| model.0.get(i as usize)).map(|(e, _)| e.first());
            let first = at.unwrap_or_else(|| rng.iova(spread));
            let more = rng.below(60);
            let within = r(first - more.min(first), first.saturating_add(rng.below(30)));
            if rng.below(8) == 0 {
                let range = model.0.iter().map(|(e, _)| *e).find(|e| e.first() == first);
                let longer = range.and_then(|e| IovaRange::new(first, e.last().checked_add(1)?));
                assert_eq!(longer.and_then(|longer| table.remove_exact(longer)), None);
                let expected = model.remove(first).map(|(_, value)| value);
                assert_eq!(table.remove_exact(range.unwrap_or(r(first, first))), expected);
            } else if rng.below(4) == 0 {
                let found = model.0.iter().map(|(e, _)| e.first()).find(|f| within.contains(*f));
                let expected = found.and_then(|first| model.remove(first));
                assert_eq!(table.remove_first_in(within), expected);
            } else {
                assert_eq!(table.remove(first), model.remove(first));
            }
        }
        assert_eq!(table.len(), model.0.len());
        compare(&table, &model, rng.iova(spread), rng.range(spread));
        if step % 16 == 0 {
            table.check();
            let window = if rng.below(2) == 0 { IovaRange::ALL } else { rng.range(spread) };
            compare_gaps(&table, &model, 1 + rng.below(50), 1 + rng.below(9), window);
        }
    }
    while let Some((range, _)) = model.0.pop() {
        assert!(table.remove(range.first()).is_some());
    }
    table.check();
    assert_eq!((table.leaves.len(), table.inners.len()), (1, 0));
}

#[test]
fn long_churn_agrees_with_the_model() {
    churn(0x9e37_79b9_7f4a_7c15, 300, 6000);
    churn(0xd1b5_4a32_d192_ed03, 4000, 12000);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn short_churn_agrees_with_the_model(seed in 1u64.., peak in 1usize..200) {
        churn(seed, peak, 700);
    }

    #[test]
    fn gaps_agree_with_the_model(
        taken in prop::collection::vec((0u64..400, 0u64..12, any::<bool>()), 0..40),
        sizes in prop::collection::vec((0u64..60, 0u64..20), 8),
        (first, more) in (0u64..420, 0u64..420),
    ) {
        let (mut table, mut model) = (MappingTable::new(), Model::default());
        let at = |offset, top| if top { u64::MAX - offset } else { offset };
        for (offset, more, top) in taken {
            let first = at(offset, top);
            let range = r(first, first.saturating_add(more));
            prop_assert_eq!(table.insert(range, 0), model.insert(range, 0));
        }
        for (size, align) in sizes {
            let windows = [
                IovaRange::ALL,
                r(first, first + more),
                r(u64::MAX - first - more, u64::MAX - first),
            ];
            for window in windows {
                if align == 0 {
                    prop_assert_eq!(table.lowest_gap(size, align, window), None);
                    prop_assert_eq!(table.highest_gap(size, align, window), None);
                } else {
                    compare_gaps(&table, &model, size, align, window);
                }
            }
        }
    }
}

#[test]
fn the_whole_space_is_one_mapping() {
    let mut table = MappingTable::new();
    table.insert(IovaRange::ALL, 7).unwrap();
    assert_eq!(table.get(u64::MAX), Some((IovaRange::ALL, &7)));
    assert_eq!(table.insert(r(5, 5), 8), Err(Overlap { existing: IovaRange::ALL }));
    assert_eq!(table.lowest_gap(1, 1, IovaRange::ALL), None);
    assert_eq!(table.highest_gap(1, 1, IovaRange::ALL), None);
    assert_eq!(table.remove(1), None, "only the exact first byte removes");
    assert_eq!(table.remove(0), Some((IovaRange::ALL, 7)));
    assert!(table.is_empty());
}

#[test]
fn the_last_byte_of_the_space_maps_alone() {
    let mut table = MappingTable::new();
    table.insert(r(u64::MAX, u64::MAX), 1).unwrap();
    table.insert(r(0, 0), 2).unwrap();
    assert_eq!(table.get(u64::MAX), Some((r(u64::MAX, u64::MAX), &1)));
    assert_eq!(table.get(u64::MAX - 1), None);
    assert_eq!(table.highest_gap(1, 1, IovaRange::ALL), Some(u64::MAX - 1));
    assert_eq!(table.lowest_gap(1, 1, IovaRange::ALL), Some(1));
    *table.get_mut(0).unwrap().1 = 3;
    assert!(table.iter().map(|(_, v)| *v).eq([3, 1]));
    assert_eq!(
        alloc::format!("{table:?}"),
        "{0x0..=0x0: 3, 0xffffffffffffffff..=0xffffffffffffffff: 1}"
    );
}

#[test]
fn an_overlap_names_the_lowest_mapping() {
    let mut table = MappingTable::new();
    for first in (0..6400).step_by(64) {
        table.insert(r(first, first + 9), ()).unwrap();
    }
    assert_eq!(table.insert(r(0x45, 6400), ()), Err(Overlap { existing: r(0x40, 0x49) }));
    assert_eq!(table.insert(r(0x4a, 6400), ()), Err(Overlap { existing: r(0x80, 0x89) }));
    assert_eq!(table.len(), 100);
}

/// A mapping may begin below the bound of the next leaf and reach beyond it.
#[test]
fn a_mapping_reaches_beyond_the_bound_of_its_leaf() {
    let mut table = MappingTable::new();
    (0..2000u64).for_each(|i| table.insert(r(i * 100, i * 100 + 9), i).unwrap());
    // Each free stretch of three mappings somewhere spans a bound.
    for i in (2..1990).step_by(8) {
        (i..i + 3).for_each(|i| assert!(table.remove(i * 100).is_some()));
        table.insert(r(i * 100 - 50, i * 100 + 250), i).unwrap();
        table.check();
    }
    for i in (2..1990).step_by(8) {
        for at in (i * 100 - 50..=i * 100 + 250).step_by(10) {
            assert_eq!(table.get(at).map(|(_, v)| *v), Some(i));
            assert_eq!(table.next_from(at).map(|(_, v)| *v), Some(i));
            assert!(table.insert(r(at, at), 0).is_err());
        }
    }
}

#[test]
fn memory_follows_the_number_of_mappings() {
    const N: u64 = 12_000;
    // As large as a container's.
    let value = [0u64; 4];
    let mut rng = Rng(7);
    let mut shuffled = |mut order: Vec<u64>| {
        (1..order.len()).rev().for_each(|i| order.swap(i, rng.below(i as u64 + 1) as usize));
        order
    };
    let up: Vec<_> = (0..N).collect();
    let down = up.iter().rev().copied().collect();
    let every_other = (0..N).step_by(2).chain((1..N).step_by(2)).collect();
    let orders = [up.clone(), down, shuffled(up.clone()), every_other, shuffled(up)];
    for (grow, shrink) in [(0, 0), (0, 2), (1, 2), (1, 3), (2, 0), (2, 3), (2, 4), (3, 4)] {
        let mut table = MappingTable::new();
        let first = |order: usize, i: u64| orders[order][i as usize] << 20;
        let page = |first| r(first, first + 0xfff);
        (0..N).for_each(|i| table.insert(page(first(grow, i)), value).unwrap());
        for i in 0..N - 1 {
            if i % 500 == 0 {
                let (bytes, left) = (table.bytes(), (N - i) as usize);
                // A few kilobytes are there for the first mapping.
                assert!(bytes <= 92 * left + 8192, "{} B at {left}", bytes / left);
            }
            assert!(table.remove(first(shrink, i)).is_some());
        }
        table.check();
        assert!(table.bytes() <= 8192, "{} bytes for one mapping", table.bytes());
    }
}
