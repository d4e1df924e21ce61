//! The devices that a request has in hand.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use parking_lot::MutexGuard;
use vfio::DeviceId;
use vfio::device::Device;

use super::Door;
use super::caller::PATIENCE;
use super::slot::Guarded;

/// A request's devices: locked when first needed, until the request is done.
pub(super) struct InHand<'a> {
    door: &'a Door,
    guards: BTreeMap<DeviceId, MutexGuard<'a, Guarded>>,
    /// One that somebody else had.
    busy: Option<DeviceId>,
}

impl<'a> InHand<'a> {
    pub(super) const fn none(door: &'a Door) -> Self {
        Self { door, guards: BTreeMap::new(), busy: None }
    }

    /// Whether the request failed for a device that somebody else had. It is then in hand, with those
    /// that were before, and the request is to be issued again. With no other lock held.
    ///
    /// # Errors
    /// The device that does not come back from what it does.
    pub(super) fn wait_for_busy(&mut self) -> Result<bool, DeviceId> {
        let Some(busy) = self.busy.take() else { return Ok(false) };
        self.wait_for(busy)?;
        Ok(true)
    }

    /// Whether the request failed so.
    pub(super) const fn want_busy(&self) -> bool {
        self.busy.is_some()
    }

    /// Takes a device in hand, waiting for it. With no other lock held.
    ///
    /// # Errors
    /// The device, when it does not come back from what it does.
    pub(super) fn wait_for(&mut self, id: DeviceId) -> Result<(), DeviceId> {
        // In the order of their numbers, so that no two requests wait for each other.
        let mut wanted: Vec<DeviceId> = self.guards.keys().copied().chain([id]).collect();
        wanted.sort_unstable();
        self.guards.clear();
        for id in wanted {
            let Some(slot) = self.door.slot(id) else { continue };
            self.guards.insert(id, slot.lock_within(PATIENCE).ok_or(id)?);
        }
        Ok(())
    }

    /// Lets go of all.
    pub(super) fn put_down(&mut self) {
        self.guards.clear();
    }

    /// The devices in hand.
    pub(super) fn ids(&self) -> Vec<DeviceId> {
        self.guards.keys().copied().collect()
    }

    /// One of them.
    pub(super) fn get(&mut self, id: DeviceId) -> Option<&mut Guarded> {
        Some(&mut **self.guards.get_mut(&id)?)
    }
}

impl vfio::Devices for InHand<'_> {
    fn change(&mut self, id: DeviceId, f: &mut dyn FnMut(&mut Device)) {
        let Some(slot) = self.door.slot(id) else { return };
        let guard = match self.guards.entry(id) {
            Entry::Occupied(held) => held.into_mut(),
            Entry::Vacant(place) => match slot.try_lock() {
                Some(guard) => place.insert(guard),
                None => return self.busy = Some(id),
            },
        };
        f(&mut guard.device);
        slot.show(guard);
    }
}
