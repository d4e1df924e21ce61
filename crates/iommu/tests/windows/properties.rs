//! Random sequences of everything that windows meet, held to the model after every step.

use std::cell::RefCell;

use proptest::collection::vec;
use proptest::test_runner::{Config, RngAlgorithm, TestError, TestRng, TestRunner};
use softvfio_iommu::{Consumer, FaultReason, IovaRange, MmId, MsiPolicy, Prot, Translation};

use super::lab::{Lab, MAX_MAPPINGS, host};
use super::model::{Model, span};
use super::steps::{Answer, Mood, Op, Step, mood, resolve, step};
use super::tally::{Tally, met};
use super::world::{PAGE, sound};

/// Sequences of a run.
const CASES: u32 = 1000;

#[test]
fn no_sequence_breaks_windows_and_every_refusal_occurs() {
    let _sound = sound();
    match run(CASES, 2048) {
        Ok(tally) => tally.assert_all_met(),
        Err(why) => panic!("{why}"),
    }
}

#[cfg(feature = "planted")]
#[test]
fn every_planted_bug_of_windows_is_caught() {
    use std::sync::PoisonError;

    use super::world::PLANTING;
    use softvfio_iommu::planted::{Bug, plant};

    let _alone = PLANTING.write().unwrap_or_else(PoisonError::into_inner);
    for bug in Bug::WINDOWS {
        plant(Some(bug));
        let caught = run(CASES, 100);
        plant(None);
        let why = caught.err().unwrap_or_else(|| panic!("{bug:?} was not caught"));
        println!("{bug:?}: {}", why.lines().next().unwrap_or_default());
    }
}

/// Runs the sequences; the failure as text.
fn run(cases: u32, max_shrink_iters: u32) -> Result<Tally, String> {
    let config = Config { cases, max_shrink_iters, failure_persistence: None, ..Config::default() };
    let rng = TestRng::from_seed(RngAlgorithm::XorShift, &[7; 16]);
    let tally = RefCell::new(Tally::default());
    let hook = std::panic::take_hook();
    // What fails is told once, after it was made small.
    std::panic::set_hook(Box::new(|_| {}));
    let outcome = TestRunner::new_with_rng(config, rng).run(
        &(mood(), vec(step(), 20..90)),
        |(mood, steps)| {
            sequence(mood, &steps, &mut tally.borrow_mut());
            Ok(())
        },
    );
    std::panic::set_hook(hook);
    match outcome {
        Ok(()) => Ok(tally.into_inner()),
        Err(TestError::Fail(why, steps)) => Err(format!("{why}\nby {steps:?}")),
        Err(TestError::Abort(why)) => Err(format!("no run: {why}")),
    }
}

fn sequence(mood: Mood, steps: &[Step], tally: &mut Tally) {
    let mut lab = Lab::new(host(), MAX_MAPPINGS);
    let mut model = Model::new(host());
    let mut given: Vec<(u32, u64)> = vec![];
    for step in steps {
        let op = resolve(*step, mood, &model);
        let (before, met) = (lab.snapshot(), met(op, &model));
        let answer = lab.carry_out(op);
        assert_eq!(answer, model.carry_out(op), "the engine's and the model's answer to {op:x?}");
        tally.count(op, met, &answer);
        if answer.is_refusal() {
            assert_eq!(lab.snapshot(), before, "{op:x?} failed and left a trace");
        }
        if let (Op::Enable(group), Answer::Enable(Ok(doorbell))) = (op, &answer)
            && !given.contains(&(group, doorbell.iova))
        {
            given.push((group, doorbell.iova));
        }
        check_engine(&lab);
        check_same(&lab, &model);
        check_interrupts(&lab, &model, &given);
    }
    lab.carry_out(Op::Close);
    assert_eq!((lab.space.windows().count(), lab.told.bound), (0, 0), "left behind");
    assert!(lab.pins.live.is_empty() && lab.locked.pages(MmId(1)) == 0, "left pinned");
}

/// What holds whatever the model says.
fn check_engine(lab: &Lab) {
    let space = &lab.space;
    let windows: Vec<_> = space.windows().collect();
    for (n, window) in windows.iter().enumerate() {
        assert!(space.mappings().all(|(r, _)| !r.overlaps(window.range)), "mapped in a window");
        assert!(
            windows[n + 1..].iter().all(|w| !w.range.overlaps(window.range)),
            "windows overlap"
        );
    }
    for domain in space.domains().iter().filter(|d| d.max_windows().is_some()) {
        let pool = domain.pool().expect("a pool");
        assert_eq!(pool.windows().collect::<Vec<_>>(), windows, "windows of a domain");
        let bound: Vec<_> = pool.bindings().collect();
        for (n, (consumer, key, slot)) in bound.iter().enumerate() {
            assert!(bound[n + 1..].iter().all(|b| b.2.iova != slot.iova), "two bindings, one page");
            let page = IovaRange::sized(slot.iova, PAGE).expect("a page");
            let holds = |w: &softvfio_iommu::Window| {
                w.range.covers(page) && w.consumer == *consumer && w.prot.contains(Prot::WRITE)
            };
            assert!(windows.iter().any(holds), "bound outside the windows");
            assert_eq!(pool.resolve(slot.iova + 0x40), Some((*consumer, *key)), "resolve");
        }
        let references: u64 = bound.iter().map(|b| b.2.references).sum();
        let enabled: u64 = domain.members().iter().map(|m| m.enabled).sum();
        assert_eq!(references, enabled, "references and enabled sets");
    }
}

fn check_same(lab: &Lab, model: &Model) {
    let space = &lab.space;
    assert_eq!(space.windows().collect::<Vec<_>>(), model.sorted(), "windows");
    let mut told = lab.told.windows.clone();
    told.sort_by_key(|w| w.range);
    assert_eq!(told, model.sorted(), "windows as told");
    let mut maps: Vec<IovaRange> = model.maps.iter().map(|m| m.0).collect();
    maps.sort();
    assert_eq!(space.mappings().map(|(r, _)| r).collect::<Vec<_>>(), maps, "mappings");
    assert_eq!(space.available(), MAX_MAPPINGS - maps.len() as u32, "available");
    let valid: Vec<_> = space.valid_ranges().into_iter().map(span).collect();
    assert_eq!(valid, model.valid(true), "valid ranges");
    assert_eq!(space.page_sizes().smallest(), model.granule(), "page size");
    assert_eq!(space.max_windows(), model.limit(), "windows allowed");
    // What a window must hold: domains whose driver has a window of its own do not count.
    let user = |d: &&super::model::Domain| matches!(model.policy(d), MsiPolicy::User { .. });
    let needed = model.domains.iter().filter(user).map(|d| model.needed(d)).max();
    assert_eq!(space.doorbell_pages_needed(), needed.unwrap_or(0), "pages needed");
    assert_eq!(space.domains().len(), model.domains.len(), "domains");
    for (found, expected) in space.domains().iter().zip(&model.domains) {
        let groups: Vec<u32> = found.members().iter().map(|m| m.group).collect();
        assert_eq!(groups, expected.groups, "groups of a domain");
        let Some(pool) = found.pool() else { continue };
        let user = found.max_windows().is_some();
        let mut bound: Vec<(u64, u64, u64)> = vec![];
        for enabled in &expected.enabled {
            match bound.iter_mut().find(|b| b.0 == enabled.page) {
                Some(slot) => slot.2 += u64::from(user),
                None => bound.push((enabled.page, enabled.iova, 1)),
            }
        }
        bound.sort_unstable();
        let references = |r: u64| if user { r } else { 1 };
        let found: Vec<_> =
            pool.bindings().map(|(_, key, s)| (key, s.iova, references(s.references))).collect();
        assert_eq!(found, bound, "bindings");
        for window in pool.windows() {
            let used = bound.iter().filter(|b| window.range.contains(b.1)).count() as u64;
            assert_eq!(pool.used_pages(window.range.first()), used, "used pages");
        }
    }
    for window in model.sorted() {
        let used = space.window_used_pages(window.range.first());
        assert_eq!(used, model.used(window.range), "used pages of a window");
    }
    assert!(space.windows().all(|w| w.consumer == Consumer::MSI || model.used(w.range) == 0));
}

/// An MSI at every address that was ever given reaches what is bound there now, or faults.
fn check_interrupts(lab: &Lab, model: &Model, given: &[(u32, u64)]) {
    for (group, iova) in given {
        let found = lab.space.translate(*group, *iova, Prot::WRITE);
        let Some(domain) = model.domain_of(*group) else {
            assert_eq!(found.map_err(|f| f.reason), Err(FaultReason::NoDomain));
            continue;
        };
        let mapped = |m: &&(IovaRange, u64)| m.0.contains(*iova);
        if let Some((range, vaddr)) = model.maps.iter().find(mapped) {
            let Ok(Translation::Memory { at, .. }) = found else { panic!("{found:?} in memory") };
            assert_eq!(at.vaddr, vaddr + (iova - range.first()));
            continue;
        }
        let page = iova / PAGE * PAGE;
        let bound = domain.enabled.iter().find(|e| e.iova == page).map(|e| e.page + iova % PAGE);
        let implicit = model.policy(domain) == MsiPolicy::Implicit;
        let reached = bound.or(implicit.then(|| model.doorbell(*group)));
        let expected = match reached {
            Some(address) => Ok(Translation::Doorbell { address }),
            None => Err(FaultReason::NotMapped),
        };
        assert_eq!(found.map_err(|f| f.reason), expected, "an MSI of group {group} at {iova:#x}");
    }
    for domain in &model.domains {
        for enabled in &domain.enabled {
            if !domain.groups.contains(&enabled.group) {
                continue;
            }
            let address = model.doorbell(enabled.group);
            let found =
                lab.space.translate(enabled.group, enabled.iova + address % PAGE, Prot::WRITE);
            assert_eq!(found, Ok(Translation::Doorbell { address }), "an enabled interrupt");
        }
    }
}
