//! Whose turn it is to receive.
//!
//! The kernel wakes every thread that waits for a system call, so only one does: the *receiver*, which
//! also answers. When its answer takes long (a client's memory may have to be brought by the client
//! first), the turn is taken from it and another thread receives; there are as many as are needed.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

/// How often the receiver is looked at while there are requests, and while there are none.
const BUSY_TICK: Duration = Duration::from_millis(1);
const IDLE_TICK: Duration = Duration::from_millis(10);

#[derive(Default)]
struct Seat {
    taken: bool,
    /// Threads that wait for their turn.
    waiting: usize,
    over: bool,
}

/// The turn to receive.
#[derive(Default)]
pub(super) struct Turns {
    seat: Mutex<Seat>,
    free: Condvar,
    /// Moves when the turn is taken from somebody.
    epoch: AtomicU64,
    /// The number of the system call being answered by the receiver, from 1; 0: none.
    answering: AtomicU64,
    calls: AtomicU64,
}

/// A thread's turn.
pub(super) struct Turn(u64);

impl Turns {
    /// Waits for the turn; `None` when the session is over.
    pub(super) fn wait(&self) -> Option<Turn> {
        let mut seat = self.seat.lock();
        seat.waiting += 1;
        while seat.taken && !seat.over {
            self.free.wait(&mut seat);
        }
        seat.waiting -= 1;
        if seat.over {
            return None;
        }
        seat.taken = true;
        Some(Turn(self.epoch.load(Ordering::Relaxed)))
    }

    /// The receiver begins to answer.
    pub(super) fn begin(&self) {
        let call = self.calls.fetch_add(1, Ordering::Relaxed) + 1;
        self.answering.store(call, Ordering::Relaxed);
    }

    /// It is done; whether it still has the turn.
    pub(super) fn end(&self, turn: &Turn) -> bool {
        let keeps = self.epoch.load(Ordering::Relaxed) == turn.0;
        if keeps {
            self.answering.store(0, Ordering::Relaxed);
        }
        keeps
    }

    /// Looks after the receiver until the session is over; `more` starts a thread that waits for its
    /// turn.
    pub(super) fn look_after(&self, mut more: impl FnMut()) {
        let (mut seen, mut last) = (0, 0);
        loop {
            let mut seat = self.seat.lock();
            if seat.over {
                return;
            }
            let (answering, calls) =
                (self.answering.load(Ordering::Relaxed), self.calls.load(Ordering::Relaxed));
            if answering != 0 && answering == seen {
                self.answering.store(0, Ordering::Relaxed);
                self.epoch.fetch_add(1, Ordering::Relaxed);
                seat.taken = false;
                if seat.waiting == 0 {
                    more();
                } else {
                    self.free.notify_one();
                }
            }
            seen = answering;
            let tick = if calls == last { IDLE_TICK } else { BUSY_TICK };
            last = calls;
            drop(seat);
            std::thread::sleep(tick);
        }
    }

    /// The session is over.
    pub(super) fn finish(&self) {
        self.seat.lock().over = true;
        self.free.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn one_receives_until_it_takes_long_then_another_does() {
        let turns = Arc::new(Turns::default());
        let first = turns.wait().unwrap();
        turns.begin();
        assert!(turns.end(&first));
        let (tell, hear) = channel();
        let waiter = {
            let turns = Arc::clone(&turns);
            std::thread::spawn(move || {
                tell.send(turns.wait().is_some()).unwrap();
                tell.send(turns.wait().is_some()).unwrap();
            })
        };
        turns.begin();
        let steward = {
            let turns = Arc::clone(&turns);
            std::thread::spawn(move || turns.look_after(|| {}))
        };
        assert!(hear.recv().unwrap());
        assert!(!turns.end(&first));
        turns.finish();
        assert!(!hear.recv().unwrap());
        assert!(turns.wait().is_none());
        waiter.join().unwrap();
        steward.join().unwrap();
    }
}
