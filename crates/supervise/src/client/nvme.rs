//! Drives an NVM Express controller: admin queue, identification, one pair of I/O queues.
//!
//! Source: NVM Express base specification 1.4, whose sections are named.

use std::time::Duration;

use uapi::irq::IrqIndex;

use super::vfio::{Device, DmaMemory, Failure, Interrupt, Registers, doing, wait_for};

/// 3.1, controller registers.
mod reg {
    pub(super) const CAP: usize = 0x00;
    pub(super) const VS: usize = 0x08;
    pub(super) const CC: usize = 0x14;
    pub(super) const CSTS: usize = 0x1c;
    pub(super) const AQA: usize = 0x24;
    pub(super) const ASQ: usize = 0x28;
    pub(super) const ACQ: usize = 0x30;
    pub(super) const DOORBELLS: usize = 0x1000;
}

/// CC: enabled, the NVM command set, 4 KiB pages, entries of 64 and 16 bytes.
const CC_ENABLE: u32 = 1 | 6 << 16 | 4 << 20;
const CSTS_READY: u32 = 1;
const CSTS_FATAL: u32 = 2;

/// 5, admin commands; NVM command set, 6.
mod opcode {
    pub(super) const CREATE_SQ: u8 = 0x01;
    pub(super) const CREATE_CQ: u8 = 0x05;
    pub(super) const IDENTIFY: u8 = 0x06;
    pub(super) const FLUSH: u8 = 0x00;
    pub(super) const WRITE: u8 = 0x01;
    pub(super) const READ: u8 = 0x02;
}

/// Entries of each queue.
const ENTRIES: u16 = 32;
const SQ_ENTRY: usize = 64;
const CQ_ENTRY: usize = 16;
/// The controller's page.
const PAGE: usize = 4096;

const PATIENCE: Duration = Duration::from_secs(30);

/// Where things are in the memory that the driver is given.
mod place {
    use super::PAGE;
    pub(super) const ADMIN: usize = 0;
    pub(super) const IO: usize = 2 * PAGE;
    pub(super) const IDENTIFY: usize = 4 * PAGE;
    pub(super) const DATA: usize = 5 * PAGE;
}

/// Bytes of memory that the driver needs.
pub const MEMORY: usize = 6 * PAGE;
/// The most bytes of one [`read`](Nvme::read) or [`write`](Nvme::write).
pub const MOST: usize = PAGE;

/// A command, as far as it differs from zeros (4.2).
#[derive(Default)]
struct Command {
    opcode: u8,
    nsid: u32,
    prp1: u64,
    cdw10: u32,
    cdw11: u32,
    cdw12: u32,
}

/// A pair of queues.
struct Queue {
    id: u16,
    /// Bytes from the start of the memory; the completions are a page behind.
    at: usize,
    tail: u16,
    head: u16,
    phase: bool,
    vector: usize,
}

impl Queue {
    const fn new(id: u16, at: usize, vector: usize) -> Self {
        Self { id, at, tail: 0, head: 0, phase: true, vector }
    }
}

/// What a controller and its first namespace are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The controller's model.
    pub model: String,
    /// Its serial number.
    pub serial: String,
    /// Its version, such as 1.4.
    pub version: (u16, u8),
    /// Blocks of the namespace.
    pub blocks: u64,
    /// Bytes of a block.
    pub block: usize,
}

/// What all queues use.
struct Controller {
    // Unmapped before the device is closed.
    memory: DmaMemory,
    registers: Registers,
    device: Device,
    interrupts: Vec<Interrupt>,
    /// Bytes from a doorbell to the next.
    stride: usize,
}

/// The controller.
pub struct Nvme {
    controller: Controller,
    admin: Queue,
    io: Queue,
    identity: Identity,
}

impl Nvme {
    /// Brings the controller up, with `memory` for its queues and data.
    ///
    /// # Errors
    /// It is no NVMe controller, or does not do what the specification says.
    pub fn new(device: Device, memory: DmaMemory) -> Result<Self, Failure> {
        if memory.len() < MEMORY {
            return Err(Failure::new("nvme", "its memory is too small"));
        }
        if device.config_read::<3>(9)? != [2, 8, 1] {
            return Err(Failure::new("nvme", "the device is none, by its class"));
        }
        device.enable()?;
        let registers = device.map_bar0(0x2000)?;
        let vectors = device.vectors(IrqIndex::Msix)?.min(2);
        if vectors == 0 {
            return Err(Failure::new("nvme", "it has no MSI-X"));
        }
        let interrupts = device.enable_vectors(IrqIndex::Msix, vectors)?;
        let stride = 4 << (registers.read32(reg::CAP + 4) & 0xf);
        let io_vector = interrupts.len() - 1;
        let mut nvme = Self {
            controller: Controller { memory, registers, device, interrupts, stride },
            admin: Queue::new(0, place::ADMIN, 0),
            io: Queue::new(1, place::IO, io_vector),
            identity: Identity {
                model: String::new(),
                serial: String::new(),
                version: (0, 0),
                blocks: 0,
                block: 512,
            },
        };
        nvme.start()?;
        nvme.identify()?;
        nvme.create_queues()?;
        Ok(nvme)
    }

    /// What it is.
    #[must_use]
    pub const fn identity(&self) -> &Identity {
        &self.identity
    }

    /// 7.6.1, initialization.
    fn start(&self) -> Result<(), Failure> {
        let (registers, iova) = (&self.controller.registers, self.controller.memory.iova());
        let ready = || registers.read32(reg::CSTS) & CSTS_READY != 0;
        registers.write32(reg::CC, 0);
        wait_for("the controller is disabled", PATIENCE, || !ready())?;
        let last = u32::from(ENTRIES - 1);
        registers.write32(reg::AQA, last << 16 | last);
        self.write_address(reg::ASQ, iova + place::ADMIN as u64);
        self.write_address(reg::ACQ, iova + (place::ADMIN + PAGE) as u64);
        registers.write32(reg::CC, CC_ENABLE);
        let fatal = || registers.read32(reg::CSTS) & CSTS_FATAL != 0;
        wait_for("the controller is ready", PATIENCE, || ready() || fatal())?;
        if fatal() {
            return Err(Failure::new("nvme: enabling the controller", "a fatal status"));
        }
        Ok(())
    }

    fn write_address(&self, register: usize, address: u64) {
        self.controller.registers.write32(register, (address & 0xffff_ffff) as u32);
        self.controller.registers.write32(register + 4, (address >> 32) as u32);
    }

    /// 5.15, the controller (CNS 1) and namespace 1 (CNS 0).
    fn identify(&mut self) -> Result<(), Failure> {
        let prp1 = self.controller.memory.iova() + place::IDENTIFY as u64;
        let mut data = vec![0; PAGE];
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();

        let opcode = opcode::IDENTIFY;
        let command = Command { opcode, prp1, cdw10: 1, ..Command::default() };
        self.admin_command("identifying the controller", &command)?;
        self.controller.memory.read(place::IDENTIFY, &mut data);
        self.identity.serial = text(&data[4..24]);
        self.identity.model = text(&data[24..64]);
        let version = self.controller.registers.read32(reg::VS);
        self.identity.version = ((version >> 16) as u16, (version >> 8) as u8);

        let command = Command { opcode, nsid: 1, prp1, ..Command::default() };
        self.admin_command("identifying namespace 1", &command)?;
        self.controller.memory.read(place::IDENTIFY, &mut data);
        self.identity.blocks = data[..8].iter().rev().fold(0, |n, b| n << 8 | u64::from(*b));
        // LBADS of the format in use.
        let format = usize::from(data[26] & 0xf);
        let shift = data[128 + 4 * format + 2];
        if !(9..=12).contains(&shift) {
            let why = format!("blocks of 2^{shift} bytes");
            return Err(Failure::new("nvme: namespace 1", why));
        }
        self.identity.block = 1 << shift;
        Ok(())
    }

    /// 5.3 and 5.4: a pair of I/O queues.
    fn create_queues(&mut self) -> Result<(), Failure> {
        let base = self.controller.memory.iova() + place::IO as u64;
        let cdw10 = u32::from(ENTRIES - 1) << 16 | 1;
        let cq = Command {
            opcode: opcode::CREATE_CQ,
            prp1: base + PAGE as u64,
            cdw10,
            // Its vector, interrupts enabled, in one piece.
            cdw11: (self.io.vector as u32) << 16 | 2 | 1,
            ..Command::default()
        };
        self.admin_command("creating a completion queue", &cq)?;
        let sq = Command {
            opcode: opcode::CREATE_SQ,
            prp1: base,
            cdw10,
            // Its completion queue is number 1; in one piece.
            cdw11: 1 << 16 | 1,
            ..Command::default()
        };
        self.admin_command("creating a submission queue", &sq)
    }

    /// Reads whole blocks.
    ///
    /// # Errors
    /// The controller's status.
    pub fn read(&mut self, lba: u64, data: &mut [u8]) -> Result<(), Failure> {
        let command = self.transfer(opcode::READ, lba, data.len())?;
        self.io_command("reading", &command)?;
        self.controller.memory.read(place::DATA, data);
        Ok(())
    }

    /// Writes whole blocks.
    ///
    /// # Errors
    /// The controller's status.
    pub fn write(&mut self, lba: u64, data: &[u8]) -> Result<(), Failure> {
        let command = self.transfer(opcode::WRITE, lba, data.len())?;
        self.controller.memory.write(place::DATA, data);
        self.io_command("writing", &command)
    }

    /// What was written is on the disk afterwards.
    ///
    /// # Errors
    /// The controller's status.
    pub fn flush(&mut self) -> Result<(), Failure> {
        let flush = Command { opcode: opcode::FLUSH, nsid: 1, ..Command::default() };
        self.io_command("flushing", &flush)
    }

    fn transfer(&self, opcode: u8, lba: u64, len: usize) -> Result<Command, Failure> {
        let block = self.identity.block;
        if len == 0 || len > MOST || !len.is_multiple_of(block) {
            return Err(Failure::new("nvme", format!("{len} bytes, not whole blocks of {block}")));
        }
        Ok(Command {
            opcode,
            nsid: 1,
            prp1: self.controller.memory.iova() + place::DATA as u64,
            cdw10: (lba & 0xffff_ffff) as u32,
            cdw11: (lba >> 32) as u32,
            cdw12: (len / block - 1) as u32,
        })
    }

    fn admin_command(&mut self, what: &str, command: &Command) -> Result<(), Failure> {
        self.controller.issue(&mut self.admin, what, command)
    }

    fn io_command(&mut self, what: &str, command: &Command) -> Result<(), Failure> {
        self.controller.issue(&mut self.io, what, command)
    }

    /// Disables the controller and its interrupts.
    ///
    /// # Errors
    /// The controller does not stop.
    pub fn stop(&mut self) -> Result<(), Failure> {
        self.controller.registers.write32(reg::CC, 0);
        let ready = || self.controller.registers.read32(reg::CSTS) & CSTS_READY != 0;
        wait_for("the controller is disabled", PATIENCE, || !ready())?;
        self.controller.device.disable_vectors(IrqIndex::Msix)
    }

    /// Stops the controller, unmaps the memory, and closes the device, in this order: an address space
    /// ends when its last group is closed. How many bytes were unmapped.
    ///
    /// # Errors
    /// The controller does not stop, or the kernel's.
    pub fn close(mut self) -> Result<u64, Failure> {
        self.stop()?;
        self.controller.memory.unmap().map_err(doing("nvme: unmapping"))
    }
}

impl Controller {
    /// 7.2: an entry, a doorbell, an interrupt, a completion, a doorbell.
    fn issue(&self, queue: &mut Queue, what: &str, command: &Command) -> Result<(), Failure> {
        let entry = queue.at + SQ_ENTRY * usize::from(queue.tail);
        let id = queue.tail;
        let words = [
            u32::from(command.opcode) | u32::from(id) << 16,
            command.nsid,
            0,
            0,
            0,
            0,
            (command.prp1 & 0xffff_ffff) as u32,
            (command.prp1 >> 32) as u32,
            0,
            0,
            command.cdw10,
            command.cdw11,
            command.cdw12,
            0,
            0,
            0,
        ];
        for (at, word) in (entry..).step_by(4).zip(words) {
            self.memory.write(at, &word.to_le_bytes());
        }
        queue.tail = (queue.tail + 1) % ENTRIES;
        let doorbell = reg::DOORBELLS + 2 * usize::from(queue.id) * self.stride;
        self.registers.write32(doorbell, queue.tail.into());

        let completion = queue.at + PAGE + CQ_ENTRY * usize::from(queue.head);
        // An interrupt may be an earlier command's: the phase bit tells.
        let status = loop {
            let word = self.memory.read32(completion + 12);
            if (word >> 16 & 1 == 1) == queue.phase {
                break word;
            }
            let interrupt = self.interrupts.get(queue.vector);
            let interrupt = interrupt.ok_or_else(|| Failure::new(what, "it has no vector"))?;
            interrupt.wait(PATIENCE).map_err(|why| Failure::new(format!("nvme: {what}"), why))?;
        };
        queue.head = (queue.head + 1) % ENTRIES;
        queue.phase ^= queue.head == 0;
        self.registers.write32(doorbell + self.stride, queue.head.into());
        let (answered, status) = (status & 0xffff, status >> 17);
        if answered != u32::from(id) {
            return Err(Failure::new(format!("nvme: {what}"), "another command was completed"));
        }
        if status != 0 {
            return Err(Failure::new(format!("nvme: {what}"), format!("status {status:#x}")));
        }
        Ok(())
    }
}
