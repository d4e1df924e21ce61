//! What software can write in a recorded configuration space.
//!
//! A recording holds values, not which bits hardware implements. The choice here is that of QEMU's
//! functions, from which the recorded spaces come: a header and capabilities with few writable
//! bits, and everything that belongs to neither a plain memory.

use alloc::vec;
use alloc::vec::Vec;

use crate::caps::Capability;
use crate::regs::{self, cap, express, ext, msi, msix, pm};
use crate::{Bar, Command, ConfigSpace};

/// Sets the masks of `config` from its contents and its BARs (six, and the ROM).
pub(crate) fn apply(config: &mut ConfigSpace, bars: &[Option<Bar>; 7]) {
    let gaps = config.len().saturating_sub(usize::from(regs::HEADER_END));
    config.set_writable(0, &[0; regs::HEADER_END as usize]);
    config.set_writable(regs::HEADER_END, &vec![0xff; gaps]);
    header(config, bars);
    if gaps > usize::from(regs::EXTENDED) {
        // The place of the first extended capability, also when there is none.
        config.set_writable(regs::EXTENDED, &[0; 4]);
    }
    let found: Vec<Capability> =
        config.capabilities().chain(config.extended_capabilities()).collect();
    for capability in found {
        let len = hardware_len(config, capability);
        config.set_writable(capability.offset, &vec![0; len]);
        if capability.offset < regs::EXTENDED {
            standard(config, capability);
        } else if capability.id == ext::AER {
            aer(config, capability.offset);
        }
    }
}

fn header(config: &mut ConfigSpace, bars: &[Option<Bar>; 7]) {
    config.set_writable(regs::COMMAND, &Command::all().bits().to_le_bytes());
    // Parity, aborts and system error (PCI 3.0, 6.2.3).
    config.set_write_1_to_clear(regs::STATUS, &0xf900_u16.to_le_bytes());
    config.set_writable(regs::CACHE_LINE_SIZE, &[0xff]);
    config.set_writable(regs::INTERRUPT_LINE, &[0xff]);
    for (register, bar) in (regs::BAR0..regs::BARS_END).step_by(4).zip(bars) {
        let Some(bar) = bar else { continue };
        let mask = bar.address_mask().to_le_bytes();
        let (low, all) = (mask.get(..4).unwrap_or(&[]), &mask[..]);
        config.set_writable(register, if bar.is_64() { all } else { low });
    }
    if let Some(rom) = bars.last().copied().flatten() {
        let [a, b, c, d, ..] = (rom.address_mask() | 1).to_le_bytes();
        config.set_writable(regs::ROM_BAR, &[a, b, c, d]);
    }
}

/// The bytes hardware claims: Express and error reporting have parts of which Linux takes no note.
fn hardware_len(config: &ConfigSpace, capability: Capability) -> usize {
    let extended = capability.offset >= regs::EXTENDED;
    match capability.id {
        id if !extended && id == u16::from(cap::EXPRESS) => {
            let flags = config.u16(capability.offset.saturating_add(express::FLAGS));
            if flags & 0xf == 1 { 0x14 } else { 0x3c }
        }
        ext::AER if extended => 0x48,
        _ => capability.len(config),
    }
}

fn standard(config: &mut ConfigSpace, capability: Capability) {
    let at = |offset: u16| capability.offset.saturating_add(offset);
    match u8::try_from(capability.id).unwrap_or(0) {
        cap::PM => {
            // The network cards (version 2 of the capability) have PME and a data register, the
            // nvme (version 3) has not.
            let full = config.u16(at(pm::PMC)) & 7 < 3;
            let pme = if full { pm::PME_ENABLE | pm::DATA_SELECT } else { 0 };
            config.set_writable(at(pm::PMCSR), &(pm::STATE_MASK | pme).to_le_bytes());
            let status = if full { pm::PME_STATUS } else { 0 };
            config.set_write_1_to_clear(at(pm::PMCSR), &status.to_le_bytes());
        }
        cap::MSI => {
            let control = config.u16(at(msi::CONTROL));
            config.set_writable(at(msi::CONTROL), &(msi::ENABLE | msi::ENABLED_MASK).to_le_bytes());
            config.set_writable(at(msi::ADDRESS), &[0xfc, 0xff, 0xff, 0xff]);
            let data = if control & msi::IS_64 != 0 {
                config.set_writable(at(8), &[0xff; 4]);
                12
            } else {
                8
            };
            config.set_writable(at(data), &[0xff; 2]);
            if control & msi::PER_VECTOR_MASK != 0 {
                config.set_writable(at(data.saturating_add(4)), &[0xff; 4]);
            }
        }
        cap::MSIX => {
            let mask = msix::ENABLE | msix::FUNCTION_MASK;
            config.set_writable(at(msix::CONTROL), &mask.to_le_bytes());
        }
        cap::EXPRESS => {
            let resets = config.u32(at(express::DEVCAP)) & express::DEVCAP_FLR != 0;
            let flr = if resets { express::FLR } else { 0 };
            // Version 1 comes without the four kinds of error reporting.
            let version_1 = config.u16(at(express::FLAGS)) & 0xf == 1;
            let errors = if version_1 { 0 } else { 0x000f };
            config.set_writable(at(express::DEVCTL), &(errors | flr).to_le_bytes());
            config.set_write_1_to_clear(at(express::DEVSTA), &[errors as u8, 0]);
            if !version_1 {
                // Blocking of end-to-end prefixes.
                config.set_writable(at(express::DEVCTL2), &0x8000_u16.to_le_bytes());
            }
        }
        cap::VPD => config.set_writable(at(2), &[0xff; 6]),
        _ => {}
    }
}

/// Advanced error reporting: the errors an endpoint can have (PCIe 3.0, 7.10).
fn aer(config: &mut ConfigSpace, offset: u16) {
    const UNCORRECTABLE: u32 = 0x03ff_f030;
    const CORRECTABLE: u32 = 0x0000_f1c1;
    let at = |register: u16| offset.saturating_add(register);
    config.set_write_1_to_clear(at(4), &UNCORRECTABLE.to_le_bytes());
    config.set_writable(at(8), &UNCORRECTABLE.to_le_bytes());
    config.set_writable(at(12), &UNCORRECTABLE.to_le_bytes());
    config.set_write_1_to_clear(at(16), &CORRECTABLE.to_le_bytes());
    config.set_writable(at(20), &CORRECTABLE.to_le_bytes());
    // Checking and generation of ECRC, and several headers in the log.
    config.set_writable(at(24), &0x0000_0540_u32.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use crate::{Bar, ConfigSize, ConfigSpace};

    #[test]
    fn a_recorded_edu_answers_as_qemus() {
        let mut bars = [None; 7];
        bars[0] = Bar::from_resource(0xfe40_0000, 0xfe4f_ffff, 0x40200);
        let bytes = [0x34, 0x12, 0xe8, 0x11, 3, 1, 0x10, 0, 0x10, 0, 0xff, 0];
        let mut c = ConfigSpace::from_bytes(&bytes, ConfigSize::Conventional, &bars);
        c.set(0x34, &[0x40]);
        c.write_u32(0x10, u32::MAX);
        c.write_u16(4, 0xffff);
        c.write_u32(0, 0);
        c.write_u32(0x50, 0x1234);
        assert_eq!(c.u32(0x10), 0xfff0_0000);
        assert_eq!((c.u16(4), c.u32(0), c.u32(0x50)), (0x0507, 0x11e8_1234, 0x1234));
    }
}
