//! The engine: takes commands from submission queues in turn, and posts completions (NVM Express
//! 1.4, 4.1, 4.13 and 7.2).
//!
//! A call does a bounded amount of work. Entries that lie side by side are read and written at
//! once. A queue whose completions have no room waits until software makes some.

use pci::DmaBus;

use super::Nvme;
use super::command::{CQE_SIZE, Command, Completion, SQE_SIZE, put};
use super::events::ErrorEntry;
use super::regs::{CSTS_SHST, CSTS_SHST_OCCURRING};
use super::stats::NvmeStats;
use super::status::Status;

/// Commands of one call at most.
const BUDGET: usize = 64;
/// Commands of one queue before others have their turn.
const BURST: usize = 16;
/// Bytes moved after which a call takes no more commands.
const BYTES: u64 = 2 << 20;
/// Bytes moved after which software is told of completions before a burst ends, as soon as no more
/// than a quarter of it is left: it goes on with them while we have something to do.
const TELL_BYTES: u64 = 256 << 10;

/// What became of a command.
pub(super) enum Outcome {
    /// Complete.
    Done(Completion),
    /// Complete, but registers changed: to be told when the front end has shown them.
    AfterRegisters(Completion),
    /// Waits for an event.
    Held,
}

/// Completions on their way to one queue, side by side in memory.
struct Posts {
    at: u64,
    len: usize,
    bytes: [u8; CQE_SIZE * BURST],
}

impl Posts {
    const fn new() -> Self {
        Self { at: 0, len: 0, bytes: [0; CQE_SIZE * BURST] }
    }

    /// Adds an entry; what does not lie beside it goes out first.
    fn push(&mut self, at: u64, entry: &[u8; CQE_SIZE], bus: &mut dyn DmaBus) -> Result<(), Fatal> {
        if self.at.wrapping_add(self.len as u64) != at || self.len >= self.bytes.len() {
            self.flush(bus)?;
            self.at = at;
        }
        put(&mut self.bytes, self.len, entry);
        self.len = self.len.saturating_add(CQE_SIZE);
        Ok(())
    }

    fn flush(&mut self, bus: &mut dyn DmaBus) -> Result<(), Fatal> {
        let len = core::mem::take(&mut self.len);
        match self.bytes.get(..len) {
            Some(bytes) if len != 0 => {
                let sent = bus.write(self.at, bytes).map_err(|_| Fatal);
                self.at = self.at.wrapping_add(len as u64);
                sent
            }
            _ => Ok(()),
        }
    }
}

/// The controller could not reach a queue.
struct Fatal;

impl Nvme {
    /// Does a part of what there is to do; whether more is left.
    pub(super) fn work(&mut self, bus: &mut dyn DmaBus) -> bool {
        if !core::mem::take(&mut self.pending) {
            return false;
        }
        if self.regs.csts & CSTS_SHST == CSTS_SHST_OCCURRING {
            self.finish_shutdown();
            return false;
        }
        if !self.regs.running() {
            return false;
        }
        let more = self.turns(bus).unwrap_or_else(|Fatal| {
            self.fatal();
            false
        });
        self.signal(bus);
        self.pending |= more || self.deferred.is_some();
        self.pending
    }

    fn turns(&mut self, bus: &mut dyn DmaBus) -> Result<bool, Fatal> {
        let mut posts = Posts::new();
        if let Some((cid, completion)) = self.deferred.take() {
            self.post(0, cid, completion, &mut posts, bus)?;
        }
        self.tell_events(&mut posts, bus)?;
        posts.flush(bus)?;
        let (mut left, mut moved) = (BUDGET, 0);
        loop {
            let before = left;
            for _ in 0..self.submissions.len() {
                let id = self.turn;
                self.turn = id.wrapping_add(1);
                if self.turn >= self.submissions.len() {
                    self.turn = 0;
                }
                left = left.saturating_sub(self.serve(id, left, &mut moved, bus)?);
                if left == 0 || moved >= BYTES || self.deferred.is_some() {
                    return Ok(self.has_work());
                }
            }
            if left == before {
                return Ok(false);
            }
        }
    }

    /// How many commands of a queue can be taken.
    fn ready(&self, id: usize) -> Option<(u64, usize)> {
        let sq = self.submissions.get(id)?.as_ref()?;
        let (at, ready) = sq.contiguous();
        let room = self.completions.get(usize::from(sq.cqid))?.as_ref()?.room();
        Some((at, ready.min(room) as usize))
    }

    fn has_work(&self) -> bool {
        (0..self.submissions.len()).any(|id| self.ready(id).is_some_and(|(_, ready)| ready != 0))
    }

    /// One queue's turn: how many commands it took.
    fn serve(
        &mut self,
        id: usize,
        most: usize,
        moved: &mut u64,
        bus: &mut dyn DmaBus,
    ) -> Result<usize, Fatal> {
        let Some((at, ready)) = self.ready(id) else { return Ok(0) };
        let count = ready.min(most).min(BURST);
        if count == 0 {
            return Ok(0);
        }
        let mut entries = [[0; SQE_SIZE]; BURST];
        let Some(entries) = entries.get_mut(..count) else { return Ok(0) };
        bus.read(at, entries.as_flattened_mut()).map_err(|_| Fatal)?;
        let mut posts = Posts::new();
        let mut taken = 0_usize;
        let mut told = *moved;
        for entry in entries {
            let command = Command::parse(entry);
            if let Some(sq) = self.submissions.get_mut(id).and_then(Option::as_mut) {
                sq.advance();
            }
            taken = taken.saturating_add(1);
            let outcome = if id == 0 {
                self.admin(&command, bus)
            } else {
                self.io(&command, moved, bus).map(Outcome::Done)
            };
            match outcome.unwrap_or_else(|status| Outcome::Done(status.into())) {
                Outcome::Done(done) => {
                    self.note(id, &command, done.status);
                    self.post(id, command.cid, done, &mut posts, bus)?;
                }
                Outcome::AfterRegisters(done) => {
                    self.deferred = Some((command.cid, done));
                    break;
                }
                Outcome::Held => {}
            }
            let few_left = count.saturating_sub(taken) <= count / 4;
            if few_left && moved.saturating_sub(told) >= TELL_BYTES {
                posts.flush(bus)?;
                self.signal(bus);
                told = *moved;
            }
            if *moved >= BYTES {
                break;
            }
        }
        if id == 0 {
            self.tell_events(&mut posts, bus)?;
        }
        posts.flush(bus)?;
        Ok(taken)
    }

    /// Puts a completion into the queue of submission queue `id` (4.6).
    fn post(
        &mut self,
        id: usize,
        cid: u16,
        completion: Completion,
        posts: &mut Posts,
        bus: &mut dyn DmaBus,
    ) -> Result<(), Fatal> {
        let Some(sq) = self.submissions.get(id).and_then(Option::as_ref) else { return Ok(()) };
        let Some(cq) = self.completions.get_mut(usize::from(sq.cqid)).and_then(Option::as_mut)
        else {
            return Ok(());
        };
        let (at, phase) = cq.take();
        let status = completion.status.bits() << 1 | u16::from(phase);
        let mut entry = [0; CQE_SIZE];
        put(&mut entry, 0, &completion.result.to_le_bytes());
        put(&mut entry, 8, &(sq.head as u16).to_le_bytes());
        put(&mut entry, 10, &(id as u16).to_le_bytes());
        put(&mut entry, 12, &cid.to_le_bytes());
        put(&mut entry, 14, &status.to_le_bytes());
        posts.push(at, &entry, bus)
    }

    /// Completes requests for events (5.2) that have something to tell, while there is room.
    fn tell_events(&mut self, posts: &mut Posts, bus: &mut dyn DmaBus) -> Result<(), Fatal> {
        // A deferred completion has its place already.
        let kept = u32::from(self.deferred.is_some());
        while self
            .completions
            .first()
            .is_some_and(|cq| cq.as_ref().is_some_and(|cq| cq.room() > kept))
        {
            let Some((cid, result)) = self.events.next() else { break };
            self.post(0, cid, Completion::ok(result), posts, bus)?;
        }
        Ok(())
    }

    /// Counts a command, and logs it when it failed.
    fn note(&mut self, id: usize, command: &Command, status: Status) {
        if id == 0 {
            NvmeStats::add(&mut self.stats.admin_commands, 1);
        }
        if status.is_success() {
            return;
        }
        NvmeStats::add(&mut self.stats.errors, 1);
        if status.is_media() && status != Status::COMPARE_FAILURE {
            NvmeStats::add(&mut self.stats.media_errors, 1);
        }
        if status == Status::DATA_TRANSFER_ERROR {
            NvmeStats::add(&mut self.stats.transfer_errors, 1);
        }
        self.events.failed(ErrorEntry {
            count: 0,
            sqid: id as u16,
            cid: command.cid,
            status,
            lba: if id == 0 { 0 } else { command.slba() },
            nsid: command.nsid,
        });
    }
}
