//! The numbered places that a trace has for open files.

use std::collections::BTreeMap;

use vfio::{ContainerId, DeviceId, GroupId};

/// Places of containers, of groups and of devices each.
const PLACES: usize = 8;
/// Places of eventfds.
const EVENTS: usize = 64;

/// One kind of places.
pub(super) struct Places<T>([Option<T>; PLACES]);

impl<T> Default for Places<T> {
    fn default() -> Self {
        Self(std::array::from_fn(|_| None))
    }
}

impl<T: PartialEq> Places<T> {
    /// One that is free.
    pub(super) fn free(&self) -> Option<usize> {
        self.0.iter().position(Option::is_none)
    }

    /// Puts something in a free place.
    pub(super) fn put(&mut self, what: T) -> Option<usize> {
        let at = self.free()?;
        self.0[at] = Some(what);
        Some(at)
    }

    /// Where something is: the first place of several.
    pub(super) fn of(&self, what: &T) -> Option<usize> {
        self.0.iter().position(|place| place.as_ref() == Some(what))
    }

    /// Frees a place of something.
    pub(super) fn take(&mut self, what: &T) -> Option<usize> {
        let at = self.of(what)?;
        self.0[at] = None;
        Some(at)
    }

    /// The place in use, when it is the only one.
    pub(super) fn only(&self) -> Option<usize> {
        let mut used = (0..PLACES).filter(|at| self.0[*at].is_some());
        let first = used.next()?;
        used.next().is_none().then_some(first)
    }

    /// All places in use.
    pub(super) fn used(&self) -> Vec<usize> {
        (0..PLACES).filter(|at| self.0[*at].is_some()).collect()
    }
}

/// All places.
#[derive(Default)]
pub(super) struct Slots {
    pub(super) containers: Places<ContainerId>,
    pub(super) groups: Places<GroupId>,
    pub(super) devices: Places<DeviceId>,
    /// By process and descriptor.
    events: BTreeMap<(i32, i32), usize>,
    /// Places of eventfds that unmask INTx, by their devices' places.
    unmask: BTreeMap<usize, usize>,
}

impl Slots {
    /// The place of a process' eventfd, and whether it is to be made first. Descriptors share places
    /// when there are too many: requests do not tell.
    pub(super) fn event(&mut self, pid: i32, fd: i32) -> (usize, bool) {
        if let Some(at) = self.events.get(&(pid, fd)) {
            return (*at, false);
        }
        let taken = |at: &usize| self.events.values().any(|other| other == at);
        let free = (0..EVENTS).find(|at| !taken(at));
        let at = free.unwrap_or(self.events.len() % EVENTS);
        self.events.insert((pid, fd), at);
        (at, free.is_some())
    }

    /// A device's INTx is unmasked by the eventfd in a place, or by none. The place of the one before.
    pub(super) fn unmasked_by(&mut self, device: usize, event: Option<usize>) -> Option<usize> {
        match event {
            Some(event) => self.unmask.insert(device, event),
            None => self.unmask.remove(&device),
        }
    }

    /// The eventfd in a place is closed.
    pub(super) fn close_event(&mut self, at: usize) {
        self.events.retain(|_, event| *event != at);
    }
}
