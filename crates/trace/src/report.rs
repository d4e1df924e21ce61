//! Outcomes for people and for programs.

use std::io::{self, Write};

use serde_json::{Map, Value, json};

use crate::session::{Outcome, Verdict};

/// Counts of a replay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Recorded answers seen.
    pub answers: u64,
    /// Answers that were ours too.
    pub matched: u64,
    /// Answers in which we knowingly differ.
    pub deviations: u64,
}

impl Tally {
    /// Counts an outcome.
    pub fn add(&mut self, outcome: &Outcome) {
        match outcome.verdict {
            Verdict::Unasked => return,
            Verdict::Matched => self.matched += 1,
            Verdict::Deviates(_) => self.deviations += 1,
            Verdict::Mismatched(_) => {}
        }
        self.answers += 1;
    }

    /// Answers that differ.
    #[must_use]
    pub const fn mismatches(&self) -> u64 {
        self.answers - self.matched - self.deviations
    }

    /// The last line of a report for people.
    #[must_use]
    pub fn line(&self) -> String {
        let Self { answers, matched, deviations } = self;
        format!("{answers} answers, {matched} matched, {deviations} known deviations")
    }

    /// The last line of a report for programs.
    #[must_use]
    pub fn json(&self) -> Value {
        json!({"summary": {
            "answers": self.answers,
            "matched": self.matched,
            "deviations": self.deviations,
            "mismatches": self.mismatches(),
        }})
    }
}

/// Writes an outcome for people: mismatches always, refusals when `explain`.
///
/// # Errors
/// Those of `out`.
pub fn text(out: &mut dyn Write, file: &str, outcome: &Outcome, explain: bool) -> io::Result<()> {
    let Outcome { line, request, why, .. } = outcome;
    let why = why.as_deref();
    if let Verdict::Mismatched(differences) = &outcome.verdict {
        writeln!(out, "{file}:{line}: request {request} differs")?;
        writeln!(out, "  request:  {}", Value::Object(outcome.asked()))?;
        for difference in differences {
            writeln!(out, "  {difference}")?;
        }
        if differences.is_empty() {
            let want = outcome.want().unwrap_or_default();
            writeln!(out, "  expected: {want}, got no answer")?;
        }
        return match why {
            Some(why) => writeln!(out, "  why ours: {why}"),
            None => Ok(()),
        };
    }
    match (why, explain) {
        (Some(why), true) => {
            // It may be anything; a terminal must not obey it.
            let op = outcome.op().replace(char::is_control, "\u{fffd}");
            let errno = outcome.got.iter().next().map(|(_, v)| v.as_str().unwrap_or_default());
            let errno = errno.unwrap_or_default();
            writeln!(out, "{file}:{line}: request {request} {op}: {errno}: {why}")
        }
        _ => Ok(()),
    }
}

/// Writes an outcome for programs, one object a line: mismatches and deviations always, refusals
/// when `explain`.
///
/// # Errors
/// Those of `out`.
pub fn json_line(
    out: &mut dyn Write,
    file: &str,
    outcome: &Outcome,
    explain: bool,
) -> io::Result<()> {
    let (verdict, differences) = match &outcome.verdict {
        Verdict::Mismatched(differences) => ("mismatch", differences.as_slice()),
        Verdict::Deviates(_) => ("deviation", &[][..]),
        Verdict::Matched if explain && outcome.why.is_some() => ("match", &[][..]),
        Verdict::Unasked if explain && outcome.why.is_some() => ("unasked", &[][..]),
        _ => return Ok(()),
    };
    let mut line = Map::new();
    line.insert("file".into(), file.into());
    line.insert("line".into(), outcome.line.into());
    line.insert("request".into(), outcome.request.into());
    line.insert("verdict".into(), verdict.into());
    line.insert("asked".into(), Value::Object(outcome.asked()));
    line.insert("want".into(), outcome.want().unwrap_or_default());
    line.insert("got".into(), Value::Object(outcome.got.to_map()));
    if verdict == "mismatch" {
        let fields: Vec<_> = differences.iter().map(|d| d.field.clone()).collect();
        line.insert("fields".into(), fields.into());
    }
    if let Verdict::Deviates(row) = &outcome.verdict {
        line.insert("deviation".into(), row.why.into());
    }
    line.insert("why".into(), outcome.why.clone().into());
    writeln!(out, "{}", Value::Object(line))
}
