//! A device in a line of text, as a command line has it.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::str::FromStr;

use super::{COMMON_KEYS, KINDS, Kind};
use crate::session::{EmulatedDevice, MmioMode};

/// A device's text that cannot be used: a sentence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadSpec(pub String);

/// A device as text: `KIND[,key=value...]`. A comma within a value is doubled. Values may be any
/// bytes, as the names of files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceSpec {
    kind: String,
    keys: Vec<(String, Option<OsString>)>,
}

impl FromStr for DeviceSpec {
    type Err = BadSpec;

    fn from_str(text: &str) -> Result<Self, BadSpec> {
        Self::try_from(OsStr::new(text))
    }
}

impl TryFrom<&OsStr> for DeviceSpec {
    type Error = BadSpec;

    fn try_from(text: &OsStr) -> Result<Self, BadSpec> {
        let mut parts = parts(text.as_bytes()).into_iter();
        // A word that is not UTF-8 is none of ours, and shown as far as it can be.
        let word = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let kind = word(&parts.next().unwrap_or_default());
        let mut keys: Vec<(String, Option<OsString>)> = Vec::new();
        for mut part in parts {
            let value = part.iter().position(|byte| *byte == b'=').map(|at| {
                let value = part.split_off(at + 1);
                part.truncate(at);
                OsString::from_vec(value)
            });
            let key = word(&part);
            if keys.iter().any(|(known, _)| *known == key) {
                return Err(BadSpec(format!("{kind}: {key} stands there twice")));
            }
            keys.push((key, value));
        }
        Ok(Self { kind, keys })
    }
}

/// The text cut at commas; two commas are one within a part.
fn parts(text: &[u8]) -> Vec<Vec<u8>> {
    let mut parts = vec![Vec::new()];
    let mut rest = text.iter().copied().peekable();
    while let Some(byte) = rest.next() {
        match byte {
            b',' if rest.next_if_eq(&b',').is_none() => parts.push(Vec::new()),
            byte => parts.last_mut().into_iter().for_each(|part| part.push(byte)),
        }
    }
    parts
}

impl DeviceSpec {
    /// From its parts, as a file has them.
    #[must_use]
    pub fn new(kind: &str, keys: impl IntoIterator<Item = (String, OsString)>) -> Self {
        let keys = keys.into_iter().map(|(key, value)| (key, Some(value))).collect();
        Self { kind: kind.into(), keys }
    }

    /// Makes the device.
    ///
    /// # Errors
    /// [`BadSpec`] names the key, and what it takes.
    pub fn make(&self) -> Result<EmulatedDevice, BadSpec> {
        let Some(kind) = KINDS.iter().find(|kind| kind.name == self.kind) else {
            let names: Vec<_> = KINDS.iter().map(|kind| kind.name).collect();
            let what = &self.kind;
            return Err(BadSpec(format!(
                "there is no device {what:?}; there are {}",
                names.join(", ")
            )));
        };
        let all: BTreeMap<_, _> = self.keys.iter().cloned().collect();
        let polled = all.get("mmio").is_some_and(|mode| mode.as_deref() == Some("poll".as_ref()));
        let mut keys = Keys { kind, polled, keys: all };
        let addr = keys.parsed("addr", "an address such as 0000:03:00.0")?;
        let group = keys.number("group")?;
        let group = group
            .map(u32::try_from)
            .transpose()
            .map_err(|_| keys.bad("group", "a number of 32 bits"))?;
        let iommu = keys.text("iommu")?;
        let mmio = match keys.text("mmio")?.as_deref() {
            None => None,
            Some("poll") => Some(MmioMode::Poll),
            Some("trap") => Some(MmioMode::Trap),
            Some("none") => Some(MmioMode::None),
            Some(_) => return Err(keys.bad("mmio", "poll, trap or none")),
        };
        let device = (kind.make)(&mut keys)?;
        if let Some(key) = keys.keys.keys().next() {
            let known = COMMON_KEYS.iter().chain(kind.keys).map(|(key, _)| *key);
            let known = known.map(|key| key.split('=').next().unwrap_or(key));
            let (name, known) = (kind.name, known.collect::<Vec<_>>().join(", "));
            return Err(BadSpec(format!("{name} has no key {key:?}; it has {known}")));
        }
        Ok(EmulatedDevice { bdf: addr, group, iommu, mmio: mmio.or(device.mmio), ..device })
    }
}

/// The keys of a device that were not used yet.
pub(super) struct Keys {
    kind: &'static Kind,
    polled: bool,
    keys: BTreeMap<String, Option<OsString>>,
}

impl Keys {
    /// Whether the registers are to be polled.
    pub(super) const fn polled(&self) -> bool {
        self.polled
    }

    /// That a key's value is wrong.
    pub(super) fn bad(&self, key: &str, what: &str) -> BadSpec {
        BadSpec(format!("{}: expected {key} to be {what}", self.kind.name))
    }

    pub(super) fn text(&mut self, key: &str) -> Result<Option<String>, BadSpec> {
        let text = self.path(key)?.map(OsString::into_string);
        text.transpose().map_err(|_| self.bad(key, "UTF-8"))
    }

    /// Any bytes.
    pub(super) fn path(&mut self, key: &str) -> Result<Option<OsString>, BadSpec> {
        match self.keys.remove(key) {
            None => Ok(None),
            Some(Some(value)) if !value.is_empty() => Ok(Some(value)),
            Some(_) => Err(self.bad(key, "followed by = and a value")),
        }
    }

    pub(super) fn flag(&mut self, key: &str) -> Result<bool, BadSpec> {
        match self.keys.remove(key) {
            None => Ok(false),
            Some(None) => Ok(true),
            Some(Some(value)) if value == "true" || value == "on" => Ok(true),
            Some(Some(value)) if value == "false" || value == "off" => Ok(false),
            Some(Some(_)) => Err(self.bad(key, "on or off")),
        }
    }

    fn parsed<T: FromStr>(&mut self, key: &str, what: &str) -> Result<Option<T>, BadSpec> {
        let Some(text) = self.text(key)? else { return Ok(None) };
        text.parse().map(Some).map_err(|_| self.bad(key, what))
    }

    pub(super) fn number(&mut self, key: &str) -> Result<Option<u64>, BadSpec> {
        self.parsed(key, "a number")
    }

    /// Bytes, with K, M, G or T behind for powers of 1024.
    pub(super) fn size(&mut self, key: &str) -> Result<Option<u64>, BadSpec> {
        let Some(text) = self.text(key)? else { return Ok(None) };
        size(&text).map(Some).ok_or_else(|| self.bad(key, "bytes such as 4096, 64M or 1G"))
    }
}

/// Bytes as text: `4096`, `64K`, `1.5G`; powers of 1024. Not 0, nor more than a file may have.
#[must_use]
pub fn size(text: &str) -> Option<u64> {
    let bytes = trace::size::parse(text).ok()?;
    Some(bytes).filter(|n| *n != 0 && i64::try_from(*n).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn make(text: &str) -> Result<EmulatedDevice, String> {
        text.parse::<DeviceSpec>().and_then(|spec| spec.make()).map_err(|bad| bad.0)
    }

    #[test]
    fn keys_are_taken() {
        let device = make("nvme,addr=0000:05:00.0,group=7,mmio=none,size=64M,readonly").unwrap();
        assert_eq!(device.bdf.unwrap().to_string(), "0000:05:00.0");
        assert_eq!((device.group, device.mmio), (Some(7), Some(MmioMode::None)));
        assert!(make("edu").unwrap().mmio.is_none());
        assert_eq!(parts(b"nvme,file=a,,b,c"), [&b"nvme"[..], b"file=a,b", b"c"]);
        assert_eq!(parts(b"nvme,"), [&b"nvme"[..], b""]);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, says) in [
            ("moon", "there is no device \"moon\"; there are nvme"),
            ("", "there is no device \"\""),
            ("edu,size=1", "edu has no key \"size\"; it has addr, group"),
            ("nvme,size=0", "size to be bytes"),
            ("nvme,size=9E", "size to be bytes"),
            ("nvme,size=99999999999T", "size to be bytes"),
            ("nvme,block=513", "block to be 512 or 4096"),
            ("nvme,addr=1", "addr to be an address"),
            ("nvme,group=4294967296", "group to be a number of 32 bits"),
            ("nvme,mmio=fast", "mmio to be poll, trap or none"),
            ("nvme,group", "group to be followed by ="),
            ("nvme,group=1,group=1", "group stands there twice"),
            ("nvme,vectors=0", "vectors to be 1 to 256"),
            ("nvme,file=/nonexistent", "nvme: /nonexistent: No such file"),
            ("nvme,", "nvme has no key \"\""),
        ] {
            let refused = make(text).err().unwrap();
            assert!(refused.contains(says), "{text}: {refused}");
        }
    }

    #[test]
    fn only_values_that_are_paths_may_be_any_bytes() {
        for (text, says) in [
            (&b"nvme,file=/nonexistent/\xff"[..], "nvme: /nonexistent/\u{fffd}: No such file"),
            (b"nvme,serial=\xff", "serial to be UTF-8"),
            (b"nvme,readonly=\xff", "readonly to be on or off"),
            (b"nvme,\xff=1", "nvme has no key \"\u{fffd}\""),
            (b"\xff", "there is no device \"\u{fffd}\""),
        ] {
            let spec = DeviceSpec::try_from(OsStr::from_bytes(text)).unwrap();
            let refused = spec.make().err().unwrap().0;
            assert!(refused.contains(says), "{text:?}: {refused}");
        }
    }
}
