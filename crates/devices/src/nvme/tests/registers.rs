//! Registers, start, stop and shutdown, and how polling sees them.

use alloc::vec::Vec;

use pci::{Device, regs};

use super::rig::{DATA, Rig, io, rings};

#[test]
fn a_controller_as_it_powers_on() {
    let mut rig = Rig::new();
    assert_eq!((rig.read(0), rig.read(4), rig.read(8)), (0x1401_07ff, 0x0040_0020, 0x1_0400));
    assert_eq!((rig.read(0x14), rig.read(0x1c)), (0, 0));
    let mut wide = [0; 8];
    rig.nvme.bar_read(0, 0, &mut wide, &mut rig.machine);
    assert_eq!(u64::from_le_bytes(wide), 0x0040_0020_1401_07ff);
    let mut narrow = [9; 2];
    rig.nvme.bar_read(0, 8, &mut narrow, &mut rig.machine);
    assert_eq!(narrow, [0, 4]);
    let mut timeout = [9];
    rig.nvme.bar_read(0, 3, &mut timeout, &mut rig.machine);
    assert_eq!(timeout, [0x14]);
    // Written they are not.
    rig.nvme.bar_write(0, 0x24, &[1, 0], &mut rig.machine);
    assert_eq!(rig.read(0x24), 0);
    let config = rig.nvme.config();
    assert_eq!(
        (config.u32(0), config.u32(8), config.u32(0x2c)),
        (0x10_1b36, 0x0108_0202, 0x1100_1af4)
    );
    let ids: Vec<u16> = config.capabilities().map(|c| c.id).collect();
    assert_eq!(ids, [u16::from(regs::cap::MSIX), 0x10, 0x01]);
}

#[test]
fn a_wrong_start_is_fatal() {
    let good = 4 << 20 | 6 << 16 | 1;
    for (aqa, asq, acq, cc, status) in [
        (0x1f_001f, 0x1000, 0x2000, good, 1),
        (0x1f_001f, 0x1000, 0x2000, 1, 1),
        (0x1f_0000, 0x1000, 0x2000, good, 2),
        (0x00_001f, 0x1000, 0x2000, good, 2),
        (0x1f_001f, 0x1000, 0x2000, good | 5 << 7, 2),
        (0x1f_001f, 0x1000, 0x2000, good | 1 << 7, 2),
        (0x1f_001f, 0x2000, 0x4000, good | 1 << 7, 1),
        (0x1f_001f, 0x1000, 0x2000, good | 1 << 4, 2),
        (0x1f_001f, 0x1000, 0x2000, good | 1 << 11, 2),
        (0x1f_001f, 0x1000, 0x2000, good | 1 << 16, 2),
    ] {
        let mut rig = Rig::new();
        rig.write(0x24, aqa);
        rig.write_64(0x28, asq);
        rig.write_64(0x30, acq);
        rig.write(0x14, cc);
        assert_eq!(rig.read(0x1c), status, "{aqa:x} {asq:x} {acq:x} {cc:x}");
    }
}

#[test]
fn a_reset_forgets_queues_and_keeps_registers() {
    let mut rig = Rig::ready();
    rig.submit(1, io(2, 0, 1, DATA, 0));
    rig.ring_tail(1);
    rig.write(0x14, 0);
    assert_eq!((rig.read(0x1c), rig.read(0x1000), rig.read(0x1008)), (0, 0, 0));
    rig.run();
    assert_eq!(rig.take(1), None);
    assert_eq!((rig.read(0x24), u64::from(rig.read(0x28))), (0x1f_001f, rings(0).0));
    rig.start();
    assert_eq!(rig.create_pair(1, 16, Some(1)), (0, 0));
    assert_eq!(rig.exec(1, io(2, 0, 1, DATA, 0)), (0, 0));
    rig.nvme.reset();
    assert_eq!((rig.read(0x24), rig.read(0x14), rig.nvme.stats().resets), (0, 0, 2));
}

#[test]
fn a_shutdown_completes_and_nothing_runs_after_it() {
    let mut rig = Rig::ready();
    rig.write(0x14, 4 << 20 | 6 << 16 | 1 << 14 | 1);
    assert_eq!(rig.read(0x1c), 1 << 2 | 1);
    rig.run();
    assert_eq!(rig.read(0x1c), 2 << 2 | 1);
    rig.submit(1, io(2, 0, 1, DATA, 0));
    rig.ring_tail(1);
    rig.run();
    assert_eq!(rig.take(1), None);
    rig.start();
    assert_eq!(rig.create_pair(1, 16, Some(1)), (0, 0));
}

#[test]
fn an_unreachable_queue_is_fatal() {
    let mut rig = Rig::new();
    rig.write(0x24, 31 << 16 | 31);
    rig.write_64(0x28, 0x1000);
    rig.write_64(0x30, rings(0).1);
    rig.write(0x14, 4 << 20 | 6 << 16 | 1);
    rig.write(0x1000, 1);
    rig.run();
    assert_eq!(rig.read(0x1c), 3);
    rig.start();
    assert_eq!(rig.create_pair(1, 16, None), (0, 0));
}

/// A batch as a front end replays it: everything that starts the controller, seen at once.
#[test]
fn one_batch_starts_a_polled_controller() {
    let mut rig = Rig::new();
    let page = rig.nvme.polled(0, 0).unwrap();
    assert_eq!((page.last, page.writable), (&[0x14][..], 0x0c..0x38));
    assert_eq!(rig.nvme.polled(0, 1).unwrap().words, 0..65 * 8);
    assert_eq!((rig.nvme.polled(0, 2), rig.nvme.polled(1, 0)), (None, None));
    let (sq, cq) = rings(0);
    for (offset, value) in
        [(0x24, 0x1f_001f), (0x28, sq as u32), (0x30, cq as u32), (0x14, 4 << 20 | 6 << 16 | 1)]
    {
        rig.write(offset, value);
    }
    assert_eq!(rig.read(0x1c), 1);
}

#[test]
fn changes_are_counted_where_words_read_otherwise() {
    let mut rig = Rig::ready();
    let before = rig.nvme.polled_changes();
    rig.submit(1, io(2, 0, 1, DATA, 0));
    rig.ring_tail(1);
    rig.run();
    rig.take(1).unwrap();
    rig.ring_head(1);
    assert_eq!(rig.nvme.polled_changes(), before);
    // A doorbell that is not taken shows the old value.
    rig.write(0x1008, 99);
    assert_ne!(rig.nvme.polled_changes(), before);
    assert_eq!(rig.read(0x1008), 1);
}

/// A doorbell that fell back to 0 is in the page before memory says that the queue is new.
#[test]
fn new_queues_are_told_after_their_doorbells() {
    let mut rig = Rig::ready();
    rig.submit(1, io(2, 0, 1, DATA, 0));
    rig.ring_tail(1);
    rig.run();
    let before = rig.nvme.polled_changes();
    rig.submit(0, super::rig::Sqe { opcode: 0, cdw: [1, 0, 0, 0, 0, 0], ..Default::default() });
    rig.ring_tail(0);
    assert!(rig.nvme.run(&mut rig.machine));
    assert_eq!((rig.read(0x1008), rig.take(0)), (0, None));
    assert_ne!(rig.nvme.polled_changes(), before);
    rig.nvme.run(&mut rig.machine);
    assert_eq!(rig.take(0).unwrap().status, 0);
}
