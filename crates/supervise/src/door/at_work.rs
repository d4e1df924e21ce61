//! Which request the system is at work on, for those who are told of changes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use iommu::Observer;
use vfio::{ContainerId, GroupId, System};

use super::files::Object;
use crate::watch::Watch;

/// No container.
const NONE: u64 = u64::MAX;

/// The request that has the system. Only who has the system's lock looks here.
#[derive(Default)]
pub(super) struct AtWork {
    number: AtomicU64,
    container: AtomicU64,
}

/// The group that a request may move, and where it was before.
pub(super) struct Before(Option<(GroupId, Option<ContainerId>)>);

/// Passes changes of address spaces on.
pub(super) struct Changes {
    pub(super) watch: Arc<dyn Watch>,
    pub(super) at_work: Arc<AtWork>,
}

impl AtWork {
    /// Request `number` on `object` begins.
    pub(super) fn begin(&self, system: &System, object: Object, number: u64) -> Before {
        let group = match object {
            Object::Container(_) => None,
            Object::Group(id) => Some(id),
            Object::Device(id) => system.function(id).map(|function| function.group),
        };
        let within = group.and_then(|group| system.container_of(group));
        let container = match object {
            Object::Container(id) => Some(id),
            _ => within,
        };
        self.number.store(number, Ordering::Relaxed);
        self.container.store(container.map_or(NONE, |id| id.0.into()), Ordering::Relaxed);
        Before(group.map(|group| (group, within)))
    }
}

impl Before {
    /// After the request: tells when its group is elsewhere now.
    pub(super) fn tell(self, system: &System, number: u64, watch: &dyn Watch) {
        if let Some((group, before)) = self.0 {
            let now = system.container_of(group);
            if now != before {
                watch.joined(number, group, now);
            }
        }
    }
}

impl Observer for Changes {
    fn event(&mut self, event: &iommu::Event) {
        let container = self.at_work.container.load(Ordering::Relaxed);
        let container = u32::try_from(container).ok().map(ContainerId);
        self.watch.change(self.at_work.number.load(Ordering::Relaxed), container, event);
    }
}
