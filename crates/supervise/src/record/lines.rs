//! A request as lines of a trace.

use iommu::{MapRefusal, PinFault};
use serde_json::{Map, Value, json};
use uapi::irq::{IrqSet, IrqSetFlags};
use uapi::parse::{read_padded, read_prefix};
use uapi::type1::{Bitmap, DirtyFlags, DirtyPages, DmaMap, DmaUnmap, UnmapFlags};
use uapi::{Errno, ioctl};
use vfio::device::{DeviceRefusal, IrqRefusal};
use vfio::{BadEvent, ContainerId, DeviceId, GroupId, Refusal};

use super::args::{Structure, hex};
use super::memory::Memory;
use super::slots::Slots;
use crate::session::Placed;
use crate::watch::{Call, Piece, Request, Target, bytes_at};

/// Bytes that a trace reads of a region at a time.
const MOST_READ: usize = 8192;
/// The configuration space, among the regions.
const CONFIG: u64 = 7;
/// Bytes of a region in a device's file.
const REGION: u64 = 1 << 40;
/// Interrupts that one line has.
const MOST_FDS: usize = 1100;

/// Why there is no line: a sentence.
type Note = &'static str;

/// Turns requests into lines.
pub(super) struct Lines {
    /// The devices' names in the header, by [`DeviceId`], and their groups.
    devices: Vec<(String, GroupId)>,
    /// Their addresses.
    addresses: Vec<String>,
    slots: Slots,
    writable: Memory,
    readable: Memory,
    hole: Memory,
    out: Vec<Value>,
}

/// An ioctl's parts.
#[derive(Clone, Copy)]
struct Ioctl<'a> {
    request: u32,
    arg: u64,
    read: &'a [Piece],
    written: &'a [Piece],
}

impl Lines {
    pub(super) fn new(placed: &Placed) -> Self {
        let names = match placed.profile.header.get("devices") {
            Some(Value::Object(devices)) => devices.keys().cloned().collect(),
            _ => Vec::new(),
        };
        let groups = placed.devices.iter().map(|device| GroupId(device.group));
        Self {
            devices: names.into_iter().zip(groups).collect(),
            addresses: placed.devices.iter().map(|device| device.name.clone()).collect(),
            slots: Slots::default(),
            writable: Memory::WRITABLE,
            readable: Memory::READABLE,
            hole: Memory::HOLE,
            out: Vec::new(),
        }
    }

    /// The lines of a request. `joined` is the group that it moved.
    pub(super) fn of(
        &mut self,
        request: &Request,
        joined: Option<(GroupId, Option<ContainerId>)>,
    ) -> Vec<Value> {
        let done = match &request.call {
            Call::Open => self.open(request),
            Call::Close => self.close(request.target),
            Call::Ioctl { request: number, arg, read, written } => {
                let ioctl = Ioctl { request: *number, arg: *arg, read, written };
                match request.target {
                    Target::Container(id) => self.container(id, request, ioctl),
                    Target::Group(id) => self.group(id, request, ioctl, joined),
                    Target::Device(id) => self.device(id, request, ioctl),
                }
            }
            Call::Read { offset, count, data } => {
                self.region(request, *offset, *count, Some(data), &[])
            }
            Call::Write { offset, data } => self.region(request, *offset, data.len(), None, data),
            Call::Map { offset, len, shared } => self.map(request, *offset, *len, *shared),
        };
        if let Err(why) = done {
            let text = format!("request {} ({:?}): {why}", request.number, request.target);
            self.out.push(json!({ "note": text }));
        }
        std::mem::take(&mut self.out)
    }

    fn put(&mut self, op: &str, members: Value, want: Option<Value>) {
        let mut line = Map::new();
        line.insert("op".into(), op.into());
        if let Value::Object(members) = members {
            line.extend(members);
        }
        if let Some(want) = want {
            line.insert("want".into(), want);
        }
        self.out.push(Value::Object(line));
    }

    /// The place of a container. One may be met first as a group joins it.
    fn container_slot(&mut self, id: ContainerId) -> Result<usize, Note> {
        if let Some(at) = self.slots.containers.of(&id) {
            return Ok(at);
        }
        let at =
            self.slots.containers.put(id).ok_or("more containers are open than a trace has")?;
        self.put("open_container", json!({ "c": at }), Some(json!({"ret": 0})));
        Ok(at)
    }

    fn open(&mut self, request: &Request) -> Result<(), Note> {
        match request.target {
            Target::Container(id) => self.container_slot(id).map(drop),
            Target::Group(id) => {
                let full = "more groups are open than a trace has";
                let at = match request.answer {
                    Ok(_) => self.slots.groups.put(id),
                    Err(_) => self.slots.groups.free(),
                };
                let at = at.ok_or(full)?;
                let of = self.devices.iter().find(|(_, group)| *group == id);
                let (name, _) = of.ok_or("the group has no device")?;
                let members = json!({"g": at, "dev": name});
                self.put("open_group", members, Some(opened(request.answer)));
                Ok(())
            }
            // GET_DEVICE_FD opens it.
            Target::Device(_) => Ok(()),
        }
    }

    fn close(&mut self, target: Target) -> Result<(), Note> {
        let (kind, at) = match target {
            Target::Container(id) => ('c', self.slots.containers.take(&id)),
            Target::Group(id) => ('g', self.slots.groups.take(&id)),
            Target::Device(id) => ('d', self.slots.devices.take(&id)),
        };
        let at = at.ok_or("what was closed was never seen open")?;
        self.put("close", json!({"fd": format!("{kind}{at}")}), Some(json!({"ret": 0})));
        Ok(())
    }

    /// An ioctl without addresses in its structure.
    fn plain(
        &mut self,
        fd: String,
        request: &Request,
        ioctl: Ioctl<'_>,
        fds: &[(String, u64)],
    ) -> Result<(), Note> {
        let mut members = json!({"fd": fd, "cmd": format!("{:#x}", ioctl.request)});
        let mut put = |name: &str, value: Value| {
            if let Value::Object(members) = &mut members {
                members.insert(name.into(), value);
            }
        };
        let mut want = want(request.answer);
        let by_value = matches!(
            ioctl.request,
            ioctl::VFIO_GET_API_VERSION
                | ioctl::VFIO_CHECK_EXTENSION
                | ioctl::VFIO_SET_IOMMU
                | ioctl::VFIO_GROUP_UNSET_CONTAINER
                | ioctl::VFIO_DEVICE_RESET
        );
        if by_value || ioctl.read.is_empty() {
            // What nothing is read from is nobody's address.
            put("value", json!(if by_value { hex_number(ioctl.arg) } else { "0".into() }));
        } else {
            let structure = Structure::of(ioctl.arg, ioctl.read, ioctl.written)
                .ok_or("its structure is longer than a trace has")?;
            if structure.short {
                return Err("its structure could not be read as a whole");
            }
            put("data", hex(&structure.before).into());
            put("out", structure.after.len().into());
            if let Some((_, at)) = fds.first() {
                put("fds", fds.iter().map(|(word, _)| word.clone()).collect());
                put("fds_at", json!(at));
            }
            want.insert("data".into(), hex(&structure.after).into());
        }
        self.put("ioctl", members, Some(Value::Object(want)));
        Ok(())
    }

    fn container(
        &mut self,
        id: ContainerId,
        request: &Request,
        ioctl: Ioctl<'_>,
    ) -> Result<(), Note> {
        let at = self.container_slot(id)?;
        match ioctl.request {
            ioctl::VFIO_IOMMU_MAP_DMA => self.map_dma(at, request, ioctl),
            ioctl::VFIO_IOMMU_UNMAP_DMA => {
                let unmap: DmaUnmap = read_padded(&bytes_at(ioctl.read, ioctl.arg, 24));
                if unmap.flags & UnmapFlags::GET_DIRTY_BITMAP.bits() == 0 {
                    return self.plain(format!("c{at}"), request, ioctl, &[]);
                }
                let bitmap: Bitmap =
                    read_padded(&bytes_at(ioctl.read, ioctl.arg.wrapping_add(24), 24));
                let members = json!({
                    "c": at,
                    "argsz": unmap.argsz,
                    "flags": unmap.flags,
                    "iova": hex_number(unmap.iova),
                    "size": hex_number(unmap.size),
                    "bitmap_size": hex_number(bitmap.size),
                    "bitmap_pgsize": hex_number(bitmap.pgsize),
                });
                self.put("unmap", members, None);
                Ok(())
            }
            ioctl::VFIO_IOMMU_DIRTY_PAGES => {
                let dirty: DirtyPages = read_padded(&bytes_at(ioctl.read, ioctl.arg, 8));
                if dirty.flags & DirtyFlags::GET_BITMAP.bits() == 0 {
                    return self.plain(format!("c{at}"), request, ioctl, &[]);
                }
                let bytes = bytes_at(ioctl.read, ioctl.arg, 48);
                let long = |at: usize| {
                    let long = bytes.get(at..).and_then(read_prefix::<[u8; 8]>);
                    hex_number(long.map_or(0, u64::from_le_bytes))
                };
                let members = json!({
                    "c": at,
                    "argsz": dirty.argsz,
                    "flags": dirty.flags,
                    "iova": long(8),
                    "size": long(16),
                    "bitmap_pgsize": long(24),
                    "bitmap_size": long(32),
                });
                self.put("dirty", members, None);
                Ok(())
            }
            _ => self.plain(format!("c{at}"), request, ioctl, &[]),
        }
    }

    fn map_dma(&mut self, at: usize, request: &Request, ioctl: Ioctl<'_>) -> Result<(), Note> {
        let Some(map) = read_prefix::<DmaMap>(&bytes_at(ioctl.read, ioctl.arg, 32)) else {
            return self.plain(format!("c{at}"), request, ioctl, &[]);
        };
        let memory = match &request.refusal {
            None => Some(&mut self.writable),
            Some(Refusal::Map(MapRefusal::Pin(pin))) if pin.why == PinFault::NotPermitted => {
                Some(&mut self.readable)
            }
            Some(Refusal::Map(MapRefusal::Pin(_))) => Some(&mut self.hole),
            Some(Refusal::Map(MapRefusal::OverLimit(_)) | Refusal::Vaddr(_)) => {
                Some(&mut self.writable)
            }
            Some(_) => None,
        };
        let plausible = map.size < 1 << 46;
        let (vaddr, made) = match memory {
            Some(memory) if plausible => memory.at(map.vaddr, map.size),
            _ => (hex_number(map.vaddr), None),
        };
        self.out.extend(made);
        let members = json!({
            "c": at,
            "iova": hex_number(map.iova),
            "size": hex_number(map.size),
            "vaddr": vaddr,
            "flags": map.flags,
            "argsz": map.argsz,
        });
        self.put("map", members, Some(Value::Object(want(request.answer))));
        Ok(())
    }

    fn group(
        &mut self,
        id: GroupId,
        request: &Request,
        ioctl: Ioctl<'_>,
        joined: Option<(GroupId, Option<ContainerId>)>,
    ) -> Result<(), Note> {
        let at = self.slots.groups.of(&id).ok_or("its group was never seen open")?;
        match ioctl.request {
            ioctl::VFIO_GROUP_SET_CONTAINER => {
                let fd = match (joined, &request.refusal) {
                    (Some((_, Some(container))), _) => {
                        format!("c{}", self.container_slot(container)?)
                    }
                    (_, Some(Refusal::BadFd(_))) => "99".into(),
                    (_, Some(Refusal::NotAContainer(_) | Refusal::HasContainer(_))) => {
                        format!("g{at}")
                    }
                    (_, Some(Refusal::BadAddress)) => {
                        return self.plain(format!("g{at}"), request, ioctl, &[]);
                    }
                    _ => {
                        let only = self.slots.containers.only();
                        format!("c{}", only.ok_or("which container was meant is not known")?)
                    }
                };
                let want = Some(Value::Object(want(request.answer)));
                self.put("set_container", json!({"g": at, "fd": fd}), want);
                Ok(())
            }
            ioctl::VFIO_GROUP_GET_DEVICE_FD => {
                let bytes = bytes_at(ioctl.read, ioctl.arg, MOST_READ);
                let end = bytes.iter().position(|byte| *byte == 0);
                let name = end.and_then(|end| std::str::from_utf8(&bytes[..end]).ok());
                let name = name.ok_or("the device's name is no text")?;
                let full = "more devices are open than a trace has";
                let d = match request.answer {
                    Ok(_) => {
                        let named = self.slots.devices.free().ok_or(full)?;
                        // The address may have spaces behind it.
                        let id = self.find(id, name).ok_or("the device is not known")?;
                        self.slots.devices.put(id);
                        named
                    }
                    Err(_) => self.slots.devices.free().ok_or(full)?,
                };
                let members = json!({"g": at, "d": d, "name": name});
                self.put("get_device_fd", members, Some(opened(request.answer)));
                Ok(())
            }
            _ => self.plain(format!("g{at}"), request, ioctl, &[]),
        }
    }

    fn find(&self, group: GroupId, name: &str) -> Option<DeviceId> {
        let name = name.trim_end_matches(' ');
        let at = self.addresses.iter().position(|address| address == name)?;
        let (_, of) = self.devices.get(at)?;
        (*of == group).then_some(DeviceId(u32::try_from(at).ok()?))
    }

    fn device(&mut self, id: DeviceId, request: &Request, ioctl: Ioctl<'_>) -> Result<(), Note> {
        let at = self.slots.devices.of(&id).ok_or("its device was never seen open")?;
        let fd = format!("d{at}");
        match ioctl.request {
            ioctl::VFIO_DEVICE_SET_IRQS => self.set_irqs(at, request, ioctl),
            ioctl::VFIO_DEVICE_IOEVENTFD => {
                const FD: u64 = 24;
                let word = bytes_at(ioctl.read, ioctl.arg.wrapping_add(FD), 4);
                let Some(number) = read_prefix::<[u8; 4]>(&word).map(i32::from_le_bytes) else {
                    return self.plain(fd, request, ioctl, &[]);
                };
                let event = self.event(request, number);
                self.plain(fd, request, ioctl, &[(event, FD)])
            }
            ioctl::VFIO_DEVICE_PCI_HOT_RESET => {
                const FDS: u64 = 12;
                let count = bytes_at(ioctl.read, ioctl.arg.wrapping_add(8), 4);
                let count = read_prefix::<[u8; 4]>(&count).map_or(0, u32::from_le_bytes);
                let groups = self.slots.groups.used();
                if count as usize != groups.len() {
                    return Err("which groups were meant is not known");
                }
                let fds: Vec<_> = groups.iter().map(|at| (format!("g{at}"), FDS)).collect();
                self.plain(fd, request, ioctl, &fds)
            }
            _ => self.plain(fd, request, ioctl, &[]),
        }
    }

    fn set_irqs(&mut self, at: usize, request: &Request, ioctl: Ioctl<'_>) -> Result<(), Note> {
        let bytes = bytes_at(ioctl.read, ioctl.arg, 20);
        if bytes.len() < 20 {
            return self.plain(format!("d{at}"), request, ioctl, &[]);
        }
        let set: IrqSet = read_padded(&bytes);
        let payload = usize::try_from(set.argsz.saturating_sub(20)).unwrap_or(0);
        let payload = bytes_at(ioctl.read, ioctl.arg.wrapping_add(20), payload);
        let mut members = json!({
            "d": at,
            "argsz": set.argsz,
            "flags": set.flags,
            "index": set.index,
            "start": set.start,
            "count": set.count,
        });
        let flags = IrqSetFlags::from_bits_retain(set.flags);
        let count = usize::try_from(set.count).unwrap_or(usize::MAX);
        let list: Option<(&str, Vec<Value>)> = if flags.contains(IrqSetFlags::DATA_EVENTFD) {
            let fds = payload.chunks_exact(4).take(count).filter_map(read_prefix::<[u8; 4]>);
            let fds: Vec<i32> = fds.map(i32::from_le_bytes).collect();
            Some(("fds", fds.into_iter().map(|fd| self.event(request, fd).into()).collect()))
        } else if flags.contains(IrqSetFlags::DATA_BOOL) {
            Some(("data", payload.iter().take(count).map(|byte| json!(byte)).collect()))
        } else {
            None
        };
        if let (Some((name, list)), Value::Object(members)) = (list, &mut members) {
            if list.len() > MOST_FDS {
                return Err("it has more interrupts than a line has");
            }
            members.insert(name.into(), list.into());
        }
        self.put("set_irqs", members, Some(Value::Object(want(request.answer))));
        Ok(())
    }

    /// A word for an eventfd of the program's.
    fn event(&mut self, request: &Request, fd: i32) -> String {
        let bad = match &request.refusal {
            Some(Refusal::Device(DeviceRefusal::Irq(IrqRefusal::BadEvent { fd, why }))) => {
                Some((*fd, *why))
            }
            _ => None,
        };
        match bad {
            _ if fd < 0 => return fd.to_string(),
            Some((bad, BadEvent::Closed)) if bad == fd => return "99".into(),
            Some((bad, _)) if bad == fd => {
                let container = self.slots.containers.used().first().copied();
                return container.map_or("0".into(), |at| format!("c{at}"));
            }
            _ => {}
        }
        let (at, new) = self.slots.event(request.pid, fd);
        if new {
            self.put("eventfd", json!({ "e": at }), Some(json!({"ret": 0})));
        }
        format!("e{at}")
    }

    fn region(
        &mut self,
        request: &Request,
        offset: u64,
        count: usize,
        read: Option<&[u8]>,
        data: &[u8],
    ) -> Result<(), Note> {
        let Target::Device(id) = request.target else { return Err("it is no device's") };
        let at = self.slots.devices.of(&id).ok_or("its device was never seen open")?;
        if count > MOST_READ {
            return Err("it moves more bytes than a line has");
        }
        let region = match offset / REGION {
            region if region == crate::door::BAR0_BASE / REGION => 0,
            region => region,
        };
        let offset = hex_number(offset % REGION);
        let mut want = want(request.answer);
        let name = match read {
            Some(bytes) => {
                if request.answer.is_ok() {
                    want.insert("data".into(), hex(bytes).into());
                }
                let members = json!({"d": at, "region": region, "offset": offset, "size": count});
                ("region_read", members)
            }
            None => {
                let data = hex(data);
                ("region_write", json!({"d": at, "region": region, "offset": offset, "data": data}))
            }
        };
        // What the registers of a live device say depends on what it does.
        let known = region == CONFIG || request.answer.is_err() || read.is_none();
        // Nor can it know that the program's own buffer was not there.
        let known = known && request.answer != Err(libc::EFAULT);
        self.put(name.0, name.1, known.then_some(Value::Object(want)));
        Ok(())
    }

    fn map(&mut self, request: &Request, offset: u64, len: u64, shared: bool) -> Result<(), Note> {
        let Target::Device(id) = request.target else { return Err("it is no device's") };
        let at = self.slots.devices.of(&id).ok_or("its device was never seen open")?;
        if !shared {
            return Err("it is a private mapping of a device");
        }
        let members = json!({
            "name": "bar",
            "kind": "region",
            "d": at,
            "size": hex_number(len),
            "file_offset": hex_number(offset),
            "align": "0x1000",
        });
        self.put("mem", members, Some(opened(request.answer)));
        if request.answer.is_ok() {
            self.put("mem_unmap", json!({"at": "bar", "size": hex_number(len)}), None);
        }
        Ok(())
    }
}

/// `ret` or `errno`.
fn want(answer: Result<i64, i32>) -> Map<String, Value> {
    let mut want = Map::new();
    match answer {
        Ok(value) => want.insert("ret".into(), value.into()),
        Err(errno) => {
            let name = Errno::new(errno).name();
            want.insert("errno".into(), name.map_or_else(|| errno.into(), Value::from))
        }
    };
    want
}

/// The same, where a descriptor is 0.
fn opened(answer: Result<i64, i32>) -> Value {
    Value::Object(want(answer.map(|_| 0)))
}

fn hex_number(number: u64) -> String {
    format!("{number:#x}")
}
