//! An NVM Express 1.4 controller, 1b36:0010: namespaces on any [`Backend`].
//!
//! Source: NVM Express Base Specification, revision 1.4; its sections stand beside what they
//! describe. The ids are QEMU's, which drivers know.
//!
//! BAR0, 16 KiB: registers, doorbells from 0x1000, the MSI-X table at 0x2000, its pending bits at
//! 0x3000. Without MSI-X the pin INTA is used. Registers take accesses of 4 and 8 bytes; others
//! read 0 and change nothing. Both pages of registers may be polled ([`Device::polled`]).
//!
//! ```text
//!   bar_write ─► registers, doorbells (nothing is fetched)
//!   run ───────► engine: take commands ─► admin ─► identify, features, log, events
//!                  ▲   completions        io ────► prp ─► DmaBus ◄─► Backend
//!                  └── queue: rings
//! ```
//!
//! Not offered: SGLs, namespace management, firmware download, shadow doorbells, metadata and
//! protection information, controller memory buffers, reservations.

mod admin;
mod backend;
mod command;
mod config;
mod engine;
mod events;
mod features;
mod identify;
mod interrupt;
mod io;
mod log;
mod prp;
mod queue;
mod registers;
mod regs;
mod stats;
mod status;

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use pci::{Bar, ConfigSpace, Device, DmaBus, MsixTable, PAGE_SIZE, Polled};

pub use self::backend::{Backend, BackendError, MemoryBackend};
pub use self::config::{BlockSize, NvmeConfig};
pub use self::stats::NvmeStats;

use self::command::Completion;
use self::events::Events;
use self::features::Features;
use self::identify::UniqueIds;
use self::prp::Segment;
use self::queue::{CompletionRing, Submission};
use self::regs::{Registers, reg};
use crate::buffer::Buffer;

/// Namespaces at most: all ids fit one page of the active list.
const MAX_NAMESPACES: usize = 1024;

/// The controller.
pub struct Nvme {
    config: ConfigSpace,
    msix: Option<MsixTable>,
    /// INTA as it was last driven.
    line: bool,
    serial: String,
    block_size: BlockSize,
    namespaces: Vec<Namespace>,
    regs: Registers,
    /// By id; 0 is the admin queue.
    submissions: Vec<Option<Submission>>,
    completions: Vec<Option<CompletionRing>>,
    features: Features,
    events: Events,
    stats: NvmeStats,
    /// A completion of the admin queue that tells of changed registers: told in the next `run`.
    deferred: Option<(u16, Completion)>,
    /// There may be something to do.
    pending: bool,
    /// The submission queue whose turn it is.
    turn: usize,
    /// See [`Device::polled_changes`].
    changes: u64,
    /// A command's data on its way, and where in memory it lies; here to be used again.
    data: Buffer,
    segments: Vec<Segment>,
}

struct Namespace {
    backend: Box<dyn Backend>,
    blocks: u64,
    ids: UniqueIds,
}

impl Nvme {
    /// A controller as it powers on, its BAR at an address that firmware would choose.
    #[must_use]
    pub fn new(config: NvmeConfig) -> Self {
        let space = config::space(config.vectors);
        Self::with_config(config, space)
    }

    /// The BARs (and ROM) of [`new`](Self::new): 16 KiB of memory.
    #[must_use]
    pub const fn bars() -> [Option<Bar>; 7] {
        config::bars()
    }

    /// A controller with another configuration space, of a host that put its BAR elsewhere. Its
    /// MSI-X capability decides how many vectors there are.
    #[must_use]
    pub fn with_config(config: NvmeConfig, space: ConfigSpace) -> Self {
        let NvmeConfig { serial, namespaces, block_size, queues, .. } = config;
        let queues = queues.clamp(1, 511);
        let msix = MsixTable::find(&space);
        let vectors = msix.as_ref().map_or(1, MsixTable::vectors);
        let namespaces = (1..).zip(namespaces.into_iter().take(MAX_NAMESPACES));
        let namespaces = namespaces.map(|(nsid, backend)| Namespace {
            blocks: backend.size() >> block_size.shift(),
            ids: UniqueIds::of(&serial, nsid),
            backend,
        });
        let all = usize::from(queues).saturating_add(1);
        Self {
            namespaces: namespaces.collect(),
            config: space,
            msix,
            line: false,
            serial,
            block_size,
            regs: Registers::default(),
            submissions: vec![None; all],
            completions: vec![None; all],
            features: Features::new(queues, vectors),
            events: Events::default(),
            stats: NvmeStats::default(),
            deferred: None,
            pending: false,
            turn: 0,
            changes: 0,
            data: Buffer::new(),
            segments: Vec::new(),
        }
    }

    /// What the controller did so far.
    #[must_use]
    pub const fn stats(&self) -> &NvmeStats {
        &self.stats
    }

    /// A polled word reads otherwise than it was written.
    const fn changed(&mut self) {
        self.changes = self.changes.wrapping_add(1);
    }
}

impl Device for Nvme {
    fn config(&self) -> &ConfigSpace {
        &self.config
    }

    fn config_mut(&mut self) -> &mut ConfigSpace {
        &mut self.config
    }

    fn bar_read(&mut self, bar: u8, offset: u64, data: &mut [u8], _bus: &mut dyn DmaBus) {
        data.fill(0);
        if bar == 0 {
            // Parts of a word too, as in memory: compilers fetch no more of a field than they need.
            for (at, byte) in (offset..reg::TABLE).zip(data.iter_mut()) {
                let word = self.word(at & !3).to_le_bytes();
                *byte = word.get((at & 3) as usize).copied().unwrap_or(0);
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
        let (words, rest) = data.as_chunks::<4>();
        if bar != 0 || !rest.is_empty() {
            return;
        }
        for (at, word) in (offset..reg::TABLE).step_by(4).zip(words) {
            let value = u32::from_le_bytes(*word);
            self.set_word(at, value, bus);
            if self.word(at) != value {
                self.changed();
            }
        }
    }

    fn polled(&self, bar: u8, page: u64) -> Option<Polled> {
        match (bar, page.checked_mul(PAGE_SIZE)) {
            // The configuration comes last: it starts the controller on queues that other
            // registers describe.
            (0, Some(0)) => Some(Polled {
                words: 0..reg::END as u16,
                writable: reg::INTMS as u16..reg::END as u16,
                last: &[reg::CC as u16],
            }),
            (0, Some(reg::DOORBELLS)) => {
                let words = 0..(self.submissions.len() as u16).saturating_mul(8);
                Some(Polled { words: words.clone(), writable: words, last: &[] })
            }
            _ => None,
        }
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
        self.update_line(bus);
    }

    fn reset(&mut self) {
        self.config.reset();
        if let Some(msix) = &mut self.msix {
            msix.reset();
        }
        self.stop();
        self.regs = Registers::default();
        self.line = false;
        self.show_line();
    }
}

#[cfg(test)]
mod tests;
