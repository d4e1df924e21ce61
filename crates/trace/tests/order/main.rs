//! The order of checks that `vfio::order` tells is the order in which requests are refused.
//!
//! Two ways to see it: requests made for it, each of which fails one check and everything it can of
//! what comes after; and the recorded traces, whose every refusal must come from a check with that
//! errno.

mod container;
mod device;
mod feature;
mod group;
mod irq;
mod numbers;
mod recorded;
mod region;
mod type1;
mod window;

use std::collections::BTreeSet;

use iommu::Dialect;
use serde_json::{Value, json};
use softvfio_trace::{Checks, Options, Order, Outcome, Reader, Session, Step, hosts};
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
        let errno = outcome.got.get("errno").and_then(Value::as_str);
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
        match session.order(&outcome) {
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

/// Each script's refusals come from no earlier check than those before them, in the order that is written down; all
/// of them together from every check of the requests refused, but for those `skipped`. What a script
/// has refused fails, beside its check, whatever it can of the later ones: that is what shows the
/// order.
fn ascend(dialect: &'static Dialect, scripts: &[String], skipped: &[&str]) {
    let (mut all, mut failed) = (BTreeSet::new(), BTreeSet::new());
    for script in scripts {
        let mut before: Vec<&str> = Vec::new();
        for refused in refused_of(script, dialect) {
            let (at, rules) = (refused.failed(), &refused.checks.rules);
            let place = |says: &str| rules.iter().position(|rule| rule.says == says);
            for says in &before {
                let earlier = place(says).is_none_or(|earlier| earlier <= at);
                let (dialect, now) = (dialect.name, rules[at].says);
                assert!(earlier, "{dialect}: {now:?} after {says:?}: {}", refused.outcome.text);
            }
            before.push(rules[at].says);
            all.extend(rules.iter().map(|rule| rule.says));
        }
        failed.extend(before);
    }
    for says in skipped {
        assert!(all.contains(says) && !failed.contains(says), "{says:?} is not to be skipped");
    }
    for says in all.difference(&failed) {
        assert!(skipped.contains(says), "{}: {says:?} is not tested", dialect.name);
    }
}

/// A built-in host's header, changed.
fn machine(name: &str, change: impl FnOnce(&mut Value)) -> String {
    let mut header = Value::Object(hosts::header(name).unwrap());
    change(&mut header);
    header.to_string() + "\n"
}

/// Another device like `edu`, with some members of its own.
fn device(header: &mut Value, name: &str, members: Value) {
    let mut device = header["devices"]["edu"].clone();
    device.as_object_mut().unwrap().append(&mut members.as_object().unwrap().clone());
    if members.get("bdf").is_some() && members.get("group_devices").is_none() {
        device["group_devices"] = json!([members["bdf"]]);
    }
    header["devices"][name] = device;
}

/// A raw request of descriptor `fd` with 32-bit words as its argument.
fn words(fd: &str, request: u32, words: &[u32]) -> String {
    let bytes = words.iter().flat_map(|word| word.to_le_bytes());
    let data: String = bytes.map(|byte| format!("{byte:02x}")).collect();
    json!({"op": "ioctl", "fd": fd, "cmd": request, "data": data}).to_string() + "\n"
}

/// A raw request of descriptor `fd` with a number as its argument.
fn value(fd: &str, request: u32, value: u64) -> String {
    json!({"op": "ioctl", "fd": fd, "cmd": request, "value": value}).to_string() + "\n"
}
