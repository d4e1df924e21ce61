//! What the controller is made of, and its PCI configuration space.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use pci::{Bar, BarKind, ConfigSize, ConfigSpace, regs};

use super::backend::Backend;
use super::regs::reg;

/// How namespaces are formatted; there are no metadata.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BlockSize {
    /// Blocks of 512 bytes.
    #[default]
    B512,
    /// Blocks of 4096 bytes.
    B4096,
}

impl BlockSize {
    /// log2 of the bytes of a block.
    #[must_use]
    pub const fn shift(self) -> u32 {
        match self {
            Self::B512 => 9,
            Self::B4096 => 12,
        }
    }

    /// Its place in the list of formats.
    pub(super) const fn format(self) -> u8 {
        match self {
            Self::B512 => 0,
            Self::B4096 => 1,
        }
    }
}

/// A controller to be built.
pub struct NvmeConfig {
    /// The serial number; what does not fit 20 bytes of ASCII is cut off. It also seeds the unique
    /// ids of namespaces.
    pub serial: String,
    /// Namespaces 1, 2, ...; 1024 at most, the others are ignored.
    pub namespaces: Vec<Box<dyn Backend>>,
    /// The blocks of all namespaces.
    pub block_size: BlockSize,
    /// Pairs of I/O queues, 1..=511.
    pub queues: u16,
    /// MSI-X vectors, 1..=256.
    pub vectors: u16,
}

impl NvmeConfig {
    /// 64 pairs of I/O queues, 65 vectors, blocks of 512 bytes.
    #[must_use]
    pub fn new(serial: &str, namespaces: Vec<Box<dyn Backend>>) -> Self {
        Self {
            serial: serial.into(),
            namespaces,
            block_size: BlockSize::B512,
            queues: 64,
            vectors: 65,
        }
    }
}

/// BAR0, where firmware would put it.
pub(super) const fn bars() -> [Option<Bar>; 7] {
    let kind = BarKind::Memory { prefetchable: false, is_64: true };
    let bar = Bar { start: 0xfe60_0000, size: reg::SIZE, kind };
    [Some(bar), None, None, None, None, None, None]
}

/// QEMU's ids, an Express endpoint that can be reset, power management and MSI-X.
pub(super) fn space(vectors: u16) -> ConfigSpace {
    let [size, more] = vectors.clamp(1, 256).saturating_sub(1).to_le_bytes();
    let table = (reg::TABLE as u32).to_le_bytes();
    let pending = (reg::PENDING as u32).to_le_bytes();
    let parts: &[(u16, &[u8])] = &[
        (regs::VENDOR_ID, &[0x36, 0x1b, 0x10, 0x00]),
        (regs::STATUS, &[0x10, 0]),
        // Mass storage, non-volatile memory, NVM Express.
        (regs::REVISION, &[2, 0x02, 0x08, 0x01]),
        (regs::BAR0, &[0x04, 0, 0x60, 0xfe]),
        (regs::SUBSYSTEM, &[0xf4, 0x1a, 0x00, 0x11]),
        (regs::CAPABILITIES, &[0x40]),
        (regs::INTERRUPT_PIN, &[1]),
        // MSI-X.
        (0x40, &[regs::cap::MSIX, 0x80, size, more]),
        (0x44, &table),
        (0x48, &pending),
        // Express: endpoint, version 2; role-based errors, function level reset; a link of one
        // lane at 2.5 GT/s.
        (0x80, &[regs::cap::EXPRESS, 0x60, 0x02, 0, 0, 0x80, 0, 0x10]),
        (0x8c, &[0x11, 0x04, 0, 0, 0, 0, 0x11, 0]),
        // Power management, version 3; back in D0 nothing is lost.
        (0x60, &[regs::cap::PM, 0, 0x03, 0, 0x08, 0]),
    ];
    ConfigSpace::from_parts(parts, ConfigSize::Extended, &bars())
}
