//! What an interrupt request needs of the rest of the system.

use iommu::{BindRefusal, Dialect, Doorbell};

use crate::Caller;

/// The doorbell of a device's interrupt controller, in the domain of the device's group.
///
/// One reference is held per enabled interrupt set (MSI or MSI-X of one device), however many
/// vectors it has; [`Irqs`](super::Irqs) pairs every successful [`bind`](Self::bind) with one
/// [`release`](Self::release).
pub trait Doorbells {
    /// Takes a reference to the doorbell and answers the address that the device must write (an
    /// IOVA where MSIs are translated, the physical address elsewhere) and the one it reaches.
    ///
    /// # Errors
    /// [`BindRefusal`]: no reference is held then, and enabling fails with nothing left behind.
    fn bind(&mut self) -> Result<Doorbell, BindRefusal>;

    /// Drops the reference.
    fn release(&mut self);
}

/// The surroundings of one request.
pub struct IrqEnv<'a> {
    /// Whose answers are given.
    pub dialect: &'a Dialect,
    /// The process that asks.
    pub caller: &'a mut dyn Caller,
    /// The function.
    pub model: &'a mut dyn pci::Device,
    /// Its way to the interrupt controller.
    pub doorbells: &'a mut dyn Doorbells,
    /// Whether the function's INTx line leads anywhere. When not, enabling INTx is `ENODEV`.
    pub line_wired: bool,
    /// Whether an INTx line that is up while INTx gets enabled is noticed. A level-triggered input
    /// of a GIC or an i8259 does; the x86 recordings behind an I/O APIC show only the next rise (or
    /// the next unmask of a masked line).
    pub line_up_noticed: bool,
    /// Whether the interrupt controller adds vectors to live MSI-X
    /// ([`InterruptController::dynamic_msix`](iommu::InterruptController::dynamic_msix)); what the
    /// kernel makes of it is the dialect's.
    pub dynamic_msix: bool,
    /// Whether the interrupt controller gives a function several MSI vectors (x86 with interrupt
    /// remapping, ITS, GICv2m). Otherwise one, however many are asked.
    pub multi_msi: bool,
    /// Vectors that the interrupt controller has left; a request takes its own off. `u32::MAX` is
    /// no limit.
    pub vectors_left: u32,
}

impl IrqEnv<'_> {
    /// Whether active MSI-X grows on demand.
    pub(super) const fn msix_grows(&self) -> bool {
        self.dynamic_msix && self.dialect.msix_grows
    }

    /// Takes `count` vectors from the interrupt controller.
    pub(super) const fn take_vectors(&mut self, count: u32) {
        if self.vectors_left != u32::MAX {
            self.vectors_left = self.vectors_left.saturating_sub(count);
        }
    }
}
