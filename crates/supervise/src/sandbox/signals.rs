//! Signals that ask for an end, and whose they are.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Signal, getpid, kill_process};

use crate::sys::process::{Disposition, disposition, set_disposition};
use crate::sys::signals;

pub(crate) use crate::sys::signals::Arrived;

/// What asks for an end.
const ASK: [i32; 3] = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP];

/// While it lives `SIGINT`, `SIGTERM` and `SIGHUP` do not end this process but are told to whoever
/// has this, and `SIGQUIT` is ignored: a terminal sends it to the client too, and it is meant for
/// that. What somebody else handles or ignores stays so. Clients start with what was in force before.
#[derive(Debug)]
pub struct Signals {
    taken: Vec<i32>,
    news: BorrowedFd<'static>,
}

/// There is one at a time.
static TAKEN: AtomicBool = AtomicBool::new(false);
/// `SIGQUIT` is ignored on behalf of clients, not for them.
static QUIT: AtomicBool = AtomicBool::new(false);

impl Signals {
    /// Takes them.
    ///
    /// # Errors
    /// Somebody has them, or a system call failed.
    pub fn take() -> io::Result<Signals> {
        let news = signals::pipe()?;
        if TAKEN.swap(true, Ordering::SeqCst) {
            return Err(io::Error::new(io::ErrorKind::ResourceBusy, "the signals are taken"));
        }
        // Old news.
        while signals::next(news).is_some() {}
        let mut signals = Signals { taken: Vec::new(), news };
        for signal in ASK {
            if disposition(signal) == Ok(Disposition::Default) {
                signals::tell_of(signal)?;
                signals.taken.push(signal);
            }
        }
        if disposition(libc::SIGQUIT) == Ok(Disposition::Default) {
            set_disposition(libc::SIGQUIT, true);
            QUIT.store(true, Ordering::SeqCst);
        }
        Ok(signals)
    }

    /// Waits for a signal, so long, or for ever; `None` when there is none, or `over` hung up.
    pub(crate) fn next(&self, limit: Option<Duration>, over: BorrowedFd<'_>) -> Option<Arrived> {
        let limit = limit.map(|limit| Timespec {
            tv_sec: limit.as_secs().try_into().unwrap_or(i64::MAX),
            tv_nsec: limit.subsec_nanos().into(),
        });
        let mut fds = [PollFd::new(&self.news, PollFlags::IN), PollFd::new(&over, PollFlags::IN)];
        // Interrupted by what it waits for, it is asked again by whoever calls.
        let _ = poll(&mut fds, limit.as_ref());
        signals::next(self.news)
    }

    /// Does what a signal would have done without us: ends this process.
    pub(crate) fn carry_out(&self, signal: i32) {
        set_disposition(signal, false);
        if let Some(signal) = Signal::from_named_raw(signal) {
            let _ = kill_process(getpid(), signal);
        }
    }

    /// Signals that are ignored on behalf of clients, not for them.
    pub(super) fn to_reset() -> impl Iterator<Item = i32> {
        QUIT.load(Ordering::SeqCst).then_some(libc::SIGQUIT).into_iter()
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        for &signal in &self.taken {
            // One that is on its way to a thread was for what is over: ignoring takes it back.
            set_disposition(signal, true);
            set_disposition(signal, false);
        }
        if QUIT.swap(false, Ordering::SeqCst) {
            set_disposition(libc::SIGQUIT, false);
        }
        TAKEN.store(false, Ordering::SeqCst);
    }
}
