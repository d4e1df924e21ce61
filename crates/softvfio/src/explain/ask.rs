//! Requests of the command line as a script.

use serde_json::{Map, Value, json};

use super::Explain;

/// Eventfds that a trace has.
const MOST_EVENTS: usize = 64;
/// Bytes of memory behind maps: as much as a process can have. A larger map meets its end.
const MOST_MEMORY: u64 = 1 << 46;

/// The script of a command line: a container with the wanted devices, then the requests.
pub(super) fn script(ask: &Explain, header: &Map<String, Value>) -> Result<Vec<u8>, String> {
    let asked = [&ask.window, &ask.map, &ask.unmap, &ask.enable_msi];
    if asked.iter().all(|list| list.is_empty()) {
        return Err("expected a TRACE, or --map, --unmap, --window or --enable-msi".into());
    }
    let parse = |list: &[String], option: &str| {
        list.iter().map(|text| range(text, option)).collect::<Result<Vec<_>, _>>()
    };
    let windows = parse(&ask.window, "--window")?;
    let maps = parse(&ask.map, "--map")?;
    let unmaps = parse(&ask.unmap, "--unmap")?;

    let known = header.get("devices").and_then(Value::as_object);
    let names = || known.into_iter().flat_map(Map::keys).map(String::as_str);
    let mut devices: Vec<&str> = Vec::new();
    for name in ask.device.iter().chain(&ask.enable_msi) {
        if !names().any(|n| n == name) {
            let names = names().collect::<Vec<_>>().join(", ");
            return Err(format!("expected a device of the host ({names}), found {name}"));
        }
        if !devices.contains(&name.as_str()) {
            devices.push(name);
        }
    }
    if devices.is_empty() {
        devices.extend(names().next());
    }
    let host = || ask.host.as_deref().map(crate::input::shown).unwrap_or_default();
    if devices.is_empty() {
        return Err(format!("--host {}: expected a host with a device, found none", host()));
    }
    if devices.len() > 8 {
        return Err(format!("--device: expected at most eight devices, found {}", devices.len()));
    }
    if ask.enable_msi.len() > MOST_EVENTS {
        return Err(format!("expected --enable-msi at most {MOST_EVENTS} times"));
    }
    let mut lines = vec![Value::Object(header.clone())];
    let size = maps.iter().map(|(_, size)| *size).max().unwrap_or(0).clamp(1, MOST_MEMORY);
    // As much as the largest map needs, in a file of its own, which takes no memory of the host.
    let memory = size.next_multiple_of(0x20_0000);
    lines.push(json!({"op": "mem", "name": "buf", "kind": "shared", "size": hex(memory)}));
    lines.push(json!({"op": "open_container"}));
    for (slot, name) in devices.iter().enumerate() {
        lines.push(json!({"op": "open_group", "g": slot, "dev": name}));
        lines.push(json!({"op": "set_container", "g": slot}));
        if slot == 0 {
            let kind = if ask.type1 == "v1" { "type1" } else { "type1v2" };
            lines.push(json!({"op": "set_iommu", "type": kind}));
        }
    }
    for (iova, size) in windows {
        let flags = ["read", "write", "reserved_msi_iova"];
        lines.push(json!({"op": "map", "iova": hex(iova), "size": hex(size), "flags": flags}));
    }
    for (iova, size) in maps {
        lines.push(json!({"op": "map", "iova": hex(iova), "size": hex(size), "vaddr": "buf"}));
    }
    for (iova, size) in unmaps {
        lines.push(json!({"op": "unmap", "iova": hex(iova), "size": hex(size)}));
    }
    for (event, name) in ask.enable_msi.iter().enumerate() {
        let slot = devices.iter().position(|d| d == name).unwrap_or(0);
        if !ask.enable_msi[..event].contains(name) {
            lines.push(json!({"op": "get_device_fd", "g": slot, "d": slot, "dev": name}));
        }
        lines.push(json!({"op": "eventfd", "e": event}));
        lines.push(json!({
            "op": "set_irqs", "d": slot, "index": "msi", "start": 0, "fds": [format!("e{event}")],
            "flags": ["data_eventfd", "action_trigger"]
        }));
    }
    let text: Vec<String> = lines.iter().map(Value::to_string).collect();
    Ok((text.join("\n") + "\n").into_bytes())
}

fn hex(number: u64) -> String {
    format!("{number:#x}")
}

/// `IOVA+SIZE`.
fn range(text: &str, option: &str) -> Result<(u64, u64), String> {
    let number = |text| plan::size::parse(text).ok();
    let parts = text.split_once('+').and_then(|(iova, size)| Some((number(iova)?, number(size)?)));
    parts.ok_or_else(|| {
        format!("{option}: expected IOVA+SIZE as in 0x8000000+2M, at most 64 bits, found {text:?}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        assert_eq!(range("0x8000000+2M", "--map"), Ok((0x800_0000, 2 << 20)));
        assert_eq!(range("4G+0x1000", "--map"), Ok((4 << 30, 0x1000)));
        assert_eq!(range("1TiB+64KiB", "--map"), Ok((1 << 40, 64 << 10)));
        assert_eq!(range("0xE+0xE", "--map"), Ok((14, 14)));
        assert_eq!(range("4g+1.5M", "--map"), Ok((4 << 30, 3 << 19)));
        for bad in ["", "1", "1+", "+1", "1+16E", "1+x", "-1+1", "0x1_0+1", "1+é"] {
            assert!(range(bad, "--map").is_err(), "{bad}");
        }
    }
}
