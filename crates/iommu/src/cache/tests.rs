//! Hints against the table, the memory they take, readers side by side.

use super::*;

fn r(first: u64, size: u64) -> IovaRange {
    IovaRange::sized(first, size).unwrap()
}

/// Random bits: the state of a linear congruential generator, turned over.
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
    state.swap_bytes() ^ *state
}

#[test]
fn lookup_is_get_while_the_table_changes() {
    let (mut table, mut cache) = (MappingTable::new(), TranslationCache::default());
    let mut state = 1;
    for step in 0..20_000u64 {
        let first = (next(&mut state) % 600) << 20;
        let size = [0x1000, 0x3000, 0x20_0000, 0x4000_0000][next(&mut state) as usize % 4];
        if next(&mut state).is_multiple_of(2) || step % 1000 < 300 {
            let _ = table.insert(r(first, size), step);
        } else {
            table.remove(first);
        }
        if step % 100 == 0 {
            cache.fit(table.len());
        }
        let far = u64::MAX - next(&mut state) % 0x4000;
        for at in [first, first + 0x1fff, first + 0x12_3456, far] {
            assert_eq!(table.lookup(at, &cache), table.get(at));
            assert_eq!(table.lookup(at, &cache), table.get(at));
        }
    }
}

#[test]
fn the_second_time_a_hint_answers() {
    let (mut table, cache) = (MappingTable::new(), TranslationCache::default());
    table.insert(r(0x1000, 0x2000), 1).unwrap();
    table.insert(r(0x4000_0000, 0x4000_0000), 2).unwrap();
    for (at, shift, same) in [(0x2abc, 12, 0x2000), (0x5678_9abc, 30, 0x4000_0000)] {
        let hinted = |at| cache.current()?.probe(at, shift);
        assert_eq!(hinted(at), None);
        assert!(table.lookup(at, &cache).is_some());
        let (place, ..) = table.locate(at).unwrap();
        assert_eq!((hinted(at), hinted(same)), (Some(place), Some(place)));
    }
    table.remove(0x1000);
    assert_eq!(table.lookup(0x2abc, &cache), None, "a stale hint is no answer");
}

#[test]
fn a_page_of_a_superpage_gets_a_hint_where_there_is_room() {
    let (mut table, cache) = (MappingTable::new(), TranslationCache::default());
    table.insert(r(0, 1 << 40), 1).unwrap();
    let hinted = |at| cache.current()?.probe(at, SHIFTS[0]);
    assert!(table.lookup(0x1234_5678, &cache).is_some());
    assert_eq!(hinted(0x1234_5678), None, "the superpage's hint is enough");
    assert!(table.lookup(0x1234_5000, &cache).is_some());
    assert_eq!(hinted(0x1234_5678), Some((0, 0)), "but the page's is found first");
    (0..1u64 << 20).for_each(|page| assert!(table.lookup(page << 12, &cache).is_some()));
    assert!(cache.bytes() <= 2 * HINTS_AT_LEAST * size_of::<AtomicU64>(), "few are enough");
}

#[test]
fn a_hint_finds_a_mapping_that_others_have_moved() {
    let (mut table, cache) = (MappingTable::new(), TranslationCache::default());
    let page = |n: u64| r(n << 12, 0x1000);
    (10..20).for_each(|n| table.insert(page(n), n).unwrap());
    assert!((10..20).all(|n| table.lookup(n << 12, &cache).is_some()));
    table.insert(page(5), 5).unwrap();
    table.remove(12 << 12).unwrap();
    for n in 13..20 {
        let place = cache.current().and_then(|hints| hints.probe(n << 12, SHIFTS[0])).unwrap();
        assert_eq!(table.near(place, n << 12), Some((page(n), &n)));
        assert_eq!(table.near(place, 12 << 12), None);
    }
}

/// 1 TiB in pieces that need a hint for every 4 KiB page.
#[test]
fn touching_a_tebibyte_page_by_page_stays_within_the_limit() {
    const LAST: u64 = 1 << 40;
    let mut table = MappingTable::new();
    (0..1u64 << 16).for_each(|i| table.insert(r((i << 24) + 0x1000, 0xff_f000), ()).unwrap());
    for limit in [0, 8192, 3 << 20] {
        let mut cache = TranslationCache::with_limit(limit);
        let (mut at, mut peak) = (0, 0);
        while at < LAST {
            assert_eq!(table.lookup(at, &cache).is_some(), at & 0xff_f000 != 0);
            // Every 4 KiB page of some MiB, then far on.
            at += if at % 0x4000_0000 < 0x10_0000 { 0x1000 } else { 0x40_3000 };
            peak = peak.max(cache.bytes());
        }
        assert!(peak <= limit, "{peak} of {limit}");
        assert!(peak >= limit / 4 || limit < 8192, "{peak} of {limit} used");
        cache.fit(table.len());
        assert!(cache.bytes() <= peak);
        cache.fit(1);
        assert!(cache.bytes() <= 4096 * 64);
    }
}

#[test]
fn readers_share_a_cache() {
    extern crate std;
    let (mut table, cache) = (MappingTable::new(), TranslationCache::with_limit(1 << 20));
    (0..3000u64).for_each(|i| table.insert(r(i << 14, 0x3000), i).unwrap());
    std::thread::scope(|scope| {
        for seed in 1..5 {
            let (table, cache) = (&table, &cache);
            scope.spawn(move || {
                let mut state = seed;
                for _ in 0..20_000 {
                    let at = next(&mut state) % (3100 << 14);
                    assert_eq!(table.lookup(at, cache), table.get(at));
                }
            });
        }
    });
    assert!(cache.bytes() <= 1 << 20);
}
