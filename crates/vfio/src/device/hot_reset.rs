//! Reset of a bus with every function on it: who is affected, and whether the caller has them all.

use alloc::string::ToString;
use alloc::vec;
use alloc::vec::Vec;

use pci::Bdf;
use uapi::reset::{HotReset, HotResetInfo, PciDependentDevice};
use zerocopy::IntoBytes;

use super::DeviceRefusal;
use super::info::at_least;
use crate::{Ctx, DeviceId, FdObject, GroupId, System, user};

impl System {
    /// The functions that share a bus with `bdf`, itself included, with their groups; by address.
    fn on_bus_of(&self, bdf: Bdf) -> Vec<(Bdf, GroupId)> {
        let mut found: Vec<(Bdf, GroupId)> = Vec::new();
        for group in &self.shared().host.groups {
            let addresses = group.devices.iter().filter_map(|name| name.parse().ok());
            found.extend(addresses.map(|bdf| (bdf, GroupId(group.number))));
        }
        let functions = self.bound.iter().map(|b| (b.function.bdf, b.function.group));
        found.extend(functions);
        found.retain(|(other, _)| other.same_bus(bdf));
        found.sort_unstable();
        found.dedup_by_key(|(bdf, _)| *bdf);
        found
    }

    /// Whether no other function is on the bus of `bdf`.
    pub(super) fn is_alone(&self, bdf: Bdf) -> bool {
        self.on_bus_of(bdf).iter().all(|(other, _)| *other == bdf)
    }

    /// `VFIO_DEVICE_GET_PCI_HOT_RESET_INFO`.
    pub(super) fn hot_reset_info(
        &mut self,
        id: DeviceId,
        ctx: &mut Ctx<'_>,
        arg: u64,
    ) -> Result<i64, DeviceRefusal> {
        let asked: HotResetInfo = user::read_all(ctx.caller, arg)?;
        let argsz = at_least(asked.argsz, HotResetInfo::MIN_ARGSZ)?;
        let affected = self.affected(id)?;
        let count = u32::try_from(affected.len()).unwrap_or(u32::MAX);
        let header = HotResetInfo { argsz, flags: 0, count };
        let bytes = argsz.saturating_sub(HotResetInfo::MIN_ARGSZ);
        let room = usize::try_from(bytes).unwrap_or(0).div_euclid(size_of::<PciDependentDevice>());
        let list = affected.iter().map(entry).collect::<Vec<PciDependentDevice>>();
        let fits = list.len() <= room;
        let list_first = self.shared().host.dialect.hot_reset_list_first;
        for list_now in [list_first, !list_first] {
            if !list_now {
                user::write(ctx.caller, arg, &header, size_of::<HotResetInfo>())?;
            } else if fits {
                let at = arg.wrapping_add(HotResetInfo::MIN_ARGSZ.into());
                user::write_bytes(ctx.caller, at, list.as_bytes())?;
            }
        }
        if !fits {
            return Err(DeviceRefusal::ListTooShort { needed: list.len(), room });
        }
        Ok(0)
    }

    /// The functions that a reset of a device's bus affects.
    fn affected(&self, id: DeviceId) -> Result<Vec<(Bdf, GroupId)>, DeviceRefusal> {
        let function = self.function(id).ok_or(DeviceRefusal::NotThere)?;
        if function.on_root_bus {
            return Err(DeviceRefusal::NoBusReset);
        }
        Ok(self.on_bus_of(function.bdf))
    }

    /// `VFIO_DEVICE_PCI_HOT_RESET`.
    pub(super) fn hot_reset(
        &mut self,
        id: DeviceId,
        ctx: &mut Ctx<'_>,
        arg: u64,
    ) -> Result<i64, DeviceRefusal> {
        let asked: HotReset = user::read_all(ctx.caller, arg)?;
        at_least(asked.argsz, HotReset::MIN_ARGSZ)?;
        if asked.flags != 0 {
            return Err(DeviceRefusal::BadFlags(asked.flags));
        }
        let count = asked.count;
        let none = DeviceRefusal::GroupCount { given: count, affected: 0 };
        if count == 0 && self.shared().host.dialect.hot_reset_count_first {
            return Err(none);
        }
        let affected = self.affected(id)?;
        let given = usize::try_from(count).unwrap_or(usize::MAX);
        if given == 0 || given > affected.len() {
            return Err(DeviceRefusal::GroupCount { given: count, affected: affected.len() });
        }
        let groups = groups(ctx, arg.wrapping_add(HotReset::MIN_ARGSZ.into()), given)?;
        let mut devices = Vec::new();
        for (bdf, group) in affected {
            let mut bound = (0..).map(DeviceId).zip(&self.bound);
            let found = bound.find(|(_, b)| b.function.bdf == bdf);
            let ours = found.filter(|(_, b)| b.driver.is_vfio());
            match ours {
                Some((id, _)) if groups.contains(&group) => devices.push(id),
                _ => return Err(DeviceRefusal::NotOwned(bdf.to_string())),
            }
        }
        let link_comes_back = self.function(id).is_some_and(|f| f.link_comes_back);
        for id in devices {
            self.on_device(id, ctx, |device, env| {
                device.reset_with_bus(env.caller);
                Ok(())
            })?;
        }
        if link_comes_back { Ok(0) } else { Err(DeviceRefusal::LinkLost) }
    }
}

/// The groups behind `count` descriptors in the caller's memory.
fn groups(ctx: &mut Ctx<'_>, addr: u64, count: usize) -> Result<Vec<GroupId>, DeviceRefusal> {
    let mut bytes = vec![0; count.saturating_mul(4)];
    ctx.caller.copy_in(addr, &mut bytes).map_err(|_| user::BadTail)?;
    let fds = bytes.chunks_exact(4).filter_map(|b| Some(i32::from_ne_bytes(b.try_into().ok()?)));
    fds.map(|fd| match ctx.caller.fd(fd) {
        FdObject::Group(group) => Ok(group),
        FdObject::Closed => Err(DeviceRefusal::BadFd(fd)),
        _ => Err(DeviceRefusal::NotAGroup(fd)),
    })
    .collect()
}

fn entry((bdf, group): &(Bdf, GroupId)) -> PciDependentDevice {
    PciDependentDevice {
        group_id: group.0,
        segment: bdf.segment(),
        bus: bdf.bus(),
        devfn: bdf.devfn(),
    }
}
