//! Groups: what a user takes as one, and the devices in them (kernel-semantics 1.7).

use alloc::string::String;
use alloc::vec::Vec;

use iommu::AttachRefusal;
use uapi::group::{GroupFlags, GroupStatus};
use uapi::ioctl;

use crate::system::{Bound, Driver};
use crate::user::{self, Text};
use crate::{Answer, ContainerId, Ctx, DeviceId, FdObject, GroupId, Refusal, System, planted};

/// A VFIO group.
#[derive(Default)]
pub(crate) struct Group {
    pub(crate) devices: Vec<DeviceId>,
    pub(crate) container: Option<ContainerId>,
    /// Its descriptor is open.
    open: bool,
    /// Open device descriptors; each keeps the group.
    open_devices: u32,
}

impl System {
    /// Opens `/dev/vfio/N`.
    ///
    /// # Errors
    /// No device of it is bound to VFIO; or it is open already: also when only device descriptors
    /// are left of it.
    pub fn open_group(&mut self, id: GroupId) -> Result<(), Refusal> {
        let none = Refusal::NoVfioDevice(id);
        if !self.has_vfio_device(id) {
            return Err(none);
        }
        let Some(group) = self.groups.get_mut(&id) else { return Err(none) };
        if group.open || group.open_devices != 0 {
            return Err(Refusal::GroupOpen(id));
        }
        group.open = true;
        Ok(())
    }

    /// The last descriptor of a group was closed.
    pub fn close_group(&mut self, id: GroupId, ctx: &mut Ctx<'_>) {
        if let Some(group) = self.groups.get_mut(&id) {
            group.open = false;
        }
        self.release_group(id, ctx);
    }

    /// The container a group is in.
    #[must_use]
    pub fn container_of(&self, id: GroupId) -> Option<ContainerId> {
        self.groups.get(&id)?.container
    }

    /// A request on a group's descriptor.
    ///
    /// # Errors
    /// The [`Refusal`], whose errno the client gets. [`Refusal::NoVfioDevice`] for a group that the
    /// system does not have.
    #[doc(alias("VFIO_GROUP_SET_CONTAINER", "VFIO_GROUP_GET_DEVICE_FD"))]
    pub fn group_ioctl(
        &mut self,
        id: GroupId,
        ctx: &mut Ctx<'_>,
        request: u32,
        arg: u64,
    ) -> Answer {
        if !self.groups.contains_key(&id) {
            return Err(Refusal::NoVfioDevice(id));
        }
        match request {
            ioctl::VFIO_GROUP_GET_STATUS => self.group_status(id, ctx, arg),
            ioctl::VFIO_GROUP_SET_CONTAINER => self.set_container(id, ctx, arg),
            ioctl::VFIO_GROUP_UNSET_CONTAINER => self.unset_container(id, ctx),
            ioctl::VFIO_GROUP_GET_DEVICE_FD => self.get_device_fd(id, ctx, arg),
            _ => Err(Refusal::UnknownRequest(request)),
        }
    }

    fn group_status(&self, id: GroupId, ctx: &mut Ctx<'_>, arg: u64) -> Answer {
        let mut status: GroupStatus = user::read_all(ctx.caller, arg)?;
        if status.argsz < GroupStatus::MIN_ARGSZ {
            let (argsz, min) = (status.argsz, GroupStatus::MIN_ARGSZ);
            return Err(Refusal::ArgszTooSmall { argsz, min });
        }
        if self.is_gone(id) {
            return Err(Refusal::GroupGone(id));
        }
        let flags = if self.container_of(id).is_some() {
            GroupFlags::CONTAINER_SET | GroupFlags::VIABLE
        } else if self.check_viable(id).is_ok() {
            GroupFlags::VIABLE
        } else {
            GroupFlags::empty()
        };
        status.flags = flags.bits();
        user::write(ctx.caller, arg, &status, size_of::<GroupStatus>())?;
        Ok(0)
    }

    fn set_container(&mut self, id: GroupId, ctx: &mut Ctx<'_>, arg: u64) -> Answer {
        let mut fd = [0; 4];
        ctx.caller.copy_in(arg, &mut fd)?;
        let fd = i32::from_ne_bytes(fd);
        let object = ctx.caller.fd(fd);
        if object == FdObject::Closed {
            return Err(Refusal::BadFd(fd));
        }
        if self.container_of(id).is_some() && !planted::is_planted() {
            return Err(Refusal::HasContainer(id));
        }
        if self.is_gone(id) {
            return Err(Refusal::GroupGone(id));
        }
        let FdObject::Container(container) = object else {
            return Err(Refusal::NotAContainer(fd));
        };
        self.check_viable(id)?;
        if let Some(region) = self.shared.host.group(id.0).and_then(iommu::space::needs_direct) {
            let (group, region) = (id.0, region.clone());
            return Err(AttachRefusal::NeedsDirect { group, region }.into());
        }
        let mut joined = Err(Refusal::NotAContainer(fd));
        let (shared, caller) = (&mut self.shared, &mut *ctx.caller);
        ctx.containers.change(container, &mut |c| joined = c.join(shared, caller, id));
        joined?;
        if let Some(group) = self.groups.get_mut(&id) {
            group.container = Some(container);
        }
        Ok(0)
    }

    fn unset_container(&mut self, id: GroupId, ctx: &mut Ctx<'_>) -> Answer {
        if self.container_of(id).is_none() {
            return Err(Refusal::HasNoContainer(id));
        }
        let open = self.groups.get(&id).map_or(0, |g| g.open_devices);
        if open != 0 {
            return Err(Refusal::DevicesOpen { group: id, open });
        }
        self.leave_container(id, ctx);
        Ok(0)
    }

    pub(crate) fn leave_container(&mut self, id: GroupId, ctx: &mut Ctx<'_>) {
        let Some(container) = self.groups.get_mut(&id).and_then(|g| g.container.take()) else {
            return;
        };
        let (shared, caller) = (&mut self.shared, &mut *ctx.caller);
        ctx.containers.change(container, &mut |c| c.leave(shared, caller, id));
    }

    /// The group ends with its last descriptor, its devices' included.
    fn release_group(&mut self, id: GroupId, ctx: &mut Ctx<'_>) {
        if self.groups.get(&id).is_some_and(|g| !g.open && g.open_devices == 0) {
            self.leave_container(id, ctx);
        }
    }

    fn check_viable(&self, id: GroupId) -> Result<(), Refusal> {
        for device in self.groups.get(&id).map_or(&[][..], |g| &g.devices) {
            if let Some(Bound { function, driver: Driver::Host(driver) }) = self.bound(*device) {
                let device = function.name.clone();
                return Err(Refusal::NotViable { group: id, device, driver: driver.clone() });
            }
        }
        Ok(())
    }

    fn get_device_fd(&mut self, id: GroupId, ctx: &mut Ctx<'_>, arg: u64) -> Answer {
        let page = usize::try_from(self.shared.host.page_size).unwrap_or(4096);
        let Text::Whole(text) = user::read_string(ctx.caller, arg, page)? else {
            return Err(Refusal::NameTooLong);
        };
        let device = self.find_device(id, &text)?;
        let Some(container) = self.container_of(id) else {
            return Err(Refusal::HasNoContainer(id));
        };
        let mut has_iommu = false;
        ctx.containers.read(container, &mut |c| has_iommu = c.type1().is_some());
        if !has_iommu {
            return Err(Refusal::NoIommu);
        }
        self.open_device(device, container, ctx)?;
        if let Some(group) = self.groups.get_mut(&id) {
            group.open_devices = group.open_devices.saturating_add(1);
        }
        match ctx.caller.install_device_fd(device) {
            Ok(fd) => Ok(i64::from(fd)),
            Err(errno) => {
                self.close_device(device, ctx);
                Err(Refusal::NoDescriptor(errno))
            }
        }
    }

    /// The device of a group that a name means: its address, then perhaps options.
    fn find_device(&self, id: GroupId, text: &[u8]) -> Result<DeviceId, Refusal> {
        for device in self.groups.get(&id).map_or(&[][..], |g| &g.devices) {
            let Some(Bound { function, driver: Driver::VfioPci }) = self.bound(*device) else {
                continue;
            };
            match text.strip_prefix(function.name.as_bytes()) {
                Some([]) => return Ok(*device),
                Some(rest @ [b' ', ..]) => {
                    // The one option there is, a token, belongs to devices with virtual functions.
                    if rest.iter().all(|b| *b == b' ') {
                        return Ok(*device);
                    }
                    let option = String::from_utf8_lossy(rest).into_owned();
                    return Err(Refusal::DeviceOption(option));
                }
                _ => {}
            }
        }
        let name = String::from_utf8_lossy(text).into_owned();
        Err(Refusal::NoSuchDevice { group: id, name })
    }

    /// A device descriptor was closed for good. Nothing happens when none is open.
    pub fn close_device(&mut self, id: DeviceId, ctx: &mut Ctx<'_>) {
        let Some(group) = self.function(id).map(|f| f.group) else { return };
        if !self.shut_device(id, ctx) {
            return;
        }
        if let Some(g) = self.groups.get_mut(&group) {
            g.open_devices = g.open_devices.saturating_sub(1);
        }
        self.release_group(group, ctx);
        self.closed_while_leaving(id, ctx);
    }
}
