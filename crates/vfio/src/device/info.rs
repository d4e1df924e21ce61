//! What a device tells of itself: `GET_INFO`, `GET_REGION_INFO`, `GET_IRQ_INFO`.

use uapi::device::{DeviceFlags, DeviceInfo};
use uapi::irq::{IrqIndex, IrqInfo, VFIO_PCI_NUM_IRQS};
use uapi::region::{self, MsixMappableCap, RegionFlags, RegionIndex, RegionInfo};
use uapi::{CapAlign, CapChain};
use zerocopy::IntoBytes;

use super::{Device, DeviceEnv, DeviceRefusal, IrqKind, room};
use crate::user;

/// Bytes of [`RegionInfo`].
const REGION_INFO: u32 = RegionInfo::MIN_ARGSZ;

impl Device {
    /// `VFIO_DEVICE_GET_INFO`.
    pub(super) fn get_info(
        &mut self,
        env: &mut DeviceEnv<'_>,
        arg: u64,
    ) -> Result<i64, DeviceRefusal> {
        let min = DeviceInfo::MIN_ARGSZ;
        let asked: DeviceInfo = user::read(env.caller, arg, 16)?;
        let argsz = at_least(asked.argsz, min)?;
        let open = self.opened()?;
        let mut flags = DeviceFlags::PCI;
        flags.set(DeviceFlags::RESET, open.reset_works);
        let info = DeviceInfo {
            argsz,
            flags: flags.bits(),
            num_regions: region::VFIO_PCI_NUM_REGIONS,
            num_irqs: VFIO_PCI_NUM_IRQS,
            cap_offset: 0,
            pad: 0,
        };
        // Before the structure had its last field, a kernel wrote whole fields only.
        let written = match (env.shared.host.dialect.info_has_pad, argsz) {
            (true, _) => argsz,
            (false, 20..) => 20,
            (false, _) => 16,
        };
        user::write_bytes(env.caller, arg, &room(written, info.as_bytes()))?;
        Ok(0)
    }

    /// `VFIO_DEVICE_GET_REGION_INFO`.
    pub(super) fn get_region_info(
        &mut self,
        env: &mut DeviceEnv<'_>,
        arg: u64,
    ) -> Result<i64, DeviceRefusal> {
        let mut info: RegionInfo = user::read_all(env.caller, arg)?;
        at_least(info.argsz, REGION_INFO)?;
        let no_such = DeviceRefusal::NoSuchRegion(info.index.into());
        let index = RegionIndex::try_from(info.index).map_err(|_| no_such.clone())?;
        let mut chain = CapChain::new(CapAlign::Eight);
        let (size, flags) = match index {
            RegionIndex::Vga => return Err(no_such),
            RegionIndex::Config => {
                let len = self.opened()?.config.len();
                (u64::try_from(len).unwrap_or(0), RegionFlags::READ | RegionFlags::WRITE)
            }
            RegionIndex::Rom => {
                let exists = !self.model.rom().is_empty();
                match self.function.bar(6).filter(|_| exists) {
                    Some(rom) => (rom.size, RegionFlags::READ),
                    None => (0, RegionFlags::empty()),
                }
            }
            _ => {
                let number = index.bar().unwrap_or(0);
                match self.function.bar(number) {
                    Some(bar) => {
                        let mut flags = RegionFlags::READ | RegionFlags::WRITE;
                        if self.is_mappable(&bar) {
                            flags |= RegionFlags::MMAP;
                            let table = &self.opened()?.msix_table;
                            if table.as_ref().is_some_and(|(bar, _)| *bar == number) {
                                flags |= RegionFlags::CAPS;
                                chain.push_cap(&MsixMappableCap {});
                            }
                        }
                        (bar.size, flags)
                    }
                    None => (0, RegionFlags::empty()),
                }
            }
        };
        info.size = size;
        info.flags = flags.bits();
        info.offset = self.region_base(index);
        let needed = REGION_INFO.saturating_add(u32::try_from(chain.len()).unwrap_or(u32::MAX));
        // Without capabilities the caller's own cap_offset comes back.
        if !chain.is_empty() {
            info.cap_offset = 0;
            if info.argsz < needed {
                info.argsz = needed;
            } else {
                info.cap_offset = REGION_INFO;
                let at = arg.wrapping_add(REGION_INFO.into());
                user::write_bytes(env.caller, at, &chain.emit(REGION_INFO))?;
            }
        }
        user::write(env.caller, arg, &info, size_of::<RegionInfo>())?;
        Ok(0)
    }

    /// `VFIO_DEVICE_GET_IRQ_INFO`.
    pub(super) fn get_irq_info(
        &mut self,
        env: &mut DeviceEnv<'_>,
        arg: u64,
    ) -> Result<i64, DeviceRefusal> {
        let mut info: IrqInfo = user::read_all(env.caller, arg)?;
        let no_such = DeviceRefusal::NoSuchIrq(info.index);
        at_least(info.argsz, IrqInfo::MIN_ARGSZ)?;
        let index = IrqIndex::try_from(info.index).map_err(|_| no_such.clone())?;
        let (model, dialect) = (self.model.as_ref(), &env.shared.host.dialect);
        let kind = IrqKind::of(index, model, dialect, self.dynamic_msix).ok_or(no_such)?;
        info.flags = kind.flags.bits();
        info.count = kind.count;
        user::write(env.caller, arg, &info, size_of::<IrqInfo>())?;
        Ok(0)
    }
}

/// `argsz` when it covers `min` bytes.
pub(super) const fn at_least(argsz: u32, min: u32) -> Result<u32, DeviceRefusal> {
    if argsz < min { Err(DeviceRefusal::ArgszTooSmall { argsz, min }) } else { Ok(argsz) }
}
