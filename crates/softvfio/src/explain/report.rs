//! An explanation for people and for programs.

use std::fmt::Write;

use draw::Kind;
use draw::size::{human, span, wrap};
use draw::story::{Life, Story};
use iommu::IovaRange;
use serde_json::{Value, json};
use trace::Outcome;
use vfio::order::find;

use super::Case;
use super::rules::{in_the_way, nearest, order, range, suspicion};

/// Characters of a line of sentences, where a terminal is not narrower.
pub(super) const WIDTH: usize = 96;
/// Others of a kind that are shown.
const SHOWN: usize = 8;

/// What was answered, in a word.
pub(super) fn answer(outcome: &Outcome) -> String {
    match outcome.got.get("errno") {
        Some(Value::String(errno)) => errno.clone(),
        Some(other) => other.to_string(),
        None => match outcome.got.get("killed") {
            Some(signal) => signal.to_string(),
            None => outcome.got.get("ret").map_or_else(|| "nothing".into(), Value::to_string),
        },
    }
}

/// What lies in or on a range, and since which request.
fn there<'a>(case: &'a Case, way: &[IovaRange]) -> Vec<(&'a Story, &'a Life)> {
    let mut found = Vec::new();
    // Whatever else is where the request wants to be would be in the way next.
    let asked = range(&case.outcome).filter(|_| !way.is_empty());
    let asked = asked.filter(|_| matches!(case.outcome.op(), "map"));
    for story in &case.stories {
        for life in &story.lives {
            let exact = way.contains(&life.range)
                || (life.kind == Kind::Doorbell && way.iter().any(|w| w.covers(life.range)));
            let next =
                asked.is_some_and(|a| a.overlaps(life.range)) && life.kind != Kind::Relaxable;
            if life.to.is_none() && (exact || next) {
                found.push((story, life));
            }
        }
    }
    found
}

fn what(story: &Story, life: &Life) -> String {
    let name = story.name(life);
    match life.kind {
        Kind::Mapping => format!("a mapping of {name}"),
        _ => name.to_owned(),
    }
}

/// For people.
pub(super) fn text(case: &Case, colour: bool, width: usize) -> String {
    let paint = |code: &str, text: &str| {
        if colour { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    };
    let outcome = &case.outcome;
    let mut out = String::new();
    let asked = Value::Object(outcome.asked()).to_string();
    let place = match case.typed {
        true => case.file.clone(),
        false => format!("{}:{}", case.file, outcome.line),
    };
    let _ = writeln!(out, "request {} ({place})", paint("1", &outcome.request.to_string()));
    let _ = writeln!(out, "  {asked}");
    if let Some(range) = range(outcome) {
        let _ = writeln!(out, "  {}", span(range));
    }
    let refused = outcome.why.as_deref();
    match refused {
        Some(why) => {
            let _ = writeln!(out, "\n{}", paint("1;31", &format!("refused: {}", answer(outcome))));
            indent(&mut out, why, width);
        }
        None => {
            let got = outcome.got.to_string();
            let _ = writeln!(out, "\n{}", paint("1;32", "answered"));
            indent(&mut out, &got, width);
            if let Some(odd) = suspicion(outcome) {
                let _ = writeln!(out, "\n{}", paint("1;33", "suspicious"));
                indent(&mut out, &odd, width);
            }
        }
    }
    let refusal = outcome.refusal.as_ref();
    if let Some((name, source, rules)) = order(case) {
        let at = refusal.map_or(Some(rules.len()), |r| find(&rules, r));
        if let Some(at) = at.filter(|_| refused.is_none() || refusal.is_some()) {
            let title = format!("{name} checks, in this order ({source})");
            let _ = writeln!(out, "\n{}", paint("1", &title));
            for (place, rule) in rules.iter().enumerate() {
                let (sign, code) = match place.cmp(&at) {
                    std::cmp::Ordering::Less => ("\u{2713}", "32"),
                    std::cmp::Ordering::Equal => ("\u{2717}", "1;31"),
                    std::cmp::Ordering::Greater => ("\u{b7}", "2"),
                };
                let errno = rule.errno.name().unwrap_or("");
                let line = format!("{:>2}. {:9} {}", place + 1, errno, rule.says);
                let code = if place == at {
                    code
                } else if place > at {
                    "2"
                } else {
                    ""
                };
                let line = if code.is_empty() { line } else { paint(code, &line) };
                let _ = writeln!(out, "  {sign} {line}");
            }
            if at < rules.len() {
                let _ = writeln!(out, "  \u{b7} was not looked at any more");
            }
        }
    }
    if let Some(refusal) = refusal {
        way(&mut out, case, refusal, &paint);
    }
    let _ = writeln!(out, "\n{}", paint("1", "The same requests on other kernels"));
    for (name, answer, why) in &case.kernels {
        let own = if *name == case.dialect.name { " (this one)" } else { "" };
        let same = *answer == self::answer(outcome) && *why == outcome.why;
        let says = match why {
            Some(why) if !same => format!("{answer}: {why}"),
            _ => answer.clone(),
        };
        let sign = if same { "=" } else { "\u{2260}" };
        let _ = writeln!(out, "  {sign} {name:5}{own:11} {says}");
    }
    if !case.other.is_empty() {
        let _ = writeln!(out, "\n{}", paint("1", "Refused after it"));
        for (request, op) in case.other.iter().take(SHOWN) {
            let _ = match case.typed {
                true => writeln!(out, "  request {request}   {op}"),
                false => writeln!(out, "  softvfio explain {}:{request}   {op}", case.file),
            };
        }
        if case.other.len() > SHOWN {
            let _ = writeln!(out, "  and {} more", case.other.len() - SHOWN);
        }
    }
    out
}

/// What is in the way, who put it there, and where the way is free.
fn way(
    out: &mut String,
    case: &Case,
    refusal: &vfio::Refusal,
    paint: &dyn Fn(&str, &str) -> String,
) {
    let ranges = in_the_way(refusal);
    if !ranges.is_empty() {
        let _ = writeln!(out, "\n{}", paint("1", "In the way"));
        let found = there(case, &ranges);
        for (story, life) in found.iter().take(SHOWN) {
            let since = format!("since request {}", life.from);
            let _ = writeln!(out, "  {}: {}, {since}", span(life.range), what(story, life));
        }
        for range in ranges.iter().filter(|r| !found.iter().any(|(_, l)| l.range == **r)) {
            let _ = writeln!(out, "  {}", span(*range));
        }
        if found.len() > SHOWN {
            let _ = writeln!(out, "  and {} more", found.len() - SHOWN);
        }
    }
    if let Some(nearest) = nearest(refusal) {
        let size = human(u128::from(nearest.size));
        let _ = writeln!(out, "\n{}", paint("1", &format!("Legal for {size}")));
        for (iova, side) in [(nearest.below, "below"), (nearest.above, "above")] {
            if let Some(iova) = iova {
                let _ = writeln!(out, "  {iova:#x}, the nearest {side}");
            }
        }
        if (nearest.above, nearest.below) == (None, None) {
            let _ = writeln!(out, "  nothing near");
        }
    }
}

fn indent(out: &mut String, text: &str, width: usize) {
    for line in wrap(text, width.saturating_sub(2), 12) {
        let _ = writeln!(out, "  {line}");
    }
}

/// For programs; `docs/draw.md` has the members.
pub(super) fn json(case: &Case) -> Value {
    let outcome = &case.outcome;
    let refusal = outcome.refusal.as_ref();
    let hex = |iova: u64| format!("{iova:#x}");
    let rules = order(case).map(|(_, _, rules)| {
        let at = refusal.and_then(|r| find(&rules, r));
        let rule = |(place, rule): (usize, &vfio::order::Rule)| {
            let verdict = match at.map(|at| place.cmp(&at)) {
                None if refusal.is_some() => "unknown",
                None | Some(std::cmp::Ordering::Less) => "held",
                Some(std::cmp::Ordering::Equal) => "failed",
                Some(std::cmp::Ordering::Greater) => "not reached",
            };
            json!({"says": rule.says, "errno": rule.errno.name(), "verdict": verdict})
        };
        rules.iter().enumerate().map(rule).collect::<Vec<_>>()
    });
    let ranges = refusal.map(in_the_way).unwrap_or_default();
    let found: Vec<Value> = there(case, &ranges)
        .iter()
        .map(|(story, life)| {
            json!({
                "first": hex(life.range.first()), "last": hex(life.range.last()),
                "what": what(story, life), "since": life.from,
            })
        })
        .collect();
    let nearest = refusal.and_then(nearest);
    let kernels: Vec<Value> = case
        .kernels
        .iter()
        .map(|(name, answer, why)| json!({"kernel": name, "answer": answer, "why": why}))
        .collect();
    json!({
        "file": case.file,
        "line": outcome.line,
        "request": outcome.request,
        "op": outcome.op(),
        "asked": outcome.asked(),
        "got": outcome.got,
        "why": outcome.why,
        "suspicion": suspicion(outcome),
        "rules": rules,
        "in_the_way": found,
        "nearest": nearest.map(|n| json!({"below": n.below.map(hex), "above": n.above.map(hex)})),
        "kernel": case.dialect.name,
        "kernels": kernels,
        "refused_after": case.other.iter().map(|(request, _)| request).collect::<Vec<_>>(),
    })
}
