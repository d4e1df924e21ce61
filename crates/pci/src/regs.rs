//! Register offsets and bits of configuration space, by the names of the specification.
//!
//! Offsets are in bytes; those of a capability count from its first byte. Sources: PCI Local Bus
//! 3.0 chapter 6, PCI Power Management 1.2 chapter 3, PCI Express Base 3.0 chapter 7.

/// Vendor id, u16.
pub const VENDOR_ID: u16 = 0x00;
/// Device id, u16.
pub const DEVICE_ID: u16 = 0x02;
/// [`Command`], u16.
pub const COMMAND: u16 = 0x04;
/// [`Status`], u16.
pub const STATUS: u16 = 0x06;
/// Revision id, u8; the class code follows in three bytes, programming interface first.
pub const REVISION: u16 = 0x08;
/// Cache line size, u8, in units of 4 bytes.
pub const CACHE_LINE_SIZE: u16 = 0x0c;
/// Latency timer, u8.
pub const LATENCY_TIMER: u16 = 0x0d;
/// Header type, u8; bit 7: the device has several functions.
pub const HEADER_TYPE: u16 = 0x0e;
/// Built-in self test, u8.
pub const BIST: u16 = 0x0f;
/// The first of six base address registers, u32 each.
pub const BAR0: u16 = 0x10;
/// The byte after the last base address register.
pub const BARS_END: u16 = 0x28;
/// Subsystem vendor id, u16; the subsystem id follows.
pub const SUBSYSTEM: u16 = 0x2c;
/// Expansion ROM base address, u32.
pub const ROM_BAR: u16 = 0x30;
/// Offset of the first capability, u8.
pub const CAPABILITIES: u16 = 0x34;
/// Interrupt line, u8: software's notebook.
pub const INTERRUPT_LINE: u16 = 0x3c;
/// Interrupt pin, u8: 0 none, 1..=4 INTA..INTD.
pub const INTERRUPT_PIN: u16 = 0x3d;
/// The end of the standard header.
pub const HEADER_END: u16 = 0x40;
/// Where extended configuration space begins.
pub const EXTENDED: u16 = 0x100;

bitflags::bitflags! {
    /// The command register (PCI 3.0, 6.2.2).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Command: u16 {
        /// Responds to I/O port accesses.
        const IO = 1 << 0;
        /// Responds to memory accesses.
        const MEMORY = 1 << 1;
        /// May master the bus.
        const MASTER = 1 << 2;
        /// Reports address parity errors and fatal errors.
        const SERR = 1 << 8;
        /// Must not assert INTx.
        const INTX_DISABLE = 1 << 10;
    }
}

bitflags::bitflags! {
    /// The status register (PCI 3.0, 6.2.3).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Status: u16 {
        /// INTx is wanted, whether disabled or not.
        const INTERRUPT = 1 << 3;
        /// There is a list of capabilities.
        const CAP_LIST = 1 << 4;
    }
}

/// Capability ids (PCI Code and ID Assignment, section 2).
pub mod cap {
    /// Power management.
    pub const PM: u8 = 0x01;
    /// Accelerated graphics port.
    pub const AGP: u8 = 0x02;
    /// Vital product data.
    pub const VPD: u8 = 0x03;
    /// Message signalled interrupts.
    pub const MSI: u8 = 0x05;
    /// PCI-X.
    pub const PCIX: u8 = 0x07;
    /// HyperTransport.
    pub const HT: u8 = 0x08;
    /// Vendor specific.
    pub const VENDOR: u8 = 0x09;
    /// PCI Express.
    pub const EXPRESS: u8 = 0x10;
    /// MSI-X.
    pub const MSIX: u8 = 0x11;
    /// Serial ATA.
    pub const SATA: u8 = 0x12;
    /// Advanced features.
    pub const AF: u8 = 0x13;
    /// The largest id a kernel of this age knows (enhanced allocation).
    pub const MAX: u8 = 0x14;
}

/// Extended capability ids (PCI Code and ID Assignment, section 3).
pub mod ext {
    /// Advanced error reporting.
    pub const AER: u16 = 0x01;
    /// Virtual channel.
    pub const VC: u16 = 0x02;
    /// Device serial number.
    pub const DSN: u16 = 0x03;
    /// Power budgeting.
    pub const POWER: u16 = 0x04;
    /// Multi-function virtual channel.
    pub const MFVC: u16 = 0x08;
    /// Virtual channel, in a device that also has [`MFVC`].
    pub const VC9: u16 = 0x09;
    /// Vendor specific.
    pub const VENDOR: u16 = 0x0b;
    /// Access control services.
    pub const ACS: u16 = 0x0d;
    /// Alternative routing id.
    pub const ARI: u16 = 0x0e;
    /// Address translation services.
    pub const ATS: u16 = 0x0f;
    /// Single root I/O virtualisation.
    pub const SRIOV: u16 = 0x10;
    /// Multicast.
    pub const MULTICAST: u16 = 0x12;
    /// Page request interface.
    pub const PRI: u16 = 0x13;
    /// Resizable BAR.
    pub const REBAR: u16 = 0x15;
    /// Dynamic power allocation.
    pub const DPA: u16 = 0x16;
    /// TLP processing hints.
    pub const TPH: u16 = 0x17;
    /// Latency tolerance reporting.
    pub const LTR: u16 = 0x18;
    /// Designated vendor specific.
    pub const DVSEC: u16 = 0x23;
}

/// Power management capability (PCI PM 1.2, 3.2).
pub mod pm {
    /// Capabilities, u16.
    pub const PMC: u16 = 2;
    /// [`PMC`]: the states in which PME# can be sent.
    pub const PMC_PME_MASK: u16 = 0xf800;
    /// Control and status, u16.
    pub const PMCSR: u16 = 4;
    /// [`PMCSR`]: the power state, D0 to D3hot.
    pub const STATE_MASK: u16 = 0x0003;
    /// [`PMCSR`]: going from D3hot to D0 does not reset the function.
    pub const NO_SOFT_RESET: u16 = 0x0008;
    /// [`PMCSR`]: PME# enabled.
    pub const PME_ENABLE: u16 = 0x0100;
    /// [`PMCSR`]: PME# wanted; cleared by writing 1.
    pub const PME_STATUS: u16 = 0x8000;
    /// [`PMCSR`]: data select.
    pub const DATA_SELECT: u16 = 0x1e00;
}

/// Message signalled interrupts (PCI 3.0, 6.8.1).
pub mod msi {
    /// Message control, u16.
    pub const CONTROL: u16 = 2;
    /// [`CONTROL`]: enabled.
    pub const ENABLE: u16 = 0x0001;
    /// [`CONTROL`]: log2 of the vectors the function can use, at bit 1.
    pub const CAPABLE_MASK: u16 = 0x000e;
    /// [`CONTROL`]: log2 of the vectors software gave it, at bit 4.
    pub const ENABLED_MASK: u16 = 0x0070;
    /// [`CONTROL`]: 64-bit addresses.
    pub const IS_64: u16 = 0x0080;
    /// [`CONTROL`]: mask and pending bits per vector.
    pub const PER_VECTOR_MASK: u16 = 0x0100;
    /// Message address, low half, u32.
    pub const ADDRESS: u16 = 4;
}

/// MSI-X (PCI 3.0, 6.8.2).
pub mod msix {
    /// Message control, u16: table size less one in the low eleven bits.
    pub const CONTROL: u16 = 2;
    /// [`CONTROL`]: table size less one.
    pub const SIZE_MASK: u16 = 0x07ff;
    /// [`CONTROL`]: all vectors masked.
    pub const FUNCTION_MASK: u16 = 0x4000;
    /// [`CONTROL`]: enabled.
    pub const ENABLE: u16 = 0x8000;
    /// Table offset, u32; the BAR in the low three bits.
    pub const TABLE: u16 = 4;
    /// Pending bit array offset, u32; the BAR in the low three bits.
    pub const PBA: u16 = 8;
}

/// PCI Express capability (PCIe 3.0, 7.8).
pub mod express {
    /// Capabilities, u16: version in bits 0..=3, port type in 4..=7.
    pub const FLAGS: u16 = 2;
    /// [`FLAGS`]: the port type of a root complex integrated endpoint.
    pub const TYPE_RC_ENDPOINT: u16 = 0x9;
    /// Device capabilities, u32.
    pub const DEVCAP: u16 = 4;
    /// [`DEVCAP`]: function level reset.
    pub const DEVCAP_FLR: u32 = 1 << 28;
    /// Device control, u16.
    pub const DEVCTL: u16 = 8;
    /// [`DEVCTL`]: payload size.
    pub const PAYLOAD: u16 = 0x00e0;
    /// [`DEVCTL`]: phantom functions.
    pub const PHANTOM: u16 = 0x0200;
    /// [`DEVCTL`]: maximum read request size.
    pub const READ_REQUEST: u16 = 0x7000;
    /// [`DEVCTL`]: start a function level reset; reads 0.
    pub const FLR: u16 = 0x8000;
    /// Device status, u16.
    pub const DEVSTA: u16 = 10;
    /// Link control, u16.
    pub const LNKCTL: u16 = 0x10;
    /// Device control 2, u16.
    pub const DEVCTL2: u16 = 0x28;
    /// [`DEVCTL2`]: forward alternative routing ids.
    pub const ARI: u16 = 0x0020;
    /// Link control 2, u16.
    pub const LNKCTL2: u16 = 0x30;
}

/// Advanced features (Advanced Capabilities for Conventional PCI, 2006).
pub mod af {
    /// Capabilities, u8.
    pub const CAP: u16 = 3;
    /// [`CAP`]: transactions pending can be told.
    pub const CAP_TP: u8 = 0x01;
    /// [`CAP`]: function level reset.
    pub const CAP_FLR: u8 = 0x02;
    /// Control, u8.
    pub const CONTROL: u16 = 4;
    /// [`CONTROL`]: start a function level reset; reads 0.
    pub const FLR: u8 = 0x01;
}
