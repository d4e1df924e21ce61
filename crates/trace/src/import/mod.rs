//! Logs of other programs as traces, as far as they carry what a request was.
//!
//! `strace` shows that a request was issued and what was answered, and of VFIO's structures nothing
//! but their address. QEMU's `-trace 'vfio*'` shows what is mapped where, and of answers only
//! failures. What is missing is counted by kind, with line numbers; nothing is made up but the
//! client's memory, of which no log has the contents: one memory takes the place of all.

mod qemu;
mod strace;

use std::collections::BTreeMap;
use std::io::{BufRead, Read};

use serde_json::{Map, Value, json};

use crate::hosts;
use crate::reader::{MAX_LINE, ReadError};

/// Slots of a kind that a trace has.
const SLOTS: usize = 8;

/// What wrote a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `strace -f -e trace=ioctl,openat,close,mmap,pread64,pwrite64`.
    Strace,
    /// `qemu -trace 'vfio*'`.
    Qemu,
}

/// A log as a trace.
#[derive(Clone, Debug, Default)]
pub struct Imported {
    /// Requests and notes, in order.
    lines: Vec<Value>,
    /// Devices: their address (or what is known of it) and group.
    devices: Vec<(String, u32)>,
    /// Bytes of the largest mapping.
    memory: u64,
    /// Lines read.
    pub read: u64,
    /// Requests made of them.
    pub requests: u64,
    /// What could not be made a request, and in which lines.
    pub missing: BTreeMap<String, Vec<u64>>,
    /// What was assumed.
    pub assumed: Vec<String>,
}

/// Reads a log.
///
/// # Errors
/// [`ReadError`] when it cannot be read, or nothing in it is about VFIO.
pub fn import(mut input: impl BufRead, format: Format, file: &str) -> Result<Imported, ReadError> {
    let mut imported = Imported::default();
    let mut strace = strace::Strace::default();
    let mut qemu = qemu::Qemu::default();
    let error = |line, expected: String| ReadError { file: file.into(), line, column: 0, expected };
    loop {
        let mut bytes = Vec::new();
        let limit = MAX_LINE as u64 + 1;
        let read = (&mut input).take(limit).read_until(b'\n', &mut bytes);
        match read {
            Err(why) => return Err(error(0, format!("a readable file: {why}"))),
            Ok(0) => break,
            Ok(n) if n > MAX_LINE => {
                return Err(error(imported.read + 1, "a line of at most 8 MiB".into()));
            }
            Ok(_) => {}
        }
        imported.read += 1;
        let line = String::from_utf8_lossy(&bytes);
        match format {
            Format::Strace => strace.line(line.trim_end(), &mut imported),
            Format::Qemu => qemu.line(line.trim_end(), &mut imported),
        }
    }
    if imported.requests == 0 {
        let what = match format {
            Format::Strace => "strace of a program that opens /dev/vfio/vfio",
            Format::Qemu => "log of QEMU's -trace 'vfio*'",
        };
        let missing: Vec<&str> = imported.missing.keys().map(String::as_str).collect();
        let found = match missing.as_slice() {
            [] => "found none of its requests".to_owned(),
            missing => format!("found only what it does not show: {}", missing.join("; ")),
        };
        return Err(error(0, format!("the {what}, {found}")));
    }
    Ok(imported)
}

/// What wrote a log, by one of its lines.
#[must_use]
pub fn format_of(line: &str) -> Option<Format> {
    if qemu::event(line).is_some() {
        return Some(Format::Qemu);
    }
    let line = strace::without_prefix(line).1;
    let call = line.split_once('(').map(|(name, _)| name);
    let call = call.or_else(|| line.strip_prefix("<... ")?.split(' ').next())?;
    let name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    (!call.is_empty() && call.chars().all(name) && line.contains('=')).then_some(Format::Strace)
}

impl Imported {
    /// The trace's lines: a header for `host` (a built-in one), memory, requests.
    ///
    /// # Errors
    /// The host has fewer devices than the log, or there is no such host.
    pub fn lines(&self, name: &str, host: Option<&str>) -> Result<Vec<Value>, String> {
        let mut header = json!({"trace": name, "format": "vfio-oracle/1"});
        let mut called: Vec<String> = Vec::new();
        if let Some(host) = host {
            let Some(known) = hosts::header(host) else {
                return Err(format!("a host: one of {}, found {host}", hosts::names()));
            };
            let devices = known.get("devices").and_then(Value::as_object);
            called.extend(devices.into_iter().flat_map(Map::keys).cloned());
            if called.len() < self.devices.len() {
                let (has, needs) = (called.len(), self.devices.len());
                return Err(format!("a host with {needs} devices, found {has} on {host}"));
            }
            header["built_in"] = host.into();
        } else {
            let mut devices = Map::new();
            for (bdf, group) in &self.devices {
                devices.insert(
                    bdf.clone(),
                    json!({"bdf": bdf, "group": group, "driver": "vfio-pci", "group_devices": [bdf]}),
                );
                called.push(bdf.clone());
            }
            header["devices"] = Value::Object(devices);
        }
        let mut lines = vec![header];
        if self.memory > 0 {
            let size = self.memory.checked_next_multiple_of(0x20_0000).unwrap_or(self.memory);
            lines.push(json!({
                "op": "mem", "name": "guest", "kind": "shared", "size": format!("{size:#x}")
            }));
        }
        for line in &self.lines {
            let mut line = line.clone();
            if let Some(place) = line.get("dev").and_then(Value::as_u64) {
                let place = usize::try_from(place).unwrap_or(usize::MAX);
                line["dev"] = called.get(place).cloned().unwrap_or_default().into();
            }
            lines.push(line);
        }
        Ok(lines)
    }

    /// The devices, as the log calls them, with their groups.
    #[must_use]
    pub fn devices(&self) -> &[(String, u32)] {
        &self.devices
    }

    /// Adds a request, with an answer where the log has all of it.
    fn request(&mut self, mut request: Value, want: Option<Value>) {
        if let Some(want) = want {
            request["want"] = want;
        }
        self.lines.push(request);
        self.requests += 1;
    }

    /// Counts something that the log does not carry, and notes where it was.
    fn missing(&mut self, line: u64, what: &str) {
        self.missing.entry(what.to_owned()).or_default().push(line);
        self.lines.push(json!({"note": format!("line {line}: {what}")}));
    }

    /// Says, once, what was assumed.
    fn assume(&mut self, what: &str) {
        if !self.assumed.iter().any(|known| known == what) {
            self.assumed.push(what.to_owned());
        }
    }

    /// The place of a device.
    fn device(&mut self, name: &str, group: u32) -> usize {
        match self.devices.iter().position(|(known, _)| known == name) {
            Some(place) => place,
            None => {
                self.devices.push((name.to_owned(), group));
                self.devices.len() - 1
            }
        }
    }
}

/// `{"errno": ...}`.
fn errno(name: &str) -> Value {
    json!({"errno": name})
}

fn hex(number: u64) -> String {
    format!("{number:#x}")
}

/// A number in decimal or, after `0x`, in hexadecimal.
fn parse(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

#[cfg(test)]
mod tests;
