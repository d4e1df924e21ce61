//! An explanation for people.

use std::cmp::Ordering;
use std::fmt::Write;

use draw::size::{human, span, wrap};
use serde_json::Value;
use trace::{Checks, Order};
use vfio::Refusal;
use vfio::order::find;

use super::find::Case;
use super::legal::legal;
use super::request::{answer, range};
use super::way::{nearest, obstacles};

/// Characters of a line of sentences, where a terminal is not narrower.
pub(super) const WIDTH: usize = 96;
/// Others of a kind that are shown.
const SHOWN: usize = 8;

/// Text, painted or plain.
struct Page {
    out: String,
    colour: bool,
    width: usize,
}

impl Page {
    fn paint(&self, code: &str, text: &str) -> String {
        if self.colour && !code.is_empty() {
            format!("\u{1b}[{code}m{text}\u{1b}[0m")
        } else {
            text.to_owned()
        }
    }

    fn line(&mut self, text: &str) {
        let _ = writeln!(self.out, "  {text}");
    }

    /// A heading after an empty line.
    fn heading(&mut self, code: &str, text: &str) {
        let text = self.paint(code, text);
        let _ = writeln!(self.out, "\n{text}");
    }

    /// Sentences, as many lines as they need.
    fn sentences(&mut self, text: &str) {
        for line in wrap(text, self.width.saturating_sub(2), 12) {
            self.line(&line);
        }
    }
}

/// For people.
pub(super) fn text(case: &Case, colour: bool, width: usize) -> String {
    let mut page = Page { out: String::new(), colour, width };
    let outcome = &case.outcome;
    let number = page.paint("1", &outcome.request.to_string());
    let place = match case.typed {
        true => case.file.clone(),
        false => format!("{}:{}", case.file, outcome.line),
    };
    let _ = writeln!(page.out, "request {number} ({place})");
    page.line(&Value::Object(outcome.asked()).to_string());
    if let Some(range) = range(outcome) {
        page.line(&span(range));
    }
    match outcome.why.as_deref() {
        Some(why) => {
            page.heading("1;31", &format!("refused: {}", answer(outcome)));
            page.sentences(why);
        }
        None => {
            page.heading("1;32", "answered");
            page.sentences(&Value::Object(outcome.got.to_map()).to_string());
        }
    }
    for (heading, says) in [("suspicious", &case.suspicion), ("changed all the same", &case.effect)]
    {
        if let Some(says) = says {
            page.heading("1;33", heading);
            page.sentences(says);
        }
    }
    checks(&mut page, case);
    if let Some(refusal) = &outcome.refusal {
        way(&mut page, case, refusal);
    }
    kernels(&mut page, case);
    if !case.other.is_empty() {
        page.heading("1", "Refused after it");
        for (request, op) in case.other.iter().take(SHOWN) {
            page.line(&match case.typed {
                true => format!("request {request}   {op}"),
                false => format!("softvfio explain {}:{request}   {op}", case.file),
            });
        }
        if case.other.len() > SHOWN {
            page.line(&format!("and {} more", case.other.len() - SHOWN));
        }
    }
    page.out
}

/// The checks, and how far the request came.
fn checks(page: &mut Page, case: &Case) {
    let Checks { request, source, rules } = match &case.order {
        Order::None(why) => {
            page.heading("1", "VFIO checks nothing");
            page.sentences(why);
            return;
        }
        Order::Checks(checks) if checks.rules.is_empty() => {
            page.heading("1", &format!("{} checks nothing ({})", checks.request, checks.source));
            return;
        }
        Order::Checks(checks) => checks,
    };
    let refusal = case.outcome.refusal.as_ref();
    let at = match (refusal, &case.outcome.why) {
        (Some(refusal), _) => find(rules, refusal),
        (None, None) => Some(rules.len()),
        (None, Some(_)) => {
            page.heading("1", &format!("{request} was not reached"));
            page.sentences("the kernel refused before it asked VFIO, which has checked nothing");
            return;
        }
    };
    let Some(at) = at else { return };
    page.heading("1", &format!("{request} checks, in this order ({source})"));
    for (place, rule) in rules.iter().enumerate() {
        let (sign, code) = match place.cmp(&at) {
            Ordering::Less => ("\u{2713}", ""),
            Ordering::Equal => ("\u{2717}", "1;31"),
            Ordering::Greater => ("\u{b7}", "2"),
        };
        let errno = rule.errno.name().unwrap_or("");
        // A long check goes on below itself.
        for (row, says) in wrap(rule.says, 78, 3).iter().enumerate() {
            let line = match row {
                0 => format!("{:>2}. {errno:9} {says}", place + 1),
                _ => format!("{:14}{says}", ""),
            };
            let line = page.paint(code, &line);
            page.line(&format!("{} {line}", if row == 0 { sign } else { " " }));
        }
    }
    if at < rules.len() {
        page.line("(\u{b7}: not looked at any more)");
    }
}

/// What is in the way, who put it there, and where the way is free.
fn way(page: &mut Page, case: &Case, refusal: &Refusal) {
    let found = obstacles(case);
    if !found.is_empty() {
        page.heading("1", "In the way");
        for obstacle in found.iter().take(SHOWN) {
            let place = obstacle.range.map(|r| format!("{}: ", span(r))).unwrap_or_default();
            let since = obstacle.since.map(|n| format!(", since request {n}")).unwrap_or_default();
            page.line(&format!("{place}{}{since}", obstacle.what));
        }
        if found.len() > SHOWN {
            page.line(&format!("and {} more", found.len() - SHOWN));
        }
    }
    if let Some(nearest) = nearest(refusal) {
        let size = human(u128::from(nearest.size));
        page.heading("1", &format!("Legal for {size}"));
        for (iova, side) in [(nearest.below, "below"), (nearest.above, "above")] {
            if let Some(iova) = iova {
                page.line(&format!("{iova:#x}, the nearest {side}"));
            }
        }
        if (nearest.above, nearest.below) == (None, None) {
            page.line("nothing near");
        }
    }
    if let Some(legal) = legal(refusal) {
        page.heading("1", "Legal");
        page.sentences(&legal);
    }
}

/// The same requests under every kernel.
fn kernels(page: &mut Page, case: &Case) {
    page.heading("1", "The same requests on other kernels");
    for other in &case.kernels {
        let own = if other.kernel == case.kernel { " (this one)" } else { "" };
        let same = other.answer == answer(&case.outcome) && other.why == case.outcome.why;
        let says = match &other.why {
            Some(why) if !same => format!("{}: {why}", other.answer),
            _ => other.answer.clone(),
        };
        let sign = if same { "=" } else { "\u{2260}" };
        page.line(&format!("{sign} {:5}{own:11} {says}", other.kernel));
    }
}
