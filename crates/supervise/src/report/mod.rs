//! What happened in a session, and which bugs of the program showed.
//!
//! A [`Reporter`] watches; at the end it becomes a [`Report`]. A report is data: [`text`](Report::text)
//! is for people, [`json`](Report::json) for programs (docs/report.md describes it).
//!
//! ```text
//!   requests, changes, faults, bytes ─► Reporter ─► Space      what each container's IOVAs meant, when
//!                                          │        Users      who ended, and who closed
//!                                          └──────► Findings   equal ones counted
//! ```

mod finding;
mod findings;
mod interrupts;
mod json;
mod reporter;
mod space;
#[cfg(test)]
mod tests;
mod text;
mod users;

use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

pub use self::finding::{Finding, Owner, Problem, Severity};
pub use self::reporter::Reporter;

use crate::session::MmioMode;

/// What became of a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// How it ended.
    pub status: ExitStatus,
    /// Whether we were told to stop.
    pub stopped: Option<Stopped>,
    /// The time limit, where that was over and all was killed.
    pub timed_out: Option<Duration>,
    /// Paths of the host's own devices and groups that ours hid from it.
    pub shadowed: Vec<PathBuf>,
    /// The devices, in the order in which they were placed.
    pub devices: Vec<DeviceReport>,
    /// Requests, accesses of regions included.
    pub requests: u64,
    /// Those of them that were refused.
    pub refused: u64,
    /// Interrupts that were delivered.
    pub interrupts: u64,
    /// Mappings, and what they locked, at the peak.
    pub peak: Peak,
    /// What is wrong, or may be, in the order in which it was first seen.
    pub findings: Vec<Finding>,
    /// Findings beyond those that are listed.
    pub more_findings: u64,
}

/// A signal told us to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stopped {
    /// Its number.
    pub signal: i32,
    /// The program did not end in time, or was not given any, and was killed.
    pub killed: bool,
}

/// A device's part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceReport {
    /// Its address.
    pub name: String,
    /// What it is.
    pub kind: String,
    /// Its group.
    pub group: u32,
    /// How its registers were reached.
    pub mmio: MmioMode,
    /// Bytes that it read of the program's memory.
    pub read: u64,
    /// Bytes that it wrote there.
    pub written: u64,
}

/// The most that there was at any time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Peak {
    /// Mappings of one container.
    pub mappings: u64,
    /// Mappings that a container may have (`dma_entry_limit`).
    pub entry_limit: u32,
    /// Bytes mapped in one container.
    pub mapped: u64,
    /// Bytes locked by one process.
    pub locked: u64,
    /// `RLIMIT_MEMLOCK` of this process; `None`: no limit.
    pub memlock: Option<u64>,
}

/// `RLIMIT_MEMLOCK` of this process in bytes; `None`: no limit.
#[must_use]
pub fn own_memlock() -> Option<u64> {
    rustix::process::getrlimit(rustix::process::Resource::Memlock).current
}

impl Peak {
    /// Whether this machine's limit on locked memory would have refused a mapping.
    #[must_use]
    pub fn exceeds_memlock(&self) -> bool {
        self.memlock.is_some_and(|limit| self.locked > limit)
    }
}

impl Report {
    /// The most severe finding.
    #[must_use]
    pub fn worst(&self) -> Option<Severity> {
        self.findings.iter().map(Finding::severity).max()
    }

    /// Findings that are errors or warnings: what `--strict` refuses.
    #[must_use]
    pub fn has_bugs(&self) -> bool {
        self.worst() >= Some(Severity::Warning)
    }
}
