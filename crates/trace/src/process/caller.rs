//! The process as VFIO sees it.

use iommu::{Backing, Fault, MmId};
use uapi::Errno;
use vfio::{BadAddress, BadEvent, Caller, DeviceId, EventId, FdObject, Platform};

use super::pin::Part;
use super::{File, Process};

/// The one address space.
pub(crate) const MM: MmId = MmId(0);

impl Platform for Process {
    fn dma_read(&mut self, at: Backing, data: &mut [u8]) -> Result<(), BadAddress> {
        self.transfer(at, data.len(), &mut |part, offset, range| {
            match part {
                Part::Memory(object, start) => {
                    object.borrow().read(start + offset, &mut data[range])
                }
                Part::Zero => data[range].fill(0),
                Part::Registers => return Err(BadAddress),
            }
            Ok(())
        })
    }

    fn dma_write(&mut self, at: Backing, data: &[u8]) -> Result<(), BadAddress> {
        self.transfer(at, data.len(), &mut |part, offset, range| match part {
            Part::Memory(object, start) => {
                object.borrow_mut().write(start + offset, &data[range]);
                Ok(())
            }
            Part::Zero | Part::Registers => Err(BadAddress),
        })
    }

    fn fault(&mut self, device: DeviceId, fault: &Fault) {
        self.add_fault(device, *fault);
    }

    fn signal(&mut self, event: EventId) {
        self.events.signal(event);
    }

    fn put_event(&mut self, event: EventId) {
        self.events.put(event);
    }

    fn clear_event(&mut self, event: EventId) {
        self.read_back(event);
    }
}

impl Caller for Process {
    fn copy_in(&mut self, addr: u64, data: &mut [u8]) -> Result<(), BadAddress> {
        self.load(addr, data).map_err(|_| BadAddress)
    }

    fn copy_out(&mut self, addr: u64, data: &[u8]) -> Result<(), BadAddress> {
        self.store(addr, data).map_err(|_| BadAddress)
    }

    fn is_user_range(&self, addr: u64, size: u64) -> bool {
        addr.checked_add(size).is_some_and(|end| end <= self.layout.limit)
    }

    fn mm(&self) -> MmId {
        MM
    }

    fn memlock_limit(&self) -> u64 {
        self.memlock
    }

    fn may_lock_memory(&self) -> bool {
        self.is_root()
    }

    fn fd(&self, fd: i32) -> FdObject {
        match self.file(fd) {
            None => FdObject::Closed,
            Some(File::Container(id)) => FdObject::Container(id),
            Some(File::Group(id)) => FdObject::Group(id),
            Some(File::Device(id)) => FdObject::Device(id),
            Some(File::Event(_) | File::Other) => FdObject::Other,
        }
    }

    fn get_event(&mut self, fd: i32) -> Result<EventId, BadEvent> {
        match self.file(fd) {
            None => Err(BadEvent::Closed),
            Some(File::Event(event)) => {
                self.events.get(event);
                Ok(event)
            }
            Some(_) => Err(BadEvent::NotEventfd),
        }
    }

    fn event_pending(&self, event: EventId) -> bool {
        self.events.count(event) != 0
    }

    fn install_device_fd(&mut self, device: DeviceId) -> Result<i32, Errno> {
        self.open(File::Device(device))
    }
}
