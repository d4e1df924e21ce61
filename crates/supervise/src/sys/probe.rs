//! Calls that `doctor` makes to see whether they are answered.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::io::Errno;
use rustix::process::Pid;

use super::filter::Instruction;
use super::process::last;

/// Puts the calling process under a filter that allows everything, with these flags.
pub(crate) fn set_filter(allow: &[Instruction], flags: u64) -> Result<(), Errno> {
    rustix::thread::set_no_new_privs(true)?;
    super::filter::set_filter(allow, flags).map(std::mem::forget)
}

/// As [`set_filter`] with a listener; asks that to send a descriptor in answer to a call that does
/// not exist. `ENOENT` is what a kernel says that could.
pub(crate) fn send_descriptor(allow: &[Instruction]) -> Result<(), Errno> {
    rustix::thread::set_no_new_privs(true)?;
    let listener = super::filter::set_filter(allow, libc::SECCOMP_FILTER_FLAG_NEW_LISTENER)?;
    let request = libc::seccomp_notif_addfd {
        id: 0,
        flags: libc::SECCOMP_ADDFD_FLAG_SEND as u32,
        srcfd: listener.as_raw_fd().cast_unsigned(),
        newfd: 0,
        newfd_flags: 0,
    };
    // SAFETY: the kernel reads one `seccomp_notif_addfd`, which is ours.
    let result = unsafe {
        libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_ADDFD, &raw const request)
    };
    match last() {
        _ if result >= 0 => Ok(()),
        Errno::NOENT => Ok(()),
        errno => Err(errno),
    }
}

/// Reads `ours`, a place in our own memory, in a process forked from us, and writes it back there.
pub(crate) fn copy_memory(pid: Pid, ours: &[u8]) -> Result<Vec<u8>, Errno> {
    let mut copy = vec![0u8; ours.len()];
    let local = libc::iovec { iov_base: copy.as_mut_ptr().cast(), iov_len: copy.len() };
    let remote = libc::iovec { iov_base: ours.as_ptr().cast_mut().cast(), iov_len: ours.len() };
    let pid = pid.as_raw_nonzero().get();
    // SAFETY: the kernel writes at most `copy.len()` bytes to `copy`; the other addresses are of
    // the other process.
    let read = unsafe { libc::process_vm_readv(pid, &raw const local, 1, &raw const remote, 1, 0) };
    check(read, ours.len())?;
    // SAFETY: the kernel reads `copy`, and writes into the other process.
    let wrote =
        unsafe { libc::process_vm_writev(pid, &raw const local, 1, &raw const remote, 1, 0) };
    check(wrote, ours.len())?;
    Ok(copy)
}

fn check(result: isize, wanted: usize) -> Result<(), Errno> {
    match usize::try_from(result) {
        Ok(size) if size == wanted => Ok(()),
        Ok(_) => Err(Errno::FAULT),
        Err(_) => Err(Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO)),
    }
}

/// Becomes the tracer of a process; ends with the calling process.
pub(crate) fn trace(pid: Pid) -> Result<(), Errno> {
    // SAFETY: SEIZE takes no pointers and leaves the tracee running.
    let result = unsafe { libc::ptrace(libc::PTRACE_SEIZE, pid.as_raw_nonzero().get(), 0, 0) };
    if result < 0 { Err(last()) } else { Ok(()) }
}

/// Takes a descriptor of another process.
pub(crate) fn take_descriptor(pidfd: BorrowedFd<'_>, number: i32) -> Result<(), Errno> {
    let flags = rustix::process::PidfdGetfdFlags::empty();
    rustix::process::pidfd_getfd(pidfd, number, flags).map(drop)
}
