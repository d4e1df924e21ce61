//! The processes behind system calls: found by thread, remembered, and never mistaken.
//!
//! A thread's number is all that a notification says. Numbers are used again, so what is remembered
//! of one is checked each time: the thread must still be one of the process that it was.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use iommu::MmId;
use parking_lot::{Mutex, RwLock, RwLockReadGuard};
use rustix::event::PollFlags;
use rustix::fs::{Access, AtFlags, Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

use super::memory::Mm;
use crate::is_ready;
use crate::sys::client;
use crate::sys::process::nothing_starts;

/// Processes remembered before the dead ones are looked for.
const SWEEP: usize = 64;

/// A descriptor of a thread, not of its process (Linux 6.9; `O_EXCL`, `pidfd_open(2)`).
const PIDFD_THREAD: PidfdFlags = PidfdFlags::from_bits_retain(0o200);

/// A number is not used again so soon: some hundred processes and threads would have to be started
/// meanwhile (the least `pid_max` is 301).
const STILL_THE_SAME: Duration = Duration::from_millis(2);

/// A process.
pub(crate) struct Process {
    tgid: i32,
    pidfd: OwnedFd,
    /// Its `/proc/PID/task`.
    tasks: OwnedFd,
    /// Its threads but the first, as they were met.
    threads: Mutex<HashMap<i32, OwnedFd>>,
    mm: Mutex<Option<Arc<Mm>>>,
}

impl Process {
    fn open(tgid: i32) -> io::Result<Self> {
        let pid = Pid::from_raw(tgid).ok_or(io::ErrorKind::InvalidInput)?;
        let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let tasks = rustix::fs::open(format!("/proc/{tgid}/task"), flags, Mode::empty())?;
        let threads = Mutex::default();
        Ok(Self { tgid, pidfd, tasks, threads, mm: Mutex::new(None) })
    }

    /// Its number.
    pub(crate) const fn tgid(&self) -> i32 {
        self.tgid
    }

    fn has_thread(&self, tid: i32) -> bool {
        let mut text = [0; 12];
        let name = decimal(tid, &mut text);
        rustix::fs::accessat(&self.tasks, name, Access::EXISTS, AtFlags::empty()).is_ok()
    }

    fn is_dead(&self) -> bool {
        is_ready(&self.pidfd, PollFlags::IN)
    }

    /// One of the descriptors of its thread `tid`, which waits.
    ///
    /// # Errors
    /// `EBADF`: there is no such descriptor.
    pub(crate) fn descriptor(&self, tid: i32, fd: i32) -> io::Result<Copied> {
        let nothing_starts = nothing_starts();
        Ok(Copied { fd: self.copy(tid, fd)?, _nothing_starts: nothing_starts })
    }

    fn copy(&self, tid: i32, fd: i32) -> io::Result<OwnedFd> {
        if fd < 0 {
            return Err(Errno::BADF.into());
        }
        let get = |of: &OwnedFd| pidfd_getfd(of, fd, PidfdGetfdFlags::empty());
        if tid == self.tgid {
            return Ok(get(&self.pidfd)?);
        }
        // A thread may have descriptors of its own (`unshare`), and the first one may be gone.
        let mut threads = self.threads.lock();
        if let Some(thread) = threads.get(&tid) {
            match get(thread) {
                // The number is another thread's now.
                Err(Errno::SRCH) => {}
                got => return Ok(got?),
            }
        }
        let pid = Pid::from_raw(tid).ok_or(Errno::SRCH)?;
        match pidfd_open(pid, PIDFD_THREAD) {
            Ok(thread) => {
                let got = get(&thread);
                if threads.len() >= SWEEP {
                    threads.clear();
                }
                threads.insert(tid, thread);
                Ok(got?)
            }
            // Before Linux 6.9.
            Err(Errno::INVAL) => Ok(get(&self.pidfd)?),
            Err(error) => Err(error.into()),
        }
    }

    /// `RLIMIT_MEMLOCK` in bytes.
    pub(crate) fn memlock_limit(&self) -> u64 {
        // A process that is gone locks nothing more.
        client::memlock_limit(self.tgid).unwrap_or(0)
    }
}

/// A copy of a client's descriptor. It shares the open file: hold it no longer than needed.
pub(crate) struct Copied {
    // Closed first.
    fd: OwnedFd,
    _nothing_starts: RwLockReadGuard<'static, ()>,
}

impl Copied {
    /// One to be held for longer: of a file that nobody waits for to be closed.
    pub(crate) fn keep(self) -> OwnedFd {
        self.fd
    }
}

impl AsFd for Copied {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// `tid` in decimal digits.
fn decimal(tid: i32, text: &mut [u8; 12]) -> &str {
    use std::io::Write as _;
    let mut rest = &mut text[..];
    // Eleven characters are enough for any.
    let _ = write!(rest, "{tid}");
    let len = 12 - rest.len();
    std::str::from_utf8(&text[..len]).unwrap_or_default()
}

/// A thread that was met.
struct Thread {
    process: Arc<Process>,
    /// When it made a system call last.
    seen: Instant,
}

/// The processes that were met.
#[derive(Default)]
pub(crate) struct Processes {
    by_tid: Mutex<HashMap<i32, Thread>>,
    mms: RwLock<HashMap<MmId, Arc<Mm>>>,
    next_mm: AtomicU32,
}

impl Processes {
    /// The process of a thread that `waits` for an answer.
    ///
    /// # Errors
    /// The thread is gone, or we may not look into it.
    pub(crate) fn of(&self, tid: i32, waits: impl FnOnce() -> bool) -> io::Result<Arc<Process>> {
        let now = Instant::now();
        let mut known = self.by_tid.lock();
        if let Some(thread) = known.get_mut(&tid)
            && (now.duration_since(thread.seen) < STILL_THE_SAME || thread.process.has_thread(tid))
        {
            thread.seen = now;
            return Ok(Arc::clone(&thread.process));
        }
        if known.len() >= SWEEP {
            known.retain(|tid, thread| thread.process.has_thread(*tid));
            let mut mms = self.mms.write();
            mms.retain(|_, mm| Arc::strong_count(mm) > 1 || mm.is_alive());
        }
        let tgid = tgid_of(tid)?;
        let mut others = known.values().map(|thread| &thread.process);
        let process = match others.find(|p| p.tgid == tgid && !p.is_dead()) {
            Some(process) => Arc::clone(process),
            None => Arc::new(Process::open(tgid)?),
        };
        // Until now the number may have been another's.
        if !waits() {
            return Err(io::ErrorKind::NotFound.into());
        }
        known.insert(tid, Thread { process: Arc::clone(&process), seen: now });
        Ok(process)
    }

    /// The address space of a process, as it is now for a thread that waits: another after an `exec`.
    ///
    /// # Errors
    /// The process is gone.
    pub(crate) fn mm(&self, process: &Process, tid: i32) -> io::Result<Arc<Mm>> {
        let mut current = process.mm.lock();
        // After an exec a transfer that waits keeps the old one alive.
        if let Some(mm) = &*current
            && mm.is_still_of(tid)
        {
            return Ok(Arc::clone(mm));
        }
        let id = MmId(self.next_mm.fetch_add(1, Ordering::Relaxed));
        let mm = Arc::new(Mm::open(id, process.tgid, tid)?);
        self.mms.write().insert(id, Arc::clone(&mm));
        *current = Some(Arc::clone(&mm));
        Ok(mm)
    }

    /// An address space by name.
    pub(crate) fn mm_by_id(&self, id: MmId) -> Option<Arc<Mm>> {
        self.mms.read().get(&id).cloned()
    }
}

/// The number of a thread's process.
fn tgid_of(tid: i32) -> io::Result<i32> {
    use std::io::Read as _;
    let mut text = String::new();
    File::open(format!("/proc/{tid}/status"))?.read_to_string(&mut text)?;
    let tgid = text.lines().find_map(|line| line.strip_prefix("Tgid:")?.trim().parse().ok());
    tgid.ok_or_else(|| io::ErrorKind::InvalidData.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_belongs_to_its_process_while_it_lives() {
        let processes = Processes::default();
        let (tell, hear) = std::sync::mpsc::channel();
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            tell.send(rustix::thread::gettid().as_raw_nonzero().get()).unwrap();
            let _ = stopped.recv();
        });
        let tid = hear.recv().unwrap();
        let process = processes.of(tid, || true).unwrap();
        assert_eq!(process.tgid(), std::process::id().cast_signed());
        assert!(Arc::ptr_eq(&process, &processes.of(process.tgid(), || true).unwrap()));
        drop(stop);
        thread.join().unwrap();
        // The kernel takes the number away a little after the join.
        while process.has_thread(tid) {
            std::thread::yield_now();
        }
        std::thread::sleep(STILL_THE_SAME);
        assert!(processes.of(tid, || true).is_err());
    }

    #[test]
    fn one_address_space_has_one_name() {
        let processes = Processes::default();
        let process = processes.of(std::process::id().cast_signed(), || true).unwrap();
        let mm = processes.mm(&process, process.tgid).unwrap();
        assert!(Arc::ptr_eq(&mm, &processes.mm(&process, process.tgid).unwrap()));
        assert!(processes.mm_by_id(mm.id()).is_some());
        assert!(processes.mm_by_id(MmId(77)).is_none());
    }

    #[test]
    fn digits() {
        let mut text = [0; 12];
        assert_eq!(decimal(0, &mut text), "0");
        assert_eq!(decimal(i32::MIN, &mut text), "-2147483648");
    }
}
