//! Reads and writes of a device's regions, and the DMA engine of `edu`.

use uapi::{Errno, ioctl};

use super::arg::{size, words};
use super::calls::scratch;
use super::{Answer, Done, Failure, Op, Stop, Sys};
use crate::names::REGIONS;

/// Bytes of the recording program's buffer.
const BUFFER: u64 = 8192;
/// Where the engine's buffer lies in the device.
const EDU_BUFFER: u64 = 0x40000;
/// How often the engine is looked at before it counts as stuck.
const EDU_LOOKS: u32 = 300;

/// Where a region starts in the device's file: asked, and else where vfio-pci has it.
fn region_offset(op: &mut Op<'_>, fd: i32, index: u32) -> Result<u64, Stop> {
    let mut bytes = words(&[32, 0, index, 0]);
    bytes.resize(64, 0);
    let at = scratch(op, &bytes)?;
    if op.world.ioctl(fd, ioctl::VFIO_DEVICE_GET_REGION_INFO, at).is_err() {
        return Ok(u64::from(index) << 40);
    }
    let mut offset = [0; 8];
    op.world.process.load(at + 24, &mut offset)?;
    Ok(u64::from_le_bytes(offset))
}

/// The descriptor and the position that a request names.
fn place(op: &mut Op<'_>) -> Result<(i32, u64), Stop> {
    let fd = op.device()?;
    let index = op.request.named("region", REGIONS, 7)?;
    let offset = op.request.number("offset", 0)?;
    Ok((fd, region_offset(op, fd, index)?.wrapping_add(offset)))
}

pub(super) fn write(op: &mut Op<'_>) -> Done {
    let limit = usize::try_from(BUFFER).unwrap_or(0);
    let data = op.request.bytes("data", limit)?.unwrap_or_default();
    let (fd, at) = place(op)?;
    Ok(Answer::of(&op.world.pwrite(fd, at, &data)))
}

pub(super) fn read(op: &mut Op<'_>) -> Done {
    let mut data = vec![0; size(op.request, "size", 4, BUFFER)?];
    let (fd, at) = place(op)?;
    let result = op.world.pread(fd, at, &mut data);
    let mut answer = Answer::of(&result);
    if let Ok(n) = result {
        let n = usize::try_from(n).unwrap_or(0).min(data.len());
        answer.put_bytes("data", &data[..n]);
    }
    Ok(answer)
}

/// The engine's registers, 8 bytes each.
struct Edu {
    fd: i32,
    bar: u64,
}

impl Edu {
    fn set(&self, op: &mut Op<'_>, register: u64, value: u64) -> Sys<()> {
        let at = self.bar.wrapping_add(register);
        whole(op.world.pwrite(self.fd, at, &value.to_le_bytes()))
    }

    fn get(&self, op: &mut Op<'_>, register: u64) -> u64 {
        let mut value = [0; 8];
        match whole(op.world.pread(self.fd, self.bar.wrapping_add(register), &mut value)) {
            Ok(()) => u64::from_le_bytes(value),
            Err(_) => u64::MAX,
        }
    }
}

/// A transfer of 8 bytes, or nothing.
fn whole(result: Sys) -> Sys<()> {
    match result? {
        8 => Ok(()),
        _ => Err(Failure::new(Errno::EIO, "the register is not 8 bytes wide")),
    }
}

pub(super) fn edu_dma(op: &mut Op<'_>) -> Done {
    let fd = op.device()?;
    let to_mem = op.request.text_or("dir", "to_mem")? == "to_mem";
    let iova = op.request.number("iova", 0)?;
    let bytes = op.request.number("size", 16)?;
    let irq = op.request.number("irq", 0)? != 0;
    let edu = Edu { fd, bar: region_offset(op, fd, 0)? };
    let (source, target) = if to_mem { (EDU_BUFFER, iova) } else { (iova, EDU_BUFFER) };
    let command = 1 | if to_mem { 2 } else { 0 } | if irq { 4 } else { 0 };
    let steps = [(0x80, source), (0x88, target), (0x90, bytes), (0x98, command)];
    for (register, value) in steps {
        if let Err(failure) = edu.set(op, register, value) {
            return Ok(Answer::done::<()>(Err(failure)));
        }
    }
    for _ in 0..EDU_LOOKS {
        if edu.get(op, 0x98) & 1 == 0 {
            return Ok(Answer::ok());
        }
        op.world.run_devices();
    }
    let stuck = Failure::new(Errno::ETIMEDOUT, "the engine did not finish");
    Ok(Answer::done::<()>(Err(stuck)))
}
