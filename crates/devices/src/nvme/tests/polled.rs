//! A driver on pages that are polled, its values the same again and again.

use alloc::boxed::Box;
use alloc::vec;

use super::rig::{DATA, SIZE, Sqe, io, rings};
use crate::front::Front;
use crate::machine::Machine;
use crate::nvme::{MemoryBackend, Nvme, NvmeConfig};

type Polled = Front<Nvme, Machine>;

/// A command in the first place of a queue.
fn first(front: &mut Polled, id: u64, sqe: Sqe) {
    place(front, id, 0, sqe);
}

fn place(front: &mut Polled, id: u64, slot: u64, sqe: Sqe) {
    let at = rings(id).0 + slot * 64;
    front.bus.at(at, 64).unwrap().copy_from_slice(&sqe.bytes(slot as u16));
}

/// Rings the tail, waits, and takes all completions up to `tail`, which succeed.
fn ring(front: &mut Polled, id: u64, tail: u64) {
    front.store(0x1000 + 8 * id as usize, 4, tail);
    front.poll(|front| {
        // A queue is new in memory: its doorbells are, on the page.
        let told = front.bus.at(rings(0).1 + (tail - 1) * 16 + 14, 1).unwrap()[0] & 1 != 0;
        if id == 0 && told {
            assert_eq!((front.load(0x1008), front.load(0x100c)), (0, 0));
        }
    });
    let last = front.bus.at(rings(id).1 + (tail - 1) * 16 + 14, 2).unwrap();
    assert_eq!(last, [1, 0], "queue {id}");
    front.store(0x1004 + 8 * id as usize, 4, tail);
    front.poll(|_| {});
}

#[test]
fn starts_again_with_the_same_doorbells() {
    let config = NvmeConfig::new("", vec![Box::new(MemoryBackend::new(1 << 20))]);
    let mut front = Front::new(Nvme::new(config), Machine::with_pin(SIZE));
    assert_eq!((front.load(0), front.load(8)), (0x1401_07ff, 0x1_0400));
    let command = |opcode, prp1, cdw10, cdw11| {
        let cdw = [cdw10, cdw11, 0, 0, 0, 0];
        Sqe { opcode, prp1, cdw, ..Sqe::default() }
    };
    for round in 0..3 {
        // Everything at once: the registers, and that they are valid.
        front.store(0x14, 4, 4 << 20 | 6 << 16 | 1);
        front.store(0x24, 4, 31 << 16 | 31);
        front.store(0x28, 8, rings(0).0);
        front.store(0x30, 8, rings(0).1);
        front.poll(|_| {});
        assert_eq!(front.load(0x1c), 1, "round {round}");
        for id in 0..2 {
            front.bus.at(rings(id).1, 0x1000).unwrap().fill(0);
        }
        first(&mut front, 0, command(6, DATA, 1, 0));
        ring(&mut front, 0, 1);
        place(&mut front, 0, 1, command(5, rings(1).1, 15 << 16 | 1, 1));
        place(&mut front, 0, 2, command(1, rings(1).0, 15 << 16 | 1, 1 << 16 | 1));
        ring(&mut front, 0, 3);
        for slot in 0..2 {
            place(&mut front, 1, slot, io(2, slot, 1, DATA, 0));
            ring(&mut front, 1, slot + 1);
        }
        // Deleted and made anew, while the page shows 2 in both doorbells.
        place(&mut front, 0, 3, command(0, 0, 1, 0));
        place(&mut front, 0, 4, command(4, 0, 1, 0));
        place(&mut front, 0, 5, command(5, rings(1).1, 15 << 16 | 1, 1));
        place(&mut front, 0, 6, command(1, rings(1).0, 15 << 16 | 1, 1 << 16 | 1));
        ring(&mut front, 0, 7);
        front.bus.at(rings(1).1, 0x1000).unwrap().fill(0);
        for slot in 0..2 {
            place(&mut front, 1, slot, io(2, slot, 1, DATA, 0));
            ring(&mut front, 1, slot + 1);
        }
        assert_eq!(front.device.stats().reads, 4 * (round + 1));
        front.store(0x14, 4, 4 << 20 | 6 << 16);
        front.poll(|_| {});
        assert_eq!((front.load(0x1c), front.load(0x1000), front.load(0x1008)), (0, 0, 0));
    }
    assert_eq!(front.device.stats().bad_doorbells, 0);
}
