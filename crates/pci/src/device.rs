//! A PCI function: the physical thing that a host driver such as vfio-pci programs.

use crate::bus::DmaBus;
use crate::config::ConfigSpace;

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
