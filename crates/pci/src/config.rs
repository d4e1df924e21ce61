//! A function's physical configuration space.

use alloc::vec;
use alloc::vec::Vec;

use crate::caps::{Capabilities, Capability, ExtendedCapabilities};
use crate::{Bar, Command, masks, regs};

/// How much configuration space a function has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigSize {
    /// 256 bytes (PCI 3.0, 6.1).
    Conventional,
    /// 4096 bytes (PCIe 3.0, 7.2).
    Extended,
}

impl ConfigSize {
    /// Bytes.
    #[must_use]
    pub const fn bytes(self) -> usize {
        match self {
            Self::Conventional => 256,
            Self::Extended => 4096,
        }
    }

    /// From a number of bytes: everything beyond 256 is extended.
    #[must_use]
    pub const fn of(bytes: usize) -> Self {
        if bytes > 256 { Self::Extended } else { Self::Conventional }
    }
}

/// The registers of a function's configuration space, and which bits of them software can change.
///
/// Numbers are little-endian on the bus. Reads beyond the end give ones and writes there are
/// dropped, as on a bus where nobody answers.
#[derive(Clone, Debug)]
pub struct ConfigSpace {
    bytes: Vec<u8>,
    /// Bits that a write sets.
    writable: Vec<u8>,
    /// Bits that writing 1 clears.
    clears: Vec<u8>,
}

impl ConfigSpace {
    /// All zero, read-only: the start of a model's own configuration space.
    #[must_use]
    pub fn new(size: ConfigSize) -> Self {
        let zeros = vec![0; size.bytes()];
        Self { bytes: zeros.clone(), writable: zeros.clone(), clears: zeros }
    }

    /// A recorded configuration space; `bytes` may end early (the rest is zero) and `bars` are the
    /// six BARs and the ROM. What software can write follows from the header and the capabilities,
    /// as in QEMU's functions; bytes that belong to neither keep what is written.
    #[must_use]
    pub fn from_bytes(bytes: &[u8], size: ConfigSize, bars: &[Option<Bar>; 7]) -> Self {
        Self::from_parts(&[(0, bytes)], size, bars)
    }

    /// The same from parts, each at its offset; what lies between them is zero.
    #[must_use]
    pub fn from_parts(parts: &[(u16, &[u8])], size: ConfigSize, bars: &[Option<Bar>; 7]) -> Self {
        let mut config = Self::new(size);
        for (offset, bytes) in parts {
            config.set(*offset, bytes);
        }
        masks::apply(&mut config, bars);
        config
    }

    /// Bytes there are: 256 or 4096.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "never empty")]
    pub const fn len(&self) -> usize {
        self.bytes.len()
    }

    /// All bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Reads bytes from `offset` on.
    pub fn read(&self, offset: u16, data: &mut [u8]) {
        let mut from = self.bytes.get(usize::from(offset)..).unwrap_or(&[]).iter();
        for byte in data {
            *byte = from.next().copied().unwrap_or(0xff);
        }
    }

    /// One byte.
    #[must_use]
    pub fn u8(&self, offset: u16) -> u8 {
        let [byte] = self.array(offset);
        byte
    }

    /// A 16-bit register.
    #[must_use]
    pub fn u16(&self, offset: u16) -> u16 {
        u16::from_le_bytes(self.array(offset))
    }

    /// A 32-bit register.
    #[must_use]
    pub fn u32(&self, offset: u16) -> u32 {
        u32::from_le_bytes(self.array(offset))
    }

    fn array<const N: usize>(&self, offset: u16) -> [u8; N] {
        let mut data = [0; N];
        self.read(offset, &mut data);
        data
    }

    /// A write by software: changes what the hardware lets it change.
    pub fn write(&mut self, offset: u16, data: &[u8]) {
        let at = usize::from(offset);
        let bytes = self.bytes.iter_mut().skip(at);
        let masks = self.writable.iter().skip(at).zip(self.clears.iter().skip(at));
        for ((byte, (writable, clears)), new) in bytes.zip(masks).zip(data) {
            *byte = (*byte & !writable | new & writable) & !(new & clears);
        }
    }

    /// A write of a 16-bit register by software.
    pub fn write_u16(&mut self, offset: u16, value: u16) {
        self.write(offset, &value.to_le_bytes());
    }

    /// A write of a 32-bit register by software.
    pub fn write_u32(&mut self, offset: u16, value: u32) {
        self.write(offset, &value.to_le_bytes());
    }

    /// A change by the function itself: read-only bits too.
    pub fn set(&mut self, offset: u16, data: &[u8]) {
        for (byte, new) in self.bytes.iter_mut().skip(usize::from(offset)).zip(data) {
            *byte = *new;
        }
    }

    /// A change of a 16-bit register by the function itself.
    pub fn set_u16(&mut self, offset: u16, value: u16) {
        self.set(offset, &value.to_le_bytes());
    }

    /// A change of a 32-bit register by the function itself.
    pub fn set_u32(&mut self, offset: u16, value: u32) {
        self.set(offset, &value.to_le_bytes());
    }

    /// Makes exactly the bits of `mask` writable by software, and none of these bytes' bits
    /// cleared by writing 1.
    pub fn set_writable(&mut self, offset: u16, mask: &[u8]) {
        fill(&mut self.writable, offset, mask);
        for (clears, _) in self.clears.iter_mut().skip(usize::from(offset)).zip(mask) {
            *clears = 0;
        }
    }

    /// Makes exactly the bits of `mask` cleared by writing 1.
    pub fn set_write_1_to_clear(&mut self, offset: u16, mask: &[u8]) {
        fill(&mut self.clears, offset, mask);
    }

    /// The command register.
    #[must_use]
    pub fn command(&self) -> Command {
        Command::from_bits_retain(self.u16(regs::COMMAND))
    }

    /// The capabilities, in the order of the list.
    #[must_use]
    pub fn capabilities(&self) -> Capabilities<'_> {
        Capabilities::new(self)
    }

    /// The first capability with that id (of [`regs::cap`]).
    #[must_use]
    pub fn capability(&self, id: u8) -> Option<Capability> {
        self.capabilities().find(|c| c.id == u16::from(id))
    }

    /// The extended capabilities, in the order of the list.
    #[must_use]
    pub fn extended_capabilities(&self) -> ExtendedCapabilities<'_> {
        ExtendedCapabilities::new(self)
    }

    /// A reset of the function: what software can write in the header and in the capabilities
    /// becomes 0. Bytes that belong to neither, and extended capabilities, stay.
    pub fn reset(&mut self) {
        self.clear_writable(0, usize::from(regs::HEADER_END));
        let found: Vec<Capability> = self.capabilities().collect();
        for cap in found {
            self.clear_writable(cap.offset, cap.len(self));
        }
    }

    fn clear_writable(&mut self, offset: u16, len: usize) {
        let at = usize::from(offset);
        let masks = self.writable.iter().skip(at).zip(self.clears.iter().skip(at));
        for (byte, (writable, clears)) in self.bytes.iter_mut().skip(at).zip(masks).take(len) {
            *byte &= !(writable | clears);
        }
    }
}

fn fill(to: &mut [u8], offset: u16, from: &[u8]) {
    for (to, from) in to.iter_mut().skip(usize::from(offset)).zip(from) {
        *to = *from;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_respect_the_hardware() {
        let mut c = ConfigSpace::new(ConfigSize::Conventional);
        c.set_u16(6, 0xffff);
        c.set_writable(4, &[0x07, 0x05]);
        c.set_write_1_to_clear(6, &[0x00, 0xf9]);
        c.write_u32(4, u32::MAX);
        assert_eq!((c.u16(4), c.u16(6)), (0x0507, 0x06ff));
        c.reset();
        assert_eq!(c.u16(4), 0);
    }

    #[test]
    fn nobody_answers_beyond_the_end() {
        let mut c = ConfigSpace::new(ConfigSize::Conventional);
        c.write_u32(254, 0x1234_5678);
        c.set_u32(0xffff, 1);
        assert_eq!((c.u32(254), c.u32(0xffff)), (0xffff_0000, u32::MAX));
    }
}
