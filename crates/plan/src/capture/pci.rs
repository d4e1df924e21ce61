//! `/sys/bus/pci/devices/ADDRESS`: one function.

use serde_json::{Map, Value, json};

use crate::BadInput;
use crate::layout::hex;

use super::tree::Tree;

/// Bytes of configuration space that a profile keeps.
const CONFIG: usize = 256;

/// BARs and the expansion ROM.
const RESOURCES: usize = 7;

/// Whether a name is a function's address, of a segment that headers can name.
pub(super) fn is_address(name: &str) -> bool {
    let hex = |text: &str, digits: usize| {
        text.len() == digits && text.bytes().all(|b| b.is_ascii_hexdigit())
    };
    let parts: Vec<&str> = name.split([':', '.']).collect();
    let [segment, bus, device, function] = parts[..] else { return false };
    let separators: String = name.chars().filter(|c| matches!(c, ':' | '.')).collect();
    separators == "::."
        && hex(segment, 4)
        && hex(bus, 2)
        && hex(device, 2)
        && u8::from_str_radix(device, 16).is_ok_and(|device| device < 32)
        && matches!(function, "0" | "1" | "2" | "3" | "4" | "5" | "6" | "7")
}

/// Whether a function is a bridge: it is never given to a guest.
pub(super) fn is_bridge(tree: &Tree, address: &str) -> Result<bool, BadInput> {
    let path = format!("sys/bus/pci/devices/{address}/class");
    if !tree.exists(&path) {
        return Ok(false);
    }
    Ok(tree.hexadecimal(&path)? >> 16 == 0x06)
}

/// What a header says of a function, but for its group.
pub(super) fn function(tree: &Tree, address: &str) -> Result<Map<String, Value>, BadInput> {
    let dir = format!("sys/bus/pci/devices/{address}");
    let mut device = Map::new();
    device.insert("bdf".into(), json!(address));
    if let Some(driver) = tree.link(&format!("{dir}/driver")) {
        device.insert("driver".into(), json!(driver));
    }
    device.insert("resource".into(), json!(resources(tree, &format!("{dir}/resource"))?));
    let config = tree.bytes(&format!("{dir}/config"))?.unwrap_or_default();
    let config = config.get(..CONFIG.min(config.len())).unwrap_or_default();
    let used = config.iter().rposition(|b| *b != 0).map_or(0, |last| last + 1);
    let text: String = config.iter().take(used).map(|byte| format!("{byte:02x}")).collect();
    device.insert("config".into(), json!(text));
    device.insert("config_size".into(), json!(CONFIG));
    if let Some(methods) = tree.line(&format!("{dir}/reset_method"))?.filter(|m| !m.is_empty()) {
        device.insert("reset_method".into(), json!(methods));
    }
    Ok(device)
}

/// Lines of start, end and flags.
fn resources(tree: &Tree, path: &str) -> Result<Vec<[String; 3]>, BadInput> {
    let mut found = Vec::new();
    for (number, line) in tree.lines(path)?.iter().enumerate().take(RESOURCES) {
        let numbers: Option<Vec<u64>> = line
            .split_whitespace()
            .map(|word| u64::from_str_radix(word.strip_prefix("0x")?, 16).ok())
            .collect();
        match numbers.as_deref() {
            Some(&[start, end, flags]) => found.push([hex(start), hex(end), hex(flags)]),
            _ => {
                let what = "expected start, end and flags, each with 0x";
                return Err(BadInput::at(tree.show(path), number + 1, 1, what));
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::is_address;

    #[test]
    fn addresses() {
        for good in ["0000:00:1f.7", "ffff:ff:00.0"] {
            assert!(is_address(good), "{good}");
        }
        for bad in [
            "10000:00:00.0",
            "0000:00:20.0",
            "0000:00:00.8",
            "0000.00:00:0",
            "00:00.0",
            "",
            "arm-smmu",
        ] {
            assert!(!is_address(bad), "{bad}");
        }
    }
}
