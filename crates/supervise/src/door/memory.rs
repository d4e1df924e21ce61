//! A client's memory, and the pins of it.
//!
//! VFIO pins the pages of a mapping; we cannot. What comes closest is `/proc/PID/mem`: it stays with
//! the address space in which it was opened (no `exec` puts another in its place), and it reaches
//! pages whose protection was taken away since. Memory that the client unmaps is gone for the device,
//! which a report tells.
//!
//! Two things it does not do: a page whose fault the client serves itself (userfaultfd) is an error
//! for it, and where a process that cannot be dumped has no user 0 that is ours it cannot be opened.
//! `process_vm_readv` and its like step in. These take a process, which may have become another program:
//! it is made sure that it has not ([`Mark`]). That the address space is still there says less: a
//! transfer that waits keeps it.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use iommu::{MmId, PinId};
use parking_lot::{Condvar, Mutex, RwLock};

use crate::maps::Space;
use crate::sys::client::Mark;
use crate::sys::pair::{Copier, Mortal, Pair};
use crate::sys::procmap::Mapping;

/// From here on a transfer goes by `process_vm_readv` and its like, which copy once.
const LARGE: usize = 16 << 10;

/// For so long a program that was seen is taken to be there: a process that becomes another one needs
/// longer to have memory at the same addresses.
const JUST_NOW: Duration = Duration::from_micros(50);

/// An address space.
pub(crate) struct Mm {
    id: MmId,
    pid: i32,
    /// `None` where it may not be opened.
    mem: Option<File>,
    maps: Mutex<Space>,
    /// `None` where it cannot be had.
    mark: Mutex<Option<Mark>>,
    /// When its process was last seen to have it.
    seen: Mutex<Option<Instant>>,
    /// Large transfers under way, which keep it.
    under_way: AtomicU32,
}

impl Mm {
    /// The one that a process has now, by a thread that waits: the first one may be gone.
    ///
    /// # Errors
    /// The process is gone, or we may not look into it.
    pub(crate) fn open(id: MmId, pid: i32, tid: i32) -> io::Result<Self> {
        let mem = File::options().read(true).write(true).open(format!("/proc/{tid}/mem"));
        let mem = match mem {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => None,
            mem => Some(mem?),
        };
        let maps = Mutex::new(Space::of(tid)?);
        let mark = mem.as_ref().and_then(|mem| mark_in(mem, Mark::address(tid)?));
        Ok(Self {
            id,
            pid,
            mem,
            maps,
            mark: Mutex::new(mark),
            seen: Mutex::default(),
            under_way: AtomicU32::new(0),
        })
    }

    /// Its name.
    pub(crate) const fn id(&self) -> MmId {
        self.id
    }

    /// Whether any process has it still.
    pub(crate) fn is_alive(&self) -> bool {
        // Where nobody has it there is nothing to look for.
        !matches!(self.mapping(0), Err(e) if e.raw_os_error() == Some(libc::ESRCH))
    }

    /// Whether a thread that once lived in it still does. No memory is touched that somebody else may
    /// have to bring.
    pub(crate) fn is_still_of(&self, tid: i32) -> bool {
        if self.under_way.load(Ordering::Acquire) == 0 {
            return self.is_alive();
        }
        let differs = || {
            let known = (*self.mark.lock())?;
            let ours = mark_in(self.mem.as_ref()?, known.addr)?;
            let theirs = File::open(format!("/proc/{tid}/mem")).ok()?;
            Some(mark_in(&theirs, known.addr) != Some(ours))
        };
        self.is_alive() && differs() != Some(true)
    }

    /// Whether its process has it; `None` where that cannot be told.
    fn has_process(&self) -> Option<bool> {
        let known = (*self.mark.lock())?;
        let theirs = known.now(self.pid);
        if theirs == Some(known) {
            return Some(true);
        }
        // A program may change these bytes.
        let ours = mark_in(self.mem.as_ref()?, known.addr)?;
        let same = theirs == Some(ours);
        if same {
            *self.mark.lock() = Some(ours);
        }
        Some(same)
    }

    /// What covers an address.
    ///
    /// # Errors
    /// `ESRCH`: the address space is no more.
    pub(crate) fn mapping(&self, addr: u64) -> io::Result<Option<Mapping>> {
        self.maps.lock().find(addr)
    }

    /// Makes a large transfer.
    pub(crate) fn large<R>(&self, pair: &Pair, transfer: impl FnOnce(Copier<'_>) -> R) -> R {
        self.under_way.fetch_add(1, Ordering::AcqRel);
        let result = transfer(Copier { pair, pid: self.pid, owner: self });
        self.under_way.fetch_sub(1, Ordering::AcqRel);
        result
    }

    /// Copies memory as a device does that reads it: protections do not matter.
    pub(crate) fn dma_read(&self, pair: &Pair, addr: u64, data: &mut [u8]) -> bool {
        let small = data.len() < LARGE;
        let from_mem = |data: &mut [u8], done: usize| {
            let (at, rest) = (addr.wrapping_add(done as u64), data.get_mut(done..));
            let (Some(mem), Some(rest)) = (&self.mem, rest) else { return false };
            mem.read_exact_at(rest, at).is_ok()
        };
        if small && from_mem(data, 0) {
            return true;
        }
        let done = self.large(pair, |copier| copier.read_memory(addr, data));
        done == data.len() || (!small && from_mem(data, done))
    }

    /// Copies to memory as a device does that writes it.
    pub(crate) fn dma_write(&self, pair: &Pair, addr: u64, data: &[u8]) -> bool {
        let small = data.len() < LARGE;
        let to_mem = |done: usize| {
            let (at, rest) = (addr.wrapping_add(done as u64), data.get(done..));
            let (Some(mem), Some(rest)) = (&self.mem, rest) else { return false };
            mem.write_all_at(rest, at).is_ok()
        };
        if small && to_mem(0) {
            return true;
        }
        let done = self.large(pair, |copier| copier.write_memory(addr, data));
        done == data.len() || (!small && to_mem(done))
    }
}

impl Mortal for Mm {
    fn is_there(&self) -> bool {
        let seen = *self.seen.lock();
        if seen.is_some_and(|seen| seen.elapsed() < JUST_NOW) {
            return true;
        }
        let there = self.has_process().unwrap_or_else(|| self.is_alive());
        if there {
            *self.seen.lock() = Some(Instant::now());
        }
        there
    }
}

/// The mark at an address.
fn mark_in(mem: &File, addr: u64) -> Option<Mark> {
    let mut bytes = [0; 16];
    mem.read_exact_at(&mut bytes, addr).ok()?;
    Some(Mark { addr, bytes })
}

/// A pinned range.
pub(crate) struct Pin {
    /// Transfers under way.
    busy: Mutex<u32>,
    idle: Condvar,
    /// Keeps the address space.
    _mm: Arc<Mm>,
}

impl Pin {
    fn hold(&self) {
        *self.busy.lock() += 1;
    }

    /// A transfer is over.
    pub(crate) fn release(&self) {
        let mut busy = self.busy.lock();
        *busy -= 1;
        if *busy == 0 {
            self.idle.notify_all();
        }
    }

    /// Waits until no transfer is under way; `false` when one takes longer than `limit`.
    pub(crate) fn wait_idle(&self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        let mut busy = self.busy.lock();
        while *busy != 0 {
            if self.idle.wait_until(&mut busy, deadline).timed_out() {
                return *busy == 0;
            }
        }
        true
    }
}

/// The pins that mappings hold.
#[derive(Default)]
pub(crate) struct Pins {
    live: RwLock<HashMap<PinId, Arc<Pin>>>,
    next: AtomicU64,
}

impl Pins {
    /// A new one.
    pub(crate) fn add(&self, mm: Arc<Mm>) -> PinId {
        let id = PinId(self.next.fetch_add(1, Ordering::Relaxed));
        let pin = Pin { busy: Mutex::new(0), idle: Condvar::new(), _mm: mm };
        self.live.write().insert(id, Arc::new(pin));
        id
    }

    /// Announces a transfer.
    pub(crate) fn hold(&self, id: PinId) -> Option<Arc<Pin>> {
        let pin = self.live.read().get(&id).cloned()?;
        pin.hold();
        Some(pin)
    }

    /// Takes one out; transfers may still be under way.
    pub(crate) fn remove(&self, id: PinId) -> Option<Arc<Pin>> {
        self.live.write().remove(&id)
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.live.read().len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own() -> Mm {
        let pid = std::process::id().cast_signed();
        Mm::open(MmId(0), pid, pid).unwrap()
    }

    #[test]
    fn small_and_large_transfers_reach_memory_and_stop_at_its_end() {
        let (mm, pair) = (own(), Pair::default());
        for len in [1, 100, LARGE, LARGE + 5] {
            let mut memory = vec![7_u8; len];
            let mut copy = vec![0; len];
            let at = memory.as_mut_ptr() as u64;
            assert!(mm.dma_read(&pair, at, &mut copy));
            assert_eq!(copy, memory);
            copy.fill(9);
            assert!(mm.dma_write(&pair, at, &copy));
            // SAFETY-free view: the vector is ours, written from outside.
            assert!(std::hint::black_box(&memory).iter().all(|b| *b == 9));
            assert!(!mm.dma_read(&pair, 8, &mut copy) && !mm.dma_write(&pair, 8, &copy));
        }
        assert!(mm.is_alive());
    }

    #[test]
    fn the_memory_of_a_process_that_is_gone_is_gone() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let pid = child.id().cast_signed();
        let mm = Mm::open(MmId(1), pid, pid).unwrap();
        let pair = Pair::default();
        assert!(mm.is_alive());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!mm.is_alive());
        assert!(
            !mm.dma_read(&pair, 0x1000, &mut [0; 8]) && !mm.dma_write(&pair, 0x1000, &[0; LARGE])
        );
    }

    #[test]
    fn an_address_space_is_known_again() {
        let pid = std::process::id().cast_signed();
        let (mm, other) = (own(), std::process::Command::new("sleep").arg("60").spawn());
        let mut other = other.unwrap();
        let (theirs, pair) = (other.id().cast_signed(), Pair::default());
        // Only a transfer under way could keep it from ending with its process.
        assert!(mm.is_still_of(pid) && mm.is_still_of(theirs));
        assert!(mm.large(&pair, |_| mm.is_still_of(pid) && !mm.is_still_of(theirs)));
        // As if the program had changed it.
        let now = *mm.mark.lock();
        mm.mark.lock().as_mut().unwrap().bytes[3] ^= 1;
        assert!(mm.is_there() && now.is_some() && *mm.mark.lock() == now);
        // Another program.
        let theirs = Mm { pid: theirs, ..own() };
        assert!(!theirs.is_there());
        let mut memory = vec![7_u8; LARGE];
        let at = memory.as_mut_ptr() as u64;
        // By `/proc/PID/mem`.
        assert!(theirs.dma_write(&pair, at, &[9; LARGE]) && mm.dma_write(&pair, at, &[9; LARGE]));
        assert!(std::hint::black_box(&memory).iter().all(|b| *b == 9));
        other.kill().unwrap();
        other.wait().unwrap();
    }

    #[test]
    fn a_pin_that_went_is_waited_for() {
        let pins = Arc::new(Pins::default());
        let id = pins.add(Arc::new(own()));
        let held = pins.hold(id).unwrap();
        let gone = pins.remove(id).unwrap();
        assert!(pins.hold(id).is_none() && pins.len() == 0);
        assert!(!gone.wait_idle(Duration::from_millis(5)));
        let thread = std::thread::spawn(move || held.release());
        assert!(gone.wait_idle(Duration::from_secs(60)));
        thread.join().unwrap();
    }
}
