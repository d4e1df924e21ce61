//! The session's containers, each behind its own lock.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::RwLock;
use vfio::{Container, ContainerId};

type Shared = Arc<RwLock<Container>>;

#[derive(Default)]
struct Table {
    next: u32,
    live: BTreeMap<ContainerId, Shared>,
}

/// The containers.
#[derive(Default)]
pub(crate) struct Containers(RwLock<Table>);

impl Containers {
    /// A new one.
    pub(crate) fn open(&self) -> ContainerId {
        let mut table = self.0.write();
        let id = ContainerId(table.next);
        table.next = table.next.wrapping_add(1);
        table.live.insert(id, Arc::new(RwLock::new(Container::new())));
        id
    }

    fn get(&self, id: ContainerId) -> Option<Shared> {
        self.0.read().live.get(&id).cloned()
    }

    /// The last descriptor was closed.
    pub(crate) fn close(&self, id: ContainerId) {
        if let Some(container) = self.get(id) {
            container.write().close_fd();
        }
        self.drop_dead();
    }

    /// Forgets those that nothing refers to any more.
    pub(crate) fn drop_dead(&self) {
        self.0.write().live.retain(|_, container| !container.read().is_dead());
    }
}

impl vfio::Containers for &Containers {
    fn change(&mut self, id: ContainerId, f: &mut dyn FnMut(&mut Container)) {
        if let Some(container) = self.get(id) {
            f(&mut container.write());
        }
    }

    fn read(&mut self, id: ContainerId, f: &mut dyn FnMut(&Container)) {
        if let Some(container) = self.get(id) {
            f(&container.read());
        }
    }
}
