//! A device is taken back from its user: `remove` of vfio-pci, for an unplug or an `unbind`.
//!
//! From now on no descriptor of it is given out (`VFIO_GROUP_GET_DEVICE_FD` is `ENODEV`), and its user
//! is asked to let go: the request interrupt is signalled, at once and every
//! [`REQUEST_INTERVAL_SECONDS`] again. Nothing is taken by force. With the last close of its
//! descriptors the device is gone; with the group's last device the group leaves its container, and
//! its descriptor is good for nothing. Source: `vfio_unregister_group_dev`, `vfio_device_remove_group`
//! and `vfio_pci_core_request` of Linux 6.12.

use crate::system::Driver;
use crate::{Ctx, DeviceId, GroupId, System};

/// How long the kernel waits before it asks again, in seconds.
pub const REQUEST_INTERVAL_SECONDS: u64 = 10;

/// How far the removal of a device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removal {
    /// Nobody has it (any more): it is gone.
    Gone,
    /// Somebody has it. The request interrupt was signalled.
    Requested,
    /// Somebody has it and set no eventfd for the request interrupt. The kernel logs that and waits.
    NoChannel,
}

impl System {
    /// Takes a device from vfio-pci, or asks for it once more. The answer of a request whose device
    /// was not to be had at once ([`Devices::change`](crate::Devices::change)) is to be dropped, as
    /// that of any other.
    #[doc(alias("VFIO_PCI_REQ_IRQ_INDEX", "unbind", "unplug"))]
    pub fn remove_device(&mut self, id: DeviceId, ctx: &mut Ctx<'_>) -> Removal {
        if !matches!(self.driver(id), Some(Driver::VfioPci | Driver::Leaving)) {
            return Removal::Gone;
        }
        let mut answer = None;
        let caller = &mut *ctx.caller;
        ctx.devices.change(id, &mut |device| {
            answer = Some(match device.irqs() {
                None => Removal::Gone,
                Some(irqs) if irqs.signal_req(caller) => Removal::Requested,
                Some(_) => Removal::NoChannel,
            });
        });
        match answer {
            Some(Removal::Gone) => self.finish_removal(id, ctx),
            Some(_) => self.set_driver(id, Driver::Leaving),
            None => {}
        }
        answer.unwrap_or(Removal::Gone)
    }

    /// A descriptor of a device was closed: a device on its way out is gone with the last.
    pub(crate) fn closed_while_leaving(&mut self, id: DeviceId, ctx: &mut Ctx<'_>) {
        if self.driver(id) != Some(&Driver::Leaving) {
            return;
        }
        let mut open = false;
        ctx.devices.change(id, &mut |device| open = device.is_open());
        if !open {
            self.finish_removal(id, ctx);
        }
    }

    fn finish_removal(&mut self, id: DeviceId, ctx: &mut Ctx<'_>) {
        self.set_driver(id, Driver::None);
        if let Some(group) = self.function(id).map(|f| f.group)
            && !self.has_vfio_device(group)
        {
            self.leave_container(group, ctx);
        }
    }

    /// Whether vfio-pci has a device of the group.
    pub(crate) fn has_vfio_device(&self, id: GroupId) -> bool {
        let devices = self.groups.get(&id).map_or(&[][..], |g| &g.devices);
        devices.iter().any(|d| self.driver(*d).is_some_and(Driver::is_vfio))
    }

    /// Whether vfio-pci had devices of the group, and has none any more.
    pub(crate) fn is_gone(&self, id: GroupId) -> bool {
        let had = self.groups.get(&id).is_some_and(|g| !g.devices.is_empty());
        had && !self.has_vfio_device(id)
    }
}
