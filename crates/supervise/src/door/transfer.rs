//! `pread`, `pwrite` and their like on a device's descriptor.

use std::os::fd::AsFd;

use vfio::DeviceId;
use vfio::device::DeviceRefusal;

use super::Door;
use super::caller::PATIENCE;
use super::files::{Identity, Object};
use super::process::Process;
use super::requests::Missing;
use crate::sys::client;
use crate::sys::notify::Response;
use crate::watch::Call;

/// Buffers that one system call may have (`IOV_MAX`).
const MOST_BUFFERS: u64 = 1024;
/// Bytes that are moved at a time.
const CHUNK: u64 = 1 << 16;

/// Where the bytes of a transfer are.
#[derive(Clone, Copy, Debug)]
pub(super) enum Buffers {
    /// Here, so many.
    One {
        /// The client's address.
        addr: u64,
        /// Bytes.
        len: u64,
    },
    /// In so many buffers, whose list is here.
    List {
        /// The client's address of the list.
        addr: u64,
        /// Buffers.
        count: u64,
        /// Its addresses and lengths have 32 bits.
        compat: bool,
    },
}

/// `pread`, `pwrite` and their like.
#[derive(Clone, Copy, Debug)]
pub(super) struct Transfer {
    pub(super) fd: i32,
    pub(super) write: bool,
    pub(super) buffers: Buffers,
    /// Position in the file.
    pub(super) offset: u64,
    /// Of `preadv2` and `pwritev2`.
    pub(super) flags: u32,
}

/// A buffer of the client.
struct Buffer {
    addr: u64,
    len: u64,
}

/// What is moved at a time.
struct Part {
    device: DeviceId,
    /// In the device's file.
    offset: u64,
    /// The client's address.
    addr: u64,
    len: u64,
}

impl Door {
    pub(super) fn transfer(
        &self,
        process: &Process,
        tid: i32,
        transfer: &Transfer,
    ) -> Option<Response> {
        let file = match self.descriptor(process, tid, transfer.fd) {
            Ok(file) => file,
            Err(Missing::None) => return Some(Response::Continue),
            Err(Missing::Room(errno)) => return Some(Response::Error(errno)),
        };
        let found = self.files.identify(file.as_fd());
        drop(file);
        let Identity::Known(Object::Device(id)) = found else {
            return Some(Response::Continue);
        };
        // Files without iterators of their own take only hints.
        const HINTS: u32 = libc::RWF_HIPRI as u32;
        if transfer.flags & !HINTS != 0 {
            return Some(Response::Error(libc::EOPNOTSUPP));
        }
        let buffers = match transfer.buffers {
            Buffers::One { addr, len } => vec![Buffer { addr, len }],
            Buffers::List { count, .. } if count > MOST_BUFFERS => {
                return Some(Response::Error(libc::EINVAL));
            }
            Buffers::List { addr, count, compat } => match list(tid, addr, count, compat) {
                Some(list) => list,
                None => return Some(Response::Error(libc::EFAULT)),
            },
        };
        let (mut at, mut done) = (transfer.offset, 0_i64);
        for Buffer { mut addr, mut len } in buffers {
            while len != 0 {
                let now = len.min(CHUNK);
                let part = Part { device: id, offset: at, addr, len: now };
                let moved = if transfer.write {
                    self.write(process, tid, &part)
                } else {
                    self.read(process, tid, &part)
                };
                let moved = match moved {
                    Ok(moved) => moved,
                    // What was moved before counts.
                    Err(_) if done > 0 => return Some(Response::Value(done)),
                    Err(response) => return Some(response),
                };
                done += i64::try_from(moved).unwrap_or(0);
                if moved < now {
                    return Some(Response::Value(done));
                }
                (at, addr, len) = (at.wrapping_add(now), addr.wrapping_add(now), len - now);
            }
        }
        Some(Response::Value(done))
    }

    fn read(&self, process: &Process, tid: i32, part: &Part) -> Result<u64, Response> {
        let mut data = part.buffer();
        let (offset, count) = (part.offset, data.len());
        let (moved, number) =
            self.access(part.device, |device, up| device.read(up, offset, &mut data))?;
        let len = *moved.as_ref().unwrap_or(&0);
        data.truncate(len);
        let fault = client::write_memory(tid, part.addr, &data) != len;
        let call = Call::Read { offset, count, data };
        self.moved(process, part.device, call, moved, number, fault)
    }

    fn write(&self, process: &Process, tid: i32, part: &Part) -> Result<u64, Response> {
        let mut data = part.buffer();
        let copied = client::read_memory(tid, part.addr, &mut data);
        let fault = copied != data.len();
        data.truncate(copied);
        let offset = part.offset;
        let (moved, number) =
            self.access(part.device, |device, up| device.write(up, offset, &data))?;
        self.moved(process, part.device, Call::Write { offset, data }, moved, number, fault)
    }

    /// An access, with the device in hand.
    fn access(
        &self,
        id: DeviceId,
        f: impl FnOnce(
            &mut vfio::device::Device,
            &mut vfio::device::Upstream<'_>,
        ) -> Result<usize, DeviceRefusal>,
    ) -> Result<(Result<usize, DeviceRefusal>, u64), Response> {
        let slot = self.slot(id).ok_or(Response::Error(libc::ENODEV))?;
        let mut guarded = slot.lock_within(PATIENCE).ok_or_else(|| self.stuck(id))?;
        let number = self.next_number();
        let moved = self.on_hardware(slot, &mut guarded, |guarded, up| {
            // What was written to mapped registers before comes before.
            slot.take_batch(guarded, up);
            f(&mut guarded.device, up)
        });
        drop(guarded);
        slot.kick();
        Ok((moved, number))
    }

    fn moved(
        &self,
        process: &Process,
        id: DeviceId,
        call: Call,
        moved: Result<usize, DeviceRefusal>,
        number: u64,
        fault: bool,
    ) -> Result<u64, Response> {
        let (answer, refusal) = match moved {
            Ok(_) if fault => (Err(libc::EFAULT), None),
            Ok(moved) => (Ok(i64::try_from(moved).unwrap_or(i64::MAX)), None),
            Err(refusal) => self.told(Err(refusal.into())),
        };
        self.tell(process, Object::Device(id), call, answer, refusal, number);
        answer.map(i64::unsigned_abs).map_err(Response::Error)
    }
}

impl Part {
    fn buffer(&self) -> Vec<u8> {
        // At most `CHUNK`.
        vec![0; usize::try_from(self.len).unwrap_or(0)]
    }
}

/// The buffers of a list in the client's memory.
fn list(tid: i32, addr: u64, count: u64, compat: bool) -> Option<Vec<Buffer>> {
    let width = if compat { 4 } else { 8 };
    let mut bytes = vec![0; usize::try_from(count).ok()? * 2 * width];
    if client::read_memory(tid, addr, &mut bytes) != bytes.len() {
        return None;
    }
    let word = |bytes: &[u8]| bytes.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
    let buffer = |b: &[u8]| {
        let (addr, len) = b.split_at(width);
        Buffer { addr: word(addr), len: word(len) }
    };
    Some(bytes.chunks_exact(2 * width).map(buffer).collect())
}
