//! `softvfio doctor`: whether this machine can run programs, and what to enable.

use std::process::ExitCode;

use clap::Args;
use serde_json::{Value, json};
use supervise::sandbox::{Check, Verdict, doctor};

use crate::output::print;

const EXAMPLES: &str = "\
Examples:
  softvfio doctor           each check, and what to enable where one fails
  softvfio doctor --json    the same for programs (docs/door.md)

Exit status: 0 when `softvfio run` works here, 1 when it does not.";

/// Try each thing that `softvfio run` needs, and say what to enable where it is missing.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Doctor {
    /// Write JSON for programs
    #[arg(long)]
    json: bool,
}

impl Doctor {
    pub(crate) fn run(&self) -> ExitCode {
        let checks = doctor();
        let any = |verdict| checks.iter().any(|check| check.verdict == verdict);
        let (failed, warned) = (any(Verdict::Fail), any(Verdict::Warn));
        let status = u8::from(failed);
        if self.json {
            return print(&format!("{:#}\n", document(&checks, !failed)), status, 2);
        }
        let mut text: String = checks.iter().map(|check| format!("{check}\n")).collect();
        text += match (failed, warned) {
            (false, false) => "softvfio run works here\n",
            (false, true) => "softvfio run works here, with the limits above\n",
            (true, _) => "softvfio run does not work here\n",
        };
        print(&text, status, 2)
    }
}

/// A `softvfio-doctor/1`.
fn document(checks: &[Check], works: bool) -> Value {
    let check = |check: &Check| {
        let verdict = match check.verdict {
            Verdict::Ok => "ok",
            Verdict::Warn => "warn",
            Verdict::Fail => "fail",
        };
        json!({
            "name": check.name, "verdict": verdict, "found": check.found, "remedy": check.remedy,
        })
    };
    let checks: Vec<Value> = checks.iter().map(check).collect();
    json!({"format": "softvfio-doctor/1", "works": works, "checks": checks})
}
