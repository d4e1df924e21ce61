//! A driver that writes anything anywhere: nothing panics, and every call ends.

use pci::Device;

use super::rig::{BASE, SIZE};
use crate::ioat::{Ioat, IoatConfig};
use crate::machine::{Machine, Random};

/// A number that is small, near an end, an address in memory, or anything.
fn value(random: &mut Random) -> u64 {
    match random.below(8) {
        0 => random.below(64),
        1 => u64::MAX - random.below(64),
        2 => 1_u64 << random.below(64),
        3..=6 => BASE + (random.below(SIZE as u64 + 0x1000) & !0x3f),
        _ => random.next(),
    }
}

#[test]
fn anything_goes() {
    for seed in 1..=40 {
        let random = &mut Random(seed * 0x9e37_79b9);
        let options = IoatConfig {
            version: 0x34,
            transfer_shift: random.below(30) as u8,
            polled: seed & 1 != 0,
        };
        let (mut ioat, mut machine) = (Ioat::new(options), Machine::new(SIZE));
        ioat.config_mut().write_u16(0x82, pci::regs::msix::ENABLE);
        for _ in 0..2000 {
            step(&mut ioat, &mut machine, random);
        }
    }
}

fn step(ioat: &mut Ioat, machine: &mut Machine, random: &mut Random) {
    match random.below(12) {
        0 => {
            let size = 1 << random.below(4);
            let offset = random.below(0x4000) & !(size as u64 - 1);
            ioat.bar_write(0, offset, &value(random).to_le_bytes()[..size], machine);
            ioat.bar_read(0, offset, &mut [0; 8][..size], machine);
        }
        1 => {
            let (offset, new) = (0x80 + (random.below(0x30) & !7), value(random));
            ioat.bar_write(0, offset, &new.to_le_bytes(), machine);
        }
        2 => ioat.bar_write(0, 0x84, &[1 << random.below(8)], machine),
        3 => ioat.bar_write(0, 0x86, &(random.below(200) as u16).to_le_bytes(), machine),
        4 => {
            let chain = BASE + random.below(64) * 64;
            ioat.bar_write(0, 0x90, &chain.to_le_bytes(), machine);
        }
        5 if random.below(100) == 0 => ioat.reset(),
        5..=8 => {
            let at = random.below(64);
            let (size, op) = (random.below(1 << 14), random.below(2) << 56);
            let first = op | random.below(64) << 32 | size;
            let next = BASE + (at + 1) % 64 * 64;
            let next = if random.below(8) == 0 { value(random) } else { next };
            machine.put(BASE + at * 64, &[first, value(random), value(random), next]);
        }
        _ => {
            machine.reads.clear();
            ioat.run(machine);
            assert!(machine.reads.len() <= 64 * 17 + 64);
            assert!(ioat.data.len() <= 64 << 10);
        }
    }
}
