//! Removing mappings, wholly and by halves.

use alloc::vec;

use super::{Fixture, INTEL, PAGE, RW, r};
use crate::refusal::Field;
use crate::{Event, IovaRange, MapRefusal, Translation};

#[test]
fn mappings_that_touch_stay_two() {
    // #44, #43
    let mut f = Fixture::with(&[INTEL]);
    f.map(0x1000, PAGE).unwrap();
    f.map(0x2000, PAGE).unwrap();
    assert_eq!(f.ranges(), [r(0x1000, 0x1fff), r(0x2000, 0x2fff)]);
    assert_eq!(f.space.cut_by(r(0x1000, 0x1fff)), None);
    assert!(f.map(0, 2 * PAGE).is_err());
}

#[test]
fn what_cuts_and_what_does_not() {
    // #68 to #70, #74
    let mut f = Fixture::with(&[INTEL]);
    f.map(0x4000, 4 * PAGE).unwrap();
    let mapping = Some(r(0x4000, 0x7fff));
    assert_eq!(f.space.cut_by(r(0x4000, 0x5fff)), mapping);
    assert_eq!(f.space.cut_by(r(0x6000, 0x7fff)), mapping);
    assert_eq!(f.space.cut_by(r(0x5000, 0x6fff)), mapping);
    assert_eq!(f.space.cut_by(r(0x3000, 0x8fff)), None);
    assert_eq!(f.space.cut_by(r(0x8000, 0x8fff)), None);
}

#[test]
fn what_starts_in_the_range_goes_and_its_bytes_are_counted() {
    let mut f = Fixture::with(&[INTEL]);
    for at in [0x1000, 0x4000, 0x9000] {
        f.map(at, 2 * PAGE).unwrap();
    }
    // The last one goes as a whole: version 1 of the container does that (#71).
    assert_eq!(f.on(|s, env| s.unmap(r(0x4000, 0x9fff), env)), 4 * PAGE);
    assert_eq!(f.ranges(), [r(0x1000, 0x2fff)]);
    assert_eq!(f.on(|s, env| s.unmap(r(0x2000, 0xffff), env)), 0);
    assert_eq!((f.held(), f.on(|s, env| s.unmap(IovaRange::ALL, env))), ((2, 0, 1), 2 * PAGE));
    assert_eq!(f.held(), (0, 0, 0));
}

#[test]
fn exact_is_exact() {
    let mut f = Fixture::with(&[INTEL]);
    f.map(0x1000, 2 * PAGE).unwrap();
    for range in [r(0x1000, 0x1fff), r(0x1000, 0x3fff), r(0x2000, 0x2fff), r(0, 0x2fff)] {
        assert!(!f.on(|s, env| s.unmap_exact(range, env)), "{range}");
    }
    assert_eq!((f.ranges(), f.held()), (vec![r(0x1000, 0x2fff)], (2, 0, 1)));
    assert!(f.on(|s, env| s.unmap_exact(r(0x1000, 0x2fff), env)));
    assert_eq!(f.held(), (0, 0, 0));
}

#[test]
fn a_cut_leaves_memory_where_it_is() {
    let mut f = Fixture::with(&[INTEL]);
    f.map(0x1000, 4 * PAGE).unwrap();
    let before = f.space.translate(INTEL, 0x3008, RW).unwrap();
    f.on(|s, env| s.cut(0x2000, env)).unwrap();
    f.on(|s, env| s.cut(0x3000, env)).unwrap();
    assert_eq!(f.ranges(), [r(0x1000, 0x1fff), r(0x2000, 0x2fff), r(0x3000, 0x4fff)]);
    let cut = Event::Cut { range: r(0x2000, 0x4fff), at: 0x3000 };
    assert_eq!(f.events.0.last(), Some(&cut));
    assert_eq!(f.space.translate(INTEL, 0x3008, RW).unwrap(), before);
    let Ok(Translation::Memory { bytes, .. }) = f.space.translate(INTEL, 0x2008, RW) else {
        panic!()
    };
    assert_eq!(bytes, 0xff8);
    // The pin and its charge go with the last part.
    for at in [0x2000, 0x1000] {
        f.on(|s, env| s.unmap(r(at, at + 0xfff), env));
        assert_eq!(f.held(), (4, 0, 1));
    }
    f.on(|s, env| s.unmap(r(0x3000, 0x4fff), env));
    assert_eq!(f.held(), (0, 0, 0));
}

#[test]
fn a_cut_needs_an_entry_and_a_page_boundary() {
    let mut f = Fixture::limited(&[INTEL], 1);
    f.map(0x1000, 2 * PAGE).unwrap();
    let odd = MapRefusal::Misaligned { field: Field::Iova, value: 0x1800, granule: PAGE };
    assert_eq!(f.on(|s, env| s.cut(0x1800, env)), Err(odd));
    let full = MapRefusal::NoEntriesLeft { limit: 1 };
    assert_eq!(f.on(|s, env| s.cut(0x2000, env)), Err(full));
    // Where a mapping starts, or none is, there is nothing to cut.
    for at in [0x1000, 0x3000, 0] {
        f.on(|s, env| s.cut(at, env)).unwrap();
    }
    assert_eq!(f.ranges(), [r(0x1000, 0x2fff)]);
}
