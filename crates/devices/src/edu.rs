//! QEMU's educational device, 1234:11e8: a factorial, a DMA engine with a 4 KiB buffer, one MSI.
//!
//! Source: docs/specs/edu.rst of QEMU, and recordings of QEMU 10.0. Two differences that software
//! cannot rely on: both engines finish within the register write that starts them, and a transfer
//! that leaves the buffer ends at the buffer's end. A reset of the function leaves the device's own registers
//! alone, as QEMU's does.

use alloc::boxed::Box;
use alloc::vec;

use pci::{Bar, BarKind, ConfigSize, ConfigSpace, Device, DmaBus, Msi, Status, regs};

/// Registers, in bytes from the start of BAR0.
mod reg {
    pub(super) const ID: u64 = 0x00;
    pub(super) const LIVENESS: u64 = 0x04;
    pub(super) const FACTORIAL: u64 = 0x08;
    pub(super) const STATUS: u64 = 0x20;
    pub(super) const IRQ_STATUS: u64 = 0x24;
    pub(super) const IRQ_RAISE: u64 = 0x60;
    pub(super) const IRQ_ACK: u64 = 0x64;
    /// From here on registers are 64 bits wide and take accesses of 4 or 8 bytes.
    pub(super) const WIDE: u64 = 0x80;
    pub(super) const DMA_SOURCE: u64 = 0x80;
    pub(super) const DMA_DESTINATION: u64 = 0x88;
    pub(super) const DMA_COUNT: u64 = 0x90;
    pub(super) const DMA_COMMAND: u64 = 0x98;
}

/// Version 1.0 and the device's name.
const ID: u64 = 0x0100_00ed;

/// In the status register: raise an interrupt after a factorial.
const STATUS_IRQ: u64 = 0x80;

/// Interrupt status: a factorial is done.
const IRQ_FACTORIAL: u32 = 0x001;
/// Interrupt status: a transfer is done.
const IRQ_DMA: u32 = 0x100;

const COMMAND_START: u64 = 1;
const COMMAND_TO_MEMORY: u64 = 2;
const COMMAND_IRQ: u64 = 4;

/// Where the DMA engine sees its buffer.
const BUFFER: u64 = 0x4_0000;
/// Bytes of the buffer.
const BUFFER_SIZE: usize = 4096;
/// The addresses that the DMA engine can form.
const DMA_MASK: u64 = (1 << 28) - 1;

/// The device.
pub struct Edu {
    config: ConfigSpace,
    liveness: u32,
    factorial: u32,
    irq_when_done: bool,
    irq_status: u32,
    dma_source: u64,
    dma_destination: u64,
    dma_count: u64,
    dma_command: u64,
    buffer: Box<[u8]>,
}

impl Default for Edu {
    fn default() -> Self {
        Self::new()
    }
}

impl Edu {
    /// The device as QEMU powers it on, its BAR at an address that firmware would choose.
    #[must_use]
    pub fn new() -> Self {
        let parts: &[(u16, &[u8])] = &[
            (regs::VENDOR_ID, &[0x34, 0x12, 0xe8, 0x11]),
            (regs::STATUS, &[0x10, 0]),
            (regs::REVISION, &[0x10, 0, 0xff, 0]),
            (regs::BAR0, &[0, 0, 0x40, 0xfe]),
            (regs::SUBSYSTEM, &[0xf4, 0x1a, 0x00, 0x11]),
            (regs::CAPABILITIES, &[0x40]),
            (regs::INTERRUPT_PIN, &[1]),
            // MSI: one vector, 64-bit address, no mask bits.
            (0x40, &[regs::cap::MSI, 0, 0x80, 0]),
        ];
        Self::with_config(ConfigSpace::from_parts(parts, ConfigSize::Conventional, &Self::bars()))
    }

    /// The BARs (and ROM) of [`new`](Self::new): 1 MiB of memory.
    #[must_use]
    pub const fn bars() -> [Option<Bar>; 7] {
        let kind = BarKind::Memory { prefetchable: false, is_64: false };
        let bar = Bar { start: 0xfe40_0000, size: 1 << 20, kind };
        [Some(bar), None, None, None, None, None, None]
    }

    /// The device with a recorded configuration space.
    #[must_use]
    pub fn with_config(config: ConfigSpace) -> Self {
        Self {
            config,
            liveness: 0,
            factorial: 0,
            irq_when_done: false,
            irq_status: 0,
            dma_source: 0,
            dma_destination: 0,
            dma_count: 0,
            dma_command: 0,
            buffer: vec![0; BUFFER_SIZE].into_boxed_slice(),
        }
    }

    fn register(&self, offset: u64) -> u64 {
        match offset {
            reg::ID => ID,
            reg::LIVENESS => self.liveness.into(),
            reg::FACTORIAL => self.factorial.into(),
            reg::STATUS if self.irq_when_done => STATUS_IRQ,
            reg::STATUS => 0,
            reg::IRQ_STATUS => self.irq_status.into(),
            reg::DMA_SOURCE => self.dma_source,
            reg::DMA_DESTINATION => self.dma_destination,
            reg::DMA_COUNT => self.dma_count,
            reg::DMA_COMMAND => self.dma_command,
            _ => u64::MAX,
        }
    }

    fn raise(&mut self, bits: u32, bus: &mut dyn DmaBus) {
        self.irq_status |= bits;
        if self.irq_status == 0 {
            return;
        }
        match Msi::find(&self.config).filter(|msi| msi.enabled(&self.config)) {
            Some(msi) => {
                // A write the bus refuses is a lost interrupt; the bus reports it.
                let _ = msi.fire(&mut self.config, 0, bus);
            }
            None => self.set_line(true, bus),
        }
    }

    fn lower(&mut self, bits: u32, bus: &mut dyn DmaBus) {
        self.irq_status &= !bits;
        let message = Msi::find(&self.config).is_some_and(|msi| msi.enabled(&self.config));
        if self.irq_status == 0 && !message {
            self.set_line(false, bus);
        }
    }

    fn set_line(&mut self, asserted: bool, bus: &mut dyn DmaBus) {
        let mut status = Status::from_bits_retain(self.config.u16(regs::STATUS));
        status.set(Status::INTERRUPT, asserted);
        self.config.set_u16(regs::STATUS, status.bits());
        bus.set_intx(asserted);
    }

    fn transfer(&mut self, bus: &mut dyn DmaBus) {
        let to_memory = self.dma_command & COMMAND_TO_MEMORY != 0;
        let (inside, address) = if to_memory {
            (self.dma_source, self.dma_destination & DMA_MASK)
        } else {
            (self.dma_destination, self.dma_source & DMA_MASK)
        };
        if let Some(part) = part(&mut self.buffer, inside, self.dma_count) {
            // What a refused read leaves in the buffer is in the bus' contract; the device has no
            // register to tell of an error.
            let _ = if to_memory { bus.write(address, part) } else { bus.read(address, part) };
        }
        self.dma_command &= !COMMAND_START;
        if self.dma_command & COMMAND_IRQ != 0 {
            self.raise(IRQ_DMA, bus);
        }
    }
}

/// The part of the buffer that the DMA engine sees at `start`, at most `count` bytes of it; `None`
/// when it does not start in the buffer.
fn part(buffer: &mut [u8], start: u64, count: u64) -> Option<&mut [u8]> {
    let part = buffer.get_mut(usize::try_from(start.checked_sub(BUFFER)?).ok()?..)?;
    let count = usize::try_from(count).unwrap_or(usize::MAX).min(part.len());
    part.get_mut(..count)
}

/// n! modulo 2^32. From 34 on it is 0: 34! has 32 factors of two.
fn factorial(n: u32) -> u32 {
    if n > 33 { 0 } else { (1..=n).fold(1, u32::wrapping_mul) }
}

impl Device for Edu {
    fn config(&self) -> &ConfigSpace {
        &self.config
    }

    fn config_mut(&mut self) -> &mut ConfigSpace {
        &mut self.config
    }

    fn bar_read(&mut self, bar: u8, offset: u64, data: &mut [u8], _bus: &mut dyn DmaBus) {
        // QEMU's memory core refuses 1 and 2 bytes, which then read 0; the device itself answers
        // ones to 8 bytes of its narrow registers.
        let value = match (bar, data.len()) {
            (0, 8) if offset < reg::WIDE => u64::MAX,
            (0, 4 | 8) => self.register(offset),
            _ => 0,
        };
        data.fill(0);
        data.iter_mut().zip(value.to_le_bytes()).for_each(|(to, from)| *to = from);
    }

    fn bar_write(&mut self, bar: u8, offset: u64, data: &[u8], bus: &mut dyn DmaBus) {
        let allowed = match data.len() {
            4 => true,
            8 => offset >= reg::WIDE,
            _ => false,
        };
        if bar != 0 || !allowed {
            return;
        }
        let mut bytes = [0; 8];
        bytes.iter_mut().zip(data).for_each(|(to, from)| *to = *from);
        let value = u64::from_le_bytes(bytes);
        let low = value as u32;
        match offset {
            reg::LIVENESS => self.liveness = !low,
            reg::FACTORIAL => {
                self.factorial = factorial(low);
                if self.irq_when_done {
                    self.raise(IRQ_FACTORIAL, bus);
                }
            }
            reg::STATUS => self.irq_when_done = value & STATUS_IRQ != 0,
            reg::IRQ_RAISE => self.raise(low, bus),
            reg::IRQ_ACK => self.lower(low, bus),
            reg::DMA_SOURCE => self.dma_source = value,
            reg::DMA_DESTINATION => self.dma_destination = value,
            reg::DMA_COUNT => self.dma_count = value,
            reg::DMA_COMMAND if value & COMMAND_START != 0 => {
                self.dma_command = value;
                self.transfer(bus);
            }
            _ => {}
        }
    }

    fn config_written(&mut self, bus: &mut dyn DmaBus) {
        // A function that has messages lets go of its line, and does not come back to it by itself.
        let status = Status::from_bits_retain(self.config.u16(regs::STATUS));
        let message = Msi::find(&self.config).is_some_and(|msi| msi.enabled(&self.config));
        if message && status.contains(Status::INTERRUPT) {
            self.set_line(false, bus);
        }
    }

    fn reset(&mut self) {
        self.config.reset();
        let mut status = Status::from_bits_retain(self.config.u16(regs::STATUS));
        status.remove(Status::INTERRUPT);
        self.config.set_u16(regs::STATUS, status.bits());
    }
}

#[cfg(test)]
mod tests;
