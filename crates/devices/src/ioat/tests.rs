//! The engine, driven as DPDK and the kernel's selftests do.

mod hostile;
mod polled;
mod rig;

use alloc::vec::Vec;

use pci::{Device, regs};

use self::rig::{BASE, DOORBELL, DST, RECORD, RING, Rig, SIZE, SRC};
use super::IoatConfig;

const HALTED: u64 = 3;
const ARMED: u64 = 4;

#[test]
fn an_engine_as_it_powers_on() {
    let mut rig = Rig::new(IoatConfig::default());
    assert_eq!((rig.read(0, 4), rig.read(8, 1), rig.read(0x10, 4)), (0x1401, 0x34, 0x41));
    assert_eq!((rig.read(0x82, 2), rig.read(0x84, 1), rig.read(0x88, 8)), (2, 0, 2));
    let config = rig.ioat.config();
    assert_eq!((config.u32(0), config.u32(8) >> 8), (0x2021_8086, 0x08_8000));
    let ids: Vec<u16> = config.capabilities().map(|c| c.id).collect();
    assert_eq!(ids, [0x11, 0x10, 0x01]);
    assert_ne!(config.u32(0x94) & regs::express::DEVCAP_FLR, 0);
    let config = IoatConfig { polled: false, transfer_shift: 12, version: 0x33 };
    let mut rig = Rig::new(config);
    assert_eq!((rig.read(0, 4), rig.read(8, 4), rig.read(0x88, 8)), (0xc01, 0x33, HALTED));
    assert_eq!(rig.ioat.polled(0, 0), None);
}

#[test]
fn copies_and_fills_and_tells() {
    let mut rig = Rig::started();
    assert_eq!(rig.read(0x88, 8), ARMED);
    rig.fill_source();
    rig.copy(SRC + 3, DST, 100_001);
    rig.fill(0x0807_0605_0403_0201, DST + 200_000, 11);
    rig.submit();
    assert_eq!(rig.record(), (RING + 64) | 1);
    let expected = rig.at(SRC + 3, 100_001).to_vec();
    assert_eq!(rig.at(DST, 100_001), expected);
    assert_eq!(rig.at(DST + 200_000, 12), [1, 2, 3, 4, 5, 6, 7, 8, 1, 2, 3, 0]);
    assert_eq!((rig.read(0x88, 8), rig.read(0xa0, 8)), ((RING + 64) | 1, RING + 128));
    let stats = *rig.ioat.stats();
    assert_eq!((stats.descriptors, stats.bytes, stats.errors), (2, 100_012, 0));
}

#[test]
fn the_ring_goes_round_and_fetches_in_batches() {
    let mut rig = Rig::started();
    for round in 0..10 {
        rig.machine.reads.clear();
        for _ in 0..20 {
            rig.copy(SRC, DST, 8);
        }
        rig.submit();
        assert_eq!(rig.record() & !7, RING + (round * 20 + 19) % 32 * 64);
        let fetches = rig.machine.reads.iter().filter(|(addr, _)| *addr < RECORD).count();
        assert!(fetches <= 4, "{fetches}");
    }
}

/// DPDK looks at most 200 times for the state after a command: on a busy machine the device's thread
/// may not have run by then.
#[test]
fn commands_to_stop_are_done_at_once_where_registers_trap() {
    let mut rig = Rig::started_as(false);
    rig.copy(0, DST, 8);
    rig.submit();
    let state = |rig: &mut Rig| (rig.read(0x84, 1), rig.read(0x88, 8) & 7);
    assert_eq!(state(&mut rig), (0, HALTED));
    rig.write(0x84, 1, 0x20);
    assert_eq!((state(&mut rig), rig.read(0xa8, 4)), ((0, HALTED), 0));
    rig.write(0x90, 8, RING);
    assert_eq!(state(&mut rig), (0, ARMED));
    rig.write(0x84, 1, 0x04);
    assert_eq!(state(&mut rig), (0, 2));
    assert_eq!((rig.ioat.stats().resets, rig.run()), (2, 0));
}

/// An error in a burst, as DPDK's test of completion status provokes it.
#[test]
fn an_error_halts_and_recovery_goes_on() {
    for polled in [false, true] {
        let mut rig = Rig::started_as(polled);
        for fail in [0, 7, 15] {
            let first = rig.next;
            for i in 0..16 {
                rig.copy(if i == fail { 0 } else { SRC }, DST, 32);
            }
            rig.submit();
            assert_eq!(rig.record() & 7, HALTED);
            assert_eq!((rig.completed(), rig.read(0xa8, 4)), (first + fail, 1));
            // Nothing moves before the reset.
            let next = rig.next;
            rig.write(0x86, 2, next.wrapping_sub(rig.offset).wrapping_add(1).into());
            rig.run();
            assert_eq!(rig.read(0x88, 8) & 7, HALTED);
            rig.recover(first + fail + 1);
            rig.submit();
            if fail != 15 {
                assert_eq!((rig.completed(), rig.record() & 7), (first + 16, 1));
            }
        }
        assert_eq!(rig.ioat.stats().errors, 3);
    }
}

#[test]
fn each_error_has_its_bit() {
    let end = BASE + SIZE as u64;
    for (size, control, source, destination, bits) in [
        (8, 8, end, DST, 1),
        (8, 8, SRC, end, 2),
        (8, 8 | 1 << 24, SRC, u64::MAX, 2),
        (0, 8, SRC, DST, 1 << 11),
        ((1 << 20) + 1, 8, SRC, DST, 1 << 11),
        (8, 8 | 0x87 << 24, SRC, DST, 1 << 10),
        (8, 8 | 1 << 5, end, end, 0),
    ] {
        let mut rig = Rig::started();
        rig.descriptor(size, control, source, destination);
        rig.submit();
        assert_eq!(rig.read(0xa8, 4), bits, "{size} {control:x}");
        assert_eq!(rig.ioat.config().u32(0x180), bits as u32);
    }
    // The chain itself.
    for (chain, bits) in [(RING + 8, 1 << 4), (end, 1 << 8), (!0x3f, 1 << 8)] {
        let mut rig = Rig::started();
        rig.write(0x84, 1, 0x20);
        rig.run();
        rig.write(0x90, 8, chain);
        rig.write(0x86, 2, 1);
        rig.run();
        assert_eq!(rig.read(0xa8, 4), bits);
    }
    let mut rig = Rig::started();
    rig.copy(SRC, DST, 8);
    rig.copy(SRC, DST, 8);
    rig.at(RING + 24, 1)[0] += 4;
    rig.submit();
    assert_eq!((rig.read(0xa8, 4), rig.completed()), (1 << 3, 1));
    // Nowhere to complete.
    let mut rig = Rig::started();
    rig.write(0x98, 8, end);
    rig.copy(SRC, DST, 8);
    rig.submit();
    assert_eq!(rig.read(0xa8, 4), 1 << 12);
    rig.write(0xa8, 4, 1 << 12);
    assert_eq!(rig.read(0xa8, 4), 0);
}

/// The kernel's selftests: one descriptor that is its own next, 65535 times, status by register.
#[test]
fn a_storm_of_copies() {
    let options = IoatConfig { version: 0x33, transfer_shift: 12, polled: false };
    let mut rig = Rig::new(options);
    rig.write(0x84, 1, 0x20);
    rig.run();
    assert_eq!((rig.read(0x84, 1), rig.read(0x88, 8)), (0, HALTED));
    for round in 1..=2 {
        rig.machine.put(RING, &[4096, SRC, DST, RING]);
        rig.write(0x90, 8, RING);
        rig.write(0x80, 2, 0x09);
        rig.write(0x86, 2, 0xffff);
        let calls = rig.run();
        assert_eq!(calls, 65535 / 64);
        assert_eq!((rig.read(0x88, 1) & 7, rig.read(0xa8, 4)), (1, 0));
        rig.write(0x84, 1, 0x04);
        rig.run();
        assert_eq!(rig.read(0x88, 1) & 7, 2);
        assert_eq!(rig.ioat.stats().descriptors, 65535 * round);
    }
}

#[test]
fn interrupts_are_sent_once_armed() {
    let mut rig = Rig::started();
    rig.ioat.config_mut().write_u16(0x82, regs::msix::ENABLE);
    for (offset, value) in [(0x2000, DOORBELL), (0x2008, 0x77)] {
        rig.write(offset, 8, value);
    }
    let mut interrupts = |control, intrctrl| {
        rig.write(3, 1, intrctrl);
        rig.write(0x80, 2, control);
        for _ in 0..2 {
            rig.descriptor(8, 9, SRC, DST);
            rig.submit();
        }
        core::mem::take(&mut rig.machine.interrupts)
    };
    assert_eq!(interrupts(0x0d, 0), []);
    assert_eq!(interrupts(0x0c, 8), []);
    assert_eq!(interrupts(0x0d, 8), [0x77]);
    assert_eq!(interrupts(0x0d, 1), [0x77]);
    // Errors, too.
    rig.write(0x80, 2, 0x1d);
    rig.descriptor(8, 0, 0, DST);
    rig.submit();
    assert_eq!(rig.machine.interrupts, [0x77]);
}

#[test]
fn a_suspended_chain_goes_on_or_starts_anew() {
    for polled in [false, true] {
        let mut rig = Rig::started_as(polled);
        (0..20).for_each(|_| rig.copy(SRC, DST, 1 << 20));
        rig.write(0x86, 2, 20);
        // A few at a time; stopped in between.
        assert!(rig.ioat.run(&mut rig.machine));
        assert_eq!(rig.completed(), 2);
        rig.write(0x84, 1, 0x04);
        rig.run();
        assert_eq!(
            (rig.read(0x88, 8), rig.read(0x86, 2), rig.read(0x90, 8)),
            ((RING + 64) | 2, 0, 0)
        );
        rig.write(0x84, 1, 0x10);
        rig.run();
        assert_eq!((rig.completed(), rig.read(0x88, 8) & 7), (20, 1));
        rig.write(0x84, 1, 0x04);
        rig.run();
        rig.start_chain();
        assert_eq!(rig.read(0x88, 8), ARMED);
        rig.copy(SRC, DST, 8);
        rig.submit();
        assert_eq!(rig.record(), RING | 1);
        rig.write(0x84, 1, 0x08);
        rig.run();
        assert_eq!((rig.read(0x84, 1), rig.read(0x88, 8) & 7), (0, HALTED));
    }
}

/// A command to stop between an error and the record of it.
#[test]
fn a_halt_is_told_although_the_channel_was_suspended() {
    for polled in [false, true] {
        let mut rig = Rig::started_as(polled);
        rig.copy(0, DST, 8);
        rig.write(0x86, 2, rig.next.into());
        assert!(rig.ioat.run(&mut rig.machine));
        assert_eq!((rig.read(0x88, 8) & 7, rig.record() & 7), (HALTED, 0));
        rig.write(0x84, 1, 0x04);
        rig.run();
        assert_eq!((rig.read(0x88, 8) & 7, rig.record() & 7), (HALTED, HALTED));
    }
}

#[test]
fn a_function_level_reset_forgets() {
    let mut rig = Rig::started();
    rig.copy(SRC, DST, 8);
    rig.write(0x86, 2, 1);
    rig.ioat.reset();
    assert_eq!((rig.run(), rig.read(0x90, 8), rig.read(0x86, 2)), (0, 0, 0));
    assert_eq!(rig.ioat.stats().descriptors, 0);
}
