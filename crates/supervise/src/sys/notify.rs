//! Seccomp user notification: system calls of other processes, waiting for an answer.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::last_error;

/// A system call that waits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Notification {
    /// Its name: valid until it is answered or its thread is gone.
    pub(crate) id: u64,
    /// The thread, as we number it.
    pub(crate) tid: i32,
    /// The system call's number, and whose numbers these are.
    pub(crate) number: i32,
    pub(crate) arch: u32,
    /// Its arguments.
    pub(crate) args: [u64; 6],
}

/// What a system call comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Response {
    /// It returns this.
    Value(i64),
    /// It fails with this error number.
    Error(i32),
    /// The kernel carries it out.
    Continue,
}

/// Asks the kernel to hand its processor over with a system call and with its answer: the other side
/// need not be woken on a processor that sleeps. Before Linux 6.6 there is no such thing.
pub(crate) fn hand_over_processor(listener: BorrowedFd<'_>) {
    /// `SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP`
    const SYNC_WAKE_UP: u64 = 1;
    // SAFETY: the request has its argument by value.
    unsafe {
        libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SET_FLAGS, SYNC_WAKE_UP);
    }
}

/// Waits for the next system call.
///
/// # Errors
/// `ENOENT`: its thread was gone before it could be had, or (since Linux 6.11) nobody is left under
/// the filter. `EINTR`.
pub(crate) fn receive(listener: BorrowedFd<'_>) -> io::Result<Notification> {
    // SAFETY: all zero is a valid value of this plain structure; the kernel wants it so.
    let mut notif: libc::seccomp_notif = unsafe { std::mem::zeroed() };
    let request = libc::SECCOMP_IOCTL_NOTIF_RECV;
    // SAFETY: the request writes one `seccomp_notif`, which `notif` is.
    let answer = unsafe { libc::ioctl(listener.as_raw_fd(), request, &raw mut notif) };
    if answer != 0 {
        return Err(last_error());
    }
    Ok(Notification {
        id: notif.id,
        tid: notif.pid.cast_signed(),
        number: notif.data.nr,
        arch: notif.data.arch,
        args: notif.data.args,
    })
}

/// Answers a system call.
///
/// # Errors
/// `ENOENT`: its thread is gone.
pub(crate) fn respond(listener: BorrowedFd<'_>, id: u64, response: Response) -> io::Result<()> {
    let (val, error, flags) = match response {
        Response::Value(value) => (value, 0, 0),
        Response::Error(errno) => (0, -errno, 0),
        Response::Continue => (0, 0, libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32),
    };
    let mut resp = libc::seccomp_notif_resp { id, val, error, flags };
    let request = libc::SECCOMP_IOCTL_NOTIF_SEND;
    // SAFETY: the request reads one `seccomp_notif_resp`, which `resp` is.
    let answer = unsafe { libc::ioctl(listener.as_raw_fd(), request, &raw mut resp) };
    if answer == 0 { Ok(()) } else { Err(last_error()) }
}

/// Whether the system call still waits: what was looked up by its thread's number until now belongs
/// to its thread.
pub(crate) fn is_waiting(listener: BorrowedFd<'_>, id: u64) -> bool {
    let request = libc::SECCOMP_IOCTL_NOTIF_ID_VALID;
    // SAFETY: the request reads one `u64`, which `id` is.
    unsafe { libc::ioctl(listener.as_raw_fd(), request, &raw const id) == 0 }
}

/// Gives the thread that waits a copy of `fd`, close-on-exec; the descriptor's number there.
///
/// Its system call does not return it in the same step: `fd` is to be closed before, as the client may
/// close its own at once. Only a signal that kills comes between; before Linux 5.19 any does, and the
/// thread has a descriptor that it does not know of.
///
/// # Errors
/// `EMFILE`, as the thread would have got it; `ENOENT`: it is gone.
pub(crate) fn give_fd(listener: BorrowedFd<'_>, id: u64, fd: BorrowedFd<'_>) -> io::Result<i32> {
    let mut add = libc::seccomp_notif_addfd {
        id,
        flags: 0,
        srcfd: fd.as_raw_fd().cast_unsigned(),
        newfd: 0,
        newfd_flags: libc::O_CLOEXEC.cast_unsigned(),
    };
    let request = libc::SECCOMP_IOCTL_NOTIF_ADDFD;
    // SAFETY: the request reads one `seccomp_notif_addfd`, which `add` is.
    let answer = unsafe { libc::ioctl(listener.as_raw_fd(), request, &raw mut add) };
    if answer < 0 { Err(last_error()) } else { Ok(answer) }
}
