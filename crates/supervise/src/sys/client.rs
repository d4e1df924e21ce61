//! Memory and limits of another process.

use std::io;
use std::marker::PhantomData;
use std::time::Duration;

use super::last_error;

/// Random bytes that the kernel gives each program as it begins (`AT_RANDOM`), and their address: an
/// `exec` puts another program's memory behind the same process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) addr: u64,
    pub(crate) bytes: [u8; 16],
}

impl Mark {
    /// The address of a thread's mark: `proc_pid_auxv(5)`.
    pub(crate) fn address(tid: i32) -> Option<u64> {
        const AT_RANDOM: u64 = 25;
        let bytes = std::fs::read(format!("/proc/{tid}/auxv")).ok()?;
        let (wide, narrow) = (bytes.as_chunks::<8>().0, bytes.as_chunks::<4>().0);
        let find = |words: &[u64]| {
            let mut pairs = words.as_chunks::<2>().0.iter();
            pairs.find(|[key, _]| *key == AT_RANDOM).map(|[_, value]| *value)
        };
        let wide: Vec<u64> = wide.iter().map(|word| u64::from_le_bytes(*word)).collect();
        // A program of 32 bits.
        let narrow =
            || narrow.iter().map(|word| u32::from_le_bytes(*word).into()).collect::<Vec<_>>();
        find(&wide).or_else(|| find(&narrow()))
    }

    /// What is there now, in a process. Waits where the client has to bring that page.
    pub(crate) fn now(&self, pid: i32) -> Option<Self> {
        let mut bytes = [0; 16];
        let whole = read_memory(pid, self.addr, &mut bytes) == bytes.len();
        whole.then_some(Self { bytes, ..*self })
    }
}

/// Which way bytes go.
#[derive(Clone, Copy, Debug)]
pub(super) enum Way {
    Here,
    There,
}

/// A copy between memory here and memory of another process.
#[derive(Debug)]
pub(super) struct Transfer<'a> {
    pid: i32,
    way: Way,
    here: *mut libc::c_void,
    there: u64,
    len: usize,
    what: PhantomData<&'a mut [u8]>,
}

// SAFETY: no more than a `&mut [u8]`, which `here` was made of, or an address that nobody accesses.
unsafe impl Send for Transfer<'_> {}
// SAFETY: as above; who makes parts of it keeps them apart.
unsafe impl Sync for Transfer<'_> {}

impl<'a> Transfer<'a> {
    /// From address `addr` of a process.
    pub(super) const fn reading(pid: i32, addr: u64, data: &'a mut [u8]) -> Self {
        let (here, len) = (data.as_mut_ptr().cast(), data.len());
        Self { pid, way: Way::Here, here, there: addr, len, what: PhantomData }
    }

    /// To address `addr` of a process.
    pub(super) const fn writing(pid: i32, addr: u64, data: &'a [u8]) -> Self {
        let (here, len) = (data.as_ptr().cast_mut().cast(), data.len());
        Self { pid, way: Way::There, here, there: addr, len, what: PhantomData }
    }

    /// With bytes here that nobody refers to; where there are none the copy ends.
    ///
    /// # Safety
    /// If they are to be written, nobody accesses them as long as this is used.
    pub(super) const unsafe fn raw(
        pid: i32,
        way: Way,
        there: u64,
        here: *mut libc::c_void,
        len: usize,
    ) -> Self {
        Self { pid, way, here, there, len, what: PhantomData }
    }

    /// The same, for longer than what it borrows.
    ///
    /// # Safety
    /// No part of it is run after that.
    pub(super) const unsafe fn unbound(&self) -> Transfer<'static> {
        Transfer { what: PhantomData, ..*self }
    }

    pub(super) const fn len(&self) -> usize {
        self.len
    }

    /// The part of `len` bytes from byte `start` on.
    ///
    /// # Safety
    /// It lies inside, and nothing else of it is run at the same time.
    pub(super) const unsafe fn part(&self, start: usize, len: usize) -> Self {
        let here = self.here.wrapping_byte_add(start);
        let there = self.there.wrapping_add(start as u64);
        Self { here, there, len, what: PhantomData, ..*self }
    }

    /// Makes the copy; how many bytes, fewer where the other's memory ends or may not be accessed.
    pub(super) fn run(self) -> usize {
        let local = libc::iovec { iov_base: self.here, iov_len: self.len };
        let remote = libc::iovec { iov_base: self.there as *mut libc::c_void, iov_len: self.len };
        let (local, remote) = (&raw const local, &raw const remote);
        // SAFETY: the kernel accesses at most `len` bytes from `here` on, writing them only if they were
        // borrowed to be written or nobody accesses them; what `remote` names is checked against the
        // other process' memory.
        let copied = unsafe {
            match self.way {
                Way::Here => libc::process_vm_readv(self.pid, local, 1, remote, 1, 0),
                Way::There => libc::process_vm_writev(self.pid, local, 1, remote, 1, 0),
            }
        };
        usize::try_from(copied).unwrap_or(0)
    }
}

/// Copies from address `addr` of a process; how many bytes, fewer where its memory ends.
pub(crate) fn read_memory(pid: i32, addr: u64, data: &mut [u8]) -> usize {
    Transfer::reading(pid, addr, data).run()
}

/// Copies to address `addr` of a process; how many bytes, fewer where its memory ends or may not be
/// written.
pub(crate) fn write_memory(pid: i32, addr: u64, data: &[u8]) -> usize {
    Transfer::writing(pid, addr, data).run()
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
