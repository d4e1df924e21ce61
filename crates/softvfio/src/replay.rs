//! `softvfio replay`.

use std::ffi::{OsStr, OsString};
use std::io::{self, BufWriter, ErrorKind, IsTerminal, Write};
use std::process::ExitCode;

use clap::Args;
use iommu::Dialect;
use trace::{Facts, Options, ReadError, Session, Step, Tally, report};
use vfio::Abi;

use crate::host::listed;
use crate::input::{host, shown, text};
use crate::progress;

/// Every answer was the recorded one.
const ALL_MATCHED: u8 = 0;
/// Some were not.
const MISMATCHES: u8 = 1;
/// An input could not be read.
const UNREADABLE: u8 = 2;

/// Options of `softvfio replay`.
#[derive(Args)]
#[command(after_help = "Examples:
  softvfio replay trace.jsonl              compare with what a kernel answered
  softvfio replay --explain trace.jsonl    and say of each refused request why
  softvfio replay --answers --host x86-amd script.jsonl    answer a script

Exit status: 0 when every answer matches, 1 when one does not, 2 when an input
cannot be read (file:line:column: what was expected). The formats are described
in docs/trace-format.md.")]
pub(crate) struct Replay {
    /// Traces or scripts; `-` is standard input. Each starts on a fresh machine.
    #[arg(required_unless_present = "host", value_name = "FILE")]
    files: Vec<OsString>,
    /// Take the machine from a built-in host, or from the header (first line) of a file. `help`
    /// lists the built-in ones.
    #[arg(long, value_name = "NAME|FILE")]
    host: Option<OsString>,
    /// Speak these numbers, whatever the header says.
    #[arg(long, value_name = "NAME", value_parser = ["kernel", "reviewed", "msi-v6"])]
    abi: Option<String>,
    /// Answer as this kernel, whatever the header says.
    #[arg(long, value_name = "NAME", value_parser = ["6.1", "6.12", "7.3"])]
    dialect: Option<String>,
    /// Descriptions of machines and devices to use before the built-in ones.
    #[arg(long, value_name = "FILE")]
    devices: Option<OsString>,
    /// Say of each refused request why.
    #[arg(long)]
    explain: bool,
    /// Write JSON Lines for programs.
    #[arg(long, conflicts_with = "answers")]
    json: bool,
    /// Write the trace with our answers in place of recorded ones.
    #[arg(long)]
    answers: bool,
}

/// Why a replay ended early.
enum Failure {
    /// An input is unreadable.
    Read(String),
    /// The output cannot be written.
    Write(io::Error),
}

impl From<ReadError> for Failure {
    fn from(error: ReadError) -> Self {
        Self::Read(error.to_string())
    }
}

impl From<String> for Failure {
    fn from(error: String) -> Self {
        Self::Read(error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Write(error)
    }
}

impl Replay {
    /// Replays, prints, and says how it went.
    pub(crate) fn run(self) -> ExitCode {
        let mut out = BufWriter::new(io::stdout().lock());
        let status = self.replay_all(&mut out).and_then(|status| {
            out.flush()?;
            Ok(status)
        });
        ExitCode::from(match status {
            Ok(status) => status,
            Err(Failure::Read(error)) => {
                eprintln!("softvfio: {error}");
                UNREADABLE
            }
            // Whoever reads has seen enough.
            Err(Failure::Write(error)) if error.kind() == ErrorKind::BrokenPipe => {
                // Nothing is left to flush to.
                let _ = out.into_parts();
                MISMATCHES
            }
            Err(Failure::Write(error)) => {
                eprintln!("softvfio: cannot write: {error}");
                UNREADABLE
            }
        })
    }

    fn replay_all(&self, out: &mut dyn Write) -> Result<u8, Failure> {
        if self.host.as_deref().is_some_and(|host| host == "help") {
            out.write_all(listed().as_bytes())?;
            return Ok(ALL_MATCHED);
        }
        if self.files.is_empty() {
            let expected = "a trace or script to replay, found none".into();
            let file = "FILE".to_owned();
            return Err(ReadError { file, line: 0, column: 0, expected }.into());
        }
        let options = self.options()?;
        let mut tally = Tally::default();
        let mut unreadable = false;
        for file in &self.files {
            match self.replay(file, &options, &mut tally, out) {
                Err(Failure::Read(error)) => {
                    out.flush()?;
                    eprintln!("softvfio: {error}");
                    unreadable = true;
                }
                other => other?,
            }
        }
        if self.json {
            writeln!(out, "{}", tally.json())?;
        } else if !self.answers {
            writeln!(out, "{}", tally.line())?;
        }
        Ok(match (unreadable, tally.mismatches()) {
            (true, _) => UNREADABLE,
            (_, 0) => ALL_MATCHED,
            // With --answers nobody asked for a comparison.
            _ if self.answers => ALL_MATCHED,
            _ => MISMATCHES,
        })
    }

    fn options(&self) -> Result<Options, Failure> {
        let mut options = Options::default();
        if let Some(name) = &self.dialect {
            options.dialect = Dialect::named(name);
        }
        if let Some(file) = &self.devices {
            let text = text(file)?;
            options.facts = Facts::with(&text).map_err(|(line, column, expected)| ReadError {
                file: shown(file),
                line: line as u64,
                column,
                expected,
            })?;
        }
        options.abi = self.abi.as_deref().and_then(Abi::named);
        if let Some(name) = &self.host {
            options.machine = Some(host(name)?);
        }
        Ok(options)
    }

    fn replay(
        &self,
        name: &OsStr,
        options: &Options,
        tally: &mut Tally,
        out: &mut dyn Write,
    ) -> Result<(), Failure> {
        let file = &*shown(name);
        let (reader, bar) = progress::reader(name)?;
        let mut session = Session::start(progress::lines(reader, file, &bar), options)?;
        for note in session.notes() {
            eprintln!("softvfio: {file}: {note}");
        }
        if self.answers {
            session.need_known_operations();
            writeln!(out, "{}", session.header())?;
        }
        // Lines of a terminal would run into the bar.
        let beside = io::stdout().is_terminal() && !bar.is_hidden();
        let mut said = Vec::new();
        while let Some(step) = session.step()? {
            self.say(file, &step, tally, &mut said)?;
            if let Step::Request(outcome) = step {
                session.spent(outcome);
            }
            match beside && !said.is_empty() {
                true => bar.suspend(|| out.write_all(&said).and_then(|()| out.flush()))?,
                false => out.write_all(&said)?,
            }
            said.clear();
        }
        bar.finish_and_clear();
        Ok(())
    }

    /// What is said of a step.
    fn say(
        &self,
        file: &str,
        step: &Step,
        tally: &mut Tally,
        out: &mut dyn Write,
    ) -> Result<(), Failure> {
        match step {
            Step::Note(text) if self.answers => writeln!(out, "{text}")?,
            Step::Note(_) => {}
            Step::Request(outcome) if self.answers => {
                writeln!(out, "{}", trace::answered(outcome))?;
                if self.explain
                    && let Some(why) = &outcome.why
                {
                    eprintln!("{file}:{}: {why}", outcome.line);
                }
            }
            Step::Request(outcome) => {
                tally.add(outcome);
                if self.json {
                    report::json_line(out, file, outcome, self.explain)?;
                } else {
                    report::text(out, file, outcome, self.explain)?;
                }
            }
        }
        Ok(())
    }
}
