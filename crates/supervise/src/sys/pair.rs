//! Large copies from and to other processes, by two threads.
//!
//! Half of such a copy's time goes into finding the other process' pages, one by one, and most of the
//! rest waits for memory: a second processor makes it almost twice as fast. A copy is cut into pieces,
//! and who is free takes the next; where the helper has no processor, the other one does it all.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::client::Transfer;

/// Bytes of a piece.
const PIECE: usize = 64 << 10;
/// How long the helper looks for the next copy before it sleeps, in favour of all who want its
/// processor: to wake it may cost as much as a copy.
const AWAKE: Duration = Duration::from_micros(100);
/// It is woken when a copy follows another one within this time.
const CLOSE: Duration = Duration::from_micros(100);
/// How often one looks whether the helper is done, before there are pauses: its piece may be waiting
/// for something that only the client can do.
const LOOKS: u32 = 1000;
const PAUSE: Duration = Duration::from_micros(50);

struct Job {
    transfer: Transfer<'static>,
    /// The next piece that nobody took.
    next: AtomicUsize,
    /// Pieces that are done.
    done: AtomicUsize,
    /// Where the first byte is that was not copied.
    short: AtomicUsize,
}

impl Job {
    const fn new(transfer: Transfer<'static>) -> Self {
        let short = AtomicUsize::new(transfer.len());
        Self { transfer, next: AtomicUsize::new(0), done: AtomicUsize::new(0), short }
    }

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
            let copied = self.transfer.part(start, len).run();
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

/// The helper, and what it is given.
#[derive(Default)]
pub(crate) struct Pair {
    /// When the last large copy ended. Held for the time of one: another one meanwhile is made alone.
    one: Mutex<Option<Instant>>,
    job: Mutex<Option<Arc<Job>>>,
    /// Counts jobs.
    given: AtomicU32,
    /// Whether there is a helper, and whether it is awake.
    there: AtomicBool,
    awake: AtomicBool,
    wake: Condvar,
    over: AtomicBool,
}

impl Pair {
    /// The helper's work, until [`finish`](Self::finish).
    pub(crate) fn help(&self) {
        let (mut seen, mut last) = (0, Instant::now());
        self.there.store(true, Ordering::Relaxed);
        while !self.over.load(Ordering::Acquire) {
            let given = self.given.load(Ordering::Acquire);
            if given != seen {
                seen = given;
                let job = self.job.lock().clone();
                job.iter().for_each(|job| job.work());
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
        let mut job = self.job.lock();
        self.awake.store(false, Ordering::Release);
        while self.given.load(Ordering::Acquire) == seen && !self.over.load(Ordering::Acquire) {
            self.wake.wait(&mut job);
        }
        self.awake.store(true, Ordering::Release);
    }

    /// Lets the helper go.
    pub(crate) fn finish(&self) {
        let _job = self.job.lock();
        self.over.store(true, Ordering::Release);
        self.wake.notify_all();
    }

    /// Copies from address `addr` of a process; how many bytes, fewer where its memory ends.
    pub(crate) fn read_memory(&self, pid: i32, addr: u64, data: &mut [u8]) -> usize {
        self.run(Transfer::reading(pid, addr, data))
    }

    /// Copies to address `addr` of a process; how many bytes, fewer where its memory ends or may not be
    /// written.
    pub(crate) fn write_memory(&self, pid: i32, addr: u64, data: &[u8]) -> usize {
        self.run(Transfer::writing(pid, addr, data))
    }

    /// Makes a copy; how many bytes, from the first on. More may have been copied behind them.
    pub(super) fn run(&self, transfer: Transfer<'_>) -> usize {
        if transfer.len() <= PIECE {
            return transfer.run();
        }
        let Some(mut last) = self.one.try_lock() else { return transfer.run() };
        let close = last.is_some_and(|last| last.elapsed() < CLOSE);
        let close = close && self.there.load(Ordering::Relaxed);
        let copied = if close { self.together(&transfer) } else { transfer.run() };
        *last = Some(Instant::now());
        copied
    }

    fn together(&self, transfer: &Transfer<'_>) -> usize {
        // SAFETY: what `transfer` borrows is used for pieces that were taken, and all are done before
        // this returns; then there is none left to take.
        let job = Arc::new(Job::new(unsafe { transfer.unbound() }));
        {
            let mut slot = self.job.lock();
            *slot = Some(Arc::clone(&job));
            self.given.fetch_add(1, Ordering::Release);
            if !self.awake.load(Ordering::Acquire) {
                self.wake.notify_one();
            }
        }
        job.work();
        job.wait();
        job.short.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_helper(f: impl FnOnce(&Pair)) {
        let pair = Pair::default();
        std::thread::scope(|scope| {
            scope.spawn(|| pair.help());
            f(&pair);
            pair.finish();
        });
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
        let bytes: Vec<u8> =
            (0..1_000_003_u32).map(|i| (i.wrapping_mul(40_503) >> 9) as u8).collect();
        let from = bytes.as_ptr() as u64;
        with_helper(|pair| {
            for round in 0..200 {
                let len = [1, PIECE, PIECE + 1, 128 << 10, bytes.len()][round % 5];
                let mut copy = vec![0; len];
                assert_eq!(pair.read_memory(pid, from, &mut copy), len);
                assert_eq!(copy, bytes[..len]);
                let mut other = vec![0_u8; len];
                let to = other.as_mut_ptr() as u64;
                assert_eq!(pair.write_memory(pid, to, &copy), len);
                assert!(*std::hint::black_box(&other) == bytes[..len]);
            }
            // The end of what is mapped, somewhere in each of the pieces.
            let page = pci::PAGE_SIZE as usize;
            for pages in [1, 15, 16, 17, 33, 63] {
                let mut copy = vec![1; 64 * page];
                let area = area(copy.len(), pages * page);
                for _ in 0..20 {
                    assert_eq!(pair.read_memory(pid, area as u64, &mut copy), pages * page);
                }
                assert!(copy[..pages * page].iter().all(|b| *b == 0));
                // SAFETY: made above, and nothing refers to it.
                assert_eq!(unsafe { libc::munmap(area, copy.len()) }, 0);
            }
        });
    }

    #[test]
    fn several_at_once_and_none() {
        let pid = std::process::id().cast_signed();
        with_helper(|pair| {
            std::thread::scope(|scope| {
                for seed in 0..4_u8 {
                    scope.spawn(move || {
                        let from = vec![seed; 300_000];
                        let mut copy = vec![9; from.len()];
                        for _ in 0..200 {
                            copy.fill(9);
                            let at = from.as_ptr() as u64;
                            assert_eq!(pair.read_memory(pid, at, &mut copy), from.len());
                            assert!(copy == from);
                        }
                    });
                }
            });
            std::thread::sleep(AWAKE * 3);
        });
        // Nobody helps.
        let (pair, from) = (Pair::default(), vec![7; 300_000]);
        for _ in 0..10 {
            let mut copy = vec![0; from.len()];
            assert_eq!(pair.read_memory(pid, from.as_ptr() as u64, &mut copy), from.len());
            assert!(copy == from);
        }
    }
}
