//! The moment that a client has after a store to registers that trap, before the device begins.
//!
//! Hardware is beside its driver: it takes a while to begin, and the driver goes on meanwhile. Some
//! count on it: DPDK's ioat driver loses a completion when, after an error, the engine is done before
//! the driver is back from its doorbell. The time is the client's own, on processors: a machine with
//! other things to do makes it longer.

use std::time::{Duration, Instant};

use crate::sys::client;

/// How long the client runs after its last store: several times what DPDK needs on a busy machine.
const MOMENT: Duration = Duration::from_micros(100);
/// How long it runs in all, when it goes on storing.
const MOMENTS: Duration = Duration::from_millis(1);
/// A client that waits for something has had its moment; one that waits for a processor has not.
const LOOK: Duration = Duration::from_micros(200);
/// The device begins after this time by the clock, whatever the client does.
const AT_MOST: Duration = Duration::from_millis(200);

/// A moment that has begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Moment {
    pid: i32,
    tid: i32,
    /// When the store was, and for how long the process had run on processors.
    at: Instant,
    ran: Duration,
    /// The same for the first store since the device began with something.
    first: (Instant, Duration),
}

impl Moment {
    /// A store of a thread, in the moment of an earlier one or not; `None` when the process is gone.
    pub(crate) fn after(earlier: Option<Self>, pid: i32, tid: i32) -> Option<Self> {
        let (at, ran) = (Instant::now(), client::cpu_time(pid)?);
        let first = earlier.filter(|moment| moment.pid == pid).map_or((at, ran), |m| m.first);
        Some(Self { pid, tid, at, ran, first })
    }

    /// Waits for its end.
    pub(crate) fn wait(&self) {
        while self.lasts() {
            std::thread::sleep(Duration::from_micros(10));
        }
    }

    fn lasts(&self) -> bool {
        let Some(now) = client::cpu_time(self.pid) else { return false };
        let ran = now.saturating_sub(self.ran);
        let (first_at, first_ran) = self.first;
        let rests = || {
            let looked = self.at.elapsed() > LOOK && !ran.is_zero();
            looked && client::state(self.tid) != Some('R')
        };
        ran < MOMENT
            && now.saturating_sub(first_ran) < MOMENTS
            && first_at.elapsed() < AT_MOST
            && !rests()
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command};
    use std::sync::atomic::{AtomicBool, Ordering};

    use devices::Edu;

    use super::*;
    use crate::session::{EmulatedDevice, Session};

    /// A process that never runs: its moment ends with it, or after [`AT_MOST`].
    fn stopped() -> (Child, i32) {
        let child = Command::new("sh").args(["-c", "kill -STOP $$"]).spawn().unwrap();
        let pid = child.id().cast_signed();
        while client::state(pid) != Some('T') {
            std::thread::sleep(Duration::from_millis(1));
        }
        (child, pid)
    }

    fn end(mut child: Child) {
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// DPDK's doorbell after an error comes just after five other stores.
    #[test]
    fn a_store_within_a_moment_begins_another() {
        let edu = EmulatedDevice::new("edu", Box::new(Edu::new()), Edu::bars());
        let ready = Session::new().device(edu).place().unwrap();
        let slot = ready.slots.first().unwrap();
        loop {
            let ((first, first_pid), (second, second_pid)) = (stopped(), stopped());
            let over = AtomicBool::new(false);
            slot.lock().stored(first_pid, first_pid);
            let (early, in_time) = std::thread::scope(|scope| {
                let device = scope.spawn(|| {
                    drop(slot.lock_after_moment());
                    !over.load(Ordering::SeqCst)
                });
                std::thread::sleep(AT_MOST / 10);
                let start = Instant::now();
                slot.lock().stored(second_pid, second_pid);
                end(first);
                std::thread::sleep(AT_MOST / 10);
                over.store(true, Ordering::SeqCst);
                let in_time = start.elapsed() < AT_MOST;
                end(second);
                (device.join().unwrap(), in_time)
            });
            // Otherwise this machine is too slow to tell.
            if in_time {
                break assert!(!early, "the device began in the second store's moment");
            }
        }
    }
}
