//! Signals that arrive at this process, told through a pipe, whichever thread they interrupt.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI32, Ordering};

use libc::{c_int, c_void, siginfo_t};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};

/// A signal that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Arrived {
    /// Its number.
    pub(crate) signal: i32,
    /// The kernel sent it, as for a terminal's keys; else a process did.
    pub(crate) from_kernel: bool,
}

/// Both ends; never closed, as a handler may be about to write.
static PIPE: OnceLock<(OwnedFd, OwnedFd)> = OnceLock::new();
/// What the handler writes to.
static WRITE_END: AtomicI32 = AtomicI32::new(-1);

/// The end to read from; non-blocking, as the other is.
pub(crate) fn pipe() -> io::Result<BorrowedFd<'static>> {
    if PIPE.get().is_none() {
        let ends = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        // Another thread's, when it was faster.
        let _ = PIPE.set(ends);
    }
    let Some((read, write)) = PIPE.get() else { return Err(Errno::BADF.into()) };
    WRITE_END.store(write.as_raw_fd(), Ordering::SeqCst);
    Ok(read.as_fd())
}

extern "C" fn tell(signal: c_int, info: *mut siginfo_t, _: *mut c_void) {
    // SAFETY: SA_SIGINFO is set, so the kernel passes a structure that lives as long as this call;
    // errno is this thread's own, and `write` may be called in a handler.
    unsafe {
        let errno = *libc::__errno_location();
        let from_kernel = (*info).si_code > 0;
        let bytes = [signal as u8, u8::from(from_kernel)];
        let fd: RawFd = WRITE_END.load(Ordering::SeqCst);
        // A full pipe has news enough.
        libc::write(fd, bytes.as_ptr().cast(), bytes.len());
        *libc::__errno_location() = errno;
    }
}

/// Has a signal told through [`pipe`] from now on. System calls that it interrupts go on.
pub(crate) fn tell_of(signal: i32) -> Result<(), Errno> {
    // SAFETY: the handler takes what SA_SIGINFO says, and does only what a handler may do.
    let result = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = tell as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART;
        libc::sigemptyset(&mut action.sa_mask);
        libc::sigaction(signal, &action, std::ptr::null_mut())
    };
    if result < 0 { Err(super::process::last()) } else { Ok(()) }
}

/// The next signal that was told; `None`: no more yet.
pub(crate) fn next(from: BorrowedFd<'_>) -> Option<Arrived> {
    let mut bytes = [0u8; 2];
    match rustix::io::read(from, &mut bytes) {
        Ok(2) => Some(Arrived { signal: bytes[0].into(), from_kernel: bytes[1] != 0 }),
        _ => None,
    }
}
