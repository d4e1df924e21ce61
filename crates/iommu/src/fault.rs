//! What a device's access met instead of memory.

use core::fmt;

use crate::Prot;

/// A device's access that was not translated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The first I/O virtual address that could not be accessed.
    pub iova: u64,
    /// What the device wanted.
    pub access: Prot,
    /// Why not.
    pub reason: FaultReason,
}

/// Why an access was not translated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FaultReason {
    /// The device's group is in no domain.
    NoDomain,
    /// Nothing is mapped there.
    NotMapped,
    /// A mapping is there and does not permit the access.
    NotPermitted {
        /// What the mapping permits.
        prot: Prot,
    },
    /// The mapping has no memory behind it yet (made while the container had no IOMMU).
    NotPinned,
    /// A doorbell, and the access is no MSI (a read, or not to the doorbell's register).
    Doorbell,
    /// The interrupt controller knows no such vector of this device.
    UnknownVector,
    /// The client's memory behind the mapping is gone.
    MemoryGone,
    /// The device may not master the bus.
    BusMasterOff,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = if self.access.contains(Prot::WRITE) { "write to" } else { "read of" };
        write!(f, "{verb} {:#x}: ", self.iova)?;
        match self.reason {
            FaultReason::NoDomain => f.write_str("the device is attached to no domain"),
            FaultReason::NotMapped => f.write_str("nothing is mapped there"),
            FaultReason::NotPermitted { prot } => write!(f, "the mapping is {prot}"),
            FaultReason::NotPinned => f.write_str("the mapping has no memory behind it"),
            FaultReason::Doorbell => f.write_str("a doorbell takes only MSI writes"),
            FaultReason::UnknownVector => f.write_str("no such interrupt vector of this device"),
            FaultReason::MemoryGone => f.write_str("the client's memory is gone"),
            FaultReason::BusMasterOff => f.write_str("the device may not master the bus"),
        }
    }
}
