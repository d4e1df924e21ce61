//! Groups that come late and leave early.

use alloc::string::ToString;

use super::{
    AMD, AMD_TOO, ARM, ARM_TOO, Fixture, HIGH, INTEL, INTEL_39_BIT, NOT_ISOLATED, PAGE,
    PAGES_OF_64K, STRICT, r,
};
use crate::{AttachRefusal, Event, FaultReason, IovaRange, LockBudget, MmId, PageSizes, Prot};

const INTEL_RANGES: [IovaRange; 2] =
    [IovaRange::new(0, 0xfedf_ffff).unwrap(), IovaRange::new(0xfef0_0000, (1 << 48) - 1).unwrap()];

/// An attach that must be refused and change nothing.
fn refused(f: &mut Fixture, group: u32) -> AttachRefusal {
    let before = (f.space.valid_ranges().to_vec(), f.space.page_sizes(), f.ranges(), f.held());
    let refusal = f.attach(group).unwrap_err();
    let after = (f.space.valid_ranges().to_vec(), f.space.page_sizes(), f.ranges(), f.held());
    assert_eq!(before, after);
    refusal
}

#[test]
fn nobody_joins_while_a_user_address_is_invalid() {
    // #83
    let mut f = Fixture::with(&[INTEL]);
    f.map(0x1000, PAGE).unwrap();
    f.on(|s, env| s.invalidate_vaddr(IovaRange::ALL, env)).unwrap();
    let mapping = r(0x1000, 0x1fff);
    assert_eq!(refused(&mut f, AMD), AttachRefusal::VaddrInvalid { mapping });
    // Whatever else is wrong with it.
    assert_eq!(refused(&mut f, INTEL), AttachRefusal::VaddrInvalid { mapping });
    // An unmap does as well as an update.
    f.on(|s, env| s.unmap(mapping, env));
    f.attach(AMD).unwrap();
}

#[test]
fn a_reserved_region_of_a_late_group_may_not_be_mapped() {
    // #84
    let mut f = Fixture::with(&[AMD_TOO]);
    f.map(0xfc_ffff_f000, 2 * PAGE).unwrap();
    assert_eq!(
        refused(&mut f, AMD).to_string(),
        "group 3 reserves 0xfd00000000..=0xffffffffff (HyperTransport, reserved), \
         where 0xfcfffff000..=0xfd00000fff is mapped"
    );
    f.on(|s, env| s.unmap(IovaRange::ALL, env));
    f.attach(AMD).unwrap();
}

#[test]
fn a_window_of_doorbells_may_not_be_mapped_either() {
    // #87
    let mut f = Fixture::with(&[INTEL]);
    f.map(0x800_0000, PAGE).unwrap();
    let AttachRefusal::Reserved { region, mapping, .. } = refused(&mut f, ARM) else { panic!() };
    assert_eq!((region.range.first(), mapping.first()), (0x800_0000, 0x800_0000));
}

#[test]
fn what_may_be_identity_mapped_is_in_nobodys_way() {
    let mut f = Fixture::with(&[AMD]);
    f.map(0x7000_0000, PAGE).unwrap();
    f.attach(INTEL).unwrap();
    f.map(0x7000_1000, PAGE).unwrap();
}

#[test]
fn a_narrow_aperture_comes_late() {
    // #85
    let mut f = Fixture::with(&[INTEL]);
    f.map(1 << 39, PAGE).unwrap();
    assert_eq!(
        refused(&mut f, INTEL_39_BIT).to_string(),
        "group 2 is behind an IOMMU that translates 0x0..=0x7fffffffff, \
         and 0x8000000000..=0x8000000fff is mapped"
    );
    // #86
    f.on(|s, env| s.unmap(IovaRange::ALL, env));
    f.map(0x1000, PAGE).unwrap();
    f.attach(INTEL_39_BIT).unwrap();
    assert_eq!(f.space.valid_ranges(), [r(0, 0xfedf_ffff), r(0xfef0_0000, (1 << 39) - 1)]);
    // #89: mappings stay, ranges grow back.
    f.detach(INTEL_39_BIT);
    assert_eq!(f.space.valid_ranges(), INTEL_RANGES);
    assert_eq!(f.ranges(), [r(0x1000, 0x1fff)]);
}

#[test]
fn apertures_must_share_something() {
    let mut f = Fixture::with(&[INTEL]);
    let aperture = r(1 << 60, u64::MAX);
    let refusal = AttachRefusal::Aperture { group: HIGH, aperture, mapping: None };
    assert_eq!(refused(&mut f, HIGH), refusal);
}

#[test]
fn groups_are_refused_for_what_they_are() {
    // #88
    let mut f = Fixture::with(&[INTEL]);
    let unsafe_interrupts = AttachRefusal::UnsafeInterrupts { group: NOT_ISOLATED };
    assert_eq!(refused(&mut f, NOT_ISOLATED), unsafe_interrupts);
    assert_eq!(refused(&mut f, 99), AttachRefusal::UnknownGroup { group: 99 });
    assert_eq!(refused(&mut f, INTEL), AttachRefusal::AlreadyAttached { group: INTEL });
    assert!(matches!(refused(&mut f, STRICT), AttachRefusal::NeedsDirect { .. }));
}

#[test]
fn groups_behind_the_same_iommu_share_a_domain() {
    let mut f = Fixture::with(&[AMD, INTEL, AMD_TOO]);
    let groups = |at: usize| f.space.domains()[at].members().iter().map(|m| m.group).collect();
    let shared: [alloc::vec::Vec<u32>; 2] = [groups(0), groups(1)];
    assert_eq!(shared, [alloc::vec![AMD, AMD_TOO], alloc::vec![INTEL]]);
    f.detach(AMD);
    assert_eq!(f.space.domains().len(), 2);
    f.attach(AMD).unwrap();
    assert_eq!(f.events.0.last(), Some(&Event::Attached { group: AMD, merged: true }));
}

#[test]
fn the_last_group_takes_everything_along() {
    let mut f = Fixture::with(&[INTEL, ARM]);
    f.map(0x1000, 3 * PAGE).unwrap();
    f.detach(INTEL);
    assert_eq!(f.held(), (3, 0, 1));
    f.detach(ARM);
    assert_eq!((f.ranges(), f.held()), (alloc::vec![], (0, 0, 0)));
    assert_eq!(f.space.valid_ranges(), []);
    assert_eq!(
        f.space.translate(ARM, 0x1000, Prot::READ).unwrap_err().reason,
        FaultReason::NoDomain
    );
}

#[test]
fn what_waits_for_an_iommu_is_pinned_all_or_nothing() {
    let mut f = Fixture::with(&[]);
    f.map_limited(0x1000, 2 * PAGE, Some(0)).unwrap();
    f.map_limited(0x8000, 2 * PAGE, Some(0)).unwrap();
    assert_eq!(f.held(), (0, 0, 0));
    let host = f.host.clone();
    let attach = |f: &mut Fixture, limit| {
        f.on(|s, env| s.attach(&host, &host.limits, INTEL, Some(limit), env))
    };
    // The second mapping meets the limit: the first is given back.
    let Err(AttachRefusal::OverLimit { mapping, error }) = attach(&mut f, 3) else { panic!() };
    assert_eq!((mapping.first(), error.locked_pages, f.held()), (0x8000, 2, (0, 0, 0)));
    f.memory.bad = Some(super::MEMORY + 0x9000);
    let Err(AttachRefusal::Pin { mapping, .. }) = attach(&mut f, 4) else { panic!() };
    assert_eq!((mapping.first(), f.held()), (0x8000, (0, 0, 0)));
    f.memory.bad = None;
    attach(&mut f, 4).unwrap();
    assert_eq!(f.held(), (4, 0, 2));
}

#[test]
fn who_may_lock_is_remembered_with_the_mapping_and_not_with_its_address() {
    let mut f = Fixture::with(&[]);
    f.map(0x1000, PAGE).unwrap();
    f.on(|s, env| s.invalidate_vaddr(IovaRange::ALL, env)).unwrap();
    // The same client again, now with a limit: the kernel keeps what it knew.
    let budget = LockBudget { mm: MmId(1), limit_pages: Some(0) };
    f.on(|s, env| s.update_vaddr(r(0x1000, 0x1fff), 0x5000, budget, env)).unwrap();
    f.attach(INTEL).unwrap();
}

#[test]
fn mappings_must_be_made_of_a_late_iommus_pages() {
    let mut f = Fixture::with(&[AMD]);
    f.map(0x1_0000, 0x1_0000).unwrap();
    f.map(0x4_0000, PAGE).unwrap();
    let mapping = r(0x4_0000, 0x4_0fff);
    let refusal = AttachRefusal::PageSize { group: PAGES_OF_64K, granule: 0x1_0000, mapping };
    assert_eq!(refused(&mut f, PAGES_OF_64K), refusal);
    f.on(|s, env| s.unmap_exact(mapping, env));
    f.attach(PAGES_OF_64K).unwrap();
    assert_eq!(f.space.page_sizes().smallest(), 0x1_0000);
}

#[test]
fn domains_that_share_no_page_size_meet_at_the_largest_of_the_smallest() {
    let mut f = Fixture::with(&[INTEL, PAGES_OF_64K]);
    assert_eq!(f.space.page_sizes(), PageSizes(0x1_0000));
    assert!(f.map(0x1000, PAGE).is_err());
    f.map(0x1_0000, 0x1_0000).unwrap();
    f.detach(PAGES_OF_64K);
    assert_eq!(f.space.page_sizes(), PageSizes(0x4020_1000));
}

#[test]
fn a_domain_has_the_window_of_the_group_it_began_with() {
    let f = Fixture::with(&[ARM, ARM_TOO]);
    assert_eq!(f.space.domains().len(), 1);
    let window = f.space.domains()[0].pool().unwrap().windows().next().unwrap();
    assert_eq!(window.range.first(), 0x800_0000);
}
