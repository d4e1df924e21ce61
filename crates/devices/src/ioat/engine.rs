//! The engine: fetches descriptors and does them.
//!
//! A call does a bounded amount of work. Descriptors that lie side by side in a page are fetched
//! at once; a fetch never leaves the page of a descriptor that software announced.

use pci::DmaBus;

use super::Ioat;
use super::channel::Stop;
use super::config::CHANERR_INT;
use super::descriptor::{Descriptor, Operation, SIZE, error};

/// Descriptors of one call at most.
const BUDGET: usize = 64;
/// Bytes after which a call takes no more descriptors.
const BYTES: u64 = 2 << 20;
/// Descriptors fetched at once.
const BATCH: usize = 16;
/// Bytes moved at once.
const PIECE: u32 = 64 << 10;

/// CHANCTRL: interrupts may be sent. Cleared when one is, until software sets it again.
const INT_REARM: u16 = 0x0001;
/// CHANCTRL: the completion record tells of errors.
const ERR_COMPLETION: u16 = 0x0004;
/// CHANCTRL: an error interrupts.
const ERR_INT: u16 = 0x0010;

/// INTRCTRL: the function may interrupt.
const MASTER_ENABLE: u8 = 0x01;
/// INTRCTRL: every MSI-X vector may.
const MSIX_CONTROL: u8 = 0x08;

impl Ioat {
    /// Does a part of what there is to do; whether more is left.
    pub(super) fn work(&mut self, bus: &mut dyn DmaBus) -> bool {
        if self.channel.untold && self.channel.command == 0 {
            self.tell_halt(bus);
        }
        if self.settle() {
            self.changed();
            // A state is shown before anything follows from it.
            return self.channel.left() != 0 || self.channel.untold;
        }
        if self.channel.left() == 0 {
            return false;
        }
        let (mut complete, mut interrupt) = (false, false);
        let done = self.descriptors(&mut complete, &mut interrupt, bus);
        if complete && self.record(bus).is_err() {
            self.halt(error::COMPLETION_ADDRESS);
        }
        if let Err(errors) = done {
            self.halt(errors);
        }
        if interrupt {
            self.interrupt(bus);
        }
        self.changed();
        self.channel.left() != 0 || self.channel.untold
    }

    /// Does the command to stop that waits; whether there was one.
    pub(super) const fn settle(&mut self) -> bool {
        let how = self.channel.settle();
        if matches!(how, Some(Stop::Reset)) {
            self.stats.resets = self.stats.resets.saturating_add(1);
        }
        how.is_some()
    }

    /// Does descriptors until the budget is used. `complete`: some wanted a completion record;
    /// `interrupt`: some wanted an interrupt.
    fn descriptors(
        &mut self,
        complete: &mut bool,
        interrupt: &mut bool,
        bus: &mut dyn DmaBus,
    ) -> Result<(), u32> {
        let (mut left, mut moved) = (BUDGET.min(self.channel.left().into()), 0_u64);
        while left != 0 {
            let mut bytes = [[0; SIZE]; BATCH];
            let at = self.channel.current();
            for entry in self.fetch(at, left, &mut bytes, bus)? {
                let current = self.channel.current();
                let descriptor = Descriptor::parse(entry, self.options.max_transfer());
                let size = self.perform(descriptor.operation?, bus)?;
                self.stats.descriptors = self.stats.descriptors.saturating_add(1);
                self.stats.bytes = self.stats.bytes.saturating_add(size.into());
                self.channel.advance(descriptor.next);
                *complete |= descriptor.complete;
                *interrupt |= descriptor.interrupt;
                left = left.saturating_sub(1);
                moved = moved.saturating_add(size.into());
                if moved >= BYTES {
                    return Ok(());
                }
                let follows = current.checked_add(SIZE as u64) == Some(descriptor.next);
                if !follows && !planted!(LinksIgnored) {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Reads the descriptor at `at`, and those behind it in its page, `most` in all.
    fn fetch<'a>(
        &self,
        at: u64,
        most: usize,
        bytes: &'a mut [[u8; SIZE]; BATCH],
        bus: &mut dyn DmaBus,
    ) -> Result<&'a [[u8; SIZE]], u32> {
        if at & 0x3f != 0 {
            let first = self.channel.at_start();
            return Err(if first { error::CHAIN_ADDRESS } else { error::NEXT_ALIGNMENT });
        }
        let in_page = (0x1000_u64.saturating_sub(at & 0xfff) >> 6) as usize;
        let count = most.min(in_page).min(BATCH);
        let entries = bytes.get_mut(..count).ok_or(error::DESCRIPTOR_READ)?;
        let read = bus.read(at, entries.as_flattened_mut());
        read.map_err(|_| error::DESCRIPTOR_READ)?;
        Ok(entries)
    }

    /// Moves bytes; how many.
    fn perform(&mut self, operation: Operation, bus: &mut dyn DmaBus) -> Result<u32, u32> {
        let (destination, size) = match operation {
            Operation::Null => return Ok(0),
            Operation::Copy { destination, size, .. }
            | Operation::Fill { destination, size, .. } => (destination, size),
        };
        let piece = size.min(PIECE) as usize;
        if let Operation::Fill { pattern, .. } = operation {
            // Pieces are of a multiple of 8 bytes, all but the last.
            let data = self.data.first(piece);
            data.iter_mut().zip(pattern.iter().cycle()).for_each(|(to, from)| *to = *from);
        }
        let mut done = 0;
        while done < size {
            let now = size.saturating_sub(done).min(PIECE);
            let data = self.data.first(now as usize);
            if let Operation::Copy { source, .. } = operation {
                let from = source.wrapping_add(done.into());
                bus.read(from, data).map_err(|_| error::SOURCE_ADDRESS)?;
            }
            let to = destination.wrapping_add(done.into());
            bus.write(to, data).map_err(|_| error::DESTINATION_ADDRESS)?;
            done = done.saturating_add(now);
        }
        Ok(size)
    }

    /// Halts; registers tell now, memory in the next `run`.
    fn halt(&mut self, errors: u32) {
        self.channel.halt(errors);
        self.stats.errors = self.stats.errors.saturating_add(1);
        let config = self.config.u32(CHANERR_INT) | errors;
        self.config.set_u32(CHANERR_INT, config);
    }

    fn tell_halt(&mut self, bus: &mut dyn DmaBus) {
        self.channel.untold = false;
        if self.channel.control & ERR_COMPLETION != 0
            && self.channel.errors & error::COMPLETION_ADDRESS == 0
            && self.record(bus).is_err()
        {
            self.channel.errors |= error::COMPLETION_ADDRESS;
            self.changed();
        }
        if self.channel.control & ERR_INT != 0 {
            self.interrupt(bus);
        }
    }

    /// Writes the completion record.
    fn record(&self, bus: &mut dyn DmaBus) -> Result<(), pci::Aborted> {
        bus.write(self.channel.completion, &self.channel.status().to_le_bytes())
    }

    fn interrupt(&mut self, bus: &mut dyn DmaBus) {
        let allowed = self.interrupts & (MASTER_ENABLE | MSIX_CONTROL) != 0;
        if !allowed || self.channel.control & INT_REARM == 0 {
            return;
        }
        self.channel.control &= !INT_REARM;
        self.changed();
        if let Some(msix) = &mut self.msix {
            // A write the bus refuses is a lost interrupt; the bus reports it.
            let _ = msix.fire(&self.config, 0, bus);
        }
    }
}
