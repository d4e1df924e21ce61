//! Which interrupts of a device are enabled, read off its requests.

use uapi::irq::{IrqIndex, IrqSet, IrqSetFlags};

/// By kind: the request that enabled them.
#[derive(Default)]
pub(super) struct Interrupts([Option<u64>; 3]);

const KINDS: [(IrqIndex, &str); 3] =
    [(IrqIndex::Intx, "INTx"), (IrqIndex::Msi, "MSI"), (IrqIndex::Msix, "MSI-X")];

impl Interrupts {
    /// Request `number` was granted.
    pub(super) fn set(&mut self, number: u64, set: &IrqSet) {
        let at = KINDS.iter().position(|(index, _)| index.number() == set.index);
        let Some(slot) = at.and_then(|at| self.0.get_mut(at)) else { return };
        let flags = IrqSetFlags::from_bits_retain(set.flags);
        if !flags.contains(IrqSetFlags::ACTION_TRIGGER) {
            return;
        }
        if set.count == 0 {
            *slot = None;
        } else if flags.contains(IrqSetFlags::DATA_EVENTFD) {
            slot.get_or_insert(number);
        }
    }

    /// The device was closed: what was enabled, and by which request.
    pub(super) fn take(&mut self) -> Vec<(&'static str, u64)> {
        let live = std::mem::take(&mut self.0).into_iter().zip(KINDS);
        live.filter_map(|(enabled, (_, kind))| Some((kind, enabled?))).collect()
    }
}
