//! How many interrupts of each kind a function has: `VFIO_DEVICE_GET_IRQ_INFO`.

use iommu::Dialect;
use pci::regs::{self, cap};
use uapi::irq::{IrqIndex, IrqInfoFlags};

use super::function;

/// One kind of interrupt of a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IrqKind {
    /// What it allows.
    pub flags: IrqInfoFlags,
    /// How many there are.
    pub count: u32,
}

impl IrqKind {
    /// What `model` has of the kind `index`; `None` where asking is `EINVAL` (and `SET_IRQS` finds
    /// no interrupt). `dynamic_msix` is as in [`IrqEnv`](super::IrqEnv::dynamic_msix).
    #[must_use]
    pub fn of(
        index: IrqIndex,
        model: &dyn pci::Device,
        dialect: &Dialect,
        dynamic_msix: bool,
    ) -> Option<Self> {
        let fixed = IrqInfoFlags::EVENTFD | IrqInfoFlags::NORESIZE;
        let flags = match index {
            IrqIndex::Intx => {
                IrqInfoFlags::EVENTFD | IrqInfoFlags::MASKABLE | IrqInfoFlags::AUTOMASKED
            }
            IrqIndex::Msix if dynamic_msix && dialect.msix_grows && has_msix(model) => {
                IrqInfoFlags::EVENTFD
            }
            IrqIndex::Err if !has_err(model, dialect) => return None,
            _ => fixed,
        };
        Some(Self { flags, count: count(index, model, dialect) })
    }
}

/// How many interrupts of the kind `index` the function has.
pub(super) fn count(index: IrqIndex, model: &dyn pci::Device, dialect: &Dialect) -> u32 {
    match index {
        IrqIndex::Intx => u32::from(model.config().u8(regs::INTERRUPT_PIN) != 0),
        IrqIndex::Msi => function::msi_vectors(model),
        IrqIndex::Msix => function::msix_vectors(model),
        IrqIndex::Err => u32::from(has_err(model, dialect)),
        IrqIndex::Req => 1,
    }
}

fn has_msix(model: &dyn pci::Device) -> bool {
    model.config().capability(cap::MSIX).is_some()
}

fn has_err(model: &dyn pci::Device, dialect: &Dialect) -> bool {
    dialect.err_irq_everywhere || model.config().capability(cap::EXPRESS).is_some()
}
