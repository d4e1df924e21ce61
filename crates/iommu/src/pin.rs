//! Client memory as the engine sees it: pinned by somebody else, charged here.

use core::fmt;

/// An address space of client memory (a process' `mm`), to which locked pages are charged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MmId(pub u32);

/// A pinned range of client memory; the [`Pinner`] that gave it knows what it means. No two pins
/// that are held at the same time are equal, also not of the same memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PinId(pub u64);

/// What pinning a range gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pinned {
    /// The pin.
    pub id: PinId,
    /// Pages of it that count as locked memory. Device memory and, on some kernels, the zero page
    /// do not.
    pub charged_pages: u64,
}

/// Why a range could not be pinned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PinError {
    /// The first address that could not be pinned.
    pub vaddr: u64,
    /// Pages before it that would have counted as locked memory: a kernel charges as it goes, so a
    /// limit reached earlier is the error it reports.
    pub charged_pages: u64,
    /// What is wrong with the address.
    pub why: PinFault,
}

/// What is wrong with an address that cannot be pinned. Kernels answer `EFAULT` to all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PinFault {
    /// Nothing is mapped there.
    NotMapped,
    /// The device is to write, the memory is read-only (or not accessible at all).
    NotPermitted,
    /// It lies beyond the end of the mapped file.
    BeyondFile,
    /// It is a device's memory whose decoding is off.
    DeviceOff,
}

impl fmt::Display for PinFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotMapped => "nothing is mapped there",
            Self::NotPermitted => "its protection does not allow the access",
            Self::BeyondFile => "it lies beyond the end of the mapped file",
            Self::DeviceOff => "it is device memory whose decoding is off",
        })
    }
}

/// Whoever owns client memory.
///
/// Pinning a range must not cost more than its bookkeeping: a 1 TiB mapping is one call.
pub trait Pinner {
    /// Pins `size` bytes at `vaddr` (both multiples of the CPU page size) for a device that reads
    /// them, and writes them when `write`.
    ///
    /// # Errors
    /// [`PinError`] names the first bad address; nothing is pinned then.
    fn pin(&mut self, vaddr: u64, size: u64, write: bool) -> Result<Pinned, PinError>;

    /// Gives a pin back.
    fn unpin(&mut self, pin: PinId);
}

/// Bytes of pinned client memory: where a translated DMA lands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backing {
    /// The pin.
    pub pin: PinId,
    /// Bytes from the start of the pin.
    pub offset: u64,
    /// The client's own address of the first byte, as of the mapping (or its last update).
    pub vaddr: u64,
    /// Whose address that is.
    pub mm: MmId,
}
