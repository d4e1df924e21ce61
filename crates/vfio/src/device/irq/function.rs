//! The function's own interrupt registers: MSI capability, MSI-X table, INTx bits.
//!
//! Programming a function can make it say something: a vector that was pending behind a mask, or
//! another level of its INTx line. Nobody else listens meanwhile, so it is caught here.

use pci::regs::{self, cap, msi, msix};
use pci::{Aborted, Command, Device, DmaBus, Msi, Status};
use uapi::irq::IrqIndex;

/// Bytes of an MSI-X table entry: address, data, vector control.
const ENTRY: u64 = 16;

/// The two kinds of message signalled interrupt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MsiKind {
    /// From the capability's one address and data.
    Msi,
    /// From a table.
    Msix,
}

impl MsiKind {
    /// Its index in the ABI.
    pub(super) const fn index(self) -> IrqIndex {
        match self {
            Self::Msi => IrqIndex::Msi,
            Self::Msix => IrqIndex::Msix,
        }
    }
}

/// What the function says while it is programmed.
#[derive(Default)]
struct Heard {
    /// The INTx line was driven to this level.
    line: Option<bool>,
    /// A message, and whether it came.
    awaited: Option<(u64, u32)>,
    came: bool,
}

impl DmaBus for Heard {
    fn read(&mut self, _addr: u64, data: &mut [u8]) -> Result<(), Aborted> {
        data.fill(0);
        Err(Aborted)
    }

    fn write(&mut self, addr: u64, data: &[u8]) -> Result<(), Aborted> {
        let Some((address, number)) = self.awaited else { return Err(Aborted) };
        if addr != address || *data != number.to_le_bytes() {
            return Err(Aborted);
        }
        self.came = true;
        Ok(())
    }

    fn set_intx(&mut self, asserted: bool) {
        self.line = Some(asserted);
    }
}

/// Whether the function is in power state D0, as one without power management always is.
pub(super) fn is_in_d0(model: &dyn Device) -> bool {
    let config = model.config();
    config.capability(cap::PM).is_none_or(|pm| {
        config.u16(pm.offset.saturating_add(regs::pm::PMCSR)) & regs::pm::STATE_MASK == 0
    })
}

/// Whether the function wants service by INTx, disabled or not.
pub(super) fn interrupt_status(model: &dyn Device) -> bool {
    Status::from_bits_retain(model.config().u16(regs::STATUS)).contains(Status::INTERRUPT)
}

/// Sets or clears the physical INTx-disable bit. `line` becomes the line's new level.
pub(super) fn set_intx_disable(model: &mut dyn Device, disable: bool, line: &mut bool) {
    let mut command = model.config().command();
    command.set(Command::INTX_DISABLE, disable);
    model.config_mut().write_u16(regs::COMMAND, command.bits());
    config_written(model, line);
}

/// Vectors of the MSI capability; 0 without one.
pub(super) fn msi_vectors(model: &dyn Device) -> u32 {
    let config = model.config();
    Msi::find(config).map_or(0, |msi| msi.capable(config))
}

/// Entries of the MSI-X table; 0 without one.
pub(super) fn msix_vectors(model: &dyn Device) -> u32 {
    Table::find(model).map_or(0, |table| table.entries)
}

/// Enables MSI or MSI-X with `vectors` vectors, all masked where they can be; INTx goes off. `line`
/// becomes the line's new level.
pub(super) fn enable_msi(
    model: &mut dyn Device,
    kind: MsiKind,
    address: u64,
    vectors: u32,
    line: &mut bool,
) {
    match kind {
        MsiKind::Msi => {
            let Some(msi) = Msi::find(model.config()) else { return };
            if let Some(at) = msi_mask_register(model) {
                model.config_mut().write_u32(at, u32::MAX);
            }
            msi.program(model.config_mut(), address, 0, log2(vectors));
        }
        MsiKind::Msix => {
            let Some(table) = Table::find(model) else { return };
            table.control(model, msix::ENABLE | msix::FUNCTION_MASK);
            for vector in 0..table.entries {
                table.mask(model, vector, true, &mut Heard::default());
            }
            for vector in 0..vectors {
                table.message(model, vector, address);
            }
            table.control(model, msix::ENABLE);
        }
    }
    set_intx_disable(model, true, line);
}

/// Disables MSI or MSI-X; INTx comes back. `line` becomes the line's new level.
pub(super) fn disable_msi(model: &mut dyn Device, kind: MsiKind, line: &mut bool) {
    match kind {
        MsiKind::Msi => {
            let Some(msi) = Msi::find(model.config()) else { return };
            msi.disable(model.config_mut());
            if let Some(at) = msi_mask_register(model) {
                model.config_mut().write_u32(at, 0);
            }
        }
        MsiKind::Msix => {
            let Some(table) = Table::find(model) else { return };
            for vector in 0..table.entries {
                table.mask(model, vector, true, &mut Heard::default());
            }
            table.control(model, 0);
        }
    }
    set_intx_disable(model, false, line);
}

/// Masks a vector in the function, where it can be.
pub(super) fn mask_vector(model: &mut dyn Device, kind: MsiKind, vector: u32) {
    let mut heard = Heard::default();
    set_masked(model, kind, vector, true, &mut heard);
}

/// Unmasks a vector in the function. Whether the vector was pending and came at once.
pub(super) fn unmask_vector(
    model: &mut dyn Device,
    kind: MsiKind,
    vector: u32,
    address: u64,
) -> bool {
    let mut heard = Heard { awaited: Some((address, vector)), ..Heard::default() };
    if kind == MsiKind::Msix
        && let Some(table) = Table::find(model)
    {
        table.message(model, vector, address);
    }
    set_masked(model, kind, vector, false, &mut heard);
    heard.came
}

fn set_masked(model: &mut dyn Device, kind: MsiKind, vector: u32, masked: bool, heard: &mut Heard) {
    match kind {
        MsiKind::Msi => {
            let Some(at) = msi_mask_register(model) else { return };
            let bit = 1_u32.checked_shl(vector).unwrap_or(0);
            let old = model.config().u32(at);
            let new = if masked { old | bit } else { old & !bit };
            model.config_mut().write_u32(at, new);
            model.config_written(heard);
        }
        MsiKind::Msix => {
            if let Some(table) = Table::find(model) {
                table.mask(model, vector, masked, heard);
            }
        }
    }
}

fn config_written(model: &mut dyn Device, line: &mut bool) {
    let mut heard = Heard::default();
    model.config_written(&mut heard);
    if let Some(level) = heard.line {
        *line = level;
    }
}

/// The smallest n with 2^n vectors or more.
pub(super) fn log2(vectors: u32) -> u8 {
    let bits = vectors.max(1).checked_next_power_of_two().map_or(0, u32::trailing_zeros);
    u8::try_from(bits).unwrap_or(0)
}

/// Where the MSI mask bits are, when there are any.
fn msi_mask_register(model: &dyn Device) -> Option<u16> {
    let config = model.config();
    let at = config.capability(cap::MSI)?.offset;
    let control = config.u16(at.saturating_add(msi::CONTROL));
    let offset = if control & msi::IS_64 != 0 { 16 } else { 12 };
    (control & msi::PER_VECTOR_MASK != 0).then(|| at.saturating_add(offset))
}

/// Where the MSI-X table is.
#[derive(Clone, Copy)]
struct Table {
    capability: u16,
    bar: u8,
    offset: u64,
    entries: u32,
}

impl Table {
    fn find(model: &dyn Device) -> Option<Self> {
        let config = model.config();
        let capability = config.capability(cap::MSIX)?.offset;
        let control = config.u16(capability.saturating_add(msix::CONTROL));
        let table = config.u32(capability.saturating_add(msix::TABLE));
        Some(Self {
            capability,
            bar: (table & 7) as u8,
            offset: u64::from(table & !7),
            entries: u32::from(control & msix::SIZE_MASK).saturating_add(1),
        })
    }

    /// Writes the enable and the function mask bit.
    fn control(self, model: &mut dyn Device, bits: u16) {
        let at = self.capability.saturating_add(msix::CONTROL);
        let rest = model.config().u16(at) & !(msix::ENABLE | msix::FUNCTION_MASK);
        model.config_mut().write_u16(at, rest | bits);
    }

    fn message(self, model: &mut dyn Device, vector: u32, address: u64) {
        let [a, b, c, d, e, f, g, h] = address.to_le_bytes();
        let bus = &mut Heard::default();
        self.write(model, vector, 0, [a, b, c, d], bus);
        self.write(model, vector, 4, [e, f, g, h], bus);
        self.write(model, vector, 8, vector.to_le_bytes(), bus);
    }

    fn mask(self, model: &mut dyn Device, vector: u32, masked: bool, bus: &mut Heard) {
        self.write(model, vector, 12, u32::from(masked).to_le_bytes(), bus);
    }

    fn write(
        self,
        model: &mut dyn Device,
        vector: u32,
        field: u64,
        data: [u8; 4],
        bus: &mut Heard,
    ) {
        let entry = u64::from(vector).saturating_mul(ENTRY);
        let at = self.offset.saturating_add(entry).saturating_add(field);
        model.bar_write(self.bar, at, &data, bus);
    }
}
