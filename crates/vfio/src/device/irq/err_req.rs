//! The error and the request interrupt: one eventfd each, beside whatever mode is enabled.

use uapi::irq::IrqIndex;

use super::request::{Action, Data, Request};
use super::{IrqEnv, IrqRefusal, Irqs, get_event};
use crate::{EventId, Platform};

impl Irqs {
    /// `SET_IRQS` of the error or request interrupt.
    pub(super) fn set_single(
        &mut self,
        env: &mut IrqEnv<'_>,
        request: &Request,
    ) -> Result<i64, IrqRefusal> {
        if request.action != Some(Action::Trigger) {
            return Err(request.no_such_action());
        }
        let index = request.index;
        let slot = if index == IrqIndex::Err { &mut self.err } else { &mut self.req };
        match &request.data {
            Data::None => {
                let Some(event) = *slot else { return Err(IrqRefusal::NoEvent(index)) };
                if request.count == 0 {
                    *slot = None;
                    env.caller.put_event(event);
                } else {
                    env.caller.signal(event);
                }
            }
            Data::Bools(b) if b.is_empty() => return Err(IrqRefusal::NoElement(index)),
            Data::Bools(_) => {
                if let Some(event) = *slot
                    && request.wants(0)
                {
                    env.caller.signal(event);
                }
            }
            Data::Events(fds) => {
                let fd = *fds.first().ok_or(IrqRefusal::NoElement(index))?;
                let new = match fd {
                    -1 => None,
                    0.. => Some(get_event(env.caller, fd)?),
                    _ if env.dialect.odd_err_fd_ignored => return Ok(0),
                    _ => return Err(IrqRefusal::OddFd(fd)),
                };
                replace(env, slot, new);
            }
        }
        Ok(0)
    }

    /// Signals the error interrupt: the bus reported an uncorrected error. `false` when the user
    /// did not ask for it.
    pub fn signal_err(&self, platform: &mut dyn Platform) -> bool {
        signal(self.err, platform)
    }

    /// Signals the request interrupt: the host wants the device back. `false` when the user did
    /// not ask for it.
    pub fn signal_req(&self, platform: &mut dyn Platform) -> bool {
        signal(self.req, platform)
    }
}

fn signal(event: Option<EventId>, platform: &mut dyn Platform) -> bool {
    let Some(event) = event else { return false };
    platform.signal(event);
    true
}

fn replace(env: &mut IrqEnv<'_>, slot: &mut Option<EventId>, new: Option<EventId>) {
    if let Some(old) = core::mem::replace(slot, new) {
        env.caller.put_event(old);
    }
}
