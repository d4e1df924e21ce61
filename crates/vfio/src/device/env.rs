//! What a device's request needs of the rest of the system.

use iommu::{BindRefusal, Doorbell, PinError, PinFault, PinId, Pinned, Pinner};

use super::{DeviceRefusal, Doorbells, IntxLine, IrqEnv};
use crate::{Caller, ContainerId, Containers, DeviceId, Models, Shared};

/// The surroundings of a request on a device.
pub(crate) struct DeviceEnv<'a> {
    /// What the kernel has once.
    pub(crate) shared: &'a mut Shared,
    /// Whose request it is.
    pub(crate) caller: &'a mut dyn Caller,
    /// The front end's containers.
    pub(crate) containers: &'a mut dyn Containers,
    /// The front end's device models.
    pub(crate) models: &'a mut dyn Models,
    /// The container the device's group is in.
    pub(crate) container: Option<ContainerId>,
    /// The device's group, by number.
    pub(crate) group: u32,
}

/// The surroundings without the models: what is left while one of them is held.
pub(super) struct ModelEnv<'a> {
    pub(super) shared: &'a mut Shared,
    pub(super) caller: &'a mut dyn Caller,
    pub(super) containers: &'a mut dyn Containers,
    pub(super) container: Option<ContainerId>,
}

impl DeviceEnv<'_> {
    /// Runs `f` with a device's model.
    pub(super) fn with_model<R>(
        &mut self,
        id: DeviceId,
        f: impl FnOnce(&mut dyn pci::Device, &mut ModelEnv<'_>) -> R,
    ) -> Result<R, DeviceRefusal> {
        let mut env = ModelEnv {
            shared: self.shared,
            caller: self.caller,
            containers: self.containers,
            container: self.container,
        };
        let (mut f, mut result) = (Some(f), None);
        self.models.model(id, &mut |model| {
            if let Some(f) = f.take() {
                result = Some(f(model, &mut env));
            }
        });
        result.ok_or(DeviceRefusal::NotThere)
    }

    /// Runs `f` with what an interrupt request needs.
    pub(super) fn with_irq_env<R>(
        &mut self,
        id: DeviceId,
        line: IntxLine,
        f: impl FnOnce(&mut IrqEnv<'_>) -> R,
    ) -> Result<R, DeviceRefusal> {
        let group = self.group;
        let dynamic_msix = self.dynamic_msix();
        self.with_model(id, |model, env| {
            let Shared { host, locked, observer, .. } = &mut *env.shared;
            let mut doorbells = Path {
                containers: env.containers,
                container: env.container,
                group,
                locked,
                observer: observer.as_mut(),
            };
            f(&mut IrqEnv {
                dialect: &host.dialect,
                caller: env.caller,
                model,
                doorbells: &mut doorbells,
                line_wired: line != IntxLine::None,
                line_up_noticed: line == IntxLine::Level,
                dynamic_msix,
                multi_msi: true,
                vectors_left: u32::MAX,
            })
        })
    }

    /// Whether the interrupt controller of the device's group adds vectors to live MSI-X.
    pub(super) fn dynamic_msix(&self) -> bool {
        let host = &self.shared.host;
        let controller = host.group(self.group).and_then(|g| host.controllers.get(g.controller));
        controller.is_some_and(|c| c.dynamic_msix)
    }
}

/// The way from a device to its interrupt controller, through its container's address space.
struct Path<'a> {
    containers: &'a mut dyn Containers,
    container: Option<ContainerId>,
    group: u32,
    locked: &'a mut iommu::LockedMemory,
    observer: &'a mut dyn iommu::Observer,
}

impl Doorbells for Path<'_> {
    fn bind(&mut self) -> Result<Doorbell, BindRefusal> {
        let group = self.group;
        let mut bound = Err(BindRefusal::NotAttached { group });
        let Some(id) = self.container else { return bound };
        let (locked, observer) = (&mut *self.locked, &mut *self.observer);
        self.containers.change(id, &mut |container| {
            let Some(type1) = container.type1_mut() else { return };
            let mut env = iommu::Env { pinner: &mut NoMemory, locked, observer };
            bound = type1.space_mut().bind_doorbell(group, &mut env);
        });
        bound
    }

    fn release(&mut self) {
        let Some(id) = self.container else { return };
        let (group, locked, observer) = (self.group, &mut *self.locked, &mut *self.observer);
        self.containers.change(id, &mut |container| {
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
