//! QEMU's `-trace 'vfio*'`: what is mapped where, registers, interrupts by name. Formats: `hw/vfio/
//! trace-events` of QEMU 8 to 10. Answers are not in it, but failures of maps are, as messages.

use std::collections::HashMap;

use serde_json::json;

use super::{Imported, SLOTS, errno, hex, parse};

/// Reads QEMU's lines.
#[derive(Default)]
pub(super) struct Qemu {
    opened: bool,
    /// Slots of devices, by name.
    slots: HashMap<String, usize>,
    groups: Vec<u32>,
    events: usize,
    last_map: Option<usize>,
}

/// The name of an event of a line, and what follows; `None` when it is none of VFIO's. Lines may
/// begin with `pid@seconds.microseconds:`.
pub(super) fn event(line: &str) -> Option<(&str, &str)> {
    let line = line.trim_start();
    let line = match line.split_once(':') {
        Some((stamp, rest))
            if stamp.contains('@')
                && stamp.bytes().all(|b| b.is_ascii_digit() || b == b'@' || b == b'.') =>
        {
            rest
        }
        _ => line,
    };
    let (name, rest) = line.split_once(' ').unwrap_or((line, ""));
    let known = name.starts_with("vfio_") || name.starts_with("iommufd_");
    let word = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    (known && word).then(|| (name, rest.trim_start()))
}

/// `0x1 - 0x2` somewhere in a text, as first and last.
fn ends(text: &str) -> Option<(u64, u64)> {
    let (before, after) = text.split_once(" - ")?;
    let first = parse(before.rsplit([' ', '[']).next()?)?;
    let last = parse(after.split([' ', ']', ',']).next()?)?;
    (first <= last).then_some((first, last))
}

/// What is between the first parentheses.
fn inner(text: &str) -> Option<&str> {
    let from = text.find('(')?;
    let to = text.rfind(')')?;
    text.get(from + 1..to)
}

/// `NAME:regionN+0xOFFSET` of an access.
fn place(text: &str) -> Option<(&str, u64, u64)> {
    let (name, rest) = text.rsplit_once(":region")?;
    let (region, offset) = rest.split_once('+')?;
    Some((name, parse(region)?, parse(offset)?))
}

/// The lowest bytes of a number, as digits.
fn digits(number: u64, size: u64) -> Option<String> {
    let size = usize::try_from(size).ok().filter(|s| matches!(s, 1 | 2 | 4 | 8))?;
    Some(number.to_le_bytes()[..size].iter().map(|b| format!("{b:02x}")).collect())
}

impl Qemu {
    pub(super) fn line(&mut self, line: &str, out: &mut Imported) {
        match event(line) {
            Some((name, rest)) => {
                if self.event(name, rest, out).is_none() {
                    out.missing(out.read, &format!("{name}: in a form that is not known"));
                }
            }
            None => self.message(line, out),
        }
    }

    /// A message of QEMU's: a map that failed.
    fn message(&mut self, line: &str, out: &mut Imported) {
        let failed = ["vfio_dma_map(", "vfio_container_dma_map("];
        let Some(at) = failed.iter().find_map(|name| Some(line.find(name)? + name.len())) else {
            return;
        };
        let Some((arguments, result)) = line[at..].split_once(") = -") else { return };
        let number: Option<i32> = result.split(' ').next().and_then(|n| n.parse().ok());
        let mut parts = arguments.split(", ").skip(1);
        let iova = parts.next().and_then(parse).map(hex);
        let Some(number) = number else { return };
        let name = uapi::Errno::new(number).name();
        let Some(request) = self.last_map.and_then(|at| out.lines.get_mut(at)) else { return };
        if request.get("iova").and_then(|v| v.as_str()) == iova.as_deref() {
            request["want"] = name.map_or_else(|| json!({"errno": number}), errno);
        }
    }

    /// A request from an event; `None` when its text is not as expected.
    fn event(&mut self, name: &str, rest: &str, out: &mut Imported) -> Option<()> {
        match name {
            "vfio_attach_device" => {
                let device = inner(rest)?;
                let group = rest.rsplit_once("group ")?.1.trim().parse().ok()?;
                self.attach(device, group, out);
            }
            "vfio_listener_region_add_ram" => {
                let (first, last) = ends(rest)?;
                self.map(first, last, out);
            }
            "vfio_listener_region_del" => {
                let (first, last) = ends(rest)?;
                self.open(out);
                let size = last.checked_sub(first)?.checked_add(1)?;
                out.request(json!({"op": "unmap", "iova": hex(first), "size": hex(size)}), None);
            }
            "vfio_iommu_map_notify" => {
                let (first, last) = ends(rest)?;
                let op = rest.split_whitespace().nth(1)?;
                if op == "MAP" {
                    self.map(first, last, out);
                } else if op == "UNMAP" {
                    self.open(out);
                    let size = last.checked_sub(first)?.checked_add(1)?;
                    let request = json!({"op": "unmap", "iova": hex(first), "size": hex(size)});
                    out.request(request, None);
                }
            }
            "vfio_region_write" | "vfio_region_read" => {
                let mut parts = inner(rest)?.split(", ");
                let (device, region, offset) = place(parts.next()?)?;
                let device = self.slot(device, out)?;
                if name == "vfio_region_read" {
                    let size: u64 = parts.next()?.parse().ok()?;
                    let request = json!({
                        "op": "region_read", "d": device, "region": region, "offset": hex(offset),
                        "size": size
                    });
                    out.request(request, None);
                } else {
                    let data = parse(parts.next()?)?;
                    let data = digits(data, parts.next()?.parse().ok()?)?;
                    let request = json!({
                        "op": "region_write", "d": device, "region": region,
                        "offset": hex(offset), "data": data
                    });
                    out.request(request, None);
                }
            }
            "vfio_pci_write_config" => {
                let mut parts = inner(rest)?.split(", ");
                let device = self.slot(parts.next()?, out)?;
                let offset = parse(parts.next()?.strip_prefix('@')?)?;
                let value = parse(parts.next()?)?;
                let data = digits(value, parse(parts.next()?.strip_prefix("len=")?)?)?;
                out.assume("what the guest writes to configuration space reaches the device");
                let request = json!({
                    "op": "region_write", "d": device, "region": "config", "offset": hex(offset),
                    "data": data
                });
                out.request(request, None);
            }
            "vfio_msi_enable" => {
                let device = self.slot(inner(rest)?, out)?;
                let vectors: usize = rest
                    .rsplit_once("Enabled ")
                    .and_then(|(_, n)| n.split(' ').next()?.parse().ok())?;
                self.interrupts(device, "msi", vectors.min(32), out);
            }
            "vfio_intx_enable" => {
                let device = self.slot(inner(rest)?, out)?;
                self.interrupts(device, "intx", 1, out);
            }
            "vfio_msi_disable" | "vfio_msix_disable" | "vfio_intx_disable" => {
                let device = self.slot(inner(rest)?, out)?;
                let index = name.split('_').nth(1)?;
                let flags = ["data_none", "action_trigger"];
                let request = json!({
                    "op": "set_irqs", "d": device, "index": index, "flags": flags, "start": 0,
                    "count": 0
                });
                out.request(request, None);
            }
            "vfio_pci_reset_flr" => {
                let device = self.slot(rest.split(' ').next()?, out)?;
                out.request(json!({"op": "reset", "d": device}), None);
            }
            "vfio_listener_region_add_no_dma_map" => {
                out.missing(out.read, "a region that QEMU does not map, for its alignment");
            }
            "vfio_msix_vector_do_use" | "vfio_msix_vector_release" | "vfio_msix_enable" => {
                out.missing(out.read, "MSI-X: the log does not say which vectors are enabled");
            }
            "vfio_detach_device" | "vfio_put_group" | "vfio_disconnect_container" => {
                out.missing(out.read, "the end of devices, groups and containers");
            }
            name if name.starts_with("iommufd_") => {
                out.missing(out.read, "iommufd: a trace has containers and groups");
            }
            // Nothing that a kernel is asked for, or nothing that says what for.
            _ => {}
        }
        Some(())
    }

    /// A container, before anything is done with it.
    fn open(&mut self, out: &mut Imported) {
        if !self.opened {
            self.opened = true;
            out.request(json!({"op": "open_container"}), None);
        }
    }

    fn attach(&mut self, device: &str, group: u32, out: &mut Imported) {
        self.open(out);
        let slot = self.slots.len();
        if slot >= SLOTS || self.slots.contains_key(device) {
            return out.missing(out.read, "containers, groups or devices beyond the eighth");
        }
        out.assume("one container of type1v2, as QEMU opens it");
        let place = out.device(device, group);
        let known = self.groups.iter().position(|g| *g == group);
        let g = known.unwrap_or(self.groups.len());
        if known.is_none() {
            self.groups.push(group);
            out.request(json!({"op": "open_group", "g": g, "dev": place}), None);
            out.request(json!({"op": "set_container", "g": g}), None);
            if g == 0 {
                out.request(json!({"op": "set_iommu", "type": "type1v2"}), None);
            }
        }
        out.request(json!({"op": "get_device_fd", "g": g, "d": slot, "dev": place}), None);
        self.slots.insert(device.to_owned(), slot);
    }

    /// The slot of a device; a log that begins late has no word of its being attached.
    fn slot(&mut self, device: &str, out: &mut Imported) -> Option<usize> {
        if !self.slots.contains_key(device) {
            out.assume("devices that are not seen being attached have a group of their own");
            let group = u32::try_from(self.slots.len()).ok()? + 1;
            self.attach(device, group, out);
        }
        self.slots.get(device).copied()
    }

    fn map(&mut self, first: u64, last: u64, out: &mut Imported) {
        self.open(out);
        let Some(size) = (last - first).checked_add(1) else { return };
        out.memory = out.memory.max(size);
        let range = json!({"op": "map", "iova": hex(first), "size": hex(size), "vaddr": "guest"});
        out.request(range, None);
        self.last_map = Some(out.lines.len() - 1);
    }

    fn interrupts(&mut self, device: usize, index: &str, vectors: usize, out: &mut Imported) {
        let mut fds = Vec::new();
        for _ in 0..vectors {
            let event = self.events % 64;
            self.events += 1;
            out.request(json!({"op": "eventfd", "e": event}), None);
            fds.push(format!("e{event}"));
        }
        let flags = ["data_eventfd", "action_trigger"];
        let request = json!({
            "op": "set_irqs", "d": device, "index": index, "flags": flags, "start": 0, "fds": fds
        });
        out.request(request, None);
    }
}
