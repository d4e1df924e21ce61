//! The process that issues the requests, as a model: memory, descriptors, eventfds, limits.
//!
//! What the recording program does to its memory decides answers: a map of memory that is not there
//! is `EFAULT`, a pinned page outlives `munmap`, the limit on locked memory refuses. So all of it
//! is modelled, sparse and by ranges: a terabyte costs what a page costs.

mod caller;
mod events;
mod files;
mod memory;
mod object;
mod pin;
mod runs;
mod space;
mod touch;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use iommu::{Dialect, Fault};
use uapi::Errno;
use vfio::{DeviceId, EventId};

pub(crate) use caller::MM;
use events::Events;
pub(crate) use files::File;
use files::{FileKey, Files};
pub(crate) use memory::{Kind, Place};
use object::Object;
use pin::Pins;
pub(crate) use space::Access;
use space::{Content, Mapping, Space};
use touch::Touched;

/// Bytes of the area that argument structures lie in; an inaccessible page follows it.
pub(crate) const ARENA: u64 = 0x20000;

/// Bytes of the dirty bitmap's buffer.
pub(crate) const BITMAP: u64 = 0x10_0000;

/// Bytes for strings and for what the recording program has on its stack.
pub(crate) const SCRATCH: u64 = 0x2_0000;

/// Faults that are kept until somebody asks.
const MAX_FAULTS: usize = 256;

/// Bytes between the highest place of a mapping and the strings.
const STACK: u64 = 0x10_0000;

/// What a process of a machine looks like.
#[derive(Clone, Debug)]
pub(crate) struct ProcessLayout {
    /// Bytes of a page.
    pub(crate) page: u64,
    /// Where the highest mapping ends.
    pub(crate) top: u64,
    /// The end of the addresses a process may have.
    pub(crate) limit: u64,
    /// Whether the top byte of an address is ignored (arm64).
    pub(crate) tagged: bool,
    /// Anonymous mappings of a multiple of so many bytes are placed at a multiple of it; 1: none are.
    pub(crate) huge: u64,
    /// Memory the machine has: a larger private writable mapping is refused. `u64::MAX`: no limit.
    pub(crate) memory: u64,
}

/// Bytes the process touched and does not have: it is killed (`SIGSEGV`, `SIGBUS`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Killed(pub(crate) &'static str);

/// The modelled process.
#[derive(Debug)]
pub(crate) struct Process {
    layout: ProcessLayout,
    space: Space,
    files: Files,
    events: Events,
    pins: Pins,
    /// Follow which pages are touched ([`Dialect::zero_page_pinned`]).
    zero_page_pinned: bool,
    uid: u32,
    /// `RLIMIT_MEMLOCK`.
    memlock: u64,
    /// Devices whose memory decoding is on, as of the request under way.
    decoding: BTreeMap<DeviceId, bool>,
    /// Files whose last reference has gone and that nobody has been told of.
    released: Vec<File>,
    /// Faults of devices that nobody has asked for yet.
    faults: Vec<(DeviceId, Fault)>,
    /// The same for whoever watches, if anybody does.
    watched: Option<Vec<(DeviceId, Fault)>>,
    arena: u64,
    bitmap: u64,
    scratch: u64,
}

impl Process {
    /// A new process: root, with the buffers of the recording program.
    pub(crate) fn new(layout: ProcessLayout, dialect: &Dialect) -> Self {
        let mut process = Self {
            space: Space::new(layout.page, layout.huge, layout.top, layout.limit),
            layout,
            files: Files::new(),
            events: Events::default(),
            pins: Pins::default(),
            zero_page_pinned: dialect.zero_page_pinned,
            uid: 0,
            memlock: 8 << 20,
            decoding: BTreeMap::new(),
            released: Vec::new(),
            faults: Vec::new(),
            watched: None,
            arena: 0,
            bitmap: 0,
            scratch: 0,
        };
        // In the recording program's order; the page behind the arena cannot be accessed.
        let guard = process.layout.page;
        process.arena = process.buffer(ARENA + guard);
        let _ = process.space.protect(process.arena + ARENA, guard, Access::None);
        process.bitmap = process.buffer(BITMAP);
        // Strings lie on the stack, above everything that is placed.
        process.scratch = process.layout.top + STACK;
        process.map_buffer(process.scratch, SCRATCH);
        process
    }

    /// Maps a buffer of the program itself.
    fn buffer(&mut self, size: u64) -> u64 {
        let at = self.space.place(size).unwrap_or_default();
        self.map_buffer(at, size);
        at
    }

    fn map_buffer(&mut self, at: u64, size: u64) {
        let content = Content::Memory {
            object: Rc::new(RefCell::new(Object::anonymous(self.layout.page, None))),
            offset: 0,
        };
        let _ = self.space.map(at, size, Access::ReadWrite, content);
    }

    /// Keeps a device's fault, the first ones of many.
    fn add_fault(&mut self, device: DeviceId, fault: Fault) {
        if let Some(watched) = &mut self.watched
            && watched.len() < MAX_FAULTS
        {
            watched.push((device, fault));
        }
        if self.faults.len() < MAX_FAULTS {
            self.faults.push((device, fault));
        }
    }

    /// Keeps faults for whoever watches, too.
    pub(crate) fn watch(&mut self) {
        self.watched = Some(Vec::new());
    }

    /// The faults that whoever watches has not seen.
    pub(crate) fn take_watched(&mut self) -> Vec<(DeviceId, Fault)> {
        self.watched.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// The faults since the last time.
    pub(crate) fn take_faults(&mut self) -> Vec<(DeviceId, Fault)> {
        std::mem::take(&mut self.faults)
    }

    /// Bytes of a page.
    pub(crate) fn page(&self) -> u64 {
        self.layout.page
    }

    /// Where argument structures lie.
    pub(crate) fn arena(&self) -> u64 {
        self.arena
    }

    /// Where the dirty bitmap's buffer lies.
    pub(crate) fn bitmap(&self) -> u64 {
        self.bitmap
    }

    /// Where strings lie.
    pub(crate) fn scratch(&self) -> u64 {
        self.scratch
    }

    /// Whether it runs as root, with every capability.
    pub(crate) fn is_root(&self) -> bool {
        self.uid == 0
    }

    /// `setresgid` and `setresuid`: drops every capability, for good.
    ///
    /// # Errors
    /// `EPERM` when it is another user already.
    pub(crate) fn set_uid(&mut self, uid: u32) -> Result<(), Errno> {
        if self.uid != 0 && self.uid != uid {
            return Err(Errno::EPERM);
        }
        self.uid = uid;
        Ok(())
    }

    /// `setrlimit(RLIMIT_MEMLOCK)`, both limits.
    ///
    /// # Errors
    /// `EPERM` when it is raised by somebody without privileges.
    pub(crate) fn set_memlock(&mut self, bytes: u64) -> Result<(), Errno> {
        if bytes > self.memlock && !self.is_root() {
            return Err(Errno::EPERM);
        }
        self.memlock = bytes;
        Ok(())
    }

    /// Opens a file.
    ///
    /// # Errors
    /// `EMFILE`.
    pub(crate) fn open(&mut self, file: File) -> Result<i32, Errno> {
        self.files.open(file).ok_or(Errno::EMFILE)
    }

    /// Whether another file can be opened.
    pub(crate) fn has_fd_room(&self) -> bool {
        self.files.has_room()
    }

    /// `eventfd(0, EFD_NONBLOCK)`.
    ///
    /// # Errors
    /// `EMFILE`.
    pub(crate) fn open_event(&mut self) -> Result<i32, Errno> {
        if !self.has_fd_room() {
            return Err(Errno::EMFILE);
        }
        let event = self.events.create();
        self.open(File::Event(event))
    }

    /// Reads an eventfd's counter and clears it.
    ///
    /// # Errors
    /// `EBADF`, `EAGAIN` when it is 0, `EINVAL` for another file.
    pub(crate) fn read_event(&mut self, fd: i32) -> Result<u64, Errno> {
        match self.file(fd) {
            None => Err(Errno::EBADF),
            Some(File::Event(event)) => self.events.take(event).ok_or(Errno::EAGAIN),
            Some(_) => Err(Errno::EINVAL),
        }
    }

    /// Adds to an eventfd's counter.
    ///
    /// # Errors
    /// `EBADF`; `EAGAIN` when it would become 2^64 - 1; `EINVAL` for that value and other files.
    pub(crate) fn write_event(&mut self, fd: i32, value: u64) -> Result<(), Errno> {
        match self.file(fd) {
            None => Err(Errno::EBADF),
            Some(File::Event(event)) if value != u64::MAX => {
                if self.events.add(event, value) {
                    Ok(())
                } else {
                    Err(Errno::EAGAIN)
                }
            }
            Some(_) => Err(Errno::EINVAL),
        }
    }

    /// Eventfds that were signalled since the last call, each once.
    pub(crate) fn take_signalled(&mut self) -> Vec<EventId> {
        self.events.take_signalled()
    }

    /// Reads an eventfd's counter back to 0, for a device that watches it.
    pub(crate) fn read_back(&mut self, event: EventId) {
        let _ = self.events.take(event);
    }

    /// The file behind a descriptor.
    pub(crate) fn file(&self, fd: i32) -> Option<File> {
        self.files.get(fd).map(|(_, file)| file)
    }

    /// `close`.
    ///
    /// # Errors
    /// `EBADF`.
    pub(crate) fn close(&mut self, fd: i32) -> Result<(), Errno> {
        let (key, _) = self.files.close(fd).ok_or(Errno::EBADF)?;
        self.release(key);
        Ok(())
    }

    /// Lets go of a file when nothing refers to it any more.
    fn release(&mut self, key: FileKey) {
        if self.files.has_fd(key) || self.space.holds(key) {
            return;
        }
        let Some(file) = self.files.forget(key) else { return };
        if let File::Event(event) = file {
            self.events.put(event);
        }
        self.released.push(file);
    }

    /// Files whose last reference has gone since the last call.
    pub(crate) fn take_released(&mut self) -> Vec<File> {
        std::mem::take(&mut self.released)
    }

    /// Says which devices decode memory, before a request that may pin their BARs.
    pub(crate) fn set_decoding(&mut self, device: DeviceId, on: bool) {
        self.decoding.insert(device, on);
    }

    /// Lets go of what mappings held.
    fn dropped(&mut self, removed: Vec<Mapping>) {
        for mapping in removed {
            if let Content::Region { file, .. } = mapping.content {
                self.release(file);
            }
        }
    }

    /// New anonymous memory.
    fn anonymous(&self) -> Content {
        let page = self.layout.page;
        let touched = self.zero_page_pinned.then(|| Touched::new(page / 8));
        Content::Memory {
            object: Rc::new(RefCell::new(Object::anonymous(page, touched))),
            offset: 0,
        }
    }
}
