//! Bytes as requests on container, group and device descriptors.

mod args;
mod machine;

use iommu::{Dialect, IovaRange};
use uapi::ioctl::{self, RequestKind};
use vfio::device::{DeviceRefusal, Mmio};
use vfio::{Answer, DeviceId, Driver, FdObject, GroupId, Refusal, Version};

use crate::Input;
use crate::client::{ARGS, ARGS_SIZE, CONSTANT, LIMIT};
use machine::Machine;

/// Requests of one process at most.
const MAX_OPS: usize = 120;

/// Runs one process; panics when an invariant does not hold.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let start = input.u8();
    let mut machine = Machine::new(Dialect::ALL[usize::from(start & 3) % Dialect::ALL.len()]);
    if start & 4 == 0 {
        set_up(&mut machine, if start & 8 == 0 { 3 } else { 1 });
    }
    for _ in 0..MAX_OPS {
        if input.is_empty() {
            break;
        }
        step(&mut machine, &mut input);
        machine.check();
    }
    machine.end();
}

/// What every program does first: a container, two groups, their devices, an IOMMU.
fn set_up(machine: &mut Machine, iommu: u64) {
    open_container(machine);
    for group in [1, 2] {
        open_group(machine, group);
    }
    for group in [1, 2] {
        machine.client.args[..4].copy_from_slice(&3i32.to_ne_bytes());
        let answer = machine.with(|system, ctx| {
            system.group_ioctl(GroupId(group), ctx, ioctl::VFIO_GROUP_SET_CONTAINER, ARGS)
        });
        assert!(answer.is_ok(), "{answer:?}");
    }
    assert_eq!(request(machine, 3, ioctl::VFIO_SET_IOMMU, iommu), Some(Ok(0)));
    for (fd, name) in [(4, b"0000:00:03.0\0"), (5, b"0000:00:04.0\0")] {
        machine.client.args[..name.len()].copy_from_slice(name);
        let answer = request(machine, fd, ioctl::VFIO_GROUP_GET_DEVICE_FD, ARGS);
        assert!(matches!(answer, Some(Ok(_))), "{answer:?}");
    }
}

fn step(machine: &mut Machine, input: &mut Input<'_>) {
    match input.u8() % 26 {
        0 => open_container(machine),
        1 => open_group(machine, u32::from(input.u8() % 8)),
        2 => {
            let fd = descriptor(machine, input);
            machine.close(fd);
        }
        3..=9 => {
            let fd = descriptor(machine, input);
            args::dma(machine, input);
            typed_request(machine, input, fd);
        }
        10..=13 => {
            let fd = descriptor(machine, input);
            args::of_device(machine, input);
            typed_request(machine, input, fd);
        }
        14 => any_request(machine, input),
        15 | 16 => {
            let fd = descriptor(machine, input);
            read(machine, input, fd);
        }
        17..=19 => {
            let fd = descriptor(machine, input);
            write(machine, input, fd);
        }
        20 => dma_of_edu(machine, input),
        21 => run_devices(machine, input),
        22 => set_limits(machine, input),
        23 => administer(machine, input),
        24 => mmio(machine, input),
        _ => {
            let fd = descriptor(machine, input);
            args::of_group(machine, input);
            typed_request(machine, input, fd);
        }
    }
}

fn open_container(machine: &mut Machine) {
    if let Some(fd) = machine.client.free_fd() {
        let id = machine.containers.open();
        machine.client.fds.insert(fd, FdObject::Container(id));
    }
}

fn open_group(machine: &mut Machine, group: u32) {
    let Some(fd) = machine.client.free_fd() else { return };
    if machine.system.open_group(GroupId(group)).is_ok() {
        machine.client.fds.insert(fd, FdObject::Group(GroupId(group)));
    }
}

/// One of the open descriptors.
fn descriptor(machine: &Machine, input: &mut Input<'_>) -> i32 {
    let fds: Vec<i32> = machine.client.fds.keys().copied().collect();
    let choice = usize::from(input.u8());
    if fds.is_empty() { -1 } else { fds[choice % fds.len()] }
}

/// A request on a descriptor, whatever it is; `None` for one that is not open.
fn request(machine: &mut Machine, fd: i32, number: u32, arg: u64) -> Option<Answer> {
    let object = *machine.client.fds.get(&fd)?;
    let answer = machine.with(|system, ctx| match object {
        FdObject::Container(id) => Some(system.container_ioctl(id, ctx, number, arg)),
        FdObject::Group(id) => Some(system.group_ioctl(id, ctx, number, arg)),
        FdObject::Device(id) => Some(system.device_ioctl(id, ctx, number, arg)),
        FdObject::Closed | FdObject::Other => None,
    });
    if let Some(Err(refusal)) = &answer {
        check_refusal(machine, refusal);
    }
    answer
}

/// Every refusal has an errno and a sentence.
fn check_refusal(machine: &Machine, refusal: &Refusal) {
    let errno = refusal.errno(&machine.system.shared().host.dialect);
    assert!(errno.number() > 0 && !refusal.to_string().is_empty());
}

/// A request the descriptor knows, its argument already at [`ARGS`], sometimes spoilt.
fn typed_request(machine: &mut Machine, input: &mut Input<'_>, fd: i32) {
    let kind = match machine.client.fds.get(&fd) {
        Some(FdObject::Container(_)) => RequestKind::Container,
        Some(FdObject::Group(_)) => RequestKind::Group,
        _ => RequestKind::Device,
    };
    let (_, number) = input.pick(kind.requests());
    let arg = match input.u8() {
        byte @ 0..8 => u64::from(byte),
        // The structure ends where memory does.
        byte @ 8..40 => {
            let room = usize::from(byte);
            machine.client.args.copy_within(..room, ARGS_SIZE - room);
            ARGS + (ARGS_SIZE - room) as u64
        }
        40 => CONSTANT,
        41 => input.u64(),
        42 => LIMIT - 8,
        43 => u64::MAX - u64::from(input.u8()),
        44..60 => {
            let at = usize::from(input.u8()) % 64;
            machine.client.args[at] ^= input.u8();
            ARGS
        }
        _ => ARGS,
    };
    let before = (arg == ARGS).then(|| unmap_of(machine, fd, number)).flatten();
    let answer = request(machine, fd, number, arg);
    if let (Some(unmap), Some(Ok(_))) = (before, answer) {
        unmap.check(machine);
    }
}

/// Any number, any argument.
fn any_request(machine: &mut Machine, input: &mut Input<'_>) {
    let fd = descriptor(machine, input);
    let (number, arg) = (input.u32(), input.u64());
    let bytes = input.bytes(64);
    machine.client.args[..bytes.len()].copy_from_slice(bytes);
    let number = if number & 1 == 0 { number } else { 0x3b64 + (number >> 1 & 0x1f) };
    request(machine, fd, number, if arg & 1 == 0 { ARGS } else { arg });
}

/// An unmap of a version 2 container, which takes a whole range or nothing.
struct Unmap {
    container: vfio::ContainerId,
    range: IovaRange,
}

fn unmap_of(machine: &Machine, fd: i32, number: u32) -> Option<Unmap> {
    let Some(FdObject::Container(container)) = machine.client.fds.get(&fd).copied() else {
        return None;
    };
    let v2 = machine.containers.get(container)?.type1()?.version() == Version::V2;
    let unmap: uapi::type1::DmaUnmap = uapi::read_prefix(&machine.client.args)?;
    let plain = unmap.flags == 0 && number == ioctl::VFIO_IOMMU_UNMAP_DMA;
    let range = IovaRange::sized(unmap.iova, unmap.size)?;
    // Older kernels take the end of the space for nothing.
    let seen = range.last() != u64::MAX;
    (v2 && plain && seen).then_some(Unmap { container, range })
}

impl Unmap {
    fn check(&self, machine: &Machine) {
        assert!(!machine.reaches(self.container, self.range), "{} stays mapped", self.range);
    }
}

/// An offset in a device's file: near an edge of a region, or anything.
fn offset(input: &mut Input<'_>) -> u64 {
    let region = u32::from(input.u8() % 11);
    let within = match input.u8() {
        byte @ 0..128 => u64::from(byte) * 4,
        byte @ 128..192 => (1u64 << (byte & 63)).wrapping_sub(u64::from(input.u8() & 7)),
        _ => u64::from(input.u16()),
    };
    if region == 10 {
        input.u64()
    } else {
        uapi::region::region_offset(region).wrapping_add(within)
    }
}

fn read(machine: &mut Machine, input: &mut Input<'_>, fd: i32) {
    let Some(device) = machine.device(fd) else { return };
    let (offset, mut data) = (offset(input), vec![0; usize::from(input.u8() % 20)]);
    let room = data.len();
    let read = machine.on_device(device, |d, up| d.read(up, offset, &mut data));
    check_moved(machine, read, room);
}

fn write(machine: &mut Machine, input: &mut Input<'_>, fd: i32) {
    let Some(device) = machine.device(fd) else { return };
    let offset = offset(input);
    let len = usize::from(input.u8() % 20);
    let data = input.bytes(len);
    let written = machine.on_device(device, |d, up| d.write(up, offset, data));
    check_moved(machine, written, data.len());
}

/// No more bytes than there are, or a refusal in order.
fn check_moved(machine: &Machine, moved: Result<usize, DeviceRefusal>, room: usize) {
    match moved {
        Ok(bytes) => assert!(bytes <= room),
        Err(refusal) => check_refusal(machine, &refusal.into()),
    }
}

/// One transfer of an edu, its addresses where something is mapped.
fn dma_of_edu(machine: &mut Machine, input: &mut Input<'_>) {
    let fd = descriptor(machine, input);
    let Some(device) = machine.device(fd) else { return };
    let iova = input.near(&machine.landmarks(), 0x1000);
    let inside = 0x4_0000 + u64::from(input.u16() & 0x1fff);
    let command = u64::from(input.u8());
    let (source, destination) = if command & 2 == 0 { (iova, inside) } else { (inside, iova) };
    let count = u64::from(input.u16());
    let registers = [(0x80, source), (0x88, destination), (0x90, count), (0x98, command | 1)];
    // The command register: decode memory, master the bus.
    let config = uapi::region::region_offset(7) + 4;
    let _ = machine.on_device(device, |d, up| {
        let _ = d.write(up, config, &[6, 0]);
        for (at, value) in registers {
            let _ = d.write(up, at, &value.to_le_bytes());
        }
        Ok(())
    });
}

/// Devices go on by themselves; eventfds they watch fire, or are closed; somebody maps a BAR.
fn run_devices(machine: &mut Machine, input: &mut Input<'_>) {
    let fd = descriptor(machine, input);
    let Some(device) = machine.device(fd) else { return };
    let (at, len, closed) = (offset(input), input.scaled(), input.u8() & 3 == 0);
    let _ = machine.on_device(device, |d, up| {
        d.run(up);
        for event in d.watched_events().collect::<Vec<_>>() {
            if closed {
                d.event_closed(up.platform, event);
            } else {
                d.event_fired(up, event);
            }
        }
        let part = d.mmap(at, len, true)?;
        let pages = d.function().bar(part.bar).map_or(0, |bar| bar.size.next_multiple_of(0x1000));
        assert!(part.range.end <= pages, "a mapping beyond BAR {}", part.bar);
        Ok(())
    });
}

/// An access of the process to a BAR that it mapped.
fn mmio(machine: &mut Machine, input: &mut Input<'_>) {
    let fd = descriptor(machine, input);
    let Some(device) = machine.device(fd) else { return };
    let (bar, size) = (input.u8() % 7, input.pick(&[4, 8, 1, 2]));
    let at = (u64::from(input.u16()) << (input.u8() & 3)) & !(size as u64 - 1);
    let mut data = [0; 8];
    data.copy_from_slice(&input.u64().to_le_bytes());
    let write = input.u8() & 1 == 0;
    let _ = machine.on_device(device, |d, up| {
        let decodes = d.decodes_memory();
        let access = if write { Mmio::Write(&data[..size]) } else { Mmio::Read(&mut data[..size]) };
        let answer = d.mmio(up, bar, at, access);
        assert!(answer.is_err() || decodes, "a BAR answers that does not decode");
        answer
    });
}

/// The administrator binds and unbinds devices that nobody has open.
fn administer(machine: &mut Machine, input: &mut Input<'_>) {
    let device = DeviceId(u32::from(input.u8() % 4));
    if machine.devices.get(device).is_none_or(|d| d.is_open()) {
        return;
    }
    machine.system.unbind(device);
    let driver = input.pick(&["vfio-pci", "vfio-pci", "nvme", "pci-stub", ""]);
    // Refused where a user has the group.
    let _ = machine.system.bind(device, Driver::named(driver));
}

fn set_limits(machine: &mut Machine, input: &mut Input<'_>) {
    machine.client.memlock = input.pick(&[8 << 20, 0, 0x1fff, u64::MAX]);
    machine.client.may_lock = input.u8() & 1 == 0;
    let limits = &mut machine.system.shared_mut().limits;
    limits.dma_entry_limit = input.pick(&[24, 1, 0, 65535]);
    limits.allow_unsafe_interrupts = input.u8() & 1 == 0;
}
