//! Which pages may have been written.

use alloc::vec;
use alloc::vec::Vec;

use super::{AMD, ARM, Fixture, INTEL, PAGE, PAGES_OF_64K, r};
use crate::space::BitmapSink;
use crate::{DirtyRefusal, IovaRange};

/// Words of client memory; reading and writing beyond them fails.
struct Words(Vec<u64>);

impl BitmapSink for Words {
    fn read(&mut self, index: u64) -> Option<u64> {
        self.0.get(index as usize).copied()
    }

    fn write(&mut self, index: u64, words: &[u64]) -> Option<()> {
        let at = index as usize;
        self.0.get_mut(at..at + words.len())?.copy_from_slice(words);
        Some(())
    }
}

fn query(f: &mut Fixture, range: IovaRange, words: Vec<u64>) -> Result<Vec<u64>, DirtyRefusal> {
    let mut words = Words(words);
    f.space.dirty_query(range, &mut words).map(|()| words.0)
}

#[test]
fn everything_a_device_can_reach_is_dirty_each_time() {
    // #101, #104 to #107
    let mut f = Fixture::with(&[INTEL]);
    f.map(0, 64 * PAGE).unwrap();
    let all = r(0, 0x3_ffff);
    assert_eq!(query(&mut f, all, vec![0]), Err(DirtyRefusal::Off));
    f.on(|s, env| s.dirty_start(env)).unwrap();
    f.on(|s, env| s.dirty_start(env)).unwrap();
    for _ in 0..2 {
        assert_eq!(query(&mut f, all, vec![0]), Ok(vec![u64::MAX]));
    }
    let half = r(0, 0x1_ffff);
    let cuts = DirtyRefusal::Cuts { wanted: half, existing: all };
    assert_eq!(query(&mut f, half, vec![0]), Err(cuts));
    assert_eq!(query(&mut f, r(0x10_0000, 0x13_ffff), vec![5]), Ok(vec![5]));
}

#[test]
fn mappings_share_words_of_a_bitmap() {
    let mut f = Fixture::with(&[INTEL]);
    f.space.dirty_bits_stray = false;
    f.map(0, 2 * PAGE).unwrap();
    f.map(0x4000, PAGE).unwrap();
    f.on(|s, env| s.dirty_start(env)).unwrap();
    assert_eq!(query(&mut f, r(0, 0xffff), vec![0]), Ok(vec![0b1_0011]));
    // The first mapping's word is written whole, the second's only from its first page on.
    assert_eq!(query(&mut f, r(0, 0xffff), vec![0b1111_1111]), Ok(vec![0b1_0011]));
}

#[test]
fn stray_bits_come_back_with_the_next_query() {
    // The kernel shifts a bitmap in place to the place of its mapping in the client's.
    let mut f = Fixture::with(&[INTEL]);
    f.map(0x1000, PAGE).unwrap();
    f.on(|s, env| s.dirty_start(env)).unwrap();
    assert_eq!(query(&mut f, r(0, 0x1fff), vec![0]), Ok(vec![0b10]));
    assert_eq!(query(&mut f, r(0x1000, 0x1fff), vec![0]), Ok(vec![0b11]));
}

#[test]
fn another_page_size_begins_with_clean_bitmaps() {
    let mut f = Fixture::with(&[AMD, PAGES_OF_64K]);
    f.map(0x1_0000, 0x1_0000).unwrap();
    f.on(|s, env| s.dirty_start(env)).unwrap();
    assert_eq!(query(&mut f, r(0, 0x1_ffff), vec![0]), Ok(vec![0b10]));
    f.detach(PAGES_OF_64K);
    assert_eq!(query(&mut f, r(0x1_0000, 0x1_ffff), vec![0]), Ok(vec![0xffff]));
}

#[test]
fn a_bitmap_out_of_reach_stops_an_unmap_half_way() {
    // Section 12, 17.
    let mut f = Fixture::with(&[ARM]);
    f.map(0, PAGE).unwrap();
    f.map(64 * PAGE, PAGE).unwrap();
    f.on(|s, env| s.dirty_start(env)).unwrap();
    let mut words = Words(vec![0]);
    let range = r(0, 0x4_0fff);
    let stopped = f.on(|s, env| s.unmap_dirty(range, &mut words, env));
    assert_eq!((stopped, words.0), (Err(DirtyRefusal::Bitmap), vec![1]));
    assert_eq!((f.ranges(), f.held()), (vec![r(0x4_0000, 0x4_0fff)], (1, 0, 1)));
    let mut words = Words(vec![0, 0]);
    assert_eq!(f.on(|s, env| s.unmap_dirty(range, &mut words, env)), Ok(PAGE));
    assert_eq!((words.0, f.held()), (vec![0, 1], (0, 0, 0)));
}
