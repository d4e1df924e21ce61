//! Which bits of configuration space are virtual, and which the user may write.
//!
//! A *virtual* bit is kept for the user and never reaches the function; other bits are the
//! function's. A bit that is not writable drops what is written. The choice is vfio-pci's
//! (kernel-semantics 7.10).

use pci::regs::{self, af, cap, express, ext, msi, pm};

/// Permissions of one byte, a bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Bits {
    /// Kept for the user.
    pub(super) virt: u8,
    /// The user may write.
    pub(super) write: u8,
}

/// Permissions of a register.
struct Field {
    /// Bytes from the start of the header or capability.
    at: u16,
    /// Bytes: 1..=8.
    len: u16,
    virt: u64,
    write: u64,
}

const ALL: u64 = u64::MAX;
const NONE: u64 = 0;

const fn field(at: u16, len: u16, virt: u64, write: u64) -> Field {
    Field { at, len, virt, write }
}

/// Every capability's next pointer: capabilities can be hidden.
const NEXT: Field = field(1, 1, ALL, NONE);

const HEADER: &[Field] = &[
    field(regs::VENDOR_ID, 4, ALL, NONE),
    field(regs::COMMAND, 2, pci::Command::INTX_DISABLE.bits() as u64, ALL),
    field(regs::STATUS, 2, pci::Status::CAP_LIST.bits() as u64, NONE),
    field(regs::CACHE_LINE_SIZE, 2, NONE, ALL),
    field(regs::BIST, 1, NONE, ALL),
    field(regs::BAR0, 8, ALL, ALL),
    field(regs::BAR0 + 8, 8, ALL, ALL),
    field(regs::BAR0 + 16, 8, ALL, ALL),
    field(regs::ROM_BAR, 4, ALL, ALL),
    field(regs::CAPABILITIES, 1, ALL, NONE),
    field(regs::INTERRUPT_LINE, 1, ALL, ALL),
    field(regs::INTERRUPT_PIN, 1, ALL, NONE),
];

/// The user sees no PME; the power state is set for him.
const PM: &[Field] = &[
    NEXT,
    field(pm::PMC, 2, pm::PMC_PME_MASK as u64, NONE),
    field(pm::PMCSR, 4, PME, !(PME | pm::STATE_MASK as u64)),
];
const PME: u64 = (pm::PME_ENABLE | pm::PME_STATUS) as u64;

const VPD: &[Field] = &[NEXT, field(2, 6, ALL, ALL)];

const PCIX: &[Field] = &[NEXT, field(2, 2, NONE, ALL), field(8, 4, NONE, ALL)];

/// Payload size and read request size are the host's matter, a reset is asked of the host.
const EXPRESS: &[Field] = &[
    NEXT,
    field(
        express::DEVCTL,
        2,
        (express::FLR | express::PAYLOAD | express::READ_REQUEST) as u64,
        !(express::PHANTOM as u64),
    ),
    field(express::DEVCTL2, 2, NONE, !(express::ARI as u64)),
];

const AF: &[Field] = &[NEXT, field(af::CONTROL, 1, af::FLR as u64, af::FLR as u64)];

const MSI_32: &[Field] = &[
    NEXT,
    field(msi::CONTROL, 1, ALL, ALL),
    field(msi::ADDRESS, 4, ALL, ALL),
    field(8, 2, ALL, ALL),
    field(12, 8, NONE, ALL),
];

const MSI_64: &[Field] = &[
    NEXT,
    field(msi::CONTROL, 1, ALL, ALL),
    field(msi::ADDRESS, 8, ALL, ALL),
    field(12, 2, ALL, ALL),
    field(16, 8, NONE, ALL),
];

/// Capabilities without permissions of their own are read-only.
const STANDARD: &[Field] = &[NEXT];
const EXTENDED: &[Field] = &[EXTENDED_HEADER];
const EXTENDED_HEADER: Field = field(0, 4, ALL, NONE);

const AER: &[Field] = &[
    EXTENDED_HEADER,
    field(0x04, 4, NONE, UNCORRECTABLE),
    field(0x08, 4, NONE, UNCORRECTABLE),
    field(0x0c, 4, NONE, UNCORRECTABLE),
    field(0x10, 4, NONE, CORRECTABLE),
    field(0x14, 4, NONE, CORRECTABLE),
    // Generating and checking ECRC.
    field(0x18, 4, NONE, 0x140),
];
/// The uncorrectable errors that a user may clear, mask and rate (PCIe 3.0, 7.10.2).
const UNCORRECTABLE: u64 = 0x03ff_f031;
/// The correctable ones (7.10.5).
const CORRECTABLE: u64 = 0xf1c1;

const POWER: &[Field] = &[EXTENDED_HEADER, field(8, 1, NONE, ALL)];

/// Who a byte of configuration space belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Area {
    /// The standard header.
    Header,
    /// A capability, by id.
    Standard(u8),
    /// The MSI capability, with 64-bit addresses or without.
    Msi {
        /// With 64-bit addresses.
        is_64: bool,
    },
    /// An extended capability, by id.
    Extended(u16),
    /// Nobody: the user reads and writes the function's own bytes.
    Free,
}

impl Area {
    /// Whether writes go to the function as they are.
    pub(super) const fn is_raw(self) -> bool {
        matches!(
            self,
            Self::Free
                | Self::Standard(cap::VENDOR)
                | Self::Extended(ext::VENDOR)
                | Self::Extended(ext::DVSEC)
        )
    }

    /// Permissions of the byte `offset` of the header or capability.
    pub(super) fn bits(self, offset: u16) -> Bits {
        let fields = match self {
            Self::Header => HEADER,
            Self::Standard(cap::PM) => PM,
            Self::Standard(cap::VPD) => VPD,
            Self::Standard(cap::PCIX) => PCIX,
            Self::Standard(cap::EXPRESS) => EXPRESS,
            Self::Standard(cap::AF) => AF,
            Self::Standard(_) => STANDARD,
            Self::Msi { is_64: false } => MSI_32,
            Self::Msi { is_64: true } => MSI_64,
            Self::Extended(ext::AER) => AER,
            Self::Extended(ext::POWER) => POWER,
            Self::Extended(_) => EXTENDED,
            Self::Free => &[],
        };
        let found = fields.iter().find_map(|f| {
            let into = offset.checked_sub(f.at).filter(|into| *into < f.len)?;
            let shift = u32::from(into).saturating_mul(8);
            let byte = |mask: u64| mask.checked_shr(shift).unwrap_or(0) as u8;
            Some(Bits { virt: byte(f.virt), write: byte(f.write) })
        });
        found.unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_bits() {
        let bits = |area: Area, at| {
            let Bits { virt, write } = area.bits(at);
            (virt, write)
        };
        assert_eq!(bits(Area::Header, regs::COMMAND + 1), (4, 0xff));
        assert_eq!(bits(Area::Header, regs::REVISION), (0, 0));
        assert_eq!(bits(Area::Standard(cap::PM), pm::PMCSR), (0, 0xfc));
        assert_eq!(bits(Area::Standard(cap::PM), pm::PMCSR + 1), (0x81, 0x7e));
        assert_eq!(bits(Area::Standard(cap::EXPRESS), 9), (0xf0, 0xfd));
        assert_eq!(bits(Area::Extended(ext::DSN), 3), (0xff, 0));
        assert_eq!(bits(Area::Extended(ext::DSN), 4), (0, 0));
    }
}
