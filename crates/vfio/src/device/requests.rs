//! The system's requests on a device's descriptor: what a front end calls.

use uapi::ioctl;

use super::{Device, DeviceEnv, DeviceRefusal};
use crate::{Answer, ContainerId, Ctx, DeviceId, Refusal, System};

impl System {
    /// Runs `f` on a device with its surroundings.
    pub(super) fn on_device<R>(
        &mut self,
        id: DeviceId,
        ctx: &mut Ctx<'_>,
        f: impl FnOnce(&mut Device, &mut DeviceEnv<'_>) -> Result<R, DeviceRefusal>,
    ) -> Result<R, DeviceRefusal> {
        let mut answer = Err(DeviceRefusal::NotThere);
        let mut f = Some(f);
        let Ctx { caller, containers, devices } = ctx;
        devices.change(id, &mut |device| {
            let Some(f) = f.take() else { return };
            let shared = &mut self.shared;
            answer = f(device, &mut DeviceEnv { shared, caller: *caller, containers: *containers });
        });
        answer
    }

    /// A descriptor of a device of a group in `container` is about to be given out.
    pub(crate) fn open_device(
        &mut self,
        id: DeviceId,
        container: ContainerId,
        ctx: &mut Ctx<'_>,
    ) -> Result<(), Refusal> {
        let function = self.function(id).ok_or(DeviceRefusal::NotThere)?;
        let can_reset = function.can_reset(self.is_alone(function.bdf));
        Ok(self.on_device(id, ctx, |device, _| {
            device.open(container, can_reset);
            Ok(())
        })?)
    }

    /// A descriptor of a device is gone. Whether one was there.
    pub(crate) fn shut_device(&mut self, id: DeviceId, ctx: &mut Ctx<'_>) -> bool {
        let shut = self.on_device(id, ctx, |device, env| {
            let was_open = device.is_open();
            if was_open {
                device.close(env);
            }
            Ok(was_open)
        });
        shut.unwrap_or(false)
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
                    device.wake(env.caller);
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
}
