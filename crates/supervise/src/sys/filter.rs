//! Installing a seccomp filter with a listener.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use rustix::io::Errno;

/// One instruction of classic BPF; `struct sock_filter`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Instruction {
    pub(crate) code: u16,
    pub(crate) if_true: u8,
    pub(crate) if_false: u8,
    pub(crate) k: u32,
}

/// Puts the calling thread, and all that it starts, under `program`; the descriptor receives its
/// notifications. Sets `no_new_privs` only where the kernel asks for it.
pub(crate) fn install(program: &[Instruction]) -> Result<OwnedFd, Errno> {
    let listener = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER;
    let mut flags: u64 = listener | libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV;
    loop {
        match set_filter(program, flags) {
            // Before 5.19: a signal may interrupt a request that is being worked on.
            Err(Errno::INVAL) if flags != listener => flags = listener,
            Err(Errno::ACCESS) if !rustix::thread::no_new_privs()? => {
                rustix::thread::set_no_new_privs(true)?;
            }
            other => return other,
        }
    }
}

pub(super) fn set_filter(program: &[Instruction], flags: u64) -> Result<OwnedFd, Errno> {
    let program = libc::sock_fprog {
        len: u16::try_from(program.len()).map_err(|_| Errno::INVAL)?,
        filter: program.as_ptr().cast_mut().cast(),
    };
    // SAFETY: `program` describes `len` instructions, laid out as the kernel's, which it only reads.
    let result = unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program)
    };
    if result < 0 {
        return Err(Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO));
    }
    let fd = RawFd::try_from(result).map_err(|_| Errno::OVERFLOW)?;
    // SAFETY: with NEW_LISTENER the call returns a new descriptor, which nobody else has.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
