//! The order of checks of a request, as data: what is checked, what fails it, what it answers.
//!
//! The code that checks is in `container`, `group` and the engine; this is what it promises, for
//! people who want to know how far a request came. Facts: `vfio_dma_do_map`, `vfio_dma_do_unmap`,
//! `vfio_iommu_type1_attach_group`, `vfio_group_ioctl_set_container` of Linux 6.1, 6.12 and 7.3.

use alloc::vec;
use alloc::vec::Vec;

use iommu::{AttachRefusal, Dialect, MapRefusal, VaddrRefusal, WindowRefusal};
use uapi::Errno;

use crate::{Refusal, Version};

/// One check.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// What must hold.
    pub says: &'static str,
    /// The answer where it does not.
    pub errno: Errno,
    refuses: fn(&Refusal) -> bool,
}

/// The check that a refusal comes from.
#[must_use]
pub fn find(rules: &[Rule], refusal: &Refusal) -> Option<usize> {
    rules.iter().position(|rule| (rule.refuses)(refusal))
}

macro_rules! rule {
    ($says:expr, $errno:ident, $($refusal:pat_param)|+) => {
        Rule { says: $says, errno: Errno::$errno, refuses: |r| matches!(r, $($refusal)|+) }
    };
}

const HAS_IOMMU: Rule =
    rule!("the container has an IOMMU (SET_IOMMU was answered)", EINVAL, Refusal::NoIommu);
const READABLE: Rule = rule!("the argument can be read", EFAULT, Refusal::BadAddress);
const ARGSZ: Rule =
    rule!("argsz is at least the structure's", EINVAL, Refusal::ArgszTooSmall { .. });
const FLAGS: Rule = rule!("no unknown flags", EINVAL, Refusal::UnknownFlags { .. });
const SIZE: Rule = rule!("size is not 0", EINVAL, Refusal::Empty);
const WRAPS_EARLY: Rule =
    rule!("iova and vaddr plus size stay below 2^64", EOVERFLOW, Refusal::Wraps { .. });
const WRAPS_LATE: Rule =
    rule!("iova and vaddr plus size stay below 2^64", EINVAL, Refusal::Wraps { .. });

/// What an `UNMAP_DMA` asks for, as far as the order of its checks depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unmap {
    /// Mappings.
    Mappings(Version),
    /// Windows.
    Windows,
}

/// The checks of `MAP_DMA` in their order; `update` for one that changes a user address.
#[must_use]
pub fn map(dialect: &Dialect, update: bool) -> Vec<Rule> {
    let mut rules = vec![HAS_IOMMU, READABLE, ARGSZ, FLAGS, SIZE];
    if dialect.wrap_is_eoverflow {
        rules.push(WRAPS_EARLY);
    }
    rules.push(rule!(
        "READ or WRITE, or VADDR alone",
        EINVAL,
        Refusal::FlagMix(_) | Refusal::Map(MapRefusal::NoAccess)
    ));
    if !dialect.wrap_is_eoverflow {
        rules.push(WRAPS_LATE);
    }
    rules.push(rule!(
        "iova, vaddr and size are multiples of the IOMMU's smallest page",
        EINVAL,
        Refusal::Map(MapRefusal::Misaligned { .. })
            | Refusal::Vaddr(VaddrRefusal::Misaligned { .. })
    ));
    if update {
        rules.extend([
            rule!(
                "something is mapped there",
                ENOENT,
                Refusal::Vaddr(VaddrRefusal::NothingMapped { .. })
            ),
            rule!(
                "it is exactly one mapping, whose address was invalidated",
                EINVAL,
                Refusal::Vaddr(VaddrRefusal::NotExact { .. } | VaddrRefusal::StillValid { .. })
            ),
            rule!(
                "the new owner may lock that many pages (RLIMIT_MEMLOCK)",
                ENOMEM,
                Refusal::Vaddr(VaddrRefusal::OverLimit(_))
            ),
        ]);
        return rules;
    }
    rules.extend([
        rule!(
            "nothing is mapped there, and no window is there",
            EEXIST,
            Refusal::Map(MapRefusal::Overlaps { .. } | MapRefusal::InWindow { .. })
        ),
        rule!(
            "the container may hold another mapping (dma_entry_limit)",
            ENOSPC,
            Refusal::Map(MapRefusal::NoEntriesLeft { .. })
        ),
        rule!(
            "it lies within one valid range: inside every aperture, on nothing reserved",
            EINVAL,
            Refusal::Map(MapRefusal::NotUsable { .. })
        ),
        rule!("the memory can be pinned", EFAULT, Refusal::Map(MapRefusal::Pin(_))),
        rule!(
            "that many pages may be locked (RLIMIT_MEMLOCK)",
            ENOMEM,
            Refusal::Map(MapRefusal::OverLimit(_))
        ),
        rule!(
            "while dirty pages are tracked: it has less than 2^31 pages",
            EINVAL,
            Refusal::Map(MapRefusal::TooManyPages { .. })
        ),
    ]);
    rules
}

/// The checks of a `MAP_DMA` that registers an MSI window.
#[must_use]
pub fn map_window(dialect: &Dialect) -> Vec<Rule> {
    let mut rules = vec![HAS_IOMMU, READABLE, ARGSZ, FLAGS, SIZE];
    if dialect.wrap_is_eoverflow {
        rules.push(WRAPS_EARLY);
    }
    rules.push(rule!(
        "READ or WRITE, and no VADDR",
        EINVAL,
        Refusal::FlagMix(_) | Refusal::Window(WindowRefusal::NoAccess)
    ));
    if !dialect.wrap_is_eoverflow {
        rules.push(WRAPS_LATE);
    }
    rules.extend([
        rule!("an attached IOMMU takes windows", EINVAL, Refusal::Window(WindowRefusal::NotTaken)),
        rule!(
            "iova and size are multiples of the IOMMU's smallest page",
            EINVAL,
            Refusal::Window(WindowRefusal::Misaligned { .. })
        ),
        rule!(
            "nothing is mapped there, and no window is there",
            EEXIST,
            Refusal::Window(WindowRefusal::Mapped { .. } | WindowRefusal::Window { .. })
        ),
        rule!(
            "the container may have another window",
            ENOSPC,
            Refusal::Window(WindowRefusal::NoneLeft { .. })
        ),
        rule!(
            "it lies within one valid range",
            EINVAL,
            Refusal::Window(WindowRefusal::NotUsable { .. })
        ),
        rule!(
            "every IOMMU can express its permission",
            EINVAL,
            Refusal::Window(WindowRefusal::Permission { .. })
        ),
    ]);
    rules
}

/// The checks of `UNMAP_DMA` in their order.
#[must_use]
pub fn unmap(dialect: &Dialect, what: Unmap) -> Vec<Rule> {
    let mut rules = vec![
        HAS_IOMMU,
        READABLE,
        ARGSZ,
        FLAGS,
        rule!(
            "GET_DIRTY_BITMAP goes with neither ALL nor VADDR; windows have neither it nor VADDR",
            EINVAL,
            Refusal::FlagMix(_)
        ),
    ];
    if matches!(what, Unmap::Mappings(_)) {
        rules.push(rule!(
            "a bitmap is in user memory and of the right size",
            EINVAL,
            Refusal::BitmapAddress(_) | Refusal::BitmapSize { .. }
        ));
    }
    rules.extend([
        rule!(
            "iova and size are multiples of the IOMMU's smallest page",
            EINVAL,
            Refusal::Misaligned { .. }
        ),
        rule!("ALL has iova 0 and size 0", EINVAL, Refusal::AllWithRange),
        SIZE,
        if dialect.wrap_is_eoverflow { WRAPS_EARLY } else { WRAPS_LATE },
    ]);
    match what {
        Unmap::Windows => rules.extend([
            rule!(
                "it is exactly one window",
                EINVAL,
                Refusal::Window(WindowRefusal::NotExact { .. })
            ),
            rule!("no doorbell is bound in it", EBUSY, Refusal::Window(WindowRefusal::Busy { .. })),
        ]),
        Unmap::Mappings(version) => {
            rules.push(rule!(
                "a bitmap's pages are the container's, and dirty pages are tracked",
                EINVAL,
                Refusal::Dirty(iommu::DirtyRefusal::Off) | Refusal::BitmapPageSize { .. }
            ));
            if version == Version::V2 {
                rules.push(rule!("it cuts no mapping", EINVAL, Refusal::Cuts { .. }));
            }
            rules.push(rule!(
                "with VADDR: no address in it is invalid already",
                EINVAL,
                Refusal::Vaddr(_)
            ));
        }
    }
    rules
}

/// The checks of `SET_IOMMU` in their order.
#[must_use]
pub fn set_iommu() -> Vec<Rule> {
    let mut rules = vec![
        rule!("the container has a group", EINVAL, Refusal::NoGroup),
        rule!("its IOMMU is not set yet", EINVAL, Refusal::IommuAlreadySet),
        rule!("a driver answers to that number", ENODEV, Refusal::NoSuchType(_)),
        rule!(
            "it is a type that can be had",
            EINVAL,
            Refusal::NotAType(_) | Refusal::NoNesting { .. }
        ),
    ];
    rules.extend(attach());
    rules
}

/// The checks of `SET_CONTAINER` in their order.
#[must_use]
pub fn set_container() -> Vec<Rule> {
    let mut rules = vec![
        READABLE,
        rule!("the descriptor is open", EBADF, Refusal::BadFd(_)),
        rule!("the group is in no container", EINVAL, Refusal::HasContainer(_)),
        rule!("the descriptor is a container", EBADFD, Refusal::NotAContainer(_)),
        rule!("no host driver uses a device of the group", EPERM, Refusal::NotViable { .. }),
    ];
    rules.extend(attach());
    rules
}

/// The checks of `GET_DEVICE_FD` in their order.
#[must_use]
pub fn get_device_fd() -> Vec<Rule> {
    vec![
        READABLE,
        rule!("the name fits a page", EINVAL, Refusal::NameTooLong),
        rule!("the group has such a device", ENODEV, Refusal::NoSuchDevice { .. }),
        rule!("what follows the name is known", EINVAL, Refusal::DeviceOption(_)),
        rule!("the group is in a container", EINVAL, Refusal::HasNoContainer(_)),
        HAS_IOMMU,
    ]
}

/// The checks when a group is attached to an IOMMU.
fn attach() -> Vec<Rule> {
    vec![
        rule!(
            "no mapping waits for its new user address",
            EBUSY,
            Refusal::Attach(AttachRefusal::VaddrInvalid { .. })
        ),
        rule!(
            "no device of the group needs memory mapped to itself (direct)",
            EINVAL,
            Refusal::Attach(AttachRefusal::NeedsDirect { .. })
        ),
        rule!(
            "its IOMMU's aperture holds what is mapped",
            EINVAL,
            Refusal::Attach(AttachRefusal::Aperture { .. })
        ),
        rule!(
            "nothing is mapped where it reserves addresses, and some address stays valid",
            EINVAL,
            Refusal::Attach(AttachRefusal::Reserved { .. } | AttachRefusal::NothingValid { .. })
        ),
        rule!(
            "its interrupts are isolated, or allow_unsafe_interrupts is set",
            EPERM,
            Refusal::Attach(AttachRefusal::UnsafeInterrupts { .. })
        ),
        rule!(
            "its IOMMU's pages are small enough for what is mapped",
            EINVAL,
            Refusal::Attach(AttachRefusal::PageSize { .. })
        ),
        rule!(
            "the container's windows suit it",
            EINVAL,
            Refusal::Attach(AttachRefusal::Window { .. })
        ),
        rule!(
            "memory mapped before there was an IOMMU can be pinned",
            EFAULT,
            Refusal::Attach(AttachRefusal::Pin { .. })
        ),
        rule!(
            "and locked (RLIMIT_MEMLOCK)",
            ENOMEM,
            Refusal::Attach(AttachRefusal::OverLimit { .. })
        ),
    ]
}
