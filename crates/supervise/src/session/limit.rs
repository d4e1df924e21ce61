//! A session that may not take longer than so long.

use std::io;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::sandbox::Killer;

/// A thread that kills all when the time is over.
pub(super) struct TimeLimit {
    thread: JoinHandle<bool>,
    /// Hangs up when the session is over.
    lifeline: Sender<()>,
    limit: Duration,
}

impl TimeLimit {
    /// From now on.
    pub(super) fn start(limit: Duration, killer: Killer) -> io::Result<TimeLimit> {
        let (lifeline, over) = channel();
        let thread = std::thread::Builder::new().name("time limit".into()).spawn(move || {
            let late = over.recv_timeout(limit) == Err(RecvTimeoutError::Timeout);
            if late {
                killer.kill_all();
            }
            late
        })?;
        Ok(TimeLimit { thread, lifeline, limit })
    }

    /// The session is over; the limit, if that was why.
    pub(super) fn finish(self) -> Option<Duration> {
        drop(self.lifeline);
        self.thread.join().is_ok_and(|late| late).then_some(self.limit)
    }
}
