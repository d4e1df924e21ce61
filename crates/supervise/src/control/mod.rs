//! A session from outside, while its program runs: which devices there are, and taking them away.

mod socket;

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use vfio::{DeviceId, Removal};

pub use self::socket::{ControlSocket, ask};
pub use crate::door::DeviceState;

use crate::door::Door;
use crate::session::PlacedDevice;

/// A session, from outside. Copies are of the same session.
#[derive(Clone)]
pub struct Control(Arc<Shared>);

struct Shared {
    devices: Vec<PlacedDevice>,
    stage: Mutex<Stage>,
}

enum Stage {
    Before,
    Running(Arc<Door>),
    Over,
}

/// Why a session does not do what it was told.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ControlError {
    /// The program has not started yet.
    #[error("the program has not started yet")]
    NotStarted,
    /// The session is over.
    #[error("the session is over")]
    Over,
    /// It has no such device.
    #[error("there is no device {name} (there are: {there})")]
    NoSuchDevice {
        /// What was asked for.
        name: String,
        /// The devices there are.
        there: String,
    },
    /// The device waits for the client's memory.
    #[error("{0} waits for the program's memory and does not come back")]
    Stuck(String),
}

impl Control {
    pub(crate) fn new(devices: Vec<PlacedDevice>) -> Self {
        Self(Arc::new(Shared { devices, stage: Mutex::new(Stage::Before) }))
    }

    /// The program starts; until the guard is dropped, the session runs.
    pub(crate) fn start(&self, door: &Arc<Door>) -> Running {
        *self.0.stage.lock() = Stage::Running(Arc::clone(door));
        Running(self.clone())
    }

    /// The devices, and who has each.
    #[must_use]
    pub fn devices(&self) -> Vec<(PlacedDevice, DeviceState)> {
        let door = self.door();
        let state = |id| match &door {
            Ok(door) => door.device_state(id),
            Err(ControlError::NotStarted) => DeviceState::Free,
            Err(_) => DeviceState::Gone,
        };
        let ids = (0..).map(DeviceId);
        ids.zip(&self.0.devices).map(|(id, device)| (device.clone(), state(id))).collect()
    }

    /// Takes a device from the program, as the kernel does when one is unplugged or taken from
    /// vfio-pci: no descriptor of it is given out any more, and the request interrupt is signalled now
    /// and every ten seconds, until the program has closed the device. `name` is its address;
    /// `0000:` may be left out.
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn unplug(&self, name: &str) -> Result<Removal, ControlError> {
        let (door, id) = (self.door()?, self.find(name)?);
        door.remove_device(id).ok_or_else(|| ControlError::Stuck(name.into()))
    }

    /// Waits, at most for so long, until a device is gone that was [unplugged](Self::unplug); whether
    /// it is. At the session's end all are.
    ///
    /// # Errors
    /// [`ControlError::NoSuchDevice`], [`ControlError::NotStarted`].
    pub fn wait_gone(&self, name: &str, limit: Duration) -> Result<bool, ControlError> {
        let id = self.find(name)?;
        match self.door() {
            Ok(door) => {
                let end = Instant::now() + limit;
                // In steps: nobody is woken for the session's end.
                let step = Duration::from_millis(100);
                loop {
                    let left = end.saturating_duration_since(Instant::now());
                    if door.wait_gone(id, left.min(step)) || self.door().is_err() {
                        return Ok(true);
                    }
                    if left.is_zero() {
                        return Ok(false);
                    }
                }
            }
            Err(ControlError::Over) => Ok(true),
            Err(error) => Err(error),
        }
    }

    fn door(&self) -> Result<Arc<Door>, ControlError> {
        match &*self.0.stage.lock() {
            Stage::Before => Err(ControlError::NotStarted),
            Stage::Running(door) => Ok(Arc::clone(door)),
            Stage::Over => Err(ControlError::Over),
        }
    }

    fn find(&self, name: &str) -> Result<DeviceId, ControlError> {
        let is = |device: &&PlacedDevice| {
            device.name == name || device.name.strip_prefix("0000:") == Some(name)
        };
        let at = self.0.devices.iter().position(|device| is(&device));
        let id = at.and_then(|at| u32::try_from(at).ok()).map(DeviceId);
        id.ok_or_else(|| {
            let names: Vec<_> = self.0.devices.iter().map(|d| d.name.as_str()).collect();
            ControlError::NoSuchDevice { name: name.into(), there: names.join(", ") }
        })
    }
}

/// A session runs.
pub(crate) struct Running(Control);

impl Drop for Running {
    fn drop(&mut self) {
        *self.0.0.stage.lock() = Stage::Over;
    }
}
