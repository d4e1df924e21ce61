//! The system's requests on a device's descriptor: what a front end calls.

use alloc::vec::Vec;

use super::{Device, DeviceEnv, DeviceRefusal, Mappable, Mmio};
use crate::{Answer, Ctx, DeviceId, EventId, Refusal, System};
use uapi::ioctl;

impl System {
    /// Runs `f` on a device with its surroundings.
    pub(super) fn on_device<R>(
        &mut self,
        id: DeviceId,
        ctx: &mut Ctx<'_>,
        f: impl FnOnce(&mut Device, &mut DeviceEnv<'_>) -> Result<R, DeviceRefusal>,
    ) -> Result<R, DeviceRefusal> {
        let function = self.device(id).ok_or(DeviceRefusal::NotThere)?.function();
        let group = function.group;
        let container = self.container_of(group);
        let index = usize::try_from(id.0).unwrap_or(usize::MAX);
        let device = self.devices.get_mut(index).ok_or(DeviceRefusal::NotThere)?;
        let mut env = DeviceEnv {
            shared: &mut self.shared,
            caller: ctx.caller,
            containers: ctx.containers,
            models: ctx.models,
            container,
            group: group.0,
        };
        f(device, &mut env)
    }

    /// Chooses where BAR 0 of a device begins in its descriptor's file, in bytes: a multiple of
    /// 2^40 where no other region is. The kernel's is 0.
    pub fn set_bar0_base(&mut self, id: DeviceId, base: u64) {
        if let Some(d) = usize::try_from(id.0).ok().and_then(|i| self.devices.get_mut(i)) {
            d.bar0_base = base;
        }
    }

    /// A descriptor of a device is about to be given out.
    pub(crate) fn open_device(&mut self, id: DeviceId, ctx: &mut Ctx<'_>) -> Result<(), Refusal> {
        let function = self.device(id).ok_or(DeviceRefusal::NotThere)?.function();
        let can_reset = function.can_reset(self.is_alone(function.bdf));
        Ok(self.on_device(id, ctx, |device, env| device.open(env, can_reset))?)
    }

    /// A descriptor of a device is gone.
    pub(crate) fn shut_device(&mut self, id: DeviceId, ctx: &mut Ctx<'_>) {
        // A device that is not there has nothing to shut.
        let _ = self.on_device(id, ctx, |device, env| {
            device.close(env);
            Ok(())
        });
    }

    /// A request on a device's descriptor.
    ///
    /// # Errors
    /// The [`Refusal`], whose errno the client gets.
    pub fn device_ioctl(
        &mut self,
        id: DeviceId,
        ctx: &mut Ctx<'_>,
        request: u32,
        arg: u64,
    ) -> Answer {
        let answer = match request {
            ioctl::VFIO_DEVICE_GET_PCI_HOT_RESET_INFO | ioctl::VFIO_DEVICE_PCI_HOT_RESET => {
                self.on_device(id, ctx, |device, env| {
                    device.wake(env);
                    Ok(())
                })?;
                match request {
                    ioctl::VFIO_DEVICE_PCI_HOT_RESET => self.hot_reset(id, ctx, arg),
                    _ => self.hot_reset_info(id, ctx, arg),
                }
            }
            _ => self.on_device(id, ctx, |device, env| device.ioctl(env, request, arg)),
        };
        Ok(answer?)
    }

    /// `pread` from `offset` of a device's descriptor: how many bytes, fewer than asked at the end
    /// of a BAR only.
    ///
    /// # Errors
    /// The [`Refusal`], whose errno the client gets; `data` may have changed.
    pub fn device_read(
        &mut self,
        id: DeviceId,
        ctx: &mut Ctx<'_>,
        offset: u64,
        data: &mut [u8],
    ) -> Result<usize, Refusal> {
        Ok(self.on_device(id, ctx, |device, env| device.read(env, offset, data))?)
    }

    /// `pwrite` to `offset` of a device's descriptor, as [`device_read`](Self::device_read).
    ///
    /// # Errors
    /// The [`Refusal`], whose errno the client gets; bytes before the one that failed have been
    /// written.
    pub fn device_write(
        &mut self,
        id: DeviceId,
        ctx: &mut Ctx<'_>,
        offset: u64,
        data: &[u8],
    ) -> Result<usize, Refusal> {
        Ok(self.on_device(id, ctx, |device, env| device.write(env, offset, data))?)
    }

    /// `mmap` of `len` bytes at `offset` of a device's descriptor: what of it would be mapped.
    ///
    /// # Errors
    /// The [`Refusal`], whose errno the client gets.
    pub fn device_mmap(
        &mut self,
        id: DeviceId,
        ctx: &mut Ctx<'_>,
        offset: u64,
        len: u64,
        shared: bool,
    ) -> Result<Mappable, Refusal> {
        Ok(self.on_device(id, ctx, |device, env| device.mmap(env, offset, len, shared))?)
    }

    /// Whether an access of a client to a mapped BAR of a device reaches it now. Where not, it is a
    /// `SIGBUS`, and pinning the mapping fails
    /// ([`PinFault::DeviceOff`](iommu::PinFault::DeviceOff)).
    pub fn device_decodes_memory(&mut self, id: DeviceId, ctx: &mut Ctx<'_>) -> bool {
        self.on_device(id, ctx, |device, env| Ok(device.decodes_memory(env))).unwrap_or(false)
    }

    /// An access of a client to a mapped BAR of a device.
    ///
    /// # Errors
    /// The function does not decode memory now: the access is a `SIGBUS`.
    pub fn device_mmio(
        &mut self,
        id: DeviceId,
        ctx: &mut Ctx<'_>,
        bar: u8,
        offset: u64,
        access: Mmio<'_>,
    ) -> Result<(), Refusal> {
        Ok(self.on_device(id, ctx, |device, env| device.mmio(env, bar, offset, access))?)
    }

    /// The devices that [watch](Device::watched_events) an eventfd.
    #[must_use]
    pub fn devices_watching(&self, event: EventId) -> Vec<DeviceId> {
        let devices = (0..).map(DeviceId).zip(self.devices());
        let watching = devices.filter(|(_, d)| d.watched_events().any(|e| e == event));
        watching.map(|(id, _)| id).collect()
    }

    /// An eventfd that a device watches was signalled; the front end has read its counter back to
    /// 0.
    pub fn device_event(&mut self, id: DeviceId, ctx: &mut Ctx<'_>, event: EventId) {
        // Nobody waits for an answer.
        let _ = self.on_device(id, ctx, |device, env| {
            device.event_fired(env, event);
            Ok(())
        });
    }

    /// The last descriptor of an eventfd that a device watches was closed. INTx no longer has an
    /// unmask eventfd then, and another may be set.
    pub fn device_event_closed(&mut self, id: DeviceId, ctx: &mut Ctx<'_>, event: EventId) {
        // Nobody waits for an answer.
        let _ = self.on_device(id, ctx, |device, env| {
            device.event_closed(env, event);
            Ok(())
        });
    }

    /// Lets a device go on with work of its own; whether anything is left to do.
    pub fn device_run(&mut self, id: DeviceId, ctx: &mut Ctx<'_>) -> bool {
        self.on_device(id, ctx, |device, env| device.run(env)).unwrap_or(false)
    }
}
