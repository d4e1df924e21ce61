//! Capability lists: where they go and how long each capability is.
//!
//! A list is data of the function: it may loop, point into the header or beyond the end. The walks
//! here stop by counting, so that any bytes are a list.

use crate::regs::{self, cap, ext};
use crate::{ConfigSpace, Status};

/// A capability, standard or extended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capability {
    /// Which one: of [`cap`] below offset 0x100, else of [`ext`].
    pub id: u16,
    /// Bytes from the start of configuration space.
    pub offset: u16,
    /// Where the list goes on; 0 at its end.
    pub next: u16,
}

impl Capability {
    /// Its length in bytes where a specification says so, else 0.
    #[must_use]
    pub fn len(&self, config: &ConfigSpace) -> usize {
        if self.offset < regs::EXTENDED {
            standard_len(config, self.id, self.offset)
        } else {
            extended_len(config, self.id, self.offset)
        }
    }
}

/// The walk through the standard list.
#[derive(Clone, Debug)]
pub struct Capabilities<'a> {
    config: &'a ConfigSpace,
    at: u8,
    left: u8,
}

impl<'a> Capabilities<'a> {
    /// As many 4-byte capabilities as fit between the header and offset 256.
    const MOST: u8 = 48;

    pub(crate) fn new(config: &'a ConfigSpace) -> Self {
        let status = Status::from_bits_retain(config.u16(regs::STATUS));
        let at = if status.contains(Status::CAP_LIST) { config.u8(regs::CAPABILITIES) } else { 0 };
        Self { config, at, left: Self::MOST }
    }
}

impl Iterator for Capabilities<'_> {
    type Item = Capability;

    fn next(&mut self) -> Option<Capability> {
        if self.at == 0 {
            return None;
        }
        self.left = self.left.checked_sub(1)?;
        let offset = u16::from(self.at);
        self.at = self.config.u8(offset.saturating_add(1));
        Some(Capability { id: u16::from(self.config.u8(offset)), offset, next: u16::from(self.at) })
    }
}

/// The walk through the extended list. A first header of 0 is an empty list.
#[derive(Clone, Debug)]
pub struct ExtendedCapabilities<'a> {
    config: &'a ConfigSpace,
    at: u16,
    left: u16,
}

impl<'a> ExtendedCapabilities<'a> {
    /// As many 4-byte capabilities as fit between offsets 256 and 4096.
    const MOST: u16 = 960;

    pub(crate) fn new(config: &'a ConfigSpace) -> Self {
        let extended = config.len() > usize::from(regs::EXTENDED);
        let at = if extended && config.u32(regs::EXTENDED) != 0 { regs::EXTENDED } else { 0 };
        Self { config, at, left: Self::MOST }
    }
}

impl Iterator for ExtendedCapabilities<'_> {
    type Item = Capability;

    fn next(&mut self) -> Option<Capability> {
        if self.at < regs::EXTENDED {
            return None;
        }
        self.left = self.left.checked_sub(1)?;
        let offset = self.at;
        let [a, b, c, d] = self.config.u32(offset).to_le_bytes();
        self.at = (u16::from_le_bytes([c, d]) >> 4) & 0xffc;
        Some(Capability { id: u16::from_le_bytes([a, b]), offset, next: self.at })
    }
}

fn standard_len(config: &ConfigSpace, id: u16, at: u16) -> usize {
    let byte = |offset: u16| config.u8(at.saturating_add(offset));
    let word = |offset: u16| config.u16(at.saturating_add(offset));
    match u8::try_from(id).unwrap_or(0) {
        cap::PM | cap::VPD => 8,
        cap::AGP | cap::MSIX => 12,
        cap::AF => 6,
        cap::MSI => {
            let control = word(regs::msi::CONTROL);
            let wide = if control & regs::msi::IS_64 != 0 { 4 } else { 0 };
            let masks = if control & regs::msi::PER_VECTOR_MASK != 0 { 10 } else { 0 };
            10_usize.saturating_add(wide).saturating_add(masks)
        }
        cap::PCIX if word(2) & 0x3000 != 0 => 24,
        cap::PCIX => 8,
        // The upper three bits of the command say what it is; long are slave and host interfaces.
        cap::HT if byte(3) & 0xe0 != 0 => 5,
        cap::HT => 28,
        cap::VENDOR => usize::from(byte(2)),
        cap::EXPRESS => {
            let flags = word(regs::express::FLAGS);
            let no_link = flags >> 4 & 0xf == regs::express::TYPE_RC_ENDPOINT;
            match (flags & 0xf == 1, no_link) {
                (true, true) => 0x0c,
                (true, false) => 0x14,
                (false, true) => 0x2c,
                (false, false) => 0x3c,
            }
        }
        cap::SATA if byte(4) & 0xf == 0xf => 16,
        cap::SATA => 8,
        _ => 0,
    }
}

fn extended_len(config: &ConfigSpace, id: u16, at: u16) -> usize {
    let byte = |offset: u16| usize::from(config.u8(at.saturating_add(offset)));
    let dword = |offset: u16| config.u32(at.saturating_add(offset));
    let vendor = || usize::from(config.u16(at.saturating_add(6)) >> 4);
    match id {
        ext::AER => 0x2c,
        ext::VC | ext::VC9 | ext::MFVC => {
            let channels = (dword(4) & 7).saturating_add(1) as usize;
            let len = channels.saturating_mul(12).saturating_add(16);
            let arbitration = match dword(8) {
                v if v & 8 != 0 => 64,
                v if v & 4 != 0 => 32,
                v if v & 2 != 0 => 16,
                _ => return len,
            };
            (len.saturating_add(15) & !15).saturating_add(arbitration)
        }
        ext::DSN => 12,
        ext::POWER => 16,
        ext::VENDOR | ext::DVSEC => vendor(),
        ext::ACS if byte(4) & 0x20 != 0 => {
            let vector_bits = match byte(5) {
                0 => 256,
                n => n.saturating_add(31) & !31,
            };
            (vector_bits >> 3).saturating_add(8)
        }
        ext::ACS | ext::ARI | ext::ATS | ext::LTR => 8,
        ext::SRIOV => 0x40,
        ext::MULTICAST => 0x30,
        ext::PRI => 0x10,
        ext::REBAR => ((byte(8) >> 5) << 3).saturating_add(4),
        ext::DPA => (byte(4) & 0x1f).saturating_add(17),
        ext::TPH => {
            let capability = dword(4);
            let in_capability = capability & 0x600 == 0x200;
            let entries = (capability >> 16 & 0x7ff) as usize;
            if in_capability { entries.saturating_mul(2).saturating_add(14) } else { 12 }
        }
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;
    use crate::ConfigSize;

    fn with_list(bytes: &[(u16, &[u8])], size: ConfigSize) -> ConfigSpace {
        let mut c = ConfigSpace::new(size);
        c.set_u16(regs::STATUS, Status::CAP_LIST.bits());
        for (offset, data) in bytes {
            c.set(*offset, data);
        }
        c
    }

    #[test]
    fn a_list_that_loops_ends() {
        let c = with_list(&[(0x34, &[0x40]), (0x40, &[1, 0x40])], ConfigSize::Conventional);
        assert_eq!(c.capabilities().count(), 48);
        let c = with_list(&[(0x100, &[1, 0, 2, 0x10])], ConfigSize::Extended);
        assert_eq!(c.extended_capabilities().count(), 960);
    }

    #[test]
    fn the_recorded_nvme_has_three_with_their_lengths() {
        let c = with_list(
            &[
                (0x34, &[0x40]),
                (0x40, &[0x11, 0x80, 0x40, 0, 0, 0x20, 0, 0, 0, 0x30]),
                (0x60, &[1, 0, 3, 0, 0x0b]),
                (0x80, &[0x10, 0x60, 2, 0]),
            ],
            ConfigSize::Extended,
        );
        let found: Vec<_> = c.capabilities().map(|k| (k.id, k.offset, k.len(&c))).collect();
        assert_eq!(found, [(0x11, 0x40, 12), (0x10, 0x80, 0x3c), (1, 0x60, 8)]);
        assert_eq!(c.extended_capabilities().count(), 0);
    }
}
