//! Where a front end keeps what it locks: containers and devices.
//!
//! [`System`](crate::System) is the state that all share. Containers and devices are kept by the
//! front end, each behind a lock of its own if it has threads; we reach them through these traits,
//! one at a time and never two containers at once.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use crate::device::Device;
use crate::{Container, ContainerId, DeviceId, EventId, System};

/// The containers of a front end.
pub trait Containers {
    /// Runs `f` on a container that `f` may change. Does nothing when there is none by that name.
    fn change(&mut self, id: ContainerId, f: &mut dyn FnMut(&mut Container));

    /// Runs `f` on a container that `f` only reads: translation.
    fn read(&mut self, id: ContainerId, f: &mut dyn FnMut(&Container));
}

/// The devices of a front end.
pub trait Devices {
    /// Runs `f` on a device. Does nothing when there is none by that name.
    ///
    /// A front end that cannot have the device at once may do nothing, drop the answer, and issue the
    /// request again when it has the device: no request changes anything before its first device.
    fn change(&mut self, id: DeviceId, f: &mut dyn FnMut(&mut Device));
}

/// Containers of a front end with one thread.
#[derive(Default)]
pub struct ContainerTable {
    containers: BTreeMap<ContainerId, Container>,
    next: u32,
}

impl ContainerTable {
    /// Adds a container (an open of `/dev/vfio/vfio`).
    pub fn open(&mut self) -> ContainerId {
        let id = ContainerId(self.next);
        self.next = self.next.wrapping_add(1);
        self.containers.insert(id, Container::new());
        id
    }

    /// The container by that name.
    #[must_use]
    pub fn get(&self, id: ContainerId) -> Option<&Container> {
        self.containers.get(&id)
    }

    /// Closes the container's descriptor. It lives on while groups are in it.
    pub fn close(&mut self, id: ContainerId) {
        if let Some(c) = self.containers.get_mut(&id) {
            c.close_fd();
        }
        self.drop_dead();
    }

    /// Forgets containers that neither a descriptor nor a group refers to.
    pub fn drop_dead(&mut self) {
        self.containers.retain(|_, c| !c.is_dead());
    }
}

impl Containers for ContainerTable {
    fn change(&mut self, id: ContainerId, f: &mut dyn FnMut(&mut Container)) {
        if let Some(c) = self.containers.get_mut(&id) {
            f(c);
        }
    }

    fn read(&mut self, id: ContainerId, f: &mut dyn FnMut(&Container)) {
        if let Some(c) = self.containers.get(&id) {
            f(c);
        }
    }
}

/// Devices of a front end with one thread, by [`DeviceId`].
#[derive(Default)]
pub struct DeviceTable(Vec<Device>);

impl DeviceTable {
    /// The devices of `system`: its functions, in order, each with its model.
    #[must_use]
    pub fn new(system: &System, models: Vec<Box<dyn pci::Device>>) -> Self {
        let ids = (0..).map(DeviceId);
        Self(ids.zip(models).filter_map(|(id, model)| system.new_device(id, model)).collect())
    }

    /// The device by that name.
    #[must_use]
    pub fn get(&self, id: DeviceId) -> Option<&Device> {
        self.0.get(usize::try_from(id.0).ok()?)
    }

    /// The same, to change.
    pub fn get_mut(&mut self, id: DeviceId) -> Option<&mut Device> {
        self.0.get_mut(usize::try_from(id.0).ok()?)
    }

    /// The devices that [watch](Device::watched_events) an eventfd.
    #[must_use]
    pub fn watching(&self, event: EventId) -> Vec<DeviceId> {
        let devices = (0..).map(DeviceId).zip(&self.0);
        let watching = devices.filter(|(_, d)| d.watched_events().any(|e| e == event));
        watching.map(|(id, _)| id).collect()
    }
}

impl Devices for DeviceTable {
    fn change(&mut self, id: DeviceId, f: &mut dyn FnMut(&mut Device)) {
        if let Some(device) = self.get_mut(id) {
            f(device);
        }
    }
}
