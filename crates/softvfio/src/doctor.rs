//! `softvfio doctor`: whether this machine can run programs, and what to enable.

use std::process::ExitCode;

use clap::Args;
use supervise::sandbox::{Verdict, doctor};

/// Try each thing that `softvfio run` needs, and say what to enable where it is missing.
#[derive(Args)]
pub(crate) struct Doctor {}

impl Doctor {
    #[expect(clippy::unused_self, reason = "as the other commands")]
    pub(crate) fn run(&self) -> ExitCode {
        let checks = doctor();
        for check in &checks {
            println!("{check}");
        }
        let failed = checks.iter().filter(|check| check.verdict == Verdict::Fail).count();
        let warned = checks.iter().filter(|check| check.verdict == Verdict::Warn).count();
        match (failed, warned) {
            (0, 0) => println!("softvfio run works here"),
            (0, _) => println!("softvfio run works here, with the limits above"),
            _ => println!("softvfio run does not work here"),
        }
        ExitCode::from(u8::from(failed != 0))
    }
}
