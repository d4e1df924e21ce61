//! What no trace header carries: doorbells, constants of devices, the shape of user addresses.
//!
//! Built in as `data/machines.json`; a file of the same form given by the user is looked at first.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use crate::request::parse_number;

/// The built-in description.
const BUILT_IN: &str = include_str!("../../data/machines.json");

/// A number written as in traces: a JSON number, or a string with `0x`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Number(pub(crate) u64);

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let number = match Value::deserialize(from)? {
            Value::Number(number) => number.as_u64(),
            Value::String(text) => parse_number(&text),
            _ => None,
        };
        number.map(Self).ok_or_else(|| serde::de::Error::custom("expected a number or \"0x...\""))
    }
}

/// Bytes written as hexadecimal digits.
#[derive(Clone, Debug, Default)]
pub(crate) struct Hex(pub(crate) Vec<u8>);

impl<'de> Deserialize<'de> for Hex {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        parse_hex(&text).map(Self).ok_or_else(|| serde::de::Error::custom("expected hex digits"))
    }
}

/// An even number of hexadecimal digits.
pub(crate) fn parse_hex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let two = |i: usize| text.get(i..i + 2).and_then(|t| u8::from_str_radix(t, 16).ok());
    (0..text.len()).step_by(2).map(two).collect()
}

/// An architecture, by `uname -m`.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Arch {
    pub(crate) mmap_top: Number,
    pub(crate) user_limit: Number,
    #[serde(default)]
    pub(crate) tagged: bool,
    /// What every byte of an address that no device claims reads as.
    #[serde(default)]
    pub(crate) unassigned: Hex,
    /// Whether the link of a PCI Express function comes back after a reset of its bus.
    #[serde(default = "yes")]
    pub(crate) link_comes_back: bool,
    /// The platform to take what a header does not say from.
    pub(crate) platform: String,
}

fn yes() -> bool {
    true
}

fn doorbells() -> String {
    "the doorbells of the interrupt controller".into()
}

/// Where INTx lines lead.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Intx {
    /// Nowhere.
    None,
    /// To a controller that looks at levels.
    #[default]
    Level,
    /// To one that misses a line which is up already.
    Rise,
}

/// A kind of IOMMU.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct IommuKind {
    /// What people call it, with its article: `the SMMU`.
    pub(crate) called: Option<String>,
    /// Ranges that it reserves on every machine, each with its name.
    #[serde(default)]
    pub(crate) ranges: Vec<NamedRange>,
    /// Dialects whose driver tells a write-only mapping from a read-write one.
    #[serde(default)]
    pub(crate) write_only: Vec<String>,
    #[serde(default)]
    pub(crate) nests: bool,
}

/// A reserved range that people have a name for.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct NamedRange {
    pub(crate) first: Number,
    pub(crate) last: Number,
    /// `AMD's HyperTransport range`.
    pub(crate) called: String,
}

/// A kind of interrupt controller.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Controller {
    pub(crate) doorbell: Number,
    /// What a range is where it keeps doorbells: `the MSI range of the local APICs`.
    #[serde(default = "doorbells")]
    pub(crate) msi_range: String,
    #[serde(default)]
    pub(crate) intx: Intx,
    /// Dialects in which MSI-X vectors can be added while others are live.
    #[serde(default)]
    pub(crate) dynamic_msix: Vec<String>,
}

/// A platform, by the name in trace headers.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Platform {
    pub(crate) controller: String,
    /// In place of the controller's.
    pub(crate) intx: Option<Intx>,
    pub(crate) memory: Option<Number>,
    /// As in a header.
    pub(crate) host: Map<String, Value>,
}

/// Registers of a kind of device.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct DeviceKind {
    /// Vendor and device, `8086:10d3`.
    pub(crate) id: String,
    #[serde(default)]
    pub(crate) constants: Vec<Constant>,
    /// Parts of BARs that no register claims.
    #[serde(default)]
    pub(crate) unassigned: Vec<Hole>,
    #[serde(default)]
    pub(crate) rom: Hex,
}

/// Bytes of a BAR that always read the same.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Constant {
    pub(crate) bar: u8,
    pub(crate) offset: Number,
    pub(crate) data: Hex,
}

/// Bytes of a BAR that nothing claims.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Hole {
    pub(crate) bar: u8,
    pub(crate) offset: Number,
    pub(crate) size: Number,
}

/// Descriptions of machines and devices.
#[derive(Clone, Debug, Deserialize)]
pub struct Facts {
    #[serde(default)]
    machines: BTreeMap<String, Arch>,
    #[serde(default)]
    iommus: BTreeMap<String, IommuKind>,
    #[serde(default)]
    controllers: BTreeMap<String, Controller>,
    #[serde(default)]
    platforms: BTreeMap<String, Platform>,
    #[serde(default)]
    devices: Vec<DeviceKind>,
}

impl Default for Facts {
    fn default() -> Self {
        // A test reads it; were it unreadable, nothing would be known.
        serde_json::from_str(BUILT_IN).unwrap_or(Self {
            machines: BTreeMap::new(),
            iommus: BTreeMap::new(),
            controllers: BTreeMap::new(),
            platforms: BTreeMap::new(),
            devices: Vec::new(),
        })
    }
}

impl Facts {
    /// The built-in descriptions, with those in `text` (of the same form) before them.
    ///
    /// # Errors
    /// What is wrong with `text`: line, column and what was expected.
    pub fn with(text: &str) -> Result<Self, (usize, usize, String)> {
        let given: Self = serde_json::from_str(text).map_err(|error| {
            let full = error.to_string();
            let what = full.rsplit_once(" at line").map_or(full.as_str(), |(what, _)| what);
            (error.line(), error.column(), format!("a description of machines and devices: {what}"))
        })?;
        let mut all = Self::default();
        all.machines.extend(given.machines);
        all.iommus.extend(given.iommus);
        all.controllers.extend(given.controllers);
        all.platforms.extend(given.platforms);
        all.devices.splice(0..0, given.devices);
        Ok(all)
    }

    pub(crate) fn arch(&self, machine: &str) -> Option<&Arch> {
        self.machines.get(machine)
    }

    /// The architectures known.
    pub(crate) fn arches(&self) -> String {
        self.machines.keys().cloned().collect::<Vec<_>>().join(" or ")
    }

    pub(crate) fn iommu(&self, kind: &str) -> IommuKind {
        self.iommus.get(kind).cloned().unwrap_or_default()
    }

    pub(crate) fn controller(&self, kind: &str) -> Option<&Controller> {
        self.controllers.get(kind)
    }

    pub(crate) fn platform(&self, name: &str) -> Option<&Platform> {
        self.platforms.get(name)
    }

    /// What is known of a device by vendor and device number.
    pub(crate) fn device(&self, vendor: u16, device: u16) -> Option<&DeviceKind> {
        let id = format!("{vendor:04x}:{device:04x}");
        self.devices.iter().find(|d| d.id.eq_ignore_ascii_case(&id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_description_is_readable() {
        let facts: Facts = serde_json::from_str(BUILT_IN).unwrap();
        for (name, platform) in &facts.platforms {
            assert!(facts.controllers.contains_key(&platform.controller), "{name}");
            let iommu = platform.host["iommu"].as_str().unwrap();
            assert!(facts.iommus.contains_key(iommu), "{name}");
        }
        for arch in facts.machines.values() {
            assert!(facts.platforms.contains_key(&arch.platform));
        }
        assert_eq!(facts.device(0x8086, 0x100e).unwrap().rom.0, [0x55, 0xaa, 0x93, 0xe9]);
        assert!(facts.device(1, 2).is_none());
    }

    #[test]
    fn a_file_comes_first_and_its_errors_have_a_place() {
        let facts = Facts::with(r#"{"devices":[{"id":"8086:10D3","rom":"00"}]}"#).unwrap();
        assert_eq!(facts.device(0x8086, 0x10d3).unwrap().rom.0, [0]);
        assert!(facts.device(0x1b36, 0x10).is_some());
        let (line, column, what) = Facts::with("{\n\"devices\":[{\"id\":7}]}").unwrap_err();
        assert_eq!((line, column), (2, 18));
        assert!(what.contains("expected a string"), "{what}");
        assert!(Facts::with(r#"{"devices":[{"id":"1:2","rom":"0"}]}"#).is_err());
    }
}
