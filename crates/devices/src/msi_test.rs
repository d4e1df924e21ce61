//! A device for tests of message signalled interrupts, 1234:11e9: two vectors, as MSI or MSI-X.
//!
//! Ours; no hardware has it. BAR0 is 16 KiB of memory. Registers take accesses of 4 bytes:
//!
//! | offset | | |
//! |---|---|---|
//! | 0x00 | read | identification, 0x010000e9 |
//! | 0x60 | write | raise vector N (0 or 1; others do nothing) |
//! | 0x64 | read | messages that the bus refused since power-on or reset |
//! | 0x68 | write | keep the message that vector N would send now |
//! | 0x6c | write | send the kept message, whatever became of the interrupt since |
//! | 0x2000 | | MSI-X table, two entries; pending bits at 0x3000 |
//!
//! The kept message is what a device has under way when its interrupt is taken down: it reaches the
//! bus late. Everything goes out through [`DmaBus::write`]; without MSI or MSI-X enabled nothing
//! does (there is no INTx pin).

use pci::{Bar, BarKind, ConfigSize, ConfigSpace, Device, DmaBus, Msi, MsixTable, regs};

/// Registers, in bytes from the start of BAR0.
mod reg {
    pub(super) const ID: u64 = 0x00;
    pub(super) const RAISE: u64 = 0x60;
    pub(super) const REFUSED: u64 = 0x64;
    pub(super) const KEEP: u64 = 0x68;
    pub(super) const SEND_KEPT: u64 = 0x6c;
}

const ID: u32 = 0x0100_00e9;

/// Vectors there are.
const VECTORS: u32 = 2;

/// The device.
pub struct MsiTest {
    config: ConfigSpace,
    msix: Option<MsixTable>,
    refused: u32,
    kept: Option<(u64, u32)>,
}

impl Default for MsiTest {
    fn default() -> Self {
        Self::new()
    }
}

impl MsiTest {
    /// The device as it powers on, its BAR at an address that firmware would choose.
    #[must_use]
    pub fn new() -> Self {
        let parts: &[(u16, &[u8])] = &[
            (regs::VENDOR_ID, &[0x34, 0x12, 0xe9, 0x11]),
            (regs::STATUS, &[0x10, 0]),
            (regs::REVISION, &[0, 0, 0xff, 0]),
            (regs::BAR0, &[0, 0, 0x50, 0xfe]),
            (regs::CAPABILITIES, &[0x40]),
            // MSI: two vectors, 64-bit address, no mask bits.
            (0x40, &[regs::cap::MSI, 0x58, 0x82, 0]),
            // MSI-X: two vectors, table at 0x2000 of BAR0, pending bits at 0x3000.
            (0x58, &[regs::cap::MSIX, 0, 1, 0, 0, 0x20, 0, 0, 0, 0x30, 0, 0]),
        ];
        Self::with_config(ConfigSpace::from_parts(parts, ConfigSize::Conventional, &Self::bars()))
    }

    /// The BARs (and ROM) of [`new`](Self::new): 16 KiB of memory.
    #[must_use]
    pub const fn bars() -> [Option<Bar>; 7] {
        let kind = BarKind::Memory { prefetchable: false, is_64: false };
        let bar = Bar { start: 0xfe50_0000, size: 16 << 10, kind };
        [Some(bar), None, None, None, None, None, None]
    }

    /// The device with another configuration space: of a host that put its BAR elsewhere.
    #[must_use]
    pub fn with_config(config: ConfigSpace) -> Self {
        Self { msix: MsixTable::find(&config), config, refused: 0, kept: None }
    }

    fn raise(&mut self, vector: u32, bus: &mut dyn DmaBus) {
        if vector >= VECTORS {
            return;
        }
        let sent = match (&mut self.msix, Msi::find(&self.config)) {
            (Some(msix), _) if msix.enabled(&self.config) => msix.fire(&self.config, vector, bus),
            (_, Some(msi)) => msi.fire(&mut self.config, vector, bus),
            _ => Ok(()),
        };
        self.count(sent.is_ok());
    }

    /// The message of a vector, masked or not; `None` while interrupts are off.
    fn message(&self, vector: u32) -> Option<(u64, u32)> {
        if vector >= VECTORS {
            return None;
        }
        if let Some(msix) = self.msix.as_ref().filter(|msix| msix.enabled(&self.config)) {
            let entry = msix.range().start.saturating_add(u64::from(vector) << 4);
            let (mut address, mut data) = ([0; 8], [0; 4]);
            msix.bar_read(msix.bar(), entry, &mut address);
            msix.bar_read(msix.bar(), entry.saturating_add(8), &mut data);
            return Some((u64::from_le_bytes(address), u32::from_le_bytes(data)));
        }
        let msi = Msi::find(&self.config).filter(|msi| msi.enabled(&self.config))?;
        Some((msi.address(&self.config), msi.data(&self.config, vector)))
    }

    fn count(&mut self, sent: bool) {
        self.refused = self.refused.saturating_add(u32::from(!sent));
    }
}

impl Device for MsiTest {
    fn config(&self) -> &ConfigSpace {
        &self.config
    }

    fn config_mut(&mut self) -> &mut ConfigSpace {
        &mut self.config
    }

    fn bar_read(&mut self, bar: u8, offset: u64, data: &mut [u8], _bus: &mut dyn DmaBus) {
        data.fill(0);
        let value = match (bar, offset, data.len()) {
            (0, reg::ID, 4) => ID,
            (0, reg::REFUSED, 4) => self.refused,
            _ => 0,
        };
        data.iter_mut().zip(value.to_le_bytes()).for_each(|(to, from)| *to = from);
        if let Some(msix) = &self.msix {
            msix.bar_read(bar, offset, data);
        }
    }

    fn bar_write(&mut self, bar: u8, offset: u64, data: &[u8], bus: &mut dyn DmaBus) {
        if let Some(msix) = &mut self.msix {
            msix.bar_write(bar, offset, data, &self.config, bus);
        }
        let Ok(value) = data.try_into().map(u32::from_le_bytes) else { return };
        match (bar, offset) {
            (0, reg::RAISE) => self.raise(value, bus),
            (0, reg::KEEP) => self.kept = self.message(value),
            (0, reg::SEND_KEPT) => {
                if let Some((address, data)) = self.kept {
                    let sent = bus.write(address, &data.to_le_bytes());
                    self.count(sent.is_ok());
                }
            }
            _ => {}
        }
    }

    fn config_written(&mut self, bus: &mut dyn DmaBus) {
        if let Some(msix) = &mut self.msix {
            msix.fire_pending(&self.config, bus);
        }
    }

    fn reset(&mut self) {
        self.config.reset();
        (self.refused, self.kept) = (0, None);
        if let Some(msix) = &mut self.msix {
            msix.reset();
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;
    use alloc::vec::Vec;

    use pci::Aborted;

    use super::*;

    /// Takes messages at one page.
    struct Doorbell(u64, Vec<(u64, u32)>);

    impl DmaBus for Doorbell {
        fn read(&mut self, _addr: u64, _data: &mut [u8]) -> Result<(), Aborted> {
            Err(Aborted)
        }

        fn write(&mut self, addr: u64, data: &[u8]) -> Result<(), Aborted> {
            if addr & !0xfff != self.0 {
                return Err(Aborted);
            }
            self.1.push((addr, u32::from_le_bytes(data.try_into().unwrap())));
            Ok(())
        }

        fn set_intx(&mut self, _asserted: bool) {}
    }

    fn write(device: &mut MsiTest, offset: u64, value: u32, bus: &mut Doorbell) {
        device.bar_write(0, offset, &value.to_le_bytes(), bus);
    }

    fn refused(device: &mut MsiTest, bus: &mut Doorbell) -> u32 {
        let mut data = [0; 4];
        device.bar_read(0, 0x64, &mut data, bus);
        u32::from_le_bytes(data)
    }

    #[test]
    fn two_vectors_as_msi() {
        let (mut device, mut bus) = (MsiTest::new(), Doorbell(0x8000, vec![]));
        let msi = Msi::find(device.config()).unwrap();
        assert_eq!(msi.capable(device.config()), 2);
        write(&mut device, 0x60, 1, &mut bus);
        msi.program(device.config_mut(), 0x8040, 0x20, 1);
        for vector in [1, 0, 2, u32::MAX] {
            write(&mut device, 0x60, vector, &mut bus);
        }
        assert_eq!(bus.1, [(0x8040, 0x21), (0x8040, 0x20)]);
        assert_eq!(refused(&mut device, &mut bus), 0);
    }

    #[test]
    fn two_vectors_as_msix_which_can_be_masked() {
        let (mut device, mut bus) = (MsiTest::new(), Doorbell(0x8000, vec![]));
        let control = device.config().capability(regs::cap::MSIX).unwrap().offset + 2;
        device.config_mut().write_u16(control, regs::msix::ENABLE);
        for (offset, value) in [(0x2010, 0x8040), (0x2018, 7)] {
            write(&mut device, offset, value, &mut bus);
        }
        write(&mut device, 0x60, 1, &mut bus);
        assert_eq!(bus.1, []);
        write(&mut device, 0x201c, 0, &mut bus);
        assert_eq!(bus.1, [(0x8040, 7)]);
    }

    #[test]
    fn a_kept_message_outlives_its_interrupt() {
        let (mut device, mut bus) = (MsiTest::new(), Doorbell(0x8000, vec![]));
        write(&mut device, 0x68, 0, &mut bus);
        write(&mut device, 0x6c, 0, &mut bus);
        let msi = Msi::find(device.config()).unwrap();
        msi.program(device.config_mut(), 0x8040, 0, 1);
        write(&mut device, 0x68, 1, &mut bus);
        msi.disable(device.config_mut());
        write(&mut device, 0x60, 1, &mut bus);
        write(&mut device, 0x6c, 0, &mut bus);
        assert_eq!(bus.1, [(0x8040, 1)]);
        bus.0 = 0x9000;
        write(&mut device, 0x6c, 0, &mut bus);
        assert_eq!((bus.1.len(), refused(&mut device, &mut bus)), (1, 1));
        device.reset();
        write(&mut device, 0x6c, 0, &mut bus);
        assert_eq!(refused(&mut device, &mut bus), 0);
    }
}
