//! `VFIO_DEVICE_IOEVENTFD`: an eventfd whose signal writes a register.

use alloc::vec::Vec;

use uapi::ioeventfd::{IoEventFd, IoEventFdFlags};
use uapi::region::RegionIndex;

use super::bus::Interrupts;
use super::info::at_least;
use super::region::answers;
use super::{Device, DeviceEnv, DeviceRefusal, Upstream};
use crate::{BadEvent, EventId, Platform, user};

/// As many as one device may have.
const MOST: usize = 1000;

/// What is written, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Write {
    bar: u8,
    /// A BAR of memory, not of ports.
    is_memory: bool,
    offset: u64,
    data: u64,
    /// Bytes: 1, 2, 4 or 8.
    width: u32,
}

/// The writes tied to eventfds.
#[derive(Debug, Default)]
pub(super) struct IoEvents(Vec<(Write, EventId)>);

impl IoEvents {
    /// Gives every eventfd back.
    pub(super) fn clear(&mut self, platform: &mut dyn Platform) {
        for (_, event) in self.0.drain(..) {
            stop_listening(platform, event);
        }
    }
}

/// Gives an eventfd back. Its counter is lost: the kernel reads it as it leaves.
fn stop_listening(platform: &mut dyn Platform, event: EventId) {
    platform.clear_event(event);
    platform.put_event(event);
}

impl Device {
    /// `VFIO_DEVICE_IOEVENTFD`.
    pub(super) fn set_io_event(
        &mut self,
        env: &mut DeviceEnv<'_>,
        arg: u64,
    ) -> Result<i64, DeviceRefusal> {
        let size = usize::try_from(IoEventFd::MIN_ARGSZ).unwrap_or(0);
        let asked: IoEventFd = user::read(env.caller, arg, size)?;
        at_least(asked.argsz, IoEventFd::MIN_ARGSZ)?;
        let flags = IoEventFdFlags::from_bits(asked.flags);
        let width = flags.and_then(IoEventFdFlags::width);
        let width = width.ok_or(DeviceRefusal::BadFlags(asked.flags))?;
        let fd = asked.fd;
        if fd < -1 {
            return Err(DeviceRefusal::BadEvent { fd, why: BadEvent::NotEventfd });
        }
        let write = self.place(&asked, width)?;
        let events = &mut self.opened()?.io_events.0;
        let existing = events.iter().position(|(other, _)| *other == write);
        match (existing, fd) {
            (Some(i), -1) => {
                let (_, event) = events.remove(i);
                stop_listening(env.caller, event);
                return Ok(0);
            }
            (Some(_), _) => return Err(DeviceRefusal::IoEventExists),
            (None, -1) => return Err(DeviceRefusal::NoIoEvent),
            (None, _) => {}
        }
        if events.len() >= MOST {
            return Err(DeviceRefusal::TooManyIoEvents(MOST));
        }
        let event = env.caller.get_event(fd);
        let event = event.map_err(|why| DeviceRefusal::BadEvent { fd, why })?;
        events.push((write, event));
        if env.caller.event_pending(event) {
            self.write_registers(&mut env.upstream(), &[write]);
        }
        Ok(0)
    }

    /// Where the write goes: inside a BAR, and not to the MSI-X table.
    fn place(&mut self, asked: &IoEventFd, width: u32) -> Result<Write, DeviceRefusal> {
        let refused = DeviceRefusal::IoEventPlace(asked.offset);
        let (index, offset) = self.split_offset(asked.offset)?;
        let bar = RegionIndex::try_from(index).ok().and_then(RegionIndex::bar);
        let number = bar.ok_or(refused.clone())?;
        let bar = self.function.bar(number).ok_or(refused.clone())?;
        let end = offset.checked_add(width.into()).filter(|end| *end <= bar.size);
        let end = end.ok_or(refused.clone())?;
        if let Some((bar, table)) = &self.opened()?.msix_table
            && *bar == number
            && offset < table.end
            && table.start < end
        {
            return Err(refused);
        }
        Ok(Write { bar: number, is_memory: bar.is_memory(), offset, data: asked.data, width })
    }

    /// The eventfds whose signals write registers.
    pub(super) fn io_events(&self) -> impl Iterator<Item = EventId> {
        let events = self.open.iter().flat_map(|open| &open.io_events.0);
        events.map(|(_, event)| *event)
    }

    /// An eventfd of [`io_events`](Self::io_events) fired: does its writes, the newest first, as the
    /// kernel wakes those who wait.
    pub(super) fn io_event_fired(&mut self, up: &mut Upstream<'_>, event: EventId) {
        let Ok(open) = self.opened() else { return };
        let fired = open.io_events.0.iter().rev().filter(|(_, e)| *e == event);
        let writes: Vec<Write> = fired.map(|(write, _)| *write).collect();
        self.write_registers(up, &writes);
    }

    /// Writes registers. Where memory decoding is off the writes are lost.
    fn write_registers(&mut self, up: &mut Upstream<'_>, writes: &[Write]) {
        // Nobody waits for an answer.
        let _ = self.on_bus_with(up, Interrupts::Held, |model, bus, config| {
            for Write { bar, is_memory, offset, data, width } in writes.iter().copied() {
                let bytes = data.to_le_bytes();
                let bytes = bytes.get(..usize::try_from(width).unwrap_or(0)).unwrap_or(&[]);
                if answers(is_memory, config, model.config()) != Ok(true) {
                    continue;
                }
                // A write across registers is one of bytes.
                let aligned = offset & u64::from(width).wrapping_sub(1) == 0;
                let piece = if aligned { bytes.len() } else { 1 };
                for (at, piece) in (offset..).step_by(piece.max(1)).zip(bytes.chunks(piece.max(1)))
                {
                    model.bar_write(bar, at, piece, bus);
                }
            }
        });
    }
}
