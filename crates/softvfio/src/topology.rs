//! A topology: a host and devices in a TOML file.
//!
//! ```toml
//! host = "x86-intel"
//! allow_unsafe_interrupts = true  # as the module parameter; false unless said
//!
//! [[device]]
//! kind = "nvme"
//! file = "disk.img"       # beside this file
//! group = 3
//! ```
//!
//! The keys are those of `--device`.

use std::ffi::OsString;
use std::path::Path;

use supervise::kinds::DeviceSpec;
use supervise::session::EmulatedDevice;
use toml::{Table, Value};

use crate::input;

/// What a file describes.
#[derive(Default)]
pub(crate) struct Topology {
    pub(crate) host: Option<OsString>,
    pub(crate) allow_unsafe_interrupts: bool,
    pub(crate) devices: Vec<EmulatedDevice>,
}

impl Topology {
    /// Reads a file and makes its devices.
    pub(crate) fn read(path: &Path) -> Result<Self, String> {
        let name = path.display();
        let text = input::text(path.as_os_str()).map_err(|error| error.to_string())?;
        let table: Table = text.parse().map_err(|error: toml::de::Error| {
            let line = error.span().map_or(1, |span| text[..span.start].lines().count().max(1));
            format!("{name}:{line}: {}", error.message())
        })?;
        let beside = path.parent().unwrap_or(Path::new(""));
        read(table, beside).map_err(|what| format!("{name}: {what}"))
    }
}

fn read(table: Table, beside: &Path) -> Result<Topology, String> {
    let mut topology = Topology::default();
    for (key, value) in table {
        match (key.as_str(), value) {
            ("host", Value::String(host)) => topology.host = Some(find_host(&host, beside)),
            ("host", _) => return Err("host: expected the name of a host, or a file's".into()),
            ("allow_unsafe_interrupts", Value::Boolean(yes)) => {
                topology.allow_unsafe_interrupts = yes;
            }
            ("allow_unsafe_interrupts", _) => {
                return Err("allow_unsafe_interrupts: expected true or false".into());
            }
            ("device", Value::Array(devices)) => {
                for (n, value) in devices.into_iter().enumerate() {
                    let what = |why| format!("device {}: {why}", n + 1);
                    topology.devices.push(device(value, beside).map_err(what)?);
                }
            }
            ("device", _) => return Err("device: expected [[device]]".into()),
            (key, _) => {
                let known = "host, allow_unsafe_interrupts and [[device]]";
                return Err(format!("{key}: there is only {known}"));
            }
        }
    }
    Ok(topology)
}

/// A built-in host, or a file beside ours.
fn find_host(host: &str, beside: &Path) -> OsString {
    let built_in = trace::hosts::list().any(|(name, _)| name == host);
    if built_in { host.into() } else { beside.join(host).into_os_string() }
}

fn device(value: Value, beside: &Path) -> Result<EmulatedDevice, String> {
    let Value::Table(table) = value else { return Err("expected a table".into()) };
    let (mut kind, mut keys) = (None, Vec::new());
    for (key, value) in table {
        let text = match (key.as_str(), value) {
            ("kind", Value::String(text)) => {
                kind = Some(text);
                continue;
            }
            ("file", Value::String(path)) => beside.join(path).into_os_string(),
            (_, Value::String(text)) => text.into(),
            (_, Value::Integer(number)) => number.to_string().into(),
            (_, Value::Boolean(yes)) => yes.to_string().into(),
            (key, _) => {
                return Err(format!("{key}: expected a string, a number, or true or false"));
            }
        };
        keys.push((key, text));
    }
    let kind = kind.ok_or("kind: expected the device's kind, as in --device")?;
    DeviceSpec::new(&kind, keys).make().map_err(|bad| bad.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Result<Topology, String> {
        read(text.parse().unwrap(), Path::new("/nowhere"))
    }

    #[test]
    fn hosts_and_devices() {
        let text = "host = \"x86-amd\"\nallow_unsafe_interrupts = true\n[[device]]\nkind = \"nvme\"\nsize = \"64M\"\ngroup = 3\n\
                    readonly = true\n[[device]]\nkind = \"edu\"\naddr = \"0000:09:00.0\"\n";
        let topology = of(text).unwrap();
        assert!(topology.allow_unsafe_interrupts);
        assert_eq!(topology.devices.len(), 2);
        assert_eq!((topology.devices[0].group, topology.devices[1].group), (Some(3), None));
        assert_eq!(topology.host.unwrap(), "x86-amd");
        assert_eq!(of("host = \"mine.json\"").unwrap().host.unwrap(), "/nowhere/mine.json");
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, says) in [
            ("hots = \"x\"", "hots: there is only host"),
            ("host = 3", "host: expected"),
            ("allow_unsafe_interrupts = 1", "allow_unsafe_interrupts: expected true"),
            ("device = 3", "device: expected [[device]]"),
            ("[[device]]\nkind = \"edu\"\n[[device]]\nfile = \"a\"", "device 2: kind: expected"),
            ("[[device]]\nkind = \"edu\"\nspeed = 3", "device 1: edu has no key \"speed\""),
            ("[[device]]\nkind = \"edu\"\ngroup = [3]", "device 1: group: expected a string"),
            ("[[device]]\nkind = \"nvme\"\nfile = \"a\"", "device 1: nvme: /nowhere/a: No such"),
        ] {
            let refused = of(text).err().unwrap();
            assert!(refused.contains(says), "{text}: {refused}");
        }
    }
}
