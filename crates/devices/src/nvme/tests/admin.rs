//! Admin commands.

use alloc::boxed::Box;
use alloc::vec;

use super::rig::{DATA, Rig, Sqe, io, rings};
use crate::nvme::{Backend, BlockSize, MemoryBackend, NvmeConfig};

fn word(rig: &mut Rig, at: u64) -> u32 {
    u32::from_le_bytes(rig.machine.at(DATA + at, 4).unwrap().try_into().unwrap())
}

fn identify(rig: &mut Rig, nsid: u32, cns: u32) -> u16 {
    let cdw = [cns, 0, 0, 0, 0, 0];
    rig.exec(0, Sqe { opcode: 6, nsid, prp1: DATA, cdw, ..Sqe::default() }).0
}

#[test]
fn identify_tells_what_drivers_ask() {
    let disks: [Box<dyn Backend>; 2] =
        [Box::new(MemoryBackend::new(1 << 30)), Box::new(MemoryBackend::new(10_000))];
    let mut config = NvmeConfig::new("softvfio-0001", disks.into());
    config.block_size = BlockSize::B4096;
    let mut rig = Rig::with(config);
    rig.start();
    assert_eq!(identify(&mut rig, 0, 1), 0);
    assert_eq!((word(&mut rig, 0), word(&mut rig, 516)), (0x1af4_1b36, 2));
    assert_eq!(rig.machine.at(DATA + 4, 20).unwrap(), b"softvfio-0001       ");
    assert_eq!((word(&mut rig, 80), word(&mut rig, 512) & 0xffff), (0x1_0400, 0x4466));
    assert_eq!((word(&mut rig, 256) & 0xffff, word(&mut rig, 536)), (0, 0));
    assert_eq!(identify(&mut rig, 1, 0), 0);
    assert_eq!((word(&mut rig, 0), word(&mut rig, 24) >> 16 & 0xf), (1 << 18, 1));
    assert_eq!((word(&mut rig, 132), word(&mut rig, 128)), (12 << 16, 9 << 16));
    assert_eq!(identify(&mut rig, 2, 0), 0);
    assert_eq!((word(&mut rig, 0), word(&mut rig, 16)), (2, 2));
    assert_eq!(identify(&mut rig, 0, 2), 0);
    assert_eq!((word(&mut rig, 0), word(&mut rig, 4), word(&mut rig, 8)), (1, 2, 0));
    assert_eq!(identify(&mut rig, 1, 2), 0);
    assert_eq!((word(&mut rig, 0), word(&mut rig, 4)), (2, 0));
    assert_eq!(identify(&mut rig, 2, 3), 0);
    assert_eq!((word(&mut rig, 0), word(&mut rig, 12)), (0x801, 0x1002));
    for (nsid, cns, status) in
        [(0, 0, 0x0b), (3, 0, 0x0b), (u32::MAX, 0, 0x0b), (u32::MAX, 2, 0x0b)]
    {
        assert_eq!(identify(&mut rig, nsid, cns), status);
    }
    assert_eq!(identify(&mut rig, 1, 0x10), 2);
}

#[test]
fn queues_are_refused_for_their_reasons() {
    let mut rig = Rig::started();
    let (sq, cq) = rings(2);
    let mut create = |opcode, qid: u32, size: u32, cdw11, prp1| {
        rig.admin(opcode, [size << 16 | qid, cdw11, 0, 0, 0, 0], prp1).0
    };
    for (qid, size, cdw11, prp1, status) in [
        (0, 15, 1, cq, 0x101),
        (65, 15, 1, cq, 0x101),
        (2, 0, 1, cq, 0x102),
        (2, 2048, 1, cq, 0x102),
        (2, 15, 0, cq, 0x002),
        (2, 15, 1, cq + 8, 0x013),
        (2, 15, 65 << 16 | 3, cq, 0x108),
        (2, 15, 1 << 16 | 3, cq, 0x108), // only the pin: vector 0
        (2, 2047, 1, cq, 0),
        (2, 15, 1, cq, 0x101),
    ] {
        assert_eq!(create(5, qid, size, cdw11, prp1), status, "CQ {qid} {size} {cdw11:x}");
    }
    for (qid, size, cdw11, prp1, status) in [
        (2, 15, 1, sq, 0x100),
        (2, 15, 3 << 16 | 1, sq, 0x100),
        (0, 15, 2 << 16 | 1, sq, 0x101),
        (2, 0, 2 << 16 | 1, sq, 0x102),
        (2, 15, 2 << 16, sq, 0x002),
        (3, 15, 2 << 16 | 1, sq, 0),
        (3, 15, 2 << 16 | 1, sq, 0x101),
    ] {
        assert_eq!(create(1, qid, size, cdw11, prp1), status, "SQ {qid} {size} {cdw11:x}");
    }
    assert_eq!(create(4, 2, 0, 0, 0), 0x10c);
    assert_eq!(create(0, 2, 0, 0, 0), 0x101);
    assert_eq!(create(0, 0, 0, 0, 0), 0x101);
    assert_eq!(create(0, 3, 0, 0, 0), 0);
    assert_eq!(create(4, 2, 0, 0, 0), 0);
    assert_eq!(create(4, 2, 0, 0, 0), 0x101);
}

#[test]
fn entry_sizes_may_come_late_but_must_come() {
    let mut rig = Rig::new();
    rig.start();
    rig.write(0x14, 1);
    assert_eq!(rig.create_pair(1, 4, None), (0x102, 0x102));
    rig.write(0x14, 4 << 20 | 6 << 16 | 1);
    assert_eq!(rig.create_pair(1, 4, None), (0, 0));
}

#[test]
fn features() {
    let mut rig = Rig::started();
    let mut set = |cdw10: u32, cdw11| rig.admin(9, [cdw10, cdw11, 0, 0, 0, 0], 0);
    assert_eq!(set(7, 0x00ff_00ff), (0, 0x003f_003f));
    assert_eq!(set(7, 0xffff_0000).0, 2);
    assert_eq!(set(6, 0), (0, 0));
    assert_eq!(set(6 | 1 << 31, 0).0, 0x10d);
    assert_eq!(set(4, 1 << 20 | 300), (0, 0));
    assert_eq!((set(9, 64 | 1 << 16).0, set(9, 65).0, set(2, 1).0), (0, 2, 2));
    assert_eq!((set(3, 0).0, set(0x0c, 0).0), (2, 2));
    let mut get = |cdw10: u32, cdw11| rig.admin(10, [cdw10, cdw11, 0, 0, 0, 0], 0);
    assert_eq!((get(6, 0), get(6 | 1 << 8, 0), get(6 | 3 << 8, 0)), ((0, 0), (0, 1), (0, 4)));
    assert_eq!((get(4, 1 << 20), get(4, 0)), ((0, 300), (0, 343)));
    assert_eq!((get(9, 64), get(9, 0)), ((0, 64 | 1 << 16), (0, 0)));
    assert_eq!((get(7, 0), get(0x80, 0).0), ((0, 0x003f_003f), 2));
    rig.create_pair(1, 4, None);
    assert_eq!(rig.admin(9, [7, 0, 0, 0, 0, 0], 0).0, 0x0c);
}

#[test]
fn logs() {
    let mut rig = Rig::ready();
    rig.exec(1, io(1, 0, 8, DATA, 0));
    rig.exec(1, io(2, 1 << 40, 1, DATA, 0));
    let log = |rig: &mut Rig, id: u32, bytes: u32, from| {
        rig.admin(2, [(bytes / 4 - 1) << 16 | id, 0, from, 0, 0, 0], DATA).0
    };
    assert_eq!(log(&mut rig, 1, 256, 0), 0);
    assert_eq!((word(&mut rig, 0), word(&mut rig, 8) & 0xffff), (1, 1));
    assert_eq!((word(&mut rig, 12) & 0xffff, word(&mut rig, 20)), ((0x80 | 0x4000) << 1, 256));
    assert_eq!(log(&mut rig, 2, 512, 0), 0);
    assert_eq!(
        (word(&mut rig, 0) >> 8 & 0xffff, word(&mut rig, 48), word(&mut rig, 80)),
        (315, 1, 1)
    );
    assert_eq!(log(&mut rig, 2, 4, 80), 0);
    assert_eq!(word(&mut rig, 0), 1);
    assert_eq!(log(&mut rig, 3, 512, 0), 0);
    assert_eq!(rig.machine.at(DATA + 8, 8).unwrap(), b"1.0     ");
    assert_eq!(log(&mut rig, 5, 4096, 0), 0);
    assert_eq!((word(&mut rig, 6 * 4), word(&mut rig, 1024 + 4)), (1, 3));
    for (id, bytes, from, status) in
        [(4, 512, 0, 0x109), (2, 512, 516, 2), (2, 512, 2, 2), (2, 256 << 10, 0, 0)]
    {
        let got =
            rig.admin(2, [(bytes / 4 - 1) << 16 | id, (bytes / 4 - 1) >> 16, from, 0, 0, 0], DATA);
        // A long one needs a second page, which is not there.
        assert_eq!(got.0, if bytes > 4096 { 4 } else { status });
    }
}

#[test]
fn events_wait_for_requests_and_the_log() {
    let mut rig = Rig::ready();
    let cids: vec::Vec<u16> =
        (0..4).map(|_| rig.submit(0, Sqe { opcode: 0x0c, ..Sqe::default() })).collect();
    rig.ring_tail(0);
    rig.run();
    assert_eq!(rig.take(0), None);
    assert_eq!(rig.admin(0x0c, [0; 6], 0).0, 0x105);
    rig.write(0x1000 + 8 * 40, 1);
    rig.write(0x1008, 400);
    rig.write(0x100c, 1);
    rig.run();
    let told = rig.take(0).unwrap();
    assert_eq!((told.cid, told.result, told.status), (cids[0], 0x1_0000, 0));
    assert_eq!(rig.take(0), None);
    rig.ring_head(0);
    // The next one after the log was read without "retain".
    rig.submit(
        0,
        Sqe { opcode: 2, prp1: DATA, cdw: [63 << 16 | 1, 0, 0, 0, 0, 0], ..Sqe::default() },
    );
    rig.ring_tail(0);
    rig.run();
    assert_eq!((rig.take(0).unwrap().status, rig.take(0).unwrap().result), (0, 0x1_0100));
    assert_eq!((rig.take(0), rig.nvme.stats().bad_doorbells), (None, 3));
}

#[test]
fn a_threshold_below_the_temperature_is_an_event_for_those_who_ask() {
    let mut rig = Rig::ready();
    let wait = rig.submit(0, Sqe { opcode: 0x0c, ..Sqe::default() });
    rig.ring_tail(0);
    rig.run();
    let set = |rig: &mut Rig, cdw10: u32, cdw11| {
        rig.submit(0, Sqe { opcode: 9, cdw: [cdw10, cdw11, 0, 0, 0, 0], ..Sqe::default() });
        rig.ring_tail(0);
        rig.run();
        assert_eq!(rig.take(0).unwrap().status, 0);
        let told = rig.take(0).map(|told| (told.cid, told.result));
        rig.ring_head(0);
        told
    };
    let warning = |rig: &mut Rig| {
        assert_eq!(rig.admin(2, [127 << 16 | 2, 0, 0, 0, 0, 0], DATA).0, 0);
        word(rig, 0) & 0xff
    };
    // Nobody asked.
    assert_eq!((set(&mut rig, 4, 200), warning(&mut rig)), (None, 2));
    assert_eq!((set(&mut rig, 4, 343), warning(&mut rig)), (None, 0));
    assert_eq!((set(&mut rig, 0x0b, 2), set(&mut rig, 4, 316)), (None, None));
    assert_eq!(set(&mut rig, 4, 315), Some((wait, 0x2_0101)));
    // Once, and again when it was in order meanwhile and the log was read.
    let wait = rig.submit(0, Sqe { opcode: 0x0c, ..Sqe::default() });
    assert_eq!((set(&mut rig, 4, 314), set(&mut rig, 4, 343)), (None, None));
    assert_eq!(set(&mut rig, 4, 1 << 20 | 315), None);
    let retained = [127 << 16 | 1 << 15 | 2, 0, 0, 0, 0, 0];
    rig.submit(0, Sqe { opcode: 2, prp1: DATA, cdw: retained, ..Sqe::default() });
    rig.ring_tail(0);
    rig.run();
    assert_eq!((rig.take(0).unwrap().status, rig.take(0)), (0, None));
    rig.submit(
        0,
        Sqe { opcode: 2, prp1: DATA, cdw: [127 << 16 | 2, 0, 0, 0, 0, 0], ..Sqe::default() },
    );
    rig.ring_tail(0);
    rig.run();
    assert_eq!(rig.take(0).unwrap().status, 0);
    assert_eq!(rig.take(0).map(|told| (told.cid, told.result)), Some((wait, 0x2_0101)));
}

#[test]
fn what_is_not_offered() {
    let mut rig = Rig::ready();
    for (opcode, status) in [(0x0d, 1), (0x10, 1), (0x18, 1), (0x7c, 1), (0x80, 1), (0xff, 1)] {
        assert_eq!(rig.admin(opcode, [0; 6], 0).0, status);
    }
    assert_eq!(rig.admin(8, [1, 0, 0, 0, 0, 0], 0), (0, 1));
    let sgl = Sqe { opcode: 6, flags: 0x40, prp1: DATA, cdw: [1, 0, 0, 0, 0, 0], ..Sqe::default() };
    assert_eq!(rig.exec(0, sgl).0, 2);
    let fused = Sqe { flags: 1, ..io(2, 0, 1, DATA, 0) };
    assert_eq!(rig.exec(1, fused).0, 2);
    assert_eq!(rig.exec(1, io(0x0d, 0, 1, DATA, 0)).0, 1);
}
