//! xmm, ymm and zmm registers in an XSAVE area (Intel SDM volume 1, 13.4 and 13.5).
//!
//! The area is the standard layout, as ptrace gives it: SSE in the legacy region, the rest where
//! CPUID says. What the area does not have reads as zeroes. A component that is not in use is taken
//! into use only if something other than zeroes goes there.

use std::sync::OnceLock;

use crate::sys::ptrace;

/// A register, as long as they get.
pub(crate) type Value = [u8; 64];

const XSTATE_BV: usize = 512;

/// Where parts of registers are in the area.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layout {
    /// Bytes 16 to 31 of registers 0 to 15 (component 2).
    pub(crate) ymm: Option<usize>,
    /// Bytes 32 to 63 of registers 0 to 15 (component 6).
    pub(crate) zmm: Option<usize>,
    /// Registers 16 to 31 (component 7).
    pub(crate) upper: Option<usize>,
}

impl Layout {
    /// This machine's. Asked once: CPUID costs a virtual machine more than all of a trap.
    pub(crate) fn native() -> Self {
        static NATIVE: OnceLock<Layout> = OnceLock::new();
        *NATIVE.get_or_init(|| Self {
            ymm: ptrace::component(2, 16 * 16),
            zmm: ptrace::component(6, 16 * 32),
            upper: ptrace::component(7, 16 * 64),
        })
    }
}

/// A part of a register: its component, where it is in the area, which bytes it is.
type Part = (u8, usize, core::ops::Range<usize>);

/// A thread's vector registers.
#[derive(Clone, Debug)]
pub(crate) struct Vectors {
    pub(crate) area: Vec<u8>,
    layout: Layout,
    pub(crate) changed: bool,
}

impl Vectors {
    /// From what ptrace returns.
    pub(crate) fn new(area: Vec<u8>, layout: Layout) -> Self {
        Self { area, layout, changed: false }
    }

    fn parts(&self, index: usize) -> [Option<Part>; 3] {
        let Layout { ymm, zmm, upper } = self.layout;
        match index {
            0..16 => [
                Some((1, 160 + 16 * index, 0..16)),
                ymm.map(|at| (2, at + 16 * index, 16..32)),
                zmm.map(|at| (6, at + 32 * index, 32..64)),
            ],
            16..32 => [upper.map(|at| (7, at + 64 * (index - 16), 0..64)), None, None],
            _ => [None, None, None],
        }
    }

    /// A register. None: there is no such register.
    pub(crate) fn get(&self, index: usize) -> Option<Value> {
        let parts = self.parts(index);
        parts[0].as_ref()?;
        let mut value = [0; 64];
        for (_, at, bytes) in parts.into_iter().flatten() {
            let part = value.get_mut(bytes)?;
            part.copy_from_slice(self.area.get(at..at + part.len())?);
        }
        Some(value)
    }

    /// Change a register.
    pub(crate) fn set(&mut self, index: usize, value: &Value) -> Option<()> {
        let parts = self.parts(index);
        parts[0].as_ref()?;
        for (component, at, bytes) in parts.into_iter().flatten() {
            let part = value.get(bytes)?;
            self.area.get_mut(at..at + part.len())?.copy_from_slice(part);
            if part.iter().any(|byte| *byte != 0) {
                *self.area.get_mut(XSTATE_BV)? |= 1 << component;
            }
        }
        self.changed = true;
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As on a processor with AVX-512.
    const LAYOUT: Layout = Layout { ymm: Some(576), zmm: Some(1152), upper: Some(1664) };

    #[test]
    fn parts_are_where_they_belong() {
        let mut vectors = Vectors::new(vec![0; 2688], LAYOUT);
        let value = core::array::from_fn(|n| n as u8 + 1);
        vectors.set(1, &value).unwrap();
        vectors.set(31, &value).unwrap();
        assert_eq!(vectors.get(1), Some(value));
        assert_eq!(vectors.get(31), Some(value));
        assert_eq!(vectors.get(0), Some([0; 64]));
        assert_eq!(vectors.get(32), None);
        assert_eq!(vectors.area[176..192], value[..16]);
        assert_eq!(vectors.area[592..608], value[16..32]);
        assert_eq!(vectors.area[1184..1216], value[32..]);
        assert_eq!(vectors.area[2624..2688], value);
        assert_eq!(vectors.area[XSTATE_BV], 0b1100_0110);
    }

    #[test]
    fn a_short_register_uses_no_long_one() {
        let mut vectors = Vectors::new(vec![0; 2688], LAYOUT);
        let mut value = [0; 64];
        value[3] = 1;
        vectors.set(15, &value).unwrap();
        assert_eq!(vectors.area[XSTATE_BV], 0b10);
        let old = Layout { ymm: None, zmm: None, upper: None };
        let vectors = Vectors::new(vec![7; 576], old);
        assert_eq!(vectors.get(16), None);
        assert_eq!(vectors.get(2).map(|value| (value[15], value[16])), Some((7, 0)));
    }
}
