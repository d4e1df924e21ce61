//! The bus as a device sees it: its only way out.
//!
//! Everything a device does to the rest of the machine is a memory transaction at a bus address
//! (an IOVA where an IOMMU translates), message signalled interrupts included: an MSI is
//! [`DmaBus::write`] of the vector's data to the vector's address. Only the INTx line is a wire.

use core::any::Any;

/// A transaction the bus did not complete: nobody claimed the address, or the IOMMU refused it.
///
/// The device learns no more than this, as on real hardware; whoever answers for the bus keeps the
/// reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Aborted;

/// What a device can do to the machine.
pub trait DmaBus {
    /// Reads memory at bus address `addr` into `data`.
    ///
    /// A long access is several transactions on the bus, each of which fails alone.
    ///
    /// # Errors
    /// [`Aborted`] when some bytes cannot be read; those are zero, all others are valid.
    fn read(&mut self, addr: u64, data: &mut [u8]) -> Result<(), Aborted>;

    /// Writes `data` to bus address `addr`. MSIs go this way.
    ///
    /// # Errors
    /// [`Aborted`] when some bytes cannot be written; all others have been.
    fn write(&mut self, addr: u64, data: &[u8]) -> Result<(), Aborted>;

    /// Writes `len` bytes to bus address `addr` that lie in `source`, from `offset` on, with no
    /// buffer of the device between: an object that a device was given and that the machine knows.
    ///
    /// The answer is how many bytes from the first on were written. What is behind them is for
    /// [`write`](Self::write), which also tells what is wrong; nothing was reported of it.
    fn write_mapped(&mut self, _addr: u64, _source: &dyn Any, _offset: u64, _len: usize) -> usize {
        0
    }

    /// The same the other way: reads `len` bytes at bus address `addr` to where they belong in
    /// `target`, from `offset` on.
    ///
    /// The answer is how many bytes from the first on were read; `target` may then hold anything
    /// in the rest of the range, of which nothing was reported.
    fn read_mapped(&mut self, _addr: u64, _target: &dyn Any, _offset: u64, _len: usize) -> usize {
        0
    }

    /// Drives the function's INTx line: `true` asserts it. A function says here what it wants,
    /// also while the command register disables INTx; whoever owns the wire heeds that bit.
    fn set_intx(&mut self, asserted: bool);

    /// Told of a transaction that [`MasterGate`](crate::MasterGate) stopped: a report's raw
    /// material.
    fn not_master(&mut self, _addr: u64, _write: bool) {}
}
