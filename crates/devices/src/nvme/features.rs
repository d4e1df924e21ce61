//! Features: Get Features and Set Features (NVM Express 1.4, 5.15 and 5.21). None is saved.

use alloc::vec;
use alloc::vec::Vec;

use super::command::{Command, Completion};
use super::status::Status;

/// Feature identifiers (5.21.1).
mod fid {
    pub(super) const ARBITRATION: u8 = 0x01;
    pub(super) const POWER: u8 = 0x02;
    pub(super) const TEMPERATURE: u8 = 0x04;
    pub(super) const ERROR_RECOVERY: u8 = 0x05;
    pub(super) const WRITE_CACHE: u8 = 0x06;
    pub(super) const QUEUES: u8 = 0x07;
    pub(super) const COALESCING: u8 = 0x08;
    pub(super) const VECTOR: u8 = 0x09;
    pub(super) const ATOMICITY: u8 = 0x0a;
    pub(super) const ASYNC_EVENTS: u8 = 0x0b;
}

/// The composite temperature above which the controller warns, in kelvins.
pub(super) const WARNING_TEMPERATURE: u16 = 343;
/// The one at which it is in danger.
pub(super) const CRITICAL_TEMPERATURE: u16 = 373;

/// The composite temperature, in kelvins: 42 degrees Celsius. It never changes, thresholds do.
pub(super) const TEMPERATURE: u16 = 315;

/// Deallocated blocks give errors: not supported.
const DULBE: u32 = 1 << 16;
/// Asynchronous events when a threshold of the temperature is reached (figure 278).
const TEMPERATURE_EVENTS: u32 = 1 << 1;
/// No coalescing for this vector.
const COALESCING_DISABLE: u32 = 1 << 16;

/// What is set.
#[derive(Clone, Debug)]
pub(super) struct Features {
    arbitration: u32,
    over_temperature: u32,
    under_temperature: u32,
    error_recovery: u32,
    write_cache: u32,
    coalescing: u32,
    /// Coalescing disabled, by vector.
    vectors: Vec<bool>,
    atomicity: u32,
    async_events: u32,
    /// Pairs of I/O queues less one, twice.
    queues: u32,
}

impl Features {
    /// The defaults of a controller with these many pairs of I/O queues and vectors.
    pub(super) fn new(queues: u16, vectors: u32) -> Self {
        let last = u32::from(queues.saturating_sub(1));
        Self {
            arbitration: 0,
            over_temperature: u32::from(WARNING_TEMPERATURE),
            under_temperature: 0,
            error_recovery: 0,
            write_cache: 1,
            coalescing: 0,
            vectors: vec![false; vectors as usize],
            atomicity: 0,
            async_events: 0,
            queues: last << 16 | last,
        }
    }

    /// Whether writes may wait for a flush.
    pub(super) const fn caches_writes(&self) -> bool {
        self.write_cache & 1 != 0
    }

    /// Whether the temperature has reached a threshold.
    pub(super) fn temperature_warns(&self) -> bool {
        let now = u32::from(TEMPERATURE);
        now >= self.over_temperature || now <= self.under_temperature
    }

    /// Whether that is to be told as an event.
    pub(super) const fn tells_temperature(&self) -> bool {
        self.async_events & TEMPERATURE_EVENTS != 0
    }

    fn defaults(&self) -> Self {
        let queues = (self.queues as u16).saturating_add(1);
        Self::new(queues, self.vectors.len() as u32)
    }

    /// All features as after power-on.
    pub(super) fn reset(&mut self) {
        *self = self.defaults();
    }

    /// Get Features.
    pub(super) fn get(&self, command: &Command) -> Result<Completion, Status> {
        let id = command.cdw10 as u8;
        match command.cdw10 >> 8 & 7 {
            0 => self.value(id, command.cdw11).map(Completion::ok),
            // Default, and saved: nothing is, so the default is in its place.
            1 | 2 => self.defaults().value(id, command.cdw11).map(Completion::ok),
            3 => capabilities(id).map(Completion::ok),
            _ => Err(Status::INVALID_FIELD),
        }
    }

    fn value(&self, id: u8, cdw11: u32) -> Result<u32, Status> {
        Ok(match id {
            fid::ARBITRATION => self.arbitration,
            fid::POWER => 0,
            fid::TEMPERATURE => match (cdw11 >> 16 & 0xf, cdw11 >> 20 & 3) {
                (0, 0) => self.over_temperature,
                (0, 1) => self.under_temperature,
                _ => return Err(Status::INVALID_FIELD),
            },
            fid::ERROR_RECOVERY => self.error_recovery,
            fid::WRITE_CACHE => self.write_cache,
            fid::QUEUES => self.queues,
            fid::COALESCING => self.coalescing,
            fid::VECTOR => {
                let vector = cdw11 & 0xffff;
                let disabled = self.vectors.get(vector as usize).ok_or(Status::INVALID_FIELD)?;
                vector | if *disabled { COALESCING_DISABLE } else { 0 }
            }
            fid::ATOMICITY => self.atomicity,
            fid::ASYNC_EVENTS => self.async_events,
            _ => return Err(Status::INVALID_FIELD),
        })
    }

    /// Set Features. `queues_exist`: I/O queues have been created.
    pub(super) fn set(
        &mut self,
        command: &Command,
        queues_exist: bool,
    ) -> Result<Completion, Status> {
        let (id, value) = (command.cdw10 as u8, command.cdw11);
        capabilities(id)?;
        if command.cdw10 & 1 << 31 != 0 {
            return Err(Status::FEATURE_NOT_SAVEABLE);
        }
        match id {
            fid::ARBITRATION => self.arbitration = value & 0xffff_ff07,
            // There is one power state.
            fid::POWER if value & 0x1f == 0 => {}
            fid::TEMPERATURE => match (value >> 16 & 0xf, value >> 20 & 3) {
                (0 | 0xf, 0) => self.over_temperature = value & 0xffff,
                (0 | 0xf, 1) => self.under_temperature = value & 0xffff,
                _ => return Err(Status::INVALID_FIELD),
            },
            fid::ERROR_RECOVERY if value & DULBE == 0 => self.error_recovery = value & 0xffff,
            fid::WRITE_CACHE => self.write_cache = value & 1,
            fid::QUEUES => {
                if queues_exist {
                    return Err(Status::COMMAND_SEQUENCE_ERROR);
                }
                if value & 0xffff == 0xffff || value >> 16 == 0xffff {
                    return Err(Status::INVALID_FIELD);
                }
                return Ok(Completion::ok(self.queues));
            }
            fid::COALESCING => self.coalescing = value & 0xffff,
            fid::VECTOR => {
                let vector = self.vectors.get_mut((value & 0xffff) as usize);
                *vector.ok_or(Status::INVALID_FIELD)? = value & COALESCING_DISABLE != 0;
            }
            fid::ATOMICITY => self.atomicity = value & 1,
            fid::ASYNC_EVENTS => self.async_events = value & 0x7fff,
            _ => return Err(Status::INVALID_FIELD),
        }
        Ok(Completion::ok(0))
    }
}

/// What can be done with a feature: bit 1 per namespace, bit 2 changeable.
const fn capabilities(id: u8) -> Result<u32, Status> {
    match id {
        fid::ERROR_RECOVERY => Ok(6),
        fid::ARBITRATION..=fid::TEMPERATURE | fid::WRITE_CACHE..=fid::ASYNC_EVENTS if id != 3 => {
            Ok(4)
        }
        _ => Err(Status::INVALID_FIELD),
    }
}
