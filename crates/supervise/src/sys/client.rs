//! Memory and limits of another process.

use std::io;
use std::time::Duration;

use super::last_error;

/// Copies from address `addr` of a process; how many bytes, fewer where its memory ends.
pub(crate) fn read_memory(pid: i32, addr: u64, data: &mut [u8]) -> usize {
    let local = libc::iovec { iov_base: data.as_mut_ptr().cast(), iov_len: data.len() };
    let remote = libc::iovec { iov_base: addr as *mut libc::c_void, iov_len: data.len() };
    // SAFETY: the kernel writes at most `data.len()` bytes to `data`; what `remote` names is checked
    // against the other process' memory.
    let copied =
        unsafe { libc::process_vm_readv(pid, &raw const local, 1, &raw const remote, 1, 0) };
    usize::try_from(copied).unwrap_or(0)
}

/// Copies to address `addr` of a process; how many bytes, fewer where its memory ends or may not be
/// written.
pub(crate) fn write_memory(pid: i32, addr: u64, data: &[u8]) -> usize {
    send(pid, addr, data.as_ptr().cast(), data.len())
}

/// The same from an address here, whatever is there.
pub(super) fn send(pid: i32, addr: u64, from: *const libc::c_void, len: usize) -> usize {
    let local = libc::iovec { iov_base: from.cast_mut(), iov_len: len };
    let remote = libc::iovec { iov_base: addr as *mut libc::c_void, iov_len: len };
    // SAFETY: the kernel only reads what `local` names, and answers an error where it cannot; what
    // `remote` names is checked against the other process' memory.
    let copied =
        unsafe { libc::process_vm_writev(pid, &raw const local, 1, &raw const remote, 1, 0) };
    usize::try_from(copied).unwrap_or(0)
}

/// Copies several pieces, each to its address, in one system call; how many bytes.
pub(crate) fn write_pieces(pid: i32, pieces: &[(u64, &[u8])]) -> usize {
    let local = pieces.iter().map(|(_, data)| libc::iovec {
        iov_base: data.as_ptr().cast_mut().cast(),
        iov_len: data.len(),
    });
    let remote = pieces.iter().map(|(addr, data)| libc::iovec {
        iov_base: *addr as *mut libc::c_void,
        iov_len: data.len(),
    });
    let (local, remote) = (local.collect::<Vec<_>>(), remote.collect::<Vec<_>>());
    let count = pieces.len() as libc::c_ulong;
    // SAFETY: the kernel only reads what `local` names, which `pieces` borrows; what `remote` names is
    // checked against the other process' memory.
    let copied =
        unsafe { libc::process_vm_writev(pid, local.as_ptr(), count, remote.as_ptr(), count, 0) };
    usize::try_from(copied).unwrap_or(0)
}

/// The time that a process has been running on processors; `None` when it is gone.
pub(crate) fn cpu_time(pid: i32) -> Option<Duration> {
    /// `CPUCLOCK_SCHED` of a process: what `clock_getcpuclockid` makes of its number.
    const SCHED: libc::clockid_t = 2;
    let clock = (!pid << 3) | SCHED;
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes one `timespec`, which `time` is.
    let answer = unsafe { libc::clock_gettime(clock, &raw mut time) };
    let (seconds, rest) = (u64::try_from(time.tv_sec).ok()?, u32::try_from(time.tv_nsec).ok()?);
    (answer == 0).then(|| Duration::new(seconds, rest))
}

/// What a thread does, as `ps` says it: `R` for one that runs or could.
pub(crate) fn state(tid: i32) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{tid}/stat")).ok()?;
    // The name before it, in parentheses, may have any character.
    stat.rsplit_once(") ")?.1.chars().next()
}

/// `RLIMIT_MEMLOCK` of a process in bytes; `u64::MAX` is no limit.
///
/// # Errors
/// Of `prlimit`.
pub(crate) fn memlock_limit(pid: i32) -> io::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: nothing is set; the kernel writes one `rlimit`, which `limit` is.
    let answer =
        unsafe { libc::prlimit(pid, libc::RLIMIT_MEMLOCK, std::ptr::null(), &raw mut limit) };
    if answer == 0 { Ok(limit.rlim_cur) } else { Err(last_error()) }
}
