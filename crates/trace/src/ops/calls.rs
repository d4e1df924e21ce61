//! Opening and closing; the calls of containers and groups that take no big structure.

use uapi::{Errno, ioctl};

use super::{Answer, Arg, Done, Failure, Op, Stop};
use crate::names::IOMMU_TYPES;
use crate::process::SCRATCH;

/// Puts a new descriptor in its slot.
macro_rules! open {
    ($op:ident, $slots:ident, $slot:ident, $open:expr) => {{
        let old = std::mem::replace(&mut $op.world.slots.$slots[$slot], -1);
        $op.world.close_old(old);
        let result = $open;
        if let Ok(fd) = result {
            $op.world.slots.$slots[$slot] = fd;
        }
        Ok(Answer::done(result))
    }};
}
pub(super) use open;

pub(super) fn open_container(op: &mut Op<'_>) -> Done {
    let slot = op.request.slot("c", op.world.slots.c.len())?;
    open!(op, c, slot, op.world.open_container())
}

pub(super) fn open_iommufd(op: &mut Op<'_>) -> Done {
    let slot = op.request.slot("c", op.world.slots.c.len())?;
    let failed: Result<i32, _> =
        Err(Failure::new(Errno::ENOENT, "the kernels known here have no /dev/iommu"));
    open!(op, c, slot, failed)
}

pub(super) fn open_group(op: &mut Op<'_>) -> Done {
    let slot = op.request.slot("g", op.world.slots.g.len())?;
    let name = op.request.text_or("dev", "edu")?;
    let Some(device) = op.world.find_device(&name) else { return no_device(op) };
    let group = op.world.devices[device].group;
    open!(op, g, slot, op.world.open_group(group))
}

/// A device that the header does not have.
pub(super) fn no_device(op: &Op<'_>) -> Done {
    Ok(op
        .request
        .bad("dev", format!("one of the header's devices: {}", op.world.device_names()))?)
}

pub(super) fn close(op: &mut Op<'_>) -> Done {
    let word = op.request.text_or("fd", "c0")?;
    let fd = std::mem::replace(op.any_fd("fd", &word)?, -1);
    Ok(Answer::done(op.world.close(fd)))
}

pub(super) fn api_version(op: &mut Op<'_>) -> Done {
    let value = op.request.number("value", 0)?;
    let fd = op.container()?;
    Ok(Answer::of(&op.world.ioctl(fd, ioctl::VFIO_GET_API_VERSION, value)))
}

pub(super) fn check_extension(op: &mut Op<'_>) -> Done {
    let value = if op.request.has("raw_ext") {
        op.request.number("raw_ext", 0)?
    } else {
        u64::from(op.request.named("ext", IOMMU_TYPES, 0)?)
    };
    let fd = op.container()?;
    Ok(Answer::of(&op.world.ioctl(fd, ioctl::VFIO_CHECK_EXTENSION, value)))
}

pub(super) fn set_iommu(op: &mut Op<'_>) -> Done {
    let value = u64::from(op.request.named("type", IOMMU_TYPES, 3)?);
    let fd = op.container()?;
    op.world.note_decoding();
    Ok(Answer::of(&op.world.ioctl(fd, ioctl::VFIO_SET_IOMMU, value)))
}

pub(super) fn group_status(op: &mut Op<'_>) -> Done {
    let arg = Arg::new(op)?;
    let argsz = op.request.number32("argsz", 8)?;
    arg.put(op, 0, &super::arg::words(&[argsz, 0]))?;
    let fd = op.group()?;
    let result = op.request_with(fd, ioctl::VFIO_GROUP_GET_STATUS, arg);
    let mut answer = Answer::of(&result);
    if result.is_ok() {
        answer.put("argsz", arg.u32(op, 0)?).put_hex("flags", arg.u32(op, 4)?);
    }
    Ok(answer)
}

pub(super) fn set_container(op: &mut Op<'_>) -> Done {
    let target = if op.request.has("fd") {
        let text = op.request.text_or("fd", "c0")?;
        op.fd_of("fd", &text)?
    } else {
        op.container()?
    };
    let at = scratch(op, &target.to_le_bytes())?;
    let fd = op.group()?;
    op.world.note_decoding();
    Ok(Answer::of(&op.world.ioctl(fd, ioctl::VFIO_GROUP_SET_CONTAINER, at)))
}

pub(super) fn unset_container(op: &mut Op<'_>) -> Done {
    let fd = op.group()?;
    Ok(Answer::of(&op.world.ioctl(fd, ioctl::VFIO_GROUP_UNSET_CONTAINER, 0)))
}

pub(super) fn get_device_fd(op: &mut Op<'_>) -> Done {
    let slot = op.request.slot("d", op.world.slots.d.len())?;
    let device = op.request.text_or("dev", "edu")?;
    let bdf = op.world.find_device(&device).map(|i| op.world.devices[i].bdf.clone());
    let name = op.request.text_or("name", bdf.as_deref().unwrap_or("?"))?.into_owned();
    let mut bytes = name.into_bytes();
    bytes.push(0);
    let at = scratch(op, &bytes)?;
    let group = op.group()?;
    open!(op, d, slot, {
        op.world.ioctl(group, ioctl::VFIO_GROUP_GET_DEVICE_FD, at).map(fd_number)
    })
}

/// A descriptor that a request answered.
fn fd_number(ret: i64) -> i32 {
    i32::try_from(ret).unwrap_or(-1)
}

/// Puts what the recording program has on its stack where requests can read it. What is longer
/// than any request reads is cut.
pub(super) fn scratch(op: &mut Op<'_>, bytes: &[u8]) -> Result<u64, Stop> {
    let at = op.world.process.scratch();
    let room = usize::try_from(SCRATCH).unwrap_or(usize::MAX);
    op.world.process.store(at, bytes.get(..room).unwrap_or(bytes))?;
    Ok(at)
}
