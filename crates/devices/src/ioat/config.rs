//! What can be chosen, and the PCI configuration space.

use pci::{Bar, BarKind, ConfigSize, ConfigSpace, regs};

/// An engine to be built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IoatConfig {
    /// The version register: 0x34 tells DPDK that errors are reported; the kernel's selftests want
    /// 0x32 or 0x33. The behaviour is the same.
    pub version: u8,
    /// log2 of the bytes of a descriptor at most, 12..=20.
    pub transfer_shift: u8,
    /// Whether the page of registers may be polled; where not, commands that stop the channel are done
    /// at once. DPDK looks at the state just after it starts
    /// the channel, too early for one who polls, and takes HALTED for an error: a channel that was
    /// reset is then SUSPENDED, where hardware (and `false`) says HALTED.
    pub polled: bool,
}

impl Default for IoatConfig {
    fn default() -> Self {
        Self { version: 0x34, transfer_shift: 20, polled: true }
    }
}

impl IoatConfig {
    /// Bytes of a descriptor at most.
    pub(super) const fn max_transfer(&self) -> u32 {
        1 << self.transfer_log2()
    }

    pub(super) const fn transfer_log2(&self) -> u8 {
        match self.transfer_shift {
            0..=12 => 12,
            shift @ 13..=19 => shift,
            _ => 20,
        }
    }
}

/// Uncorrectable errors of the engine.
const DMAUNCERRSTS: u16 = 0x148;
/// A copy of CHANERR, for interrupts.
pub(super) const CHANERR_INT: u16 = 0x180;

/// BAR0, where firmware would put it.
pub(super) const fn bars() -> [Option<Bar>; 7] {
    let kind = BarKind::Memory { prefetchable: false, is_64: true };
    let bar = Bar { start: 0xfe70_0000, size: 16 << 10, kind };
    [Some(bar), None, None, None, None, None, None]
}

/// An integrated endpoint of Express that can be reset, power management, MSI-X.
pub(super) fn space() -> ConfigSpace {
    let parts: &[(u16, &[u8])] = &[
        (regs::VENDOR_ID, &[0x86, 0x80, 0x21, 0x20]),
        (regs::STATUS, &[0x10, 0]),
        // System peripheral, other.
        (regs::REVISION, &[4, 0x00, 0x80, 0x08]),
        (regs::BAR0, &[0x04, 0, 0x70, 0xfe]),
        (regs::SUBSYSTEM, &[0x86, 0x80, 0, 0]),
        (regs::CAPABILITIES, &[0x80]),
        // MSI-X: one vector, table at 0x2000 of BAR0, pending bits at 0x3000.
        (0x80, &[regs::cap::MSIX, 0x90, 0, 0, 0, 0x20, 0, 0, 0, 0x30, 0, 0]),
        // Express: root complex integrated endpoint, version 2; function level reset.
        (0x90, &[regs::cap::EXPRESS, 0xe0, 0x92, 0, 0, 0x80, 0, 0x10]),
        // Power management, version 3; back in D0 nothing is lost.
        (0xe0, &[regs::cap::PM, 0, 0x03, 0, 0x08, 0]),
    ];
    ConfigSpace::from_parts(parts, ConfigSize::Extended, &bars())
}

/// The engine's own registers in configuration space: errors are cleared by writing 1; the mask
/// beside CHANERR_INT keeps what is written.
pub(super) fn own_registers(config: &mut ConfigSpace) {
    for register in [DMAUNCERRSTS, CHANERR_INT] {
        config.set_writable(register, &[0; 4]);
        config.set_write_1_to_clear(register, &[0xff; 4]);
    }
}
