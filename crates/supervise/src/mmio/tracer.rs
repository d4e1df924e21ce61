//! The tracer: one thread that sees every stop of its clients.
//!
//! ptrace binds a client to a thread, not to a process, so all calls come from here and waiting
//! takes notice of this thread's tracees only. Signals other than ours go on as they came; group
//! stops are left in force (PTRACE_LISTEN), so job control works. A client that ends is let go before
//! its parent can be told of it. When the tracer ends, for whatever reason, the kernel kills its
//! clients (PTRACE_O_EXITKILL). ptrace(2).

use std::collections::{HashMap, HashSet};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};

use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, getpid, pidfd_open, pidfd_send_signal};

use super::patience::Patience;
use super::trap::{self, Outcome};
use super::{Bars, Unsupported};
use crate::is_ready;
use crate::maps::Space;
use crate::sys::ptrace::{self, Change, EVENT_STOP};

/// Instruction byte sequences that are remembered as told.
const TOLD: usize = 1024;

/// Processes that are kept before the dead ones are looked for.
const SWEEP: usize = 64;

/// Why a process cannot be traced.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel refuses: another tracer, Yama, a seccomp filter of a container, another user.
    #[error("process {pid} cannot be traced: {error}")]
    Refused {
        /// The process.
        pid: i32,
        /// What ptrace said.
        error: io::Error,
    },
    /// A child of this very process: waiting for it would take the tracer's stops away, and the
    /// tracer would take its exit status.
    #[error("process {0} is a child of the tracing process; put a process between them")]
    OwnChild(i32),
    /// No thread, or its parent is not known.
    #[error("the tracer's thread cannot start: {0}")]
    Thread(#[from] io::Error),
}

/// Traces a process and all that come from it. Dropped, it kills them.
#[derive(Debug)]
pub struct Tracer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    stopping: AtomicBool,
    traps: AtomicU64,
    /// The living processes: a descriptor each, as a number could be another's by now.
    processes: Mutex<HashMap<i32, OwnedFd>>,
}

impl Shared {
    fn processes(&self) -> MutexGuard<'_, HashMap<i32, OwnedFd>> {
        self.processes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tracer {
    /// Trace `root` and everything it starts from now on. It should have one thread and be about
    /// to exec: waiting for a byte, say, or stopped. Its parent must be another process than this.
    ///
    /// As long as clients live, no other thread of this process may wait for any child whatever
    /// (`waitpid(-1)` and its like) without `__WNOTHREAD`: the kernel would give it the stops that
    /// belong to the tracer. Waiting for one's own children by number is fine. Clients that become
    /// orphans are reaped by whoever adopts them.
    pub fn start(root: Pid, bars: Arc<dyn Bars>) -> Result<Self, Error> {
        let pid = root.as_raw_nonzero().get();
        if parent(pid)? == getpid().as_raw_nonzero().get() {
            return Err(Error::OwnChild(pid));
        }
        let shared = Arc::new(Shared::default());
        let (started, answer) = channel();
        let mine = shared.clone();
        let thread = Builder::new()
            .name("softvfio-trap".into())
            .spawn(move || Loop::run(root, bars, mine, &started))?;
        let tracer = Self { shared, thread: Some(thread) };
        match answer.recv() {
            Ok(Ok(())) => Ok(tracer),
            Ok(Err(error)) => Err(Error::Refused { pid, error }),
            Err(_) => Err(Error::Thread(io::Error::other("it ended at once"))),
        }
    }

    /// Whether all clients have ended, or are at their end.
    pub fn is_finished(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Trapped accesses so far; a repeated string instruction may count once for many.
    pub fn traps(&self) -> u64 {
        self.shared.traps.load(Ordering::Relaxed)
    }

    /// Wait until all clients have ended, or are at their end.
    pub fn wait(mut self) {
        self.join();
    }

    /// Kill all clients, once the access that is being answered is done. When it returns, each has
    /// been sent its SIGKILL; its parent sees when it is gone.
    pub fn stop(self) {}

    fn join(&mut self) {
        if let Some(thread) = self.thread.take() {
            // a panic of a device's model has killed the clients already
            let _ = thread.join();
        }
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        if self.thread.is_none() {
            return;
        }
        self.shared.stopping.store(true, Ordering::SeqCst);
        // one end wakes the thread; it then ends, and the kernel kills whatever is left
        for process in self.shared.processes().values() {
            let _ = pidfd_send_signal(process, Signal::KILL);
        }
        self.join();
    }
}

/// The parent of a process: the fourth field of its stat file, behind a name in parentheses.
fn parent(pid: i32) -> io::Result<i32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    stat.rsplit_once(") ")
        .and_then(|(_, rest)| rest.split(' ').nth(1)?.parse().ok())
        .ok_or_else(|| io::Error::other("no parent in /proc/PID/stat"))
}

/// What the thread knows.
struct Loop {
    bars: Arc<dyn Bars>,
    shared: Arc<Shared>,
    /// Threads that have stopped at least once.
    threads: HashSet<i32>,
    /// Address spaces, of threads that touched a trapped page.
    spaces: HashMap<i32, Space>,
    told: HashSet<Vec<u8>>,
    patience: Patience,
    /// The last stop was a trap that was answered.
    trapped: bool,
}

impl Loop {
    fn run(root: Pid, bars: Arc<dyn Bars>, shared: Arc<Shared>, started: &Sender<io::Result<()>>) {
        let (threads, spaces, told) = Default::default();
        let patience = Patience::new();
        let mut this = Self { bars, shared, threads, spaces, told, patience, trapped: false };
        let tid = root.as_raw_nonzero().get();
        let seized = ptrace::seize(tid);
        let refused = seized.is_err();
        if !refused {
            this.see(tid);
        }
        let _ = started.send(seized);
        if refused {
            return;
        }
        while !this.shared.stopping.load(Ordering::SeqCst) {
            match this.wait() {
                Ok(Some((tid, Change::Gone))) => this.forget(tid),
                // an error: it was killed meanwhile, and its end will be told
                Ok(Some((tid, Change::Stopped(signal, event)))) => {
                    let _ = this.stopped(tid, signal, event);
                }
                Ok(None) | Err(_) => return,
            }
        }
    }

    fn wait(&mut self) -> io::Result<Option<(i32, Change)>> {
        if std::mem::take(&mut self.trapped)
            && let Some(change) = self.patience.look(|| ptrace::poll().ok().flatten())
        {
            return Ok(Some(change));
        }
        ptrace::wait()
    }

    /// A thread's first stop. A new one's may come before its parent's event, or after its end.
    fn see(&mut self, tid: i32) {
        if !self.threads.insert(tid) {
            return;
        }
        let Some(pid) = Pid::from_raw(tid) else { return };
        let process = pidfd_open(pid, PidfdFlags::empty()).or_else(|error| {
            if error == Errno::MFILE {
                self.spaces.clear();
            }
            pidfd_open(pid, PidfdFlags::empty())
        });
        // only a process has one, not a thread of it
        if let Ok(process) = process {
            let mut processes = self.shared.processes();
            if processes.len() >= SWEEP && processes.len().is_multiple_of(SWEEP) {
                processes.retain(|_, process| !is_ready(process, PollFlags::IN));
            }
            processes.insert(tid, process);
        }
    }

    fn forget(&mut self, tid: i32) {
        self.threads.remove(&tid);
        self.spaces.remove(&tid);
        self.shared.processes().remove(&tid);
    }

    fn stopped(&mut self, tid: i32, signal: i32, event: i32) -> io::Result<()> {
        self.see(tid);
        match event {
            0 if signal == libc::SIGBUS => {
                let signal = if self.bus(tid)? { 0 } else { signal };
                ptrace::resume(tid, signal)
            }
            0 => ptrace::resume(tid, signal),
            // the parent could not wait for it while it is traced, although its pidfd says it can
            libc::PTRACE_EVENT_EXIT => {
                // a process whose first thread ends may go on with the others
                if has_other_threads(tid) {
                    self.threads.remove(&tid);
                    self.spaces.remove(&tid);
                } else {
                    self.forget(tid);
                }
                ptrace::detach(tid)
            }
            EVENT_STOP if is_job_control(signal) => ptrace::listen(tid),
            libc::PTRACE_EVENT_EXEC => {
                // the caller has taken over the first thread's number, and lives elsewhere
                self.spaces.remove(&tid);
                if let Ok(former) = ptrace::event_message(tid).map(|former| former as i32)
                    && former != tid
                {
                    self.threads.remove(&former);
                    self.spaces.remove(&former);
                }
                ptrace::resume(tid, 0)
            }
            _ => ptrace::resume(tid, 0),
        }
    }

    /// A SIGBUS; true: it was an access to a device, which is done.
    fn bus(&mut self, tid: i32) -> io::Result<bool> {
        let Some(address) = trap::fault_address(tid)? else { return Ok(false) };
        let bars = self.bars.clone();
        let Some(space) = self.space(tid) else { return Ok(false) };
        match trap::answer(tid, address, space, &*bars) {
            Ok(Outcome::Done) => {
                self.shared.traps.fetch_add(1, Ordering::Relaxed);
                self.trapped = true;
                Ok(true)
            }
            Ok(Outcome::Pass) | Err(_) => Ok(false),
            Ok(Outcome::Unsupported(what)) => {
                self.tell(&what);
                Ok(false)
            }
        }
    }

    fn space(&mut self, tid: i32) -> Option<&mut Space> {
        if !self.spaces.contains_key(&tid) {
            let space = Space::of(tid).or_else(|_| {
                // perhaps too many descriptors; the others are opened again when needed
                self.spaces.clear();
                Space::of(tid)
            });
            self.spaces.insert(tid, space.ok()?);
        }
        self.spaces.get_mut(&tid)
    }

    fn tell(&mut self, what: &Unsupported) {
        if self.told.len() < TOLD && self.told.insert(what.bytes.clone()) {
            self.bars.unsupported(what);
        }
    }
}

fn has_other_threads(tid: i32) -> bool {
    std::fs::read_dir(format!("/proc/{tid}/task")).is_ok_and(|threads| threads.count() > 1)
}

fn is_job_control(signal: i32) -> bool {
    matches!(signal, libc::SIGSTOP | libc::SIGTSTP | libc::SIGTTIN | libc::SIGTTOU)
}
