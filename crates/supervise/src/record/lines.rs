//! A request as lines of a trace.

use iommu::{MapRefusal, PinFault};
use serde_json::{Map, Value, json};
use uapi::parse::{read_padded, read_prefix};
use uapi::type1::{Bitmap, DirtyFlags, DirtyPages, DmaMap, DmaUnmap, UnmapFlags};
use uapi::{Errno, ioctl};
use vfio::{ContainerId, DeviceId, GroupId, Refusal};

use super::args::{Structure, hex};
use super::memory::Memory;
use super::slots::Slots;
use crate::session::Placed;
use crate::watch::{Call, Piece, Request, Target, bytes_at};

/// Bytes that a trace reads of a region at a time.
pub(super) const MOST_READ: usize = 8192;

/// Why there is no line: a sentence.
pub(super) type Note = &'static str;

/// Turns requests into lines.
pub(super) struct Lines {
    /// The devices' names in the header, by [`DeviceId`], and their groups.
    devices: Vec<(String, GroupId)>,
    /// Their addresses.
    addresses: Vec<String>,
    pub(super) slots: Slots,
    writable: Memory,
    readable: Memory,
    hole: Memory,
    out: Vec<Value>,
}

/// An ioctl's parts.
#[derive(Clone, Copy)]
pub(super) struct Ioctl<'a> {
    pub(super) request: u32,
    pub(super) arg: u64,
    pub(super) read: &'a [Piece],
    pub(super) written: &'a [Piece],
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

    /// A device's name in the header.
    pub(super) fn name(&self, id: DeviceId) -> &str {
        let device = usize::try_from(id.0).ok().and_then(|at| self.devices.get(at));
        device.map_or("", |(name, _)| name)
    }

    pub(super) fn put(&mut self, op: &str, members: Value, want: Option<Value>) {
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
        if kind == 'd' {
            self.slots.unmasked_by(at, None);
        }
        self.put("close", json!({"fd": format!("{kind}{at}")}), Some(json!({"ret": 0})));
        Ok(())
    }

    /// An ioctl without addresses in its structure.
    pub(super) fn plain(
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
}

/// `ret` or `errno`.
pub(super) fn want(answer: Result<i64, i32>) -> Map<String, Value> {
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
pub(super) fn opened(answer: Result<i64, i32>) -> Value {
    Value::Object(want(answer.map(|_| 0)))
}

pub(super) fn hex_number(number: u64) -> String {
    format!("{number:#x}")
}
