//! A device in the session: its state, its file, and its registers as clients see them.
//!
//! A page of registers is either *polled*, memory that the client and we share, which the device's
//! thread watches; or it *traps*: it lies beyond the end of the file, so that a tracer sees each
//! access; or BARs cannot be mapped at all.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex, MutexGuard};
use pci::{PAGE_SIZE, Polled};
use rustix::fs::{MemfdFlags, Mode, OFlags, SealFlags};
use vfio::DeviceId;
use vfio::device::{Device, Mmio, Upstream};

use super::moment::Moment;
use crate::sys::shared::SharedWords;

/// Where BAR 0 begins in a device's file, for clients that ask: every position is then beyond 2^40, where
/// the filter looks. Clients that know where Linux has it find it at 0 too.
pub(crate) const BAR0_BASE: u64 = 0x10 << 40;
/// The end of a device's file: after BAR 0.
pub(crate) const FILE_END: u64 = 0x11 << 40;

/// How the registers of a device are reached through mappings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MmioMode {
    /// Memory, watched by the device's thread.
    Poll,
    /// Each access stops the client.
    Trap,
    /// BARs cannot be mapped.
    None,
}

/// A polled page.
struct Page {
    bar: u8,
    /// Bytes from the start of the BAR.
    offset: u64,
    polled: Polled,
    words: SharedWords,
    /// What was last seen or put there, by word.
    copy: Vec<AtomicU32>,
}

impl Page {
    /// The words to look at: those of `last` first, so that what they start is there when they are.
    fn in_reading_order(&self) -> impl Iterator<Item = u16> {
        let last = self.polled.last;
        let others = self.polled.writable.clone().step_by(4).filter(move |at| !last.contains(at));
        last.iter().copied().chain(others)
    }

    fn copy_at(&self, at: u16) -> Option<&AtomicU32> {
        self.copy.get(usize::from((at - self.polled.words.start) / 4))
    }

    /// The words that changed, in the order in which the device is to see them.
    fn changes(&self) -> Vec<(u16, u32)> {
        if !self.has_changes() {
            return Vec::new();
        }
        let mut first = Vec::new();
        let mut last = Vec::new();
        for at in self.in_reading_order() {
            let Some(copy) = self.copy_at(at) else { continue };
            let value = self.words.load(at.into());
            if value != copy.load(Ordering::Relaxed) {
                copy.store(value, Ordering::Relaxed);
                if self.polled.last.contains(&at) { &mut last } else { &mut first }
                    .push((at, value));
            }
        }
        last.sort_by_key(|(at, _)| self.polled.last.iter().position(|l| l == at));
        first.extend(last);
        first
    }

    /// Whether a word changed, in any order: this is what a thread asks all the time.
    fn has_changes(&self) -> bool {
        let Polled { words, writable, .. } = &self.polled;
        let index = |at: u16| usize::from(at / 4);
        let seen = self.words.words().get(index(writable.start)..index(writable.end));
        let first = index(writable.start - words.start);
        let known = self.copy.get(first..).unwrap_or_default();
        let mut pairs = seen.unwrap_or_default().iter().zip(known);
        pairs.any(|(word, copy)| word.load(Ordering::Relaxed) != copy.load(Ordering::Relaxed))
    }
}

/// What the device's lock guards.
pub(crate) struct Guarded {
    pub(crate) device: Device,
    /// [`pci::Device::polled_changes`] as of the last time the pages were brought up to date.
    shown: Option<u64>,
    /// What the device owes a client before it begins with what the last stores started.
    moment: Option<Moment>,
}

impl Guarded {
    /// A thread stored to registers that trap, and goes on when this lock is free.
    pub(crate) fn stored(&mut self, pid: i32, tid: i32) {
        self.moment = Moment::after(self.moment, pid, tid).or(self.moment);
    }
}

/// A device and its file.
pub(crate) struct Slot {
    pub(crate) id: DeviceId,
    pub(crate) name: String,
    pub(crate) mode: MmioMode,
    file: OwnedFd,
    guarded: Mutex<Guarded>,
    pages: Vec<Page>,
    /// The pages of BAR 0 once more, at 0.
    low: Vec<Page>,
    /// Whether anybody wrote to them: until then they are looked at in passing only.
    low_in_use: AtomicBool,
    /// Counts reasons to look at the device.
    kicks: Mutex<u64>,
    kicked: Condvar,
    open: AtomicBool,
}

impl Slot {
    /// # Errors
    /// Of the system calls that make the file.
    pub(crate) fn new(id: DeviceId, mut device: Device, mode: MmioMode) -> io::Result<Self> {
        let name = device.function().name.clone();
        let file = rustix::fs::memfd_create(
            format!("vfio-device {name}"),
            MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING,
        )?;
        device.set_bar0_base(BAR0_BASE);
        device.set_mappable(mode != MmioMode::None);
        let (mut pages, mut low) = (Vec::new(), Vec::new());
        if mode == MmioMode::Poll {
            rustix::fs::ftruncate(&file, FILE_END)?;
            for bar in 0..6 {
                let base = if bar == 0 { BAR0_BASE } else { u64::from(bar) << 40 };
                pages.extend(polled_pages(&device, bar, file.as_fd(), base)?);
            }
            low = polled_pages(&device, 0, file.as_fd(), 0)?;
        }
        // A client that cut the file short would take the pages from under us.
        rustix::fs::fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW)?;
        let slot = Self {
            id,
            name,
            mode,
            file,
            guarded: Mutex::new(Guarded { device, shown: None, moment: None }),
            pages,
            low,
            low_in_use: AtomicBool::new(false),
            kicks: Mutex::new(0),
            kicked: Condvar::new(),
            open: AtomicBool::new(false),
        };
        slot.show(&mut slot.lock());
        Ok(slot)
    }

    /// Its file.
    pub(crate) fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// A new open file for a client.
    ///
    /// # Errors
    /// Of `open`.
    pub(crate) fn open(&self) -> io::Result<OwnedFd> {
        let path = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        Ok(rustix::fs::open(path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?)
    }

    /// Where registers trap: another file, each access to which is SIGBUS too. Before it is opened.
    pub(crate) fn put_file(&mut self, file: OwnedFd) {
        debug_assert_eq!(self.mode, MmioMode::Trap);
        self.file = file;
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Guarded> {
        self.guarded.lock()
    }

    /// The same, for the device to begin something: after the moment that its clients have.
    pub(crate) fn lock_after_moment(&self) -> MutexGuard<'_, Guarded> {
        let mut guarded = self.lock();
        // A store meanwhile begins another one.
        while let Some(moment) = guarded.moment.filter(Moment::lasts) {
            MutexGuard::unlocked(&mut guarded, || moment.wait());
        }
        guarded.moment = None;
        guarded
    }

    pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, Guarded>> {
        self.guarded.try_lock()
    }

    /// Waits for the device; `None` when it does not come back from what it does.
    pub(crate) fn lock_within(&self, limit: Duration) -> Option<MutexGuard<'_, Guarded>> {
        self.guarded.try_lock_for(limit)
    }

    /// Whether polled registers were written since the last batch.
    pub(crate) fn was_written(&self) -> bool {
        self.pages.iter().any(Page::has_changes)
            || (self.low_in_use.load(Ordering::Relaxed) && self.low.iter().any(Page::has_changes))
    }

    /// The same of BAR 0 at 0, and whether it is to be watched from now on.
    pub(crate) fn was_written_low(&self) -> bool {
        let written = self.low.iter().any(Page::has_changes);
        self.low_in_use.fetch_or(written, Ordering::Relaxed);
        written
    }

    fn all_pages(&self) -> impl Iterator<Item = &Page> {
        self.pages.iter().chain(&self.low)
    }

    /// Whether a client has it, as of the last time somebody looked at it.
    pub(crate) fn is_open(&self) -> bool {
        self.open.load(Ordering::Relaxed)
    }

    pub(crate) fn is_polled(&self) -> bool {
        !self.pages.is_empty()
    }

    /// Hands on what was written to polled registers.
    pub(crate) fn take_batch(&self, guarded: &mut Guarded, up: &mut Upstream<'_>) -> bool {
        let mut any = false;
        for page in self.all_pages() {
            for (at, value) in page.changes() {
                any = true;
                let offset = page.offset + u64::from(at);
                // Where the device does not decode the write is lost, as it is on a bus.
                let _ =
                    guarded.device.mmio(up, page.bar, offset, Mmio::Write(&value.to_le_bytes()));
            }
        }
        any
    }

    /// Brings polled registers up to date.
    pub(crate) fn show(&self, guarded: &mut Guarded) {
        let open = guarded.device.is_open();
        let was_open = self.open.swap(open, Ordering::Relaxed);
        if self.pages.is_empty() {
            return;
        }
        let changes = guarded.device.model().polled_changes();
        if open == was_open && guarded.shown == Some(changes) {
            return;
        }
        guarded.shown = Some(changes);
        // Nobody has mapped it yet. What a client left there that the device never took, nobody finds:
        // not in registers that cannot be written, and no doorbell that would not seem to change.
        let anew = open && !was_open;
        for page in self.all_pages() {
            for at in page.polled.words.clone().step_by(4) {
                let value = guarded.device.peek(page.bar, page.offset + u64::from(at));
                let Some(copy) = page.copy_at(at) else { continue };
                let seen = copy.load(Ordering::Relaxed);
                let word = page.words.words().get(usize::from(at / 4));
                if anew {
                    word.into_iter().for_each(|word| word.store(value, Ordering::Release));
                    copy.store(value, Ordering::Relaxed);
                    continue;
                }
                // A client that wrote meanwhile wins: what it wrote is a change of the next batch.
                if value != seen
                    && word.is_some_and(|word| {
                        word.compare_exchange(seen, value, Ordering::AcqRel, Ordering::Relaxed)
                            .is_ok()
                    })
                {
                    copy.store(value, Ordering::Relaxed);
                }
            }
        }
    }

    /// There may be something to do for the device.
    pub(crate) fn kick(&self) {
        *self.kicks.lock() += 1;
        self.kicked.notify_all();
    }

    /// The kicks so far.
    pub(crate) fn kicks(&self) -> u64 {
        *self.kicks.lock()
    }

    /// Waits for a kick after `seen`, or `limit`; the kicks so far.
    pub(crate) fn wait_kick(&self, seen: u64, limit: Option<Duration>) -> u64 {
        let mut kicks = self.kicks.lock();
        while *kicks == seen {
            match limit {
                None => self.kicked.wait(&mut kicks),
                Some(limit) => {
                    if self.kicked.wait_for(&mut kicks, limit).timed_out() {
                        break;
                    }
                }
            }
        }
        *kicks
    }
}

/// Whether all memory BARs of a device can be polled.
pub(crate) fn can_poll(device: &Device) -> bool {
    let function = device.function();
    let memory = (0..6).filter(|bar| function.bar(*bar).is_some_and(|bar| bar.is_memory()));
    let mut polled = memory.map(|bar| device.model().polled(bar, 0).is_some());
    polled.all(|polled| polled)
}

/// The polled pages of a BAR that begins at `base` of the file.
fn polled_pages(
    device: &Device,
    bar: u8,
    file: BorrowedFd<'_>,
    base: u64,
) -> io::Result<Vec<Page>> {
    let mut pages = Vec::new();
    let memory = device.function().bar(bar).filter(|b| b.is_memory());
    for offset in (0..memory.map_or(0, |b| b.size)).step_by(PAGE_SIZE as usize) {
        let Some(polled) = device.model().polled(bar, offset / PAGE_SIZE) else { continue };
        let words = SharedWords::map(file, base + offset, PAGE_SIZE as usize)?;
        let count = polled.words.len() / 4;
        let copy = (0..count).map(|_| AtomicU32::new(0)).collect();
        pages.push(Page { bar, offset, polled, words, copy });
    }
    Ok(pages)
}
