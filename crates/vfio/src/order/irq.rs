//! Checks of `VFIO_DEVICE_SET_IRQS`.

use alloc::vec;
use alloc::vec::Vec;

use iommu::{BindRefusal, Dialect};
use uapi::Errno;
use uapi::irq::IrqSetFlags;

use super::{Rule, rule};
use crate::BadEvent;
use crate::Refusal::Device;
use crate::device::DeviceRefusal::Irq;
use crate::device::IrqRefusal;

/// Which interrupts a `SET_IRQS` is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Irqs {
    /// The line.
    Intx,
    /// MSI or MSI-X.
    Messages,
    /// The error or the request interrupt.
    Single,
    /// None that there are.
    Unknown,
}

impl Irqs {
    /// Those of an index.
    #[must_use]
    pub const fn of(index: u32) -> Self {
        match index {
            0 => Self::Intx,
            1 | 2 => Self::Messages,
            3 | 4 => Self::Single,
            _ => Self::Unknown,
        }
    }
}

macro_rules! irq_rule {
    ($says:expr, $errno:ident, $($refusal:pat_param)|+) => {
        rule!($says, $errno, Device(Irq($($refusal)|+)))
    };
}

const EVENT_OPEN: Rule =
    irq_rule!("each descriptor is open", EBADF, IrqRefusal::BadEvent { why: BadEvent::Closed, .. });
const IS_EVENT: Rule = irq_rule!(
    "each descriptor is an eventfd",
    EINVAL,
    IrqRefusal::BadEvent { why: BadEvent::NotEventfd, .. }
);

/// The checks of `SET_IRQS` in their order, by index and flags of the request.
#[must_use]
pub fn set_irqs(dialect: &Dialect, irqs: Irqs, flags: IrqSetFlags) -> Vec<Rule> {
    let mut rules = vec![
        irq_rule!("the argument can be read", EFAULT, IrqRefusal::Unreadable { .. }),
        irq_rule!("argsz is at least 20", EINVAL, IrqRefusal::ShortArgsz(_)),
        irq_rule!("the index is one of 0 to 4", EINVAL, IrqRefusal::UnknownIndex(_)),
        irq_rule!("start plus count stays below 2^32 - 1", EINVAL, IrqRefusal::Wraps { .. }),
        irq_rule!("no unknown flags", EINVAL, IrqRefusal::UnknownFlags(_)),
        irq_rule!(
            "start and all vectors are among those that the device has",
            EINVAL,
            IrqRefusal::OutOfRange { .. }
        ),
        irq_rule!(
            "exactly one of DATA_NONE, DATA_BOOL and DATA_EVENTFD",
            EINVAL,
            IrqRefusal::DataKind(_)
        ),
        irq_rule!("argsz is at least 20 and the data", EINVAL, IrqRefusal::ShortData { .. }),
        irq_rule!("the data can be read", EFAULT, IrqRefusal::UnreadableData { .. }),
    ];
    match irqs {
        Irqs::Intx => rules.extend(intx(flags)),
        Irqs::Messages => rules.extend(messages(dialect, flags)),
        Irqs::Single => rules.extend(single(dialect, flags)),
        Irqs::Unknown => {}
    }
    rules
}

fn intx(flags: IrqSetFlags) -> Vec<Rule> {
    let mut rules = vec![irq_rule!(
        "exactly one of ACTION_MASK, ACTION_UNMASK and ACTION_TRIGGER",
        ENOTTY,
        IrqRefusal::NoSuchAction { .. }
    )];
    let enabled = irq_rule!("INTx is enabled", EINVAL, IrqRefusal::NotEnabled(_));
    let one = irq_rule!("start is 0 and count is 1", EINVAL, IrqRefusal::OneLine { .. });
    let by_event = flags.contains(IrqSetFlags::DATA_EVENTFD);
    if flags.contains(IrqSetFlags::ACTION_TRIGGER) {
        let other =
            irq_rule!("neither MSI nor MSI-X is enabled", EINVAL, IrqRefusal::OtherEnabled { .. });
        rules.extend([other, one]);
        if by_event {
            let wired = irq_rule!("the device's line is wired", ENODEV, IrqRefusal::NotWired);
            rules.extend([EVENT_OPEN, IS_EVENT, wired]);
        } else {
            rules.push(enabled);
        }
        return rules;
    }
    rules.extend([enabled, one]);
    if by_event && flags.contains(IrqSetFlags::ACTION_MASK) {
        rules.push(irq_rule!(
            "DATA_NONE or DATA_BOOL: Linux masks by no eventfd",
            ENOTTY,
            IrqRefusal::MaskByEvent
        ));
    } else if by_event {
        let free = irq_rule!("INTx has no unmask eventfd yet", EBUSY, IrqRefusal::UnmaskTaken);
        rules.extend([EVENT_OPEN, IS_EVENT, free]);
    }
    rules
}

fn messages(dialect: &Dialect, flags: IrqSetFlags) -> Vec<Rule> {
    let mut rules = vec![
        irq_rule!("ACTION_TRIGGER alone", ENOTTY, IrqRefusal::NoSuchAction { .. }),
        irq_rule!("no other kind of interrupt is enabled", EINVAL, IrqRefusal::OtherEnabled { .. }),
    ];
    let among = irq_rule!(
        "once enabled: all vectors are among the enabled ones",
        EINVAL,
        IrqRefusal::BeyondEnabled { .. }
    );
    if !flags.contains(IrqSetFlags::DATA_EVENTFD) {
        rules.push(irq_rule!("they are enabled", EINVAL, IrqRefusal::NotEnabled(_)));
        if dialect.irq_range_checked_first {
            rules.push(among);
        }
        return rules;
    }
    let full = if dialect.full_pool_is_enomem { Errno::ENOMEM } else { Errno::ENOSPC };
    rules.extend([
        irq_rule!("to enable: at least one vector", ERANGE, IrqRefusal::NoVectors(_)),
        irq_rule!("to enable: the device is powered up (D0)", EINVAL, IrqRefusal::NotInD0),
        irq_rule!(
            "the interrupt controller has a vector left, and the driver's MSI window a page",
            ENOSPC,
            IrqRefusal::NoVectorsLeft | IrqRefusal::Doorbell(BindRefusal::WindowFull { .. })
        ),
        irq_rule!(
            "to enable: where the user chooses, an MSI window is there that devices may write",
            EINVAL,
            IrqRefusal::Doorbell(
                BindRefusal::NoWindow { .. } | BindRefusal::NoWritableWindow { .. }
            )
        ),
        irq_rule!(
            "to enable: a page of the MSI windows is free for the doorbell",
            ENOSPC,
            IrqRefusal::Doorbell(BindRefusal::WindowsFull { .. })
        )
        .answering(full),
        among,
        EVENT_OPEN,
        IS_EVENT,
    ]);
    rules
}

fn single(dialect: &Dialect, flags: IrqSetFlags) -> Vec<Rule> {
    let mut rules =
        vec![irq_rule!("ACTION_TRIGGER alone", ENOTTY, IrqRefusal::NoSuchAction { .. })];
    if flags.contains(IrqSetFlags::DATA_NONE) {
        rules.push(irq_rule!("an eventfd is set", EINVAL, IrqRefusal::NoEvent(_)));
        return rules;
    }
    rules.push(irq_rule!("count is 1", EINVAL, IrqRefusal::NoElement(_)));
    if flags.contains(IrqSetFlags::DATA_EVENTFD) {
        if !dialect.odd_err_fd_ignored {
            rules.push(irq_rule!(
                "the descriptor is -1 or not negative",
                EINVAL,
                IrqRefusal::OddFd(_)
            ));
        }
        rules.extend([EVENT_OPEN, IS_EVENT]);
    }
    rules
}
