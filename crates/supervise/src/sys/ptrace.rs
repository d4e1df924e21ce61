//! ptrace and the two calls that go with it: waiting for tracees, and memory of another process.
//!
//! A process cannot be harmed through these by another's choice: the kernel checks each identifier
//! against the caller's own tracees. What a tracee says is copied out whole.

use std::io;
use std::mem::{MaybeUninit, size_of};
use std::ptr::{null_mut, without_provenance_mut};

use libc::{c_int, c_uint, c_void, pid_t, user_regs_struct};

/// `linux/elf.h`: the XSAVE area.
const NT_X86_XSTATE: usize = 0x202;
/// `linux/ptrace.h`: a stop that is no signal's delivery.
pub(crate) const EVENT_STOP: c_int = 128;

/// A tracee's signal, as far as a fault needs it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Signal {
    pub(crate) code: c_int,
    pub(crate) address: u64,
}

/// What `waitpid` said of a tracee.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// It is gone.
    Gone,
    /// It stopped: the signal, and the event or 0.
    Stopped(c_int, c_int),
}

/// # Safety
/// `addr` and `data` must be what `request` asks for: for requests that read or write our memory,
/// pointers to objects that live through the call.
unsafe fn ptrace(
    request: c_uint,
    tid: pid_t,
    addr: *mut c_void,
    data: *mut c_void,
) -> io::Result<()> {
    // SAFETY: the caller's promise.
    if unsafe { libc::ptrace(request, tid, addr, data) } == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Become the tracer of a thread, and of all that it starts; they die with the calling thread.
pub(crate) fn seize(tid: pid_t) -> io::Result<()> {
    let options = libc::PTRACE_O_EXITKILL
        | libc::PTRACE_O_TRACECLONE
        | libc::PTRACE_O_TRACEFORK
        | libc::PTRACE_O_TRACEVFORK
        | libc::PTRACE_O_TRACEEXEC
        | libc::PTRACE_O_TRACEEXIT;
    // SAFETY: SEIZE takes no pointer; its data is a number.
    unsafe { ptrace(libc::PTRACE_SEIZE, tid, null_mut(), without_provenance_mut(options as usize)) }
}

/// Let a stopped tracee go on, with a signal or 0.
pub(crate) fn resume(tid: pid_t, signal: c_int) -> io::Result<()> {
    // SAFETY: CONT takes no pointer; its data is a number.
    unsafe { ptrace(libc::PTRACE_CONT, tid, null_mut(), without_provenance_mut(signal as usize)) }
}

/// Let a stopped tracee go, for good.
pub(crate) fn detach(tid: pid_t) -> io::Result<()> {
    // SAFETY: DETACH takes no pointer; its data is a number.
    unsafe { ptrace(libc::PTRACE_DETACH, tid, null_mut(), null_mut()) }
}

/// Leave a tracee in its group stop, until SIGCONT.
pub(crate) fn listen(tid: pid_t) -> io::Result<()> {
    // SAFETY: LISTEN takes no pointer.
    unsafe { ptrace(libc::PTRACE_LISTEN, tid, null_mut(), null_mut()) }
}

/// The number that goes with the event of a stop: a new thread's, or an old one's.
pub(crate) fn event_message(tid: pid_t) -> io::Result<u64> {
    let mut message: libc::c_ulong = 0;
    // SAFETY: GETEVENTMSG writes one long to `data`, which lives here.
    unsafe { ptrace(libc::PTRACE_GETEVENTMSG, tid, null_mut(), (&raw mut message).cast())? };
    Ok(message)
}

/// The signal that is about to be delivered.
pub(crate) fn signal(tid: pid_t) -> io::Result<Signal> {
    let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
    // SAFETY: GETSIGINFO writes one siginfo_t to `data`. All of it is plain numbers, valid as
    // zeroes, and si_addr reads a word inside it.
    unsafe {
        ptrace(libc::PTRACE_GETSIGINFO, tid, null_mut(), info.as_mut_ptr().cast())?;
        let info = info.assume_init();
        Ok(Signal { code: info.si_code, address: info.si_addr() as u64 })
    }
}

/// The general registers of a stopped tracee.
pub(crate) fn registers(tid: pid_t) -> io::Result<user_regs_struct> {
    let mut registers = MaybeUninit::<user_regs_struct>::zeroed();
    // SAFETY: GETREGS writes one user_regs_struct to `data`; it is plain numbers.
    unsafe {
        ptrace(libc::PTRACE_GETREGS, tid, null_mut(), registers.as_mut_ptr().cast())?;
        Ok(registers.assume_init())
    }
}

/// Give a stopped tracee general registers.
pub(crate) fn set_registers(tid: pid_t, registers: &user_regs_struct) -> io::Result<()> {
    // SAFETY: SETREGS reads one user_regs_struct from `data` and does not write it.
    unsafe {
        ptrace(libc::PTRACE_SETREGS, tid, null_mut(), (&raw const *registers as *mut c_void).cast())
    }
}

fn regset(request: c_uint, tid: pid_t, area: &mut [u8]) -> io::Result<usize> {
    let mut iov = libc::iovec { iov_base: area.as_mut_ptr().cast(), iov_len: area.len() };
    // SAFETY: GETREGSET writes at most iov_len bytes to iov_base, which is `area`; SETREGSET reads
    // as many; both update iov_len. `iov` lives here.
    unsafe {
        ptrace(request, tid, without_provenance_mut(NT_X86_XSTATE), (&raw mut iov).cast())?;
    }
    Ok(iov.iov_len)
}

/// The XSAVE area of a stopped tracee, in the standard (not compacted) layout.
pub(crate) fn xstate(tid: pid_t) -> io::Result<Vec<u8>> {
    let mut area = vec![0; 16 << 10];
    let len = regset(libc::PTRACE_GETREGSET, tid, &mut area)?;
    area.truncate(len);
    Ok(area)
}

/// Give a stopped tracee an XSAVE area, of the length that [`xstate`] returned.
pub(crate) fn set_xstate(tid: pid_t, area: &mut [u8]) -> io::Result<()> {
    regset(libc::PTRACE_SETREGSET, tid, area).map(drop)
}

/// Where a component of this machine's XSAVE area is, if it has at least `size` bytes (CPUID leaf
/// 0xd).
pub(crate) fn component(number: u32, size: u32) -> Option<usize> {
    let leaf = core::arch::x86_64::__cpuid_count(0xd, number);
    (leaf.eax >= size && leaf.ebx >= 576).then_some(leaf.ebx as usize)
}

/// One waitpid for the calling thread's tracees; children of other threads are not touched.
/// None: nothing yet, with WNOHANG; no tracees are left, without.
fn wait_with(flags: c_int) -> io::Result<Option<(pid_t, Change)>> {
    loop {
        let mut status = 0;
        // SAFETY: waitpid writes one int to `status`.
        let tid =
            unsafe { libc::waitpid(-1, &mut status, libc::__WALL | libc::__WNOTHREAD | flags) };
        match tid {
            0 => return Ok(None),
            -1 => {
                let error = io::Error::last_os_error();
                match error.raw_os_error() {
                    Some(libc::EINTR) => continue,
                    Some(libc::ECHILD) => return Ok(None),
                    _ => return Err(error),
                }
            }
            _ => {}
        }
        let change = if libc::WIFSTOPPED(status) {
            Change::Stopped(libc::WSTOPSIG(status), status >> 16)
        } else {
            Change::Gone
        };
        return Ok(Some((tid, change)));
    }
}

/// Wait until a tracee of the calling thread changes; None: it has none left.
pub(crate) fn wait() -> io::Result<Option<(pid_t, Change)>> {
    wait_with(0)
}

/// What a tracee of the calling thread did, if it did anything by now.
pub(crate) fn poll() -> io::Result<Option<(pid_t, Change)>> {
    wait_with(libc::WNOHANG)
}

/// Two pieces of another's memory, so that a copy may end at a page's end.
fn pieces(address: u64, len: usize) -> [libc::iovec; 2] {
    let first = len.min(4096 - (address % 4096) as usize);
    let iov =
        |at: u64, len| libc::iovec { iov_base: without_provenance_mut(at as usize), iov_len: len };
    [iov(address, first), iov(address.wrapping_add(first as u64), len - first)]
}

/// Copy memory of another process; the number of bytes until the first that cannot be read.
/// At most two pages.
pub(crate) fn read_memory(tid: pid_t, address: u64, data: &mut [u8]) -> io::Result<usize> {
    let local = libc::iovec { iov_base: data.as_mut_ptr().cast(), iov_len: data.len() };
    let remote = pieces(address, data.len());
    // SAFETY: the kernel writes at most data.len() bytes to `data`; `remote` are another's addresses.
    let n = unsafe { libc::process_vm_readv(tid, &local, 1, remote.as_ptr(), 2, 0) };
    if n < 0 { Err(io::Error::last_os_error()) } else { Ok(n as usize) }
}

/// Copy to memory of another process; the number of bytes until the first that cannot be written.
/// At most two pages.
pub(crate) fn write_memory(tid: pid_t, address: u64, data: &[u8]) -> io::Result<usize> {
    let local = libc::iovec { iov_base: data.as_ptr() as *mut c_void, iov_len: data.len() };
    let remote = pieces(address, data.len());
    // SAFETY: the kernel reads at most data.len() bytes from `data`; `remote` are another's addresses.
    let n = unsafe { libc::process_vm_writev(tid, &local, 1, remote.as_ptr(), 2, 0) };
    if n < 0 { Err(io::Error::last_os_error()) } else { Ok(n as usize) }
}

/// The size of a pointer is what the numbers above rely on.
const _: () = assert!(size_of::<usize>() == 8);
