//! Large copies from and to other processes, by two threads.
//!
//! Such a copy finds the other process' pages one by one, and waits for memory: where a second processor
//! is free, two are faster. A copy is cut into pieces, and who is free takes the next; where the helper
//! has no processor, the other one does it all. Between copies it fills page tables of a mapped file.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::client::Transfer;
use super::mapping::Mapping;

/// Bytes of a piece.
const PIECE: usize = 64 << 10;
/// Bytes of a mapping whose page tables are filled before the helper looks for a copy.
const STEP: usize = 128 << 10;
/// How long the helper looks for the next copy before it sleeps, in favour of all who want its
/// processor: to wake it may cost as much as a copy.
const AWAKE: Duration = Duration::from_micros(100);
/// It is woken when a copy follows another one within this time.
const CLOSE: Duration = Duration::from_micros(100);
/// Who waits so long for the helper has one whose processor is wanted by others, and does without it
/// for a while.
const BUSY: Duration = Duration::from_micros(300);
const ALONE: Duration = Duration::from_millis(100);
/// How often one looks whether the helper is done, before there are pauses: its piece may be waiting
/// for something that only the client can do.
const LOOKS: u32 = 1000;
const PAUSE: Duration = Duration::from_micros(50);

/// The memory of a process, in whose place another program's may come.
pub(crate) trait Mortal: Sync {
    /// Whether it is there still. Asked before each piece: one may wait long for another.
    fn is_there(&self) -> bool;
}

struct Job {
    transfer: Transfer<'static>,
    owner: &'static dyn Mortal,
    /// The next piece that nobody took.
    next: AtomicUsize,
    /// Pieces that are done.
    done: AtomicUsize,
    /// Where the first byte is that was not copied.
    short: AtomicUsize,
}

impl Job {
    const fn pieces(&self) -> usize {
        self.transfer.len().div_ceil(PIECE)
    }

    /// Does pieces until there are none.
    fn work(&self) {
        loop {
            let piece = self.next.fetch_add(1, Ordering::Relaxed);
            if piece >= self.pieces() {
                return;
            }
            let start = piece * PIECE;
            let len = PIECE.min(self.transfer.len() - start);
            // SAFETY: a piece is inside, and is taken once.
            let part = unsafe { self.transfer.part(start, len) };
            let copied = if self.owner.is_there() { part.run() } else { 0 };
            if copied < len {
                self.short.fetch_min(start + copied, Ordering::Relaxed);
            }
            self.done.fetch_add(1, Ordering::Release);
        }
    }

    fn wait(&self) {
        let mut looks = 0_u32;
        while self.done.load(Ordering::Acquire) < self.pieces() {
            looks = looks.saturating_add(1);
            match looks {
                0..100 => std::hint::spin_loop(),
                100..LOOKS => std::thread::yield_now(),
                _ => std::thread::sleep(PAUSE),
            }
        }
    }
}

/// Page tables that are to be filled.
struct Ahead {
    mapping: Arc<Mapping>,
    offset: usize,
    end: usize,
}

impl Ahead {
    /// Fills a part; whether there is more.
    fn step(&mut self) -> bool {
        self.mapping.populate(self.offset, STEP.min(self.end - self.offset));
        self.offset = self.end.min(self.offset + STEP);
        self.offset < self.end
    }
}

/// What the helper is given.
#[derive(Default)]
struct Gifts {
    job: Option<Arc<Job>>,
    ahead: Option<Ahead>,
}

/// What large copies came to.
#[derive(Default)]
struct Past {
    /// When the last one ended.
    ended: Option<Instant>,
    /// When the helper let somebody wait.
    waited: Option<Instant>,
}

/// The helper, and what it is given.
#[derive(Default)]
pub(crate) struct Pair {
    /// Held for the time of a large copy: another one meanwhile is made alone.
    past: Mutex<Past>,
    gifts: Mutex<Gifts>,
    /// Counts them.
    given: AtomicU32,
    wake: Condvar,
    /// Whether there is a helper.
    helped: AtomicBool,
    over: AtomicBool,
}

impl Pair {
    /// The helper's work, until [`finish`](Self::finish).
    pub(crate) fn help(&self) {
        let (mut seen, mut last) = (0, Instant::now());
        let mut ahead: Option<Ahead> = None;
        self.helped.store(true, Ordering::Relaxed);
        while !self.over.load(Ordering::Acquire) {
            let given = self.given.load(Ordering::Acquire);
            if given != seen {
                seen = given;
                let mut gifts = self.gifts.lock();
                let job = gifts.job.clone();
                ahead = gifts.ahead.take().or(ahead);
                drop(gifts);
                job.iter().for_each(|job| job.work());
                last = Instant::now();
            } else if let Some(rest) = &mut ahead {
                if !rest.step() {
                    ahead = None;
                }
                last = Instant::now();
            } else if last.elapsed() < AWAKE {
                std::thread::yield_now();
            } else {
                self.sleep(seen);
                last = Instant::now();
            }
        }
    }

    fn sleep(&self, seen: u32) {
        let mut gifts = self.gifts.lock();
        while self.given.load(Ordering::Acquire) == seen && !self.over.load(Ordering::Acquire) {
            self.wake.wait(&mut gifts);
        }
    }

    /// Lets the helper go.
    pub(crate) fn finish(&self) {
        let _gifts = self.gifts.lock();
        self.over.store(true, Ordering::Release);
        self.wake.notify_all();
    }

    /// Has the helper fill page tables when it has nothing else to do; it may come to nothing.
    pub(super) fn populate(&self, mapping: &Arc<Mapping>, offset: u64, len: u64) {
        let (Ok(offset), Ok(len)) = (usize::try_from(offset), usize::try_from(len)) else { return };
        let end = mapping.len().min(offset.saturating_add(len));
        if offset < end && self.helped.load(Ordering::Relaxed) {
            let ahead = Ahead { mapping: Arc::clone(mapping), offset, end };
            self.give(|gifts| gifts.ahead = Some(ahead));
        }
    }

    fn give(&self, what: impl FnOnce(&mut Gifts)) {
        let mut gifts = self.gifts.lock();
        what(&mut gifts);
        self.given.fetch_add(1, Ordering::Release);
        self.wake.notify_one();
    }

    /// A copy by both; how many bytes, and how long the helper took at the end.
    fn together(&self, transfer: &Transfer<'_>, owner: &dyn Mortal) -> (usize, Duration) {
        // SAFETY: what they borrow is used for pieces that were taken, and all of these are done before
        // this returns; then there is none left to take.
        let (transfer, owner) = unsafe {
            (transfer.unbound(), std::mem::transmute::<&dyn Mortal, &'static dyn Mortal>(owner))
        };
        let short = AtomicUsize::new(transfer.len());
        let (next, done) = Default::default();
        let job = Arc::new(Job { transfer, owner, next, done, short });
        self.give(|gifts| gifts.job = Some(Arc::clone(&job)));
        job.work();
        let start = Instant::now();
        job.wait();
        (job.short.load(Ordering::Relaxed), start.elapsed())
    }
}

/// Who copies from and to a process.
#[derive(Clone, Copy)]
pub(crate) struct Copier<'a> {
    pub(crate) pair: &'a Pair,
    pub(crate) pid: i32,
    pub(crate) owner: &'a dyn Mortal,
}

impl Copier<'_> {
    /// Copies from address `addr`; how many bytes, fewer where memory ends.
    pub(crate) fn read_memory(self, addr: u64, data: &mut [u8]) -> usize {
        self.run(Transfer::reading(self.pid, addr, data))
    }

    /// Copies to address `addr`; how many bytes, fewer where memory ends or may not be written.
    pub(crate) fn write_memory(self, addr: u64, data: &[u8]) -> usize {
        self.run(Transfer::writing(self.pid, addr, data))
    }

    /// Makes a copy; how many bytes, from the first on. More may have been copied behind them.
    pub(super) fn run(self, transfer: Transfer<'_>) -> usize {
        let alone = |transfer: Transfer<'_>| if self.owner.is_there() { transfer.run() } else { 0 };
        if transfer.len() <= PIECE || !self.pair.helped.load(Ordering::Relaxed) {
            return alone(transfer);
        }
        let Some(mut past) = self.pair.past.try_lock() else { return alone(transfer) };
        let within = |then: Option<Instant>, time| then.is_some_and(|then| then.elapsed() < time);
        let copied = if within(past.ended, CLOSE) && !within(past.waited, ALONE) {
            let (copied, wait) = self.pair.together(&transfer, self.owner);
            past.waited = (wait > BUSY).then(Instant::now);
            copied
        } else {
            alone(transfer)
        };
        past.ended = Some(Instant::now());
        copied
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::os::unix::fs::FileExt;

    use rustix::fs::{MemfdFlags, memfd_create};

    use super::*;
    use crate::sys::mapping::tests::present;

    /// One that stays.
    pub(crate) struct Here;

    impl Mortal for Here {
        fn is_there(&self) -> bool {
            true
        }
    }

    struct Gone;

    impl Mortal for Gone {
        fn is_there(&self) -> bool {
            false
        }
    }

    pub(crate) fn copier(pair: &Pair) -> Copier<'_> {
        Copier { pair, pid: std::process::id().cast_signed(), owner: &Here }
    }

    fn with_helper(f: impl FnOnce(&Pair)) {
        struct Finish<'a>(&'a Pair);

        impl Drop for Finish<'_> {
            fn drop(&mut self) {
                self.0.finish();
            }
        }

        let pair = Pair::default();
        std::thread::scope(|scope| {
            let _finish = Finish(&pair);
            scope.spawn(|| pair.help());
            f(&pair);
        });
    }

    fn bytes(len: u32) -> Vec<u8> {
        (0..len).map(|i| (i.wrapping_mul(40_503) >> 9) as u8).collect()
    }

    /// Zeroes, and behind them what cannot be accessed.
    fn area(len: usize, good: usize) -> *mut libc::c_void {
        let (any, kind) = (std::ptr::null_mut(), libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: a new mapping at an address that the kernel chooses.
        let area = unsafe { libc::mmap(any, len, libc::PROT_READ, kind, -1, 0) };
        assert_ne!(area, libc::MAP_FAILED);
        let behind = area.wrapping_byte_add(good);
        // SAFETY: a part of the mapping, to which nothing refers.
        assert_eq!(unsafe { libc::mprotect(behind, len - good, libc::PROT_NONE) }, 0);
        area
    }

    #[test]
    fn whole_copies_and_copies_that_end_early() {
        let pid = std::process::id().cast_signed();
        let bytes = bytes(1_000_003);
        let from = bytes.as_ptr() as u64;
        let pages = [1, 15, 16, 17, 33, 63];
        let copies = |pair: &Pair| {
            for len in [1, PIECE, PIECE + 1, 128 << 10, bytes.len()].repeat(20) {
                let mut copy = vec![0; len];
                let transfer = Transfer::reading(pid, from, &mut copy);
                assert_eq!(pair.together(&transfer, &Here).0, len);
                assert!(copy == bytes[..len]);
                let mut other = vec![0_u8; len];
                let to = other.as_mut_ptr() as u64;
                assert_eq!(pair.together(&Transfer::writing(pid, to, &copy), &Here).0, len);
                assert!(*std::hint::black_box(&other) == bytes[..len]);
                assert_eq!(pair.together(&Transfer::writing(pid, to, &copy), &Gone).0, 0);
            }
            // The end of what may be accessed, in each of the pieces.
            let page = pci::PAGE_SIZE as usize;
            for pages in pages {
                let mut copy = vec![1; 64 * page];
                let area = area(copy.len(), pages * page);
                for _ in 0..20 {
                    let transfer = Transfer::reading(pid, area as u64, &mut copy);
                    assert_eq!(pair.together(&transfer, &Here).0, pages * page);
                }
                assert!(copy[..pages * page].iter().all(|b| *b == 0));
                // SAFETY: made above, and nothing refers to it.
                assert_eq!(unsafe { libc::munmap(area, copy.len()) }, 0);
            }
        };
        with_helper(copies);
        // Nobody helps.
        copies(&Pair::default());
    }

    /// A copy that only the helper can make: it is awake, or woken.
    #[test]
    fn the_helper_helps() {
        let bytes = bytes(300_000);
        with_helper(|pair| {
            for pause in [0, 0, 1, 2].map(|n| AWAKE * n).repeat(5) {
                std::thread::sleep(pause);
                let mut copy = vec![0; bytes.len()];
                let pid = std::process::id().cast_signed();
                let transfer = Transfer::reading(pid, bytes.as_ptr() as u64, &mut copy);
                // SAFETY: all is done before `wait` returns.
                let transfer = unsafe { transfer.unbound() };
                let short = AtomicUsize::new(transfer.len());
                let (next, done) = Default::default();
                let job = Arc::new(Job { transfer, owner: &Here, next, done, short });
                pair.give(|gifts| gifts.job = Some(Arc::clone(&job)));
                job.wait();
                assert!(copy == bytes);
            }
        });
    }

    #[test]
    fn the_helper_fills_page_tables() {
        let file = memfd_create("ahead", MemfdFlags::CLOEXEC).unwrap();
        let file = std::fs::File::from(file);
        let len = 1_000_000;
        file.write_all_at(&vec![1; len], 0).unwrap();
        let mapping = Arc::new(Mapping::new(&file, len, false).unwrap());
        // Without a helper nobody does.
        Pair::default().populate(&mapping, 0, u64::MAX);
        assert_eq!(present(&mapping), 0);
        with_helper(|pair| {
            while !pair.helped.load(Ordering::Relaxed) {
                std::thread::yield_now();
            }
            // Asleep.
            std::thread::sleep(AWAKE * 2);
            pair.populate(&mapping, 1 << 40, 1);
            pair.populate(&mapping, 0, u64::MAX);
            crate::comes(|| present(&mapping) == len.div_ceil(4096));
        });
        assert_eq!(Arc::strong_count(&mapping), 1);
    }

    #[test]
    fn several_at_once() {
        with_helper(|pair| {
            std::thread::scope(|scope| {
                for seed in 0..4_u8 {
                    scope.spawn(move || {
                        let from = vec![seed; 300_000];
                        let mut copy = vec![9; from.len()];
                        for _ in 0..200 {
                            copy.fill(9);
                            let at = from.as_ptr() as u64;
                            assert_eq!(copier(pair).read_memory(at, &mut copy), from.len());
                            assert!(copy == from);
                        }
                    });
                }
            });
        });
    }
}
