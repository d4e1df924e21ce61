//! Where a front end keeps what it locks: containers and device models.
//!
//! [`System`](crate::System) is the state that all share. Containers and models are kept by the
//! front end, each behind a lock of its own if it has threads; we reach them through these traits,
//! one at a time and never two containers at once. Lock order: system, then model, then container.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use crate::{Container, ContainerId, DeviceId};

/// The containers of a front end.
pub trait Containers {
    /// Runs `f` on a container that `f` may change. Does nothing when there is none by that name.
    fn change(&mut self, id: ContainerId, f: &mut dyn FnMut(&mut Container));

    /// Runs `f` on a container that `f` only reads: translation.
    fn read(&mut self, id: ContainerId, f: &mut dyn FnMut(&Container));
}

/// The device models of a front end.
pub trait Models {
    /// Runs `f` on a device's model. Does nothing when there is none by that name.
    fn model(&mut self, id: DeviceId, f: &mut dyn FnMut(&mut dyn pci::Device));
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

/// Models of a front end with one thread, by [`DeviceId`] order.
#[derive(Default)]
pub struct ModelTable(pub Vec<Box<dyn pci::Device>>);

impl Models for ModelTable {
    fn model(&mut self, id: DeviceId, f: &mut dyn FnMut(&mut dyn pci::Device)) {
        if let Some(m) = usize::try_from(id.0).ok().and_then(|i| self.0.get_mut(i)) {
            f(m.as_mut());
        }
    }
}
