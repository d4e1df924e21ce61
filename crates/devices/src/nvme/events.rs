//! Asynchronous events and the error log (NVM Express 1.4, 5.2 and 5.14.1.1).

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use super::log::lid;
use super::status::Status;

/// Requests that can wait (AERL + 1).
pub(super) const REQUESTS: usize = 4;
/// Errors that are remembered (ELPE + 1).
pub(super) const ERRORS: usize = 4;

/// What happened (5.2, figures 148 and 149): type in the upper byte, information in the lower one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// A doorbell of a queue that is not there was written.
    NoSuchDoorbell,
    /// A doorbell was given a value it cannot have.
    BadDoorbellValue,
    /// The temperature came to a threshold.
    Temperature,
}

impl Event {
    /// Type and information.
    const fn what(self) -> (u32, u32) {
        match self {
            Self::NoSuchDoorbell => (0, 0),
            Self::BadDoorbellValue => (0, 1),
            Self::Temperature => (1, 1),
        }
    }

    /// The log page that tells more; reading it lets the next event of its type be told.
    const fn page(self) -> u8 {
        match self {
            Self::NoSuchDoorbell | Self::BadDoorbellValue => lid::ERRORS,
            Self::Temperature => lid::HEALTH,
        }
    }

    /// Dword 0 of the completion.
    const fn result(self) -> u32 {
        let (kind, information) = self.what();
        (self.page() as u32) << 16 | information << 8 | kind
    }
}

/// An entry of the error log (figure 194).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ErrorEntry {
    pub(super) count: u64,
    pub(super) sqid: u16,
    pub(super) cid: u16,
    pub(super) status: Status,
    pub(super) lba: u64,
    pub(super) nsid: u32,
}

/// Requests that wait for events, events that wait for requests, errors.
#[derive(Clone, Debug, Default)]
pub(super) struct Events {
    requests: VecDeque<u16>,
    pending: Vec<Event>,
    /// Pages that something was told of and that were not read since: more is kept until they are.
    masked: Vec<u8>,
    errors: VecDeque<ErrorEntry>,
    /// Errors since power-on.
    count: u64,
}

impl Events {
    /// A request; its completion waits for an event.
    pub(super) fn request(&mut self, cid: u16) -> Result<(), Status> {
        if self.requests.len() >= REQUESTS {
            return Err(Status::EVENT_REQUEST_LIMIT);
        }
        self.requests.push_back(cid);
        Ok(())
    }

    /// Something happened; the same thing twice before it is told is told once.
    pub(super) fn raise(&mut self, event: Event) {
        if !self.pending.contains(&event) {
            self.pending.push(event);
        }
    }

    /// The first event that may be told.
    fn first(&self) -> Option<usize> {
        self.pending.iter().position(|event| !self.masked.contains(&event.page()))
    }

    /// A request to complete, with dword 0.
    pub(super) fn next(&mut self) -> Option<(u16, u32)> {
        let first = self.first()?;
        let cid = self.requests.pop_front()?;
        let event = self.pending.remove(first);
        self.masked.push(event.page());
        Some((cid, event.result()))
    }

    /// A log page was read: the next event of its type is told of.
    pub(super) fn unmask(&mut self, page: u8) {
        self.masked.retain(|masked| *masked != page);
    }

    /// A command failed.
    pub(super) fn failed(&mut self, entry: ErrorEntry) {
        self.count = self.count.saturating_add(1);
        self.errors.truncate(ERRORS.saturating_sub(1));
        self.errors.push_front(ErrorEntry { count: self.count, ..entry });
    }

    /// Errors since power-on.
    pub(super) const fn error_count(&self) -> u64 {
        self.count
    }

    /// The newest errors, newest first.
    pub(super) fn errors(&self) -> impl Iterator<Item = &ErrorEntry> {
        self.errors.iter()
    }

    /// A reset of the controller: nobody waits any more, the log stays.
    pub(super) fn reset(&mut self) {
        self.requests.clear();
        self.pending.clear();
        self.masked.clear();
    }
}
