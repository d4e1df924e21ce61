//! Trapped accesses, on their way to the device.

use std::sync::Arc;

use crate::door::Door;
use crate::mmio::{Bars, BusError, Unsupported};

/// The BARs of a door's devices.
pub(super) struct TrappedBars {
    door: Arc<Door>,
}

impl TrappedBars {
    pub(super) const fn new(door: Arc<Door>) -> Self {
        Self { door }
    }
}

impl Bars for TrappedBars {
    fn find(&self, dev: u64, ino: u64) -> Option<u32> {
        Some(self.door.device_with_file(dev, ino)?.0)
    }

    fn load(&self, key: u32, offset: u64, data: &mut [u8]) -> Result<(), BusError> {
        self.door.load(vfio::DeviceId(key), offset, data).ok_or(BusError)
    }

    fn store(&self, tid: i32, key: u32, offset: u64, data: &[u8]) -> Result<(), BusError> {
        self.door.store(tid, vfio::DeviceId(key), offset, data).ok_or(BusError)
    }

    fn unsupported(&self, what: &Unsupported) {
        self.door.trouble(&what.to_string());
    }
}
