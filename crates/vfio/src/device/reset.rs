//! Reset of a function, and what must come back after it.

use alloc::vec::Vec;

use pci::regs::{self, cap, pm};

use super::{Device, DeviceEnv, DeviceRefusal, is_in_d3, power_register, set_power_state};
use crate::Platform;

/// Configuration space as it was, for `pci_restore_state`: the header and the capabilities whose
/// state the host owns.
pub(super) struct Saved {
    header: Vec<u8>,
    /// Offset and bytes.
    capabilities: Vec<(u16, Vec<u8>)>,
}

impl Saved {
    /// Takes note of a function's configuration space.
    pub(super) fn of(model: &dyn pci::Device) -> Self {
        const KEPT: [u8; 4] = [cap::MSI, cap::PCIX, cap::EXPRESS, cap::MSIX];
        let config = model.config();
        let bytes = |at: u16, len| config.bytes().iter().skip(at.into()).take(len).copied();
        let kept = config.capabilities().filter(|c| KEPT.iter().any(|id| c.id == u16::from(*id)));
        Self {
            header: bytes(0, regs::HEADER_END.into()).collect(),
            capabilities: kept
                .map(|c| (c.offset, bytes(c.offset, c.len(config)).collect()))
                .collect(),
        }
    }

    /// Brings it back.
    pub(super) fn restore(&self, model: &mut dyn pci::Device) {
        let config = model.config_mut();
        for (offset, bytes) in &self.capabilities {
            config.write(*offset, bytes);
        }
        // The status register clears what it is written: nothing was pending in what was saved.
        config.write(regs::COMMAND, self.part(regs::COMMAND..regs::STATUS));
        config.write(regs::REVISION, self.part(regs::REVISION..regs::HEADER_END));
    }

    fn part(&self, range: core::ops::Range<u16>) -> &[u8] {
        self.header.get(usize::from(range.start)..usize::from(range.end)).unwrap_or(&[])
    }
}

/// Resets a function; its configuration space is as before, and in D0.
pub(super) fn reset(model: &mut dyn pci::Device) {
    set_power_state(model, 0);
    let saved = Saved::of(model);
    model.reset();
    saved.restore(model);
}

impl Device {
    /// `VFIO_DEVICE_RESET`. Interrupts stay as they are set, and so does what the user wrote to
    /// his configuration space.
    pub(super) fn reset(&mut self, env: &mut DeviceEnv<'_>) -> Result<i64, DeviceRefusal> {
        if !self.opened()?.reset_works {
            return Err(DeviceRefusal::NoReset);
        }
        self.reset_function(env.caller)?;
        Ok(0)
    }

    /// Resets the function and programs its interrupts anew.
    pub(super) fn reset_function(
        &mut self,
        platform: &mut dyn Platform,
    ) -> Result<(), DeviceRefusal> {
        let open = self.open.as_mut().ok_or(DeviceRefusal::NotThere)?;
        let model = self.model.as_mut();
        open.saved_in_d3 = None;
        reset(model);
        open.irqs.restored(model, platform);
        Ok(())
    }

    /// Resets the function with its bus: also where nobody has it open.
    pub(super) fn reset_with_bus(&mut self, platform: &mut dyn Platform) {
        if self.reset_function(platform).is_err() {
            reset(self.model.as_mut());
        }
    }

    /// A write of the power state, 0 (D0) to 3 (D3hot). States the function has not are ignored,
    /// and so is the way from D3hot to anything but D0.
    pub(super) fn set_power(&mut self, state: u16) -> Result<(), DeviceRefusal> {
        /// Support of D1 and D2, in the capabilities.
        const D1: u16 = 1 << 9;
        const D2: u16 = 1 << 10;
        let open = self.open.as_mut().ok_or(DeviceRefusal::NotThere)?;
        let model = self.model.as_mut();
        let config = model.config();
        let Some(control) = power_register(config) else { return Ok(()) };
        let able = config.u16(control.wrapping_sub(pm::PMCSR).saturating_add(pm::PMC));
        let supported = match state {
            1 => able & D1 != 0,
            2 => able & D2 != 0,
            _ => true,
        };
        let (now, forgets) = (config.u16(control) & pm::STATE_MASK, forgets_in_d3(config));
        if !supported || (now > state && state != 0) || now == state {
            return Ok(());
        }
        if state == 3 && forgets {
            open.saved_in_d3 = Some(Saved::of(model));
        }
        let was_in_d3 = is_in_d3(model.config());
        set_power_state(model, state);
        if was_in_d3 && let Some(saved) = open.saved_in_d3.take() {
            saved.restore(model);
        }
        Ok(())
    }
}

/// Whether the function's state is lost between D3hot and D0.
fn forgets_in_d3(config: &pci::ConfigSpace) -> bool {
    power_register(config).is_some_and(|at| config.u16(at) & pm::NO_SOFT_RESET == 0)
}
