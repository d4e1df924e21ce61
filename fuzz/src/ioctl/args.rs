//! Arguments that make sense, for requests that get past their first checks.

use super::machine::Machine;
use crate::Input;
use crate::client::{ARGS, BUF, BUF_SIZE, CONSTANT, EVENT_FDS, FDS, HUGE};

/// Little pieces put one after the other at [`ARGS`].
struct Writer<'a> {
    to: &'a mut [u8],
    at: usize,
}

impl<'a> Writer<'a> {
    fn new(machine: &'a mut Machine) -> Self {
        Self { to: &mut machine.client.args, at: 0 }
    }

    fn put(&mut self, bytes: &[u8]) {
        self.to[self.at..self.at + bytes.len()].copy_from_slice(bytes);
        self.at += bytes.len();
    }

    fn u32(&mut self, value: u32) {
        self.put(&value.to_ne_bytes());
    }

    fn u64(&mut self, value: u64) {
        self.put(&value.to_ne_bytes());
    }
}

/// An address of memory to map.
fn vaddr(input: &mut Input<'_>) -> u64 {
    match input.u8() {
        byte @ 0..128 => BUF + u64::from(byte & 0xf) * 0x1000,
        byte @ 128..192 => HUGE + (u64::from(byte & 63) << 20),
        192..208 => CONSTANT,
        208..224 => BUF + BUF_SIZE - 0x1000,
        _ => input.scaled(),
    }
}

/// Map, unmap or a dirty query: they begin alike.
pub(super) fn dma(machine: &mut Machine, input: &mut Input<'_>) {
    let marks = machine.landmarks();
    let form = input.u8();
    let flags = u32::from(input.u8() & if form & 0x80 == 0 { 3 } else { 0xf });
    let exact = marks[usize::from(input.u8()) % marks.len()];
    let iova = if form & 0x40 == 0 { input.near(&marks, 0x1000) } else { exact.first() };
    let size = match form & 7 {
        0..=2 => 0x1000 << (form >> 3 & 7),
        3 => 0x1000 * (1 + u64::from(form >> 3 & 7)),
        4 | 5 => exact.size(),
        6 => 0,
        _ => input.scaled(),
    };
    let vaddr = vaddr(input);
    let bitmap_bytes = [8, 0x1000, 1 << 20, 1 << 30][usize::from(form >> 4 & 3)];
    let page = input.pick(&[0x1000, 0x1000, 0x1000, 0x2000, 0, 3]);
    let kind = input.u8() % 8;
    let mut args = Writer::new(machine);
    match kind {
        // A map.
        0..=3 => {
            args.u32(32);
            args.u32(flags);
            for value in [vaddr, iova, size] {
                args.u64(value);
            }
        }
        // An unmap with room for a bitmap.
        4..=6 => {
            args.u32(48);
            args.u32(if kind == 4 { 0 } else { flags });
            for value in [iova, size, page, bitmap_bytes, BUF] {
                args.u64(value);
            }
        }
        // A dirty query.
        _ => {
            args.u32(48);
            args.u32(1 << (flags & 3));
            for value in [iova, size, page, bitmap_bytes, BUF] {
                args.u64(value);
            }
        }
    }
}

/// A request of a device: information, interrupts, features.
pub(super) fn of_device(machine: &mut Machine, input: &mut Input<'_>) {
    let argsz = input.pick(&[0x40, 0x200, 20, 32, 0, u32::MAX]);
    let kind = input.u8() % 4;
    let (a, b, c) = (input.u8(), input.u8(), input.u8());
    let small = u32::from(input.u8() % 9);
    let mut args = Writer::new(machine);
    args.u32(argsz);
    match kind {
        // SET_IRQS: one kind of data, one action, mostly.
        0 | 1 => {
            let flags =
                if a & 0x80 == 0 { (1 << ((a & 3) % 3)) | (8 << (((a >> 2) & 3) % 3)) } else { a };
            args.u32(u32::from(flags));
            args.u32(u32::from(b % 6));
            args.u32(u32::from(c & 0xf) % 3);
            args.u32(small);
            for _ in 0..small {
                let fd = event_fd(input);
                args.put(&fd.to_ne_bytes());
            }
        }
        // Region and interrupt information, hot reset: an index, or descriptors.
        2 => {
            args.u32(u32::from(a & 7));
            args.u32(u32::from(b % 12));
            for _ in 0..small {
                args.u32(u32::from(input.u8() % 80));
            }
        }
        // A feature, or an ioeventfd.
        _ => {
            args.u32(u32::from(a) | u32::from(b & 7) << 16);
            args.u64(u64::from(input.u16()));
            args.u64(input.scaled());
            args.put(&event_fd(input).to_ne_bytes());
        }
    }
}

fn event_fd(input: &mut Input<'_>) -> i32 {
    let byte = input.u8();
    match byte {
        0..32 => -i32::from(byte & 3),
        32..40 => FDS + 1,
        _ => EVENT_FDS.start + i32::from(byte & 3),
    }
}

/// A request of a group: a descriptor, a name, or a status.
pub(super) fn of_group(machine: &mut Machine, input: &mut Input<'_>) {
    let (kind, byte) = (input.u8() % 3, input.u8());
    let name = input.pick(&[
        &b"0000:00:03.0\0"[..],
        b"0000:00:04.0\0",
        b"0000:00:05.0\0",
        b"0000:00:03.0  \0",
        b"0000:00:03.0 x\0",
        b"0000:00:0\0",
    ]);
    let mut args = Writer::new(machine);
    match kind {
        0 => args.u32(u32::from(byte % 80)),
        1 => args.put(name),
        _ => {
            args.u32(8);
            args.u64(ARGS);
        }
    }
}
