//! What VFIO needs of whoever carries its requests: one trait.
//!
//! The door implements it over a traced process, the replayer over a modelled one, an embedder over
//! its own. Everything that comes from the caller is untrusted: it is copied once, checked, then
//! used.

use iommu::{Backing, MmId, PinId, Pinner};
use uapi::Errno;

use crate::{ContainerId, DeviceId, EventId, GroupId};

/// An address of the caller that cannot be read or written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadAddress;

/// What a file descriptor of the caller refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FdObject {
    /// Not open.
    Closed,
    /// A container.
    Container(ContainerId),
    /// A group.
    Group(GroupId),
    /// A device.
    Device(DeviceId),
    /// Any other open file.
    Other,
}

/// Why a descriptor is no eventfd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadEvent {
    /// The descriptor is not open (`EBADF`).
    Closed,
    /// It is open and something else (`EINVAL`).
    NotEventfd,
}

/// A message signalled interrupt on its way: what the device wrote where, and what that came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    /// Where the device wrote it.
    pub iova: u64,
    /// What that was translated to: the physical address of the doorbell. The same where MSIs are not
    /// translated.
    pub doorbell: u64,
    /// What it wrote: the device's vector.
    pub vector: u32,
}

/// The machine behind the requests, there also when no request is under way: pinned memory and
/// eventfds. A device's DMA and interrupts end here.
pub trait Platform {
    /// Copies from pinned client memory; `at` names the bytes, all inside one pin.
    ///
    /// # Errors
    /// [`BadAddress`] when the memory is gone (its process died).
    fn dma_read(&mut self, at: Backing, data: &mut [u8]) -> Result<(), BadAddress>;

    /// Copies to pinned client memory.
    ///
    /// # Errors
    /// As [`dma_read`](Self::dma_read).
    fn dma_write(&mut self, at: Backing, data: &[u8]) -> Result<(), BadAddress>;

    /// Copies `len` bytes to pinned client memory that lie in `source`, from `offset` on; whether it
    /// did. Otherwise what memory holds there is anything, until [`dma_write`](Self::dma_write).
    fn dma_write_mapped(
        &mut self,
        _at: Backing,
        _source: &dyn core::any::Any,
        _offset: u64,
        _len: usize,
    ) -> bool {
        false
    }

    /// Copies `len` bytes of pinned client memory to where they belong in `target`, from `offset` on;
    /// whether it did. Otherwise what `target` has there is anything.
    fn dma_read_mapped(
        &mut self,
        _at: Backing,
        _target: &dyn core::any::Any,
        _offset: u64,
        _len: usize,
    ) -> bool {
        false
    }

    /// Adds 1 to an eventfd.
    fn signal(&mut self, event: EventId);

    /// Drops a reference that [`Caller::get_event`] gave.
    fn put_event(&mut self, event: EventId);

    /// Sets an eventfd's counter to 0. The kernel reads the counter of an eventfd as it stops
    /// listening to it (INTx unmask, ioeventfd).
    fn clear_event(&mut self, _event: EventId) {}

    /// A transfer to or from a pin begins: until [`release`](Self::release) the bytes behind it stay,
    /// also when the mapping goes. Called while the container is held; the copy is made after that.
    fn hold(&mut self, _pin: PinId) {}

    /// A transfer that [`hold`](Self::hold) announced is over.
    fn release(&mut self, _pin: PinId) {}

    /// A device moved `bytes` bytes to memory (`access` is `WRITE`) or from it, at this I/O virtual
    /// address.
    fn moved(&mut self, _device: DeviceId, _iova: u64, _access: iommu::Prot, _bytes: usize) {}

    /// A device's interrupt reached the interrupt controller, which knows it.
    fn message(&mut self, _device: DeviceId, _message: &Message) {}

    /// A device refused or lost an access: the report's raw material.
    fn fault(&mut self, _device: DeviceId, _fault: &iommu::Fault) {}
}

/// The process that issues a request.
pub trait Caller: Platform + Pinner {
    /// Copies `data.len()` bytes from the caller's address `addr`.
    ///
    /// # Errors
    /// [`BadAddress`] when any byte is not readable.
    fn copy_in(&mut self, addr: u64, data: &mut [u8]) -> Result<(), BadAddress>;

    /// Copies to the caller's address `addr`.
    ///
    /// # Errors
    /// [`BadAddress`] when a byte is not writable; bytes before it may have been written.
    fn copy_out(&mut self, addr: u64, data: &[u8]) -> Result<(), BadAddress>;

    /// Whether `addr..addr+size` lies in the part of the address space that a process may have,
    /// mapped or not (the kernel's `access_ok`).
    fn is_user_range(&self, addr: u64, size: u64) -> bool;

    /// The address space that pinned pages are charged to.
    fn mm(&self) -> MmId;

    /// `RLIMIT_MEMLOCK` in bytes; `u64::MAX` is no limit.
    fn memlock_limit(&self) -> u64;

    /// `CAP_IPC_LOCK`: the limit does not bind.
    fn may_lock_memory(&self) -> bool;

    /// What descriptor `fd` refers to.
    fn fd(&self, fd: i32) -> FdObject;

    /// Takes a reference to the eventfd behind descriptor `fd`.
    ///
    /// # Errors
    /// [`BadEvent`] says what the descriptor is instead.
    fn get_event(&mut self, fd: i32) -> Result<EventId, BadEvent>;

    /// Whether the eventfd's counter is not zero (an unmask eventfd that fired before it was
    /// installed).
    fn event_pending(&self, event: EventId) -> bool;

    /// Gives the caller a new descriptor for a device.
    ///
    /// # Errors
    /// The errno of a full descriptor table.
    fn install_device_fd(&mut self, device: DeviceId) -> Result<i32, Errno>;
}
