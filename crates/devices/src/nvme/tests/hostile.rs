//! A driver that writes anything anywhere: nothing panics, and every call ends.

use alloc::boxed::Box;
use alloc::vec;

use pci::Device;

use super::rig::{BASE, SIZE};
use crate::machine::{Machine, Random};
use crate::nvme::{Backend, BlockSize, MemoryBackend, Nvme, NvmeConfig};

/// A number that is small, near an end, an address in memory, or anything.
fn value(random: &mut Random) -> u64 {
    match random.below(8) {
        0 => random.below(4),
        1 => u64::MAX - random.below(4),
        2 => 1_u64 << random.below(64),
        3..=5 => BASE + (random.below(SIZE as u64 + 0x1000) & !0xfff),
        6 => BASE + random.below(SIZE as u64 + 0x1000),
        _ => random.next(),
    }
}

#[test]
fn anything_goes() {
    for seed in 1..=40 {
        let random = &mut Random(seed * 0x9e37_79b9);
        let disk: Box<dyn Backend> = Box::new(MemoryBackend::new(random.below(1 << 24)));
        let mut config = NvmeConfig::new("", vec![disk]);
        config.queues = random.below(6) as u16;
        config.vectors = random.below(9) as u16;
        if seed & 1 != 0 {
            config.block_size = BlockSize::B4096;
        }
        let (mut nvme, mut machine) = (Nvme::new(config), Machine::with_pin(SIZE));
        nvme.config_mut().write_u16(0x42, pci::regs::msix::ENABLE);
        for _ in 0..4000 {
            step(&mut nvme, &mut machine, random);
        }
    }
}

fn step(nvme: &mut Nvme, machine: &mut Machine, random: &mut Random) {
    match random.below(16) {
        0 => {
            let (offset, new) = (random.below(0x40) & !3, value(random));
            nvme.bar_write(0, offset, &(new as u32).to_le_bytes(), machine);
        }
        1 => {
            let size = 1 << random.below(4);
            let offset = random.below(0x4000) & !(size as u64 - 1);
            nvme.bar_write(0, offset, &value(random).to_le_bytes()[..size], machine);
            nvme.bar_read(0, offset, &mut [0; 8][..size], machine);
        }
        // A start that works, so that the rest is reached.
        2 if nvme.regs.csts & 1 == 0 || random.below(50) == 0 => {
            nvme.bar_write(0, 0x14, &[0; 4], machine);
            nvme.bar_write(0, 0x24, &[15, 0, 15, 0], machine);
            nvme.bar_write(0, 0x28, &BASE.to_le_bytes(), machine);
            nvme.bar_write(0, 0x30, &(BASE + 0x1000).to_le_bytes(), machine);
            nvme.bar_write(0, 0x14, &[1, 0, 0x46, 0], machine);
        }
        3..=5 => {
            let (offset, value) = (0x1000 + 4 * random.below(8), random.below(18) as u32);
            nvme.bar_write(0, offset, &value.to_le_bytes(), machine);
        }
        6 if random.below(200) == 0 => nvme.reset(),
        7..=11 => {
            let at = BASE + 0x2000 * random.below(4) + 64 * random.below(16);
            let entry = command(random);
            machine.at(at, 64).unwrap().copy_from_slice(&entry);
        }
        12 => {
            let at = BASE + (random.below(SIZE as u64 - 8) & !7);
            machine.put(at, &[value(random)]);
        }
        _ => {
            machine.reads.clear();
            machine.writes.clear();
            nvme.run(machine);
            let transfers = machine.reads.len() + machine.writes.len();
            assert!(transfers < 64 * 400, "{transfers} transfers in one call");
            assert!(nvme.data.len() <= 512 << 10);
        }
    }
}

fn command(random: &mut Random) -> [u8; 64] {
    let mut entry = [0; 64];
    for part in entry.as_chunks_mut::<8>().0 {
        *part = value(random).to_le_bytes();
    }
    entry[0] = random.below(16) as u8;
    if random.below(4) != 0 {
        entry[1] = 0;
        entry[4..8].copy_from_slice(&1_u32.to_le_bytes());
    }
    if random.below(2) != 0 {
        // A queue, or blocks near the start.
        let (id, size) = (random.below(4) as u16, random.below(20) as u16);
        entry[40..42].copy_from_slice(&id.to_le_bytes());
        entry[42..44].copy_from_slice(&size.to_le_bytes());
        entry[44..48].copy_from_slice(&[random.below(4) as u8, 0, random.below(4) as u8, 0]);
    }
    entry
}
