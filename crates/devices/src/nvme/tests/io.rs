//! I/O commands, PRPs and rings.

use alloc::boxed::Box;
use alloc::vec;

use pci::Device;

use super::rig::{BASE, DATA, Rig, SIZE, Sqe, io};
use crate::nvme::{Backend, BackendError, NvmeConfig};

/// Bytes that tell where they are.
fn pattern(len: usize) -> vec::Vec<u8> {
    (0..len as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

#[test]
fn what_is_written_is_read() {
    let mut rig = Rig::ready();
    let data = pattern(8192);
    rig.machine.at(DATA, 8192).unwrap().copy_from_slice(&data);
    assert_eq!(rig.exec(1, io(1, 100, 16, DATA, DATA + 0x1000)), (0, 0));
    assert_eq!(rig.exec(1, io(2, 101, 15, DATA + 0x8200, DATA + 0x9000)), (0, 0));
    assert_eq!(rig.machine.at(DATA + 0x8200, 7680).unwrap(), &data[512..]);
    // Two neighbouring pages are one transfer.
    assert!(rig.machine.reads.contains(&(DATA, 8192)));
    assert!(rig.machine.writes.contains(&(DATA + 0x8200, 7680)));
    let stats = *rig.nvme.stats();
    assert_eq!((stats.bytes_written, stats.bytes_read, stats.errors), (8192, 7680, 0));
    assert_eq!(rig.exec(1, io(5, 101, 15, DATA + 0x8200, DATA + 0x9000)), (0, 0));
    assert_eq!(rig.exec(1, io(5, 100, 15, DATA + 0x8200, DATA + 0x9000)).0, 0x285);
}

#[test]
fn zeroes_and_deallocation() {
    let mut rig = Rig::ready();
    rig.machine.at(DATA, 4096).unwrap().fill(7);
    rig.exec(1, io(1, 0, 8, DATA, 0));
    assert_eq!(rig.exec(1, io(8, 1, 1, 0, 0)), (0, 0));
    rig.machine.put(DATA + 0x1000, &[1 << 32, 3, 2 << 32, 5]);
    let dsm = |cdw10, cdw11, prp1| Sqe {
        opcode: 9,
        nsid: 1,
        prp1,
        cdw: [cdw10, cdw11, 0, 0, 0, 0],
        ..Sqe::default()
    };
    assert_eq!(rig.exec(1, dsm(1, 3, DATA + 0x1000)), (0, 0)); // hints alone
    assert_eq!(rig.exec(1, dsm(1, 4, DATA + 0x1000)), (0, 0));
    rig.exec(1, io(2, 0, 8, DATA, 0));
    let zero: vec::Vec<bool> =
        rig.machine.at(DATA, 4096).unwrap().chunks(512).map(|b| b == [0; 512]).collect();
    assert_eq!(zero, [false, true, false, true, false, true, true, false]);
    rig.machine.put(DATA + 0x1018, &[1 << 21]);
    assert_eq!(rig.exec(1, dsm(1, 4, DATA + 0x1000)).0, 0x80);
    // 65536 blocks, more than a transfer can have.
    assert_eq!(rig.exec(1, io(8, 0, 65536, 0, 0)), (0, 0));
    assert_eq!(rig.exec(1, Sqe { nsid: u32::MAX, ..io(0, 0, 1, 0, 0) }), (0, 0));
}

#[test]
fn prp_lists_chain() {
    let mut rig = Rig::ready();
    // 512 KiB from the middle of a page: 129 pages, every other one of memory, in a list that
    // begins three entries before the end of its page.
    let data = pattern(512 << 10);
    let page = |i: usize| DATA + 0x10_0000 + i as u64 * 0x2000;
    let lists = [BASE + 0x8_0000 + 0xfe8, BASE + 0x8_2000];
    let mut rest = &data[2048..];
    rig.machine.at(page(0) + 2048, 2048).unwrap().copy_from_slice(&data[..2048]);
    for i in 1..129 {
        let entry =
            if i < 3 { lists[0] + 8 * (i as u64 - 1) } else { lists[1] + 8 * (i as u64 - 3) };
        rig.machine.put(entry, &[page(i)]);
        let now = rest.len().min(4096);
        rig.machine.at(page(i), now).unwrap().copy_from_slice(&rest[..now]);
        rest = &rest[now..];
    }
    rig.machine.put(BASE + 0x8_0ff8, &[lists[1]]);
    assert_eq!(rig.exec(1, io(1, 0, 1024, page(0) + 2048, lists[0])), (0, 0));
    // Backwards, all pages side by side: one transfer.
    for i in 0..127 {
        rig.machine.put(lists[1] + 8 * i, &[DATA + 0x1000 * (i + 1)]);
    }
    assert_eq!(rig.exec(1, io(2, 0, 1024, DATA, lists[1])), (0, 0));
    assert_eq!(rig.machine.at(DATA, 512 << 10).unwrap(), &data);
    assert!(rig.machine.writes.contains(&(DATA, 512 << 10)));
    assert_eq!(rig.exec(1, io(2, 0, 1025, DATA, lists[1])).0, 2);
}

#[test]
fn bad_prps_and_ranges() {
    let mut rig = Rig::ready();
    let list = BASE + 0x8_0000;
    rig.machine.put(list, &[DATA + 8]);
    let end = BASE + SIZE as u64;
    for (slba, blocks, prp1, prp2, status) in [
        (0, 1, DATA + 2, 0, 0x13),
        (0, 16, DATA, DATA + 0x1008, 0x13),
        (0, 24, DATA, list, 0x13),
        (0, 24, DATA, list + 4, 0x13),
        (0, 24, DATA, end, 0x04),
        (0, 1, end, 0, 0x04),
        (0, 1, !3, 0, 0x04),
        ((1 << 21) - 1, 1, DATA, 0, 0),
        ((1 << 21) - 1, 2, DATA, 0, 0x80),
        (u64::MAX, 1, DATA, 0, 0x80),
    ] {
        for opcode in [1, 2] {
            let got = rig.exec(1, io(opcode, slba, blocks, prp1, prp2)).0;
            assert_eq!(got, status, "{opcode} {slba:x} {blocks} {prp1:x} {prp2:x}");
        }
    }
    for nsid in [0, 2, u32::MAX] {
        for opcode in [1, 2, 5, 8, 9] {
            let got = rig.exec(1, Sqe { nsid, ..io(opcode, 0, 1, DATA, 0) });
            assert_eq!(got.0, 0x0b);
        }
    }
}

#[test]
fn rings_wrap_and_batches_are_one_transfer() {
    let mut rig = Rig::ready();
    for round in 0..20_u64 {
        rig.machine.reads.clear();
        for i in 0..15 {
            rig.submit(1, io(2, round * 15 + i, 1, DATA, 0));
        }
        rig.ring_tail(1);
        rig.run();
        for _ in 0..15 {
            assert_eq!(rig.take(1).unwrap().status, 0);
        }
        assert_eq!(rig.take(1), None);
        rig.ring_head(1);
        assert!(rig.machine.reads.len() <= 2, "{:?}", rig.machine.reads);
    }
    assert_eq!(rig.nvme.stats().reads, 300);
}

#[test]
fn a_full_completion_queue_holds_commands() {
    let mut rig = Rig::ready();
    // 15 completions are not taken; 10 commands more wait.
    for _ in 0..15 {
        rig.submit(1, io(2, 0, 1, DATA, 0));
    }
    rig.ring_tail(1);
    rig.run();
    for _ in 0..10 {
        rig.submit(1, io(2, 0, 1, DATA, 0));
    }
    rig.ring_tail(1);
    rig.run();
    assert_eq!(rig.nvme.stats().reads, 15);
    for taken in [4, 15] {
        while rig.queues[1].head != taken {
            rig.take(1).unwrap();
        }
        rig.ring_head(1);
        rig.run();
        assert_eq!(rig.nvme.stats().reads, (15 + u64::from(taken)).min(25));
    }
}

#[test]
fn many_queues_share_fairly() {
    let mut rig = Rig::started();
    for id in 1..=20 {
        assert_eq!(rig.create_pair(id, 128, None), (0, 0));
    }
    for id in 1..=20 {
        for _ in 0..100 {
            rig.submit(id, io(2, 0, 1, DATA, 0));
        }
        rig.ring_tail(id);
    }
    let (mut calls, mut last) = (0, 0);
    while rig.nvme.run(&mut rig.machine) {
        calls += 1;
        let done = rig.nvme.stats().reads;
        assert!(done - last <= 64);
        last = done;
    }
    assert!(calls >= 2000 / 64);
    for id in 1..=20 {
        (0..100).for_each(|_| assert_eq!(rig.take(id).unwrap().sqid, id as u16));
    }
}

#[test]
fn a_deleted_queue_is_silent() {
    let mut rig = Rig::ready();
    rig.submit(1, io(2, 0, 1, DATA, 0));
    rig.ring_tail(1);
    // Admin commands go first.
    rig.nvme.turn = 0;
    assert_eq!(rig.admin(0, [1, 0, 0, 0, 0, 0], 0).0, 0);
    assert_eq!((rig.take(1), rig.nvme.stats().reads), (None, 0));
    rig.ring_tail(1);
    assert_eq!(rig.nvme.stats().bad_doorbells, 1);
}

/// Storage that fails beyond its first half, and whose flushes are counted.
struct Failing(u64, bool);

impl Backend for Failing {
    fn size(&self) -> u64 {
        1 << 20
    }
    fn read(&mut self, offset: u64, _data: &mut [u8]) -> Result<(), BackendError> {
        if offset < 1 << 19 { Ok(()) } else { Err(BackendError) }
    }
    fn write(&mut self, offset: u64, _data: &[u8]) -> Result<(), BackendError> {
        if offset < 1 << 19 { Ok(()) } else { Err(BackendError) }
    }
    fn flush(&mut self) -> Result<(), BackendError> {
        self.0 += 1;
        if self.0 <= 2 { Ok(()) } else { Err(BackendError) }
    }
    fn write_zeroes(&mut self, _offset: u64, _len: u64) -> Result<(), BackendError> {
        Err(BackendError)
    }
    fn discard(&mut self, _offset: u64, _len: u64) -> Result<(), BackendError> {
        Err(BackendError)
    }
    fn read_only(&self) -> bool {
        self.1
    }
}

#[test]
fn storage_fails_with_media_errors() {
    let mut rig = Rig::with(NvmeConfig::new("S1", vec![Box::new(Failing(0, false))]));
    rig.start();
    rig.create_pair(1, 16, None);
    let mut status = |sqe| rig.exec(1, sqe).0;
    assert_eq!((status(io(2, 0, 1, DATA, 0)), status(io(2, 1024, 1, DATA, 0))), (0, 0x281));
    assert_eq!((status(io(1, 0, 1, DATA, 0)), status(io(1, 1024, 1, DATA, 0))), (0, 0x280));
    assert_eq!((status(io(8, 0, 1, 0, 0)), status(io(0, 0, 1, 0, 0))), (0x280, 0));
    let mut durable = io(1, 0, 1, DATA, 0);
    durable.cdw[2] |= 1 << 30;
    assert_eq!((status(durable), status(durable), status(io(1, 0, 1, DATA, 0))), (0, 0x280, 0));
    // Without a write cache every write is flushed.
    rig.admin(9, [6, 0, 0, 0, 0, 0], 0);
    assert_eq!(rig.exec(1, io(1, 0, 1, DATA, 0)).0, 0x280);
    assert_eq!(rig.nvme.stats().media_errors, 5);
}

#[test]
fn a_read_only_namespace() {
    let mut rig = Rig::with(NvmeConfig::new("S2", vec![Box::new(Failing(0, true))]));
    rig.start();
    rig.create_pair(1, 16, None);
    for opcode in [1, 8] {
        assert_eq!(rig.exec(1, io(opcode, 0, 1, DATA, 0)).0, 0x182);
    }
    assert_eq!(rig.exec(1, io(2, 0, 1, DATA, 0)).0, 0);
}
