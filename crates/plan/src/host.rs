//! A host to plan for: built in, or the header in a file; and what is known of it besides.

use std::io::{self, BufRead, ErrorKind, Read};
use std::path::Path;

use iommu::{Host, IovaRange, MsiPolicy};
use serde_json::{Map, Value, json};
use trace::{MAX_LINE, Reader, hosts, profile};

use crate::layout::{hex, not_json, open, text_of};
use crate::{BadInput, View};

/// A machine.
#[derive(Clone, Debug)]
pub struct KnownHost {
    /// What people call it: the built-in name, or the file's.
    pub name: String,
    /// What it is, in a sentence; may be empty.
    pub about: String,
    /// The kernel's release; empty where the header has none.
    pub kernel: String,
    /// The names of its IOMMUs, as many as `host` has.
    pub iommus: Vec<String>,
    /// IOMMUs, groups, interrupt controllers, limits, dialect.
    pub host: Host,
    /// What a process may lock; `None` where nobody knows.
    pub memlock: Option<Memlock>,
    /// What a capture could not find out and took for granted.
    pub not_known: Vec<String>,
    /// What containers said of themselves when it was captured: objects as in a header.
    pub asked: Vec<Value>,
    /// What the reader should know of how the header was taken.
    pub notes: Vec<String>,
}

/// `RLIMIT_MEMLOCK`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Memlock {
    /// So many bytes.
    Bytes(u64),
    /// No limit.
    Unlimited,
}

impl Memlock {
    /// As a header and our JSON have it.
    #[must_use]
    pub fn json(self) -> Value {
        match self {
            Self::Bytes(bytes) => json!(hex(bytes)),
            Self::Unlimited => json!("unlimited"),
        }
    }

    /// Reads a size, or `unlimited`.
    ///
    /// # Errors
    /// A sentence.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text == "unlimited" {
            return Ok(Self::Unlimited);
        }
        crate::size::parse(text).map(Self::Bytes)
    }
}

impl KnownHost {
    /// The host of that name: a built-in one, or the header in the file of that name (its first
    /// line, or the whole file).
    ///
    /// # Errors
    /// Which file, where, and what was expected.
    pub fn load(name: &Path) -> Result<Self, BadInput> {
        let header = header(name)?;
        Self::of_header(&header, &name.display().to_string())
    }

    /// The host of a header that people know as `name`.
    ///
    /// # Errors
    /// What was expected of which member.
    pub fn of_header(header: &Map<String, Value>, name: &str) -> Result<Self, BadInput> {
        let bad = |what: String| BadInput::new(name, what);
        let profile = profile::read(header).map_err(bad)?;
        let text = |member: &str| {
            profile.header.get(member).and_then(Value::as_str).unwrap_or_default().to_owned()
        };
        let not_known = match header.get("not_known") {
            None => Vec::new(),
            Some(Value::Array(list)) => {
                list.iter().filter_map(|v| v.as_str().map(str::to_owned)).collect()
            }
            Some(_) => return Err(bad("expected not_known to be a list of strings".into())),
        };
        let asked = match header.get("asked") {
            None => Vec::new(),
            Some(Value::Array(list)) if list.iter().all(Value::is_object) => list.clone(),
            Some(_) => return Err(bad("expected asked to be a list of objects".into())),
        };
        let memlock = match header.get("rlimit_memlock") {
            None => None,
            Some(Value::String(text)) => {
                Some(Memlock::parse(text).map_err(|what| bad(format!("rlimit_memlock: {what}")))?)
            }
            Some(Value::Number(number)) if number.is_u64() => number.as_u64().map(Memlock::Bytes),
            Some(_) => {
                return Err(bad("expected rlimit_memlock to be a size or \"unlimited\"".into()));
            }
        };
        let named =
            profile.header.get("host").and_then(|h| h.get("iommus")).and_then(Value::as_object);
        let iommus = match named {
            Some(named) => named.keys().cloned().collect(),
            None => profile.host.iommus.iter().map(|i| i.kind.clone()).collect(),
        };
        if profile.host.groups.is_empty() {
            return Err(bad(
                "expected a host with at least one IOMMU group, found none: there is \
                            nothing that VFIO could give to a guest"
                    .into(),
            ));
        }
        Ok(Self {
            name: name.to_owned(),
            about: text("about"),
            kernel: text("kernel"),
            iommus,
            host: profile.host,
            memlock,
            not_known,
            asked,
            notes: profile.notes,
        })
    }

    /// As JSON: a `softvfio-host/1`.
    #[must_use]
    pub fn json(&self) -> Value {
        let view = View::of(&self.host, None);
        let iommus: Vec<Value> = self
            .host
            .iommus
            .iter()
            .zip(&self.iommus)
            .map(|(iommu, name)| {
                let (msi, window, max_windows) = match iommu.msi {
                    MsiPolicy::Fixed { window } => ("fixed", json!(range(window)), Value::Null),
                    MsiPolicy::User { max_windows } => ("user", Value::Null, json!(max_windows)),
                    _ => ("implicit", Value::Null, Value::Null),
                };
                json!({
                    "name": name, "kind": iommu.kind, "aperture": range(iommu.aperture),
                    "page_sizes": hex(iommu.page_sizes.0), "msi": msi, "window": window,
                    "max_windows": max_windows, "msi_isolated": iommu.msi_isolated,
                    "coherent": iommu.coherent, "write_only": iommu.write_only,
                })
            })
            .collect();
        let controllers: Vec<Value> = self
            .host
            .controllers
            .iter()
            .map(|c| json!({"kind": c.kind, "doorbell": hex(c.doorbell)}))
            .collect();
        let groups: Vec<Value> = self
            .host
            .groups
            .iter()
            .map(|group| {
                let reserved: Vec<Value> = group.reserved.iter().map(|r| {
                json!({
                    "first": hex(r.range.first()), "last": hex(r.range.last()),
                    "kind": r.kind.to_string(), "owner": r.owner, "permission": r.prot.to_string(),
                })
            }).collect();
                let refused = view.refused.iter().find(|(number, _)| *number == group.number);
                json!({
                    "number": group.number, "iommu": group.iommu, "controller": group.controller,
                    "devices": group.devices, "reserved": reserved,
                    "refused": refused.map(|(_, why)| why),
                })
            })
            .collect();
        json!({
            "format": "softvfio-host/1", "name": self.name, "about": self.about,
            "kernel": self.kernel, "dialect": self.host.dialect.name,
            "page_size": self.host.page_size, "iommus": iommus, "controllers": controllers,
            "groups": groups, "valid": ranges(&view.valid), "granule": hex(view.granule),
            "limits": {
                "dma_entry_limit": self.host.limits.dma_entry_limit,
                "allow_unsafe_interrupts": self.host.limits.allow_unsafe_interrupts,
                "rlimit_memlock": self.memlock.map(Memlock::json),
            },
            "not_known": self.not_known, "asked": self.asked,
        })
    }
}

/// A range as JSON.
pub(crate) fn range(range: IovaRange) -> Value {
    json!({"first": hex(range.first()), "last": hex(range.last())})
}

/// Ranges as JSON.
pub(crate) fn ranges(list: &[IovaRange]) -> Vec<Value> {
    list.iter().map(|r| range(*r)).collect()
}

/// The header of a host: of a built-in one, or in the file of that name, its first line or all of
/// it; `-` is standard input.
///
/// # Errors
/// The file and the place in it, and what was expected there.
pub fn header(name: &Path) -> Result<Map<String, Value>, BadInput> {
    let built_in = name.to_str().and_then(hosts::header);
    built_in.map_or_else(|| read_header(name), Ok)
}

fn read_header(path: &Path) -> Result<Map<String, Value>, BadInput> {
    let place = path.display();
    let is_name = path.to_str().is_some_and(|text| text != "-" && !text.contains(['/', '.']));
    if is_name && !path.exists() {
        let names = hosts::names();
        return Err(BadInput::new(place, format!("expected a file, or a built-in host: {names}")));
    }
    let cannot = |error: io::Error| {
        let what = match error.kind() {
            ErrorKind::NotFound => "expected a profile: there is no such file".to_owned(),
            _ => format!("expected a profile: the file cannot be read: {error}"),
        };
        BadInput::new(&place, what)
    };
    let mut file = open(path).map_err(cannot)?;
    // The first line that says anything; no more than that of a trace.
    let limit = MAX_LINE as u64;
    let mut bytes = Vec::new();
    let mut line = 0;
    while bytes.get(line..).is_some_and(|line: &[u8]| line.trim_ascii().is_empty()) {
        line = bytes.len();
        let room = (limit + 1).saturating_sub(bytes.len() as u64);
        if (&mut file).take(room).read_until(b'\n', &mut bytes).map_err(cannot)? == 0 {
            break;
        }
    }
    let first = match Reader::new(bytes.as_slice(), place.to_string()).read_line() {
        Ok(Some(line)) => return Ok(line.to_map()),
        Ok(None) => {
            let what = "expected a profile, found an empty file";
            return Err(BadInput::at(place, 1, 1, what));
        }
        Err(error) => error,
    };
    // Not one line: perhaps one object over many. The second look names the place of what is wrong;
    // the third, as one line, finds what JSON lets pass and we do not.
    let room = (limit + 1).saturating_sub(bytes.len() as u64);
    file.take(room).read_to_end(&mut bytes).map_err(cannot)?;
    let text = text_of(bytes, path, limit, "a profile")?;
    if first.line != 1 || text.lines().filter(|line| !line.trim().is_empty()).count() < 2 {
        return Err(read_error(&first));
    }
    serde_json::from_str::<Map<String, Value>>(&text)
        .map_err(|error| not_json(path, &error, "a profile"))?;
    let one_line = text.replace(['\n', '\r'], " ");
    match Reader::new(one_line.as_bytes(), place.to_string()).read_line() {
        Ok(Some(line)) => Ok(line.to_map()),
        Ok(None) => Err(BadInput::new(place, "expected a profile, found nothing")),
        Err(error) => Err(BadInput::new(place, error.expected_clause())),
    }
}

fn read_error(error: &trace::ReadError) -> BadInput {
    let what = error.expected_clause();
    match error.line {
        0 => BadInput::new(&error.file, what),
        line => BadInput::at(
            &error.file,
            usize::try_from(line).unwrap_or(usize::MAX),
            error.column,
            what,
        ),
    }
}

/// What a read error says without its place.
trait Clause {
    fn expected_clause(&self) -> String;
}

impl Clause for trace::ReadError {
    fn expected_clause(&self) -> String {
        format!("expected {}", self.expected)
    }
}
