//! A driver.

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;

use pci::Device;

use super::super::{Backend, MemoryBackend, Nvme, NvmeConfig};
use crate::machine::{DOORBELL, Machine};

pub(super) use crate::machine::BASE;

/// Bytes of memory.
pub(super) const SIZE: usize = 4 << 20;
/// The rings of queue n: submissions, then completions.
pub(super) const fn rings(n: u64) -> (u64, u64) {
    (BASE + n * 0x4000, BASE + n * 0x4000 + 0x2000)
}
/// Data of tests.
pub(super) const DATA: u64 = BASE + (1 << 20);

/// A command to submit.
#[derive(Clone, Copy, Default)]
pub(super) struct Sqe {
    pub(super) opcode: u8,
    pub(super) flags: u8,
    pub(super) nsid: u32,
    pub(super) prp1: u64,
    pub(super) prp2: u64,
    pub(super) cdw: [u32; 6],
}

impl Sqe {
    pub(super) fn bytes(&self, cid: u16) -> [u8; 64] {
        let mut bytes = [0; 64];
        (bytes[0], bytes[1]) = (self.opcode, self.flags);
        bytes[2..4].copy_from_slice(&cid.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.nsid.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.prp1.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.prp2.to_le_bytes());
        for (i, word) in self.cdw.iter().enumerate() {
            bytes[40 + 4 * i..][..4].copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }
}

/// An I/O command on blocks.
pub(super) fn io(opcode: u8, slba: u64, blocks: u32, prp1: u64, prp2: u64) -> Sqe {
    let cdw = [slba as u32, (slba >> 32) as u32, blocks - 1, 0, 0, 0];
    Sqe { opcode, nsid: 1, prp1, prp2, cdw, ..Sqe::default() }
}

/// A completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cqe {
    pub(super) result: u32,
    pub(super) head: u16,
    pub(super) sqid: u16,
    pub(super) cid: u16,
    /// Without phase and "do not retry".
    pub(super) status: u16,
}

#[derive(Clone, Copy)]
pub(super) struct Queue {
    pub(super) size: u32,
    pub(super) tail: u32,
    pub(super) head: u32,
    pub(super) phase: bool,
}

/// A controller, its machine and the driver's view of the queues; SQ n completes into CQ n.
pub(super) struct Rig {
    pub(super) nvme: Nvme,
    pub(super) machine: Machine,
    pub(super) queues: Vec<Queue>,
    pub(super) cid: u16,
}

impl Rig {
    pub(super) fn with(config: NvmeConfig) -> Self {
        let nvme = Nvme::new(config);
        Self { nvme, machine: Machine::with_pin(SIZE), queues: vec![], cid: 0 }
    }

    /// A memory disk of 1 GiB, powered on.
    pub(super) fn new() -> Self {
        let disk: Box<dyn Backend> = Box::new(MemoryBackend::new(1 << 30));
        Self::with(NvmeConfig::new("S0", vec![disk]))
    }

    /// The same, with admin queues of 32 entries and running.
    pub(super) fn started() -> Self {
        let mut rig = Self::new();
        rig.start();
        rig
    }

    /// The same, with I/O queue pair 1 of 16 entries, which interrupts by vector 1.
    pub(super) fn ready() -> Self {
        let mut rig = Self::started();
        rig.enable_msix();
        assert_eq!(rig.create_pair(1, 16, Some(1)), (0, 0));
        rig
    }

    pub(super) fn read(&mut self, offset: u64) -> u32 {
        let mut data = [0; 4];
        self.nvme.bar_read(0, offset, &mut data, &mut self.machine);
        u32::from_le_bytes(data)
    }

    pub(super) fn write(&mut self, offset: u64, value: u32) {
        self.nvme.bar_write(0, offset, &value.to_le_bytes(), &mut self.machine);
    }

    pub(super) fn write_64(&mut self, offset: u64, value: u64) {
        self.nvme.bar_write(0, offset, &value.to_le_bytes(), &mut self.machine);
    }

    pub(super) fn enable_msix(&mut self) {
        let config = self.nvme.config_mut();
        config.write_u16(0x42, pci::regs::msix::ENABLE);
        for vector in 0..65 {
            let entry = 0x2000 + 16 * vector;
            self.write_64(entry, DOORBELL);
            self.write(entry + 8, vector as u32);
            self.write(entry + 12, 0);
        }
    }

    /// As QEMU's block driver starts a controller.
    pub(super) fn start(&mut self) {
        let (sq, cq) = rings(0);
        self.write(0x14, 0);
        assert_eq!(self.read(0x1c), 0);
        self.write(0x24, 31 << 16 | 31);
        self.write_64(0x28, sq);
        self.write_64(0x30, cq);
        self.machine.at(cq, 0x2000).unwrap().fill(0);
        self.write(0x14, 4 << 20 | 6 << 16 | 1);
        self.queues = vec![Queue { size: 32, tail: 0, head: 0, phase: true }];
        assert_eq!(self.read(0x1c), 1);
    }

    pub(super) fn run(&mut self) {
        let mut calls = 0;
        while self.nvme.run(&mut self.machine) {
            calls += 1;
            assert!(calls < 1000, "never done");
        }
    }

    /// Puts a command into a queue without ringing.
    pub(super) fn submit(&mut self, id: usize, sqe: Sqe) -> u16 {
        self.cid = self.cid.wrapping_add(1);
        let queue = &mut self.queues[id];
        let at = rings(id as u64).0 + u64::from(queue.tail) * 64;
        queue.tail = (queue.tail + 1) % queue.size;
        self.machine.at(at, 64).unwrap().copy_from_slice(&sqe.bytes(self.cid));
        self.cid
    }

    pub(super) fn ring_tail(&mut self, id: usize) {
        self.write(0x1000 + 8 * id as u64, self.queues[id].tail);
    }

    pub(super) fn ring_head(&mut self, id: usize) {
        self.write(0x1004 + 8 * id as u64, self.queues[id].head);
    }

    /// A new completion, without ringing.
    pub(super) fn take(&mut self, id: usize) -> Option<Cqe> {
        let queue = &mut self.queues[id];
        let at = rings(id as u64).1 + u64::from(queue.head) * 16;
        let bytes = self.machine.at(at, 16).unwrap();
        let half = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let word = half(14);
        if (word & 1 != 0) != queue.phase {
            return None;
        }
        queue.head = (queue.head + 1) % queue.size;
        queue.phase ^= queue.head == 0;
        let result = u32::from(half(0)) | u32::from(half(2)) << 16;
        let status = word >> 1 & 0x3fff;
        Some(Cqe { result, head: half(8), sqid: half(10), cid: half(12), status })
    }

    /// A command from beginning to end: status and result.
    pub(super) fn exec(&mut self, id: usize, sqe: Sqe) -> (u16, u32) {
        let cid = self.submit(id, sqe);
        self.ring_tail(id);
        self.run();
        let done = self.take(id).expect("a completion");
        assert_eq!((done.cid, usize::from(done.sqid)), (cid, id));
        assert_eq!(self.take(id), None);
        self.ring_head(id);
        (done.status, done.result)
    }

    pub(super) fn admin(&mut self, opcode: u8, cdw: [u32; 6], prp1: u64) -> (u16, u32) {
        self.exec(0, Sqe { opcode, prp1, cdw, ..Sqe::default() })
    }

    /// Creates completion queue and submission queue; the statuses.
    pub(super) fn create_pair(&mut self, id: u32, size: u32, vector: Option<u32>) -> (u16, u16) {
        let (sq, cq) = rings(id.into());
        self.machine.at(cq, 0x2000).unwrap().fill(0);
        let new = (size - 1) << 16 | id;
        let irq = vector.map_or(0, |v| v << 16 | 2);
        let first = self.admin(5, [new, irq | 1, 0, 0, 0, 0], cq).0;
        let second = self.admin(1, [new, id << 16 | 1, 0, 0, 0, 0], sq).0;
        let queue = Queue { size, tail: 0, head: 0, phase: true };
        let id = id as usize;
        self.queues.resize(self.queues.len().max(id + 1), queue);
        self.queues[id] = queue;
        (first, second)
    }
}
