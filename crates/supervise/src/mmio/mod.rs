//! Register accesses of clients, one by one: pages that trap.
//!
//! A client maps a device's registers natively, from a file of holes on a full file system, or where
//! there is none from beyond a file's end; so each of its accesses raises SIGBUS. A [`Tracer`] sees the
//! signal before the client does, does what the instruction would have done through [`Bars`], steps over
//! it and drops the signal. Every access reaches the device in program order, in naturally aligned pieces
//! of the width that the client used; what is misaligned or wider than 8 bytes comes as several,
//! low address first.
//!
//! What the client can notice: time; no debugger of its own; a thread that blocks or ignores SIGBUS
//! and touches registers no longer does, and its handler of SIGBUS is gone (the kernel's rule for
//! faults); a system call that gets a pointer to registers answers EFAULT. A child made with
//! CLONE_UNTRACED, and 32-bit code, are not served. An instruction that is not known, or an access that
//! [`Bars`] refuses, is a SIGBUS of the client's, as it was raised.

mod decode;
mod emulate;
mod flags;
mod patience;
mod regs;
mod text;
mod tracer;
mod trap;
mod vector;

use core::fmt;

pub use tracer::{Error, Tracer};

/// The device does not answer: the access is a real bus error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the device does not answer at this address")]
pub struct BusError;

/// Where trapped accesses go. Called from the tracer's thread, one call at a time: while one runs,
/// all clients of this tracer that touch trapped pages wait.
pub trait Bars: Send + Sync {
    /// The device whose descriptor's file has this `st_dev` and `st_ino`, as a key of the
    /// implementation's choice. None: not a device; the signal is the client's.
    fn find(&self, dev: u64, ino: u64) -> Option<u32>;

    /// A load of 1, 2, 4 or 8 bytes, naturally aligned, at `offset` of the file.
    fn load(&self, key: u32, offset: u64, data: &mut [u8]) -> Result<(), BusError>;

    /// A store of 1, 2, 4 or 8 bytes, naturally aligned, at `offset` of the file. Thread `tid` makes
    /// it, and is stopped meanwhile.
    fn store(&self, tid: i32, key: u32, offset: u64, data: &[u8]) -> Result<(), BusError>;

    /// A client used an instruction that is not known; it gets its SIGBUS. Told once for each
    /// sequence of instruction bytes.
    fn unsupported(&self, what: &Unsupported) {
        let _ = what;
    }
}

/// An instruction that touched a trapped page and is not known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsupported {
    /// The thread.
    pub tid: i32,
    /// Where the instruction is.
    pub rip: u64,
    /// What it touched.
    pub address: u64,
    /// The instruction; 15 bytes when its end is not known.
    pub bytes: Vec<u8>,
}

impl fmt::Display for Unsupported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "thread {}: the instruction at {:#x} (", self.tid, self.rip)?;
        for (n, byte) in self.bytes.iter().enumerate() {
            write!(f, "{}{byte:02x}", if n == 0 { "" } else { " " })?;
        }
        write!(f, ") is not supported on trapped registers; it touched {:#x}", self.address)
    }
}
