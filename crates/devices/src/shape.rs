//! A function known by its shape only: a recorded configuration space, BARs, a few constants.
//!
//! Enough to answer what a kernel asks of hardware about information, regions and interrupts. Its
//! MSI-X table keeps what is written, its constants read as given, all else reads 0 and does
//! nothing.

use alloc::vec::Vec;

use pci::{Bar, ConfigSpace, Device, DmaBus, MsixTable};

/// Bytes of a BAR that always read the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Constant {
    /// The BAR, 0..=5.
    pub bar: u8,
    /// Bytes from the start of the BAR.
    pub offset: u64,
    /// What is read there.
    pub bytes: Vec<u8>,
}

/// A function without behaviour.
#[derive(Clone, Debug)]
pub struct Shape {
    config: ConfigSpace,
    msix: Option<MsixTable>,
    rom: Vec<u8>,
    constants: Vec<Constant>,
    unclaimed: u8,
}

impl Shape {
    /// From a recording: configuration space (`config` may end early; `config_size` is its full
    /// size in bytes), BARs and ROM, the ROM's contents (empty: none) and constants. Of constants
    /// that overlap the later one counts.
    #[must_use]
    pub fn new(
        config: &[u8],
        config_size: usize,
        bars: &[Option<Bar>; 7],
        rom: Vec<u8>,
        constants: Vec<Constant>,
    ) -> Self {
        let size = pci::ConfigSize::of(config_size);
        let config = ConfigSpace::from_bytes(config, size, bars);
        let msix = MsixTable::find(&config);
        Self { config, msix, rom, constants, unclaimed: 0 }
    }

    /// With what is read, in each byte, behind the MSI-X table in its BAR, where the function
    /// claims nothing: 0 on a PC, ones behind a host bridge that answers for it.
    #[must_use]
    pub const fn with_unclaimed(mut self, byte: u8) -> Self {
        self.unclaimed = byte;
        self
    }
}

impl Device for Shape {
    fn config(&self) -> &ConfigSpace {
        &self.config
    }

    fn config_mut(&mut self) -> &mut ConfigSpace {
        &mut self.config
    }

    fn bar_read(&mut self, bar: u8, offset: u64, data: &mut [u8], _bus: &mut dyn DmaBus) {
        let behind = self.msix.as_ref().filter(|msix| msix.bar() == bar).map(|m| m.range().end);
        for (i, byte) in (0_u64..).zip(data.iter_mut()) {
            let at = offset.saturating_add(i);
            *byte = if behind.is_some_and(|end| at >= end) { self.unclaimed } else { 0 };
        }
        for constant in self.constants.iter().filter(|c| c.bar == bar) {
            for (i, byte) in (0_u64..).zip(data.iter_mut()) {
                let at = offset.saturating_add(i).checked_sub(constant.offset);
                let at = at.and_then(|at| usize::try_from(at).ok());
                if let Some(value) = at.and_then(|at| constant.bytes.get(at)) {
                    *byte = *value;
                }
            }
        }
        if let Some(msix) = &self.msix {
            msix.bar_read(bar, offset, data);
        }
    }

    fn bar_write(&mut self, bar: u8, offset: u64, data: &[u8], bus: &mut dyn DmaBus) {
        if let Some(msix) = &mut self.msix {
            msix.bar_write(bar, offset, data, &self.config, bus);
        }
    }

    fn rom(&self) -> &[u8] {
        &self.rom
    }

    fn reset(&mut self) {
        self.config.reset();
        if let Some(msix) = &mut self.msix {
            msix.reset();
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use pci::Aborted;

    use super::*;

    struct Nowhere;

    impl DmaBus for Nowhere {
        fn read(&mut self, _addr: u64, _data: &mut [u8]) -> Result<(), Aborted> {
            Err(Aborted)
        }

        fn write(&mut self, _addr: u64, _data: &[u8]) -> Result<(), Aborted> {
            Err(Aborted)
        }

        fn set_intx(&mut self, _asserted: bool) {}
    }

    #[test]
    fn constants_and_the_msix_table_are_all_there_is() {
        let mut bytes = vec![0; 0x4c];
        bytes[6] = 0x10;
        bytes[0x34] = 0x40;
        bytes[0x40..0x4c].copy_from_slice(&[0x11, 0, 4, 0, 0, 0x20, 0, 0, 0, 0x30, 0, 0]);
        let capabilities = Constant { bar: 0, offset: 0, bytes: vec![0xff, 7, 1, 0xf] };
        let mut shape = Shape::new(&bytes, 4096, &[None; 7], vec![], vec![capabilities]);
        let mut data = [9; 8];
        shape.bar_read(0, 0, &mut data, &mut Nowhere);
        assert_eq!(data, [0xff, 7, 1, 0xf, 0, 0, 0, 0]);
        for offset in [0x100, 0x2000] {
            shape.bar_write(0, offset, &[1; 8], &mut Nowhere);
        }
        let mut read = |offset| {
            shape.bar_read(0, offset, &mut data, &mut Nowhere);
            data
        };
        assert_eq!((read(0x100), read(0x2000)), ([0; 8], [1; 8]));
        // A BAR may be described as large as anything.
        assert_eq!(read(u64::MAX - 3), [0; 8]);
    }
}
