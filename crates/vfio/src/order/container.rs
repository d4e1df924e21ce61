//! Checks of a container's descriptor, and of a group that comes to its IOMMU.

use alloc::vec;
use alloc::vec::Vec;

use iommu::{AttachRefusal, Dialect};

use super::{Rule, UNKNOWN, rule};
use crate::Refusal;

pub(super) const HAS_IOMMU: Rule =
    rule!("the container has an IOMMU (SET_IOMMU was answered)", EINVAL, Refusal::NoIommu);

const APERTURE: Rule = rule!(
    "its IOMMU's aperture holds what is mapped, and meets the other groups' valid ranges",
    EINVAL,
    Refusal::Attach(AttachRefusal::Aperture { .. })
);
const SOMETHING_VALID: Rule = rule!(
    "with its reserved regions some address stays valid",
    EINVAL,
    Refusal::Attach(AttachRefusal::NothingValid { .. })
);
const ISOLATED: Rule = rule!(
    "its interrupts are isolated, or allow_unsafe_interrupts is set",
    EPERM,
    Refusal::Attach(AttachRefusal::UnsafeInterrupts { .. })
);

/// The checks of `SET_IOMMU` in their order.
#[must_use]
pub fn set_iommu(dialect: &Dialect) -> Vec<Rule> {
    let mut rules = vec![
        rule!("the container has a group", EINVAL, Refusal::NoGroup),
        rule!("its IOMMU is not set yet", EINVAL, Refusal::IommuAlreadySet),
        rule!("a driver answers to that number", ENODEV, Refusal::NoSuchType(_)),
        rule!("it is an IOMMU type, not another extension", EINVAL, Refusal::NotAType(_)),
    ];
    if dialect.nesting_type {
        rules.extend([
            rule!(
                "the IOMMU knows nested translation",
                EINVAL,
                Refusal::NoNesting { known: false }
            ),
            rule!(
                "its driver gives nested translation to users",
                EPERM,
                Refusal::NoNesting { known: true }
            ),
        ]);
    }
    // Each group in turn; nothing is mapped yet.
    rules.extend([APERTURE, SOMETHING_VALID, ISOLATED]);
    rules
}

/// The checks when a group comes to a container whose IOMMU is set.
pub(super) fn attach() -> [Rule; 7] {
    [
        rule!(
            "no mapping waits for its new user address",
            EBUSY,
            Refusal::Attach(AttachRefusal::VaddrInvalid { .. })
        ),
        APERTURE,
        rule!(
            "nothing is mapped where it reserves addresses",
            EINVAL,
            Refusal::Attach(AttachRefusal::Reserved { .. })
        ),
        SOMETHING_VALID,
        ISOLATED,
        rule!(
            "its IOMMU's pages are small enough for what is mapped",
            EINVAL,
            Refusal::Attach(AttachRefusal::PageSize { .. })
        ),
        rule!(
            "the container's MSI windows suit it",
            EINVAL,
            Refusal::Attach(AttachRefusal::Window { .. })
        ),
    ]
}

/// The checks of a request that a container does not have.
#[must_use]
pub fn unknown_container_request() -> Vec<Rule> {
    vec![HAS_IOMMU, UNKNOWN]
}
