//! How configuration space is divided, and which capabilities the user sees.
//!
//! Capabilities that vfio-pci does not know are unlinked: the list the user walks goes past them.
//! Their bytes then belong to nobody.

use alloc::vec;
use alloc::vec::Vec;

use pci::regs::{self, cap, msi};
use pci::{Capability, ConfigSpace, Status};

use super::bits::Area;

/// Who each byte belongs to, and the user's copy of the bytes that have virtual bits.
pub(super) struct Layout {
    /// By byte.
    pub(super) areas: Vec<Area>,
    /// The user's copy; 0 where nothing is virtual.
    pub(super) copy: Vec<u8>,
}

impl Layout {
    /// The layout of a function's configuration space as it stands.
    pub(super) fn of(config: &ConfigSpace) -> Self {
        let mut layout =
            Self { areas: vec![Area::Free; config.len()], copy: vec![0; config.len()] };
        layout.claim(config, Area::Header, 0, usize::from(regs::HEADER_END));
        layout.standard(config);
        layout.extended(config);
        layout
    }

    /// Gives bytes to an area and takes them into the copy.
    fn claim(&mut self, config: &ConfigSpace, area: Area, offset: u16, len: usize) {
        let at = usize::from(offset);
        for owner in self.areas.iter_mut().skip(at).take(len) {
            *owner = area;
        }
        let copy = self.copy.iter_mut().skip(at).take(len);
        for (to, from) in copy.zip(config.bytes().iter().skip(at)) {
            *to = *from;
        }
    }

    fn put(&mut self, offset: u16, data: &[u8]) {
        for (to, from) in self.copy.iter_mut().skip(usize::from(offset)).zip(data) {
            *to = *from;
        }
    }

    fn word(&self, offset: u16) -> u16 {
        let byte = |at: u16| self.copy.get(usize::from(at)).copied().unwrap_or(0);
        u16::from_le_bytes([byte(offset), byte(offset.saturating_add(1))])
    }

    fn standard(&mut self, config: &ConfigSpace) {
        let status = config.u16(regs::STATUS);
        if !Status::from_bits_retain(status).contains(Status::CAP_LIST) {
            return;
        }
        let mut next_of_last = regs::CAPABILITIES;
        let mut found = false;
        for capability in config.capabilities() {
            let Capability { id, offset, next } = capability;
            let id = u8::try_from(id).unwrap_or(0);
            let len = capability.len(config);
            if id == 0 || id > cap::MAX || len == 0 || offset < regs::HEADER_END {
                self.put(next_of_last, &[next.to_le_bytes()[0]]);
                continue;
            }
            let control = config.u16(offset.saturating_add(msi::CONTROL));
            let area = match id {
                cap::MSI => Area::Msi { is_64: control & msi::IS_64 != 0 },
                _ => Area::Standard(id),
            };
            // Standard capabilities end where extended configuration space begins.
            let room = usize::from(regs::EXTENDED.saturating_sub(offset));
            self.claim(config, area, offset, len.min(room));
            if id == cap::PM {
                self.hide_pme(offset);
            }
            next_of_last = offset.saturating_add(1);
            found = true;
        }
        if !found {
            let without = self.word(regs::STATUS) & !Status::CAP_LIST.bits();
            self.put(regs::STATUS, &without.to_le_bytes());
        }
    }

    fn hide_pme(&mut self, offset: u16) {
        let (pmc, pmcsr) =
            (offset.saturating_add(regs::pm::PMC), offset.saturating_add(regs::pm::PMCSR));
        let capabilities = self.word(pmc) & !regs::pm::PMC_PME_MASK;
        self.put(pmc, &capabilities.to_le_bytes());
        let control = self.word(pmcsr) & !(regs::pm::PME_ENABLE | regs::pm::PME_STATUS);
        self.put(pmcsr, &control.to_le_bytes());
    }

    fn extended(&mut self, config: &ConfigSpace) {
        /// The next pointer, in the upper half of a header.
        const NEXT: u16 = 0xffc0;
        if config.capability(cap::EXPRESS).is_none() {
            return;
        }
        let mut last: Option<u16> = None;
        let mut found = false;
        for capability in config.extended_capabilities() {
            let Capability { id, offset, next } = capability;
            let len = capability.len(config);
            match (len, last) {
                (0, Some(last)) => {
                    let at = last.saturating_add(2);
                    let unlinked = self.word(at) & !NEXT | next << 4;
                    self.put(at, &unlinked.to_le_bytes());
                    continue;
                }
                // The first one cannot be left out: an empty header holds its place.
                (0, None) => {
                    self.claim(config, Area::Extended(id), offset, 4);
                    let kept = self.word(offset.saturating_add(2)) & NEXT;
                    let [a, b] = kept.to_le_bytes();
                    self.put(offset, &[0, 0, a, b]);
                }
                (len, _) => {
                    self.claim(config, Area::Extended(id), offset, len);
                    found = true;
                }
            }
            last = Some(offset);
        }
        if !found {
            self.put(regs::EXTENDED, &[0; 4]);
        }
    }
}

#[cfg(test)]
mod tests {
    use pci::ConfigSize;

    use super::*;

    /// A function with PCI Express at 0x40 (kept), slot id at 0x80 (hidden), PM at 0x90 (kept).
    fn function(extended: &[(u16, u32)]) -> ConfigSpace {
        let mut c = ConfigSpace::new(ConfigSize::Extended);
        c.set_u16(regs::STATUS, Status::CAP_LIST.bits());
        c.set(regs::CAPABILITIES, &[0x40]);
        c.set(0x40, &[cap::EXPRESS, 0x80, 2, 0]);
        c.set(0x80, &[4, 0x90]);
        c.set(0x90, &[cap::PM, 0, 0x03, 0xc8, 0x08, 0x81]);
        for (offset, header) in extended {
            c.set_u32(*offset, *header);
        }
        c
    }

    #[test]
    fn unknown_capabilities_are_passed_over() {
        let layout = Layout::of(&function(&[]));
        assert_eq!(layout.copy[0x41], 0x90);
        assert_eq!(layout.areas[0x80], Area::Free);
        assert_eq!(layout.areas[0x7b], Area::Standard(cap::EXPRESS));
        assert_eq!(layout.areas[0x7c], Area::Free);
        assert_eq!(layout.copy[0x90..0x96], [1, 0, 3, 0, 8, 0]);
    }

    #[test]
    fn a_hidden_first_extended_capability_leaves_an_empty_header() {
        // Secure PCIe (hidden), serial number, latency tolerance.
        let chain = [(0x100, 0x1401_0019), (0x140, 0x1601_0003), (0x160, 0x0001_0018)];
        let layout = Layout::of(&function(&chain));
        assert_eq!(layout.copy[0x100..0x104], [0, 0, 0, 0x14]);
        assert_eq!(layout.copy[0x140..0x144], [3, 0, 1, 0x16]);
        // Serial number, secure PCIe (hidden), latency tolerance.
        let chain = [(0x100, 0x1401_0003), (0x140, 0x1601_0019), (0x160, 0x0001_0018)];
        let layout = Layout::of(&function(&chain));
        assert_eq!(layout.copy[0x100..0x104], [3, 0, 1, 0x16]);
    }

    #[test]
    fn without_a_first_header_extended_space_is_nobodys() {
        let layout = Layout::of(&function(&[(0x140, 0x0001_0003)]));
        assert_eq!((layout.areas[0x100], layout.areas[0x140]), (Area::Free, Area::Free));
    }
}
