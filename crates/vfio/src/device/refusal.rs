//! Why a request of a device is refused.

use alloc::format;
use alloc::string::String;

use iommu::Dialect;
use thiserror::Error;
use uapi::Errno;
use uapi::feature::FeatureFlags;

use super::IrqRefusal;
use crate::{BadAddress, BadEvent, user};

/// Why a request on a device's descriptor is refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum DeviceRefusal {
    /// The argument is not wholly readable.
    #[error("the argument's memory is not accessible")]
    BadAddress,
    /// What follows the argument's first structure is not readable.
    #[error("the memory of the argument's second part is not accessible")]
    BadTail,
    /// The answer cannot be written.
    #[error("the memory for the answer is not accessible")]
    NotWritten,
    /// `argsz` is smaller than the structure.
    #[error("argsz is {argsz}, at least {min} is needed")]
    ArgszTooSmall {
        /// What the caller said.
        argsz: u32,
        /// What is needed.
        min: u32,
    },
    /// Flags nobody knows, or a combination that means nothing.
    #[error("the flags {0:#x} mean nothing here")]
    BadFlags(u32),
    /// No such request.
    #[error("a device has no request {0:#x}")]
    UnknownRequest(u32),
    /// The device is not open, or its model is gone.
    #[error("the device is not there")]
    NotThere,
    /// No such region.
    #[error("{}", no_region(*.0))]
    NoSuchRegion(u64),
    /// The function does not have that BAR, or the access is beyond its end.
    #[error("nothing at {offset:#x} of BAR {bar}")]
    BeyondBar {
        /// The BAR.
        bar: u8,
        /// Bytes from its start.
        offset: u64,
    },
    /// Beyond the end of configuration space.
    #[error("{count} bytes at {offset:#x} go beyond configuration space")]
    BeyondConfig {
        /// Bytes from the start.
        offset: u64,
        /// Bytes wanted.
        count: usize,
    },
    /// Memory decoding is off, or the function is in D3.
    #[error("the function does not decode memory now (COMMAND.MEMORY or its power state)")]
    MemoryOff,
    /// The expansion ROM cannot be written.
    #[error("the expansion ROM is read-only")]
    RomIsReadOnly,
    /// The expansion ROM has no contents that could be found.
    #[error("the expansion ROM cannot be read")]
    NoRom,
    /// A region that cannot be mapped, or not like this.
    #[error("cannot be mapped: {0}")]
    NotMappable(&'static str),
    /// No interrupts of that index.
    #[error("no interrupt index {0}")]
    NoSuchIrq(u32),
    /// Interrupts were not set.
    #[error(transparent)]
    Irq(#[from] IrqRefusal),
    /// The function cannot be reset alone.
    #[error("the function has no way to be reset alone")]
    NoReset,
    /// Its bus cannot be reset.
    #[error("the bus is a root bus, which cannot be reset")]
    NoBusReset,
    /// The bus was reset, and its link did not come back.
    #[error("the link did not come back after the reset of its bus")]
    LinkLost,
    /// The caller's list is too short; the number needed was written.
    #[error("there are {needed} devices on the bus, and room for {room} in the list")]
    ListTooShort {
        /// Devices there are.
        needed: usize,
        /// Entries the caller has room for.
        room: usize,
    },
    /// Not a number of groups that can be right.
    #[error("{}", group_count(*.given, *.affected))]
    GroupCount {
        /// Descriptors given.
        given: u32,
        /// Devices a reset affects.
        affected: usize,
    },
    /// A descriptor that is not open.
    #[error("descriptor {0} is not open")]
    BadFd(i32),
    /// A descriptor of something else than a group.
    #[error("descriptor {0} is not a group")]
    NotAGroup(i32),
    /// A function that the reset affects is in none of the groups given, or not bound to vfio-pci.
    #[error("the reset affects {0}, which the caller does not own")]
    NotOwned(String),
    /// A descriptor that is no eventfd.
    #[error("descriptor {fd} is no eventfd")]
    BadEvent {
        /// The descriptor.
        fd: i32,
        /// What it is instead.
        why: BadEvent,
    },
    /// A feature that the device does not have.
    #[error("no feature {0}")]
    NoSuchFeature(u32),
    /// A feature that cannot be used like this.
    #[error("feature {feature} does not take {operation}")]
    FeatureOperation {
        /// Its number.
        feature: u32,
        /// What was asked.
        operation: FeatureFlags,
    },
    /// Low power was entered before.
    #[error("the device is in low power already")]
    AlreadyLowPower,
    /// A region that is no BAR, where only a BAR will do.
    #[error("region {0} is no BAR")]
    NoBar(u32),
    /// A dma-buf of no range, or with flags.
    #[error("a dma-buf takes at least one range and no flags, not {ranges} and {flags:#x}")]
    BadDmaBuf {
        /// Ranges asked for.
        ranges: u32,
        /// Flags given.
        flags: u32,
    },
    /// Parts of BARs cannot be had as dma-bufs here.
    #[error("a BAR cannot be exported as a dma-buf here")]
    NoDmaBuf,
    /// An eventfd cannot write there.
    #[error("no register of a BAR that an eventfd could write at {0:#x}")]
    IoEventPlace(u64),
    /// The same eventfd write exists.
    #[error("a write like this is tied to an eventfd already")]
    IoEventExists,
    /// There is no such eventfd write to remove.
    #[error("no write like this is tied to an eventfd")]
    NoIoEvent,
    /// As many eventfd writes as a device may have.
    #[error("{0} writes are tied to eventfds, more are not allowed")]
    TooManyIoEvents(usize),
}

/// A region is named by its index or by an offset in the descriptor's file.
fn no_region(region: u64) -> String {
    match uapi::region::split_offset(region) {
        (0, index) => format!("no region {index}"),
        (index, within) => format!("no region {index} (offset {region:#x}, {within:#x} within)"),
    }
}

fn group_count(given: u32, affected: usize) -> String {
    match given {
        0 => "no group is given".into(),
        _ => format!("{given} groups are given, and {affected} devices are on the bus"),
    }
}

impl From<BadAddress> for DeviceRefusal {
    fn from(_: BadAddress) -> Self {
        Self::BadAddress
    }
}

impl From<user::BadTail> for DeviceRefusal {
    fn from(_: user::BadTail) -> Self {
        Self::BadTail
    }
}

impl From<user::NotWritten> for DeviceRefusal {
    fn from(_: user::NotWritten) -> Self {
        Self::NotWritten
    }
}

impl DeviceRefusal {
    /// The errno that a kernel of this dialect answers.
    #[must_use]
    pub fn errno(&self, dialect: &Dialect) -> Errno {
        match self {
            Self::BadAddress | Self::BadTail | Self::NotWritten | Self::BeyondConfig { .. } => {
                Errno::EFAULT
            }
            Self::UnknownRequest(_) | Self::NoSuchFeature(_) | Self::LinkLost => Errno::ENOTTY,
            Self::NotThere | Self::NoBusReset | Self::NoIoEvent | Self::NoBar(_) => Errno::ENODEV,
            Self::MemoryOff => Errno::EIO,
            Self::NoRom => Errno::ENOMEM,
            Self::ListTooShort { .. } | Self::TooManyIoEvents(_) => Errno::ENOSPC,
            Self::BadFd(_) | Self::BadEvent { why: BadEvent::Closed, .. } => Errno::EBADF,
            Self::IoEventExists => Errno::EEXIST,
            Self::NoDmaBuf => Errno::EOPNOTSUPP,
            Self::Irq(refusal) => refusal.errno(dialect),
            Self::ArgszTooSmall { .. }
            | Self::BadFlags(_)
            | Self::NoSuchRegion(_)
            | Self::BeyondBar { .. }
            | Self::RomIsReadOnly
            | Self::NotMappable(_)
            | Self::NoSuchIrq(_)
            | Self::NoReset
            | Self::GroupCount { .. }
            | Self::NotAGroup(_)
            | Self::NotOwned(_)
            | Self::BadEvent { .. }
            | Self::FeatureOperation { .. }
            | Self::AlreadyLowPower
            | Self::BadDmaBuf { .. }
            | Self::IoEventPlace(_) => Errno::EINVAL,
        }
    }
}
