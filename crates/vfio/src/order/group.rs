//! Checks of a group's descriptor.

use alloc::vec;
use alloc::vec::Vec;

use iommu::{AttachRefusal, Dialect};
use uapi::Errno;

use super::container::{HAS_IOMMU, attach};
use super::{READABLE, Rule, UNKNOWN, WRITABLE, rule};
use crate::Refusal;

const STILL_THERE: Rule =
    rule!("a device of it is still bound to vfio-pci", ENODEV, Refusal::GroupGone(_));
const IN_CONTAINER: Rule = rule!("the group is in a container", EINVAL, Refusal::HasNoContainer(_));

/// The checks when `/dev/vfio/N` is opened.
#[must_use]
pub fn open_group() -> Vec<Rule> {
    vec![
        rule!("a device of it is bound to vfio-pci", ENOENT, Refusal::NoVfioDevice(_)),
        rule!("neither the group nor a device of it is open already", EBUSY, Refusal::GroupOpen(_)),
    ]
}

/// The checks of `GET_STATUS` in their order.
#[must_use]
pub fn get_status() -> Vec<Rule> {
    vec![
        READABLE,
        rule!("argsz is at least 8", EINVAL, Refusal::ArgszTooSmall { .. }),
        STILL_THERE,
        WRITABLE,
    ]
}

/// The checks of `SET_CONTAINER` in their order.
#[must_use]
pub fn set_container(dialect: &Dialect) -> Vec<Rule> {
    let foreign = if dialect.foreign_fd_is_ebadfd { Errno::EBADFD } else { Errno::EINVAL };
    let mut rules = vec![
        READABLE,
        rule!("the descriptor is open", EBADF, Refusal::BadFd(_)),
        rule!("the group is in no container", EINVAL, Refusal::HasContainer(_)),
        STILL_THERE,
        rule!("the descriptor is a container", EBADFD, Refusal::NotAContainer(_))
            .answering(foreign),
        rule!("no host driver uses a device of the group", EPERM, Refusal::NotViable { .. }),
        rule!(
            "no device of the group needs memory mapped to itself (direct)",
            EINVAL,
            Refusal::Attach(AttachRefusal::NeedsDirect { .. })
        ),
    ];
    rules.extend(attach());
    rules
}

/// The checks of `UNSET_CONTAINER` in their order.
#[must_use]
pub fn unset_container() -> Vec<Rule> {
    vec![IN_CONTAINER, rule!("no device of the group is open", EBUSY, Refusal::DevicesOpen { .. })]
}

/// The checks of `GET_DEVICE_FD` in their order.
#[must_use]
pub fn get_device_fd() -> Vec<Rule> {
    vec![
        READABLE,
        rule!("the name fits a page", EINVAL, Refusal::NameTooLong),
        rule!("vfio-pci has such a device of the group", ENODEV, Refusal::NoSuchDevice { .. }),
        rule!("what follows the name is known", EINVAL, Refusal::DeviceOption(_)),
        IN_CONTAINER,
        HAS_IOMMU,
        rule!("the process may open another file", EMFILE, Refusal::NoDescriptor(_)),
    ]
}

/// The checks when a host driver is to have a device of a group.
#[must_use]
pub fn bind() -> Vec<Rule> {
    vec![rule!(
        "no user has the device's group, or the driver does no DMA of its own",
        EINVAL,
        Refusal::GroupInUse(_)
    )]
}

/// The checks of a request that a group does not have.
#[must_use]
pub fn unknown_group_request() -> Vec<Rule> {
    vec![UNKNOWN]
}
