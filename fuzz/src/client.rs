//! A process whose memory has every kind of edge, and which keeps the books on what VFIO holds.

use std::collections::BTreeMap;

use iommu::{Backing, MmId, PinError, PinFault, PinId, Pinned, Pinner};
use uapi::Errno;
use vfio::{BadAddress, BadEvent, Caller, DeviceId, EventId, FdObject, Platform};

use crate::Pins;
use crate::pins::Pin;

/// Arguments: readable and writable, nothing before or behind.
pub const ARGS: u64 = 0x10_0000;
/// Bytes of it.
pub const ARGS_SIZE: usize = 0x1000;
/// A page that can only be read.
pub const CONSTANT: u64 = 0x20_0000;
/// Memory to map: real bytes.
pub const BUF: u64 = 0x7000_0000;
/// Bytes of it.
pub const BUF_SIZE: u64 = 1 << 16;
/// Memory to map that nobody looks into: of any size.
pub const HUGE: u64 = 1 << 40;
/// Bytes of it.
pub const HUGE_SIZE: u64 = 1 << 45;
/// The end of the addresses a process may have.
pub const LIMIT: u64 = 1 << 47;

/// Descriptors that are eventfds.
pub const EVENT_FDS: std::ops::Range<i32> = 60..64;
/// Descriptors the process may have.
pub const FDS: i32 = 80;

/// The process.
pub struct Client {
    /// The bytes at [`ARGS`].
    pub args: Vec<u8>,
    buf: Vec<u8>,
    /// What VFIO holds pinned.
    pub pins: Pins,
    /// What descriptors refer to.
    pub fds: BTreeMap<i32, FdObject>,
    /// References to eventfds that VFIO holds.
    pub events: BTreeMap<EventId, u32>,
    /// `RLIMIT_MEMLOCK`.
    pub memlock: u64,
    /// `CAP_IPC_LOCK`.
    pub may_lock: bool,
}

impl Default for Client {
    fn default() -> Self {
        Self {
            args: vec![0; ARGS_SIZE],
            buf: vec![0; BUF_SIZE as usize],
            pins: Pins::default(),
            fds: BTreeMap::new(),
            events: BTreeMap::new(),
            memlock: 8 << 20,
            may_lock: true,
        }
    }
}

impl Client {
    /// The lowest descriptor that is free.
    #[must_use]
    pub fn free_fd(&self) -> Option<i32> {
        (3..FDS).find(|fd| !self.fds.contains_key(fd) && !EVENT_FDS.contains(fd))
    }

    fn bytes(&mut self, addr: u64, len: usize) -> Result<&mut [u8], BadAddress> {
        let (base, memory) = match addr {
            BUF.. => (BUF, &mut self.buf),
            _ => (ARGS, &mut self.args),
        };
        let at = usize::try_from(addr.checked_sub(base).ok_or(BadAddress)?);
        let at = at.map_err(|_| BadAddress)?;
        memory.get_mut(at..at.saturating_add(len)).ok_or(BadAddress)
    }

    /// DMA lands in pinned memory only, and writes only where the pin allows it.
    fn check_dma(&self, at: Backing, len: usize, write: bool) {
        let pin = self.pins.live().get(&at.pin).expect("DMA to memory that is not pinned");
        let end = at.offset.checked_add(len as u64);
        assert!(end.is_some_and(|end| end <= pin.size), "DMA beyond a pin");
        assert!(pin.write || !write, "DMA writes to memory pinned for reading");
    }

    /// Where pinned bytes lie: a moved user address does not move the memory.
    fn dma_address(&self, at: Backing) -> u64 {
        self.pins.live()[&at.pin].vaddr + at.offset
    }
}

impl Platform for Client {
    fn dma_read(&mut self, at: Backing, data: &mut [u8]) -> Result<(), BadAddress> {
        self.check_dma(at, data.len(), false);
        let address = self.dma_address(at);
        match self.bytes(address, data.len()) {
            Ok(bytes) => data.copy_from_slice(bytes),
            Err(BadAddress) => data.fill(0),
        }
        Ok(())
    }

    fn dma_write(&mut self, at: Backing, data: &[u8]) -> Result<(), BadAddress> {
        self.check_dma(at, data.len(), true);
        let address = self.dma_address(at);
        if let Ok(bytes) = self.bytes(address, data.len()) {
            bytes.copy_from_slice(data);
        }
        Ok(())
    }

    fn signal(&mut self, event: EventId) {
        assert!(self.events.contains_key(&event), "{event} is signalled and was given back");
    }

    fn put_event(&mut self, event: EventId) {
        let held = self.events.get_mut(&event).expect("an eventfd is given back once");
        *held -= 1;
        if *held == 0 {
            self.events.remove(&event);
        }
    }
}

impl Pinner for Client {
    fn pin(&mut self, vaddr: u64, size: u64, write: bool) -> Result<Pinned, PinError> {
        let ends = [(BUF, BUF + BUF_SIZE), (HUGE, HUGE + HUGE_SIZE), (CONSTANT, CONSTANT + 0x1000)];
        let area = ends.into_iter().find(|(first, end)| *first <= vaddr && vaddr < *end);
        let refused = |vaddr, charged_pages, why| PinError { vaddr, charged_pages, why };
        let Some((first, end)) = area else {
            return Err(refused(vaddr, 0, PinFault::NotMapped));
        };
        if write && first == CONSTANT {
            return Err(refused(vaddr, 0, PinFault::NotPermitted));
        }
        if size > end - vaddr {
            return Err(refused(end, (end - vaddr) >> 12, PinFault::NotMapped));
        }
        Ok(self.pins.hold(Pin { vaddr, size, charged_pages: size >> 12, write }))
    }

    fn unpin(&mut self, pin: PinId) {
        self.pins.unpin(pin);
    }
}

impl Caller for Client {
    fn copy_in(&mut self, addr: u64, data: &mut [u8]) -> Result<(), BadAddress> {
        if (CONSTANT..CONSTANT + 0x1000).contains(&addr) {
            data.fill(1);
            return if data.len() as u64 <= CONSTANT + 0x1000 - addr {
                Ok(())
            } else {
                Err(BadAddress)
            };
        }
        data.copy_from_slice(self.bytes(addr, data.len())?);
        Ok(())
    }

    fn copy_out(&mut self, addr: u64, data: &[u8]) -> Result<(), BadAddress> {
        self.bytes(addr, data.len())?.copy_from_slice(data);
        Ok(())
    }

    fn is_user_range(&self, addr: u64, size: u64) -> bool {
        addr.checked_add(size).is_some_and(|end| end <= LIMIT)
    }

    fn mm(&self) -> MmId {
        MmId(0)
    }

    fn memlock_limit(&self) -> u64 {
        self.memlock
    }

    fn may_lock_memory(&self) -> bool {
        self.may_lock
    }

    fn fd(&self, fd: i32) -> FdObject {
        if EVENT_FDS.contains(&fd) {
            return FdObject::Other;
        }
        self.fds.get(&fd).copied().unwrap_or(FdObject::Closed)
    }

    fn get_event(&mut self, fd: i32) -> Result<EventId, BadEvent> {
        match self.fd(fd) {
            FdObject::Closed => Err(BadEvent::Closed),
            FdObject::Other => {
                let event = EventId(fd.unsigned_abs());
                *self.events.entry(event).or_default() += 1;
                Ok(event)
            }
            _ => Err(BadEvent::NotEventfd),
        }
    }

    fn event_pending(&self, event: EventId) -> bool {
        assert!(self.events.contains_key(&event), "{event} is asked about and was given back");
        event.0 & 1 == 0
    }

    fn install_device_fd(&mut self, device: DeviceId) -> Result<i32, Errno> {
        let fd = self.free_fd().ok_or(Errno::EMFILE)?;
        self.fds.insert(fd, FdObject::Device(device));
        Ok(fd)
    }
}
