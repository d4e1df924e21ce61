//! Drives QEMU's educational device, 1234:11e8: a factorial, and DMA from and to its buffer.
//!
//! Source: docs/specs/edu.rst of QEMU.

use std::time::Duration;

use uapi::irq::IrqIndex;

use super::vfio::{Device, DmaMemory, Failure, Interrupt, Registers, wait_for};

mod reg {
    pub(super) const ID: usize = 0x00;
    pub(super) const LIVENESS: usize = 0x04;
    pub(super) const FACTORIAL: usize = 0x08;
    pub(super) const STATUS: usize = 0x20;
    pub(super) const IRQ_STATUS: usize = 0x24;
    pub(super) const IRQ_ACK: usize = 0x64;
    pub(super) const DMA_SOURCE: usize = 0x80;
    pub(super) const DMA_DESTINATION: usize = 0x88;
    pub(super) const DMA_COUNT: usize = 0x90;
    pub(super) const DMA_COMMAND: usize = 0x98;
}

/// In the status register: a factorial is being computed.
const BUSY: u32 = 1;
/// In the command register: begin; from the device to memory; an interrupt at the end.
const START: u64 = 1;
const TO_MEMORY: u64 = 2;
const INTERRUPT: u64 = 4;
/// In the interrupt status: a transfer is done.
const DMA_DONE: u32 = 0x100;
/// Where the DMA engine sees the device's buffer, and its bytes.
const BUFFER: u64 = 0x4_0000;
/// Bytes of the device's buffer.
pub const BUFFER_SIZE: usize = 4096;
/// IOVAs that the DMA engine reaches are below.
pub const DMA_LIMIT: u64 = 1 << 28;

const PATIENCE: Duration = Duration::from_secs(10);

/// Which way a transfer goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From memory to the device's buffer.
    ToDevice,
    /// From the device's buffer to memory.
    ToMemory,
}

/// The device.
pub struct Edu {
    device: Device,
    registers: Registers,
    interrupt: Interrupt,
}

impl Edu {
    /// Takes the device into use.
    ///
    /// # Errors
    /// It is another device, or cannot be used.
    pub fn new(device: Device) -> Result<Self, Failure> {
        let id = device.config_read::<4>(0)?;
        if id != [0x34, 0x12, 0xe8, 0x11] {
            let [v0, v1, d0, d1] = id;
            let why = format!("{v1:02x}{v0:02x}:{d1:02x}{d0:02x} is another device");
            return Err(Failure::new("edu", why));
        }
        device.enable()?;
        let registers = device.map_bar0(4096)?;
        let mut interrupts = device.enable_vectors(IrqIndex::Msi, 1)?;
        let interrupt = interrupts.pop().ok_or_else(|| Failure::new("edu", "it has no MSI"))?;
        Ok(Self { device, registers, interrupt })
    }

    /// What the device says it is.
    #[must_use]
    pub fn identification(&self) -> u32 {
        self.registers.read32(reg::ID)
    }

    /// The device answers with the inverse of what it is told.
    #[must_use]
    pub fn is_alive(&self, word: u32) -> bool {
        self.registers.write32(reg::LIVENESS, word);
        self.registers.read32(reg::LIVENESS) == !word
    }

    /// n! modulo 2^32.
    ///
    /// # Errors
    /// The device takes too long.
    pub fn factorial(&self, n: u32) -> Result<u32, Failure> {
        self.registers.write32(reg::FACTORIAL, n);
        wait_for("edu has computed", PATIENCE, || self.registers.read32(reg::STATUS) & BUSY == 0)?;
        Ok(self.registers.read32(reg::FACTORIAL))
    }

    /// Moves the first [`BUFFER_SIZE`] bytes of memory to or from the device, and waits for its MSI.
    ///
    /// # Errors
    /// No MSI comes, or one that stands for something else.
    pub fn transfer(&self, memory: &DmaMemory, direction: Direction) -> Result<(), Failure> {
        let (source, destination, bits) = match direction {
            Direction::ToDevice => (memory.iova(), BUFFER, START | INTERRUPT),
            Direction::ToMemory => (BUFFER, memory.iova(), START | TO_MEMORY | INTERRUPT),
        };
        self.registers.write64(reg::DMA_SOURCE, source);
        self.registers.write64(reg::DMA_DESTINATION, destination);
        self.registers.write64(reg::DMA_COUNT, BUFFER_SIZE as u64);
        self.registers.write64(reg::DMA_COMMAND, bits);
        self.interrupt.wait(PATIENCE)?;
        let status = self.registers.read32(reg::IRQ_STATUS);
        if status & DMA_DONE == 0 {
            return Err(Failure::new("edu: a transfer", format!("interrupt status {status:#x}")));
        }
        self.registers.write32(reg::IRQ_ACK, status);
        Ok(())
    }

    /// Gives the device back.
    ///
    /// # Errors
    /// The kernel's.
    pub fn close(self) -> Result<(), Failure> {
        self.device.disable_vectors(IrqIndex::Msi)
    }
}
