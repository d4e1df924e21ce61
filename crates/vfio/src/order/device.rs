//! Checks of a device's descriptor, but for interrupts and regions.

use alloc::vec;
use alloc::vec::Vec;

use iommu::Dialect;
use uapi::feature::Feature;
use uapi::feature::FeatureHeader;

use super::{READABLE, Rule, UNKNOWN, WRITABLE, device_rule};
use crate::BadEvent;
use crate::device::DeviceRefusal;

const RESETTABLE_BUS: Rule =
    device_rule!("the device is not on a root bus", ENODEV, DeviceRefusal::NoBusReset);
const EVENT_OPEN: Rule = device_rule!(
    "the descriptor is open",
    EBADF,
    DeviceRefusal::BadEvent { why: BadEvent::Closed, .. }
);
const IS_EVENT: Rule = device_rule!(
    "the descriptor is an eventfd",
    EINVAL,
    DeviceRefusal::BadEvent { fd: 0.., why: BadEvent::NotEventfd }
);

/// `argsz` covers the structure; what else a feature needs is another check.
macro_rules! argsz {
    ($says:literal, $min:pat) => {
        device_rule!($says, EINVAL, DeviceRefusal::ArgszTooSmall { min: $min, .. })
    };
}

/// The checks of `GET_INFO` of a device in their order.
#[must_use]
pub fn device_info() -> Vec<Rule> {
    vec![READABLE, argsz!("argsz is at least 16", _), WRITABLE]
}

/// The checks of `GET_REGION_INFO` in their order.
#[must_use]
pub fn region_info() -> Vec<Rule> {
    vec![
        READABLE,
        argsz!("argsz is at least 32", _),
        device_rule!(
            "the device has a region of that index (0 to 7; VGA's is not had here)",
            EINVAL,
            DeviceRefusal::NoSuchRegion(_)
        ),
        WRITABLE,
    ]
}

/// The checks of `GET_IRQ_INFO` in their order.
#[must_use]
pub fn irq_info() -> Vec<Rule> {
    vec![
        READABLE,
        argsz!("argsz is at least 16", _),
        device_rule!(
            "the device has interrupts of that index (0 to 4; before 7.3 the error interrupt is PCI \
             Express functions' only)",
            EINVAL,
            DeviceRefusal::NoSuchIrq(_)
        ),
        WRITABLE,
    ]
}

/// The checks of `RESET`.
#[must_use]
pub fn reset() -> Vec<Rule> {
    vec![device_rule!(
        "the function can be reset alone (GET_INFO says RESET)",
        EINVAL,
        DeviceRefusal::NoReset
    )]
}

/// The checks of `GET_PCI_HOT_RESET_INFO` in their order.
#[must_use]
pub fn hot_reset_info() -> Vec<Rule> {
    vec![
        READABLE,
        argsz!("argsz is at least 12", _),
        RESETTABLE_BUS,
        WRITABLE,
        device_rule!(
            "argsz has room for 8 bytes of each device on the bus",
            ENOSPC,
            DeviceRefusal::ListTooShort { .. }
        ),
    ]
}

/// The checks of `PCI_HOT_RESET` in their order.
#[must_use]
pub fn hot_reset(dialect: &Dialect) -> Vec<Rule> {
    let mut rules = vec![
        READABLE,
        argsz!("argsz is at least 12", _),
        device_rule!("no flags", EINVAL, DeviceRefusal::BadFlags(_)),
    ];
    if dialect.hot_reset_count_first {
        let given = device_rule!(
            "at least one group is given",
            EINVAL,
            DeviceRefusal::GroupCount { given: 0, .. }
        );
        rules.extend([given, RESETTABLE_BUS]);
    } else {
        rules.push(RESETTABLE_BUS);
    }
    rules.extend([
        device_rule!(
            "from one group to as many as there are devices on the bus",
            EINVAL,
            DeviceRefusal::GroupCount { .. }
        ),
        device_rule!("the list of groups can be read", EFAULT, DeviceRefusal::BadTail),
        device_rule!("each descriptor is open", EBADF, DeviceRefusal::BadFd(_)),
        device_rule!("each descriptor is a group", EINVAL, DeviceRefusal::NotAGroup(_)),
        device_rule!(
            "every device on the bus is vfio-pci's, and in one of those groups",
            EINVAL,
            DeviceRefusal::NotOwned(_)
        ),
        device_rule!("the link comes back after the reset", ENOTTY, DeviceRefusal::LinkLost),
    ]);
    rules
}

/// The checks of `IOEVENTFD` in their order.
#[must_use]
pub fn ioeventfd() -> Vec<Rule> {
    vec![
        READABLE,
        argsz!("argsz is at least 28", _),
        device_rule!(
            "the flags are one width: 1, 2, 4 or 8 bytes",
            EINVAL,
            DeviceRefusal::BadFlags(_)
        ),
        device_rule!(
            "the descriptor is -1 or not negative",
            EINVAL,
            DeviceRefusal::BadEvent { fd: ..0, .. }
        ),
        device_rule!(
            "the place is inside of a BAR, and not in the MSI-X table",
            EINVAL,
            DeviceRefusal::IoEventPlace(_) | DeviceRefusal::NoSuchRegion(_)
        ),
        device_rule!(
            "no eventfd has the same write already (unless it is removed, with -1)",
            EEXIST,
            DeviceRefusal::IoEventExists
        ),
        device_rule!("to remove one: there is one", ENODEV, DeviceRefusal::NoIoEvent),
        device_rule!(
            "the device may have another one (1000)",
            ENOSPC,
            DeviceRefusal::TooManyIoEvents(_)
        ),
        EVENT_OPEN,
        IS_EVENT,
    ]
}

/// The checks of `FEATURE` in their order, for the feature of that number.
#[must_use]
pub fn feature(dialect: &Dialect, number: u32) -> Vec<Rule> {
    const HEAD: u32 = FeatureHeader::MIN_ARGSZ;
    let known = Feature::try_from(number).ok();
    let mut rules = vec![
        READABLE,
        argsz!("argsz is at least 8", HEAD),
        device_rule!(
            "the flags are known, and not GET and SET at once (but for a PROBE)",
            EINVAL,
            DeviceRefusal::BadFlags(_)
        ),
        device_rule!("the device has the feature", ENOTTY, DeviceRefusal::NoSuchFeature(_)),
    ];
    let takes =
        |says| Rule { says, ..device_rule!("", EINVAL, DeviceRefusal::FeatureOperation { .. }) };
    let low_power =
        device_rule!("the device is not in low power yet", EINVAL, DeviceRefusal::AlreadyLowPower);
    let is_set = takes("the feature is SET (or PROBE says that it could be)");
    match known {
        Some(Feature::LowPowerEntry) => rules.extend([is_set, low_power]),
        Some(Feature::LowPowerEntryWithWakeup) => rules.extend([
            is_set,
            argsz!("argsz is at least 16, with the eventfd", _),
            device_rule!("the eventfd's number can be read", EFAULT, DeviceRefusal::BadTail),
            device_rule!("it is not negative", EINVAL, DeviceRefusal::BadEvent { fd: ..0, .. }),
            EVENT_OPEN,
            IS_EVENT,
            low_power,
        ]),
        Some(Feature::LowPowerExit) => rules.push(is_set),
        Some(Feature::DmaBuf) if dialect.device_dma_buf => rules.extend([
            takes("the feature is GET (or PROBE says that it could be)"),
            argsz!("argsz is at least 24", _),
            device_rule!("what is wanted can be read", EFAULT, DeviceRefusal::BadTail),
            device_rule!("at least one range, no flags", EINVAL, DeviceRefusal::BadDmaBuf { .. }),
            device_rule!("the region is a BAR", ENODEV, DeviceRefusal::NoBar(_)),
            device_rule!("a BAR can be exported as a dma-buf", EOPNOTSUPP, DeviceRefusal::NoDmaBuf),
        ]),
        Some(Feature::MigPrecopyInfoV2) if dialect.device_dma_buf => {
            rules.push(takes("the device can migrate"));
        }
        _ => {}
    }
    rules
}

/// The checks of a request that a device does not have.
#[must_use]
pub fn unknown_device_request() -> Vec<Rule> {
    vec![UNKNOWN]
}
