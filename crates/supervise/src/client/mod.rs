//! How VFIO is used: a small program that drives two devices.
//!
//! Nothing here knows who answers. On a machine with an IOMMU, with an `edu` device or an NVMe
//! controller bound to `vfio-pci`, it does the same.
//!
//! ```text
//!   vfio     /dev/vfio/vfio, groups, regions, interrupts, memory for DMA
//!   edu      a factorial in registers, DMA both ways, an MSI
//!   nvme     queues in memory, doorbells, MSI-X
//! ```

pub mod edu;
pub mod inquiry;
pub mod nvme;
pub mod vfio;

use std::io::Write;

use self::edu::{Direction, Edu};
use self::nvme::Nvme;
use self::vfio::{Container, Failure, IovaSpace, doing};

/// IOVAs are chosen from here on: where programs have their first page is no place for a device.
const LEAST_IOVA: u64 = 0x10_0000;

/// The devices to be driven, each by its PCI address.
#[derive(Clone, Copy, Debug, Default)]
pub struct Devices<'a> {
    /// An educational device.
    pub edu: Option<&'a str>,
    /// An NVMe controller. Its last 4 KiB are written, and put back.
    pub nvme: Option<&'a str>,
}

/// Drives the devices, and prints what happens.
///
/// # Errors
/// What failed.
pub fn run(devices: Devices<'_>, out: &mut dyn Write) -> Result<(), Failure> {
    let mut container = Container::open()?;
    // An IOMMU stands behind groups: without one there is nothing to ask it.
    let mut open = |bdf: Option<&str>| bdf.map(|bdf| container.open_device(bdf)).transpose();
    let (edu, nvme) = (open(devices.edu)?, open(devices.nvme)?);
    for (bdf, device) in [(devices.edu, &edu), (devices.nvme, &nvme)] {
        if let (Some(bdf), Some(device)) = (bdf, device) {
            say(out, format_args!("{bdf} is in group {}", device.group()))?;
        }
    }
    let space = container.iova_space()?;
    for (first, last) in &space.ranges {
        say(out, format_args!("IOVAs {first:#x}..={last:#x} may be mapped"))?;
    }
    if let Some(device) = edu {
        drive_edu(&container, &space, Edu::new(device)?, out)?;
    }
    if let Some(device) = nvme {
        let memory = container.map(place(&space, nvme::MEMORY, u64::MAX)?, nvme::MEMORY)?;
        drive_nvme(Nvme::new(device, memory)?, out)?;
    }
    Ok(())
}

fn say(out: &mut dyn Write, line: std::fmt::Arguments<'_>) -> Result<(), Failure> {
    writeln!(out, "{line}").map_err(doing("printing"))
}

fn place(space: &IovaSpace, len: usize, limit: u64) -> Result<u64, Failure> {
    let place = space.place(LEAST_IOVA, len as u64, limit);
    place.ok_or_else(|| Failure::new("choosing an IOVA", format!("no room for {len:#x} bytes")))
}

fn drive_edu(
    container: &Container,
    space: &IovaSpace,
    edu: Edu,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let id = edu.identification();
    if !edu.is_alive(0x1234_5678) {
        return Err(Failure::new("edu: the liveness check", "a wrong answer"));
    }
    let factorial = edu.factorial(10)?;
    if factorial != 3_628_800 {
        return Err(Failure::new("edu: the factorial of 10", factorial));
    }
    say(out, format_args!("edu {id:#010x}: 10! = {factorial}"))?;

    let len = edu::BUFFER_SIZE;
    let memory = container.map(place(space, len, edu::DMA_LIMIT)?, len)?;
    let sent: Vec<u8> = (0..len).map(|n| (n * 7 + n / 256) as u8).collect();
    memory.write(0, &sent);
    edu.transfer(&memory, Direction::ToDevice)?;
    memory.write(0, &vec![0; len]);
    edu.transfer(&memory, Direction::ToMemory)?;
    let mut returned = vec![0; len];
    memory.read(0, &mut returned);
    if returned != sent {
        return Err(Failure::new("edu: DMA to the device and back", "other bytes came back"));
    }
    let iova = memory.iova();
    say(out, format_args!("edu: {len} bytes from IOVA {iova:#x} and back, an MSI each"))?;
    // Unmapped before the device is closed: an address space ends when its last group is.
    let bytes = memory.unmap().map_err(doing("edu: unmapping"))?;
    unmapped(bytes, len)?;
    edu.close()
}

fn drive_nvme(mut nvme: Nvme, out: &mut dyn Write) -> Result<(), Failure> {
    let identity = nvme.identity().clone();
    let ((major, minor), blocks, block) = (identity.version, identity.blocks, identity.block);
    let (model, serial) = (identity.model, identity.serial);
    say(
        out,
        format_args!(
            "nvme {major}.{minor} {model:?}, serial {serial:?}: {blocks} blocks of {block} bytes"
        ),
    )?;
    // The last blocks are borrowed.
    let count = (nvme::MOST / block) as u64;
    let lba = blocks.checked_sub(count).ok_or_else(|| Failure::new("nvme", "too few blocks"))?;
    let (mut before, mut after) = (vec![0; nvme::MOST], vec![0; nvme::MOST]);
    nvme.read(lba, &mut before)?;
    let data: Vec<u8> = (0..nvme::MOST).map(|n| (n * 13 + n / 512) as u8).collect();
    nvme.write(lba, &data)?;
    nvme.flush()?;
    nvme.read(lba, &mut after)?;
    nvme.write(lba, &before)?;
    if after != data {
        return Err(Failure::new("nvme: reading back", "other bytes than were written"));
    }
    let len = data.len();
    say(
        out,
        format_args!("nvme: {len} bytes at block {lba} written, flushed, read back, put back"),
    )?;
    unmapped(nvme.close()?, nvme::MEMORY)
}

fn unmapped(bytes: u64, len: usize) -> Result<(), Failure> {
    if bytes == len as u64 {
        return Ok(());
    }
    Err(Failure::new("unmapping", format!("{bytes:#x} bytes were unmapped, not {len:#x}")))
}
