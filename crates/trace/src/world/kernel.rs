//! System calls of the process, carried to VFIO: descriptors become objects, refusals errnos.

use devices::{Constant, Edu, MsiTest, Shape};
use pci::{Bdf, ConfigSize, ConfigSpace};
use uapi::Errno;
use vfio::device::{Device, DeviceRefusal, IntxLine, Mmio, PciFunction, Upstream};
use vfio::{ContainerTable, Ctx, DeviceId, DeviceTable, Driver, GroupId, Refusal};

use super::{DRIVERS, World};
use crate::machine::{DeviceSpec, Intx};
use crate::ops::{Failure, Stop, Sys};
use crate::process::{Access, File, Process};

/// Vendor and device of `edu`, as configuration space has them.
const EDU: [u8; 4] = [0x34, 0x12, 0xe8, 0x11];

/// The same of the MSI test device.
const MSI_TEST: [u8; 4] = [0x34, 0x12, 0xe9, 0x11];

/// Positions of a device's file are a region's index above, an offset below.
const REGION_SHIFT: u32 = 40;

/// In place of an address that is none; the header was read with its addresses checked.
const NOWHERE: Bdf = match Bdf::new(0, 0, 0, 0) {
    Some(bdf) => bdf,
    None => panic!("0000:00:00.0 is an address"),
};

/// How often a device may ask to go on before it has to wait for the next request.
const MAX_ROUNDS: u32 = 1000;

/// What the kernel knows of a device.
pub(crate) fn function(device: &DeviceSpec) -> PciFunction {
    let bdf = device.bdf.parse().unwrap_or(NOWHERE);
    let line = match device.intx {
        Intx::None => IntxLine::None,
        Intx::Level => IntxLine::Level,
        Intx::Rise => IntxLine::Rise,
    };
    let function = PciFunction::new(bdf, GroupId(device.group), device.bars)
        .with_reset_methods(device.reset_method.as_deref().unwrap_or_default());
    PciFunction { line, link_comes_back: device.link_comes_back, ..function }
}

/// The device itself.
pub(super) fn model(device: &DeviceSpec) -> Box<dyn pci::Device> {
    let size = device.config_size;
    if device.config.starts_with(&EDU) {
        let size = ConfigSize::of(size);
        return Box::new(Edu::with_config(ConfigSpace::from_bytes(
            &device.config,
            size,
            &device.bars,
        )));
    }
    if device.config.starts_with(&MSI_TEST) {
        let size = ConfigSize::of(size);
        let config = ConfigSpace::from_bytes(&device.config, size, &device.bars);
        return Box::new(MsiTest::with_config(config));
    }
    let constant = |(bar, offset, bytes): &(u8, u64, Vec<u8>)| Constant {
        bar: *bar,
        offset: *offset,
        bytes: bytes.clone(),
    };
    let constants = device.constants.iter().map(constant).collect();
    Box::new(Shape::new(&device.config, size, &device.bars, device.rom.clone(), constants))
}

/// The places a request may need.
fn ctx<'a>(
    process: &'a mut Process,
    containers: &'a mut ContainerTable,
    devices: &'a mut DeviceTable,
) -> Ctx<'a> {
    Ctx { caller: process, containers, devices }
}

impl World {
    fn refused(&self, refusal: &Refusal) -> Failure {
        let errno = refusal.errno(&self.system.shared().host.dialect);
        Failure {
            refusal: Some(Box::new(refusal.clone())),
            ..Failure::new(errno, refusal.to_string())
        }
    }

    /// Opens `/dev/vfio/vfio`.
    pub(crate) fn open_container(&mut self) -> Sys<i32> {
        self.has_room()?;
        let id = self.containers.open();
        self.process.open(File::Container(id)).map_err(full)
    }

    /// Opens `/dev/vfio/N`.
    pub(crate) fn open_group(&mut self, group: u32) -> Sys<i32> {
        self.has_room()?;
        let id = GroupId(group);
        if let Err(refusal) = self.system.open_group(id) {
            return Err(self.refused(&refusal));
        }
        self.process.open(File::Group(id)).map_err(full)
    }

    fn has_room(&self) -> Sys<()> {
        if self.process.has_fd_room() { Ok(()) } else { Err(full(Errno::EMFILE)) }
    }

    /// `close`.
    pub(crate) fn close(&mut self, fd: i32) -> Sys<()> {
        self.process.close(fd).map_err(|errno| closed(errno, fd))?;
        self.close_released();
        Ok(())
    }

    /// Closes what a slot held, if anything.
    pub(crate) fn close_old(&mut self, fd: i32) {
        if fd >= 0 {
            let _ = self.close(fd);
        }
    }

    /// Tells VFIO of files whose last reference has gone.
    pub(crate) fn close_released(&mut self) {
        for file in self.process.take_released() {
            let container = self.container_at(file);
            let mut ctx = ctx(&mut self.process, &mut self.containers, &mut self.table);
            match file {
                File::Container(id) => self.containers.close(id),
                File::Group(id) => self.system.close_group(id, &mut ctx),
                File::Device(id) => self.system.close_device(id, &mut ctx),
                File::Event(event) => {
                    for id in self.table.watching(event) {
                        if let Some(device) = self.table.get_mut(id) {
                            device.event_closed(&mut self.process, event);
                        }
                    }
                }
                File::Other => {}
            }
            self.containers.drop_dead();
            self.tell(container);
        }
    }

    /// A request on a descriptor.
    pub(crate) fn ioctl(&mut self, fd: i32, request: u32, arg: u64) -> Sys {
        let file = self.process.file(fd).ok_or_else(|| closed(Errno::EBADF, fd))?;
        let container = self.container_at(file);
        let mut ctx = ctx(&mut self.process, &mut self.containers, &mut self.table);
        let answer = match file {
            File::Container(id) => self.system.container_ioctl(id, &mut ctx, request, arg),
            File::Group(id) => self.system.group_ioctl(id, &mut ctx, request, arg),
            File::Device(id) => self.system.device_ioctl(id, &mut ctx, request, arg),
            File::Event(_) | File::Other => {
                return Err(Failure::new(Errno::ENOTTY, "the descriptor is none of VFIO's"));
            }
        };
        self.tell(container);
        answer.map_err(|refusal| self.refused(&refusal))
    }

    /// Runs `f` on a device and what lies upstream of it.
    fn on_device<R>(
        &mut self,
        id: DeviceId,
        f: impl FnOnce(&mut Device, &mut Upstream<'_>) -> Result<R, DeviceRefusal>,
    ) -> Result<R, DeviceRefusal> {
        let device = self.table.get_mut(id).ok_or(DeviceRefusal::NotThere)?;
        f(device, &mut Upstream { containers: &mut self.containers, platform: &mut self.process })
    }

    /// The device behind a descriptor that is to be read or written at a position.
    fn positioned(&self, fd: i32, at: u64) -> Sys<DeviceId> {
        // Looked at before the descriptor is.
        if i64::try_from(at).is_err() {
            return Err(Failure::new(Errno::EINVAL, "the position is negative"));
        }
        match self.process.file(fd) {
            None => Err(closed(Errno::EBADF, fd)),
            Some(File::Device(id)) => Ok(id),
            Some(_) => Err(Failure::new(Errno::EINVAL, "the descriptor is no device")),
        }
    }

    /// `pread`.
    pub(crate) fn pread(&mut self, fd: i32, at: u64, data: &mut [u8]) -> Sys {
        let id = self.positioned(fd, at)?;
        let answer = self.on_device(id, |device, up| device.read(up, at, data));
        answer.map(count).map_err(|refusal| self.refused(&refusal.into()))
    }

    /// `pwrite`.
    pub(crate) fn pwrite(&mut self, fd: i32, at: u64, data: &[u8]) -> Sys {
        let id = self.positioned(fd, at)?;
        let answer = self.on_device(id, |device, up| device.write(up, at, data));
        answer.map(count).map_err(|refusal| self.refused(&refusal.into()))
    }

    /// The process reads or writes a device's registers through a mapping.
    pub(crate) fn touch_region(
        &mut self,
        id: DeviceId,
        position: u64,
        data: &mut [u8],
        write: bool,
    ) -> Result<(), Stop> {
        let access = if write { Mmio::Write(data) } else { Mmio::Read(data) };
        self.mmio(id, position, access).map_err(|_| Stop::Killed("SIGBUS"))
    }

    /// An access to the BAR that a position of a device's file lies in.
    fn mmio(&mut self, id: DeviceId, position: u64, access: Mmio<'_>) -> Result<(), DeviceRefusal> {
        let bar = match position >> REGION_SHIFT {
            region if region == self.bar0_base >> REGION_SHIFT => 0,
            region => u8::try_from(region).unwrap_or(u8::MAX),
        };
        let offset = position & ((1 << REGION_SHIFT) - 1);
        self.on_device(id, |device, up| device.mmio(up, bar, offset, access))
    }

    /// `mmap(MAP_SHARED | MAP_FIXED)` of a device's descriptor.
    pub(crate) fn mmap_region(
        &mut self,
        at: u64,
        size: u64,
        access: Access,
        fd: i32,
        offset: u64,
    ) -> Sys<()> {
        let page = self.process.page();
        let refuse = |errno, why| Err(Failure::new(errno, why));
        if !offset.is_multiple_of(page) {
            return refuse(Errno::EINVAL, "the offset is no multiple of a page");
        }
        if self.process.file(fd).is_none() {
            return Err(closed(Errno::EBADF, fd));
        }
        if size == 0 {
            return refuse(Errno::EINVAL, "size is 0");
        }
        if offset.checked_add(size).is_none_or(|end| i64::try_from(end).is_err()) {
            return refuse(Errno::EOVERFLOW, "the range goes beyond 2^63");
        }
        let id = self.positioned(fd, offset)?;
        let size = size.next_multiple_of(page);
        let mapped = self.on_device(id, |device, _| device.mmap(offset, size, true));
        if let Err(refusal) = mapped {
            // What was there has made room already.
            let _ = self.process.unmap_memory(at, size);
            return Err(self.refused(&refusal.into()));
        }
        self.regions.insert(id);
        let mapped = self.process.map_region(at, size, access, fd, offset);
        mapped.map_err(|errno| Failure::new(errno, "there is no room at that address"))
    }

    /// Lets the process know which devices decode memory: pins of their BARs depend on it.
    pub(crate) fn note_decoding(&mut self) {
        for id in self.regions.iter().copied() {
            let on = self.table.get(id).is_some_and(Device::decodes_memory);
            self.process.set_decoding(id, on);
        }
    }

    /// Lets every device finish what it does on its own.
    pub(crate) fn run_devices(&mut self) {
        for id in (0..).map(DeviceId).take(self.devices.len()) {
            let _ = self.on_device(id, |device, up| {
                (0..=MAX_ROUNDS).any(|_| !device.run(up));
                Ok(())
            });
        }
    }

    /// Tells devices of the eventfds they watch, which a signal reads back to 0.
    pub(crate) fn deliver_events(&mut self) {
        for _ in 0..MAX_ROUNDS {
            let signalled = self.process.take_signalled();
            let mut delivered = false;
            for event in signalled {
                let watchers = self.table.watching(event);
                if !watchers.is_empty() {
                    self.process.read_back(event);
                    delivered = true;
                }
                for id in watchers {
                    let _ = self.on_device(id, |device, up| {
                        device.event_fired(up, event);
                        Ok(())
                    });
                }
            }
            if !delivered {
                return;
            }
        }
    }

    /// Writes a device's address to the PCI bus' `drivers_probe` after naming a driver for it.
    pub(crate) fn bind(&mut self, device: usize, driver: &str) -> Sys<()> {
        self.needs_root()?;
        // A driver that the machine does not have binds nothing, which is no error.
        if driver != "vfio-pci" && !DRIVERS.contains(&driver) {
            return Ok(());
        }
        let id = device_id(device);
        let bound = self.system.bind(id, Driver::named(driver));
        bound.map_err(|refusal| self.refused(&refusal))
    }

    /// Writes a device's address to its driver's `unbind`.
    pub(crate) fn unbind(&mut self, device: usize) -> Sys<()> {
        let id = device_id(device);
        if self.system.driver(id).is_none_or(|d| *d == Driver::None) {
            return Err(Failure::new(Errno::ENOENT, "the device has no driver"));
        }
        self.needs_root()?;
        self.system.unbind(id);
        Ok(())
    }

    /// The host takes a device back, whoever the process is: its user is asked to let go of it.
    pub(crate) fn remove(&mut self, device: usize) {
        let mut ctx = ctx(&mut self.process, &mut self.containers, &mut self.table);
        self.system.remove_device(device_id(device), &mut ctx);
        self.containers.drop_dead();
    }

    fn needs_root(&self) -> Sys<()> {
        if self.process.is_root() {
            return Ok(());
        }
        Err(Failure::new(Errno::EACCES, "only root may write to sysfs"))
    }
}

/// How many bytes a transfer moved.
fn count(bytes: usize) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

fn device_id(place: usize) -> DeviceId {
    DeviceId(u32::try_from(place).unwrap_or(u32::MAX))
}

fn closed(errno: Errno, fd: i32) -> Failure {
    Failure::new(errno, format!("descriptor {fd} is not open"))
}

fn full(errno: Errno) -> Failure {
    Failure::new(errno, "too many open files")
}
