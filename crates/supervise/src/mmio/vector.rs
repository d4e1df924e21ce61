//! xmm and ymm registers in an XSAVE area (Intel SDM volume 1, 13.4).
//!
//! The area is the standard layout, as ptrace gives it: SSE in the legacy region, the upper halves
//! where CPUID says. zmm and mask registers are left alone.

use crate::sys::ptrace;

const XMM0: usize = 160;
const XSTATE_BV: usize = 512;
const SSE: u8 = 1 << 1;
const AVX: u8 = 1 << 2;

/// A thread's vector registers.
#[derive(Clone, Debug)]
pub(crate) struct Vectors {
    pub(crate) area: Vec<u8>,
    upper: Option<usize>,
    pub(crate) changed: bool,
}

impl Vectors {
    /// From what ptrace returns.
    pub(crate) fn new(area: Vec<u8>) -> Self {
        let upper = ptrace::ymm_offset().filter(|at| area.len() >= at + 256);
        Self { area, upper, changed: false }
    }

    /// The low 256 bits of a register. None: there is no such register.
    pub(crate) fn get(&self, index: usize) -> Option<[u8; 32]> {
        let mut value = [0; 32];
        let low = self.area.get(low(index)?..)?.get(..16)?;
        value.get_mut(..16)?.copy_from_slice(low);
        if let Some(upper) = self.upper {
            let high = self.area.get(upper + 16 * index..)?.get(..16)?;
            value.get_mut(16..)?.copy_from_slice(high);
        }
        Some(value)
    }

    /// Change a register; both halves are in use afterwards.
    pub(crate) fn set(&mut self, index: usize, value: &[u8; 32]) -> Option<()> {
        let (xmm, high) = value.split_at(16);
        self.area.get_mut(low(index)?..)?.get_mut(..16)?.copy_from_slice(xmm);
        let mut used = SSE;
        if let Some(upper) = self.upper {
            self.area.get_mut(upper + 16 * index..)?.get_mut(..16)?.copy_from_slice(high);
            used |= AVX;
        }
        if let Some(header) = self.area.get_mut(XSTATE_BV) {
            *header |= used;
        }
        self.changed = true;
        Some(())
    }
}

fn low(index: usize) -> Option<usize> {
    (index < 16).then_some(XMM0 + 16 * index)
}
