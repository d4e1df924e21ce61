//! A small client: some memory for arguments, some to map, and a table of descriptors.

#![allow(dead_code, unreachable_pub, missing_docs, reason = "each test file uses its part")]

use std::collections::{BTreeMap, BTreeSet};

use iommu::{Backing, MmId, PinError, PinFault, PinId, Pinned, Pinner};
use softvfio_vfio::device::{Device, DeviceRefusal, Upstream};
use softvfio_vfio::{
    BadAddress, BadEvent, Caller, ContainerId, ContainerTable, Ctx, DeviceId, DeviceTable, EventId,
    FdObject, GroupId, Platform, Refusal, System,
};
use uapi::Errno;

/// Where arguments are put.
pub const ARGS: u64 = 0x10_0000;
/// Where memory to map is, readable and writable.
pub const BUF: u64 = 0x7000_0000;
/// Its size in bytes.
pub const BUF_SIZE: u64 = 4 << 20;

/// The client's side of every request.
pub struct Client {
    pub args: Vec<u8>,
    pub buf: Vec<u8>,
    pub fds: BTreeMap<i32, FdObject>,
    pub signals: BTreeMap<EventId, u64>,
    /// Eventfds whose counter is not 0.
    pub pending: BTreeSet<EventId>,
    pub pins: BTreeMap<PinId, u64>,
    pub faults: Vec<(DeviceId, iommu::Fault)>,
    pub memlock: u64,
    pub may_lock: bool,
    pub mm: MmId,
    /// Arguments can be read and not written.
    pub args_are_constant: bool,
    next_pin: u64,
}

impl Default for Client {
    fn default() -> Self {
        Self {
            args: vec![0; 0x1000],
            buf: vec![0; BUF_SIZE as usize],
            fds: BTreeMap::new(),
            signals: BTreeMap::new(),
            pending: BTreeSet::new(),
            pins: BTreeMap::new(),
            faults: Vec::new(),
            memlock: u64::MAX,
            may_lock: true,
            mm: MmId(1),
            args_are_constant: false,
            next_pin: 1,
        }
    }
}

impl Client {
    fn bytes(&mut self, addr: u64, len: usize) -> Result<&mut [u8], BadAddress> {
        let (base, memory) =
            if addr >= BUF { (BUF, &mut self.buf) } else { (ARGS, &mut self.args) };
        let at = usize::try_from(addr.checked_sub(base).ok_or(BadAddress)?).unwrap();
        memory.get_mut(at..).and_then(|m| m.get_mut(..len)).ok_or(BadAddress)
    }
}

impl Platform for Client {
    fn dma_read(&mut self, at: Backing, data: &mut [u8]) -> Result<(), BadAddress> {
        data.copy_from_slice(self.bytes(at.vaddr, data.len())?);
        Ok(())
    }

    fn dma_write(&mut self, at: Backing, data: &[u8]) -> Result<(), BadAddress> {
        self.bytes(at.vaddr, data.len())?.copy_from_slice(data);
        Ok(())
    }

    fn signal(&mut self, event: EventId) {
        *self.signals.entry(event).or_default() += 1;
    }

    fn fault(&mut self, device: DeviceId, fault: &iommu::Fault) {
        self.faults.push((device, *fault));
    }

    fn put_event(&mut self, _event: EventId) {}

    fn clear_event(&mut self, event: EventId) {
        self.pending.remove(&event);
    }
}

impl Pinner for Client {
    fn pin(&mut self, vaddr: u64, size: u64, _write: bool) -> Result<Pinned, PinError> {
        let end = vaddr.saturating_add(size);
        if vaddr < BUF || end > BUF + BUF_SIZE {
            let inside = (BUF + BUF_SIZE).saturating_sub(vaddr.max(BUF));
            let charged_pages = if vaddr < BUF { 0 } else { inside >> 12 };
            let vaddr = if vaddr < BUF { vaddr } else { vaddr.max(BUF + BUF_SIZE) };
            return Err(PinError { vaddr, charged_pages, why: PinFault::NotMapped });
        }
        let id = PinId(self.next_pin);
        self.next_pin += 1;
        self.pins.insert(id, size);
        Ok(Pinned { id, charged_pages: size >> 12 })
    }

    fn unpin(&mut self, pin: PinId) {
        self.pins.remove(&pin).expect("a pin is given back once");
    }
}

impl Caller for Client {
    fn copy_in(&mut self, addr: u64, data: &mut [u8]) -> Result<(), BadAddress> {
        data.copy_from_slice(self.bytes(addr, data.len())?);
        Ok(())
    }

    fn copy_out(&mut self, addr: u64, data: &[u8]) -> Result<(), BadAddress> {
        if self.args_are_constant && addr < BUF {
            return Err(BadAddress);
        }
        self.bytes(addr, data.len())?.copy_from_slice(data);
        Ok(())
    }

    fn is_user_range(&self, addr: u64, size: u64) -> bool {
        addr.checked_add(size).is_some_and(|end| end < 1 << 47)
    }

    fn mm(&self) -> MmId {
        self.mm
    }

    fn memlock_limit(&self) -> u64 {
        self.memlock
    }

    fn may_lock_memory(&self) -> bool {
        self.may_lock
    }

    fn fd(&self, fd: i32) -> FdObject {
        self.fds.get(&fd).copied().unwrap_or(FdObject::Closed)
    }

    fn get_event(&mut self, fd: i32) -> Result<EventId, BadEvent> {
        match self.fd(fd) {
            FdObject::Closed => Err(BadEvent::Closed),
            FdObject::Other => Ok(EventId(fd as u32)),
            _ => Err(BadEvent::NotEventfd),
        }
    }

    fn event_pending(&self, event: EventId) -> bool {
        self.pending.contains(&event)
    }

    fn install_device_fd(&mut self, device: DeviceId) -> Result<i32, Errno> {
        let fd = 100 + device.0 as i32;
        self.fds.insert(fd, FdObject::Device(device));
        Ok(fd)
    }
}

/// A system with its front end.
pub struct World {
    pub system: System,
    pub client: Client,
    pub containers: ContainerTable,
    pub devices: DeviceTable,
}

impl World {
    pub fn new(system: System, models: Vec<Box<dyn pci::Device>>) -> Self {
        let devices = DeviceTable::new(&system, models);
        Self { system, client: Client::default(), containers: ContainerTable::default(), devices }
    }

    pub fn with<R>(&mut self, f: impl FnOnce(&mut System, &mut Ctx<'_>) -> R) -> R {
        let mut ctx = Ctx {
            caller: &mut self.client,
            containers: &mut self.containers,
            devices: &mut self.devices,
        };
        f(&mut self.system, &mut ctx)
    }

    /// Runs `f` on a device and what lies upstream of it.
    pub fn device<R>(
        &mut self,
        id: DeviceId,
        f: impl FnOnce(&mut Device, &mut Upstream<'_>) -> Result<R, DeviceRefusal>,
    ) -> Result<R, DeviceRefusal> {
        let device = self.devices.get_mut(id).ok_or(DeviceRefusal::NotThere)?;
        f(device, &mut Upstream { containers: &mut self.containers, platform: &mut self.client })
    }

    /// Opens a container as descriptor `fd`.
    pub fn open_container(&mut self, fd: i32) -> ContainerId {
        let id = self.containers.open();
        self.client.fds.insert(fd, FdObject::Container(id));
        id
    }

    /// A container request with an argument by value.
    pub fn container(&mut self, id: ContainerId, request: u32, arg: u64) -> Result<i64, Errno> {
        let answer = self.with(|s, ctx| s.container_ioctl(id, ctx, request, arg));
        self.errno(answer)
    }

    /// A container request with a structure; what the kernel wrote is in `client.args`.
    pub fn container_with(
        &mut self,
        id: ContainerId,
        request: u32,
        arg: &[u8],
    ) -> Result<i64, Errno> {
        self.client.args[..arg.len()].copy_from_slice(arg);
        self.container(id, request, ARGS)
    }

    /// A group request with a structure.
    pub fn group_with(&mut self, id: GroupId, request: u32, arg: &[u8]) -> Result<i64, Errno> {
        self.client.args[..arg.len()].copy_from_slice(arg);
        let answer = self.with(|s, ctx| s.group_ioctl(id, ctx, request, ARGS));
        self.errno(answer)
    }

    pub fn errno(&self, answer: Result<i64, Refusal>) -> Result<i64, Errno> {
        answer.map_err(|r| r.errno(&self.system.shared().host.dialect))
    }
}
