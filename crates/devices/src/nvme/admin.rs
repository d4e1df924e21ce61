//! Admin commands (NVM Express 1.4, chapter 5).

use alloc::vec::Vec;

use pci::DmaBus;

use super::Nvme;
use super::command::{Command, Completion, admin};
use super::engine::Outcome;
use super::events::Event;
use super::identify::{self, SIZE};
use super::log;
use super::queue::{CompletionRing, Submission};
use super::regs::MAX_ENTRIES;
use super::status::Status;

/// Values of Identify's CNS (figure 244).
mod cns {
    pub(super) const NAMESPACE: u32 = 0x00;
    pub(super) const CONTROLLER: u32 = 0x01;
    pub(super) const ACTIVE_NAMESPACES: u32 = 0x02;
    pub(super) const DESCRIPTORS: u32 = 0x03;
}

impl Nvme {
    pub(super) fn admin(
        &mut self,
        command: &Command,
        bus: &mut dyn DmaBus,
    ) -> Result<Outcome, Status> {
        if command.has_odd_flags() {
            return Err(Status::INVALID_FIELD);
        }
        let done = match command.opcode {
            admin::DELETE_SQ => return self.delete_sq(command),
            admin::CREATE_SQ => return self.create_sq(command),
            admin::DELETE_CQ => return self.delete_cq(command),
            admin::CREATE_CQ => return self.create_cq(command),
            admin::GET_LOG_PAGE => self.get_log_page(command, bus)?,
            admin::IDENTIFY => self.identify(command, bus)?,
            // 5.1: commands are done when they are taken, so none is there to abort.
            admin::ABORT => Completion::ok(1),
            admin::SET_FEATURES => {
                let exist = self.submissions.iter().skip(1).flatten().next().is_some()
                    || self.completions.iter().skip(1).flatten().next().is_some();
                let warned = self.features.temperature_warns();
                let done = self.features.set(command, exist)?;
                if !warned && self.features.temperature_warns() && self.features.tells_temperature()
                {
                    self.events.raise(Event::Temperature);
                }
                done
            }
            admin::GET_FEATURES => self.features.get(command)?,
            admin::ASYNC_EVENT => {
                self.events.request(command.cid)?;
                return Ok(Outcome::Held);
            }
            _ => return Err(Status::INVALID_OPCODE),
        };
        Ok(Outcome::Done(done))
    }

    /// Create I/O Completion Queue (5.3).
    fn create_cq(&mut self, command: &Command) -> Result<Outcome, Status> {
        let size = ring_size(command, self.regs.cc().iocqes() == 4)?;
        let vector = (command.cdw11 >> 16) as u16;
        let signals = command.cdw11 & 2 != 0;
        if u32::from(vector) >= self.vectors() || signals && vector != 0 && !self.uses_messages() {
            return Err(Status::INVALID_INTERRUPT_VECTOR);
        }
        let base = self.ring_base(command)?;
        let place = free(&mut self.completions, command.cdw10)?;
        *place = Some(CompletionRing::new(base, size, signals.then_some(vector)));
        Ok(self.created())
    }

    /// Create I/O Submission Queue (5.4).
    fn create_sq(&mut self, command: &Command) -> Result<Outcome, Status> {
        let size = ring_size(command, self.regs.cc().iosqes() == 6)?;
        let cqid = (command.cdw11 >> 16) as u16;
        if cqid == 0 || self.completions.get(usize::from(cqid)).is_none_or(Option::is_none) {
            return Err(Status::COMPLETION_QUEUE_INVALID);
        }
        let base = self.ring_base(command)?;
        let place = free(&mut self.submissions, command.cdw10)?;
        *place = Some(Submission::new(base, size, cqid));
        Ok(self.created())
    }

    /// Delete I/O Completion Queue (5.5).
    fn delete_cq(&mut self, command: &Command) -> Result<Outcome, Status> {
        let place = taken(&mut self.completions, command.cdw10)?;
        let id = command.cdw10 as u16;
        if self.submissions.iter().flatten().any(|sq| sq.cqid == id) {
            return Err(Status::INVALID_QUEUE_DELETION);
        }
        *place = None;
        Ok(self.created())
    }

    /// Delete I/O Submission Queue (5.6): what waits in it is not done.
    fn delete_sq(&mut self, command: &Command) -> Result<Outcome, Status> {
        *taken(&mut self.submissions, command.cdw10)? = None;
        Ok(self.created())
    }

    /// A queue came or went, and with it its doorbell: software hears when the register shows it.
    const fn created(&mut self) -> Outcome {
        self.changed();
        Outcome::AfterRegisters(Completion::ok(0))
    }

    /// Queues are contiguous (CAP.CQR) and begin with a page.
    fn ring_base(&self, command: &Command) -> Result<u64, Status> {
        if command.cdw11 & 1 == 0 {
            return Err(Status::INVALID_FIELD);
        }
        if command.prp1 & self.regs.cc().page_size().wrapping_sub(1) != 0 {
            return Err(Status::INVALID_PRP_OFFSET);
        }
        Ok(command.prp1)
    }

    /// Identify (5.15).
    fn identify(&mut self, command: &Command, bus: &mut dyn DmaBus) -> Result<Completion, Status> {
        let all = self.namespaces.len() as u32;
        let bytes: [u8; SIZE] = match command.cdw10 & 0xff {
            cns::NAMESPACE => {
                let block_size = self.block_size;
                let namespace = self.namespace(command.nsid)?;
                let read_only = namespace.backend.read_only();
                identify::namespace(namespace.blocks, block_size, read_only, &namespace.ids)
            }
            cns::CONTROLLER => identify::controller(&self.serial, all),
            cns::ACTIVE_NAMESPACES if command.nsid >= 0xffff_fffe => {
                return Err(Status::INVALID_NAMESPACE);
            }
            cns::ACTIVE_NAMESPACES => identify::active_list(command.nsid, all),
            cns::DESCRIPTORS => identify::descriptors(&self.namespace(command.nsid)?.ids),
            _ => return Err(Status::INVALID_FIELD),
        };
        self.send(command, &bytes, bus)?;
        Ok(Completion::ok(0))
    }

    /// Get Log Page (5.14): beyond the page's end are zeroes.
    fn get_log_page(
        &mut self,
        command: &Command,
        bus: &mut dyn DmaBus,
    ) -> Result<Completion, Status> {
        let id = command.cdw10 as u8;
        let dwords = u64::from(command.cdw10 >> 16) | u64::from(command.cdw11 & 0xffff) << 16;
        let len = dwords.saturating_add(1).saturating_mul(4);
        let from = u64::from(command.cdw13) << 32 | u64::from(command.cdw12);
        let (page, size) = log::page(id, &self.events, &self.features, &self.stats)
            .ok_or(Status::INVALID_LOG_PAGE)?;
        if len > super::io::MAX_TRANSFER || from & 3 != 0 || from > size as u64 {
            return Err(Status::INVALID_FIELD);
        }
        let mut bytes: Vec<u8> =
            page.iter().take(size).skip(from as usize).take(len as usize).copied().collect();
        bytes.resize(len as usize, 0);
        self.send(command, &bytes, bus)?;
        if command.cdw10 & 1 << 15 == 0 {
            self.events.unmask(id);
        }
        Ok(Completion::ok(0))
    }
}

/// The entries of a new queue.
fn ring_size(command: &Command, entry_size_is_set: bool) -> Result<u32, Status> {
    let size = (command.cdw10 >> 16).saturating_add(1);
    if entry_size_is_set && (2..=MAX_ENTRIES).contains(&size) {
        Ok(size)
    } else {
        Err(Status::INVALID_QUEUE_SIZE)
    }
}

/// The place of a queue that is to be created: an I/O queue, and free.
fn free<T>(queues: &mut [Option<T>], cdw10: u32) -> Result<&mut Option<T>, Status> {
    let place = queues.get_mut((cdw10 & 0xffff) as usize).filter(|_| cdw10 & 0xffff != 0);
    place.filter(|queue| queue.is_none()).ok_or(Status::INVALID_QUEUE_IDENTIFIER)
}

/// The place of a queue that is to be deleted.
fn taken<T>(queues: &mut [Option<T>], cdw10: u32) -> Result<&mut Option<T>, Status> {
    let place = queues.get_mut((cdw10 & 0xffff) as usize).filter(|_| cdw10 & 0xffff != 0);
    place.filter(|queue| queue.is_some()).ok_or(Status::INVALID_QUEUE_IDENTIFIER)
}
