//! Reads that the machine takes from the backend on its own, as far as it can.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::any::Any;

use super::rig::{BASE, DATA, Rig, SIZE, io};
use crate::nvme::{Backend, BackendError, NvmeConfig};

/// Bytes that a machine knows; what is read from `.1` on fails.
struct Known(Vec<u8>, u64);

impl Backend for Known {
    fn size(&self) -> u64 {
        self.0.len() as u64
    }
    fn read(&mut self, offset: u64, data: &mut [u8]) -> Result<(), BackendError> {
        if offset.saturating_add(data.len() as u64) > self.1 {
            return Err(BackendError);
        }
        data.copy_from_slice(&self.0[offset as usize..][..data.len()]);
        Ok(())
    }
    fn write(&mut self, _offset: u64, _data: &[u8]) -> Result<(), BackendError> {
        Err(BackendError)
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

fn rig(good: u64) -> (Rig, Vec<u8>) {
    let bytes: Vec<u8> =
        (0..1_u32 << 20).map(|i| (i.wrapping_mul(2_654_435_761) >> 11) as u8).collect();
    let disk: Box<dyn Backend> = Box::new(Known(bytes.clone(), good));
    let mut rig = Rig::with(NvmeConfig::new("S3", Vec::from([disk])));
    rig.start();
    rig.create_pair(1, 16, None);
    // 128 KiB in three segments: 40, 60 and 28 KiB.
    let pages = (0..10).map(|i| DATA + i * 0x1000);
    let pages = pages.chain((20..35).map(|i| DATA + i * 0x1000));
    let pages = pages.chain((50..57).map(|i| DATA + i * 0x1000));
    for (i, page) in (0..).zip(pages.skip(1)) {
        rig.machine.put(BASE + 0x8_0000 + 8 * i, &[page]);
    }
    (rig, bytes)
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
        let mut expected = &bytes[64 << 9..];
        for (page, pages) in [(0, 10), (20, 15), (50, 7)] {
            let memory = rig.machine.at(DATA + (page << 12), pages << 12).unwrap();
            let (now, rest) = expected.split_at(pages << 12);
            assert!(memory == now, "{mapped:x} {page}");
            expected = rest;
        }
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

#[test]
fn what_fails_behind_it_has_its_status() {
    let (mut rig, _) = rig(64 << 9);
    rig.machine.mapped = 0x4000;
    assert_eq!(rig.exec(1, io(2, 64, 256, DATA, BASE + 0x8_0000)).0, 0x281);
    let (mut rig, _) = self::rig(1 << 20);
    rig.machine.mapped = 0x4000;
    rig.machine.put(BASE + 0x8_0000 + 8 * 30, &[BASE + SIZE as u64]);
    assert_eq!(rig.exec(1, io(2, 64, 256, DATA, BASE + 0x8_0000)).0, 0x04);
}
