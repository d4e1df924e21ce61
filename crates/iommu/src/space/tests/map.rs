//! What a map is refused for, in which order, and what would be legal instead.

use alloc::string::ToString;

use super::{AMD, ARM, Fixture, INTEL, MEMORY, PAGE, RW, r};
use crate::refusal::{Field, Nearest, Unusable};
use crate::space::MapRequest;
use crate::{
    DirtyRefusal, IovaRange, LockBudget, MapRefusal, MmId, OverLimit, PinError, PinFault, Prot,
};

fn request(range: IovaRange, vaddr: u64, prot: Prot) -> MapRequest {
    MapRequest { range, vaddr, prot, budget: LockBudget { mm: MmId(1), limit_pages: None } }
}

#[test]
fn a_refusal_says_where_it_would_be_legal() {
    let mut f = Fixture::with(&[ARM]);
    assert_eq!(
        f.map(0x800_0000, PAGE).unwrap_err().to_string(),
        "0x8000000..=0x80fffff is the MSI window of the SMMU (sw-msi); \
         nearest legal IOVA for 0x1000 bytes: 0x8100000 (or 0x7fff000 below)"
    );
    assert_eq!(
        f.map(1 << 48, PAGE).unwrap_err().to_string(),
        "the attached IOMMUs translate 0x0..=0xffffffffffff only; \
         nearest legal IOVA for 0x1000 bytes: 0xfffffffff000"
    );
    f.map(0x810_0000, 2 * PAGE).unwrap();
    assert_eq!(
        f.map(0x810_1000, 2 * PAGE).unwrap_err().to_string(),
        "0x8100000..=0x8101fff is already mapped; \
         nearest legal IOVA for 0x2000 bytes: 0x8102000 (or 0x7ffe000 below)"
    );
}

#[test]
fn nothing_is_near_when_nothing_is_left() {
    let mut f = Fixture::with(&[ARM]);
    f.map(0, 0x800_0000).unwrap();
    f.map(0x810_0000, (1 << 48) - 0x810_0000).unwrap();
    let Err(MapRefusal::NotUsable { nearest, .. }) = f.map(0x800_0000, PAGE) else { panic!() };
    assert_eq!(nearest, Nearest { size: PAGE, above: None, below: None });
    assert_eq!(nearest.to_string(), "; no legal IOVA for 0x1000 bytes is near");
}

#[test]
fn each_refusal_hides_the_later_ones() {
    let mut f = Fixture::limited(&[INTEL], 1);
    f.map(0x1000, PAGE).unwrap();
    f.memory.bad = Some(MEMORY);
    let map = |f: &mut Fixture, range, vaddr, prot| {
        f.on(|s, env| s.map(&request(range, vaddr, prot), env)).unwrap_err()
    };
    let (taken, msi) = (r(0x1000, 0x1fff), r(0xfee0_0000, 0xfee0_0fff));
    let top = u64::MAX - 0xfff;
    assert_eq!(map(&mut f, taken, 1, Prot::empty()), MapRefusal::NoAccess);
    let wraps = MapRefusal::VaddrWraps { vaddr: top + 1, size: PAGE };
    assert_eq!(map(&mut f, taken, top + 1, RW), wraps);
    let odd = MapRefusal::Misaligned { field: Field::Vaddr, value: 1, granule: PAGE };
    assert_eq!(map(&mut f, taken, 1, RW), odd);
    // #57, #58
    assert!(matches!(map(&mut f, taken, MEMORY, RW), MapRefusal::Overlaps { .. }));
    assert_eq!(map(&mut f, msi, MEMORY, RW), MapRefusal::NoEntriesLeft { limit: 1 });
    f.on(|s, env| s.unmap(IovaRange::ALL, env));
    assert!(matches!(map(&mut f, msi, MEMORY, RW), MapRefusal::NotUsable { .. }));
    assert!(matches!(map(&mut f, taken, MEMORY, RW), MapRefusal::Pin(_)));
    assert_eq!((f.held(), f.space.available()), ((0, 0, 0), 1));
}

#[test]
fn whichever_page_fails_first_decides() {
    // Page 2 of 4 cannot be pinned. A limit of 2 pages is met by page 2 too, but the fault comes
    // first; a limit of 1 is met by page 1.
    let mut f = Fixture::with(&[INTEL]);
    f.memory.bad = Some(MEMORY + 2 * PAGE);
    let fault = PinError { vaddr: MEMORY + 2 * PAGE, charged_pages: 2, why: PinFault::NotMapped };
    assert_eq!(f.map_limited(0, 4 * PAGE, Some(2)), Err(MapRefusal::Pin(fault)));
    let over = OverLimit { locked_pages: 0, wanted_pages: 2, limit_pages: 1 };
    assert_eq!(f.map_limited(0, 4 * PAGE, Some(1)), Err(MapRefusal::OverLimit(over)));
    // #54, #55: 16 pages fit, one more does not, and each mapping counts.
    f.map_limited(0x1_0000, 16 * PAGE, Some(16)).unwrap();
    assert!(matches!(f.map_limited(0x10_0000, PAGE, Some(16)), Err(MapRefusal::OverLimit(_))));
    assert_eq!(f.held(), (16, 0, 1));
}

#[test]
fn the_top_of_the_space_is_a_place_like_any_other() {
    // #40, #41
    let last = r(u64::MAX - 0xfff, u64::MAX);
    let mut f = Fixture::with(&[INTEL]);
    let refusal = f.map(last.first(), PAGE).unwrap_err();
    let MapRefusal::NotUsable { why, nearest } = refusal else { panic!() };
    assert_eq!(why, Unusable::OutsideAperture(Some(r(0, (1 << 48) - 1))));
    assert_eq!((nearest.above, nearest.below), (None, Some((1 << 48) - PAGE)));
    let mut f = Fixture::with(&[AMD]);
    f.map(last.first(), PAGE).unwrap();
    assert!(matches!(f.map(last.first(), PAGE), Err(MapRefusal::Overlaps { .. })));
    assert_eq!(f.space.cut_by(r(0, u64::MAX - 0xfff)), Some(last));
    f.space.translate(AMD, u64::MAX, Prot::READ).unwrap();
    assert_eq!(f.on(|s, env| s.unmap(last, env)), PAGE);
    assert_eq!(f.held(), (0, 0, 0));
}

#[test]
fn the_whole_space_is_more_than_a_request_can_say() {
    let mut f = Fixture::with(&[]);
    let all = request(IovaRange::ALL, 0, RW);
    let refusal = f.on(|s, env| s.map(&all, env)).unwrap_err();
    assert_eq!(refusal, MapRefusal::VaddrWraps { vaddr: 0, size: 0 });
}

#[test]
fn a_map_that_fails_last_leaves_nothing_behind() {
    let mut f = Fixture::with(&[AMD]);
    f.on(|s, env| s.dirty_start(env)).unwrap();
    let pages = 1u64 << 31;
    let refusal = MapRefusal::TooManyPages { pages };
    assert_eq!(f.map(1 << 48, pages * PAGE), Err(refusal));
    assert_eq!((f.held(), f.space.len()), ((0, 0, 0), 0));
    f.map(1 << 48, (pages - 1) * PAGE).unwrap();
    // Made while tracking was off, it keeps tracking from being switched on.
    f.on(|s, env| s.dirty_stop(env));
    f.on(|s, env| s.unmap(IovaRange::ALL, env));
    f.map(1 << 48, pages * PAGE).unwrap();
    let mapping = IovaRange::sized(1 << 48, pages * PAGE).unwrap();
    let refusal = DirtyRefusal::TooManyPages { mapping, pages };
    assert_eq!(f.on(|s, env| s.dirty_start(env)), Err(refusal));
}

#[test]
fn an_iova_is_chosen_in_the_valid_ranges() {
    let mut f = Fixture::with(&[ARM]);
    assert_eq!(f.space.choose_iova(PAGE, 1), Some(0));
    f.map(0, PAGE).unwrap();
    f.map(0x3000, PAGE).unwrap();
    assert_eq!(f.space.choose_iova(2 * PAGE, 1), Some(0x1000));
    assert_eq!(f.space.choose_iova(3 * PAGE, 1), Some(0x4000));
    assert_eq!(f.space.choose_iova(2 * PAGE, 0x20_0000), Some(0x20_0000));
    // Past the window of doorbells, when what lies below is too small.
    assert_eq!(f.space.choose_iova(0x800_0000, 1), Some(0x810_0000));
    let legal = f.space.choose_iova(0x800_0000, 1 << 30).unwrap();
    assert_eq!(legal, 1 << 30);
    f.map(legal, 0x800_0000).unwrap();
    for (size, align) in [(0, 1), (1, 1), (PAGE, 0), (PAGE, 3), (1 << 49, 1)] {
        assert_eq!(f.space.choose_iova(size, align), None);
    }
}
