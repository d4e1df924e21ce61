//! Why a request is refused: a reason for people, from which the errno follows.

use alloc::string::String;

use iommu::{AttachRefusal, Dialect, DirtyRefusal, MapRefusal, VaddrRefusal, WindowRefusal};
use thiserror::Error;
use uapi::Errno;

use crate::{BadAddress, GroupId, user};

/// What a request answers: a number that is not negative, or why not.
pub type Answer = Result<i64, Refusal>;

/// Why a request is refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Refusal {
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
    #[error("argsz is {argsz}, the structure has {min} bytes")]
    ArgszTooSmall {
        /// What the caller said.
        argsz: u32,
        /// What is needed.
        min: u32,
    },
    /// Flags nobody knows.
    #[error("unknown flags {unknown:#x}")]
    UnknownFlags {
        /// The unknown bits.
        unknown: u32,
    },
    /// Known flags that do not go together, or none where one is needed.
    #[error("{0}")]
    FlagMix(&'static str),
    /// Size 0.
    #[error("size is 0")]
    Empty,
    /// The range goes beyond 2^64.
    #[error("{what} {first:#x} plus {size:#x} bytes goes beyond 2^64")]
    Wraps {
        /// Which address: `iova` or `vaddr`.
        what: &'static str,
        /// Its start.
        first: u64,
        /// Its size.
        size: u64,
    },
    /// An address or size is no multiple of the page size.
    #[error("{what} {value:#x} is not a multiple of the IOMMU page size {granule:#x}")]
    Misaligned {
        /// Which: `iova` or `size`.
        what: &'static str,
        /// Its value.
        value: u64,
        /// The page size in bytes.
        granule: u64,
    },
    /// `UNMAP_ALL` with an address or a size.
    #[error("ALL takes iova 0 and size 0")]
    AllWithRange,
    /// The container has no IOMMU type yet.
    #[error("the container has no IOMMU yet (SET_IOMMU comes first)")]
    NoIommu,
    /// The container has its IOMMU type already.
    #[error("the container's IOMMU is already set")]
    IommuAlreadySet,
    /// `SET_IOMMU` before a group joined.
    #[error("the container has no group yet (SET_CONTAINER comes first)")]
    NoGroup,
    /// No such IOMMU type.
    #[error("no IOMMU driver takes type {0}")]
    NoSuchType(u64),
    /// A number that is an extension and no IOMMU type.
    #[error("{0} is an extension, not an IOMMU type")]
    NotAType(u64),
    /// Nested translation is not to be had.
    #[error("nested translation is not available")]
    NoNesting {
        /// The IOMMU knows it and its driver still refuses.
        known: bool,
    },
    /// No such request here.
    #[error("no such request ({0:#x})")]
    UnknownRequest(u32),
    /// A mapping was refused.
    #[error(transparent)]
    Map(#[from] MapRefusal),
    /// A user address was not changed.
    #[error(transparent)]
    Vaddr(#[from] VaddrRefusal),
    /// A window was not registered or not removed.
    #[error(transparent)]
    Window(#[from] WindowRefusal),
    /// A group was not attached.
    #[error(transparent)]
    Attach(#[from] AttachRefusal),
    /// An unmap would cut a mapping.
    #[error("{wanted} cuts the mapping {existing}")]
    Cuts {
        /// What was to be unmapped.
        wanted: iommu::IovaRange,
        /// The mapping.
        existing: iommu::IovaRange,
    },
    /// Dirty pages of a version 1 container.
    #[error("dirty pages are tracked in type1v2 containers only")]
    DirtyNeedsV2,
    /// Dirty pages were not reported.
    #[error(transparent)]
    Dirty(#[from] DirtyRefusal),
    /// A bitmap of a page size that is not the container's.
    #[error("the bitmap is for pages of {pgsize:#x} bytes, the container's have {granule:#x}")]
    BitmapPageSize {
        /// The bitmap's.
        pgsize: u64,
        /// The container's.
        granule: u64,
    },
    /// A bitmap too small for its range, or larger than any may be.
    #[error("a bitmap of {size} bytes does not fit {pages} pages (256 MiB at most)")]
    BitmapSize {
        /// Its bytes.
        size: u64,
        /// Pages of the range.
        pages: u64,
    },
    /// A bitmap outside the part of the address space that is the caller's.
    #[error("the bitmap at {0:#x} is not in user memory")]
    BitmapAddress(u64),

    /// No such group, or no device of it is bound to VFIO.
    #[error("group {0} has no device bound to vfio-pci")]
    NoVfioDevice(GroupId),
    /// The group's last device was taken from vfio-pci; descriptors of it are good for nothing.
    #[error("the last device of group {0} was taken from vfio-pci")]
    GroupGone(GroupId),
    /// A group is opened once.
    #[error("group {0} is already open")]
    GroupOpen(GroupId),
    /// A descriptor that is not open.
    #[error("descriptor {0} is not open")]
    BadFd(i32),
    /// A descriptor of something else.
    #[error("descriptor {0} is not a container")]
    NotAContainer(i32),
    /// The group is in a container.
    #[error("group {0} is already in a container")]
    HasContainer(GroupId),
    /// The group is in no container.
    #[error("group {0} is in no container")]
    HasNoContainer(GroupId),
    /// A kernel driver uses a device of the group.
    #[error("device {device} of group {group} is used by the driver {driver}")]
    NotViable {
        /// The group.
        group: GroupId,
        /// The device.
        device: String,
        /// Its driver.
        driver: String,
    },
    /// Devices of the group are open.
    #[error("{open} device descriptors of group {group} are open")]
    DevicesOpen {
        /// The group.
        group: GroupId,
        /// How many.
        open: u32,
    },
    /// A device name that is too long or does not end.
    #[error("the device name is longer than a page")]
    NameTooLong,
    /// No device of that name in the group.
    #[error("group {group} has no device {name} bound to vfio-pci")]
    NoSuchDevice {
        /// The group.
        group: GroupId,
        /// What was asked for.
        name: String,
    },
    /// Something unknown after the device's name.
    #[error("bad option after the device name: {0}")]
    DeviceOption(String),
    /// The device's descriptor could not be installed.
    #[error("no descriptor for the device: {0}")]
    NoDescriptor(Errno),
    /// A host driver may not take a device of a group that a user has.
    #[error("group {0} is in use through VFIO")]
    GroupInUse(GroupId),

    /// A request of a device.
    #[error(transparent)]
    Device(#[from] crate::device::DeviceRefusal),
}

impl From<BadAddress> for Refusal {
    fn from(_: BadAddress) -> Self {
        Self::BadAddress
    }
}

impl From<user::BadTail> for Refusal {
    fn from(_: user::BadTail) -> Self {
        Self::BadTail
    }
}

impl From<user::NotWritten> for Refusal {
    fn from(_: user::NotWritten) -> Self {
        Self::NotWritten
    }
}

impl Refusal {
    /// The errno that a kernel of this dialect answers.
    #[must_use]
    pub fn errno(&self, dialect: &Dialect) -> Errno {
        match self {
            Self::BadAddress | Self::BadTail | Self::NotWritten => Errno::EFAULT,
            Self::ArgszTooSmall { .. }
            | Self::UnknownFlags { .. }
            | Self::FlagMix(_)
            | Self::Empty
            | Self::Misaligned { .. }
            | Self::AllWithRange
            | Self::NoIommu
            | Self::IommuAlreadySet
            | Self::NoGroup
            | Self::NotAType(_)
            | Self::Cuts { .. }
            | Self::BitmapPageSize { .. }
            | Self::BitmapSize { .. }
            | Self::BitmapAddress(_)
            | Self::HasContainer(_)
            | Self::HasNoContainer(_)
            | Self::NameTooLong
            | Self::GroupInUse(_)
            | Self::DeviceOption(_) => Errno::EINVAL,
            Self::Wraps { .. } => wrap(dialect),
            Self::NoSuchType(_) | Self::NoSuchDevice { .. } | Self::GroupGone(_) => Errno::ENODEV,
            Self::NoVfioDevice(_) => Errno::ENOENT,
            Self::NoNesting { known } => {
                if *known {
                    Errno::EPERM
                } else {
                    Errno::EINVAL
                }
            }
            Self::UnknownRequest(_) => Errno::ENOTTY,
            Self::DirtyNeedsV2 => Errno::EACCES,
            Self::GroupOpen(_) | Self::DevicesOpen { .. } => Errno::EBUSY,
            Self::BadFd(_) => Errno::EBADF,
            Self::NotAContainer(_) => {
                if dialect.foreign_fd_is_ebadfd {
                    Errno::EBADFD
                } else {
                    Errno::EINVAL
                }
            }
            Self::NotViable { .. } => Errno::EPERM,
            Self::NoDescriptor(errno) => *errno,
            Self::Map(refusal) => map_errno(refusal, dialect),
            Self::Vaddr(refusal) => vaddr_errno(refusal, dialect),
            Self::Window(refusal) => window_errno(refusal),
            Self::Attach(refusal) => attach_errno(refusal),
            Self::Dirty(DirtyRefusal::Bitmap) => Errno::EFAULT,
            Self::Dirty(_) => Errno::EINVAL,
            Self::Device(refusal) => refusal.errno(dialect),
        }
    }
}

fn wrap(dialect: &Dialect) -> Errno {
    if dialect.wrap_is_eoverflow { Errno::EOVERFLOW } else { Errno::EINVAL }
}

fn map_errno(refusal: &MapRefusal, dialect: &Dialect) -> Errno {
    match refusal {
        MapRefusal::VaddrWraps { .. } => wrap(dialect),
        MapRefusal::Overlaps { .. } | MapRefusal::InWindow { .. } => Errno::EEXIST,
        MapRefusal::NoEntriesLeft { .. } => Errno::ENOSPC,
        MapRefusal::Pin(_) => Errno::EFAULT,
        MapRefusal::OverLimit(_) => Errno::ENOMEM,
        _ => Errno::EINVAL,
    }
}

fn vaddr_errno(refusal: &VaddrRefusal, dialect: &Dialect) -> Errno {
    match refusal {
        VaddrRefusal::VaddrWraps { .. } => wrap(dialect),
        VaddrRefusal::NothingMapped { .. } => Errno::ENOENT,
        VaddrRefusal::OverLimit(_) => Errno::ENOMEM,
        _ => Errno::EINVAL,
    }
}

fn window_errno(refusal: &WindowRefusal) -> Errno {
    match refusal {
        WindowRefusal::Mapped { .. } | WindowRefusal::Window { .. } => Errno::EEXIST,
        WindowRefusal::NoneLeft { .. } => Errno::ENOSPC,
        WindowRefusal::Busy { .. } => Errno::EBUSY,
        _ => Errno::EINVAL,
    }
}

fn attach_errno(refusal: &AttachRefusal) -> Errno {
    match refusal {
        AttachRefusal::UnknownGroup { .. } => Errno::ENODEV,
        AttachRefusal::VaddrInvalid { .. } => Errno::EBUSY,
        AttachRefusal::UnsafeInterrupts { .. } => Errno::EPERM,
        AttachRefusal::Pin { .. } => Errno::EFAULT,
        AttachRefusal::OverLimit { .. } => Errno::ENOMEM,
        _ => Errno::EINVAL,
    }
}
