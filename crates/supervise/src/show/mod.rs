//! Prints requests as they happen, decoded as `strace` does.
//!
//! ```text
//!    12 container0 MAP_DMA(iova=0x100000, size=64K, vaddr=0x7f0000000000, READ|WRITE) = 0
//!    12 0000:01:00.0 MSI: 0x200040 -> 0x8090040, vector 0
//!    13 container0 MAP_DMA(iova=0x100000, ...) = -1 EEXIST (0x100000..=0x10ffff is already mapped)
//! ```

mod ioctl;

use std::fmt::{self, Write as _};
use std::io::Write;

use iommu::Fault;
use parking_lot::Mutex;
use uapi::Errno;
use vfio::{DeviceId, Message, Removal};

use crate::session::Placed;
use crate::watch::{Call, Request, Target, Watch};

/// Bytes of a transfer that are shown.
const SHOWN: usize = 16;

/// Prints what happens.
pub struct Show {
    out: Mutex<Box<dyn Write + Send>>,
    devices: Vec<String>,
}

impl Show {
    /// To a writer; each line is one write.
    #[must_use]
    pub fn new(out: Box<dyn Write + Send>, placed: &Placed) -> Self {
        let devices = placed.devices.iter().map(|device| device.name.clone()).collect();
        Self { out: Mutex::new(out), devices }
    }

    fn name(&self, id: DeviceId) -> &str {
        let name = usize::try_from(id.0).ok().and_then(|at| self.devices.get(at));
        name.map_or("a device", String::as_str)
    }

    fn line(&self, mut line: String) {
        line.push('\n');
        // Nobody is told that nobody can be told.
        let _ = self.out.lock().write_all(line.as_bytes());
    }

    fn write(&self, out: &mut String, request: &Request) -> fmt::Result {
        write!(out, "{:>6} ", request.number)?;
        match request.target {
            Target::Container(id) => write!(out, "container{} ", id.0)?,
            Target::Group(id) => write!(out, "group{} ", id.0)?,
            Target::Device(id) => write!(out, "{} ", self.name(id))?,
        }
        match &request.call {
            Call::Open => out.write_str("open()")?,
            Call::Close => out.write_str("close()")?,
            Call::Ioctl { request: number, arg, read, written } => {
                ioctl::write(out, request.target, *number, *arg, read, written)?;
            }
            Call::Read { offset, count, data } => {
                write!(out, "read({}, {count})", Place(*offset))?;
                write_bytes(out, data)?;
            }
            Call::Write { offset, data } => {
                write!(out, "write({}, {})", Place(*offset), data.len())?;
                write_bytes(out, data)?;
            }
            Call::Map { offset, len, shared } => {
                let how = if *shared { "SHARED" } else { "PRIVATE" };
                write!(out, "mmap({}, {len:#x}, {how})", Place(*offset))?;
            }
        }
        match request.answer {
            Ok(value) => write!(out, " = {value}"),
            Err(errno) => write!(out, " = -1 {}", Errno::new(errno)),
        }?;
        match &request.refusal {
            Some(refusal) => write!(out, " ({refusal})"),
            None => Ok(()),
        }
    }
}

/// A position in a device's file.
struct Place(u64);

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const REGION: u64 = 1 << 40;
        let offset = self.0 % REGION;
        match self.0 / REGION {
            region if region == crate::door::BAR0_BASE / REGION => write!(f, "BAR0+{offset:#x}"),
            region @ 1..=5 => write!(f, "BAR{region}+{offset:#x}"),
            6 => write!(f, "ROM+{offset:#x}"),
            7 => write!(f, "CONFIG+{offset:#x}"),
            _ => write!(f, "{:#x}", self.0),
        }
    }
}

fn write_bytes(out: &mut String, bytes: &[u8]) -> fmt::Result {
    if bytes.is_empty() {
        return Ok(());
    }
    out.write_str(" <")?;
    for byte in bytes.iter().take(SHOWN) {
        write!(out, "{byte:02x}")?;
    }
    out.write_str(if bytes.len() > SHOWN { "...>" } else { ">" })
}

impl Watch for Show {
    fn request(&self, request: &Request) {
        let mut line = String::new();
        // Writing to a string does not fail.
        let _ = self.write(&mut line, request);
        self.line(line);
    }

    fn message(&self, number: u64, device: DeviceId, message: &Message) {
        let Message { iova, doorbell, vector } = message;
        let device = self.name(device);
        self.line(format!("{number:>6} {device} MSI: {iova:#x} -> {doorbell:#x}, vector {vector}"));
    }

    fn removal(&self, number: u64, device: DeviceId, removal: Removal) {
        let what = match removal {
            Removal::Gone => "gone",
            Removal::Requested => "asked for (REQ interrupt)",
            Removal::NoChannel => "to be taken; no eventfd for the REQ interrupt",
        };
        self.line(format!("{number:>6} {} UNPLUG: {what}", self.name(device)));
    }

    fn fault(&self, number: u64, device: DeviceId, fault: &Fault) {
        self.line(format!("{number:>6} {} FAULT: {fault}", self.name(device)));
    }

    fn trouble(&self, sentence: &str) {
        self.line(format!("       {sentence}"));
    }
}

#[cfg(test)]
mod tests;
