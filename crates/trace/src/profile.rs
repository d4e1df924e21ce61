//! A host to run on: a header's machine, with devices of one's own in the place of its.

use iommu::{Dialect, Host};
use serde_json::{Map, Value, json};
use vfio::Abi;
use vfio::device::PciFunction;

use crate::hosts;
use crate::machine::{BadHeader, Facts, Header, Machine};
use crate::world::function;

/// A device to be placed on a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// What requests call it.
    pub name: String,
    /// What it is, for whoever replays a record: `nvme`, `edu`.
    pub model: String,
    /// Its address: `0000:01:00.0`.
    pub bdf: String,
    /// Its group.
    pub group: u32,
    /// Which of the host's own devices it is connected as, by name (IOMMU, interrupt controller,
    /// reserved regions); or an IOMMU's name, for the first device behind that. The first of all when
    /// absent.
    pub like: Option<String>,
    /// BARs and expansion ROM: start, last address, flags, as in sysfs.
    pub resource: Vec<(u64, u64, u64)>,
    /// Its configuration space, 256 or 4096 bytes.
    pub config: Vec<u8>,
    /// The ways to reset it, as sysfs has them: `flr pm`.
    pub reset_method: String,
}

/// A machine, ready to be used.
#[derive(Clone, Debug)]
pub struct Profile {
    /// The header that describes it: a trace recorded on it begins with this.
    pub header: Map<String, Value>,
    /// IOMMUs, groups, interrupt controllers, limits, dialect.
    pub host: Host,
    /// The functions, in the order of the placements.
    pub functions: Vec<PciFunction>,
    /// Which numbers programs speak.
    pub abi: Abi,
    /// What the user should know of how the header was taken.
    pub notes: Vec<String>,
}

/// The header of a built-in host, or of the file of that name: its first line, or all of it.
///
/// # Errors
/// A sentence: there is neither, or what is wrong with the file.
pub fn host_header(name: &str) -> Result<Map<String, Value>, String> {
    if let Some(header) = hosts::header(name) {
        return Ok(header);
    }
    let text = std::fs::read_to_string(name).map_err(|error| {
        format!(
            "{name} is no built-in host ({}) and no file that can be read: {error}",
            hosts::names()
        )
    })?;
    let first = text.lines().next().unwrap_or_default();
    let parsed = serde_json::from_str(first).or_else(|_| serde_json::from_str(&text));
    parsed.map_err(|error| format!("{name}: no header of a host: {error}"))
}

/// The machine of a header as it stands, with the header's own devices.
///
/// # Errors
/// A sentence that names the member of the header that cannot be used.
pub fn read(header: &Map<String, Value>) -> Result<Profile, String> {
    let mut header = header.clone();
    let sentence = |bad: BadHeader| format!("expected {}", bad.expected);
    hosts::complete(&mut header).map_err(sentence)?;
    let read = Header::read(&header).map_err(sentence)?;
    let machine = Machine::build(&read, &Facts::default(), None, None).map_err(sentence)?;
    Ok(Profile {
        functions: machine.devices.iter().map(function).collect(),
        host: machine.host,
        abi: machine.abi,
        notes: machine.notes,
        header,
    })
}

/// The header with a parameter of `vfio_iommu_type1` as the machine was booted with it.
///
/// # Errors
/// A sentence that names the member of the header that cannot be used.
pub fn with_parameter(
    header: &Map<String, Value>,
    name: &str,
    value: Value,
) -> Result<Map<String, Value>, String> {
    let mut header = header.clone();
    // The other parameters stay those of the host that is built in.
    hosts::complete(&mut header).map_err(|bad| format!("expected {}", bad.expected))?;
    let params = header.entry("module_params").or_insert_with(|| json!({}));
    let Value::Object(params) = params else {
        return Err("expected module_params to be an object".into());
    };
    params.insert(name.into(), value);
    Ok(header)
}

/// Puts devices on the host of a header.
///
/// # Errors
/// A sentence that names the member of the header that cannot be used, or the placement.
pub fn place(
    header: &Map<String, Value>,
    placements: &[Placement],
    dialect: Option<&'static Dialect>,
    abi: Option<Abi>,
) -> Result<Profile, String> {
    let mut header = header.clone();
    hosts::complete(&mut header).map_err(|bad| format!("expected {}", bad.expected))?;
    let own = match header.get("devices") {
        Some(Value::Object(own)) => own.clone(),
        _ => return Err("the host's header describes no devices to take the place of".into()),
    };
    let mut devices = Map::new();
    for placement in placements {
        let template = template(&own, placement)?;
        devices
            .insert(placement.name.clone(), Value::Object(device(placement, template, placements)));
    }
    if let Some(dialect) = dialect {
        header.insert("kernel".into(), release_of(dialect).into());
    }
    if let Some(abi) = abi {
        header.insert("abi".into(), abi.name().into());
    }
    header.insert("devices".into(), Value::Object(devices));
    let read = |header| {
        let header = Header::read(header)?;
        Machine::build(&header, &Facts::default(), dialect, abi)
    };
    let machine = read(&header).map_err(|bad| format!("expected {}", bad.expected))?;
    header.insert("abi".into(), machine.abi.name().into());
    Ok(Profile {
        functions: machine.devices.iter().map(function).collect(),
        host: machine.host,
        abi: machine.abi,
        notes: machine.notes,
        header,
    })
}

/// A release that a header names for a dialect.
fn release_of(dialect: &Dialect) -> String {
    format!("{}.0", dialect.name)
}

fn template<'a>(
    own: &'a Map<String, Value>,
    placement: &Placement,
) -> Result<&'a Map<String, Value>, String> {
    let objects = || own.iter().filter_map(|(name, device)| Some((name, device.as_object()?)));
    let found = match &placement.like {
        None => objects().next(),
        Some(like) => objects().find(|(name, _)| *name == like).or_else(|| {
            objects().find(|(_, d)| d.get("iommu").and_then(Value::as_str) == Some(like))
        }),
    };
    found.map(|(_, device)| device).ok_or_else(|| {
        let names = own.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
        let like = placement.like.as_deref().unwrap_or("any");
        format!("{}: the host has no IOMMU or device {like} (its devices: {names})", placement.bdf)
    })
}

fn device(
    placement: &Placement,
    template: &Map<String, Value>,
    all: &[Placement],
) -> Map<String, Value> {
    let mut device = Map::new();
    for member in ["iommu", "controller", "doorbell", "reserved_regions", "group_type"] {
        if let Some(value) = template.get(member) {
            device.insert(member.into(), value.clone());
        }
    }
    let used = placement.config.iter().rposition(|b| *b != 0).map_or(0, |last| last + 1);
    let config: String =
        placement.config.iter().take(used).map(|byte| format!("{byte:02x}")).collect();
    let group: Vec<&str> =
        all.iter().filter(|p| p.group == placement.group).map(|p| p.bdf.as_str()).collect();
    let resource: Vec<Value> = placement
        .resource
        .iter()
        .map(|(start, last, flags)| {
            json!([format!("{start:#x}"), format!("{last:#x}"), format!("{flags:#x}")])
        })
        .collect();
    let members = [
        ("model", json!(placement.model)),
        ("bdf", json!(placement.bdf)),
        ("group", json!(placement.group)),
        ("driver", json!("vfio-pci")),
        ("group_devices", json!(group)),
        ("resource", json!(resource)),
        ("config", json!(config)),
        ("config_size", json!(placement.config.len())),
        // Emulators of root ports lose it (`machines.json`); no hardware should.
        ("link_comes_back", json!(true)),
    ];
    device.extend(members.map(|(name, value)| (name.to_owned(), value)));
    if !placement.reset_method.is_empty() {
        device.insert("reset_method".into(), json!(placement.reset_method));
    }
    device
}

#[cfg(test)]
mod tests {
    use super::*;

    fn placement(name: &str, like: Option<&str>) -> Placement {
        Placement {
            name: name.into(),
            model: "edu".into(),
            bdf: format!("0000:0{}:00.0", name.len()),
            group: u32::try_from(name.len()).unwrap(),
            like: like.map(Into::into),
            resource: vec![(0x1_0000_0000, 0x1_0000_3fff, 0x14_0204)],
            config: [&[0x34, 0x12, 0xe8, 0x11][..], &[0; 252]].concat(),
            reset_method: "flr".into(),
        }
    }

    #[test]
    fn every_host_takes_devices() {
        for (name, _) in hosts::list() {
            let header = host_header(name).unwrap();
            let placed =
                place(&header, &[placement("a", None), placement("bb", None)], None, None).unwrap();
            assert_eq!((placed.host.groups.len(), placed.functions.len()), (2, 2), "{name}");
            assert_eq!(placed.host.groups[1].devices, ["0000:02:00.0"]);
            // What is recorded on it is replayed on the same.
            let machine = Header::read(&placed.header).unwrap();
            let machine = Machine::build(&machine, &Facts::default(), None, None).unwrap();
            assert_eq!((machine.host, machine.abi), (placed.host, placed.abi), "{name}");
        }
    }

    #[test]
    fn a_header_is_read_with_its_own_devices() {
        for (name, _) in hosts::list() {
            let profile = read(&hosts::header(name).unwrap()).unwrap();
            assert_eq!(profile.functions.len(), profile.host.groups.len(), "{name}");
        }
        let mut header = Map::new();
        header.insert("built_in".into(), "x86-amd".into());
        assert_eq!(read(&header).unwrap().host.iommus[0].kind, "amd-vi");
        header.insert("page_size".into(), 5.into());
        assert!(read(&header).unwrap_err().contains("page_size"));
    }

    #[test]
    fn a_device_goes_behind_the_iommu_that_is_named() {
        let header = host_header("mixed").unwrap();
        let device = header["devices"].as_object().unwrap();
        let (name, iommu) =
            device.iter().next_back().map(|(n, d)| (n, d["iommu"].as_str().unwrap())).unwrap();
        for like in [name.as_str(), iommu] {
            let placed = place(&header, &[placement("a", Some(like))], None, None).unwrap();
            let names: Vec<_> = header["host"]["iommus"].as_object().unwrap().keys().collect();
            assert_eq!(names[placed.host.groups[0].iommu], iommu);
        }
        let refused = place(&header, &[placement("a", Some("moon"))], None, None).unwrap_err();
        assert!(refused.contains("moon") && refused.contains(name), "{refused}");
    }

    #[test]
    fn dialect_and_abi_stand_in_the_header() {
        let header = host_header("x86-intel").unwrap();
        let v6 = dialect("6.1");
        let placed =
            place(&header, &[placement("a", None)], Some(v6), Some(Abi::Reviewed)).unwrap();
        assert_eq!((placed.host.dialect.name, placed.abi), ("6.1", Abi::Reviewed));
        assert_eq!(
            (&placed.header["kernel"], &placed.header["abi"]),
            (&"6.1.0".into(), &"reviewed".into())
        );
        assert!(host_header("moon").unwrap_err().contains("x86-amd"));
    }

    #[test]
    fn a_parameter_leaves_the_others_as_they_are() {
        let mut header = Map::new();
        header.insert("built_in".into(), "arm-smmuv3-gicv2m".into());
        let header = with_parameter(&header, "allow_unsafe_interrupts", true.into()).unwrap();
        assert_eq!(header["module_params"]["dma_entry_limit"], 65535);
        let placed = place(&header, &[placement("a", None)], None, None).unwrap();
        assert!(placed.host.limits.allow_unsafe_interrupts);
        assert_eq!(placed.header["module_params"]["allow_unsafe_interrupts"], true);
        let bad = Map::from_iter([("module_params".to_owned(), 7.into())]);
        assert!(with_parameter(&bad, "a", true.into()).unwrap_err().contains("module_params"));
    }

    fn dialect(name: &str) -> &'static Dialect {
        crate::dialect_of(&format!("{name}.0")).unwrap().0
    }
}
