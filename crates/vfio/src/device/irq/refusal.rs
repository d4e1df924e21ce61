//! Why `VFIO_DEVICE_SET_IRQS` refuses.

use core::fmt;

use iommu::{BindRefusal, Dialect};
use uapi::Errno;
use uapi::irq::{IrqIndex, IrqSet, IrqSetFlags, VFIO_PCI_NUM_IRQS};

use crate::BadEvent;

/// Why a request about interrupts was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum IrqRefusal {
    /// The request or its data cannot be read.
    Unreadable {
        /// The caller's address.
        addr: u64,
        /// Bytes wanted from there.
        size: u64,
    },
    /// The data behind the fixed part cannot be read.
    UnreadableData {
        /// The caller's address.
        addr: u64,
        /// Bytes wanted from there.
        size: u64,
    },
    /// `argsz` does not cover the fixed part.
    ShortArgsz(u32),
    /// The index names no kind of interrupt.
    UnknownIndex(u32),
    /// `start` and `count` are beyond every vector number.
    Wraps {
        /// First vector asked.
        start: u32,
        /// Vectors asked.
        count: u32,
    },
    /// Flag bits that mean nothing.
    UnknownFlags(u32),
    /// More interrupts than the function has.
    OutOfRange {
        /// The kind.
        index: IrqIndex,
        /// First interrupt asked.
        start: u32,
        /// Interrupts asked.
        count: u32,
        /// Interrupts there are.
        have: u32,
    },
    /// Not exactly one kind of data.
    DataKind(IrqSetFlags),
    /// `argsz` does not cover the data.
    ShortData {
        /// What the caller said.
        argsz: u32,
        /// What it should have been.
        need: u64,
    },
    /// Not exactly one action, or one that this kind of interrupt does not have.
    NoSuchAction {
        /// The kind.
        index: IrqIndex,
        /// The flags given.
        flags: IrqSetFlags,
    },
    /// Masking INTx by eventfd, which Linux never implemented.
    MaskByEvent,
    /// The action needs this kind to be enabled.
    NotEnabled(IrqIndex),
    /// Another kind is enabled.
    OtherEnabled {
        /// The kind asked.
        wanted: IrqIndex,
        /// The kind enabled.
        enabled: IrqIndex,
    },
    /// INTx is one line: `start` must be 0 and `count` 1.
    OneLine {
        /// First line asked.
        start: u32,
        /// Lines asked.
        count: u32,
    },
    /// The function's INTx line leads nowhere.
    NotWired,
    /// An unmask eventfd is there already.
    UnmaskTaken,
    /// The descriptor is no eventfd.
    BadEvent {
        /// The descriptor.
        fd: i32,
        /// What it is.
        why: BadEvent,
    },
    /// Enabling with no vector at all.
    NoVectors(IrqIndex),
    /// The function is not in power state D0.
    NotInD0,
    /// A vector that was not enabled with the others and cannot be added.
    BeyondEnabled {
        /// The kind.
        index: IrqIndex,
        /// The first such vector.
        vector: u32,
        /// Vectors enabled.
        enabled: u32,
    },
    /// The interrupt controller has no vector left.
    NoVectorsLeft,
    /// The interrupt controller cannot be reached.
    Doorbell(BindRefusal),
    /// No eventfd is registered for the error or request interrupt.
    NoEvent(IrqIndex),
    /// The error or request interrupt with data for no element.
    NoElement(IrqIndex),
    /// The error or request interrupt with a negative descriptor other than -1.
    OddFd(i32),
}

impl IrqRefusal {
    /// The error number for the caller.
    #[must_use]
    pub const fn errno(&self, dialect: &Dialect) -> Errno {
        match self {
            Self::Unreadable { .. } | Self::UnreadableData { .. } => Errno::EFAULT,
            Self::NoSuchAction { .. } | Self::MaskByEvent => Errno::ENOTTY,
            Self::NotWired => Errno::ENODEV,
            Self::UnmaskTaken => Errno::EBUSY,
            Self::BadEvent { why: BadEvent::Closed, .. } => Errno::EBADF,
            Self::NoVectors(_) => Errno::ERANGE,
            Self::Doorbell(BindRefusal::WindowsFull { .. }) => {
                if dialect.full_pool_is_enomem {
                    Errno::ENOMEM
                } else {
                    Errno::ENOSPC
                }
            }
            // The kernel's MSI core turns every failure to get the first vector into this one.
            Self::NoVectorsLeft | Self::Doorbell(BindRefusal::WindowFull { .. }) => Errno::ENOSPC,
            Self::ShortArgsz(_)
            | Self::UnknownIndex(_)
            | Self::Wraps { .. }
            | Self::UnknownFlags(_)
            | Self::OutOfRange { .. }
            | Self::DataKind(_)
            | Self::ShortData { .. }
            | Self::NotEnabled(_)
            | Self::OtherEnabled { .. }
            | Self::OneLine { .. }
            | Self::BadEvent { why: BadEvent::NotEventfd, .. }
            | Self::NotInD0
            | Self::BeyondEnabled { .. }
            | Self::Doorbell(_)
            | Self::NoEvent(_)
            | Self::NoElement(_)
            | Self::OddFd(_) => Errno::EINVAL,
        }
    }
}

/// What people call a kind of interrupt.
const fn called(index: IrqIndex) -> &'static str {
    match index {
        IrqIndex::Intx => "INTx",
        IrqIndex::Msi => "MSI",
        IrqIndex::Msix => "MSI-X",
        IrqIndex::Err => "error interrupt",
        IrqIndex::Req => "request interrupt",
    }
}

/// `vectors 0..=1`, `vector 3`, `no vector at 3`.
struct Asked(u32, u32);

impl fmt::Display for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(start, count) = *self;
        match count {
            0 => write!(f, "no vector at {start}"),
            1 => write!(f, "vector {start}"),
            _ => {
                let last = u64::from(start).saturating_add(u64::from(count)).saturating_sub(1);
                write!(f, "vectors {start}..={last}")
            }
        }
    }
}

impl fmt::Display for IrqRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable { addr, size } | Self::UnreadableData { addr, size } => {
                write!(f, "{size} bytes at {addr:#x} of the caller cannot be read")
            }
            Self::ShortArgsz(argsz) => {
                write!(f, "argsz is {argsz}; the request has {} bytes", IrqSet::MIN_ARGSZ)
            }
            Self::UnknownIndex(index) => {
                write!(f, "index {index} is no kind of interrupt (0..={})", VFIO_PCI_NUM_IRQS - 1)
            }
            Self::Wraps { start, count } => {
                write!(f, "start {start} and count {count} are beyond every vector number")
            }
            Self::UnknownFlags(bits) => write!(f, "unknown flags {bits:#x}"),
            Self::OutOfRange { index, start, count, have } => {
                let (asked, kind) = (Asked(*start, *count), called(*index));
                let plural = if *have == 1 { "" } else { "s" };
                write!(f, "{asked} asked, the function has {have} {kind} vector{plural}")
            }
            Self::DataKind(flags) => {
                write!(f, "{flags} is not exactly one of DATA_NONE, DATA_BOOL, DATA_EVENTFD")
            }
            Self::ShortData { argsz, need } => {
                write!(f, "argsz is {argsz}; the request has {need} bytes with its data")
            }
            Self::NoSuchAction { index, flags } => {
                write!(f, "{flags} is not one action of the kind {}", called(*index))
            }
            Self::MaskByEvent => f.write_str("INTx cannot be masked by eventfd"),
            Self::NotEnabled(index) => write!(f, "{} is not enabled", called(*index)),
            Self::OtherEnabled { wanted, enabled } => write!(
                f,
                "{} asked while {} is enabled; disable that first",
                called(*wanted),
                called(*enabled)
            ),
            Self::OneLine { start, count } => {
                write!(f, "INTx is one line: start {start}, count {count} should be 0 and 1")
            }
            Self::NotWired => f.write_str("the function's INTx line leads nowhere"),
            Self::UnmaskTaken => f.write_str("INTx has an unmask eventfd already; remove it first"),
            Self::BadEvent { fd, why: BadEvent::Closed } => write!(f, "fd {fd} is not open"),
            Self::BadEvent { fd, why: BadEvent::NotEventfd } => write!(f, "fd {fd} is no eventfd"),
            Self::NoVectors(index) => {
                write!(f, "{} cannot be enabled with no vector", called(*index))
            }
            Self::NotInD0 => f.write_str("the function is powered down (not in D0)"),
            Self::BeyondEnabled { index, vector, enabled } => write!(
                f,
                "vector {vector} asked, {enabled} {} vectors were enabled; \
                 disable first to enable more",
                called(*index)
            ),
            Self::NoVectorsLeft => f.write_str("the interrupt controller has no vector left"),
            Self::Doorbell(why) => write!(f, "the interrupt controller cannot be reached: {why}"),
            Self::NoEvent(index) => write!(f, "no eventfd is set for the {}", called(*index)),
            Self::NoElement(index) => {
                write!(f, "the {} needs one element of data", called(*index))
            }
            Self::OddFd(fd) => write!(f, "fd {fd} is neither a descriptor nor -1"),
        }
    }
}

impl core::error::Error for IrqRefusal {}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use super::*;

    #[test]
    fn sentences_say_what_would_have_been_legal() {
        let asked = |start, count, have| {
            IrqRefusal::OutOfRange { index: IrqIndex::Msi, start, count, have }.to_string()
        };
        assert_eq!(asked(0, 2, 1), "vectors 0..=1 asked, the function has 1 MSI vector");
        assert_eq!(asked(1, 1, 0), "vector 1 asked, the function has 0 MSI vectors");
        assert_eq!(
            IrqRefusal::OtherEnabled { wanted: IrqIndex::Msi, enabled: IrqIndex::Intx }.to_string(),
            "MSI asked while INTx is enabled; disable that first"
        );
        assert_eq!(
            IrqRefusal::UnknownIndex(9).to_string(),
            "index 9 is no kind of interrupt (0..=4)"
        );
    }
}
