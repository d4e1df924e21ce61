//! What one kernel has once: the host, its groups and devices, locked memory, module parameters.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use iommu::{Host, Limits, LockedMemory, Observer};

use crate::device::{Device, PciFunction};
use crate::group::Group;
use crate::{Abi, Answer, Caller, ContainerId, Containers, DeviceId, Devices, GroupId, Refusal};

/// What containers share.
pub struct Shared {
    /// The host. Its limits are the ones at start; [`limits`](Self::limits) may have changed since.
    pub host: Host,
    pub(crate) abi: Abi,
    /// Module parameters of now; a container samples them at `SET_IOMMU`.
    pub limits: Limits,
    /// Locked pages of every address space.
    pub locked: LockedMemory,
    /// Is told every change of every address space.
    pub observer: Box<dyn Observer + Send + Sync>,
}

/// The places of a front end that a request may need, besides the system itself.
pub struct Ctx<'a> {
    /// Whose request it is.
    pub caller: &'a mut dyn Caller,
    /// The front end's containers.
    pub containers: &'a mut dyn Containers,
    /// The front end's devices.
    pub devices: &'a mut dyn Devices,
}

/// The driver a device is bound to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Driver {
    /// None.
    None,
    /// vfio-pci: the device can be had through its group.
    VfioPci,
    /// vfio-pci, which is to let go of the device: descriptors that are open stay so, and no other is
    /// given out ([`System::remove_device`]).
    Leaving,
    /// A driver that leaves DMA to the user, such as pci-stub.
    Harmless(String),
    /// Any other: its group is not viable.
    Host(String),
}

impl Driver {
    /// The driver of that name. Drivers that do no DMA of their own are known by name, as in the
    /// kernel (`driver_managed_dma`).
    #[must_use]
    pub fn named(name: &str) -> Self {
        match name {
            "" => Self::None,
            "vfio-pci" => Self::VfioPci,
            "pci-stub" | "pcieport" | "xen-pcistub" => Self::Harmless(name.into()),
            _ => Self::Host(name.into()),
        }
    }

    /// vfio-pci, on its way out or not.
    pub(crate) const fn is_vfio(&self) -> bool {
        matches!(self, Self::VfioPci | Self::Leaving)
    }
}

/// A PCI function and the driver it is bound to.
pub(crate) struct Bound {
    pub(crate) function: PciFunction,
    pub(crate) driver: Driver,
}

/// The state that all of a front end's threads share.
pub struct System {
    pub(crate) shared: Shared,
    pub(crate) groups: BTreeMap<GroupId, Group>,
    /// By [`DeviceId`].
    pub(crate) bound: Vec<Bound>,
}

impl System {
    /// A system on `host` with the PCI functions `functions`, all bound to vfio-pci. Function `n` is
    /// [`DeviceId`] `n`; its device is the front end's to keep ([`new_device`](Self::new_device)).
    #[must_use]
    pub fn new(host: Host, functions: Vec<PciFunction>) -> Self {
        let (abi, limits) = (Abi::for_host(&host), host.limits);
        let mut groups: BTreeMap<GroupId, Group> = BTreeMap::new();
        for group in &host.groups {
            groups.insert(GroupId(group.number), Group::default());
        }
        let mut bound = Vec::new();
        for (id, function) in (0u32..).map(DeviceId).zip(functions) {
            groups.entry(function.group).or_default().devices.push(id);
            bound.push(Bound { function, driver: Driver::VfioPci });
        }
        let shared =
            Shared { host, abi, limits, locked: LockedMemory::default(), observer: Box::new(()) };
        Self { shared, groups, bound }
    }

    /// What containers share.
    #[must_use]
    pub const fn shared(&self) -> &Shared {
        &self.shared
    }

    /// The same, to change: module parameters, the observer.
    pub const fn shared_mut(&mut self) -> &mut Shared {
        &mut self.shared
    }

    /// Which numbers clients speak.
    #[must_use]
    pub const fn abi(&self) -> Abi {
        self.shared.abi
    }

    /// Lets clients speak other numbers than the host's default ([`Abi::for_host`]).
    pub const fn set_abi(&mut self, abi: Abi) {
        self.shared.abi = abi;
        self.shared.host.dialect.full_pool_is_enomem = matches!(abi, Abi::MsiV6);
    }

    /// The device of a function with its model, nobody having it open. A front end makes one of
    /// each function and keeps it.
    #[must_use]
    pub fn new_device(&self, id: DeviceId, model: Box<dyn pci::Device>) -> Option<Device> {
        let function = self.function(id)?.clone();
        Some(Device::new(id, function, model, &self.shared.host))
    }

    pub(crate) fn bound(&self, id: DeviceId) -> Option<&Bound> {
        self.bound.get(usize::try_from(id.0).ok()?)
    }

    /// A function.
    #[must_use]
    pub fn function(&self, id: DeviceId) -> Option<&PciFunction> {
        Some(&self.bound(id)?.function)
    }

    /// The driver a function is bound to.
    #[must_use]
    pub fn driver(&self, id: DeviceId) -> Option<&Driver> {
        Some(&self.bound(id)?.driver)
    }

    /// A request on a container's descriptor.
    ///
    /// # Errors
    /// The [`Refusal`], whose errno the client gets.
    pub fn container_ioctl(
        &mut self,
        container: ContainerId,
        ctx: &mut Ctx<'_>,
        request: u32,
        arg: u64,
    ) -> Answer {
        let mut answer = Err(Refusal::NoIommu);
        let (shared, caller) = (&mut self.shared, &mut *ctx.caller);
        ctx.containers.change(container, &mut |c| {
            answer = c.ioctl(shared, caller, request, arg);
        });
        answer
    }

    /// Binds a device to a driver, as the host's administrator would.
    ///
    /// # Errors
    /// [`Refusal::GroupInUse`] when the driver would do DMA in a group that a user has.
    pub fn bind(&mut self, device: DeviceId, driver: Driver) -> Result<(), Refusal> {
        let Some(bound) = self.bound(device) else { return Ok(()) };
        // A device that has a driver keeps it.
        if bound.driver != Driver::None {
            return Ok(());
        }
        let group = bound.function.group;
        let in_use = self.groups.get(&group).is_some_and(|g| g.container.is_some());
        if matches!(driver, Driver::Host(_)) && in_use {
            return Err(Refusal::GroupInUse(group));
        }
        self.set_driver(device, driver);
        Ok(())
    }

    /// Takes a device from its driver.
    pub fn unbind(&mut self, device: DeviceId) {
        self.set_driver(device, Driver::None);
    }

    pub(crate) fn set_driver(&mut self, id: DeviceId, driver: Driver) {
        if let Some(b) = usize::try_from(id.0).ok().and_then(|i| self.bound.get_mut(i)) {
            b.driver = driver;
        }
    }
}
