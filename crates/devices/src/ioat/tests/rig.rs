//! A driver.

use pci::Device;

use super::super::{Ioat, IoatConfig};
use crate::machine::Machine;

pub(super) use crate::machine::{BASE, DOORBELL};

/// Bytes of memory.
pub(super) const SIZE: usize = 8 << 20;
/// The ring of 32 descriptors.
pub(super) const RING: u64 = BASE;
/// The completion record.
pub(super) const RECORD: u64 = BASE + 0x1000;
/// Data to copy from, and to.
pub(super) const SRC: u64 = BASE + (1 << 20);
pub(super) const DST: u64 = BASE + (4 << 20);
/// Descriptor `index` of the ring.
pub(super) fn put_descriptor(machine: &mut Machine, index: u16, descriptor: [u64; 3]) {
    let slot = |index: u16| RING + u64::from(index % 32) * 64;
    let [a, b, c] = descriptor;
    machine.put(slot(index), &[a, b, c, slot(index.wrapping_add(1))]);
}

/// An engine and its driver, which keeps the books as DPDK's does.
pub(super) struct Rig {
    pub(super) ioat: Ioat,
    pub(super) machine: Machine,
    /// The number of the next descriptor.
    pub(super) next: u16,
    /// Its number when the chain began.
    pub(super) offset: u16,
}

impl Rig {
    pub(super) fn new(options: IoatConfig) -> Self {
        Self { ioat: Ioat::new(options), machine: Machine::new(SIZE), next: 0, offset: 0 }
    }

    pub(super) fn started() -> Self {
        Self::started_as(IoatConfig::default().polled)
    }

    pub(super) fn started_as(polled: bool) -> Self {
        let mut rig = Self::new(IoatConfig { polled, ..IoatConfig::default() });
        rig.start();
        rig
    }

    pub(super) fn start(&mut self) {
        for command in [0x04, 0x20] {
            self.write(0x84, 1, command);
            self.run();
            assert_eq!(self.read(0x84, 1), 0);
        }
        self.start_chain();
    }

    pub(super) fn start_chain(&mut self) {
        (self.next, self.offset) = (0, 0);
        self.write(0x90, 8, RING);
        self.write(0x98, 8, RECORD);
        self.write(0x80, 2, 0x0c);
        self.machine.put(RECORD, &[RING + 31 * 64]);
    }

    /// After an error, from descriptor `next` on.
    pub(super) fn recover(&mut self, next: u16) {
        let errors = self.read(0xa8, 4);
        self.write(0xa8, 4, errors);
        self.write(0x84, 1, 0x20);
        self.write(0x90, 8, RING + u64::from(next % 32) * 64);
        self.write(0x80, 2, 0x0c);
        self.write(0x98, 8, RECORD);
        self.run();
        assert_eq!(self.read(0x88, 8), 4);
        self.offset = next;
    }

    pub(super) fn read(&mut self, offset: u64, size: usize) -> u64 {
        let mut data = [0; 8];
        self.ioat.bar_read(0, offset, &mut data[..size], &mut self.machine);
        u64::from_le_bytes(data)
    }

    pub(super) fn write(&mut self, offset: u64, size: usize, value: u64) {
        self.ioat.bar_write(0, offset, &value.to_le_bytes()[..size], &mut self.machine);
    }

    pub(super) fn run(&mut self) -> usize {
        let mut calls = 0;
        while self.ioat.run(&mut self.machine) {
            calls += 1;
            assert!(calls < 10_000, "never done");
        }
        calls
    }

    pub(super) fn at(&mut self, addr: u64, len: usize) -> &mut [u8] {
        self.machine.at(addr, len).unwrap()
    }

    pub(super) fn fill_source(&mut self) {
        for (i, byte) in self.at(SRC, 1 << 20).iter_mut().enumerate() {
            *byte = (i * 7 + i / 251) as u8;
        }
    }

    pub(super) fn descriptor(&mut self, size: u32, control: u32, source: u64, destination: u64) {
        let first = u64::from(control) << 32 | u64::from(size);
        put_descriptor(&mut self.machine, self.next, [first, source, destination]);
        self.next = self.next.wrapping_add(1);
    }

    pub(super) fn copy(&mut self, source: u64, destination: u64, size: u32) {
        self.descriptor(size, 1 << 3, source, destination);
    }

    pub(super) fn fill(&mut self, pattern: u64, destination: u64, size: u32) {
        self.descriptor(size, 1 << 24 | 1 << 3, pattern, destination);
    }

    pub(super) fn submit(&mut self) {
        self.write(0x86, 2, self.next.wrapping_sub(self.offset).into());
        self.run();
    }

    pub(super) fn record(&mut self) -> u64 {
        self.machine.u64(RECORD)
    }

    /// How many descriptors are done, in the driver's numbers: the record, or the offset when no
    /// descriptor is done since the chain began.
    pub(super) fn completed(&mut self) -> u16 {
        let record = self.record();
        if record & !7 == 0 {
            return self.offset;
        }
        let slot = ((record - RING) / 64) as u16;
        // The newest number that has this slot.
        let back = self.next.wrapping_sub(1).wrapping_sub(slot) % 32;
        self.next.wrapping_sub(back)
    }
}
