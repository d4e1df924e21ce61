//! VFIO served from a front end of one's own: a small process model in place of Linux, an edu
//! device, and the requests that a VFIO program would issue.
//!
//! `cargo run -p softvfio-vfio --example serve`

use std::collections::{BTreeMap, BTreeSet};

use devices::Edu;
use iommu::{
    Backing, Dialect, Group, Host, InterruptController, Iommu, IovaRange, Limits, MmId, MsiPolicy,
    PageSizes, PinError, PinFault, PinId, Pinned, Pinner, Prot, ReservedKind, ReservedRegion,
};
use pci::Bdf;
use softvfio_vfio::device::{PciFunction, Upstream};
use softvfio_vfio::{
    BadAddress, BadEvent, Caller, ContainerId, ContainerTable, Ctx, DeviceId, DeviceTable, EventId,
    FdObject, GroupId, Platform, Refusal, System,
};
use uapi::Errno;
use uapi::ioctl::{
    VFIO_DEVICE_SET_IRQS, VFIO_GROUP_GET_DEVICE_FD, VFIO_GROUP_SET_CONTAINER, VFIO_IOMMU_MAP_DMA,
    VFIO_SET_IOMMU,
};
use uapi::irq::{IrqSet, IrqSetFlags};
use uapi::region::{RegionIndex, region_offset};
use uapi::type1::{DmaMap, MapFlags};
use zerocopy::IntoBytes;

const PAGE: u64 = 0x1000;

/// Where the process has its memory: one megabyte, for arguments and for DMA.
const MEMORY: u64 = 0x7f00_0000_0000;

/// The process that issues requests. A real front end has a real one: copying is then
/// `process_vm_readv` or a guest's memory, pinning is `mlock` or nothing at all.
struct Process {
    memory: Vec<u8>,
    fds: BTreeMap<i32, FdObject>,
    /// Eventfds by descriptor: how often they were signalled.
    events: BTreeMap<i32, u64>,
    pins: BTreeSet<PinId>,
}

impl Process {
    fn new() -> Self {
        Self {
            memory: vec![0; 1 << 20],
            fds: BTreeMap::new(),
            events: BTreeMap::new(),
            pins: BTreeSet::new(),
        }
    }

    fn bytes(&mut self, addr: u64, len: usize) -> Result<&mut [u8], BadAddress> {
        let at = addr.checked_sub(MEMORY).and_then(|at| usize::try_from(at).ok());
        let at = at.ok_or(BadAddress)?;
        self.memory.get_mut(at..at.saturating_add(len)).ok_or(BadAddress)
    }
}

/// Where devices' DMA and interrupts end.
impl Platform for Process {
    fn dma_read(&mut self, at: Backing, data: &mut [u8]) -> Result<(), BadAddress> {
        data.copy_from_slice(self.bytes(at.vaddr, data.len())?);
        Ok(())
    }

    fn dma_write(&mut self, at: Backing, data: &[u8]) -> Result<(), BadAddress> {
        self.bytes(at.vaddr, data.len())?.copy_from_slice(data);
        Ok(())
    }

    fn signal(&mut self, event: EventId) {
        if let Ok(fd) = i32::try_from(event.0) {
            *self.events.entry(fd).or_default() += 1;
        }
    }

    fn put_event(&mut self, _event: EventId) {}
}

impl Pinner for Process {
    fn pin(&mut self, vaddr: u64, size: u64, _write: bool) -> Result<Pinned, PinError> {
        let len = usize::try_from(size).unwrap_or(usize::MAX);
        if self.bytes(vaddr, len).is_err() {
            return Err(PinError { vaddr, charged_pages: 0, why: PinFault::NotMapped });
        }
        let id = PinId(vaddr);
        self.pins.insert(id);
        Ok(Pinned { id, charged_pages: size / PAGE })
    }

    fn unpin(&mut self, pin: PinId) {
        self.pins.remove(&pin);
    }
}

impl Caller for Process {
    fn copy_in(&mut self, addr: u64, data: &mut [u8]) -> Result<(), BadAddress> {
        data.copy_from_slice(self.bytes(addr, data.len())?);
        Ok(())
    }

    fn copy_out(&mut self, addr: u64, data: &[u8]) -> Result<(), BadAddress> {
        self.bytes(addr, data.len())?.copy_from_slice(data);
        Ok(())
    }

    fn is_user_range(&self, addr: u64, size: u64) -> bool {
        addr.checked_add(size).is_some_and(|end| end <= 1 << 47)
    }

    fn mm(&self) -> MmId {
        MmId(1)
    }

    fn memlock_limit(&self) -> u64 {
        8 << 20
    }

    fn may_lock_memory(&self) -> bool {
        false
    }

    fn fd(&self, fd: i32) -> FdObject {
        if self.events.contains_key(&fd) {
            return FdObject::Other;
        }
        self.fds.get(&fd).copied().unwrap_or(FdObject::Closed)
    }

    fn get_event(&mut self, fd: i32) -> Result<EventId, BadEvent> {
        match self.fd(fd) {
            FdObject::Closed => Err(BadEvent::Closed),
            FdObject::Other => Ok(EventId(fd.unsigned_abs())),
            _ => Err(BadEvent::NotEventfd),
        }
    }

    fn event_pending(&self, event: EventId) -> bool {
        i32::try_from(event.0).is_ok_and(|fd| self.events.get(&fd).is_some_and(|n| *n != 0))
    }

    fn install_device_fd(&mut self, device: DeviceId) -> Result<i32, Errno> {
        let fd = (3..1024).find(|fd| self.fd(*fd) == FdObject::Closed).ok_or(Errno::EMFILE)?;
        self.fds.insert(fd, FdObject::Device(device));
        Ok(fd)
    }
}

/// A PC: VT-d, one group, an edu in it.
fn host() -> Host {
    let msi = IovaRange::new(0xfee0_0000, 0xfeef_ffff).expect("first <= last");
    let vt_d = Iommu {
        kind: "vt-d".into(),
        aperture: IovaRange::new(0, 0xffff_ffff_ffff).expect("first <= last"),
        page_sizes: PageSizes(0x4020_1000),
        write_only: true,
        msi: MsiPolicy::Implicit,
        msi_isolated: true,
        coherent: true,
        nests: false,
    };
    let apic =
        InterruptController { kind: "apic".into(), doorbell: 0xfee0_0000, dynamic_msix: true };
    let group = Group {
        number: 1,
        iommu: 0,
        controller: 0,
        devices: vec!["0000:00:03.0".into()],
        reserved: vec![ReservedRegion {
            range: msi,
            kind: ReservedKind::Msi,
            prot: Prot::WRITE,
            owner: "the MSI range of the APIC".into(),
        }],
    };
    Host {
        name: "a PC".into(),
        dialect: Dialect::default(),
        page_size: PAGE,
        iommus: vec![vt_d],
        controllers: vec![apic],
        groups: vec![group],
        limits: Limits::default(),
    }
}

/// The front end: the system and what it needs from outside.
struct FrontEnd {
    system: System,
    containers: ContainerTable,
    devices: DeviceTable,
    process: Process,
}

impl FrontEnd {
    fn new() -> Self {
        let bdf = Bdf::new(0, 0, 3, 0).expect("a device below 32, a function below 8");
        let function = PciFunction::new(bdf, GroupId(1), Edu::bars());
        let system = System::new(host(), vec![function]);
        Self {
            devices: DeviceTable::new(&system, vec![Box::new(Edu::new())]),
            system,
            containers: ContainerTable::default(),
            process: Process::new(),
        }
    }

    /// `open("/dev/vfio/vfio")`
    fn open_container(&mut self, fd: i32) -> ContainerId {
        let id = self.containers.open();
        self.process.fds.insert(fd, FdObject::Container(id));
        id
    }

    /// `open("/dev/vfio/N")`
    fn open_group(&mut self, fd: i32, number: u32) -> Result<(), Refusal> {
        self.system.open_group(GroupId(number))?;
        self.process.fds.insert(fd, FdObject::Group(GroupId(number)));
        Ok(())
    }

    /// `ioctl(fd, request, arg)`: dispatched by what the descriptor is.
    fn ioctl(&mut self, fd: i32, request: u32, arg: u64) -> Result<i64, Errno> {
        let object = self.process.fd(fd);
        let mut ctx = Ctx {
            caller: &mut self.process,
            containers: &mut self.containers,
            devices: &mut self.devices,
        };
        let answer = match object {
            FdObject::Container(id) => self.system.container_ioctl(id, &mut ctx, request, arg),
            FdObject::Group(id) => self.system.group_ioctl(id, &mut ctx, request, arg),
            FdObject::Device(id) => self.system.device_ioctl(id, &mut ctx, request, arg),
            FdObject::Closed | FdObject::Other => return Err(Errno::EBADF),
        };
        answer.map_err(|refusal| {
            let errno = refusal.errno(&self.system.shared().host.dialect);
            println!("  refused with {errno}: {refusal}");
            errno
        })
    }

    /// The same with a structure: the client puts it into its memory.
    fn ioctl_with(&mut self, fd: i32, request: u32, arg: &[u8]) -> Result<i64, Errno> {
        self.process.memory[..arg.len()].copy_from_slice(arg);
        self.ioctl(fd, request, MEMORY)
    }

    /// `pwrite(fd, data, offset)` on a device.
    fn pwrite(&mut self, fd: i32, data: &[u8], offset: u64) {
        let FdObject::Device(id) = self.process.fd(fd) else { return };
        let Some(device) = self.devices.get_mut(id) else { return };
        let mut up = Upstream { containers: &mut self.containers, platform: &mut self.process };
        let written = device.write(&mut up, offset, data);
        assert_eq!(written, Ok(data.len()));
    }
}

fn main() -> Result<(), Errno> {
    let mut front = FrontEnd::new();

    println!("a container, a group in it, an IOMMU");
    let (container, group, event) = (3, 4, 9);
    front.open_container(container);
    front.open_group(group, 1).map_err(|r| r.errno(&Dialect::default()))?;
    front.ioctl_with(group, VFIO_GROUP_SET_CONTAINER, &container.to_ne_bytes())?;
    front.ioctl(container, VFIO_SET_IOMMU, 3)?;

    println!("memory for the device, at IOVA 0x100000");
    let mut map = DmaMap {
        argsz: DmaMap::MIN_ARGSZ,
        flags: (MapFlags::READ | MapFlags::WRITE).bits(),
        vaddr: MEMORY + 0x8_0000,
        iova: 0x10_0000,
        size: PAGE,
    };
    front.ioctl_with(container, VFIO_IOMMU_MAP_DMA, map.as_bytes())?;

    println!("where mappings may not be");
    map.iova = 0xfee0_0000;
    let refused = front.ioctl_with(container, VFIO_IOMMU_MAP_DMA, map.as_bytes());
    assert_eq!(refused, Err(Errno::EINVAL));

    println!("the device, and an eventfd for its MSI");
    let fd = front.ioctl_with(group, VFIO_GROUP_GET_DEVICE_FD, b"0000:00:03.0\0")?;
    let device = i32::try_from(fd).unwrap_or(-1);
    front.process.events.insert(event, 0);
    let irqs = IrqSet {
        argsz: IrqSet::MIN_ARGSZ + 4,
        flags: (IrqSetFlags::DATA_EVENTFD | IrqSetFlags::ACTION_TRIGGER).bits(),
        index: 1,
        start: 0,
        count: 1,
    };
    let arg = [irqs.as_bytes(), &event.to_ne_bytes()].concat();
    front.ioctl_with(device, VFIO_DEVICE_SET_IRQS, &arg)?;

    println!("the device copies 16 bytes from IOVA 0x100000 to 0x100800, and says so by MSI");
    front.process.memory[0x8_0000..0x8_0010].copy_from_slice(b"through the iova");
    let command = region_offset(RegionIndex::Config.number()) + 4;
    front.pwrite(device, &[6, 0], command); // decode memory, master the bus
    for (source, destination, start) in [(0x10_0000_u64, 0x4_0000, 1_u64), (0x4_0000, 0x10_0800, 7)]
    {
        let registers = [(0x80, source), (0x88, destination), (0x90, 16), (0x98, start)];
        for (register, value) in registers {
            front.pwrite(device, &value.to_le_bytes(), register);
        }
    }
    assert_eq!(&front.process.memory[0x8_0800..0x8_0810], b"through the iova");
    assert_eq!(front.process.events[&event], 1);
    println!("  the bytes are there, the eventfd was signalled once");
    Ok(())
}
