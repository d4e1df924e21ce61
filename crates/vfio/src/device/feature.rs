//! `VFIO_DEVICE_FEATURE`: probing, and low power.

use uapi::feature::{Feature, FeatureFlags, FeatureHeader};
use uapi::region::RegionIndex;

use super::info::at_least;
use super::{Device, DeviceEnv, DeviceRefusal};
use crate::{BadEvent, Caller, EventId, Platform, user};

/// Low power as the user asked for it. An emulated function loses nothing in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum LowPower {
    #[default]
    Off,
    /// Until the user ends it.
    Entered,
    /// Until the device is needed; then the eventfd is signalled.
    UntilWoken(EventId),
}

impl LowPower {
    pub(super) fn is_entered(self) -> bool {
        self != Self::Off
    }

    /// Ends it without a signal.
    pub(super) fn end(&mut self, platform: &mut dyn Platform) {
        if let Self::UntilWoken(event) = core::mem::take(self) {
            platform.put_event(event);
        }
    }
}

/// Data of a low power entry with an eventfd: the descriptor and four reserved bytes.
const WAKEUP_DATA: u32 = 8;
/// Data of a dma-buf request before its ranges.
const DMA_BUF_DATA: u32 = 16;

impl Device {
    /// Every request and access wakes the device.
    pub(super) fn wake(&mut self, platform: &mut dyn Platform) {
        if let Some(open) = &mut self.open
            && let LowPower::UntilWoken(event) = open.low_power
        {
            platform.signal(event);
            open.low_power.end(platform);
        }
    }

    /// `VFIO_DEVICE_FEATURE`.
    pub(super) fn feature(
        &mut self,
        env: &mut DeviceEnv<'_>,
        arg: u64,
    ) -> Result<i64, DeviceRefusal> {
        let header: FeatureHeader = user::read_all(env.caller, arg)?;
        at_least(header.argsz, FeatureHeader::MIN_ARGSZ)?;
        let operation = header.operation();
        let both = FeatureFlags::GET | FeatureFlags::SET;
        let mixed = operation.contains(both) && !operation.contains(FeatureFlags::PROBE);
        if !FeatureFlags::all().contains(operation) || mixed {
            return Err(DeviceRefusal::BadFlags(header.flags));
        }
        let number = header.number();
        let no_such = DeviceRefusal::NoSuchFeature(number);
        let newest = env.shared.host.dialect.device_dma_buf;
        let known = Feature::try_from(number).ok().ok_or(no_such.clone())?;
        match known {
            Feature::LowPowerEntry => self.low_power(env, &header, None),
            Feature::LowPowerEntryWithWakeup => self.low_power(env, &header, Some(arg)),
            Feature::LowPowerExit => {
                if check(&header, FeatureFlags::SET, 0)? {
                    self.opened()?.low_power.end(env.caller);
                }
                Ok(0)
            }
            Feature::DmaBuf if newest => {
                if !check(&header, FeatureFlags::GET, DMA_BUF_DATA)? {
                    return Ok(0);
                }
                dma_buf(env.caller, arg)
            }
            // For migration only; refused before anything else is looked at.
            Feature::MigPrecopyInfoV2 if newest => {
                Err(DeviceRefusal::FeatureOperation { feature: number, operation })
            }
            _ => Err(no_such),
        }
    }

    fn low_power(
        &mut self,
        env: &mut DeviceEnv<'_>,
        header: &FeatureHeader,
        wakeup: Option<u64>,
    ) -> Result<i64, DeviceRefusal> {
        let data = if wakeup.is_some() { WAKEUP_DATA } else { 0 };
        if !check(header, FeatureFlags::SET, data)? {
            return Ok(0);
        }
        let wanted = match wakeup {
            None => LowPower::Entered,
            Some(arg) => {
                let [fd, _]: [u32; 2] = user::read_tail(env.caller, arg, FeatureHeader::MIN_ARGSZ)?;
                let fd = fd.cast_signed();
                if fd < 0 {
                    return Err(DeviceRefusal::BadEvent { fd, why: BadEvent::NotEventfd });
                }
                let event = env.caller.get_event(fd);
                LowPower::UntilWoken(event.map_err(|why| DeviceRefusal::BadEvent { fd, why })?)
            }
        };
        let mut wanted = wanted;
        let low_power = &mut self.opened()?.low_power;
        if low_power.is_entered() {
            wanted.end(env.caller);
            return Err(DeviceRefusal::AlreadyLowPower);
        }
        *low_power = wanted;
        Ok(0)
    }
}

/// Parts of a BAR as a dma-buf: checked, and then not to be had.
fn dma_buf(caller: &mut dyn Caller, arg: u64) -> Result<i64, DeviceRefusal> {
    let [region, _, flags, ranges]: [u32; 4] =
        user::read_tail(caller, arg, FeatureHeader::MIN_ARGSZ)?;
    if ranges == 0 || flags != 0 {
        return Err(DeviceRefusal::BadDmaBuf { ranges, flags });
    }
    if region >= RegionIndex::Rom.number() {
        return Err(DeviceRefusal::NoBar(region));
    }
    Err(DeviceRefusal::NoDmaBuf)
}

/// Checks a request for a feature that takes `supported` and `data` bytes: whether to do it
/// (`false`: it was a probe).
fn check(
    header: &FeatureHeader,
    supported: FeatureFlags,
    data: u32,
) -> Result<bool, DeviceRefusal> {
    let operation = header.operation();
    let asked = operation & (FeatureFlags::GET | FeatureFlags::SET);
    let refused = DeviceRefusal::FeatureOperation { feature: header.number(), operation };
    if !supported.contains(asked) {
        return Err(refused);
    }
    if operation.contains(FeatureFlags::PROBE) {
        return Ok(false);
    }
    if asked.is_empty() {
        return Err(refused);
    }
    at_least(header.argsz, FeatureHeader::MIN_ARGSZ.saturating_add(data))?;
    Ok(true)
}
