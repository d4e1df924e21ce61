//! The process behind a request, as VFIO sees it.
//!
//! While a request has the system, no memory of a client is touched: reaching it may take the help of
//! the client's own threads (userfaultfd), and these may wait for the system. So an argument is served
//! from copies made before; where a copy is missing, the request is refused, the answer dropped, and
//! the request issued again with the copy. What is to be written is written afterwards.

use std::any::Any;
use std::cell::{Cell, OnceCell};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use iommu::{Backing, Fault, MmId, PinError, PinFault, PinId, Pinned, Pinner, Prot};
use uapi::Errno;
use vfio::{BadAddress, BadEvent, Caller, DeviceId, EventId, FdObject, Message, Platform};

use super::Door;
use super::files::{Identity, Kind, Object};
use super::memory::{Mm, Pin};
use super::process::{Copied, Process};
use crate::sys::process::nothing_starts;
use crate::sys::{client, notify};
use crate::watch::Piece;

/// Addresses from here on are the kernel's.
const USER_END: u64 = 0x7fff_ffff_f000;
/// Bytes of an argument that are copied before they are asked for.
const AHEAD: u64 = 128;
/// How often a request may ask for more before it is refused.
const MOST_FETCHES: usize = 64;
/// How long an unmap waits for a transfer.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

const PAGE: u64 = 4096;

/// A request's process, for the time of the request; or nobody, for what devices do on their own and
/// for what happens as files are closed.
pub(super) struct Client<'a> {
    door: &'a Door,
    process: Option<&'a Process>,
    mm: OnceCell<Option<Arc<Mm>>>,
    /// The system call that waits, and its thread.
    call: u64,
    tid: i32,
    pub(super) number: u64,
    /// Copies of arguments, and addresses that cannot be read.
    copies: Vec<Piece>,
    unreadable: Vec<(u64, usize)>,
    /// The first address and length that a copy was missing of.
    missing: Option<(u64, usize)>,
    fetches: usize,
    /// A bitmap in the client's memory: read where it is, as only a few of its words are.
    bitmap: Cell<Option<(u64, u64)>>,
    writes: Vec<Piece>,
    unpinned: Vec<Arc<Pin>>,
    /// Transfers under way.
    held: Vec<(PinId, Arc<Pin>)>,
}

impl<'a> Client<'a> {
    /// Nobody.
    pub(super) const fn nobody(door: &'a Door) -> Self {
        Self::new(door, None, 0, 0)
    }

    /// The process of a thread whose system call waits.
    pub(super) const fn of(door: &'a Door, process: &'a Process, call: u64, tid: i32) -> Self {
        Self::new(door, Some(process), call, tid)
    }

    const fn new(door: &'a Door, process: Option<&'a Process>, call: u64, tid: i32) -> Self {
        Self {
            door,
            process,
            mm: OnceCell::new(),
            call,
            tid,
            number: 0,
            copies: Vec::new(),
            unreadable: Vec::new(),
            missing: None,
            fetches: 0,
            bitmap: Cell::new(None),
            writes: Vec::new(),
            unpinned: Vec::new(),
            held: Vec::new(),
        }
    }

    /// Copies the beginning of an argument.
    pub(super) fn look_ahead(&mut self, addr: u64) {
        let room = PAGE - (addr & (PAGE - 1));
        let mut bytes = vec![0; usize::try_from(room.min(AHEAD)).unwrap_or(0)];
        let len = client::read_memory(self.tid, addr, &mut bytes);
        bytes.truncate(len);
        if len != 0 {
            self.copies.push(Piece { addr, bytes });
        }
    }

    /// After a request: whether it lacked a copy, and is to be issued again. Nothing of it is kept.
    pub(super) const fn lacks(&self) -> bool {
        self.missing.is_some()
    }

    /// Makes the copy that was missing. With no lock held.
    pub(super) fn fetch(&mut self) {
        let Some((addr, len)) = self.missing.take() else { return };
        self.writes.clear();
        self.fetches += 1;
        let mut bytes = vec![0; len];
        let whole = client::read_memory(self.tid, addr, &mut bytes) == len;
        if whole && self.fetches <= MOST_FETCHES {
            self.copies.push(Piece { addr, bytes });
        } else {
            self.unreadable.push((addr, len));
        }
    }

    /// After a request, with no lock held: waits for transfers to memory that was unmapped, and
    /// writes what is to be written.
    pub(super) fn finish(&mut self) -> Result<(), BadAddress> {
        for pin in self.unpinned.drain(..) {
            if !pin.wait_idle(PATIENCE) {
                self.door.watch.trouble(
                    "an unmap did not wait for a device's transfer any longer: the client's memory \
                     does not answer",
                );
            }
        }
        /// Pieces that one system call takes (`IOV_MAX`).
        const MOST: usize = 1024;
        let pieces: Vec<_> = self.writes.iter().map(|p| (p.addr, &p.bytes[..])).collect();
        for pieces in pieces.chunks(MOST) {
            let len = pieces.iter().map(|(_, bytes)| bytes.len()).sum::<usize>();
            if client::write_pieces(self.tid, pieces) != len {
                return Err(BadAddress);
            }
        }
        Ok(())
    }

    /// What was read and written, for those who watch.
    pub(super) fn into_pieces(self) -> (Vec<Piece>, Vec<Piece>) {
        (self.copies, self.writes)
    }

    fn mm_now(&self) -> Option<&Arc<Mm>> {
        self.mm.get_or_init(|| self.door.processes.mm(self.process?, self.tid).ok()).as_ref()
    }

    fn descriptor(&self, fd: i32) -> Option<Copied> {
        self.door.descriptor(self.process?, self.tid, fd).ok()
    }

    fn object(&self, fd: i32) -> Result<Option<Object>, FdObject> {
        let Some(file) = self.descriptor(fd) else { return Err(FdObject::Closed) };
        match self.door.files.identify(file.as_fd()) {
            Identity::Known(object) => Ok(Some(object)),
            // Joined right after it was opened.
            Identity::New(Kind::Container) => {
                let new = || Object::Container(self.door.containers.open());
                Ok(self.door.files.adopt(file.as_fd(), new).ok())
            }
            Identity::New(Kind::Group(id)) => Ok(Some(Object::Group(id))),
            Identity::New(Kind::Device(_)) | Identity::Foreign => Ok(None),
        }
    }
}

impl Platform for Client<'_> {
    fn dma_read(&mut self, at: Backing, data: &mut [u8]) -> Result<(), BadAddress> {
        self.door.dma_read(at, data)
    }

    fn dma_write(&mut self, at: Backing, data: &[u8]) -> Result<(), BadAddress> {
        self.door.dma_write(at, data)
    }

    fn dma_write_mapped(&mut self, at: Backing, source: &dyn Any, offset: u64, len: usize) -> bool {
        self.door.dma_write_mapped(at, source, offset, len)
    }

    fn dma_read_mapped(&mut self, at: Backing, target: &dyn Any, offset: u64, len: usize) -> bool {
        self.door.dma_read_mapped(at, target, offset, len)
    }

    fn signal(&mut self, event: EventId) {
        self.door.signal(event);
    }

    fn put_event(&mut self, event: EventId) {
        self.door.events.remove(event);
    }

    fn clear_event(&mut self, event: EventId) {
        self.door.events.clear(event);
    }

    fn hold(&mut self, pin: PinId) {
        self.held.extend(self.door.pins.hold(pin).map(|held| (pin, held)));
    }

    fn release(&mut self, pin: PinId) {
        if let Some(at) = self.held.iter().rposition(|(held, _)| *held == pin) {
            self.held.swap_remove(at).1.release();
        }
    }

    fn moved(&mut self, device: DeviceId, iova: u64, access: Prot, bytes: usize) {
        self.door.watch.moved(device, iova, access, bytes);
    }

    fn message(&mut self, device: DeviceId, message: &Message) {
        self.door.watch.message(self.door.number(), device, message);
    }

    fn fault(&mut self, device: DeviceId, fault: &Fault) {
        self.door.fault(device, fault);
    }
}

impl Pinner for Client<'_> {
    fn pin(&mut self, vaddr: u64, size: u64, write: bool) -> Result<Pinned, PinError> {
        let error = |vaddr: u64, why, charged_pages| PinError { vaddr, charged_pages, why };
        let Some(mm) = self.mm_now().cloned() else {
            return Err(error(vaddr, PinFault::NotMapped, 0));
        };
        let (mut at, end) = (vaddr, vaddr.saturating_add(size));
        let mut charged_pages = 0;
        while at < end {
            let Ok(Some(mapping)) = mm.mapping(at) else {
                return Err(error(at, PinFault::NotMapped, charged_pages));
            };
            if (write && !mapping.writable) || !mapping.readable {
                return Err(error(at, PinFault::NotPermitted, charged_pages));
            }
            let next = mapping.end.min(end);
            match self.door.device_of(&mapping) {
                // A device's own memory is not charged.
                Some(device) if !self.door.decodes(device) => {
                    return Err(error(at, PinFault::DeviceOff, charged_pages));
                }
                Some(_) => {}
                None => charged_pages += (next - at) / PAGE,
            }
            at = next;
        }
        Ok(Pinned { id: self.door.pins.add(mm), charged_pages })
    }

    fn unpin(&mut self, pin: PinId) {
        self.unpinned.extend(self.door.pins.remove(pin));
    }
}

impl Caller for Client<'_> {
    fn copy_in(&mut self, addr: u64, data: &mut [u8]) -> Result<(), BadAddress> {
        if data.is_empty() {
            return Ok(());
        }
        if self.process.is_none() {
            return Err(BadAddress);
        }
        let end = addr.checked_add(data.len() as u64).ok_or(BadAddress)?;
        if self.unreadable.contains(&(addr, data.len())) {
            return Err(BadAddress);
        }
        let covers = |p: &&Piece| p.addr <= addr && end <= p.addr + p.bytes.len() as u64;
        if let Some(piece) = self.copies.iter().find(covers) {
            let start = usize::try_from(addr - piece.addr).unwrap_or(usize::MAX);
            let bytes = piece.bytes.get(start..start + data.len()).ok_or(BadAddress)?;
            data.copy_from_slice(bytes);
            return Ok(());
        }
        if let Some((first, size)) = self.bitmap.get()
            && addr >= first
            && end <= first.saturating_add(size)
        {
            if client::read_memory(self.tid, addr, data) != data.len() {
                return Err(BadAddress);
            }
            for piece in &self.writes {
                overlay(piece, addr, data);
            }
            return Ok(());
        }
        self.missing = self.missing.or(Some((addr, data.len())));
        Err(BadAddress)
    }

    fn copy_out(&mut self, addr: u64, data: &[u8]) -> Result<(), BadAddress> {
        if !self.writes.last_mut().is_some_and(|last| join(last, addr, data)) {
            self.writes.push(Piece { addr, bytes: data.to_vec() });
        }
        Ok(())
    }

    fn is_user_range(&self, addr: u64, size: u64) -> bool {
        let inside = addr.checked_add(size).is_some_and(|end| end <= USER_END);
        if inside {
            self.bitmap.set(Some((addr, size)));
        }
        inside
    }

    fn mm(&self) -> MmId {
        self.mm_now().map_or(MmId(u32::MAX), |mm| mm.id())
    }

    fn memlock_limit(&self) -> u64 {
        let own = || self.process.map_or(0, Process::memlock_limit);
        self.door.memlock.unwrap_or_else(own)
    }

    fn may_lock_memory(&self) -> bool {
        false
    }

    fn fd(&self, fd: i32) -> FdObject {
        match self.object(fd) {
            Err(closed) => closed,
            Ok(None) => FdObject::Other,
            Ok(Some(Object::Container(id))) => FdObject::Container(id),
            Ok(Some(Object::Group(id))) => FdObject::Group(id),
            Ok(Some(Object::Device(id))) => FdObject::Device(id),
        }
    }

    fn get_event(&mut self, fd: i32) -> Result<EventId, BadEvent> {
        let file = self.descriptor(fd).ok_or(BadEvent::Closed)?;
        self.door.events.add(file.keep()).ok_or(BadEvent::NotEventfd)
    }

    fn event_pending(&self, event: EventId) -> bool {
        self.door.events.is_pending(event)
    }

    fn install_device_fd(&mut self, device: DeviceId) -> Result<i32, Errno> {
        let _nothing_starts = nothing_starts();
        let file = self.door.slot(device).ok_or(Errno::ENODEV)?.open().map_err(errno_of)?;
        let tag = self.door.files.give(file.as_fd(), Object::Device(device)).map_err(errno_of)?;
        notify::give_fd(self.door.listener.as_fd(), self.call, file.as_fd()).map_err(|error| {
            self.door.files.take_back(tag);
            errno_of(error)
        })
    }
}

/// Adds bytes to their neighbours in the same page, where all can be written or none: one piece costs
/// the kernel less than two. Whether they are such.
fn join(piece: &mut Piece, addr: u64, data: &[u8]) -> bool {
    let end = |addr: u64, bytes: &[u8]| addr.checked_add(bytes.len() as u64);
    let at = if end(addr, data) == Some(piece.addr) {
        0
    } else if end(piece.addr, &piece.bytes) == Some(addr) {
        piece.bytes.len()
    } else {
        return false;
    };
    let first = piece.addr.min(addr);
    if (first & (PAGE - 1)) + (piece.bytes.len() + data.len()) as u64 > PAGE {
        return false;
    }
    piece.addr = first;
    piece.bytes.splice(at..at, data.iter().copied());
    true
}

/// Puts what `piece` has of `data`, which stands at `addr`, into it.
fn overlay(piece: &Piece, addr: u64, data: &mut [u8]) {
    for (at, byte) in (piece.addr..).zip(&piece.bytes) {
        let place = at.checked_sub(addr).and_then(|i| usize::try_from(i).ok());
        if let Some(to) = place.and_then(|i| data.get_mut(i)) {
            *to = *byte;
        }
    }
}

fn errno_of(error: std::io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_in_a_page_are_written_at_once() {
        let mut piece = Piece { addr: 0x1018, bytes: vec![3, 4] };
        assert!(join(&mut piece, 0x1016, &[1, 2]) && join(&mut piece, 0x101a, &[5]));
        let whole = Piece { addr: 0x1016, bytes: vec![1, 2, 3, 4, 5] };
        assert_eq!(piece, whole);
        let apart = [(0x101a, 1), (0x101c, 1), (0x1014, 1), (0x1000, 1), (u64::MAX, 2)];
        for (addr, len) in apart.into_iter().chain([(0x101b, 0xfe6)]) {
            let data = &[9; 0xfe6][..len];
            assert!(!join(&mut piece, addr, data), "{addr:#x}");
        }
        assert_eq!(piece, whole);
        let mut edge = Piece { addr: 0x2000, bytes: vec![7] };
        assert!(!join(&mut edge, 0x1fff, &[6]) && join(&mut edge, 0x2001, &[8; 0xfff]));
        assert!(!join(&mut edge, 0x3000, &[9]));
    }
}
