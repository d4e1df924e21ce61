//! A front end that shows the registers as plain memory, as `pci::Polled` says, and DPDK's driver
//! on that page.

use pci::Device;

use super::rig::{DST, Machine, RECORD, RING, SRC};
use crate::ioat::{Ioat, IoatConfig};

/// The page that the driver sees, and the front end's copy of it.
struct Front {
    ioat: Ioat,
    machine: Machine,
    page: [u32; 1024],
    copy: [u32; 1024],
    changes: u64,
}

impl Front {
    fn new() -> Self {
        let ioat = Ioat::new(IoatConfig::default());
        let (page, copy) = ([0; 1024], [0; 1024]);
        let mut front = Self { ioat, machine: Machine::new(), page, copy, changes: u64::MAX };
        front.copy_back();
        front
    }

    fn copy_back(&mut self) {
        if core::mem::replace(&mut self.changes, self.ioat.polled_changes()) == self.changes {
            return;
        }
        for at in self.ioat.polled(0, 0).unwrap().words.step_by(4) {
            let index = usize::from(at) / 4;
            let mut word = [0; 4];
            self.ioat.bar_read(0, at.into(), &mut word, &mut self.machine);
            let word = u32::from_le_bytes(word);
            if word != self.copy[index] && self.page[index] == self.copy[index] {
                (self.page[index], self.copy[index]) = (word, word);
            }
        }
    }

    /// One look at the page.
    fn poll(&mut self) {
        for at in self.ioat.polled(0, 0).unwrap().writable.step_by(4) {
            let index = usize::from(at) / 4;
            let seen = self.page[index];
            if seen != self.copy[index] {
                self.copy[index] = seen;
                self.ioat.bar_write(0, at.into(), &seen.to_le_bytes(), &mut self.machine);
            }
        }
        self.copy_back();
        for _ in 0..100 {
            let more = self.ioat.run(&mut self.machine);
            self.copy_back();
            if !more {
                return;
            }
        }
        panic!("never done");
    }

    /// A store by the driver; nobody hears of it.
    fn store(&mut self, offset: usize, size: usize, value: u64) {
        for (i, byte) in value.to_le_bytes()[..size].iter().enumerate() {
            let (index, shift) = ((offset + i) / 4, (offset + i) % 4 * 8);
            self.page[index] = self.page[index] & !(0xff << shift) | u32::from(*byte) << shift;
        }
    }

    fn status(&self) -> u64 {
        u64::from(self.page[0x22]) | u64::from(self.page[0x23]) << 32
    }

    fn start(&mut self) {
        self.store(0x90, 8, RING);
        self.store(0x98, 8, RECORD);
        self.store(0x80, 2, 0x0c);
        assert_ne!(self.status() & 7, 3, "DPDK would think of an error");
    }
}

#[test]
fn dpdk_starts_stops_and_recovers_on_a_page() {
    let mut front = Front::new();
    assert_eq!(front.page[2], 0x34);
    for command in [0x04, 0x20] {
        front.store(0x84, 1, command);
        front.poll();
        assert_eq!(front.page[0x21], 0);
    }
    for seen_at_once in [false, true, false] {
        front.start();
        if !seen_at_once {
            front.poll();
            assert_eq!(front.status(), 4);
        }
        for i in 0..16 {
            front.machine.descriptor(i, [8 << 32 | 64, SRC, DST]);
        }
        front.store(0x86, 2, 16);
        front.poll();
        assert_eq!(
            (front.machine.u64(RECORD), front.status()),
            ((RING + 15 * 64) | 1, (RING + 15 * 64) | 1)
        );
        front.store(0x84, 1, 0x04);
        front.poll();
        assert_eq!((front.status() & 7, front.page[0x21], front.page[0x24]), (2, 0, 0));
    }
    // Stopped before anything was done, by a reset.
    front.start();
    front.poll();
    front.store(0x84, 1, 0x20);
    front.poll();
    assert_eq!(front.status(), 2);
    front.start();
    front.machine.descriptor(0, [8 << 32 | 64, SRC, DST]);
    front.machine.descriptor(1, [8 << 32 | 64, 0, DST]);
    front.machine.descriptor(2, [8 << 32 | 64, SRC, DST]);
    front.store(0x86, 2, 3);
    front.poll();
    assert_eq!((front.machine.u64(RECORD), front.page[0x2a]), (RING | 3, 1));
    // All of the recovery in one look.
    front.store(0xa8, 4, 1);
    front.store(0x84, 1, 0x20);
    front.store(0x90, 8, RING + 128);
    front.poll();
    assert_eq!((front.status(), front.page[0x2a]), (4, 0));
    front.store(0x86, 2, 1);
    front.poll();
    assert_eq!(front.machine.u64(RECORD), (RING + 128) | 1);
}

/// Whoever reads the record finds the registers in place.
#[test]
fn registers_tell_of_errors_first() {
    let mut front = Front::new();
    front.start();
    front.machine.descriptor(0, [8 << 32 | 64, 0, DST]);
    front.store(0x86, 2, 1);
    for word in [0x20, 0x21, 0x24, 0x25, 0x26, 0x27] {
        let (offset, data) = (word * 4, front.page[word as usize].to_le_bytes());
        front.ioat.bar_write(0, offset, &data, &mut front.machine);
    }
    assert!(front.ioat.run(&mut front.machine));
    front.changes = u64::MAX;
    front.copy_back();
    assert_eq!((front.status(), front.page[0x2a], front.machine.u64(RECORD)), (3, 1, 0));
    front.ioat.run(&mut front.machine);
    assert_eq!(front.machine.u64(RECORD), 3);
}
