//! Locks of open file descriptions (`F_OFD_SETLK`): they are gone when the last descriptor is.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::last_error;

/// One byte's lock.
fn lock(kind: libc::c_int, byte: i64) -> libc::flock {
    libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: byte,
        l_len: 1,
        l_pid: 0,
    }
}

/// Locks a byte for the description behind `fd`: against writers where it can only be read, else
/// against all.
///
/// # Errors
/// `EAGAIN`: another description has it.
pub(crate) fn take(fd: BorrowedFd<'_>, byte: i64, writable: bool) -> io::Result<()> {
    let mut lock = lock(if writable { libc::F_WRLCK } else { libc::F_RDLCK }, byte);
    // SAFETY: the command reads one `flock`, which `lock` is.
    let answer = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_OFD_SETLK, &raw mut lock) };
    if answer == 0 { Ok(()) } else { Err(last_error()) }
}

/// Whether a description other than that of `fd` has a lock on a byte.
///
/// # Errors
/// Of `fcntl`.
pub(crate) fn is_taken(fd: BorrowedFd<'_>, byte: i64) -> io::Result<bool> {
    let mut lock = lock(libc::F_WRLCK, byte);
    // SAFETY: the command reads and writes one `flock`, which `lock` is.
    let answer = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_OFD_GETLK, &raw mut lock) };
    if answer == 0 { Ok(i32::from(lock.l_type) != libc::F_UNLCK) } else { Err(last_error()) }
}
