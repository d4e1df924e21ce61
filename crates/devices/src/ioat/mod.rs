//! Intel's I/OAT DMA engine, 8086:2021: one channel that copies and fills memory.
//!
//! Source: the registers and descriptors as drivers know them (DPDK's drivers/dma/ioat, Linux'
//! drivers/dma/ioat and tools/testing/selftests/vfio). There is no public specification of this
//! generation; where drivers leave a choice, the choice is ours.
//!
//! BAR0, 16 KiB: registers, an MSI-X table of one vector at 0x2000, its pending bits at 0x3000. No
//! pin. Registers take accesses of 1 to 8 bytes.
//!
//! Software writes the address of the first descriptor (CHAINADDR), where completions go (CHANCMP)
//! and how many descriptors there are since then (DMACOUNT). Descriptors are done one by one, in
//! the order of their links, so fences hold by themselves.
//!
//! What makes polling work ([`IoatConfig::polled`]): commands stay in CHANCMD until they are done. A
//! command that stops the channel clears CHAINADDR and DMACOUNT at once, and its state changes in the
//! next `run`: software that sees the channel stopped and writes the old values again changes
//! something. An error stands in registers one `run` before memory tells of it. Not seen while
//! polling: after an error, a restart at the address of the start before.
//!
//! Not polled, a command that stops the channel is done at once: DPDK looks for it 200 times, and on a
//! busy machine the next `run` may be later.

mod channel;
mod config;
mod descriptor;
mod engine;
mod regs;

use pci::{Bar, ConfigSpace, Device, DmaBus, MsixTable, PAGE_SIZE, Polled};

pub use self::config::IoatConfig;

use self::channel::Channel;
use self::regs::reg;
use crate::buffer::Buffer;

/// What the engine did; counters stop at their ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IoatStats {
    /// Descriptors done without an error.
    pub descriptors: u64,
    /// Bytes copied or filled.
    pub bytes: u64,
    /// Errors that halted the channel.
    pub errors: u64,
    /// Resets of the channel and of the function.
    pub resets: u64,
}

/// The engine.
pub struct Ioat {
    config: ConfigSpace,
    msix: Option<MsixTable>,
    options: IoatConfig,
    /// GENCTRL.
    general: u8,
    /// INTRCTRL.
    interrupts: u8,
    /// INTRDELAY.
    delay: u16,
    channel: Channel,
    stats: IoatStats,
    changes: u64,
    /// Bytes on their way; here to be used again.
    data: Buffer,
}

impl Default for Ioat {
    fn default() -> Self {
        Self::new(IoatConfig::default())
    }
}

impl Ioat {
    /// The engine as it powers on, its BAR at an address that firmware would choose.
    #[must_use]
    pub fn new(options: IoatConfig) -> Self {
        Self::with_config(options, config::space())
    }

    /// The BARs (and ROM) of [`new`](Self::new): 16 KiB of memory.
    #[must_use]
    pub const fn bars() -> [Option<Bar>; 7] {
        config::bars()
    }

    /// The engine with another configuration space, of a host that put its BAR elsewhere.
    #[must_use]
    pub fn with_config(options: IoatConfig, mut space: ConfigSpace) -> Self {
        config::own_registers(&mut space);
        Self {
            msix: MsixTable::find(&space),
            config: space,
            channel: Channel::new(options.polled),
            options,
            general: 0,
            interrupts: 0,
            delay: 0,
            stats: IoatStats::default(),
            changes: 0,
            data: Buffer::new(),
        }
    }

    /// What the engine did so far.
    #[must_use]
    pub const fn stats(&self) -> &IoatStats {
        &self.stats
    }

    /// A polled word reads otherwise than it was written.
    const fn changed(&mut self) {
        self.changes = self.changes.wrapping_add(1);
    }
}

impl Device for Ioat {
    fn config(&self) -> &ConfigSpace {
        &self.config
    }

    fn config_mut(&mut self) -> &mut ConfigSpace {
        &mut self.config
    }

    fn bar_read(&mut self, bar: u8, offset: u64, data: &mut [u8], _bus: &mut dyn DmaBus) {
        data.fill(0);
        if bar == 0 {
            for (at, byte) in (offset..reg::END).zip(data.iter_mut()) {
                let shift = (at & 3) << 3;
                *byte = (self.word(at & !3) >> shift) as u8;
            }
        }
        if let Some(msix) = &self.msix {
            msix.bar_read(bar, offset, data);
        }
    }

    fn bar_write(&mut self, bar: u8, offset: u64, data: &[u8], bus: &mut dyn DmaBus) {
        if let Some(msix) = &mut self.msix {
            msix.bar_write(bar, offset, data, &self.config, bus);
        }
        if bar != 0 {
            return;
        }
        let end = offset.saturating_add(data.len() as u64);
        for at in (offset & !3..end.min(reg::END)).step_by(4) {
            // The bytes of this word that are written, and which they are.
            let (mut value, mut mask) = (0_u32, 0_u32);
            for (to, byte) in (offset..end).zip(data) {
                if to & !3 == at {
                    let shift = (to & 3) << 3;
                    value |= u32::from(*byte) << shift;
                    mask |= 0xff << shift;
                }
            }
            self.set_word(at, value, mask);
            if self.word(at) & mask != value {
                self.changed();
            }
        }
    }

    fn polled(&self, bar: u8, page: u64) -> Option<Polled> {
        // In ascending order: commands and counts, then the address that starts the channel.
        let shown = self.options.polled && bar == 0 && page.checked_mul(PAGE_SIZE) == Some(0);
        let words = 0..reg::END as u16;
        shown.then(|| Polled { words: words.clone(), writable: words, last: &[] })
    }

    fn polled_changes(&self) -> u64 {
        self.changes
    }

    fn run(&mut self, bus: &mut dyn DmaBus) -> bool {
        self.work(bus)
    }

    fn config_written(&mut self, bus: &mut dyn DmaBus) {
        if let Some(msix) = &mut self.msix {
            msix.fire_pending(&self.config, bus);
        }
    }

    fn reset(&mut self) {
        self.config.reset();
        if let Some(msix) = &mut self.msix {
            msix.reset();
        }
        (self.general, self.interrupts, self.delay) = (0, 0, 0);
        self.channel = Channel::new(self.options.polled);
        self.stats.resets = self.stats.resets.saturating_add(1);
        self.changed();
    }
}

#[cfg(test)]
mod tests;
