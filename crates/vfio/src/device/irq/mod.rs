//! Interrupts of a device: `VFIO_DEVICE_SET_IRQS` and what comes of it.
//!
//! A device has one interrupt *mode* at a time (none, INTx, MSI or MSI-X); the error and the
//! request interrupt stand beside it. [`Irqs`] holds the mode, the vectors and every eventfd, and
//! programs the function: the user's own writes of MSI registers never reach it.
//!
//! ```text
//!   SET_IRQS ──► request (bytes, range) ──► intx │ msi │ err_req ──► function (registers)
//!   the function's MSI write ──► doorbell ──► deliver_msi ──► eventfd
//!   the function's INTx line ──► set_line ──► mask, eventfd
//! ```
//!
//! Invariants: every [`EventId`] that was taken is given back exactly once; a doorbell reference
//! is held exactly while MSI or MSI-X is enabled; a refused request that was to enable something
//! leaves nothing behind. The order of checks is the kernel's, from recorded traces.

mod env;
mod err_req;
mod function;
mod info;
mod intx;
mod msi;
mod refusal;
mod request;
#[cfg(test)]
mod tests;

use core::mem;

use uapi::irq::IrqIndex;

pub use env::{Doorbells, IrqEnv};
pub use info::IrqKind;
pub use refusal::IrqRefusal;

use self::function::MsiKind;
use self::intx::Intx;
use self::msi::Vectors;
use self::request::Request;
use crate::{Caller, EventId, Platform};

/// Which kind of interrupt is enabled.
#[derive(Debug, Default)]
enum Mode {
    #[default]
    Off,
    Intx(Intx),
    Msi(Vectors),
}

/// The interrupts of one device, while it is open.
#[derive(Debug, Default)]
pub struct Irqs {
    mode: Mode,
    err: Option<EventId>,
    req: Option<EventId>,
    /// The user's INTx-disable bit.
    user_intx_disable: bool,
    /// The level of the function's INTx line.
    line: bool,
}

impl Irqs {
    /// No interrupt enabled, the line low.
    #[must_use]
    pub const fn new() -> Self {
        Self { mode: Mode::Off, err: None, req: None, user_intx_disable: false, line: false }
    }

    /// The kind of interrupt that is enabled: INTx, MSI or MSI-X.
    #[must_use]
    pub const fn mode(&self) -> Option<IrqIndex> {
        match &self.mode {
            Mode::Off => None,
            Mode::Intx(_) => Some(IrqIndex::Intx),
            Mode::Msi(enabled) => Some(enabled.kind.index()),
        }
    }

    /// Vectors taken from the interrupt controller.
    #[must_use]
    pub fn vectors_used(&self) -> u32 {
        match &self.mode {
            Mode::Msi(enabled) => enabled.used(),
            _ => 0,
        }
    }

    /// While MSI is enabled: log2 of the largest number of vectors that the user may write into
    /// the multiple-message-enable field of his virtual MSI capability.
    #[must_use]
    pub fn msi_vectors_log2(&self) -> Option<u8> {
        match &self.mode {
            Mode::Msi(enabled) if enabled.kind == MsiKind::Msi => {
                Some(function::log2(enabled.len()))
            }
            _ => None,
        }
    }

    /// `VFIO_DEVICE_SET_IRQS` with the caller's argument `arg`.
    ///
    /// The answer is 0, or the number of vectors available where more were asked than the
    /// interrupt controller can give; nothing is enabled then.
    ///
    /// # Errors
    /// [`IrqRefusal`] says why. A request that was to enable a mode leaves it off; one that was to
    /// change enabled vectors has taken the eventfds of those up to the bad one away.
    pub fn set_irqs(&mut self, env: &mut IrqEnv<'_>, arg: u64) -> Result<i64, IrqRefusal> {
        let (model, dialect) = (&*env.model, env.dialect);
        let request = Request::copy_in(env.caller, arg, |kind| info::count(kind, model, dialect))?;
        match request.index {
            IrqIndex::Intx => self.set_intx(env, &request),
            IrqIndex::Msi => self.set_msi(env, &request, MsiKind::Msi),
            IrqIndex::Msix => self.set_msi(env, &request, MsiKind::Msix),
            IrqIndex::Err | IrqIndex::Req => self.set_single(env, &request),
        }
    }

    /// The first open: the function's own INTx-disable bit goes, so that it means what it says.
    pub fn opened(&mut self, model: &mut dyn pci::Device) {
        if model.config().command().contains(pci::Command::INTX_DISABLE) {
            function::set_intx_disable(model, false, &mut self.line);
        }
    }

    /// The last close: everything off, every eventfd given back.
    pub fn teardown(&mut self, env: &mut IrqEnv<'_>) {
        self.disable(env);
        for event in [self.err.take(), self.req.take()].into_iter().flatten() {
            env.caller.put_event(event);
        }
        self.user_intx_disable = false;
    }

    /// The function was reset, and its configuration space restored: the mode, its vectors and
    /// their eventfds stay; the function is programmed again. Its line is low.
    pub fn restored(&mut self, model: &mut dyn pci::Device, platform: &mut dyn Platform) {
        self.line = false;
        match &self.mode {
            Mode::Off => {}
            Mode::Intx(intx) => {
                function::set_intx_disable(model, intx.is_masked(), &mut self.line);
            }
            Mode::Msi(enabled) => enabled.restore(model, platform, &mut self.line),
        }
    }

    /// Turns the mode off.
    fn disable(&mut self, env: &mut IrqEnv<'_>) {
        match mem::take(&mut self.mode) {
            Mode::Off => {}
            // The physical INTx-disable bit stays as it was.
            Mode::Intx(intx) => intx.release(env.caller),
            Mode::Msi(enabled) => {
                function::disable_msi(env.model, enabled.kind, &mut self.line);
                env.doorbells.release();
                for event in enabled.events() {
                    env.caller.put_event(event);
                }
            }
        }
    }

    /// Refuses when another mode than `wanted` is enabled.
    fn no_other_mode(&self, wanted: IrqIndex) -> Result<(), IrqRefusal> {
        match self.mode() {
            Some(enabled) if enabled != wanted => Err(IrqRefusal::OtherEnabled { wanted, enabled }),
            _ => Ok(()),
        }
    }
}

/// The eventfd behind a descriptor that is not negative.
fn get_event(caller: &mut dyn Caller, fd: i32) -> Result<EventId, IrqRefusal> {
    caller.get_event(fd).map_err(|why| IrqRefusal::BadEvent { fd, why })
}
