//! An NVMe disk by bare requests: commands of any size, from and to any place in memory.

use std::sync::atomic::{Ordering, fence};

use super::raw;

pub(super) const WRITE: u8 = 1;
pub(super) const READ: u8 = 2;

const PAGE: u64 = 4096;
/// Of the I/O queues, and pages of PRP lists.
const ENTRIES: u16 = 8;
/// Two pairs of queues, and the lists.
const PAGES: u64 = 4 + ENTRIES as u64;

/// A controller that is enabled, with one pair of queues for I/O.
pub(super) struct Disk {
    device: i32,
    base: u64,
    memory: *mut u8,
    iova: u64,
    /// Commands given and completed: of the admin queue, and the other.
    tails: [u16; 2],
    heads: [u16; 2],
}

// A thread at a time has one.
unsafe impl Send for Disk {}

impl Disk {
    /// Starts the controller; its queues are at `iova` and below `iova` + 64 KiB.
    pub(super) fn start(container: i32, device: i32, iova: u64) -> Self {
        let memory = raw::memory((PAGES * PAGE) as usize, libc::MAP_PRIVATE);
        assert_eq!(raw::map(container, memory, iova, PAGES * PAGE), 0);
        let base = raw::region(device, 0);
        let mut disk = Self { device, base, memory, iova, tails: [0; 2], heads: [0; 2] };
        for (at, value) in [(0x24, 0x0007_0007), (0x28, iova), (0x2c, iova >> 32)] {
            disk.set(at, value as u32);
        }
        for (at, value) in [(0x30, iova + PAGE), (0x34, (iova + PAGE) >> 32), (0x14, 0x0046_0001)] {
            disk.set(at, value as u32);
        }
        while disk.get(0x1c) & 1 == 0 {}
        // Create a completion queue, then a submission queue, both in one piece.
        let size = u32::from(ENTRIES - 1) << 16 | 1;
        for (opcode, at, word) in [(5, 3, 1), (1, 2, 1 << 16 | 1)] {
            disk.put(0, opcode, 0, [iova + at * PAGE, 0], [size, word, 0]);
            assert_eq!(disk.complete(0), 0);
        }
        disk
    }

    fn set(&self, at: u64, value: u32) {
        assert_eq!(raw::pwrite(self.device, &value.to_le_bytes(), self.base + at), 4);
    }

    fn get(&self, at: u64) -> u32 {
        let mut data = [0; 4];
        assert_eq!(raw::pread(self.device, &mut data, self.base + at), 4);
        u32::from_le_bytes(data)
    }

    fn word(&self, at: u64) -> *mut u32 {
        self.memory.wrapping_add(at as usize).cast()
    }

    /// An entry of a submission queue, without the doorbell.
    fn put(&mut self, queue: u64, opcode: u8, nsid: u32, prps: [u64; 2], last: [u32; 3]) {
        let tail = &mut self.tails[queue as usize];
        let (slot, at) = (u64::from(*tail % ENTRIES), 2 * queue * PAGE);
        *tail = tail.wrapping_add(1);
        let mut words = [0; 16];
        (words[0], words[1]) = (u32::from(opcode) | (slot as u32) << 16, nsid);
        for (words, prp) in words[6..10].chunks_exact_mut(2).zip(prps) {
            (words[0], words[1]) = (prp as u32, (prp >> 32) as u32);
        }
        words[10..13].copy_from_slice(&last);
        for (i, word) in (0..).zip(words) {
            unsafe { self.word(at + 64 * slot + 4 * i).write_volatile(word) };
        }
    }

    /// Gives a command for `blocks` of 512 bytes, whose data is at an address; [`ring`](Self::ring)
    /// tells the controller.
    pub(super) fn give(&mut self, opcode: u8, block: u64, blocks: u64, iova: u64) {
        let slot = u64::from(self.tails[1] % ENTRIES);
        let (next, end) = ((iova & !(PAGE - 1)) + PAGE, iova + 512 * blocks);
        let list = (4 + slot) * PAGE;
        for (i, page) in (0..).zip((next..end).step_by(PAGE as usize)) {
            unsafe { self.word(list + 8 * i).cast::<u64>().write_volatile(page) };
        }
        let second = if end > next + PAGE { self.iova + list } else { next };
        let last = [block as u32, (block >> 32) as u32, blocks as u32 - 1];
        self.put(1, opcode, 1, [iova, second], last);
    }

    /// The doorbell.
    pub(super) fn ring(&self) {
        self.doorbell(1);
    }

    fn doorbell(&self, queue: u64) {
        fence(Ordering::SeqCst);
        self.set(0x1000 + 8 * queue, u32::from(self.tails[queue as usize] % ENTRIES));
    }

    fn complete(&mut self, queue: u64) -> u32 {
        self.doorbell(queue);
        self.wait_for(queue)
    }

    /// The status of the next command.
    pub(super) fn wait(&mut self) -> u32 {
        self.wait_for(1)
    }

    fn wait_for(&mut self, queue: u64) -> u32 {
        let head = self.heads[queue as usize];
        let (slot, round) = (u64::from(head % ENTRIES), head / ENTRIES);
        let status = self.word((2 * queue + 1) * PAGE + 16 * slot + 12);
        let word = loop {
            let word = unsafe { status.read_volatile() };
            if word >> 16 & 1 != u32::from(round & 1) {
                break word;
            }
            std::thread::yield_now();
        };
        fence(Ordering::SeqCst);
        self.heads[queue as usize] = head.wrapping_add(1);
        self.set(0x1004 + 8 * queue, u32::from(head.wrapping_add(1) % ENTRIES));
        word >> 17
    }

    /// A command by itself; its status.
    pub(super) fn run(&mut self, opcode: u8, block: u64, blocks: u64, iova: u64) -> u32 {
        self.give(opcode, block, blocks, iova);
        self.ring();
        self.wait()
    }
}
