//! The broker: system calls of clients come in, `vfio` answers, devices work beside.
//!
//! ```text
//!   receive  N threads  notification ─► decode ─► request ─► respond
//!   worker   a device   polled registers ─► model ─► DMA, interrupts
//!   watcher  one        eventfds that devices wait for; open files that were closed
//!   copy     one        helps workers with large copies, where there are several processors
//! ```
//!
//! Locks, in this order: a device, the system, a container; within each of these only what ends at
//! once (pins, events, files). A thread that has the system does not wait for a device: it lets go and
//! begins again with the device in hand ([`devices`]). No lock but a device's, and one for which nobody
//! waits ([`Pair`]'s), is held while a client's memory is touched.

mod at_work;
mod caller;
mod containers;
mod devices;
mod events;
mod files;
mod memory;
mod mmio;
mod moment;
mod process;
mod receive;
mod removal;
mod requests;
mod slot;
mod transfer;
mod turns;
mod watcher;
mod worker;

use std::any::Any;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use iommu::{Backing, Dialect, Fault};
use parking_lot::Mutex;
use vfio::device::Upstream;
use vfio::{BadAddress, DeviceId, EventId, System};

pub use self::removal::DeviceState;
pub use self::slot::MmioMode;

use self::at_work::{AtWork, Changes};
use self::caller::Client;
use self::containers::Containers;
use self::events::Events;
use self::files::{Files, Kind};
use self::memory::Pins;
use self::process::Processes;
use crate::sys::mapped::MappedFile;
use crate::sys::notify;
use crate::sys::pair::{Copier, Pair};
use crate::sys::procmap::Mapping;
use crate::watch::Watch;

pub(crate) use self::slot::{BAR0_BASE, FILE_END, Slot, can_poll};

/// What a session's threads share.
pub(crate) struct Door {
    listener: OwnedFd,
    system: Mutex<System>,
    dialect: Dialect,
    containers: Containers,
    slots: Vec<Slot>,
    files: Files,
    processes: Processes,
    pins: Pins,
    pair: Pair,
    events: Events,
    watcher: watcher::Watcher,
    turns: turns::Turns,
    removals: removal::Removals,
    /// Receiving ends when nobody is left to make system calls.
    receive_ends: bool,
    /// One open file at a time is met for the first time; before the system's lock.
    opening: Mutex<()>,
    /// One thread at a time closes; before the system's lock.
    closing: Mutex<()>,
    watch: Arc<dyn Watch>,
    /// Requests so far.
    numbers: AtomicU64,
    at_work: Arc<AtWork>,
    /// `RLIMIT_MEMLOCK` for all; `None`: each process' own.
    memlock: Option<u64>,
    /// Clients' descriptors cannot be looked at.
    blind: AtomicBool,
    stop: AtomicBool,
}

/// What a door is made of.
pub(crate) struct Parts {
    pub(crate) listener: OwnedFd,
    /// `/dev/vfio` as clients see it.
    pub(crate) dev_vfio: OwnedFd,
    pub(crate) system: System,
    pub(crate) slots: Vec<Slot>,
    pub(crate) watch: Arc<dyn Watch>,
    pub(crate) memlock: Option<u64>,
}

/// Whether the kernel is of that release or a later one.
fn kernel_is_at_least(major: u32, minor: u32) -> bool {
    let name = rustix::system::uname();
    let release = name.release().to_string_lossy();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= (major, minor)
}

impl Door {
    /// # Errors
    /// Of the system calls that prepare the files.
    pub(crate) fn new(parts: Parts) -> io::Result<Self> {
        let Parts { listener, dev_vfio, mut system, slots, watch, memlock } = parts;
        let mut files = Files::new()?;
        let open = |name: &str| {
            let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC;
            rustix::fs::openat(&dev_vfio, name, flags, rustix::fs::Mode::empty())
        };
        files.track(open("vfio")?.as_fd(), Kind::Container)?;
        let mut groups: Vec<_> = slots.iter().map(|s| s.lock().device.function().group).collect();
        groups.sort_unstable();
        groups.dedup();
        for group in groups {
            files.track(open(&group.to_string())?.as_fd(), Kind::Group(group))?;
        }
        for slot in &slots {
            files.track(slot.file(), Kind::Device(slot.id))?;
        }
        notify::hand_over_processor(listener.as_fd());
        let at_work = Arc::new(AtWork::default());
        let changes = Changes { watch: Arc::clone(&watch), at_work: Arc::clone(&at_work) };
        system.shared_mut().observer = Box::new(changes);
        Ok(Self {
            listener,
            dialect: system.shared().host.dialect.clone(),
            system: Mutex::new(system),
            containers: Containers::default(),
            slots,
            files,
            processes: Processes::default(),
            pins: Pins::default(),
            pair: Pair::default(),
            events: Events::default(),
            watcher: watcher::Watcher::new()?,
            turns: turns::Turns::default(),
            removals: removal::Removals::default(),
            receive_ends: kernel_is_at_least(6, 11),
            opening: Mutex::new(()),
            closing: Mutex::new(()),
            watch,
            numbers: AtomicU64::new(0),
            at_work,
            memlock,
            blind: AtomicBool::new(false),
            stop: AtomicBool::new(false),
        })
    }

    fn slot(&self, id: DeviceId) -> Option<&Slot> {
        self.slots.get(usize::try_from(id.0).ok()?)
    }

    /// How many devices there are.
    pub(crate) const fn devices(&self) -> usize {
        self.slots.len()
    }

    /// Helps with large copies until the session is over.
    pub(crate) fn help_to_copy(&self) {
        self.pair.help();
    }

    /// The number of a request that takes effect now.
    fn next_number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed) + 1
    }

    fn number(&self) -> u64 {
        self.numbers.load(Ordering::Relaxed)
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// The device whose registers are mapped there.
    fn device_of(&self, mapping: &Mapping) -> Option<DeviceId> {
        self.device_with_file(mapping.dev, mapping.ino)
    }

    /// Whether a device answers to accesses of its memory. A device that is busy is taken to.
    fn decodes(&self, id: DeviceId) -> bool {
        let guarded = self.slot(id).and_then(Slot::try_lock);
        guarded.is_none_or(|guarded| guarded.device.decodes_memory())
    }

    fn dma_read(&self, at: Backing, data: &mut [u8]) -> Result<(), BadAddress> {
        let mm = self.processes.mm_by_id(at.mm).ok_or(BadAddress)?;
        if mm.dma_read(&self.pair, at.vaddr, data) { Ok(()) } else { Err(BadAddress) }
    }

    fn dma_write(&self, at: Backing, data: &[u8]) -> Result<(), BadAddress> {
        let mm = self.processes.mm_by_id(at.mm).ok_or(BadAddress)?;
        if mm.dma_write(&self.pair, at.vaddr, data) { Ok(()) } else { Err(BadAddress) }
    }

    fn dma_write_mapped(&self, at: Backing, source: &dyn Any, offset: u64, len: usize) -> bool {
        self.dma_mapped(at, source, |file, copier| file.send(copier, at.vaddr, offset, len))
    }

    fn dma_read_mapped(&self, at: Backing, target: &dyn Any, offset: u64, len: usize) -> bool {
        self.dma_mapped(at, target, |file, copier| file.receive(copier, at.vaddr, offset, len))
    }

    fn dma_mapped(
        &self,
        at: Backing,
        file: &dyn Any,
        transfer: impl FnOnce(&MappedFile, Copier<'_>) -> bool,
    ) -> bool {
        let file = file.downcast_ref::<MappedFile>().zip(self.processes.mm_by_id(at.mm));
        file.is_some_and(|(file, mm)| mm.large(&self.pair, |copier| transfer(file, copier)))
    }

    fn signal(&self, event: EventId) {
        if self.events.signal(event) {
            self.watch.interrupt();
        } else {
            self.watch.trouble("an interrupt was lost: the counter of its eventfd is full");
        }
    }

    fn fault(&self, device: DeviceId, fault: &Fault) {
        self.watch.fault(self.number(), device, fault);
    }

    /// Runs `f` with a device's lock held and nobody asking; then brings its registers up to date.
    fn on_hardware<R>(
        &self,
        slot: &Slot,
        guarded: &mut slot::Guarded,
        f: impl FnOnce(&mut slot::Guarded, &mut Upstream<'_>) -> R,
    ) -> R {
        let mut client = Client::nobody(self);
        let mut containers = &self.containers;
        let result =
            f(guarded, &mut Upstream { containers: &mut containers, platform: &mut client });
        slot.show(guarded);
        result
    }

    /// Lets everybody who waits inside see that the session is over.
    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        self.watcher.wake();
        self.turns.finish();
        self.pair.finish();
        for slot in &self.slots {
            slot.kick();
        }
    }

    /// After the last process: closes what is still open. Nothing is held then.
    pub(crate) fn close_all(&self) {
        self.close_closed(true);
        for object in self.files.take_all() {
            self.close(object);
        }
        let (pins, events) = (self.pins.len(), self.events.len());
        if pins != 0 || events != 0 {
            let sentence =
                format!("{pins} pins and {events} eventfds were not given back: a bug of softvfio");
            self.watch.trouble(&sentence);
        }
    }
}
