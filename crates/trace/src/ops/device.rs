//! A device's information, interrupts and reset.

use iommu::FaultReason;
use serde_json::Value;
use uapi::ioctl;

use super::answer::hex;
use super::arg::words;
use super::calls::open;
use super::{Answer, Arg, Done, Failure, Op, caps};
use crate::names::{IRQ_FLAGS, IRQS, REGIONS};
use crate::request::parse_number;

/// What a structure in the arena reads as where nothing was written.
const UNTOUCHED: u32 = 0xaaaa_aaaa;

pub(super) fn device_info(op: &mut Op<'_>) -> Done {
    let arg = Arg::new(op)?;
    let argsz = op.request.number32("argsz", 24)?;
    arg.put(op, 0, &words(&[argsz]))?;
    let fd = op.device()?;
    let result = op.request_with(fd, ioctl::VFIO_DEVICE_GET_INFO, arg);
    let mut answer = Answer::of(&result);
    if result.is_ok() {
        answer.put("argsz", arg.u32(op, 0)?).put_hex("flags", arg.u32(op, 4)?);
        answer.put("num_regions", arg.u32(op, 8)?).put("num_irqs", arg.u32(op, 12)?);
        if argsz >= 20 {
            let offset = arg.u32(op, 16)?;
            if offset != UNTOUCHED {
                answer.put("cap_offset", offset);
            }
        }
    }
    arg.raw(op, &mut answer, 32)?;
    Ok(answer)
}

pub(super) fn region_info(op: &mut Op<'_>) -> Done {
    let arg = Arg::new(op)?;
    let argsz = op.request.number32("argsz", 0x1000)?;
    let index = op.request.named("index", REGIONS, 0)?;
    arg.put(op, 0, &words(&[argsz, 0, index, 0]))?;
    let fd = op.device()?;
    let result = op.request_with(fd, ioctl::VFIO_DEVICE_GET_REGION_INFO, arg);
    let mut answer = Answer::of(&result);
    if result.is_ok() {
        let (flags, offset) = (arg.u32(op, 4)?, arg.u32(op, 12)?);
        answer.put("argsz", arg.u32(op, 0)?).put_hex("flags", flags);
        answer.put("index", arg.u32(op, 8)?).put("cap_offset", offset);
        answer.put_hex("size", arg.u64(op, 16)?).put_hex("offset", arg.u64(op, 24)?);
        if flags & 8 != 0 && offset != 0 {
            let caps = caps::read(op, arg, offset, argsz.min(0x1000), caps::Of::Region)?;
            answer.put("caps", caps);
        }
    }
    arg.raw(op, &mut answer, 48)?;
    Ok(answer)
}

pub(super) fn irq_info(op: &mut Op<'_>) -> Done {
    let arg = Arg::new(op)?;
    let argsz = op.request.number32("argsz", 16)?;
    let index = op.request.named("index", IRQS, 0)?;
    arg.put(op, 0, &words(&[argsz, 0, index, 0]))?;
    let fd = op.device()?;
    let result = op.request_with(fd, ioctl::VFIO_DEVICE_GET_IRQ_INFO, arg);
    let mut answer = Answer::of(&result);
    if result.is_ok() {
        answer.put("argsz", arg.u32(op, 0)?).put_hex("flags", arg.u32(op, 4)?);
        answer.put("index", arg.u32(op, 8)?).put("count", arg.u32(op, 12)?);
    }
    Ok(answer)
}

pub(super) fn set_irqs(op: &mut Op<'_>) -> Done {
    let arg = Arg::new(op)?;
    let flags = op.request.flags("flags", IRQ_FLAGS, 0)?;
    let mut payload = Vec::new();
    let mut count = 0;
    for member in ["fds", "data"] {
        if op.request.has(member) && op.request.list(member)?.is_none() {
            return Ok(op.request.bad(member, "a list")?);
        }
    }
    if let Some(fds) = op.request.list("fds")? {
        for text in fds {
            payload.extend(op.fd_of("fds", &text)?.to_le_bytes());
            count += 1;
        }
    } else if let Some(data) = op.request.list("data")? {
        for text in data {
            match parse_number(&text) {
                Some(number) => payload.push(number.to_le_bytes()[0]),
                None => return Ok(op.request.bad("data", "numbers")?),
            }
            count += 1;
        }
    }
    let size = u32::try_from(payload.len()).unwrap_or(u32::MAX).saturating_add(20);
    let head = words(&[
        op.request.number32("argsz", size)?,
        flags,
        op.request.named("index", IRQS, 0)?,
        op.request.number32("start", 0)?,
        op.request.number32("count", count)?,
    ]);
    arg.put(op, 0, &head)?;
    arg.put(op, 20, &payload)?;
    let fd = op.device()?;
    Ok(Answer::of(&op.request_with(fd, ioctl::VFIO_DEVICE_SET_IRQS, arg)))
}

pub(super) fn reset(op: &mut Op<'_>) -> Done {
    let fd = op.device()?;
    Ok(Answer::of(&op.world.ioctl(fd, ioctl::VFIO_DEVICE_RESET, 0)))
}

/// The faults of devices since the last time: no system call, but what a host's log would say.
pub(super) fn faults(op: &mut Op<'_>) -> Done {
    op.world.run_devices();
    let faults = op.world.take_faults().into_iter().map(|(name, fault)| {
        let access = if fault.access.contains(iommu::Prot::WRITE) { "write" } else { "read" };
        let reason = match fault.reason {
            FaultReason::NoDomain => "no-domain",
            FaultReason::NotMapped => "not-mapped",
            FaultReason::NotPermitted { .. } => "not-permitted",
            FaultReason::NotPinned => "not-pinned",
            FaultReason::Doorbell => "doorbell",
            FaultReason::UnknownVector => "unknown-vector",
            FaultReason::MemoryGone => "memory-gone",
            FaultReason::BusMasterOff => "bus-master-off",
            _ => "other",
        };
        Value::from(vec![name.into(), access.into(), hex(fault.iova), reason.into()])
    });
    let faults: Vec<Value> = faults.collect();
    let mut answer = Answer::ok();
    answer.put("faults", faults);
    Ok(answer)
}

pub(super) fn eventfd(op: &mut Op<'_>) -> Done {
    let slot = op.request.slot("e", op.world.slots.e.len())?;
    open!(op, e, slot, {
        let opened = op.world.process.open_event();
        opened.map_err(|errno| Failure::new(errno, "too many open files"))
    })
}

pub(super) fn eventfd_read(op: &mut Op<'_>) -> Done {
    let slot = op.request.slot("e", op.world.slots.e.len())?;
    // Whatever a device does finishes within the wait.
    op.request.number("wait_ms", 1000)?;
    op.world.run_devices();
    let fd = op.world.slots.e[slot];
    Ok(match op.world.process.read_event(fd) {
        Ok(count) => {
            let mut answer = Answer::ok();
            answer.put("count", count);
            answer
        }
        Err(errno) => {
            let why = match errno {
                uapi::Errno::EAGAIN => "the eventfd was not signalled",
                _ => "the descriptor is no eventfd",
            };
            Answer::done::<()>(Err(Failure::new(errno, why)))
        }
    })
}

pub(super) fn eventfd_write(op: &mut Op<'_>) -> Done {
    let slot = op.request.slot("e", op.world.slots.e.len())?;
    let value = op.request.number("value", 1)?;
    let fd = op.world.slots.e[slot];
    let done = op.world.process.write_event(fd, value);
    Ok(Answer::done(done.map_err(|errno| {
        let why = match errno {
            uapi::Errno::EAGAIN => "the eventfd's counter has no room for that",
            _ => "the descriptor is no eventfd, or the value is 2^64 - 1",
        };
        Failure::new(errno, why)
    })))
}
