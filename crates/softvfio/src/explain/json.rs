//! An explanation for programs; `docs/draw.md` has the members.

use std::cmp::Ordering;

use serde_json::{Value, json};
use trace::Order;
use vfio::order::{Rule, find};

use super::find::Case;
use super::legal::legal;
use super::way::{nearest, obstacles};

/// One object.
pub(super) fn json(case: &Case) -> Value {
    let outcome = &case.outcome;
    let refusal = outcome.refusal.as_ref();
    let hex = |iova: u64| format!("{iova:#x}");
    let in_the_way: Vec<Value> = obstacles(case)
        .iter()
        .map(|obstacle| {
            json!({
                "first": obstacle.range.map(|r| hex(r.first())),
                "last": obstacle.range.map(|r| hex(r.last())),
                "what": obstacle.what, "since": obstacle.since,
            })
        })
        .collect();
    let kernels: Vec<Value> = case
        .kernels
        .iter()
        .map(|k| json!({"kernel": k.kernel, "answer": k.answer, "why": k.why}))
        .collect();
    let nearest = refusal.and_then(nearest);
    json!({
        "format": "softvfio-explain/1",
        "file": case.file,
        "line": outcome.line,
        "request": outcome.request,
        "op": outcome.op(),
        "asked": outcome.asked(),
        "got": outcome.got.to_map(),
        "why": outcome.why,
        "suspicion": case.suspicion,
        "effect": case.effect,
        "rules": rules(case),
        "in_the_way": in_the_way,
        "nearest": nearest.map(|n| json!({"below": n.below.map(hex), "above": n.above.map(hex)})),
        "legal": refusal.and_then(legal),
        "kernel": case.kernel,
        "kernels": kernels,
        "refused_after": case.other.iter().map(|(request, _)| request).collect::<Vec<_>>(),
    })
}

/// The checks and how each went; nothing where there are none.
fn rules(case: &Case) -> Option<Vec<Value>> {
    let Order::Checks(checks) = &case.order else { return None };
    let at = match (&case.outcome.refusal, &case.outcome.why) {
        (Some(refusal), _) => Some(find(&checks.rules, refusal)?),
        (None, None) => Some(checks.rules.len()),
        // Whoever refused did so before VFIO was asked.
        (None, Some(_)) => None,
    };
    let verdict = |place: usize| match at.map(|at| place.cmp(&at)) {
        Some(Ordering::Less) => "held",
        Some(Ordering::Equal) => "failed",
        Some(Ordering::Greater) | None => "not reached",
    };
    let rule = |(place, rule): (usize, &Rule)| json!({"says": rule.says, "errno": rule.errno.name(), "verdict": verdict(place)});
    Some(checks.rules.iter().enumerate().map(rule).collect())
}
