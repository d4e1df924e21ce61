//! `strace`: names of requests, descriptors, answers; no structures (strace 6.1 prints their address).

use std::collections::HashMap;

use serde_json::{Value, json};

use super::{Imported, SLOTS, errno, hex, parse};

/// What a descriptor is.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Object {
    Container(usize),
    Group(usize),
    Device(usize),
}

/// Reads strace's lines.
#[derive(Default)]
pub(super) struct Strace {
    fds: HashMap<i64, Object>,
    /// Calls that another thread's line interrupted, by thread.
    unfinished: HashMap<String, String>,
    used: [usize; 3],
    groups: Vec<u32>,
    /// The device, once it was opened, of each group's slot.
    owner: Option<String>,
}

/// A line without `[pid 7]`, `7`, and time; and the thread.
pub(super) fn without_prefix(line: &str) -> (&str, &str) {
    let (mut thread, mut rest) = ("", line.trim_start());
    if let Some((pid, after)) = rest.strip_prefix("[pid ").and_then(|r| r.split_once(']')) {
        (thread, rest) = (pid.trim(), after.trim_start());
    }
    while let Some((word, after)) = rest.split_once(' ') {
        let number =
            !word.is_empty() && word.bytes().all(|b| b.is_ascii_digit() || b == b'.' || b == b':');
        if !number {
            break;
        }
        if thread.is_empty() && word.bytes().all(|b| b.is_ascii_digit()) {
            thread = word;
        }
        rest = after.trim_start();
    }
    (thread, rest)
}

/// Arguments at their outermost commas.
fn arguments(text: &str) -> Vec<&str> {
    let (mut depth, mut quoted, mut escaped, mut from) = (0u32, false, false, 0);
    let mut parts = Vec::new();
    for (at, c) in text.char_indices() {
        if quoted {
            match c {
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                '"' => quoted = false,
                _ => {}
            }
            continue;
        }
        match c {
            '"' => quoted = true,
            '{' | '[' | '(' | '<' => depth += 1,
            '}' | ']' | ')' | '>' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                parts.push(text[from..at].trim());
                from = at + 1;
            }
            _ => {}
        }
    }
    parts.push(text[from..].trim());
    parts
}

/// The bytes of a string as strace writes it; `None` when it was cut.
fn string(text: &str) -> Option<Vec<u8>> {
    let inner = text.strip_prefix('"')?.strip_suffix('"')?;
    let mut bytes = Vec::new();
    let mut rest = inner.bytes().peekable();
    while let Some(byte) = rest.next() {
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        match rest.next()? {
            b'n' => bytes.push(b'\n'),
            b't' => bytes.push(b'\t'),
            b'r' => bytes.push(b'\r'),
            b'v' => bytes.push(0x0b),
            b'f' => bytes.push(0x0c),
            b'x' => {
                let digits = [rest.next()?, rest.next()?];
                let digits = std::str::from_utf8(&digits).ok()?;
                bytes.push(u8::from_str_radix(digits, 16).ok()?);
            }
            digit @ b'0'..=b'7' => {
                let mut value = u32::from(digit - b'0');
                for _ in 0..2 {
                    let Some(next) = rest.next_if(|b| (b'0'..=b'7').contains(b)) else { break };
                    value = value * 8 + u32::from(next - b'0');
                }
                bytes.push(u8::try_from(value).ok()?);
            }
            other => bytes.push(other),
        }
    }
    Some(bytes)
}

/// A descriptor, without what `-y` says of it.
fn descriptor(text: &str) -> Option<i64> {
    text.split('<').next()?.parse().ok()
}

/// What a call answered: a number, or the name of an errno.
fn answer(text: &str) -> Option<Result<i64, String>> {
    let mut words = text.split_whitespace();
    let number = words.next()?;
    if number == "-1" {
        let name = words.next().filter(|n| n.starts_with('E'))?;
        return Some(Err(name.to_owned()));
    }
    let number = number.split('<').next().unwrap_or(number);
    parse(number).and_then(|n| i64::try_from(n).ok()).map(Ok)
}

impl Strace {
    pub(super) fn line(&mut self, line: &str, out: &mut Imported) {
        let (thread, rest) = without_prefix(line);
        let whole;
        let call = if let Some(begun) = rest.strip_suffix("<unfinished ...>") {
            self.unfinished.insert(thread.to_owned(), begun.trim_end().to_owned());
            return;
        } else if let Some((_, end)) =
            rest.strip_prefix("<... ").and_then(|r| r.split_once("resumed>"))
        {
            let Some(begun) = self.unfinished.remove(thread) else { return };
            whole = begun + end;
            whole.as_str()
        } else {
            rest
        };
        let Some((name, rest)) = call.split_once('(') else { return };
        // The last `) =`: strings may have one too.
        let Some((end, result)) = rest.rmatch_indices('=').find_map(|(at, _)| {
            let before = rest[..at].trim_end();
            before.ends_with(')').then(|| (before.len() - 1, rest[at + 1..].trim()))
        }) else {
            return;
        };
        let Some(answer) = answer(result) else { return };
        let arguments = arguments(&rest[..end]);
        match name {
            "openat" | "open" | "openat2" => {
                let path = arguments.iter().find_map(|a| string(a)).unwrap_or_default();
                self.opened(&String::from_utf8_lossy(&path), &answer, thread, out);
            }
            "close" => self.closed(&arguments, out),
            "ioctl" => self.ioctl(&arguments, &answer, out),
            "pread64" | "pwrite64" => self.region(name, &arguments, &answer, out),
            "mmap" => {
                let fd = arguments.get(4).and_then(|a| descriptor(a));
                if let Some(Object::Device(_)) = fd.and_then(|fd| self.fds.get(&fd)) {
                    out.missing(out.read, "mmap of a region: accesses through it are in no log");
                }
            }
            _ => {}
        }
    }

    fn opened(
        &mut self,
        path: &str,
        answer: &Result<i64, String>,
        thread: &str,
        out: &mut Imported,
    ) {
        let Some(name) = path.strip_prefix("/dev/vfio/") else { return };
        if !thread.is_empty() {
            match &self.owner {
                None => self.owner = Some(thread.to_owned()),
                Some(owner) if owner != thread => {
                    out.assume("all threads of the log share their descriptors");
                }
                Some(_) => {}
            }
        }
        let object = if name == "vfio" {
            Object::Container(self.used[0])
        } else if let Ok(group) = name.parse::<u32>() {
            let slot = self.used[1];
            self.groups.push(group);
            out.device(&address(group), group);
            Object::Group(slot)
        } else {
            out.missing(out.read, "opening anything in /dev/vfio but a container or a group");
            return;
        };
        let (op, member, slot) = match object {
            Object::Container(slot) => ("open_container", "c", slot),
            Object::Group(slot) | Object::Device(slot) => ("open_group", "g", slot),
        };
        if slot >= SLOTS {
            out.missing(out.read, "containers, groups or devices beyond the eighth");
            return;
        }
        let mut request = json!({"op": op, member: slot});
        if let Object::Group(slot) = object {
            let group = self.groups[slot];
            request["dev"] = out.device(&address(group), group).into();
        }
        match answer {
            Ok(fd) => {
                self.fds.insert(*fd, object);
                self.used[usize::from(member == "g")] += 1;
                out.request(request, Some(json!({"ret": 0})));
            }
            Err(name) => {
                if member == "g" {
                    self.groups.pop();
                }
                out.request(request, Some(errno(name)));
            }
        }
    }

    fn closed(&mut self, arguments: &[&str], out: &mut Imported) {
        let fd = arguments.first().and_then(|a| descriptor(a));
        let Some(object) = fd.and_then(|fd| self.fds.remove(&fd)) else { return };
        let word = match object {
            Object::Container(slot) => format!("c{slot}"),
            Object::Group(slot) => format!("g{slot}"),
            Object::Device(slot) => format!("d{slot}"),
        };
        out.request(json!({"op": "close", "fd": word}), Some(json!({"ret": 0})));
    }

    fn ioctl(&mut self, arguments: &[&str], answer: &Result<i64, String>, out: &mut Imported) {
        let [fd, request, rest @ ..] = arguments else { return };
        let Some(object) = descriptor(fd).and_then(|fd| self.fds.get(&fd)).copied() else { return };
        let name = kernel_name(request, object);
        let line = out.read;
        let argument = rest.first().copied().unwrap_or("0");
        let failed = answer.as_ref().err().map(|name| errno(name));
        let whole = match answer {
            Ok(ret) => json!({"ret": ret}),
            Err(name) => errno(name),
        };
        let hidden = |what: &str| format!("{what}: strace shows no structure");
        match (object, name) {
            (Object::Container(c), "VFIO_GET_API_VERSION") => {
                out.request(json!({"op": "api_version", "c": c}), Some(whole));
            }
            (Object::Container(c), "VFIO_CHECK_EXTENSION" | "VFIO_SET_IOMMU") => {
                let Some(number) = parse(argument) else {
                    return out.missing(line, &hidden(name));
                };
                let request = match name {
                    "VFIO_SET_IOMMU" => json!({"op": "set_iommu", "c": c, "type": number}),
                    _ => json!({"op": "check_extension", "c": c, "raw_ext": hex(number)}),
                };
                out.request(request, Some(whole));
            }
            (Object::Container(c), "VFIO_IOMMU_GET_INFO") => {
                out.request(json!({"op": "get_info", "c": c}), failed);
            }
            (Object::Group(g), "VFIO_GROUP_GET_STATUS") => {
                out.request(json!({"op": "group_status", "g": g}), failed);
            }
            (Object::Group(g), "VFIO_GROUP_SET_CONTAINER") => {
                if self.used[0] > 1 {
                    out.assume("a group joins the container that was opened last");
                }
                let c = self.used[0].saturating_sub(1);
                out.request(json!({"op": "set_container", "g": g, "c": c}), Some(whole));
            }
            (Object::Group(g), "VFIO_GROUP_UNSET_CONTAINER") => {
                out.request(json!({"op": "unset_container", "g": g}), Some(whole));
            }
            (Object::Group(g), "VFIO_GROUP_GET_DEVICE_FD") => {
                out.assume("each group has one device: strace does not show the name");
                let d = self.used[2];
                if d >= SLOTS {
                    return out.missing(line, "containers, groups or devices beyond the eighth");
                }
                let group = self.groups.get(g).copied().unwrap_or(0);
                let place = out.device(&address(group), group);
                let request = json!({"op": "get_device_fd", "g": g, "d": d, "dev": place});
                match answer {
                    Ok(fd) => {
                        self.fds.insert(*fd, Object::Device(d));
                        self.used[2] += 1;
                        out.request(request, Some(json!({"ret": 0})));
                    }
                    Err(_) => out.request(request, failed),
                }
            }
            (Object::Device(d), "VFIO_DEVICE_GET_INFO") => {
                out.request(json!({"op": "device_info", "d": d}), failed);
            }
            (Object::Device(d), "VFIO_DEVICE_RESET") => {
                out.request(json!({"op": "reset", "d": d}), Some(whole));
            }
            (_, name) => {
                let what = match answer {
                    Ok(_) => hidden(name),
                    Err(errno) => hidden(&format!("{name} ({errno})")),
                };
                out.missing(line, &what);
            }
        }
    }

    fn region(
        &mut self,
        name: &str,
        arguments: &[&str],
        answer: &Result<i64, String>,
        out: &mut Imported,
    ) {
        let [fd, data, size, at] = arguments else { return };
        let Some(Object::Device(d)) = descriptor(fd).and_then(|fd| self.fds.get(&fd)).copied()
        else {
            return;
        };
        let (Some(size), Some(at)) = (parse(size), parse(at)) else { return };
        let (region, offset) = (at >> 40, hex(at & ((1 << 40) - 1)));
        let want = answer.as_ref().err().map(|name| errno(name));
        if name == "pread64" {
            let request = json!({"op": "region_read", "d": d, "region": region, "offset": offset, "size": size});
            return out.request(request, want);
        }
        match string(data).filter(|bytes| bytes.len() as u64 == size) {
            Some(bytes) => {
                let digits: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
                let request: Value = json!({"op": "region_write", "d": d, "region": region, "offset": offset, "data": digits});
                out.request(request, want);
            }
            None => out.missing(out.read, "pwrite64 of more than strace shows (see its option -s)"),
        }
    }
}

/// What is put for the address of a device of which only the group is known.
fn address(group: u32) -> String {
    format!("{:04x}:{:02x}:{:02x}.0", group >> 13, (group >> 5) & 0xff, group & 31)
}

/// The kernel's name of a request: a number may be several, and the descriptor decides.
fn kernel_name(text: &str, object: Object) -> &'static str {
    const NAMES: [(u64, &str, &str); 22] = [
        (0x3b64, "c", "VFIO_GET_API_VERSION"),
        (0x3b65, "c", "VFIO_CHECK_EXTENSION"),
        (0x3b66, "c", "VFIO_SET_IOMMU"),
        (0x3b67, "g", "VFIO_GROUP_GET_STATUS"),
        (0x3b68, "g", "VFIO_GROUP_SET_CONTAINER"),
        (0x3b69, "g", "VFIO_GROUP_UNSET_CONTAINER"),
        (0x3b6a, "g", "VFIO_GROUP_GET_DEVICE_FD"),
        (0x3b6b, "d", "VFIO_DEVICE_GET_INFO"),
        (0x3b6c, "d", "VFIO_DEVICE_GET_REGION_INFO"),
        (0x3b6d, "d", "VFIO_DEVICE_GET_IRQ_INFO"),
        (0x3b6e, "d", "VFIO_DEVICE_SET_IRQS"),
        (0x3b6f, "d", "VFIO_DEVICE_RESET"),
        (0x3b70, "d", "VFIO_DEVICE_GET_PCI_HOT_RESET_INFO"),
        (0x3b70, "c", "VFIO_IOMMU_GET_INFO"),
        (0x3b71, "d", "VFIO_DEVICE_PCI_HOT_RESET"),
        (0x3b71, "c", "VFIO_IOMMU_MAP_DMA"),
        (0x3b72, "d", "VFIO_DEVICE_QUERY_GFX_PLANE"),
        (0x3b72, "c", "VFIO_IOMMU_UNMAP_DMA"),
        (0x3b74, "d", "VFIO_DEVICE_IOEVENTFD"),
        (0x3b75, "d", "VFIO_DEVICE_FEATURE"),
        (0x3b75, "c", "VFIO_IOMMU_DIRTY_PAGES"),
        (0x3b73, "d", "VFIO_DEVICE_GET_GFX_DMABUF"),
    ];
    let kind = match object {
        Object::Container(_) => "c",
        Object::Group(_) => "g",
        Object::Device(_) => "d",
    };
    let word = text.split_whitespace().next().unwrap_or(text);
    let number = parse(word).or_else(|| {
        // `A or B`: all of them are the same number.
        let first = text.split(" or ").next().unwrap_or(text).trim();
        NAMES.iter().find(|(_, _, name)| *name == first).map(|(number, ..)| *number)
    });
    let found = NAMES.iter().find(|(n, k, ..)| Some(*n) == number && *k == kind);
    found.map_or("a request that nobody knows", |(_, _, name)| name)
}
