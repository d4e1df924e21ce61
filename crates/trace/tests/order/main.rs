//! The order of checks that `vfio::order` tells is the order in which requests are refused.
//!
//! Two ways to see it: requests made for it, each of which fails one check and everything it can of
//! what comes after; and the recorded traces, whose every refusal must come from a check with that
//! errno.

mod recorded;

use iommu::Dialect;
use softvfio_trace::{Checks, Options, Order, Outcome, Reader, Session, Step};
use vfio::order::find;

/// A refused request and its checks.
struct Refused {
    outcome: Outcome,
    checks: Checks,
}

impl Refused {
    /// The check that refused, whose errno must be the answer.
    fn failed(&self) -> usize {
        let (outcome, rules) = (&self.outcome, &self.checks.rules);
        let refusal = outcome.refusal.as_ref().unwrap();
        let at = find(rules, refusal);
        let at = at.unwrap_or_else(|| panic!("no rule for {refusal:?}: {}", outcome.text));
        let errno = outcome.got["errno"].as_str();
        assert_eq!(errno, rules[at].errno.name(), "{refusal:?}: {}", outcome.text);
        at
    }
}

/// What VFIO refuses of a session's requests, with their checks.
fn refused<R: std::io::BufRead>(mut session: Session<R>) -> Vec<Refused> {
    let mut found = Vec::new();
    while let Some(step) = session.step().unwrap() {
        let Step::Request(outcome) = step else { continue };
        if outcome.refusal.is_none() {
            continue;
        }
        match session.order(&outcome.asked) {
            Order::Checks(checks) => found.push(Refused { outcome: *outcome, checks }),
            Order::None(why) => panic!("{why}: {}", outcome.text),
        }
    }
    found
}

/// What is refused of a script.
fn refused_of(script: &str, dialect: &'static Dialect) -> Vec<Refused> {
    let options = Options { dialect: Some(dialect), ..Options::default() };
    let reader = Reader::new(script.as_bytes(), "script");
    let session = Session::start(reader, &options).map_err(|error| error.to_string()).unwrap();
    refused(session)
}
