//! Requests of a device as lines of a trace: interrupts, regions, mappings of registers.

use serde_json::{Value, json};
use uapi::ioctl;
use uapi::irq::{IrqIndex, IrqSet, IrqSetFlags};
use uapi::parse::{read_padded, read_prefix};
use vfio::device::{DeviceRefusal, IrqRefusal};
use vfio::{BadEvent, DeviceId, Refusal};

use super::args::hex;
use super::lines::{Ioctl, Lines, MOST_READ, Note, hex_number, opened, want};
use crate::watch::{Request, Target, bytes_at};

/// The configuration space, among the regions.
const CONFIG: u64 = 7;
/// Bytes of a region in a device's file.
const REGION: u64 = 1 << 40;
/// Interrupts that one line has.
const MOST_FDS: usize = 1100;

impl Lines {
    pub(super) fn device(
        &mut self,
        id: DeviceId,
        request: &Request,
        ioctl: Ioctl<'_>,
    ) -> Result<(), Note> {
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
        let intx = request.answer.is_ok() && set.index == IrqIndex::Intx as u32;
        let unmasks = intx && flags.contains(IrqSetFlags::ACTION_UNMASK);
        if unmasks && flags.contains(IrqSetFlags::DATA_EVENTFD) {
            let first = read_prefix::<[u8; 4]>(&payload).map_or(-1, i32::from_le_bytes);
            self.unmask_eventfd(at, request.pid, first);
        } else if intx && flags.contains(IrqSetFlags::ACTION_TRIGGER) && count == 0 {
            self.slots.unmasked_by(at, None);
        }
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

    /// An eventfd unmasks INTx from now on. One before was closed by the program, or it would have been
    /// refused.
    fn unmask_eventfd(&mut self, device: usize, pid: i32, fd: i32) {
        if let Some(before) = self.slots.unmasked_by(device, None)
            && fd >= 0
        {
            self.put("close", json!({"fd": format!("e{before}")}), Some(json!({"ret": 0})));
            self.slots.close_event(before);
        }
        if fd >= 0 {
            let at = self.eventfd(pid, fd);
            self.slots.unmasked_by(device, Some(at));
        }
    }

    /// The place of an eventfd of the program's; it is made when it is met first.
    fn eventfd(&mut self, pid: i32, fd: i32) -> usize {
        let (at, new) = self.slots.event(pid, fd);
        if new {
            self.put("eventfd", json!({ "e": at }), Some(json!({"ret": 0})));
        }
        at
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
        format!("e{}", self.eventfd(request.pid, fd))
    }

    pub(super) fn region(
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

    pub(super) fn map(
        &mut self,
        request: &Request,
        offset: u64,
        len: u64,
        shared: bool,
    ) -> Result<(), Note> {
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
