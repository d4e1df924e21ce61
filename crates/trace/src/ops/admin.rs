//! What an administrator sets: limits, users, module parameters, drivers.

use super::calls::no_device;
use super::{Answer, Done, Failure, Op};
use crate::request::low32;

pub(super) fn rlimit_memlock(op: &mut Op<'_>) -> Done {
    let bytes = op.request.number("value", 0)?;
    let done = op.world.process.set_memlock(bytes);
    Ok(Answer::done(done.map_err(|errno| Failure::new(errno, "only root may raise a limit"))))
}

pub(super) fn setuid(op: &mut Op<'_>) -> Done {
    let uid = low32(op.request.number("uid", 1000)?);
    let done = op.world.process.set_uid(uid);
    Ok(Answer::done(done.map_err(|errno| Failure::new(errno, "only root may become another user"))))
}

pub(super) fn locked_kb(op: &mut Op<'_>) -> Done {
    let mut answer = Answer::ok();
    answer.put("kb", op.world.locked_bytes() >> 10);
    Ok(answer)
}

pub(super) fn module_param(op: &mut Op<'_>) -> Done {
    let name = op.request.text_or("name", "dma_entry_limit")?;
    let value = op.request.text_or("value", "")?;
    Ok(Answer::done(op.world.set_param(&name, &value)))
}

pub(super) fn bind(op: &mut Op<'_>) -> Done {
    let name = op.request.text_or("dev", "")?;
    let Some(device) = op.world.find_device(&name) else { return no_device(op) };
    let driver = op.request.text_or("driver", "vfio-pci")?;
    Ok(Answer::done(op.world.bind(device, &driver)))
}

pub(super) fn unbind(op: &mut Op<'_>) -> Done {
    let name = op.request.text_or("dev", "")?;
    let Some(device) = op.world.find_device(&name) else { return no_device(op) };
    Ok(Answer::done(op.world.unbind(device)))
}

pub(super) fn remove(op: &mut Op<'_>) -> Done {
    let name = op.request.text_or("dev", "")?;
    let Some(device) = op.world.find_device(&name) else { return no_device(op) };
    op.world.remove(device);
    Ok(Answer::done(Ok(())))
}
