//! A report for people.

use std::fmt;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use trace::size::Bytes;

use super::{Finding, Report, Severity};
use crate::session::MmioMode;

impl fmt::Display for MmioMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Poll => "poll",
            Self::Trap => "trap",
            Self::None => "none",
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f, false)
    }
}

impl Report {
    /// The report as lines of text; `colour` with a terminal's escapes.
    #[must_use]
    pub fn text(&self, colour: bool) -> String {
        let mut out = String::new();
        // Writing to a string does not fail.
        let _ = self.write(&mut out, colour);
        out
    }

    fn write(&self, out: &mut dyn fmt::Write, colour: bool) -> fmt::Result {
        let [bold, plain] = if colour { ["\x1b[1m", "\x1b[0m"] } else { [""; 2] };
        write!(out, "{bold}softvfio:{plain} ")?;
        if let Some(stopped) = self.stopped {
            write!(out, "told to stop by {}: ", signal_name(stopped.signal))?;
        }
        if let Some(limit) = self.timed_out {
            write!(out, "not over after {limit:?}: ")?;
        }
        match self.stopped {
            _ if self.timed_out.is_some() && self.status.signal() == Some(9) => {
                writeln!(out, "the program was killed")?;
            }
            Some(stopped) if stopped.killed && self.status.signal() == Some(9) => {
                writeln!(out, "the program did not end, and was killed")?;
            }
            _ => writeln!(out, "{}", Ended(self.status))?,
        }
        let width = |of: fn(&super::DeviceReport) -> usize| {
            self.devices.iter().map(of).max().unwrap_or_default()
        };
        let kind = width(|d| d.kind.len());
        for device in &self.devices {
            writeln!(
                out,
                "  {} {:kind$}  group {}, mmio={}: read {} of memory, wrote {}",
                device.name,
                device.kind,
                device.group,
                device.mmio,
                Bytes(device.read.into()),
                Bytes(device.written.into()),
            )?;
        }
        writeln!(out, "  requests   {}, {} refused", self.requests, self.refused)?;
        let peak = &self.peak;
        writeln!(
            out,
            "  mappings   at most {} of {}, {}",
            peak.mappings,
            peak.entry_limit,
            Bytes(peak.mapped.into())
        )?;
        write!(out, "  locked     at most {}", Bytes(peak.locked.into()))?;
        match peak.memlock {
            Some(limit) if peak.locked > limit => {
                writeln!(
                    out,
                    ": more than this machine's RLIMIT_MEMLOCK of {}",
                    Bytes(limit.into())
                )?;
            }
            _ => writeln!(out)?,
        }
        writeln!(out, "  interrupts {}", self.interrupts)?;
        // Notes do not speak against the program.
        if !self.has_bugs() {
            writeln!(out, "  findings   none")?;
        }
        for finding in &self.findings {
            write_finding(out, finding, colour)?;
        }
        match self.more_findings {
            0 => Ok(()),
            more => writeln!(out, "  and {more} more"),
        }
    }
}

fn write_finding(out: &mut dyn fmt::Write, finding: &Finding, colour: bool) -> fmt::Result {
    let severity = finding.severity();
    let [start, end] = match severity {
        _ if !colour => [""; 2],
        Severity::Error => ["\x1b[1;31m", "\x1b[0m"],
        Severity::Warning => ["\x1b[1;33m", "\x1b[0m"],
        Severity::Note => ["\x1b[1;36m", "\x1b[0m"],
    };
    writeln!(
        out,
        "  {start}{severity:<10}{end} {finding} [{}, request {}]",
        finding.problem.name(),
        finding.request
    )?;
    match finding.legal() {
        legal if legal.is_empty() => Ok(()),
        legal => writeln!(out, "    legal:   {legal}"),
    }
}

struct Ended(ExitStatus);

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0.code(), self.0.signal()) {
            (Some(code), _) => write!(f, "the program ended with exit code {code}"),
            (None, Some(signal)) => write!(f, "the program was ended by signal {signal}"),
            _ => f.write_str("the program ended"),
        }
    }
}

fn signal_name(signal: i32) -> String {
    match signal {
        1 => "SIGHUP".into(),
        2 => "SIGINT".into(),
        15 => "SIGTERM".into(),
        other => format!("signal {other}"),
    }
}
