//! The moment that a client has after a store to registers that trap, before a device at rest begins.
//!
//! Hardware is beside its driver: it takes a while to begin, and the driver goes on meanwhile. Some
//! count on it: DPDK's ioat driver loses a completion when, after an error, the engine is done before
//! the driver is back from its doorbell. The time is the client's own, on processors: a machine with
//! other things to do makes it longer. A device at work goes on, and sees what is stored meanwhile.

use std::time::{Duration, Instant};

use crate::sys::client;

/// How long the client runs after its last store: several times what DPDK needs on a busy machine.
const MOMENT: Duration = Duration::from_micros(100);
/// How long it runs in all, when it goes on storing.
const MOMENTS: Duration = Duration::from_millis(1);
/// A client that waits for something has had its moment; one that waits for a processor, or for us to
/// carry out its next access, has not.
const LOOK: Duration = Duration::from_micros(200);
/// The device begins after this time by the clock, whatever the client does.
const AT_MOST: Duration = Duration::from_millis(200);

/// A moment that has begun.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    pid: i32,
    tid: i32,
    /// When the store was, and for how long the process had run on processors.
    at: Instant,
    ran: Duration,
    /// When the first store was since the device last began with something, of any process.
    first_at: Instant,
    /// For how long the process had run at the first of its stores in a row.
    first_ran: Duration,
}

impl Moment {
    /// A store of a thread, in the moment of an earlier one or not; `None` when the process is gone.
    pub(crate) fn after(earlier: Option<Self>, pid: i32, tid: i32) -> Option<Self> {
        Some(Self::at(earlier, (pid, tid), Instant::now(), client::cpu_time(pid)?))
    }

    fn at(earlier: Option<Self>, (pid, tid): (i32, i32), at: Instant, ran: Duration) -> Self {
        let first_at = earlier.map_or(at, |moment| moment.first_at);
        let own = earlier.filter(|moment| moment.pid == pid);
        let first_ran = own.map_or(ran, |moment| moment.first_ran);
        Self { pid, tid, at, ran, first_at, first_ran }
    }

    /// Waits for its end.
    pub(crate) fn wait(&self) {
        while self.lasts() {
            std::thread::sleep(Duration::from_micros(10));
        }
    }

    /// Whether it is not over.
    pub(crate) fn lasts(&self) -> bool {
        let Some(ran) = client::cpu_time(self.pid) else { return false };
        self.lasts_at(Instant::now(), ran, || client::state(self.tid))
    }

    fn lasts_at(&self, now: Instant, ran: Duration, state: impl FnOnce() -> Option<char>) -> bool {
        let since = ran.saturating_sub(self.ran);
        let rests = || {
            let looked = now.saturating_duration_since(self.at) > LOOK && !since.is_zero();
            looked && !matches!(state(), Some('R' | 't'))
        };
        since < MOMENT
            && ran.saturating_sub(self.first_ran) < MOMENTS
            && now.saturating_duration_since(self.first_at) < AT_MOST
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

    fn us(n: u64) -> Duration {
        Duration::from_micros(n)
    }

    #[test]
    fn it_ends_with_the_clients_time_or_rest_or_patience() {
        let start = Instant::now();
        let moment = Moment::at(None, (1, 1), start, us(5000));
        for (after, ran, state, lasts) in [
            (0, 0, 'R', true),
            (1000, 99, 'R', true),
            (1000, 100, 'R', false),
            // It did not run yet; it waits for a processor, for our answer, for anything else.
            (1000, 0, 'S', true),
            (1000, 1, 'R', true),
            (1000, 1, 't', true),
            (1000, 1, 'S', false),
            (200, 1, 'S', true),
            (199_999, 0, 'R', true),
            (200_000, 0, 'R', false),
        ] {
            let last = moment.lasts_at(start + us(after), us(5000 + ran), || Some(state));
            assert_eq!(last, lasts, "{after} {ran} {state}");
        }
        assert!(!moment.lasts_at(start + us(300), us(5001), || None));
    }

    #[test]
    fn stores_in_a_row_have_an_end() {
        let start = Instant::now();
        // One process that goes on storing.
        let mut moment = Moment::at(None, (1, 1), start, us(0));
        for n in 1..12 {
            moment = Moment::at(Some(moment), (1, 2), start + us(90 * n), us(90 * n));
            let lasts = moment.lasts_at(start + us(90 * n), us(90 * n), || Some('R'));
            assert!(lasts, "{n}");
        }
        let moment = Moment::at(Some(moment), (1, 1), start + us(1000), us(1000));
        assert!(!moment.lasts_at(start + us(1000), us(1000), || Some('R')));
        // Two in turn, on processors of their own.
        let mut moment = Moment::at(None, (1, 1), start, us(0));
        for n in 1..=2222 {
            let pid = 1 + (n & 1) as i32;
            moment = Moment::at(Some(moment), (pid, pid), start + us(90 * n), us(90 * n));
            assert!(moment.lasts_at(start + us(90 * n), us(90 * n), || Some('R')));
        }
        assert!(!moment.lasts_at(start + AT_MOST, us(90 * 2222), || Some('R')));
    }

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
        for _ in 0..100 {
            let ((first, first_pid), (second, second_pid)) = (stopped(), stopped());
            let over = AtomicBool::new(false);
            let start = Instant::now();
            slot.lock().stored(first_pid, first_pid);
            let (early, in_time) = std::thread::scope(|scope| {
                let device = scope.spawn(|| {
                    drop(slot.lock_after_moment());
                    !over.load(Ordering::SeqCst)
                });
                std::thread::sleep(AT_MOST / 20);
                slot.lock().stored(second_pid, second_pid);
                end(first);
                std::thread::sleep(AT_MOST / 20);
                over.store(true, Ordering::SeqCst);
                let in_time = start.elapsed() < AT_MOST;
                end(second);
                (device.join().unwrap(), in_time)
            });
            // Otherwise this machine is too slow to tell.
            if in_time {
                return assert!(!early, "the device began in the second store's moment");
            }
        }
        panic!("this machine is too slow to tell");
    }
}
