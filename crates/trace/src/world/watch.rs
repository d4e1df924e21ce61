//! Who is told what changes, and whose address space it was.

use iommu::{Event, Host};
use vfio::device::Device;
use vfio::{Container, ContainerId, DeviceId, GroupId};

use super::World;
use crate::process::File;
use crate::watch::{Change, Events};

impl World {
    /// Tells every change from now on.
    pub(crate) fn watch(&mut self) {
        let events = Events::default();
        self.system.shared_mut().observer = Box::new(events.clone());
        self.events = Some(events);
        self.process.watch();
    }

    /// What has changed since the last time.
    pub(crate) fn take_changes(&mut self) -> std::vec::Drain<'_, Change> {
        self.tell(None);
        for (id, fault) in self.process.take_watched() {
            let place = usize::try_from(id.0).ok();
            let device = place.and_then(|p| self.devices.get(p)).map(|d| d.name.clone());
            let container = self.container_of_device(id);
            self.changes.push(Change::Fault {
                device: device.unwrap_or_default(),
                container,
                fault,
            });
        }
        self.changes.drain(..)
    }

    /// The container that a request on `file` is about, before it is carried out.
    pub(super) fn container_at(&self, file: File) -> Option<ContainerId> {
        self.events.as_ref()?;
        match file {
            File::Container(id) => Some(id),
            File::Group(id) => self.system.container_of(id),
            File::Device(id) => self.container_of_device(id),
            File::Event(_) | File::Other => None,
        }
    }

    /// Notes what was told meanwhile as changes of `container`; where that is not known, of the
    /// container that the group is in now.
    pub(super) fn tell(&mut self, container: Option<ContainerId>) {
        let Some(events) = &self.events else { return };
        events.drain(|event| {
            let container = container.or_else(|| match event {
                Event::Attached { group, .. }
                | Event::Detached { group }
                | Event::DoorbellBound { group, .. }
                | Event::DoorbellReleased { group, .. } => self.system.container_of(GroupId(group)),
                _ => None,
            });
            self.changes.push(Change::Space { container, event });
        });
    }

    fn container_of_device(&self, id: DeviceId) -> Option<ContainerId> {
        self.system.container_of(self.system.function(id)?.group)
    }

    /// The host.
    pub(crate) fn host(&self) -> &Host {
        &self.system.shared().host
    }

    /// The device behind a descriptor.
    pub(crate) fn device_at(&self, fd: i32) -> Option<&Device> {
        match self.process.file(fd)? {
            File::Device(id) => self.table.get(id),
            _ => None,
        }
    }

    /// A container that is open, or that groups keep alive.
    pub(crate) fn container(&self, id: ContainerId) -> Option<&Container> {
        self.containers.get(id)
    }
}
