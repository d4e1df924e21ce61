//! The bytes of `VFIO_DEVICE_SET_IRQS`, copied once and checked: everything that holds for every
//! kind of interrupt.
//!
//! The order is the kernel's (`vfio_set_irqs_validate_and_prepare`), seen in the recorded traces:
//! header, `argsz`, index, wrap, flags, range, kind of data, room for the data, the data, and only
//! then the action.

use alloc::vec;
use alloc::vec::Vec;

use uapi::irq::{IrqIndex, IrqSet, IrqSetFlags};

use super::IrqRefusal;
use crate::Caller;

/// Size of the fixed part, in bytes.
const HEADER: usize = size_of::<IrqSet>();

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Mask.
    Mask,
    /// Unmask.
    Unmask,
    /// Signal; with eventfds, enable.
    Trigger,
}

/// For which interrupts to do it, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Data {
    /// For all.
    None,
    /// For those whose byte is not 0.
    Bools(Vec<u8>),
    /// When an eventfd fires, or into one.
    Events(Vec<i32>),
}

/// A request that is sound in itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Request {
    /// The kind of interrupt.
    pub(super) index: IrqIndex,
    /// The action; `None` when there is not exactly one.
    pub(super) action: Option<Action>,
    /// First interrupt.
    pub(super) start: u32,
    /// How many; with `start` no more than the function has.
    pub(super) count: u32,
    /// `count` elements, unless [`Data::None`].
    pub(super) data: Data,
    /// The flags, for refusals.
    pub(super) flags: IrqSetFlags,
}

impl Request {
    /// Copies a request from the caller's address `arg`. `have` says how many interrupts of a kind
    /// the function has; nothing larger is allocated.
    pub(super) fn copy_in(
        caller: &mut dyn Caller,
        arg: u64,
        have: impl Fn(IrqIndex) -> u32,
    ) -> Result<Self, IrqRefusal> {
        let mut header = [0; HEADER];
        read(caller, arg, 0, &mut header)
            .map_err(|(addr, size)| IrqRefusal::Unreadable { addr, size })?;
        let set: IrqSet = uapi::read_padded(&header);
        let IrqSet { argsz, flags, index, start, count } = set;
        if argsz < IrqSet::MIN_ARGSZ {
            return Err(IrqRefusal::ShortArgsz(argsz));
        }
        let index = IrqIndex::try_from(index).map_err(|e| IrqRefusal::UnknownIndex(e.0))?;
        if count >= u32::MAX.saturating_sub(start) {
            return Err(IrqRefusal::Wraps { start, count });
        }
        let flags = IrqSetFlags::from_bits(flags).ok_or(IrqRefusal::UnknownFlags(flags))?;
        let have = have(index);
        if start >= have || start.saturating_add(count) > have {
            return Err(IrqRefusal::OutOfRange { index, start, count, have });
        }
        let element = flags.element_size().ok_or(IrqRefusal::DataKind(flags))?;
        let size = u64::from(count).saturating_mul(u64::from(element));
        let need = size.saturating_add(u64::from(IrqSet::MIN_ARGSZ));
        if u64::from(argsz) < need {
            return Err(IrqRefusal::ShortData { argsz, need });
        }
        let mut bytes = vec![0; usize::try_from(size).unwrap_or(0)];
        if !bytes.is_empty() {
            read(caller, arg, u64::from(IrqSet::MIN_ARGSZ), &mut bytes)
                .map_err(|(addr, size)| IrqRefusal::UnreadableData { addr, size })?;
        }
        let data = match element {
            0 => Data::None,
            1 => Data::Bools(bytes),
            _ => Data::Events(bytes.as_chunks().0.iter().map(|b| i32::from_ne_bytes(*b)).collect()),
        };
        Ok(Self { index, action: action(flags), start, count, data, flags })
    }

    /// The refusal of an action this kind does not have.
    pub(super) const fn no_such_action(&self) -> IrqRefusal {
        IrqRefusal::NoSuchAction { index: self.index, flags: self.flags }
    }

    /// Whether element `i` of [`Data::None`] or [`Data::Bools`] asks for the action.
    pub(super) fn wants(&self, i: usize) -> bool {
        match &self.data {
            Data::None => true,
            Data::Bools(b) => b.get(i).is_some_and(|b| *b != 0),
            Data::Events(_) => false,
        }
    }
}

fn action(flags: IrqSetFlags) -> Option<Action> {
    match flags.intersection(IrqSetFlags::ACTION_TYPE_MASK) {
        IrqSetFlags::ACTION_MASK => Some(Action::Mask),
        IrqSetFlags::ACTION_UNMASK => Some(Action::Unmask),
        IrqSetFlags::ACTION_TRIGGER => Some(Action::Trigger),
        _ => None,
    }
}

/// Copies what is `offset` bytes behind `arg`; address and size of what cannot be read.
fn read(caller: &mut dyn Caller, arg: u64, offset: u64, data: &mut [u8]) -> Result<(), (u64, u64)> {
    let size = u64::try_from(data.len()).unwrap_or(u64::MAX);
    let unreadable = (arg.wrapping_add(offset), size);
    let addr = arg.checked_add(offset).ok_or(unreadable)?;
    caller.copy_in(addr, data).map_err(|_| unreadable)
}
