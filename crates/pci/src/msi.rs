//! Message signalled interrupts: the capability's registers as a device uses them (PCI 3.0, 6.8.1).

use crate::bus::{Aborted, DmaBus};
use crate::regs::{cap, msi};
use crate::{Capability, ConfigSpace};

/// Where a function's MSI capability is and what form it has. Its state is in the configuration
/// space alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Msi {
    offset: u16,
    is_64: bool,
    maskable: bool,
}

impl Msi {
    /// The function's MSI capability.
    #[must_use]
    pub fn find(config: &ConfigSpace) -> Option<Self> {
        let Capability { offset, .. } = config.capability(cap::MSI)?;
        let control = config.u16(offset.saturating_add(msi::CONTROL));
        Some(Self {
            offset,
            is_64: control & msi::IS_64 != 0,
            maskable: control & msi::PER_VECTOR_MASK != 0,
        })
    }

    const fn at(self, offset: u16) -> u16 {
        self.offset.saturating_add(offset)
    }

    const fn data_at(self) -> u16 {
        self.at(if self.is_64 { 12 } else { 8 })
    }

    const fn mask_at(self) -> u16 {
        self.data_at().saturating_add(4)
    }

    const fn pending_at(self) -> u16 {
        self.data_at().saturating_add(8)
    }

    fn control(self, config: &ConfigSpace) -> u16 {
        config.u16(self.at(msi::CONTROL))
    }

    /// How many vectors the function can use: 1, 2, 4, ... 32 (64 and 128 are reserved encodings).
    #[must_use]
    pub fn capable(self, config: &ConfigSpace) -> u32 {
        1 << ((self.control(config) & msi::CAPABLE_MASK) >> 1)
    }

    /// How many vectors software gave it, of those it can use.
    #[must_use]
    pub fn vectors(self, config: &ConfigSpace) -> u32 {
        (1 << ((self.control(config) & msi::ENABLED_MASK) >> 4)).min(self.capable(config))
    }

    /// Whether interrupts go out as messages (and not on the INTx line).
    #[must_use]
    pub fn enabled(self, config: &ConfigSpace) -> bool {
        self.control(config) & msi::ENABLE != 0
    }

    /// Programs address, data and 2^`vectors_log2` vectors, and enables. What a kernel does.
    pub fn program(self, config: &mut ConfigSpace, address: u64, data: u16, vectors_log2: u8) {
        let [a, b, c, d, e, f, g, h] = address.to_le_bytes();
        config.write(self.at(msi::ADDRESS), &[a, b, c, d]);
        if self.is_64 {
            config.write(self.at(8), &[e, f, g, h]);
        }
        config.write_u16(self.data_at(), data);
        let count = u16::from(vectors_log2 & 7) << 4;
        let control = self.control(config) & !msi::ENABLED_MASK;
        config.write_u16(self.at(msi::CONTROL), control | count | msi::ENABLE);
    }

    /// Disables. What a kernel does.
    pub fn disable(self, config: &mut ConfigSpace) {
        let control = self.control(config) & !(msi::ENABLE | msi::ENABLED_MASK);
        config.write_u16(self.at(msi::CONTROL), control);
    }

    /// The address all vectors write to.
    #[must_use]
    pub fn address(self, config: &ConfigSpace) -> u64 {
        let low = u64::from(config.u32(self.at(msi::ADDRESS)));
        let high = if self.is_64 { u64::from(config.u32(self.at(8))) } else { 0 };
        high << 32 | low
    }

    /// What `vector` writes: the data with the vector in its low bits. Vectors beyond those that
    /// software gave use the last bits they can, as the specification lets functions do.
    #[must_use]
    pub fn data(self, config: &ConfigSpace, vector: u32) -> u32 {
        let data = u32::from(config.u16(self.data_at()));
        let low = self.vectors(config).wrapping_sub(1);
        data & !low | vector & low
    }

    /// Raises `vector`: a write to the bus, or a pending bit while it is masked. Nothing when MSI
    /// is off.
    ///
    /// # Errors
    /// [`Aborted`] when the bus did not take the write.
    pub fn fire(
        self,
        config: &mut ConfigSpace,
        vector: u32,
        bus: &mut dyn DmaBus,
    ) -> Result<(), Aborted> {
        if !self.enabled(config) {
            return Ok(());
        }
        let bit = 1_u32.checked_shl(vector).unwrap_or(0);
        if self.maskable && config.u32(self.mask_at()) & bit != 0 {
            let pending = config.u32(self.pending_at()) | bit;
            config.set_u32(self.pending_at(), pending);
            return Ok(());
        }
        bus.write(self.address(config), &self.data(config, vector).to_le_bytes())
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;
    use crate::ConfigSize;

    #[derive(Default)]
    struct Log(Vec<(u64, Vec<u8>)>);

    impl DmaBus for Log {
        fn read(&mut self, _addr: u64, _data: &mut [u8]) -> Result<(), Aborted> {
            Err(Aborted)
        }

        fn write(&mut self, addr: u64, data: &[u8]) -> Result<(), Aborted> {
            self.0.push((addr, data.into()));
            Ok(())
        }

        fn set_intx(&mut self, _asserted: bool) {}
    }

    fn config(control: u16) -> ConfigSpace {
        let mut bytes = [0; 0x60];
        bytes[6] = 0x10;
        bytes[0x34] = 0x40;
        bytes[0x40] = cap::MSI;
        bytes[0x42..0x44].copy_from_slice(&control.to_le_bytes());
        ConfigSpace::from_bytes(&bytes, ConfigSize::Conventional, &[None; 7])
    }

    #[test]
    fn an_interrupt_is_a_write() {
        let mut c = config(0x0080);
        let msi = Msi::find(&c).unwrap();
        let mut bus = Log::default();
        msi.fire(&mut c, 0, &mut bus).unwrap();
        msi.program(&mut c, 0xfee0_1000, 0x4041, 0);
        msi.fire(&mut c, 0, &mut bus).unwrap();
        msi.disable(&mut c);
        msi.fire(&mut c, 0, &mut bus).unwrap();
        assert_eq!(bus.0, [(0xfee0_1000, [0x41, 0x40, 0, 0].into())]);
    }

    #[test]
    fn vectors_go_into_the_low_bits_and_can_be_masked() {
        let mut c = config(0x0184);
        let msi = Msi::find(&c).unwrap();
        assert_eq!(msi.capable(&c), 4);
        msi.program(&mut c, 0x1_fee0_0000, 0x40, 2);
        assert_eq!((msi.address(&c), msi.data(&c, 3)), (0x1_fee0_0000, 0x43));
        c.write_u32(0x50, 0b1000);
        let mut bus = Log::default();
        msi.fire(&mut c, 3, &mut bus).unwrap();
        assert_eq!((bus.0.len(), c.u32(0x54)), (0, 0b1000));
    }
}
