//! Failure at every step leaves no trace. After its checks a registration cannot fail, so it is
//! each check, for each domain in turn, that is made to fail.

use proptest::prelude::Rng;
use proptest::test_runner::{RngAlgorithm, TestRng};
use softvfio_iommu::refusal::WindowMisfit;
use softvfio_iommu::{
    AttachRefusal, BindRefusal, Consumer, Host, LockBudget, MapRequest, MmId, MsiPolicy, Prot,
    ReservedKind, Window, WindowRefusal,
};

use super::lab::{BAD, Lab, RW, group, host, iommu, region};
use super::model::Model;
use super::steps::{KINDS, Mood, Op, resolve};
use super::world::{PAGE, range, sound};

const BASE: u64 = 0x4000_0000;
const DOMAINS: u32 = 6;
const USER: MsiPolicy = MsiPolicy::User { max_windows: 8 };

/// `DOMAINS` IOMMUs, a group each, numbered from 1.
fn alike() -> Host {
    let mut host = host();
    host.iommus = (0..DOMAINS).map(|_| iommu(48, 0x4020_1000, true, USER)).collect();
    host.groups = (0..DOMAINS).map(|n| group(n + 1, n as usize, (n % 3) as usize)).collect();
    host
}

/// Every group attached, two windows, a mapping, and each doorbell bound.
fn busy(host: Host, groups: u32) -> Lab {
    let mut lab = Lab::new(host, 16);
    lab.on(|space, host, env| {
        for group in 1..=groups {
            space.attach(host, &host.limits, group, None, env).unwrap();
        }
        space.add_window(window(BASE, 2, RW), env).unwrap();
        space.add_window(window(BASE + 8 * PAGE, 2, RW), env).unwrap();
        space.map(&map(BASE + 4 * PAGE, 0x7000_0000), env).unwrap();
        for group in 1..=groups {
            space.bind_doorbell(group, env).unwrap();
        }
    });
    lab
}

fn window(first: u64, pages: u64, prot: Prot) -> Window {
    Window { range: range(first, pages), prot, consumer: Consumer::MSI }
}

fn map(first: u64, vaddr: u64) -> MapRequest {
    let budget = LockBudget { mm: MmId(1), limit_pages: None };
    MapRequest { range: range(first, 1), vaddr, prot: RW, budget }
}

#[test]
fn a_registration_that_any_domain_refuses_leaves_no_trace() {
    let _sound = sound();
    for k in 0..DOMAINS as usize {
        let free = BASE + 32 * PAGE;
        let refused = |change: &dyn Fn(&mut Host), wanted: Window| {
            let mut host = alike();
            change(&mut host);
            let mut lab = busy(host, DOMAINS);
            let before = lab.snapshot();
            let refusal = lab.on(|s, _, env| s.add_window(wanted, env)).unwrap_err();
            assert_eq!(lab.snapshot(), before, "domain {k}: {refusal}");
            // Nothing is taken: the same place is good for what every domain can do.
            lab.on(|s, _, env| s.add_window(window(free, 1, RW), env)).unwrap();
            refusal
        };
        let permission = refused(&|h| h.iommus[k].write_only = false, window(free, 1, Prot::WRITE));
        assert_eq!(permission, WindowRefusal::Permission { prot: Prot::WRITE });
        let aperture = |h: &mut Host| h.iommus[k] = iommu(39, 0x4020_1000, true, USER);
        let outside = refused(&aperture, window(1 << 39, 1, RW));
        assert!(matches!(outside, WindowRefusal::NotUsable { .. }));
        let hole = region(BASE + 64 * PAGE, 1, ReservedKind::Reserved);
        let reserve = |h: &mut Host| h.groups[k].reserved.push(hole.clone());
        let reserved = refused(&reserve, window(BASE + 62 * PAGE, 4, RW));
        assert!(matches!(reserved, WindowRefusal::NotUsable { .. }));
        let few = |h: &mut Host| h.iommus[k].msi = MsiPolicy::User { max_windows: 3 };
        let mut host = alike();
        few(&mut host);
        let mut lab = busy(host, DOMAINS);
        lab.on(|s, _, env| s.add_window(window(free, 1, RW), env)).unwrap();
        let before = lab.snapshot();
        let refusal = lab.on(|s, _, env| s.add_window(window(free + 8 * PAGE, 1, RW), env));
        assert_eq!(refusal, Err(WindowRefusal::NoneLeft { limit: 3 }));
        assert_eq!(lab.snapshot(), before);
    }
}

/// A window that is in use in the k-th domain alone goes from none, nor do others with it.
#[test]
fn a_removal_that_any_domain_refuses_leaves_no_trace() {
    let _sound = sound();
    for k in 1..=DOMAINS {
        let mut lab = busy(alike(), DOMAINS);
        lab.on(|space, _, env| {
            for group in (1..=DOMAINS).filter(|g| *g != k) {
                space.release_doorbell(group, env);
            }
        });
        let before = lab.snapshot();
        let busy = WindowRefusal::Busy { window: range(BASE, 2), pages: 1 };
        let one = lab.on(|s, _, env| s.remove_window(range(BASE, 2), env));
        assert_eq!(one, Err(busy.clone()));
        assert_eq!(lab.on(|s, _, env| s.remove_all_windows(env)), Err(busy));
        assert_eq!(lab.snapshot(), before);
        lab.on(|s, _, env| s.release_doorbell(k, env));
        assert_eq!(lab.on(|s, _, env| s.remove_all_windows(env)), Ok(4 * PAGE));
    }
}

/// The k-th of several windows does not fit, for each reason, whether the group would get a domain
/// of its own or join another's.
#[test]
fn an_attach_that_any_window_refuses_leaves_no_trace() {
    let _sound = sound();
    for joins in [false, true] {
        for k in 0..DOMAINS {
            for reason in 0..5 {
                let mut host = alike();
                let number = DOMAINS + 1;
                let at = if joins && reason == 1 { 0 } else { DOMAINS as usize };
                host.groups.push(group(number, at, 0));
                host.iommus.push(iommu(48, 0x4020_1000, true, USER));
                let mut windows: Vec<Window> =
                    (0..DOMAINS).map(|n| window(BASE + u64::from(n) * 0x1_0000, 16, RW)).collect();
                let odd = windows[k as usize].range.first();
                let new = host.iommus.last_mut().unwrap();
                match reason {
                    0 => {
                        *new = iommu(39, 0x4020_1000, true, USER);
                        windows[k as usize] = window(1 << 40, 1, RW);
                    }
                    1 => {
                        let hole = region(odd, 1, ReservedKind::Reserved);
                        host.groups.last_mut().unwrap().reserved.push(hole);
                    }
                    2 => {
                        *new = iommu(48, 0x2001_0000, true, USER);
                        windows[k as usize] = window(odd, 15, RW);
                    }
                    3 => {
                        *new = iommu(48, 0x4020_1000, false, USER);
                        windows[k as usize].prot = Prot::WRITE;
                    }
                    _ => new.msi = MsiPolicy::User { max_windows: k },
                }
                let refused = windows[k as usize].range;
                let mut lab = Lab::new(host, 16);
                lab.on(|space, host, env| {
                    for group in 1..=3 {
                        space.attach(host, &host.limits, group, None, env).unwrap();
                    }
                    windows.iter().for_each(|w| space.add_window(*w, env).unwrap());
                    for group in 1..=3 {
                        space.bind_doorbell(group, env).unwrap();
                    }
                });
                let before = lab.snapshot();
                let answer = lab.on(|s, host, env| s.attach(host, &host.limits, number, None, env));
                let Err(AttachRefusal::Window { window, why, .. }) = answer else {
                    panic!("{reason} of window {k}: {answer:?}")
                };
                assert_eq!(window, refused);
                let named = match why {
                    WindowMisfit::Aperture(_) => 0,
                    WindowMisfit::Reserved(_) => 1,
                    WindowMisfit::PageSize { .. } => 2,
                    WindowMisfit::Permission(_) => 3,
                    WindowMisfit::TooMany { .. } => 4,
                };
                assert_eq!(named, reason);
                assert_eq!(lab.snapshot(), before, "{why}");
            }
        }
    }
}

/// Of several mappings the k-th cannot be pinned: no domain, no pin, no charge; then all is well.
#[test]
fn an_attach_that_cannot_pin_leaves_no_trace() {
    let _sound = sound();
    for k in 0..8u64 {
        let mut lab = Lab::new(alike(), 16);
        lab.on(|space, _, env| {
            for n in 0..8 {
                let vaddr = if n == k { BAD } else { 0x7000_0000 };
                space.map(&map(BASE + 4 * n * PAGE, vaddr), env).unwrap();
            }
        });
        let before = lab.snapshot();
        let answer = lab.on(|s, host, env| s.attach(host, &host.limits, 1, None, env));
        assert!(matches!(
            answer,
            Err(AttachRefusal::Pin { mapping, .. }) if mapping == range(BASE + 4 * k * PAGE, 1)
        ));
        assert_eq!(lab.snapshot(), before);
        let wanted = window(BASE + PAGE, 1, RW);
        let untaken = lab.on(|s, _, env| s.add_window(wanted, env));
        assert_eq!(untaken, Err(WindowRefusal::NotTaken));
        let unattached = lab.on(|s, _, env| s.bind_doorbell(1, env));
        assert_eq!(unattached, Err(BindRefusal::NotAttached { group: 1 }));
        assert_eq!(lab.snapshot(), before);
        lab.on(|space, host, env| {
            assert!(space.unmap_exact(range(BASE + 4 * k * PAGE, 1), env));
            space.attach(host, &host.limits, 1, None, env).unwrap();
            space.add_window(wanted, env).unwrap();
            space.bind_doorbell(1, env).unwrap();
        });
    }
}

/// The n-th doorbell of a domain finds the windows full, for every n; other domains do not notice.
#[test]
fn a_binding_without_room_leaves_no_trace() {
    let _sound = sound();
    for room in 0..DOMAINS {
        let mut host = host();
        let controller = host.controllers[0].clone();
        host.controllers = (0..DOMAINS).map(|_| controller.clone()).collect();
        for (n, c) in host.controllers.iter_mut().enumerate() {
            c.doorbell += (n as u64) << 20;
        }
        host.iommus = vec![iommu(48, 0x4020_1000, true, USER); 2];
        host.groups = (0..DOMAINS).map(|n| group(n + 1, 0, n as usize)).collect();
        host.groups.push(group(DOMAINS + 1, 1, 0));
        let mut lab = Lab::new(host, 16);
        lab.on(|space, host, env| {
            for group in 1..=DOMAINS + 1 {
                space.attach(host, &host.limits, group, None, env).unwrap();
            }
            for n in 0..room {
                space.add_window(window(BASE + u64::from(n) * 4 * PAGE, 1, RW), env).unwrap();
            }
            for group in 1..=room {
                space.bind_doorbell(group, env).unwrap();
            }
        });
        let before = lab.snapshot();
        for group in room + 1..=DOMAINS {
            let refusal = lab.on(|s, _, env| s.bind_doorbell(group, env)).unwrap_err();
            match refusal {
                BindRefusal::NoWindow { needed, .. } if room == 0 => assert_eq!(needed, DOMAINS),
                BindRefusal::WindowsFull { pages, needed } => {
                    assert_eq!((pages, needed), (u64::from(room), DOMAINS));
                }
                other => panic!("{other}"),
            }
            assert_eq!(lab.snapshot(), before);
        }
        let elsewhere = lab.on(|s, _, env| s.bind_doorbell(DOMAINS + 1, env));
        assert_eq!(elsewhere.is_ok(), room != 0);
    }
}

/// From many states: every operation, tried once more where it is refused, changes nothing.
#[test]
fn refusals_repeat_without_a_trace() {
    let _sound = sound();
    let mut rng = TestRng::from_seed(RngAlgorithm::XorShift, &[3; 16]);
    let (mut lab, mut model, mut refused) = (Lab::new(host(), 6), Model::new(host()), 0);
    for _ in 0..4000 {
        let bits = rng.next_u64();
        let kind = KINDS[(bits % KINDS.len() as u64) as usize];
        let by = std::array::from_fn(|n| (bits >> (8 * n + 8)) as u8);
        let op = resolve((kind, by), Mood::Usual, &model);
        // Closing all the time would leave nothing to refuse.
        if matches!(op, Op::Close | Op::Detach(_)) && bits >> 60 != 0 {
            continue;
        }
        let answer = lab.carry_out(op);
        assert_eq!(answer, model.carry_out(op), "{op:x?}");
        if answer.is_refusal() {
            let before = lab.snapshot();
            assert_eq!(lab.carry_out(op), answer, "{op:x?}, again");
            assert_eq!(lab.snapshot(), before, "{op:x?}");
            refused += 1;
        }
    }
    assert!(refused > 500, "{refused} refusals");
}
