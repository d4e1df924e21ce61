//! Entries of the queues: commands and completions (NVM Express 1.4, 4.2 and 4.6).

use super::status::Status;

/// Bytes of a command.
pub(super) const SQE_SIZE: usize = 64;
/// Bytes of a completion.
pub(super) const CQE_SIZE: usize = 16;

/// Opcodes of the admin queue (NVM Express 1.4, figure 139).
pub(super) mod admin {
    pub(crate) const DELETE_SQ: u8 = 0x00;
    pub(crate) const CREATE_SQ: u8 = 0x01;
    pub(crate) const GET_LOG_PAGE: u8 = 0x02;
    pub(crate) const DELETE_CQ: u8 = 0x04;
    pub(crate) const CREATE_CQ: u8 = 0x05;
    pub(crate) const IDENTIFY: u8 = 0x06;
    pub(crate) const ABORT: u8 = 0x08;
    pub(crate) const SET_FEATURES: u8 = 0x09;
    pub(crate) const GET_FEATURES: u8 = 0x0a;
    pub(crate) const ASYNC_EVENT: u8 = 0x0c;
}

/// Opcodes of the NVM command set (NVM Express 1.4, figure 346).
pub(super) mod nvm {
    pub(crate) const FLUSH: u8 = 0x00;
    pub(crate) const WRITE: u8 = 0x01;
    pub(crate) const READ: u8 = 0x02;
    pub(crate) const COMPARE: u8 = 0x05;
    pub(crate) const WRITE_ZEROES: u8 = 0x08;
    pub(crate) const DATASET_MANAGEMENT: u8 = 0x09;
}

/// A command (NVM Express 1.4, figures 105 and 106), copied out of memory once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Command {
    pub(super) opcode: u8,
    /// Fused operation in bits 0..=1, PRPs or SGLs in bits 6..=7.
    pub(super) flags: u8,
    pub(super) cid: u16,
    pub(super) nsid: u32,
    pub(super) prp1: u64,
    pub(super) prp2: u64,
    /// Dwords 10 to 15.
    pub(super) cdw10: u32,
    pub(super) cdw11: u32,
    pub(super) cdw12: u32,
    pub(super) cdw13: u32,
}

impl Command {
    pub(super) fn parse(bytes: &[u8; SQE_SIZE]) -> Self {
        let word = |at: usize| u32_at(bytes, at);
        let long = |at: usize| u64_at(bytes, at);
        let first = word(0);
        Self {
            opcode: first as u8,
            flags: (first >> 8) as u8,
            cid: (first >> 16) as u16,
            nsid: word(4),
            prp1: long(24),
            prp2: long(32),
            cdw10: word(40),
            cdw11: word(44),
            cdw12: word(48),
            cdw13: word(52),
        }
    }

    /// Fused operations and SGLs are not offered.
    pub(super) const fn has_odd_flags(&self) -> bool {
        self.flags & 0xc3 != 0
    }

    /// The first block of an I/O command.
    pub(super) const fn slba(&self) -> u64 {
        (self.cdw11 as u64) << 32 | self.cdw10 as u64
    }

    /// The blocks of an I/O command, 1 at least.
    pub(super) const fn blocks(&self) -> u64 {
        ((self.cdw12 & 0xffff) as u64).saturating_add(1)
    }

    /// Force unit access: durable before it completes.
    pub(super) const fn fua(&self) -> bool {
        self.cdw12 & 1 << 30 != 0
    }
}

/// A completion (NVM Express 1.4, figure 125) but for what its queues add: head, ids and phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Completion {
    pub(super) result: u32,
    pub(super) status: Status,
}

impl Completion {
    pub(super) const fn ok(result: u32) -> Self {
        Self { result, status: Status::SUCCESS }
    }
}

impl From<Status> for Completion {
    fn from(status: Status) -> Self {
        Self { result: 0, status }
    }
}

/// A little-endian number in memory; 0 beyond the end.
pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let found = bytes.get(at..at.saturating_add(4)).and_then(|b| b.try_into().ok());
    found.map_or(0, u32::from_le_bytes)
}

/// A little-endian number in memory; 0 beyond the end.
pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let found = bytes.get(at..at.saturating_add(8)).and_then(|b| b.try_into().ok());
    found.map_or(0, u64::from_le_bytes)
}

/// Puts bytes into a structure; those beyond its end are dropped.
pub(super) fn put(bytes: &mut [u8], at: usize, data: &[u8]) {
    bytes.iter_mut().skip(at).zip(data).for_each(|(to, from)| *to = *from);
}
