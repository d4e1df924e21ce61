//! MSI windows that the user registers: the thread's example, and each defect of the posted patch.

mod differential;
mod injection;
mod lab;
mod model;
mod near;
mod properties;
mod steps;
mod tally;
mod world;

use softvfio_iommu::refusal::{Unusable, WindowMisfit};
use softvfio_iommu::{
    AttachRefusal, BindRefusal, Consumer, FaultReason, MapRefusal, Prot, Translation, Window,
    WindowRefusal,
};

use world::{A, B, C, D, PAGE, ROOMY, SMALL, World, X86, range};

const ITS_1: u64 = 0x808_0040;
const ITS_2: u64 = 0x809_0040;
const BASE: u64 = 0x4000_0000;

/// "So let's say domain1 has the largest needs (say 2 doorbells)": devices A and B on doorbell 1,
/// C on doorbell 2; domain 2 has D on doorbell 1.
#[test]
fn the_example_of_the_thread() {
    let mut w = World::new(&[A, B, C, D]);
    assert_eq!(w.space.domains().len(), 2);
    assert_eq!(w.space.doorbell_pages_needed(), 2);
    w.add(BASE, 2).unwrap();
    let reach = |w: &mut World, group| w.bind(group).map(|d| (d.iova, d.address));
    assert_eq!(reach(&mut w, A), Ok((BASE + 0x40, ITS_1)));
    assert_eq!(reach(&mut w, B), Ok((BASE + 0x40, ITS_1)));
    assert_eq!(reach(&mut w, C), Ok((BASE + PAGE + 0x40, ITS_2)));
    assert_eq!(reach(&mut w, D), Ok((BASE + 0x40, ITS_1)));
    let used: Vec<u64> =
        w.space.domains().iter().map(|d| d.pool().unwrap().used_pages(BASE)).collect();
    assert_eq!(used, [2, 1]);
    assert_eq!(w.space.window_used_pages(BASE), 2);
    w.check();
}

/// The patch or-ed the domains' return values: two errnos gave a third. Here the first domain that
/// refuses gives the reason, and it is the only one.
#[test]
fn one_refusal_is_one_reason() {
    let mut w = World::new(&[A, C, D]);
    let write_only = Window { prot: Prot::WRITE, ..World::window(BASE, 1) };
    assert_eq!(w.add_window(write_only), Err(WindowRefusal::Permission { prot: Prot::WRITE }));
    assert_eq!(w.space.windows().count(), 0);
    w.check();
}

/// The patch freed every domain's pool when a second registration failed.
#[test]
fn a_failed_registration_leaves_the_earlier_ones() {
    let mut w = World::new(&[A, D]);
    w.add(BASE, 1).unwrap();
    let bound = w.bind(A).unwrap();
    let write_only = Window { prot: Prot::WRITE, ..World::window(BASE + 0x10000, 1) };
    assert!(w.add_window(write_only).is_err());
    assert!(w.add(BASE, 1).is_err());
    assert!(w.add(0xffff_0000_0000_0000, 1).is_err());
    assert_eq!(w.space.translate(A, bound.iova, Prot::WRITE), w.doorbell(ITS_1));
    assert_eq!(w.bind(D).unwrap().iova, bound.iova);
    w.check();
}

/// The patch leaked the descriptor of a registration that failed, so that its range stayed taken.
#[test]
fn a_failed_registration_takes_nothing() {
    let mut w = World::new(&[A, D]);
    let write_only = Window { prot: Prot::WRITE, ..World::window(BASE, 4) };
    let before = (w.space.available(), w.space.valid_ranges());
    assert!(w.add_window(write_only).is_err());
    assert_eq!((w.space.available(), w.space.valid_ranges()), before);
    w.map(BASE, 4).unwrap();
    w.unmap_all();
    w.add(BASE, 4).unwrap();
    w.check();
}

/// The patch removed on any overlap.
#[test]
fn only_an_exact_range_removes() {
    let mut w = World::new(&[A]);
    w.add(BASE, 4).unwrap();
    w.add(BASE + 4 * PAGE, 1).unwrap();
    for (first, pages) in [(BASE, 2), (BASE + PAGE, 1), (BASE - PAGE, 8), (BASE, 5), (BASE, 8)] {
        let wanted = range(first, pages);
        let existing = range(BASE, 4);
        assert_eq!(w.remove(first, pages), Err(WindowRefusal::NotExact { wanted, existing }));
    }
    assert_eq!(w.remove(BASE + 5 * PAGE, 3), Ok(false));
    assert_eq!(w.remove(BASE, 4), Ok(true));
    assert_eq!(w.remove(BASE, 4), Ok(false));
    w.check();
}

/// In the patch, an ordinary mapping found first hid the window.
#[test]
fn mappings_and_windows_do_not_hide_each_other() {
    let mut w = World::new(&[A]);
    w.map(BASE, 1).unwrap();
    w.add(BASE + PAGE, 1).unwrap();
    w.map(BASE + 2 * PAGE, 1).unwrap();
    assert!(matches!(
        w.add(BASE, 3),
        Err(WindowRefusal::Mapped { existing, .. }) if existing == range(BASE, 1)
    ));
    let in_window = w.map(BASE + PAGE, 1).unwrap_err();
    assert!(
        matches!(in_window, MapRefusal::InWindow { existing, .. } if existing == range(BASE + PAGE, 1))
    );
    assert_eq!(
        in_window.to_string(),
        "0x40001000..=0x40001fff is an MSI window; nearest legal IOVA for 0x1000 bytes: \
         0x40003000 (or 0x3ffff000 below)"
    );
    assert_eq!(w.remove(BASE + PAGE, 1), Ok(true));
    assert_eq!(w.space.len(), 2);
    w.check();
}

/// In the patch, removing one window removed all bindings.
#[test]
fn removing_one_window_leaves_the_others() {
    let mut w = World::new(&[A, C]);
    w.add(BASE, 1).unwrap();
    w.add(BASE + 8 * PAGE, 1).unwrap();
    w.add(BASE + 16 * PAGE, 1).unwrap();
    let (a, c) = (w.bind(A).unwrap(), w.bind(C).unwrap());
    let busy = WindowRefusal::Busy { window: range(BASE, 1), pages: 1 };
    assert_eq!(w.remove(BASE, 1), Err(busy.clone()));
    assert_eq!(w.remove_all(), Err(busy));
    assert_eq!(w.remove(BASE + 16 * PAGE, 1), Ok(true));
    assert_eq!(w.space.translate(A, a.iova, Prot::WRITE), w.doorbell(ITS_1));
    assert_eq!(w.space.translate(C, c.iova, Prot::WRITE), w.doorbell(ITS_2));
    w.release(A);
    assert_eq!(w.remove(BASE, 1), Ok(true));
    assert_eq!(w.space.translate(C, c.iova, Prot::WRITE), w.doorbell(ITS_2));
    w.check();
}

#[test]
fn register_unregister_register_again() {
    let mut w = World::new(&[A]);
    for _ in 0..3 {
        w.add(BASE, 1).unwrap();
        assert_eq!(w.bind(A).unwrap().iova, BASE + 0x40);
        w.release(A);
        assert_eq!(w.remove_all(), Ok(PAGE));
        assert!(matches!(w.bind(A), Err(BindRefusal::NoWindow { needed: 1, .. })));
    }
    w.map(BASE, 1).unwrap();
    w.check();
}

#[test]
fn no_window_none_writable_all_full() {
    let mut w = World::new(&[A, C]);
    assert_eq!(w.bind(A), Err(BindRefusal::NoWindow { group: A, needed: 2 }));
    let read_only = Window { prot: Prot::READ, ..World::window(BASE, 1) };
    w.add_window(read_only).unwrap();
    assert_eq!(w.bind(A), Err(BindRefusal::NoWritableWindow { needed: 2 }));
    w.add(BASE + PAGE, 1).unwrap();
    w.bind(A).unwrap();
    assert_eq!(w.bind(C), Err(BindRefusal::WindowsFull { pages: 1, needed: 2 }));
    w.add(BASE - PAGE, 1).unwrap();
    assert_eq!(w.bind(C).unwrap().iova, BASE - PAGE + 0x40);
    w.check();
}

#[test]
fn references_are_counted_per_page_and_domain() {
    let mut w = World::new(&[A, B, D]);
    w.add(BASE, 1).unwrap();
    let a = w.bind(A).unwrap();
    w.bind(B).unwrap();
    w.bind(D).unwrap();
    w.release(A);
    assert_eq!(w.space.translate(B, a.iova, Prot::WRITE), w.doorbell(ITS_1));
    w.release(B);
    let fault = w.space.translate(B, a.iova, Prot::WRITE).unwrap_err();
    assert_eq!(fault.reason, FaultReason::NotMapped);
    assert_eq!(w.space.translate(D, a.iova, Prot::WRITE), w.doorbell(ITS_1));
    // One release too many is nothing, here and in the other domain.
    w.release(B);
    assert_eq!(w.space.translate(D, a.iova, Prot::WRITE), w.doorbell(ITS_1));
    w.check();
}

/// Whoever has nothing enabled cannot end what another group of the domain has.
#[test]
fn a_release_too_many_takes_nothing_from_others() {
    let mut w = World::new(&[A, B]);
    w.add(BASE, 1).unwrap();
    let a = w.bind(A).unwrap();
    w.release(B);
    assert_eq!(w.space.translate(A, a.iova, Prot::WRITE), w.doorbell(ITS_1));
    w.check();
}

/// A group that leaves a domain takes its references along, and no others.
#[test]
fn a_group_that_leaves_releases_its_doorbells() {
    let mut w = World::new(&[A, B]);
    w.add(BASE, 1).unwrap();
    let a = w.bind(A).unwrap();
    w.bind(B).unwrap();
    w.bind(B).unwrap();
    w.detach(B);
    assert_eq!(w.space.translate(A, a.iova, Prot::WRITE), w.doorbell(ITS_1));
    w.release(A);
    assert_eq!(w.remove_all(), Ok(PAGE));
    w.check();
}

#[test]
fn windows_are_limited_by_the_host() {
    let mut w = World::new(&[A]);
    for n in 0..8 {
        w.add(BASE + n * 0x10000, 1).unwrap();
    }
    assert_eq!(w.add(BASE + 0x10_0000, 1), Err(WindowRefusal::NoneLeft { limit: 8 }));
    // In the way beats no window left, which beats out of range.
    assert!(matches!(w.add(BASE, 1), Err(WindowRefusal::Window { .. })));
    assert_eq!(w.add(1 << 60, 1), Err(WindowRefusal::NoneLeft { limit: 8 }));
    w.remove_all().unwrap();
    assert!(matches!(
        w.add(1 << 60, 1),
        Err(WindowRefusal::NotUsable { why: Unusable::OutsideAperture(_), .. })
    ));
    w.check();
}

#[test]
fn arguments_of_a_window() {
    let mut w = World::new(&[A]);
    let odd = Window {
        range: softvfio_iommu::IovaRange::sized(BASE, 0x800).unwrap(),
        ..World::window(BASE, 1)
    };
    assert!(matches!(w.add_window(odd), Err(WindowRefusal::Misaligned { .. })));
    let none = Window { prot: Prot::empty(), ..World::window(BASE, 1) };
    assert_eq!(w.add_window(none), Err(WindowRefusal::NoAccess));
    assert!(matches!(
        w.add(world::HOLE, 1),
        Err(WindowRefusal::NotUsable { why: Unusable::Reserved(_), .. })
    ));
    // A relaxable identity region keeps nobody out.
    w.add(world::RELAXABLE, 1).unwrap();
    w.check();
}

#[test]
fn a_window_costs_nothing_and_cuts_the_valid_ranges() {
    let mut w = World::new(&[A]);
    let before = w.space.valid_ranges();
    w.add(BASE, 2).unwrap();
    assert_eq!(w.space.available(), 16);
    let cut: Vec<_> = w.space.valid_ranges();
    assert_eq!(cut.len(), before.len() + 1);
    assert!(cut.iter().all(|r| !r.overlaps(range(BASE, 2))));
    w.map(BASE - PAGE, 1).unwrap();
    w.map(BASE + 2 * PAGE, 1).unwrap();
    assert_eq!(w.space.choose_iova(PAGE, PAGE).unwrap(), 0);
    assert_eq!(w.unmap_all(), 2 * PAGE);
    assert_eq!(w.space.windows().count(), 1);
    w.remove_all().unwrap();
    assert_eq!(w.space.valid_ranges(), before);
    w.check();
}

#[test]
fn late_groups_take_every_window_or_stay_out() {
    let mut w = World::new(&[A]);
    w.add(BASE, 2).unwrap();
    w.add(1 << 40, 1).unwrap();
    let (group, window) = (SMALL, range(1 << 40, 1));
    let refused = w.attach(SMALL).unwrap_err();
    assert!(matches!(
        &refused,
        AttachRefusal::Window { group: g, window: v, why: WindowMisfit::Aperture(_) }
            if *g == group && *v == window
    ));
    assert_eq!(w.space.domains().len(), 1);
    w.remove(1 << 40, 1).unwrap();
    w.add(world::SMALL_RESERVES, 1).unwrap();
    assert!(matches!(
        w.attach(SMALL),
        Err(AttachRefusal::Window { why: WindowMisfit::Reserved(_), .. })
    ));
    w.remove(world::SMALL_RESERVES, 1).unwrap();
    for n in 1..3 {
        w.add(BASE + n * 0x10000, 1).unwrap();
    }
    assert!(matches!(
        w.attach(SMALL),
        Err(AttachRefusal::Window { why: WindowMisfit::TooMany { limit: 2 }, .. })
    ));
    w.remove(BASE + 0x10000, 1).unwrap();
    w.attach(SMALL).unwrap();
    assert_eq!(w.space.max_windows(), Some(2));
    assert_eq!(w.bind(SMALL).unwrap().iova, BASE + 0x40);
    w.check();
}

#[test]
fn groups_whose_msis_are_not_translated_ignore_windows() {
    let mut w = World::new(&[A]);
    w.add(0xfee0_0000, 1).unwrap();
    w.attach(X86).unwrap();
    assert_eq!(w.bind(X86).unwrap().iova, 0xfee0_0000);
    assert_eq!(
        w.space.translate(X86, 0xfee0_0000, Prot::WRITE),
        Ok(Translation::Doorbell { address: 0xfee0_0000 })
    );
    w.release(X86);
    w.detach(A);
    // No one is left who takes windows; the window stays until the last group leaves.
    assert_eq!(w.space.windows().count(), 1);
    assert_eq!(w.add(BASE, 1), Err(WindowRefusal::NotTaken));
    w.attach(A).unwrap();
    assert_eq!(w.bind(A).unwrap().iova, 0xfee0_0040);
    w.check();
}

#[test]
fn windows_end_with_the_last_group() {
    let mut w = World::new(&[A, D]);
    w.add(BASE, 1).unwrap();
    w.bind(A).unwrap();
    w.detach(A);
    w.attach(A).unwrap();
    // The freed domain's pool went, bindings and all; the window did not.
    assert_eq!(w.space.window_used_pages(BASE), 0);
    assert_eq!(w.space.windows().count(), 1);
    w.detach(A);
    w.detach(D);
    assert_eq!(w.space.windows().count(), 0);
    w.attach(A).unwrap();
    assert!(matches!(w.bind(A), Err(BindRefusal::NoWindow { .. })));
    w.check();
}

/// A window for something else than doorbells, without a new interface.
#[test]
fn a_second_consumer_has_windows_of_its_own() {
    const OTHER: Consumer = Consumer(7);
    let mut w = World::new(&[A]);
    w.add_window(Window { consumer: OTHER, ..World::window(BASE, 4) }).unwrap();
    assert!(matches!(w.bind(A), Err(BindRefusal::NoWindow { .. })));
    w.add(BASE + 0x10000, 1).unwrap();
    assert_eq!(w.bind(A).unwrap().iova, BASE + 0x10040);
    let pool = w.space.domains()[0].pool().unwrap();
    assert_eq!((pool.used_pages(BASE), pool.used_pages(BASE + 0x10000)), (0, 1));
    // Its pages are none that a doorbell could have had.
    w.attach(C).unwrap();
    assert_eq!(w.bind(C), Err(BindRefusal::WindowsFull { pages: 1, needed: 2 }));
    w.check();
}

/// The driver's own window of another domain is not the user's, though the addresses be the same.
#[test]
fn a_fixed_window_does_not_keep_a_users_window_at_its_address() {
    let mut w = World::new(&[A]);
    w.add(0x800_0000, 1).unwrap();
    w.attach(ROOMY).unwrap();
    assert_eq!(w.bind(ROOMY).unwrap().iova, 0x800_0040);
    assert_eq!(w.space.window_used_pages(0x800_0000), 0);
    assert_eq!(w.remove(0x800_0000, 1), Ok(true));
    assert_eq!(w.space.translate(ROOMY, 0x800_0040, Prot::WRITE), w.doorbell(ITS_1));
    w.check();
}

/// With the window that Linux chooses, nothing is registered and nothing is given back.
#[test]
fn a_fixed_window_keeps_its_doorbells() {
    let mut w = World::new(&[ROOMY]);
    assert_eq!(w.add(BASE, 1), Err(WindowRefusal::NotTaken));
    let first = w.bind(ROOMY).unwrap();
    w.release(ROOMY);
    assert_eq!(w.space.translate(ROOMY, first.iova, Prot::WRITE), w.doorbell(ITS_1));
    w.check();
}
