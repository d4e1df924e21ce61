//! User addresses declared invalid and given anew.

use super::{Fixture, INTEL, PAGE, RW, r};
use crate::{IovaRange, LockBudget, MmId, Translation, VaddrRefusal};

const OTHER: LockBudget = LockBudget { mm: MmId(2), limit_pages: Some(3) };

fn at(f: &Fixture, iova: u64) -> (u64, MmId) {
    match f.space.translate(INTEL, iova, RW) {
        Ok(Translation::Memory { at, .. }) => (at.vaddr, at.mm),
        other => panic!("{other:?}"),
    }
}

#[test]
fn invalid_once() {
    // #80, #33
    let mut f = Fixture::with(&[INTEL]);
    f.map(0x1000, PAGE).unwrap();
    f.map(0x3000, 2 * PAGE).unwrap();
    let existing = r(0x3000, 0x4fff);
    let valid = VaddrRefusal::StillValid { existing };
    assert_eq!(f.on(|s, env| s.update_vaddr(existing, 0, OTHER, env)), Err(valid));
    assert_eq!(f.on(|s, env| s.invalidate_vaddr(existing, env)), Ok(2 * PAGE));
    // One that is invalid already, and none is.
    let already = VaddrRefusal::AlreadyInvalid { existing };
    assert_eq!(f.on(|s, env| s.invalidate_vaddr(IovaRange::ALL, env)), Err(already));
    assert!(!f.space.mapping_at(0x1000).unwrap().1.vaddr_is_invalid());
    // Devices do not notice.
    assert_eq!(at(&f, 0x3000).1, MmId(1));
}

#[test]
fn an_update_is_for_one_mapping_as_a_whole() {
    // #32
    let mut f = Fixture::with(&[INTEL]);
    f.map(0x1000, 2 * PAGE).unwrap();
    f.on(|s, env| s.invalidate_vaddr(IovaRange::ALL, env)).unwrap();
    let mut update = |range, vaddr| f.on(|s, env| s.update_vaddr(range, vaddr, OTHER, env));
    let (wanted, existing) = (r(0x1000, 0x1fff), r(0x1000, 0x2fff));
    assert_eq!(update(wanted, 0), Err(VaddrRefusal::NotExact { wanted, existing }));
    let wanted = r(0x8000, 0x8fff);
    assert_eq!(update(wanted, 0), Err(VaddrRefusal::NothingMapped { wanted }));
    // A wrap is found before that nothing is mapped.
    let vaddr = u64::MAX - 0xffe;
    assert_eq!(update(wanted, vaddr), Err(VaddrRefusal::VaddrWraps { vaddr, size: PAGE }));
    assert!(matches!(update(wanted, 1), Err(VaddrRefusal::Misaligned { .. })));
    update(existing, 0x5000).unwrap();
    assert_eq!(at(&f, 0x1008), (0x5008, MmId(2)));
}

#[test]
fn the_charge_moves_to_the_address_space_that_updates() {
    let mut f = Fixture::with(&[INTEL]);
    f.map(0x1000, 3 * PAGE).unwrap();
    f.map(0x8000, PAGE).unwrap();
    f.on(|s, env| s.invalidate_vaddr(IovaRange::ALL, env)).unwrap();
    let first = r(0x1000, 0x3fff);
    let poor = LockBudget { limit_pages: Some(2), ..OTHER };
    let refusal = f.on(|s, env| s.update_vaddr(first, 0, poor, env)).unwrap_err();
    assert!(matches!(refusal, VaddrRefusal::OverLimit(_)));
    assert_eq!(f.held(), (4, 0, 2));
    f.on(|s, env| s.update_vaddr(first, 0, OTHER, env)).unwrap();
    assert_eq!(f.held(), (1, 3, 2));
    f.on(|s, env| s.unmap(IovaRange::ALL, env));
    assert_eq!(f.held(), (0, 0, 0));
}

#[test]
fn halves_of_a_cut_move_their_addresses_and_leave_their_charge() {
    let mut f = Fixture::with(&[INTEL]);
    f.map(0x1000, 2 * PAGE).unwrap();
    f.on(|s, env| s.invalidate_vaddr(IovaRange::ALL, env)).unwrap();
    f.on(|s, env| s.cut(0x2000, env)).unwrap();
    f.on(|s, env| s.update_vaddr(r(0x2000, 0x2fff), 0x7000, OTHER, env)).unwrap();
    assert_eq!((at(&f, 0x2000), f.held()), ((0x7000, MmId(2)), (2, 0, 1)));
    // The lower half still waits.
    assert!(f.attach(super::AMD).is_err());
    f.on(|s, env| s.unmap(IovaRange::ALL, env));
    assert_eq!(f.held(), (0, 0, 0));
}
