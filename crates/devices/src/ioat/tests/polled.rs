//! DPDK's driver on a page that is polled.

use pci::Device;

use super::rig::{DST, RECORD, RING, SIZE, SRC, put_descriptor};
use crate::front::Front;
use crate::ioat::{Ioat, IoatConfig};
use crate::machine::Machine;

type Polled = Front<Ioat, Machine>;

fn powered_on() -> Polled {
    Front::new(Ioat::new(IoatConfig::default()), Machine::new(SIZE))
}

fn status(front: &Polled) -> u64 {
    u64::from(front.load(0x88)) | u64::from(front.load(0x8c)) << 32
}

fn start(front: &mut Polled) {
    front.store(0x90, 8, RING);
    front.store(0x98, 8, RECORD);
    front.store(0x80, 2, 0x0c);
    assert_ne!(status(front) & 7, 3, "DPDK would think of an error");
}

/// Copies of 64 bytes, from the start of the ring; a source of 0 is an error.
fn submit(front: &mut Polled, sources: &[u64]) {
    for (i, source) in (0..).zip(sources) {
        put_descriptor(&mut front.bus, i, [8 << 32 | 64, *source, DST]);
    }
    front.store(0x86, 2, sources.len() as u64);
}

#[test]
fn dpdk_starts_stops_and_recovers() {
    let mut front = powered_on();
    assert_eq!(front.load(8), 0x34);
    for command in [0x04, 0x20] {
        front.store(0x84, 1, command);
        front.poll(|_| {});
        assert_eq!(front.load(0x84), 0);
    }
    for seen_at_once in [false, true, false] {
        start(&mut front);
        if !seen_at_once {
            front.poll(|_| {});
            assert_eq!(status(&front), 4);
        }
        submit(&mut front, &[SRC; 16]);
        front.poll(|_| {});
        let done = (RING + 15 * 64) | 1;
        assert_eq!((front.bus.u64(RECORD), status(&front)), (done, done));
        front.store(0x84, 1, 0x04);
        front.poll(|_| {});
        assert_eq!((status(&front) & 7, front.load(0x84), front.load(0x90)), (2, 0, 0));
    }
    // Stopped by a reset, before anything was done.
    start(&mut front);
    front.poll(|_| {});
    front.store(0x84, 1, 0x20);
    front.poll(|_| {});
    assert_eq!(status(&front), 2);
    start(&mut front);
    submit(&mut front, &[SRC, 0, SRC]);
    front.poll(|_| {});
    assert_eq!((front.bus.u64(RECORD), front.load(0xa8)), (RING | 3, 1));
    // All of the recovery in one look.
    front.store(0xa8, 4, 1);
    front.store(0x84, 1, 0x20);
    front.store(0x90, 8, RING + 128);
    front.poll(|_| {});
    assert_eq!((status(&front), front.load(0xa8)), (4, 0));
    front.store(0x86, 2, 1);
    front.poll(|_| {});
    assert_eq!(front.bus.u64(RECORD), (RING + 128) | 1);
}

/// Whoever reads in the record that the channel halted finds why in the registers; whoever reads
/// that it stopped can start it again with the same values.
#[test]
fn what_is_told_is_in_place() {
    let mut front = powered_on();
    start(&mut front);
    submit(&mut front, &[SRC, 0]);
    front.poll(|front| {
        if front.bus.u64(RECORD) & 7 == 3 {
            assert_eq!((status(front) & 7, front.load(0xa8)), (3, 1));
        }
    });
    assert_eq!(front.bus.u64(RECORD), RING | 3);
    front.store(0x84, 1, 0x20);
    front.replay();
    assert_eq!((front.load(0x84), front.load(0x90), status(&front) & 7), (0x20, 0, 3));
    front.device.run(&mut front.bus);
    front.copy_back();
    assert_eq!((front.load(0x84), status(&front)), (0, 2));
}
