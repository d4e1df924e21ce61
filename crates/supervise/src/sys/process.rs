//! Processes and signals.

use std::ffi::{CStr, CString, c_char};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use parking_lot::{RwLock, RwLockReadGuard, RwLockWriteGuard};
use rustix::fs::{Mode, OFlags, RawDir};
use rustix::io::Errno;
use rustix::process::{Pid, Signal};

fn check(result: libc::c_int) -> Result<libc::c_int, Errno> {
    if result < 0 { Err(last()) } else { Ok(result) }
}

pub(super) fn last() -> Errno {
    Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO)
}

/// Ends the process without running anything that was registered for its end.
pub(crate) fn exit(status: i32) -> ! {
    // SAFETY: `_exit` takes a number and does not return.
    unsafe { libc::_exit(status) }
}

/// A child that runs `child` and nothing else: it leaves by [`exit`] even when `child` panics.
///
/// `child` should not allocate, nor take a lock that another thread may have held at the fork. With
/// glibc, whose `fork` keeps the allocator usable, a breach could block the child, no more.
pub(crate) fn fork(child: impl FnOnce() -> i32) -> Result<Pid, Errno> {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            exit(127);
        }
    }
    // SAFETY: the child runs `child` on a copy of this thread and leaves by `_exit`; no destructor
    // of the parent's values runs in it, as `Bomb` stops an unwinding before it leaves this frame.
    match check(unsafe { libc::fork() })? {
        0 => {
            let bomb = Bomb;
            let status = child();
            std::mem::forget(bomb);
            exit(status)
        }
        pid => Pid::from_raw(pid).ok_or(Errno::CHILD),
    }
}

/// A program and its arguments, ready for `execve`.
#[derive(Debug)]
pub(crate) struct Exec {
    programs: Vec<CString>,
    /// Keeps alive what `argv` and `envp` point to.
    _strings: Vec<CString>,
    /// `/bin/sh`, a program, its arguments, null: from the second on it is the program's own list.
    argv: Vec<*const c_char>,
    envp: Vec<*const c_char>,
}

impl Exec {
    /// `programs` are tried in order; `args` begins with the name.
    pub(crate) fn new(programs: Vec<CString>, args: Vec<CString>, env: Vec<CString>) -> Exec {
        let mut argv = vec![c"/bin/sh".as_ptr()];
        argv.extend(args.iter().map(|s| s.as_ptr()));
        argv.push(std::ptr::null());
        let mut envp: Vec<_> = env.iter().map(|s| s.as_ptr()).collect();
        envp.push(std::ptr::null());
        let mut strings = args;
        strings.extend(env);
        Exec { programs, _strings: strings, argv, envp }
    }

    /// Becomes the program; returns only why it could not. As `execvp` does, goes on after a
    /// program that is not there, and gives a script without `#!` to the shell.
    pub(crate) fn exec(&mut self) -> Errno {
        let mut answer = Errno::NOENT;
        for program in &self.programs {
            // SAFETY: both lists end with a null pointer, and their strings live as long as `self`.
            unsafe { libc::execve(program.as_ptr(), self.argv[1..].as_ptr(), self.envp.as_ptr()) };
            match last() {
                Errno::NOENT | Errno::NOTDIR => {}
                Errno::ACCESS => answer = Errno::ACCESS,
                Errno::NOEXEC => {
                    self.argv[1] = program.as_ptr();
                    // SAFETY: as above; `program` lives as long as `self`.
                    unsafe {
                        libc::execve(self.argv[0], self.argv.as_ptr(), self.envp.as_ptr());
                    }
                    return last();
                }
                other => return other,
            }
        }
        answer
    }
}

/// Blocks every signal of this thread and returns what was blocked before.
pub(crate) fn block_signals() -> SignalMask {
    // SAFETY: both sets are ours, and `sigfillset` and the call below write them whole.
    unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        let mut before: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &all, &mut before);
        SignalMask(before)
    }
}

/// Which signals a thread blocks.
#[derive(Clone, Copy)]
pub(crate) struct SignalMask(libc::sigset_t);

impl SignalMask {
    /// No signal.
    pub(crate) fn none() -> SignalMask {
        // SAFETY: `sigemptyset` writes the whole set.
        unsafe {
            let mut set: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&mut set);
            SignalMask(set)
        }
    }

    /// Makes this the mask of the calling thread.
    pub(crate) fn set(&self) {
        // SAFETY: a valid set, which the call only reads.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &self.0, std::ptr::null_mut()) };
    }
}

/// What a signal does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Disposition {
    Default,
    Ignore,
    /// A function of the program.
    Handler,
}

/// What `signal` does now.
pub(crate) fn disposition(signal: i32) -> Result<Disposition, Errno> {
    // SAFETY: the kernel writes the structure, which is ours; nothing is changed.
    let action = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        check(libc::sigaction(signal, std::ptr::null(), &mut action))?;
        action
    };
    Ok(match action.sa_sigaction {
        libc::SIG_DFL => Disposition::Default,
        libc::SIG_IGN => Disposition::Ignore,
        _ => Disposition::Handler,
    })
}

/// Makes a signal do its default, or nothing.
pub(crate) fn set_disposition(signal: i32, ignore: bool) {
    let handler = if ignore { libc::SIG_IGN } else { libc::SIG_DFL };
    // SAFETY: installs no function, only one of the two constants.
    unsafe { libc::signal(signal, handler) };
}

/// Gives every signal that has a handler its default again, as `execve` would.
pub(crate) fn drop_handlers() {
    for signal in 1..=64 {
        if disposition(signal) == Ok(Disposition::Handler) {
            set_disposition(signal, false);
        }
    }
}

/// Has init kill all. No other sends this one: a `SIGTERM` for the whole process group or control group
/// is a wish that the supervisor hears as well, and passes on with some time to end.
pub(crate) const END: Signal = Signal::STKFLT;

/// A descriptor that becomes readable when `SIGCHLD` or [`END`] is pending.
pub(crate) fn signal_fd() -> Result<OwnedFd, Errno> {
    // SAFETY: the set is ours and valid; the descriptor is new and nobody else's.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, libc::SIGCHLD);
        libc::sigaddset(&mut set, END.as_raw());
        let fd = check(libc::signalfd(-1, &set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK))?;
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

/// The number of the next pending signal of [`signal_fd`].
pub(crate) fn read_signal(fd: BorrowedFd<'_>) -> Option<i32> {
    let mut buffer = [0u8; size_of::<libc::signalfd_siginfo>()];
    let size = rustix::io::read(fd, &mut buffer).ok()?;
    let number = buffer.get(..4).filter(|_| size == buffer.len())?;
    Some(i32::from_ne_bytes(number.try_into().ok()?))
}

/// In a process about to loop over these descriptors alone: moves them to 3 and up, points 0, 1 and
/// 2 at `/dev/null`, and closes everything else.
///
/// For a fresh child only: whatever owns a descriptor elsewhere in the process loses it.
pub(crate) fn keep_only<const N: usize>(keep: [OwnedFd; N]) -> Result<[OwnedFd; N], Errno> {
    let mut above = [0 as RawFd; N];
    for (slot, fd) in above.iter_mut().zip(&keep) {
        // SAFETY: duplicates a descriptor that is ours.
        *slot = check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, 16) })?;
    }
    // The originals are closed by number below.
    std::mem::forget(keep);
    // SAFETY: the child is single-threaded and nothing else in it uses a descriptor from here on:
    // it leaves by `_exit`, so no owner of one will close it again.
    unsafe {
        let null = libc::open(c"/dev/null".as_ptr(), libc::O_RDWR);
        for target in 0..3 {
            if null < 0 {
                libc::close(target);
            } else if null != target {
                libc::dup2(null, target);
            }
        }
        let mut kept = above;
        for (index, slot) in kept.iter_mut().enumerate() {
            *slot = check(libc::dup2(*slot, 3 + index as RawFd))?;
        }
        let first = 3 + N as libc::c_uint;
        check(libc::syscall(libc::SYS_close_range, first, u32::MAX, 0) as libc::c_int)?;
        Ok(kept.map(|fd| OwnedFd::from_raw_fd(fd)))
    }
}

/// Closes a descriptor of which this process, a fresh child, has a copy that it must not keep.
pub(crate) fn close_copy(fd: RawFd) {
    // SAFETY: in the child only; its owner there is never dropped, as the child leaves by `_exit`
    // or becomes another program.
    unsafe { libc::close(fd) };
}

/// Sessions of one process start, or have a client's open file in hand.
static STARTS: RwLock<()> = RwLock::new(());

/// Until it is dropped no session starts: what starts has a copy of every descriptor, and what a client of
/// another session closes would not be closed.
pub(crate) fn nothing_starts() -> RwLockReadGuard<'static, ()> {
    // Not behind one that wants to start: who has this may wait for somebody who needs it too.
    STARTS.read_recursive()
}

/// For who starts a session.
pub(crate) fn starting() -> RwLockWriteGuard<'static, ()> {
    STARTS.write()
}

/// Closes what the next `execve` would close, but for these. Nothing is, where there is no `/proc`.
///
/// 0, 1 and 2 stay until then: what is opened meanwhile is not to come where a program's files go.
///
/// For a fresh child only, whose program begins much later.
pub(crate) fn close_before_exec(keep: &[RawFd]) {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let Ok(list) = rustix::fs::open(c"/proc/self/fd", flags, Mode::empty()) else { return };
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut entries = RawDir::new(&list, &mut buffer);
    while let Some(Ok(entry)) = entries.next() {
        let number = entry.file_name().to_str().ok().and_then(|name| name.parse::<RawFd>().ok());
        let ours = |fd: &RawFd| *fd < 3 || *fd == list.as_raw_fd() || keep.contains(fd);
        let Some(fd) = number.filter(|fd| !ours(fd)) else { continue };
        // SAFETY: asks about a number.
        if unsafe { libc::fcntl(fd, libc::F_GETFD) } == libc::FD_CLOEXEC {
            close_copy(fd);
        }
    }
}

/// Kills every child of the calling thread that `/proc` lists; false if it lists none, or not at
/// all.
pub(crate) fn kill_children() -> bool {
    let Ok(file) = rustix::fs::open(
        c"/proc/thread-self/children",
        rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC,
        rustix::fs::Mode::empty(),
    ) else {
        return false;
    };
    let mut any = false;
    let mut pid = 0i32;
    let mut buffer = [0u8; 512];
    loop {
        let size = match rustix::io::read(&file, &mut buffer) {
            Ok(0) | Err(_) => return any,
            Ok(size) => size,
        };
        for byte in buffer.iter().take(size) {
            match byte {
                b'0'..=b'9' => pid = pid.wrapping_mul(10).wrapping_add(i32::from(byte - b'0')),
                _ => {
                    if let Some(child) = Pid::from_raw(std::mem::take(&mut pid)) {
                        any = true;
                        let _ = rustix::process::kill_process(child, Signal::KILL);
                    }
                }
            }
        }
    }
}

/// Opens a file for one write; for `/proc/self/uid_map` and its like.
pub(crate) fn write_once(path: &CStr, text: &[u8]) -> Result<(), Errno> {
    let flags = rustix::fs::OFlags::WRONLY | rustix::fs::OFlags::CLOEXEC;
    let file = rustix::fs::open(path, flags, rustix::fs::Mode::empty())?;
    rustix::io::write(&file, text).map(drop)
}

/// Leaves the namespaces named by `flags` (`CLONE_NEW*`) for new ones.
pub(crate) fn unshare(flags: libc::c_int) -> Result<(), Errno> {
    // SAFETY: only namespace flags reach the call; unlike CLONE_FILES they change nothing that Rust
    // relies on.
    check(unsafe { libc::unshare(flags & (libc::CLONE_NEWUSER | libc::CLONE_NEWNS)) }).map(drop)
}
