//! Devices that are taken back from the client: asked for, and asked for again, until they are gone.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use vfio::{Ctx, DeviceId, Driver, REQUEST_INTERVAL_SECONDS, Removal};

use super::Door;
use super::caller::Client;
use super::devices::InHand;
use super::slot::Slot;

/// How long the kernel waits before it asks again.
const INTERVAL: Duration = Duration::from_secs(REQUEST_INTERVAL_SECONDS);

/// Devices that were asked for, and when they are to be asked for again.
#[derive(Default)]
pub(super) struct Removals {
    leaving: Mutex<BTreeMap<DeviceId, Instant>>,
    gone: Condvar,
}

/// Who has a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceState {
    /// Nobody.
    Free,
    /// The program.
    Open,
    /// The program, which was asked to let go.
    Leaving,
    /// It was taken, and cannot be had again.
    Gone,
}

impl Door {
    /// Takes a device from the client. `None` when it does not come back from what it does.
    pub(crate) fn remove_device(&self, id: DeviceId) -> Option<Removal> {
        let removal = self.ask(id)?;
        if removal != Removal::Gone {
            // So that it asks again in time.
            self.watcher.wake();
        }
        Some(removal)
    }

    fn ask(&self, id: DeviceId) -> Option<Removal> {
        let mut client = Client::nobody(self);
        let mut devices = InHand::none(self);
        let removal = loop {
            if let Err(id) = devices.wait_for(id) {
                self.stuck(id);
                return None;
            }
            let mut containers = &self.containers;
            let mut ctx =
                Ctx { caller: &mut client, containers: &mut containers, devices: &mut devices };
            let mut system = self.system.lock();
            let number = self.next_number();
            let removal = system.remove_device(id, &mut ctx);
            // Whoever was asked may let go at once, which is told after this.
            if !devices.want_busy() {
                self.watch.removal(number, id, removal);
                self.note(id, removal);
            }
            drop(system);
            match devices.wait_for_busy() {
                Ok(false) => break removal,
                Ok(true) => {}
                Err(id) => {
                    self.stuck(id);
                    return None;
                }
            }
        };
        self.let_go(devices);
        self.containers.drop_dead();
        let _ = client.finish();
        Some(removal)
    }

    /// With the system in hand: a device that was asked for is leaving.
    fn note(&self, id: DeviceId, removal: Removal) {
        if removal != Removal::Gone {
            self.removals.leaving.lock().entry(id).or_insert_with(|| Instant::now() + INTERVAL);
        }
    }

    /// A descriptor of a device was closed: if it was to go, it may be gone.
    pub(super) fn device_closed(&self, id: DeviceId) {
        let is_leaving = self.removals.leaving.lock().contains_key(&id);
        // Not with that lock held, which comes after the system's.
        if !is_leaving || self.has_driver(id) {
            return;
        }
        if self.removals.leaving.lock().remove(&id).is_some() {
            self.watch.removal(self.number(), id, Removal::Gone);
            self.removals.gone.notify_all();
        }
    }

    fn has_driver(&self, id: DeviceId) -> bool {
        self.system.lock().driver(id).is_some_and(|driver| *driver != Driver::None)
    }

    /// Asks for those whose time has come; how long until the next.
    pub(super) fn ask_again(&self) -> Option<Duration> {
        let now = Instant::now();
        let mut due = Vec::new();
        for (id, at) in self.removals.leaving.lock().iter_mut().filter(|(_, at)| **at <= now) {
            *at = now + INTERVAL;
            due.push(*id);
        }
        for id in due {
            self.ask(id);
            self.device_closed(id);
        }
        let next = self.removals.leaving.lock().values().min().copied()?;
        Some(next.saturating_duration_since(Instant::now()))
    }

    /// Waits until a device that was asked for is gone, or for so long; whether it is gone.
    pub(crate) fn wait_gone(&self, id: DeviceId, limit: Duration) -> bool {
        let mut leaving = self.removals.leaving.lock();
        let end = Instant::now() + limit;
        while leaving.contains_key(&id) {
            if self.removals.gone.wait_until(&mut leaving, end).timed_out() {
                return !leaving.contains_key(&id);
            }
        }
        true
    }

    /// Who has a device.
    pub(crate) fn device_state(&self, id: DeviceId) -> DeviceState {
        match self.system.lock().driver(id) {
            Some(Driver::Leaving) => DeviceState::Leaving,
            Some(Driver::VfioPci) if self.slot(id).is_some_and(Slot::is_open) => DeviceState::Open,
            Some(Driver::VfioPci) => DeviceState::Free,
            _ => DeviceState::Gone,
        }
    }
}
