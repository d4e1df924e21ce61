//! Data that the machine moves from and to the backend on its own, as far as it can.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::any::Any;
use core::cell::RefCell;
use core::ops::Range;

use super::rig::{BASE, DATA, Rig, SIZE, io};
use crate::nvme::{Backend, BackendError, NvmeConfig};

/// Bytes that a machine knows; what is read or written from `.1` on fails.
struct Known(RefCell<Vec<u8>>, u64);

impl Known {
    fn good(&self, offset: u64, len: usize) -> Result<Range<usize>, BackendError> {
        let end = offset.checked_add(len as u64).filter(|end| *end <= self.1);
        Ok(offset as usize..end.ok_or(BackendError)? as usize)
    }
}

impl Backend for Known {
    fn size(&self) -> u64 {
        self.0.borrow().len() as u64
    }
    fn read(&mut self, offset: u64, data: &mut [u8]) -> Result<(), BackendError> {
        let range = self.good(offset, data.len())?;
        data.copy_from_slice(&self.0.borrow()[range]);
        Ok(())
    }
    fn write(&mut self, offset: u64, data: &[u8]) -> Result<(), BackendError> {
        let range = self.good(offset, data.len())?;
        self.0.borrow_mut()[range].copy_from_slice(data);
        Ok(())
    }
    fn flush(&mut self) -> Result<(), BackendError> {
        Ok(())
    }
    fn write_zeroes(&mut self, _offset: u64, _len: u64) -> Result<(), BackendError> {
        Err(BackendError)
    }
    fn discard(&mut self, _offset: u64, _len: u64) -> Result<(), BackendError> {
        Err(BackendError)
    }
    fn mapped(&self) -> Option<&dyn Any> {
        Some(&self.0)
    }
}

/// 128 KiB in three segments, 40, 60 and 28 KiB: the first page, and how many.
const SEGMENTS: [(u64, usize); 3] = [(0, 10), (20, 15), (50, 7)];

fn rig(good: u64) -> (Rig, Vec<u8>) {
    let bytes: Vec<u8> =
        (0..1_u32 << 20).map(|i| (i.wrapping_mul(2_654_435_761) >> 11) as u8).collect();
    let disk: Box<dyn Backend> = Box::new(Known(RefCell::new(bytes.clone()), good));
    let mut rig = Rig::with(NvmeConfig::new("S3", Vec::from([disk])));
    rig.start();
    rig.create_pair(1, 16, None);
    let pages = SEGMENTS.iter().flat_map(|(first, pages)| (*first..).take(*pages));
    for (i, page) in (0..).zip(pages.skip(1)) {
        rig.machine.put(BASE + 0x8_0000 + 8 * i, &[DATA + (page << 12)]);
    }
    (rig, bytes)
}

/// The memory of the segments has the first of these bytes.
fn expect(rig: &mut Rig, mut bytes: &[u8], mapped: usize) {
    for (page, pages) in SEGMENTS {
        let memory = rig.machine.at(DATA + (page << 12), pages << 12).unwrap();
        let (now, rest) = bytes.split_at(pages << 12);
        assert!(memory == now, "{mapped:x} {page}");
        bytes = rest;
    }
}

#[test]
fn what_the_machine_leaves_comes_through_a_buffer() {
    let (mut rig, bytes) = rig(1 << 20);
    for (mapped, buffered) in
        [(0, 3), (1, 3), (0x6000, 3), (0xa000, 2), (0xd000, 2), (usize::MAX, 0)]
    {
        rig.machine.at(DATA, 57 << 12).unwrap().fill(0);
        rig.machine.mapped = mapped;
        rig.machine.writes.clear();
        assert_eq!(rig.exec(1, io(2, 64, 256, DATA, BASE + 0x8_0000)), (0, 0));
        expect(&mut rig, &bytes[64 << 9..], mapped);
        let data = rig.machine.writes.iter().filter(|(addr, _)| *addr >= DATA).count();
        assert_eq!(data, buffered, "{mapped:x}");
    }
    // A short one never asks the machine.
    rig.machine.writes.clear();
    assert_eq!(rig.exec(1, io(2, 0, 8, DATA, 0)), (0, 0));
    assert!(rig.machine.writes.contains(&(DATA, 4096)));
    let stats = rig.nvme.stats();
    assert_eq!((stats.bytes_read, stats.reads, stats.errors), ((6 << 17) + 4096, 7, 0));
}

/// Fills the memory of the rig's 128 KiB with bytes of a seed, and answers them in their order.
fn fill(rig: &mut Rig, seed: u8) -> Vec<u8> {
    let mut all = Vec::new();
    for (page, pages) in SEGMENTS {
        let memory = rig.machine.at(DATA + (page << 12), pages << 12).unwrap();
        for (i, byte) in memory.iter_mut().enumerate() {
            *byte = ((i * 13 + (i >> 12) * 7) as u8 ^ seed).wrapping_add(page as u8);
        }
        all.extend_from_slice(memory);
    }
    all
}

#[test]
fn writes_too() {
    let (mut rig, bytes) = rig(1 << 20);
    for (seed, mapped, buffered) in
        [(1, 0, 3), (2, 1, 3), (3, 0x6000, 3), (4, 0xa000, 2), (5, 0xd000, 2), (6, usize::MAX, 0)]
    {
        let written = fill(&mut rig, seed);
        rig.machine.mapped = mapped;
        rig.machine.reads.clear();
        assert_eq!(rig.exec(1, io(1, 64, 256, DATA, BASE + 0x8_0000)), (0, 0));
        let data = rig.machine.reads.iter().filter(|(addr, _)| *addr >= DATA).count();
        assert_eq!(data, buffered, "{mapped:x}");
        // By a buffer, with what is around it.
        fill(&mut rig, !seed);
        rig.machine.mapped = 0;
        assert_eq!(rig.exec(1, io(2, 64, 256, DATA, BASE + 0x8_0000)), (0, 0));
        expect(&mut rig, &written, mapped);
        for (lba, at) in [(0, 0), (64 + 256, (64 + 256) << 9)] {
            assert_eq!(rig.exec(1, io(2, lba, 8, DATA, 0)), (0, 0));
            assert!(*rig.machine.at(DATA, 4096).unwrap() == bytes[at..at + 4096]);
        }
    }
}

/// Blocks that lie across pages may come in two pieces: these take the buffer.
#[test]
fn blocks_across_pages_are_written_as_a_whole() {
    for (offset, buffered) in [(0, false), (0x200, false), (4, true), (0x204, true)] {
        let (mut rig, _) = rig(1 << 20);
        rig.machine.mapped = usize::MAX;
        for i in 0..31 {
            rig.machine.put(BASE + 0x8_0000 + 8 * i, &[DATA + (i + 1) * 0x1000]);
        }
        rig.machine.reads.clear();
        assert_eq!(rig.exec(1, io(1, 64, 128, DATA + offset, BASE + 0x8_0000)), (0, 0));
        let took = rig.machine.reads.iter().any(|(addr, _)| *addr >= DATA);
        assert_eq!(took, buffered, "{offset:x}");
    }
}

#[test]
fn what_fails_behind_it_has_its_status() {
    for (opcode, status) in [(2, 0x281), (1, 0x280)] {
        let (mut rig, _) = rig(64 << 9);
        rig.machine.mapped = 0x4000;
        assert_eq!(rig.exec(1, io(opcode, 64, 256, DATA, BASE + 0x8_0000)).0, status);
        let (mut rig, _) = self::rig(1 << 20);
        rig.machine.mapped = 0x4000;
        rig.machine.put(BASE + 0x8_0000 + 8 * 30, &[BASE + SIZE as u64]);
        assert_eq!(rig.exec(1, io(opcode, 64, 256, DATA, BASE + 0x8_0000)).0, 0x04);
    }
}
