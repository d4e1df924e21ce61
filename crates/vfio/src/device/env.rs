//! What a device's request needs of the rest of the system.

use iommu::{BindRefusal, Doorbell, PinError, PinFault, PinId, Pinned, Pinner};

use super::{Device, Doorbells, IntxLine, IrqEnv};
use crate::{Caller, ContainerId, Containers, Platform, Shared};

/// What lies upstream of a device: where its DMA and its interrupts go.
pub struct Upstream<'a> {
    /// The front end's containers.
    pub containers: &'a mut dyn Containers,
    /// Pinned memory and eventfds.
    pub platform: &'a mut dyn Platform,
}

/// The surroundings of a request on a device.
pub(crate) struct DeviceEnv<'a> {
    /// What the kernel has once.
    pub(crate) shared: &'a mut Shared,
    /// Whose request it is.
    pub(crate) caller: &'a mut dyn Caller,
    /// The front end's containers.
    pub(crate) containers: &'a mut dyn Containers,
}

impl DeviceEnv<'_> {
    /// The part that the device itself needs.
    pub(super) fn upstream(&mut self) -> Upstream<'_> {
        Upstream { containers: self.containers, platform: self.caller }
    }
}

impl Device {
    /// Runs `f` with what an interrupt request needs.
    pub(super) fn with_irq_env<R>(
        &mut self,
        env: &mut DeviceEnv<'_>,
        container: ContainerId,
        f: impl FnOnce(&mut IrqEnv<'_>) -> R,
    ) -> R {
        let Shared { host, locked, observer, .. } = &mut *env.shared;
        let mut doorbells = Path {
            containers: env.containers,
            container,
            group: self.function.group.0,
            locked,
            observer: observer.as_mut(),
        };
        f(&mut IrqEnv {
            dialect: &host.dialect,
            caller: env.caller,
            model: self.model.as_mut(),
            doorbells: &mut doorbells,
            line_wired: self.function.line != IntxLine::None,
            line_up_noticed: self.function.line == IntxLine::Level,
            dynamic_msix: self.dynamic_msix,
            multi_msi: true,
            vectors_left: u32::MAX,
        })
    }
}

/// The way from a device to its interrupt controller, through its container's address space.
struct Path<'a> {
    containers: &'a mut dyn Containers,
    container: ContainerId,
    group: u32,
    locked: &'a mut iommu::LockedMemory,
    observer: &'a mut dyn iommu::Observer,
}

impl Doorbells for Path<'_> {
    fn bind(&mut self) -> Result<Doorbell, BindRefusal> {
        let group = self.group;
        let mut bound = Err(BindRefusal::NotAttached { group });
        let (locked, observer) = (&mut *self.locked, &mut *self.observer);
        self.containers.change(self.container, &mut |container| {
            let Some(type1) = container.type1_mut() else { return };
            let mut env = iommu::Env { pinner: &mut NoMemory, locked, observer };
            bound = type1.space_mut().bind_doorbell(group, &mut env);
        });
        bound
    }

    fn release(&mut self) {
        let (group, locked, observer) = (self.group, &mut *self.locked, &mut *self.observer);
        self.containers.change(self.container, &mut |container| {
            let Some(type1) = container.type1_mut() else { return };
            let mut env = iommu::Env { pinner: &mut NoMemory, locked, observer };
            type1.space_mut().release_doorbell(group, &mut env);
        });
    }
}

/// Binding a doorbell pins no memory.
struct NoMemory;

impl Pinner for NoMemory {
    fn pin(&mut self, vaddr: u64, _size: u64, _write: bool) -> Result<Pinned, PinError> {
        Err(PinError { vaddr, charged_pages: 0, why: PinFault::NotMapped })
    }

    fn unpin(&mut self, _pin: PinId) {}
}
