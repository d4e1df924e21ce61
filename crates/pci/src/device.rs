//! A PCI function: the physical thing that a host driver such as vfio-pci programs.

use core::ops::Range;

use crate::bus::DmaBus;
use crate::config::ConfigSpace;

/// Bytes of the pages that [`Device::polled`] speaks of.
pub const PAGE_SIZE: u64 = 4096;

/// How a page of registers is shown to software as plain memory, which somebody watches.
///
/// The front end keeps a copy of what it last saw in the page. A *batch* is: read the words
/// (those of [`last`](Self::last) before all others, then ascending), hand those that changed to
/// [`Device::bar_write`], 4 bytes each, ascending but those of `last` at the end, in its order.
/// Only the newest value of a word is seen, and writing the same value again is not.
///
/// After each batch and after each [`Device::run`], and before the device is called again, words
/// for which [`Device::bar_read`] no longer answers what the copy says go into the page and the
/// copy, each only if the page still holds what the copy said (else it is a new write). To be done
/// when [`Device::polled_changes`] moved; nothing changed otherwise. Devices count on this: what
/// must be in the page before memory tells software of it is told in the next `run`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Polled {
    /// The registers, in bytes from the start of the page, at multiples of 4. All else reads 0.
    pub words: Range<u16>,
    /// Those of the words that software may write.
    pub writable: Range<u16>,
    /// Those of `writable` that start what others only describe: read first, replayed last.
    pub last: &'static [u16],
}

/// One PCI function with its registers.
///
/// Implementations are models of hardware: they know their registers, their configuration space and
/// the [`DmaBus`], never who drives them. Offsets are in bytes from the start of the BAR; callers
/// hand them a bus that heeds the Bus Master bit ([`MasterGate`](crate::MasterGate)), and
/// guarantee `offset + data.len()` lies inside the BAR and that accesses are of 1, 2, 4 or 8 bytes,
/// naturally aligned.
pub trait Device: Send {
    /// The physical configuration space.
    fn config(&self) -> &ConfigSpace;

    /// The physical configuration space, to program.
    fn config_mut(&mut self) -> &mut ConfigSpace;

    /// A read of a BAR register.
    fn bar_read(&mut self, bar: u8, offset: u64, data: &mut [u8], bus: &mut dyn DmaBus);

    /// A write of a BAR register.
    fn bar_write(&mut self, bar: u8, offset: u64, data: &[u8], bus: &mut dyn DmaBus);

    /// Whether a page of a BAR can be shown as plain memory, and how. `None`: each access must
    /// arrive here in its width and order. The answer does not change while the device lives.
    fn polled(&self, _bar: u8, _page: u64) -> Option<Polled> {
        None
    }

    /// A number that moves whenever a word of a polled page came to read otherwise than software
    /// wrote it: the device changed it, or did not take what was written.
    fn polled_changes(&self) -> u64 {
        0
    }

    /// The bytes of the expansion ROM that exist; empty when there are none.
    fn rom(&self) -> &[u8] {
        &[]
    }

    /// Runs work that was started by a register access and finishes on its own (a DMA engine).
    /// Returns whether anything is still to do.
    fn run(&mut self, _bus: &mut dyn DmaBus) -> bool {
        false
    }

    /// Told that software wrote configuration registers: a mask or an enable bit may have gone or
    /// come.
    fn config_written(&mut self, _bus: &mut dyn DmaBus) {}

    /// A function level reset: configuration space as after power-on, and the function's own
    /// registers as far as its hardware resets them. Whoever asks for one saves and restores the
    /// configuration space around it. The INTx line falls, without being driven.
    fn reset(&mut self);
}
