//! The registers: what reading and writing them does.

use super::Ioat;
use super::channel::Stop;

/// Offsets in BAR0, of words of 4 bytes.
pub(super) mod reg {
    /// CHANCNT, XFERCAP, GENCTRL and INTRCTRL, a byte each.
    pub(crate) const GENERAL: u64 = 0x00;
    /// CBVER, a byte.
    pub(crate) const VERSION: u64 = 0x08;
    /// INTRDELAY, u16.
    pub(crate) const DELAY: u64 = 0x0c;
    pub(crate) const CAPABILITY: u64 = 0x10;
    /// CHANCTRL, u16, and DMA_COMP_VER, u16.
    pub(crate) const CONTROL: u64 = 0x80;
    /// CHANCMD, a byte, and DMACOUNT, u16 at 0x86.
    pub(crate) const COMMAND: u64 = 0x84;
    /// CHANSTS, u64.
    pub(crate) const STATUS: u64 = 0x88;
    pub(crate) const STATUS_HIGH: u64 = 0x8c;
    /// CHAINADDR, u64.
    pub(crate) const CHAIN: u64 = 0x90;
    pub(crate) const CHAIN_HIGH: u64 = 0x94;
    /// CHANCMP, u64.
    pub(crate) const COMPLETION: u64 = 0x98;
    pub(crate) const COMPLETION_HIGH: u64 = 0x9c;
    /// CDAR, u64: the descriptor that is next.
    pub(crate) const CURRENT: u64 = 0xa0;
    pub(crate) const CURRENT_HIGH: u64 = 0xa4;
    pub(crate) const ERROR: u64 = 0xa8;
    pub(crate) const ERROR_MASK: u64 = 0xac;
    /// One behind the last.
    pub(crate) const END: u64 = 0xb0;
}

/// DMACAPABILITY: page breaks, block fill.
const CAPABILITIES: u32 = 1 << 0 | 1 << 6;

/// DMA_COMP_VER: descriptors as of version 2.
const COMPATIBILITY: u32 = 2 << 16;

/// CHANCMD: one bit per command.
mod command {
    pub(super) const SUSPEND: u8 = 0x04;
    pub(super) const ABORT: u8 = 0x08;
    pub(super) const RESUME: u8 = 0x10;
    pub(super) const RESET: u8 = 0x20;
}

/// CHANCTRL: bits that are kept.
const CONTROL_MASK: u16 = 0xf33d;

/// Replaces the bits of `mask`.
const fn merge(old: u32, value: u32, mask: u32) -> u32 {
    old & !mask | value & mask
}

impl Ioat {
    /// A word of the registers; nothing changes.
    pub(super) const fn word(&self, offset: u64) -> u32 {
        let channel = &self.channel;
        match offset {
            reg::GENERAL => {
                u32::from_le_bytes([1, self.options.transfer_log2(), self.general, self.interrupts])
            }
            reg::VERSION => self.options.version as u32,
            reg::DELAY => self.delay as u32,
            reg::CAPABILITY => CAPABILITIES,
            reg::CONTROL => channel.control as u32 | COMPATIBILITY,
            reg::COMMAND => channel.command as u32 | (channel.count as u32) << 16,
            reg::STATUS => channel.status() as u32,
            reg::STATUS_HIGH => (channel.status() >> 32) as u32,
            reg::CHAIN => channel.chain as u32,
            reg::CHAIN_HIGH => (channel.chain >> 32) as u32,
            reg::COMPLETION => channel.completion as u32,
            reg::COMPLETION_HIGH => (channel.completion >> 32) as u32,
            reg::CURRENT => channel.current() as u32,
            reg::CURRENT_HIGH => (channel.current() >> 32) as u32,
            reg::ERROR => channel.errors,
            reg::ERROR_MASK => channel.error_mask,
            _ => 0,
        }
    }

    /// Writes the bytes of a word that `mask` has.
    pub(super) fn set_word(&mut self, offset: u64, value: u32, mask: u32) {
        let new = merge(self.word(offset), value, mask);
        let long = |old: u64, high: bool| {
            let shift = if high { 32 } else { 0 };
            old & !(0xffff_ffff << shift) | u64::from(new) << shift
        };
        let channel = &mut self.channel;
        match offset {
            reg::GENERAL => {
                let [_, _, general, interrupts] = new.to_le_bytes();
                (self.general, self.interrupts) = (general & 1, interrupts & 0x0f);
            }
            reg::DELAY => self.delay = new as u16 & 0x3fff,
            reg::CONTROL => channel.control = new as u16 & CONTROL_MASK,
            reg::COMMAND => {
                if mask & 0xffff_0000 != 0 {
                    channel.count = (new >> 16) as u16;
                }
                if mask & 0xff != 0 {
                    self.command(new as u8);
                }
            }
            reg::CHAIN | reg::CHAIN_HIGH => {
                let chain = long(channel.chain, offset == reg::CHAIN_HIGH);
                channel.start(chain);
                self.changed();
            }
            reg::COMPLETION | reg::COMPLETION_HIGH => {
                channel.completion = long(channel.completion, offset == reg::COMPLETION_HIGH) & !7;
            }
            reg::ERROR => channel.errors &= !(value & mask),
            reg::ERROR_MASK => channel.error_mask = new,
            _ => {}
        }
    }

    /// A command; the strongest of several counts. While registers are polled, what stops the channel
    /// is done in `run`.
    fn command(&mut self, bits: u8) {
        let channel = &mut self.channel;
        match bits {
            _ if bits & command::RESET != 0 => channel.stop(Stop::Reset, command::RESET),
            _ if bits & command::ABORT != 0 => channel.stop(Stop::Abort, command::ABORT),
            _ if bits & command::SUSPEND != 0 => channel.stop(Stop::Suspend, command::SUSPEND),
            _ if bits & command::RESUME != 0 => channel.resume(),
            _ => return,
        }
        if !self.options.polled {
            self.settle();
        }
        self.changed();
    }
}
