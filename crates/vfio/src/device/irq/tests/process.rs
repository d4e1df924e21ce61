//! A fake process: bytes at one address, and eventfds.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use iommu::{Backing, MmId, PinError, PinId, Pinned, Pinner};
use uapi::Errno;

use crate::{BadAddress, BadEvent, Caller, DeviceId, EventId, FdObject, Platform};

/// Where the argument lies in the caller's memory.
pub(super) const ARG: u64 = 0x1000;

/// A process with eventfds.
#[derive(Default)]
pub(super) struct Process {
    /// Bytes at [`ARG`]; nothing else is readable.
    pub(super) memory: Vec<u8>,
    /// Counter by descriptor.
    pub(super) counters: BTreeMap<i32, u64>,
    /// Descriptors of something else.
    pub(super) others: Vec<i32>,
    /// References held, by name.
    pub(super) held: BTreeMap<EventId, i32>,
    /// Names signalled since last asked.
    pub(super) woken: Vec<EventId>,
    /// The last name given.
    pub(super) next: u32,
}

impl Process {
    /// Whoever holds the eventfd notices.
    pub(super) fn wake(&mut self, fd: i32) {
        self.woken.extend(self.held.iter().filter(|(_, other)| **other == fd).map(|(e, _)| *e));
    }
}

impl Pinner for Process {
    fn pin(&mut self, _vaddr: u64, _size: u64, _write: bool) -> Result<Pinned, PinError> {
        unreachable!("interrupt requests only read memory")
    }

    fn unpin(&mut self, _pin: PinId) {
        unreachable!("interrupt requests only read memory")
    }
}

impl Platform for Process {
    fn dma_read(&mut self, _at: Backing, _data: &mut [u8]) -> Result<(), BadAddress> {
        unreachable!("interrupt requests only read memory")
    }

    fn dma_write(&mut self, _at: Backing, _data: &[u8]) -> Result<(), BadAddress> {
        unreachable!("interrupt requests only read memory")
    }

    fn signal(&mut self, event: EventId) {
        let fd = *self.held.get(&event).expect("signalled a reference that was given back");
        *self.counters.entry(fd).or_default() += 1;
        self.wake(fd);
    }

    fn put_event(&mut self, event: EventId) {
        self.held.remove(&event).expect("given back twice");
    }

    fn clear_event(&mut self, event: EventId) {
        if let Some(counter) = self.counters.get_mut(&self.held[&event]) {
            *counter = 0;
        }
    }
}

impl Caller for Process {
    fn copy_in(&mut self, addr: u64, data: &mut [u8]) -> Result<(), BadAddress> {
        let at = addr.checked_sub(ARG).and_then(|at| usize::try_from(at).ok()).ok_or(BadAddress)?;
        let end = at.checked_add(data.len()).ok_or(BadAddress)?;
        data.copy_from_slice(self.memory.get(at..end).ok_or(BadAddress)?);
        Ok(())
    }

    fn copy_out(&mut self, _addr: u64, _data: &[u8]) -> Result<(), BadAddress> {
        unreachable!("interrupt requests only read memory")
    }

    fn is_user_range(&self, _addr: u64, _size: u64) -> bool {
        true
    }

    fn mm(&self) -> MmId {
        MmId(0)
    }

    fn memlock_limit(&self) -> u64 {
        u64::MAX
    }

    fn may_lock_memory(&self) -> bool {
        true
    }

    fn fd(&self, _fd: i32) -> FdObject {
        FdObject::Closed
    }

    fn get_event(&mut self, fd: i32) -> Result<EventId, BadEvent> {
        assert!(fd >= 0, "a negative descriptor was looked up");
        if self.others.contains(&fd) {
            return Err(BadEvent::NotEventfd);
        }
        if !self.counters.contains_key(&fd) {
            return Err(BadEvent::Closed);
        }
        self.next += 1;
        let event = EventId(self.next);
        self.held.insert(event, fd);
        Ok(event)
    }

    fn event_pending(&self, event: EventId) -> bool {
        self.held.get(&event).and_then(|fd| self.counters.get(fd)).is_some_and(|n| *n != 0)
    }

    fn install_device_fd(&mut self, _device: DeviceId) -> Result<i32, Errno> {
        unreachable!("interrupt requests only read memory")
    }
}
