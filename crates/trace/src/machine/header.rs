//! A trace's first line, read.

use serde_json::{Map, Value};
use vfio::Abi;

use super::facts::parse_hex;
use crate::reader::kind;
use crate::request::parse_number;

/// A member of a header that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BadHeader {
    /// The header's own member that it is or that it is in.
    pub(crate) member: String,
    /// What was expected, with the path.
    pub(crate) expected: String,
}

/// Devices a header may have.
const MAX_DEVICES: usize = 256;

/// A reserved region: first, last, kind as sysfs prints it.
pub(crate) type Reserved = (u64, u64, String);

/// A device of a header.
#[derive(Clone, Debug)]
pub(crate) struct HeaderDevice {
    pub(crate) name: String,
    pub(crate) bdf: String,
    pub(crate) group: u32,
    /// The IOMMU's name, where the host has several.
    pub(crate) iommu: Option<String>,
    /// The interrupt controller's kind, in place of the IOMMU's.
    pub(crate) controller: Option<String>,
    /// The doorbell's physical address, in place of the controller's.
    pub(crate) doorbell: Option<u64>,
    pub(crate) driver: Option<String>,
    pub(crate) group_devices: Vec<String>,
    pub(crate) reserved: Vec<Reserved>,
    /// Start, end, flags of BARs and ROM.
    pub(crate) resource: Vec<(u64, u64, u64)>,
    pub(crate) config: Vec<u8>,
    pub(crate) config_size: usize,
    pub(crate) reset_method: Option<String>,
    /// Whether its BARs can be mapped.
    pub(crate) mappable: bool,
    /// Whether its link comes back after a reset of its bus; the architecture's when absent.
    pub(crate) link_comes_back: Option<bool>,
}

/// What a header says of the machine.
#[derive(Clone, Debug)]
pub(crate) struct Header {
    pub(crate) platform: Option<String>,
    pub(crate) kernel: Option<String>,
    pub(crate) machine: Option<String>,
    pub(crate) abi: Option<Abi>,
    pub(crate) page_size: u64,
    pub(crate) params: Map<String, Value>,
    pub(crate) host: Map<String, Value>,
    /// Where BAR 0 begins in a device's file.
    pub(crate) bar0_base: u64,
    pub(crate) devices: Vec<HeaderDevice>,
}

impl Header {
    /// Reads a header's members.
    pub(crate) fn read(members: &Map<String, Value>) -> Result<Self, BadHeader> {
        let at = At { members, top: None, path: String::new() };
        let Some(devices) = members.get("devices") else {
            let expected = "a header that describes the machine's devices (a recorded one, or \
                            --host FILE with one)";
            return Err(BadHeader { member: String::new(), expected: expected.into() });
        };
        let Value::Object(devices) = devices else {
            return at.bad("devices", "an object");
        };
        if devices.len() > MAX_DEVICES {
            return at.bad("devices", "at most 256 devices");
        }
        let page_size = at.number("page_size")?.unwrap_or(4096);
        if !page_size.is_power_of_two() || !(4096..=65536).contains(&page_size) {
            return at.bad("page_size", "a power of two between 4096 and 65536");
        }
        let abi = match at.text("abi")?.as_deref().map(Abi::named) {
            Some(None) => return at.bad("abi", "kernel, reviewed or msi-v6"),
            abi => abi.flatten(),
        };
        Ok(Self {
            abi,
            platform: at.text("platform")?,
            kernel: at.text("kernel")?,
            machine: at.text("machine")?,
            page_size,
            bar0_base: at.number("bar0_base")?.unwrap_or(0),
            params: at.object("module_params")?.cloned().unwrap_or_default(),
            host: at.object("host")?.cloned().unwrap_or_default(),
            devices: devices
                .iter()
                .map(|(name, device)| HeaderDevice::read(name, device))
                .collect::<Result<_, _>>()?,
        })
    }
}

impl HeaderDevice {
    fn read(name: &str, device: &Value) -> Result<Self, BadHeader> {
        let path = format!("devices.{name}");
        let Value::Object(members) = device else {
            let expected = format!("{path} to be an object, found {}", kind(device));
            return Err(BadHeader { member: "devices".into(), expected });
        };
        let at = At { members, top: Some("devices"), path };
        let bdf = match at.text("bdf")? {
            Some(bdf) if bdf.parse::<pci::Bdf>().is_ok() => bdf,
            _ => return at.bad("bdf", "an address like 0000:00:03.0"),
        };
        let group = match at.number("group")?.map(u32::try_from) {
            Some(Ok(group)) => group,
            // The recording program gives -1 to a device in no group.
            _ => return at.bad("group", "an IOMMU group number"),
        };
        let config = at.text("config")?.unwrap_or_default();
        let Some(config) = parse_hex(&config).filter(|c| c.len() <= 4096) else {
            return at.bad("config", "at most 4096 bytes as hexadecimal digits");
        };
        let config_size = match at.number("config_size")? {
            None | Some(256) => 256,
            Some(4096) => 4096,
            // Only the first 64 bytes are there for somebody without privileges.
            Some(64) => 256,
            Some(_) => return at.bad("config_size", "256 or 4096"),
        };
        let triples = |member| at.list(member, 64, |v| triple(v).map(|[a, b, c]| (a, b, c)));
        Ok(Self {
            name: name.into(),
            group_devices: at.list("group_devices", 1024, |v| Some(v.as_str()?.to_owned()))?,
            reserved: at.list("reserved_regions", 1024, reserved)?,
            resource: triples("resource")?,
            driver: at.text("driver")?,
            iommu: at.text("iommu")?,
            controller: at.text("controller")?,
            doorbell: at.number("doorbell")?,
            reset_method: at.text("reset_method")?,
            mappable: at.flag("mappable")?.unwrap_or(true),
            link_comes_back: at.flag("link_comes_back")?,
            bdf,
            group,
            config,
            config_size,
        })
    }
}

fn number(value: &Value) -> Option<u64> {
    match value {
        Value::Number(number) => number.as_u64(),
        Value::String(text) => parse_number(text),
        _ => None,
    }
}

fn triple(value: &Value) -> Option<[u64; 3]> {
    let [a, b, c] = value.as_array()?.as_slice() else { return None };
    Some([number(a)?, number(b)?, number(c)?])
}

fn reserved(value: &Value) -> Option<Reserved> {
    let [first, last, kind] = value.as_array()?.as_slice() else { return None };
    let (first, last) = (number(first)?, number(last)?);
    (first <= last).then_some(())?;
    Some((first, last, kind.as_str()?.to_owned()))
}

/// A place in a header.
pub(crate) struct At<'a> {
    pub(crate) members: &'a Map<String, Value>,
    /// The header's own member this is in; none at the top.
    pub(crate) top: Option<&'a str>,
    pub(crate) path: String,
}

impl<'a> At<'a> {
    pub(crate) fn bad<T>(&self, member: &str, what: &str) -> Result<T, BadHeader> {
        let dot = if self.path.is_empty() { "" } else { "." };
        let found = match self.members.get(member) {
            None => "nothing".to_owned(),
            Some(value) => value.to_string().chars().take(40).collect(),
        };
        let expected = format!("{}{dot}{member} to be {what}, found {found}", self.path);
        Err(BadHeader { member: self.top.unwrap_or(member).to_owned(), expected })
    }

    pub(crate) fn text(&self, member: &str) -> Result<Option<String>, BadHeader> {
        match self.members.get(member) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(_) => self.bad(member, "a string"),
        }
    }

    pub(crate) fn number(&self, member: &str) -> Result<Option<u64>, BadHeader> {
        match self.members.get(member) {
            None => Ok(None),
            Some(value) => match number(value) {
                Some(number) => Ok(Some(number)),
                None => self.bad(member, "a number of at most 64 bits"),
            },
        }
    }

    pub(crate) fn flag(&self, member: &str) -> Result<Option<bool>, BadHeader> {
        match self.members.get(member) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(_) => self.bad(member, "true or false"),
        }
    }

    pub(crate) fn object(&self, member: &str) -> Result<Option<&'a Map<String, Value>>, BadHeader> {
        match self.members.get(member) {
            None => Ok(None),
            Some(Value::Object(object)) => Ok(Some(object)),
            Some(_) => self.bad(member, "an object"),
        }
    }

    pub(crate) fn list<T>(
        &self,
        member: &str,
        limit: usize,
        read: impl Fn(&Value) -> Option<T>,
    ) -> Result<Vec<T>, BadHeader> {
        let what = format!("a list of at most {limit} of the documented form");
        match self.members.get(member) {
            None => Ok(Vec::new()),
            Some(Value::Array(values)) if values.len() <= limit => {
                match values.iter().map(read).collect() {
                    Some(list) => Ok(list),
                    None => self.bad(member, &what),
                }
            }
            Some(_) => self.bad(member, &what),
        }
    }
}
