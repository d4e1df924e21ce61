//! The Bus Master bit: whether anything leaves the function.

use core::any::Any;

use crate::bus::{Aborted, DmaBus};
use crate::{Command, ConfigSpace};

/// A bus that a function may use only while it is bus master (PCI 3.0, 6.2.2, bit 2). MSIs are
/// writes and stopped too; the INTx line is a wire and is not.
pub struct MasterGate<'a> {
    bus: &'a mut dyn DmaBus,
    open: bool,
}

impl<'a> MasterGate<'a> {
    /// The bus behind a function whose configuration space is `config`, as it stands now.
    pub fn new(bus: &'a mut dyn DmaBus, config: &ConfigSpace) -> Self {
        Self { open: config.command().contains(Command::MASTER), bus }
    }
}

impl DmaBus for MasterGate<'_> {
    fn read(&mut self, addr: u64, data: &mut [u8]) -> Result<(), Aborted> {
        if self.open {
            return self.bus.read(addr, data);
        }
        data.fill(0);
        self.bus.not_master(addr, false);
        Err(Aborted)
    }

    fn write(&mut self, addr: u64, data: &[u8]) -> Result<(), Aborted> {
        if self.open {
            return self.bus.write(addr, data);
        }
        self.bus.not_master(addr, true);
        Err(Aborted)
    }

    fn write_mapped(&mut self, addr: u64, source: &dyn Any, offset: u64, len: usize) -> usize {
        if self.open { self.bus.write_mapped(addr, source, offset, len) } else { 0 }
    }

    fn read_mapped(&mut self, addr: u64, target: &dyn Any, offset: u64, len: usize) -> usize {
        if self.open { self.bus.read_mapped(addr, target, offset, len) } else { 0 }
    }

    fn set_intx(&mut self, asserted: bool) {
        self.bus.set_intx(asserted);
    }

    fn not_master(&mut self, addr: u64, write: bool) {
        self.bus.not_master(addr, write);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ConfigSize;

    #[derive(Default)]
    struct Ones {
        stopped: u32,
        written: u32,
    }

    impl DmaBus for Ones {
        fn read(&mut self, _addr: u64, data: &mut [u8]) -> Result<(), Aborted> {
            data.fill(1);
            Ok(())
        }

        fn write(&mut self, _addr: u64, _data: &[u8]) -> Result<(), Aborted> {
            self.written += 1;
            Ok(())
        }

        fn write_mapped(&mut self, _: u64, _: &dyn Any, _: u64, len: usize) -> usize {
            self.written += 1;
            len
        }

        fn read_mapped(&mut self, _: u64, _: &dyn Any, _: u64, len: usize) -> usize {
            len
        }

        fn set_intx(&mut self, _asserted: bool) {}

        fn not_master(&mut self, _addr: u64, _write: bool) {
            self.stopped += 1;
        }
    }

    #[test]
    fn nothing_passes_without_the_bit() {
        let mut config = ConfigSpace::new(ConfigSize::Conventional);
        let mut bus = Ones::default();
        let mut data = [9; 2];
        let mut gate = MasterGate::new(&mut bus, &config);
        assert_eq!((gate.read(0, &mut data), data), (Err(Aborted), [0, 0]));
        assert_eq!(gate.write(0, &data), Err(Aborted));
        assert_eq!((gate.write_mapped(0, &(), 0, 7), gate.read_mapped(0, &(), 0, 7)), (0, 0));
        assert_eq!((bus.stopped, bus.written), (2, 0));
        config.set_u16(crate::regs::COMMAND, Command::MASTER.bits());
        let mut gate = MasterGate::new(&mut bus, &config);
        assert_eq!((gate.read(0, &mut data), data), (Ok(()), [1, 1]));
        assert_eq!((gate.write(0, &data), gate.write_mapped(0, &(), 0, 7)), (Ok(()), 7));
        assert_eq!(gate.read_mapped(0, &(), 0, 7), 7);
        assert_eq!(bus.written, 2);
    }
}
