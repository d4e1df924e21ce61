//! Accesses of clients to mapped registers that trap.

use vfio::DeviceId;
use vfio::device::Mmio;

use super::files::Kind;
use super::slot::{BAR0_BASE, Guarded, MmioMode};
use super::{Door, caller};

/// Bytes of a region in a device's file.
const REGION: u64 = 1 << 40;

impl Door {
    /// The device whose file has this device and inode.
    pub(crate) fn device_with_file(&self, dev: u64, ino: u64) -> Option<DeviceId> {
        match self.files.kind_of(dev, ino)? {
            Kind::Device(id) => Some(id),
            _ => None,
        }
    }

    /// A load at `offset` of a device's file; `None` when nobody answers.
    pub(crate) fn load(&self, id: DeviceId, offset: u64, data: &mut [u8]) -> Option<()> {
        self.access_bar(id, offset, Mmio::Read(data), |_| {})
    }

    /// A store of a thread, likewise. What it starts goes on beside the client, not before it.
    pub(crate) fn store(&self, tid: i32, id: DeviceId, offset: u64, data: &[u8]) -> Option<()> {
        let pid = self.processes.of(tid, || true).ok().map(|process| process.tgid());
        let done = self.access_bar(id, offset, Mmio::Write(data), |guarded| {
            if let Some(pid) = pid {
                guarded.stored(pid, tid);
            }
        });
        self.slot(id)?.kick();
        done
    }

    /// An access, and what else is to happen before anybody has the device.
    fn access_bar(
        &self,
        id: DeviceId,
        offset: u64,
        access: Mmio<'_>,
        then: impl FnOnce(&mut Guarded),
    ) -> Option<()> {
        let slot = self.slot(id)?;
        let bar = match offset / REGION {
            region if region == BAR0_BASE / REGION => 0,
            // Where Linux has it; nobody asked us whether it may be mapped.
            0 if slot.mode == MmioMode::Trap => 0,
            region => u8::try_from(region).ok().filter(|bar| (1..6).contains(bar))?,
        };
        let Some(mut guarded) = slot.lock_within(caller::PATIENCE) else {
            self.stuck(id);
            return None;
        };
        let done = self.on_hardware(slot, &mut guarded, |guarded, up| {
            guarded.device.mmio(up, bar, offset % REGION, access)
        });
        then(&mut guarded);
        done.ok()
    }

    /// Something went wrong that concerns nobody's request.
    pub(crate) fn trouble(&self, sentence: &str) {
        self.watch.trouble(sentence);
    }
}
