//! Stopping a session by a signal: the program is told, and given a while to end; then it, and all
//! that it started, is killed. The session ends as ever, with a report.
//!
//! A terminal's interrupt goes to the program too, which may mean something else by it (a debugger,
//! a monitor): nothing is done then, unless it comes twice.
//!
//! Writing the report may take its time, too, and has the same patience: what reads it may be gone.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::pipe::{PipeFlags, pipe_with};

use crate::report::Stopped;
use crate::sandbox::{Arrived, Killer, Signals};

/// What a program has to end in peace.
pub const GRACE: Duration = Duration::from_secs(5);
/// Signals that follow sooner are the same wish: `timeout` sends to us, then to our group.
const SAME: Duration = Duration::from_millis(300);
/// Two of a terminal's interrupts within this mean it.
const TWICE: Duration = Duration::from_secs(2);

/// What is known of a wish to stop.
#[derive(Default)]
struct State {
    /// The first signal, when it came, and whether all was killed.
    stopped: Option<(Stopped, Instant)>,
    /// When that was.
    killed: Option<Instant>,
    /// When a terminal's interrupt came last.
    interrupt: Option<Instant>,
}

/// What is to be done about a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wish {
    /// Nothing: the program has it, or the wish is known.
    Nothing,
    /// Tell the program.
    Tell,
    /// Wait for the program, which has it.
    Wait,
    /// Kill all.
    Kill,
    /// All was killed, and yet there is no end: end this process.
    End,
}

impl State {
    /// What is to be done when a signal came, or the time was over.
    fn wish(&mut self, arrived: Option<Arrived>, shared: bool, now: Instant) -> Wish {
        let wish = match arrived {
            Some(arrived) => self.arrived(arrived, shared, now),
            None if self.left(now) == Some(Duration::ZERO) => Wish::Kill,
            None => Wish::Nothing,
        };
        if wish == Wish::Kill {
            self.killed.get_or_insert(now);
        }
        wish
    }

    /// A signal came; `shared`: the program gets what a terminal sends.
    fn arrived(&mut self, arrived: Arrived, shared: bool, now: Instant) -> Wish {
        let since = |then: Instant| now.saturating_duration_since(then);
        let stopped = Stopped { signal: arrived.signal, killed: false };
        let has_it = arrived.from_kernel && shared;
        match (&mut self.stopped, self.interrupt) {
            (Some((_, first)), _) if since(*first) < SAME => Wish::Nothing,
            (Some(_), _) if self.killed.is_some_and(|killed| since(killed) >= GRACE) => Wish::End,
            (Some(_), _) => Wish::Kill,
            (None, last) if has_it && arrived.signal == libc::SIGINT => {
                self.interrupt = Some(now);
                if last.is_none_or(|last| since(last) > TWICE) {
                    return Wish::Nothing;
                }
                self.stopped = Some((stopped, now));
                Wish::Kill
            }
            (None, _) => {
                self.stopped = Some((stopped, now));
                if has_it { Wish::Wait } else { Wish::Tell }
            }
        }
    }

    /// How long until the program has had its time; `None`: nobody asked it to end, or it is killed.
    fn left(&self, now: Instant) -> Option<Duration> {
        let (stopped, first) = self.stopped.as_ref()?;
        (!stopped.killed).then(|| GRACE.saturating_sub(now.saturating_duration_since(*first)))
    }
}

/// A thread that waits for signals.
struct Waiting {
    thread: Option<JoinHandle<()>>,
    over: Arc<AtomicBool>,
    /// Hangs up when nobody is to be told any more.
    lifeline: Option<OwnedFd>,
}

impl Waiting {
    /// `told` hears of each signal, and when the time that it has asked for is over.
    fn start(
        signals: Arc<Signals>,
        mut told: impl FnMut(Option<Arrived>) -> Option<Duration> + Send + 'static,
    ) -> io::Result<Waiting> {
        let (theirs, lifeline) = pipe_with(PipeFlags::CLOEXEC)?;
        let over = Arc::<AtomicBool>::default();
        let ended = Arc::clone(&over);
        let thread = std::thread::Builder::new().name("signals".into()).spawn(move || {
            let mut limit = None;
            while !ended.load(Ordering::Acquire) {
                limit = told(signals.next(limit, theirs.as_fd()));
            }
        })?;
        Ok(Waiting { thread: Some(thread), over, lifeline: Some(lifeline) })
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Release);
        self.lifeline = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Stops a session when a signal comes.
pub(super) struct Stopper {
    waiting: Waiting,
    state: Arc<Mutex<State>>,
}

impl Stopper {
    pub(super) fn start(signals: Arc<Signals>, killer: Killer) -> io::Result<Stopper> {
        let state = Arc::<Mutex<State>>::default();
        let (known, ours) = (Arc::clone(&state), Arc::clone(&signals));
        let waiting = Waiting::start(signals, move |arrived| {
            let Ok(mut state) = known.lock() else { return None };
            let wish = state.wish(arrived, killer.client_is_in_our_group(), Instant::now());
            let told = match (wish, arrived) {
                (Wish::Tell, Some(arrived)) => killer.tell(arrived.signal),
                (Wish::End, Some(arrived)) => {
                    ours.carry_out(arrived.signal);
                    true
                }
                _ => true,
            };
            // What it left in the background alone is told by nobody.
            if wish == Wish::Kill || !told {
                killer.kill_all();
                if let Some((stopped, _)) = &mut state.stopped {
                    stopped.killed |= wish == Wish::Kill;
                }
            }
            state.left(Instant::now())
        })?;
        Ok(Stopper { waiting, state })
    }

    /// Whether the session was told to stop.
    pub(super) fn stopped(&self) -> Option<Stopped> {
        self.state.lock().ok()?.stopped.as_ref().map(|(stopped, _)| *stopped)
    }

    /// The session is over.
    pub(super) fn finish(self) -> Option<Stopped> {
        let Stopper { waiting, state } = self;
        drop(waiting);
        let state = state.lock().ok()?;
        state.stopped.as_ref().map(|(stopped, _)| *stopped)
    }
}

/// What follows a session, such as the writing of its report. While it lives a signal does not end
/// this process at once, but [`GRACE`] later, or when a second one comes.
pub struct Aftermath {
    _waiting: Waiting,
}

impl Aftermath {
    /// From now on, and with the signals that came after the session's end.
    ///
    /// # Errors
    /// A system call failed.
    pub fn start(signals: Arc<Signals>) -> io::Result<Aftermath> {
        let ours = Arc::clone(&signals);
        let mut state = State::default();
        let waiting = Waiting::start(signals, move |arrived| {
            let wish = state.wish(arrived, false, Instant::now());
            if let (Wish::Kill | Wish::End, Some((stopped, _))) = (wish, &state.stopped) {
                ours.carry_out(stopped.signal);
            }
            state.left(Instant::now())
        })?;
        Ok(Aftermath { _waiting: waiting })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrived(signal: i32, from_kernel: bool) -> Arrived {
        Arrived { signal, from_kernel }
    }

    #[test]
    fn a_process_asks_once_then_insists() {
        let mut state = State::default();
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        assert_eq!(state.left(at(0)), None);
        assert_eq!(state.arrived(arrived(15, false), true, at(0)), Wish::Tell);
        // As `timeout` does: to us, and to the group.
        assert_eq!(state.arrived(arrived(15, false), true, at(1)), Wish::Nothing);
        assert_eq!(state.left(at(1000)), Some(Duration::from_secs(4)));
        assert_eq!(state.left(at(9000)), Some(Duration::ZERO));
        assert_eq!(state.arrived(arrived(2, false), true, at(400)), Wish::Kill);
        assert_eq!(state.stopped.unwrap().0.signal, 15, "the first is told");
    }

    #[test]
    fn what_is_killed_and_does_not_end_is_left() {
        let mut state = State::default();
        let start = Instant::now();
        let mut at = |ms, arrived| state.wish(arrived, true, start + Duration::from_millis(ms));
        let term = Some(arrived(15, false));
        assert_eq!(at(0, None), Wish::Nothing);
        assert_eq!(at(0, term), Wish::Tell);
        assert_eq!(at(1000, term), Wish::Kill);
        assert_eq!(at(5999, term), Wish::Kill, "it has as long again");
        assert_eq!(at(6000, term), Wish::End);
        let mut state = State::default();
        let mut at = |ms, arrived| state.wish(arrived, true, start + Duration::from_millis(ms));
        assert_eq!(
            (at(0, term), at(4999, None), at(5000, None)),
            (Wish::Tell, Wish::Nothing, Wish::Kill)
        );
        assert_eq!((at(9999, term), at(10_000, term)), (Wish::Kill, Wish::End));
    }

    #[test]
    fn a_terminals_interrupt_is_the_programs_unless_it_comes_twice() {
        let mut state = State::default();
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let key = arrived(2, true);
        assert_eq!(state.arrived(key, true, at(0)), Wish::Nothing);
        assert_eq!(state.left(at(60_000)), None, "it may mean something else by it");
        assert_eq!(state.arrived(key, true, at(60_000)), Wish::Nothing);
        assert_eq!(state.arrived(key, true, at(61_000)), Wish::Kill);
        assert_eq!(state.stopped.unwrap().0.signal, 2);
        // A program that has left our group did not get it; a hang-up is meant for everybody.
        assert_eq!(State::default().arrived(key, false, at(0)), Wish::Tell);
        assert_eq!(State::default().arrived(arrived(1, true), true, at(0)), Wish::Wait);
        assert_eq!(State::default().arrived(arrived(2, false), true, at(0)), Wish::Tell);
    }
}
