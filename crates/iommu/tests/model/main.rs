//! The engine against a reference model that shares no logic with it, over random sequences of
//! everything that can be done to an address space.
//!
//! After every step both give the same answer, payload included, and hold the same mappings, valid
//! ranges, page sizes, locked pages, pins, doorbells and dirty bits; and what devices meet is what
//! the model's list of mappings says. Sequences are steered so that every refusal occurs often,
//! which is asserted. With the feature `planted`, each bug planted in the engine must be caught.
//!
//! `MODEL_SEED` and `MODEL_CASES` choose another run than the usual one.

extern crate softvfio_iommu as iommu;

mod dirty;
mod groups;
mod machine;
mod near;
mod op;
mod outcome;
mod reference;
mod span;
mod system;
mod tally;
mod world;

use std::ops::Range;
use std::sync::{Mutex, PoisonError};
use std::{env, panic};

use proptest::test_runner::{Config, RngAlgorithm, TestError, TestRng, TestRunner};
use proptest_state_machine::{ReferenceStateMachine, StateMachineTest};

use machine::Machine;
use system::System;

/// Sequences of a run.
const CASES: u32 = 800;
/// Steps of a sequence.
const STEPS: Range<usize> = 30..130;

/// The tally of what was met, and what is planted, are of the whole process.
static TURN: Mutex<()> = Mutex::new(());

#[test]
fn the_engine_is_what_the_model_says_and_every_refusal_occurs() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Err(why) = run(number("MODEL_CASES", CASES), 4096) {
        panic!("{why}");
    }
    let met = tally::take();
    let mut rare = Vec::new();
    for name in tally::REACHABLE {
        let times = met.get(name).copied().unwrap_or(0);
        println!("{times:6} {name}");
        if times < tally::AT_LEAST {
            rare.push((name, times));
        }
    }
    assert_eq!(rare, [], "refusals that a run must meet {} times", tally::AT_LEAST);
    for (name, why) in tally::UNREACHABLE {
        assert!(!met.contains_key(name), "{name:?} was said to be out of reach: {why}");
    }
    let known = |name: &&&str| tally::REACHABLE.contains(name);
    assert_eq!(met.keys().find(|name| !known(name)), None, "a name that no table has");
}

#[cfg(feature = "planted")]
#[test]
fn every_planted_bug_is_caught() {
    /// Enough to see what is wrong. (None would make the state machine's strategy panic.)
    const SHRINKS: u32 = 40;
    use iommu::planted::{Bug, plant};

    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    for bug in Bug::ALL {
        plant(Some(bug));
        let caught = run(CASES, SHRINKS);
        plant(None);
        let why = caught.expect_err(&format!("{bug:?} was not caught"));
        println!("{bug:?}: {}", why.lines().next().unwrap_or_default());
    }
    tally::take();
}

/// Runs the state machine; the failure as text.
fn run(cases: u32, max_shrink_iters: u32) -> Result<(), String> {
    let config = Config { cases, max_shrink_iters, failure_persistence: None, ..Config::default() };
    let mut seed = [7; 16];
    seed[..4].copy_from_slice(&number("MODEL_SEED", 1).to_le_bytes());
    // Strategies make generators all the time, which takes long with a better one.
    let rng = TestRng::from_seed(RngAlgorithm::XorShift, &seed);
    let mut runner = TestRunner::new_with_rng(config.clone(), rng);
    // What fails is told once, after it was made small.
    let hook = panic::take_hook();
    panic::set_hook(Box::new(|i| {
        if std::env::var("DBG").is_ok() {
            eprintln!("{i}")
        }
    }));
    let outcome = runner.run(&Machine::sequential_strategy(STEPS), |(model, steps, seen)| {
        System::test_sequential(config.clone(), model, steps, seen);
        Ok(())
    });
    panic::set_hook(hook);
    outcome.map_err(|error| match error {
        TestError::Fail(why, (model, steps, _)) => {
            let steps: Vec<String> = steps.iter().map(|s| format!("  {s:x?}")).collect();
            format!("{why}\nfrom {:x?} by\n{}", model.setup, steps.join("\n"))
        }
        TestError::Abort(why) => format!("no run: {why}"),
    })
}

fn number(name: &str, usual: u32) -> u32 {
    env::var(name).map_or(usual, |n| n.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}
