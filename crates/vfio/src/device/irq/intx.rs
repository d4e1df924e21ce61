//! INTx: one level-triggered line, masked by the host each time it fires.
//!
//! The function is taken for a PCI 2.3 device: the host masks it by `COMMAND.INTX_DISABLE` of the
//! physical configuration space and sees in `STATUS.INTERRUPT` whether it still wants service. The
//! user has the same bit in his virtual configuration space; while he sets it, nothing is
//! signalled and an unmask does nothing.
//!
//! Loopback (trigger without eventfd data) goes to the eventfd whether masked or not.

use uapi::irq::IrqIndex;

use super::request::{Action, Data, Request};
use super::{IrqEnv, IrqRefusal, Irqs, Mode, function, get_event};
use crate::{EventId, Platform};

/// INTx, enabled.
#[derive(Debug)]
pub(super) struct Intx {
    /// Signalled when the line fires; INTx may be enabled without.
    trigger: Option<EventId>,
    /// Masked: the line does not fire.
    masked: bool,
    /// Unmasks when signalled.
    unmask: Option<EventId>,
}

impl Intx {
    /// Whether the line is kept from firing.
    pub(super) const fn is_masked(&self) -> bool {
        self.masked
    }

    /// Gives every eventfd back.
    pub(super) fn release(mut self, platform: &mut dyn Platform) {
        self.stop_listening(platform);
        if let Some(event) = self.trigger {
            platform.put_event(event);
        }
    }

    /// Removes the unmask eventfd. Its counter is lost: the kernel reads it as it leaves.
    fn stop_listening(&mut self, platform: &mut dyn Platform) {
        if let Some(event) = self.unmask.take() {
            platform.clear_event(event);
            platform.put_event(event);
        }
    }
}

impl Irqs {
    /// `SET_IRQS` of INTx.
    pub(super) fn set_intx(
        &mut self,
        env: &mut IrqEnv<'_>,
        request: &Request,
    ) -> Result<i64, IrqRefusal> {
        match request.action {
            Some(Action::Mask) => self.mask_intx(env, request),
            Some(Action::Unmask) => self.unmask_intx(env, request),
            Some(Action::Trigger) => self.trigger_intx(env, request),
            None => Err(request.no_such_action()),
        }
    }

    fn mask_intx(&mut self, env: &mut IrqEnv<'_>, request: &Request) -> Result<i64, IrqRefusal> {
        self.enabled_intx(request)?;
        if matches!(request.data, Data::Events(_)) {
            return Err(IrqRefusal::MaskByEvent);
        }
        if request.wants(0) {
            self.mask(env.model);
        }
        Ok(0)
    }

    fn unmask_intx(&mut self, env: &mut IrqEnv<'_>, request: &Request) -> Result<i64, IrqRefusal> {
        let intx = self.enabled_intx(request)?;
        let Data::Events(fds) = &request.data else {
            if request.wants(0) {
                self.unmask(env.model, env.caller);
            }
            return Ok(0);
        };
        let fd = fds.first().copied().unwrap_or(-1);
        if fd < 0 {
            intx.stop_listening(env.caller);
            return Ok(0);
        }
        let event = get_event(env.caller, fd)?;
        if intx.unmask.is_some() {
            env.caller.put_event(event);
            return Err(IrqRefusal::UnmaskTaken);
        }
        intx.unmask = Some(event);
        if env.caller.event_pending(event) {
            self.unmask(env.model, env.caller);
        }
        Ok(0)
    }

    fn trigger_intx(&mut self, env: &mut IrqEnv<'_>, request: &Request) -> Result<i64, IrqRefusal> {
        let enabled = matches!(self.mode, Mode::Intx(_));
        if enabled && request.count == 0 && request.data == Data::None {
            self.disable(env);
            return Ok(0);
        }
        self.no_other_mode(IrqIndex::Intx)?;
        one_line(request)?;
        if let Data::Events(fds) = &request.data {
            let event = match fds.first() {
                Some(&fd) if fd >= 0 => Some(get_event(env.caller, fd)?),
                _ => None,
            };
            return self.set_trigger(env, event);
        }
        if !enabled {
            return Err(IrqRefusal::NotEnabled(IrqIndex::Intx));
        }
        if request.wants(0) {
            self.signal_intx(env.caller);
        }
        Ok(0)
    }

    /// Sets or replaces the eventfd; enables INTx when it was not. A mask stays.
    fn set_trigger(
        &mut self,
        env: &mut IrqEnv<'_>,
        event: Option<EventId>,
    ) -> Result<i64, IrqRefusal> {
        if let Mode::Intx(intx) = &mut self.mode {
            if let Some(old) = core::mem::replace(&mut intx.trigger, event) {
                env.caller.put_event(old);
            }
            return Ok(0);
        }
        if !env.line_wired {
            if let Some(event) = event {
                env.caller.put_event(event);
            }
            return Err(IrqRefusal::NotWired);
        }
        let masked = self.user_intx_disable;
        function::set_intx_disable(env.model, masked, &mut self.line);
        self.mode = Mode::Intx(Intx { trigger: event, masked, unmask: None });
        if env.line_up_noticed && self.wants_service(env.model) {
            self.fire(env.model, env.caller);
        }
        Ok(0)
    }

    fn enabled_intx(&mut self, request: &Request) -> Result<&mut Intx, IrqRefusal> {
        let Mode::Intx(intx) = &mut self.mode else {
            return Err(IrqRefusal::NotEnabled(IrqIndex::Intx));
        };
        one_line(request)?;
        Ok(intx)
    }

    /// The function drove its INTx line: `asserted` is its level now. To be called when the model
    /// is at rest; what the line does on the way does not matter, it is level-triggered.
    pub fn set_line(
        &mut self,
        asserted: bool,
        model: &mut dyn pci::Device,
        platform: &mut dyn Platform,
    ) {
        let rose = asserted && !self.line;
        self.line = asserted;
        if rose {
            self.fire(model, platform);
        }
    }

    /// The user set or cleared INTx-disable in his COMMAND register. While INTx is not enabled the
    /// physical bit follows.
    pub fn set_user_intx_disable(
        &mut self,
        disable: bool,
        model: &mut dyn pci::Device,
        platform: &mut dyn Platform,
    ) {
        if disable == self.user_intx_disable {
            return;
        }
        self.user_intx_disable = disable;
        match (&self.mode, disable) {
            (Mode::Intx(_), true) => self.mask(model),
            (Mode::Intx(_), false) => self.unmask(model, platform),
            _ => function::set_intx_disable(model, disable, &mut self.line),
        }
    }

    /// The eventfd that unmasks INTx, for the front end to watch: when it fires, read its counter
    /// back to 0 and call [`unmask_fired`](Self::unmask_fired).
    #[must_use]
    pub const fn unmask_event(&self) -> Option<EventId> {
        match &self.mode {
            Mode::Intx(intx) => intx.unmask,
            _ => None,
        }
    }

    /// The unmask eventfd fired.
    pub fn unmask_fired(&mut self, model: &mut dyn pci::Device, platform: &mut dyn Platform) {
        if self.unmask_event().is_some() {
            self.unmask(model, platform);
        }
    }

    /// The last descriptor of the unmask eventfd was closed: it is removed, as the kernel does on
    /// its hang-up, and another one may be set.
    pub fn unmask_closed(&mut self, platform: &mut dyn Platform) {
        if let Mode::Intx(intx) = &mut self.mode {
            intx.stop_listening(platform);
        }
    }

    /// The interrupt handler: masks the line, then signals.
    fn fire(&mut self, model: &mut dyn pci::Device, platform: &mut dyn Platform) {
        if let Mode::Intx(intx) = &mut self.mode
            && !intx.masked
        {
            intx.masked = true;
            function::set_intx_disable(model, true, &mut self.line);
            self.signal_intx(platform);
        }
    }

    fn mask(&mut self, model: &mut dyn pci::Device) {
        if let Mode::Intx(intx) = &mut self.mode
            && !intx.masked
        {
            intx.masked = true;
            function::set_intx_disable(model, true, &mut self.line);
        }
    }

    /// Unmasks. With the line still up it stays masked and is signalled again instead, which is
    /// what firing at once would come to.
    fn unmask(&mut self, model: &mut dyn pci::Device, platform: &mut dyn Platform) {
        let wants_service = self.wants_service(model);
        let Mode::Intx(intx) = &mut self.mode else { return };
        if !intx.masked || self.user_intx_disable {
            return;
        }
        if wants_service {
            self.signal_intx(platform);
        } else {
            intx.masked = false;
            function::set_intx_disable(model, false, &mut self.line);
            if self.line {
                self.fire(model, platform);
            }
        }
    }

    /// Whether the function wants service, masked or not. A model that drops its line while
    /// INTx is disabled still says so in its status register.
    fn wants_service(&self, model: &dyn pci::Device) -> bool {
        self.line || function::interrupt_status(model)
    }

    fn signal_intx(&self, platform: &mut dyn Platform) {
        if let Mode::Intx(Intx { trigger: Some(event), .. }) = self.mode
            && !self.user_intx_disable
        {
            platform.signal(event);
        }
    }
}

const fn one_line(request: &Request) -> Result<(), IrqRefusal> {
    let Request { start, count, .. } = *request;
    if start == 0 && count == 1 { Ok(()) } else { Err(IrqRefusal::OneLine { start, count }) }
}
