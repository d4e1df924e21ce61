//! What reading and writing registers does (NVM Express 1.4, 3.1 and 7.6).

use pci::DmaBus;

use super::Nvme;
use super::events::Event;
use super::queue::{BadDoorbell, CompletionRing, Submission};
use super::regs::{
    CSTS_CFS, CSTS_RDY, CSTS_SHST, CSTS_SHST_COMPLETE, CSTS_SHST_OCCURRING, Cc, Registers, reg,
};
use super::stats::NvmeStats;

/// The bits of CC that are kept.
const CC_MASK: u32 = 0x00ff_fff1;

/// The queue of a doorbell, and whether it is the head of its completions.
const fn doorbell(offset: u64) -> (usize, bool) {
    let index = offset.saturating_sub(reg::DOORBELLS) >> 2;
    ((index >> 1) as usize, index & 1 != 0)
}

impl Nvme {
    /// A register, or a doorbell as it was last rung; nothing changes.
    pub(super) fn word(&self, offset: u64) -> u32 {
        if offset < reg::DOORBELLS {
            return self.regs.word(offset);
        }
        let (id, head) = doorbell(offset);
        if head {
            self.completions.get(id).and_then(Option::as_ref).map_or(0, |cq| cq.head)
        } else {
            self.submissions.get(id).and_then(Option::as_ref).map_or(0, |sq| sq.tail)
        }
    }

    pub(super) fn set_word(&mut self, offset: u64, value: u32, bus: &mut dyn DmaBus) {
        match offset {
            reg::DOORBELLS.. => self.ring(offset, value, bus),
            reg::CC => self.configure(value, bus),
            reg::INTMS | reg::INTMC => {
                self.regs.set_word(offset, value);
                self.update_line(bus);
                self.changed();
            }
            _ => self.regs.set_word(offset, value),
        }
    }

    /// CC (3.1.5): enabling, disabling, shutting down.
    fn configure(&mut self, value: u32, bus: &mut dyn DmaBus) {
        let (old, new) = (self.regs.cc(), Cc(value & CC_MASK));
        self.regs.cc = new.0;
        if old.enabled() && !new.enabled() {
            self.stop();
            self.update_line(bus);
        } else if !old.enabled() && new.enabled() {
            self.start();
        }
        if new.shutdown() && self.regs.csts & CSTS_SHST == 0 {
            self.regs.csts |= CSTS_SHST_OCCURRING;
            self.pending = true;
        }
        self.changed();
    }

    fn start(&mut self) {
        let Registers { asq, acq, .. } = self.regs;
        let (sq, cq) = self.regs.admin_sizes();
        let ok = self.regs.can_start();
        self.regs.csts = if ok { CSTS_RDY } else { CSTS_CFS };
        if let (true, Some(admin), Some(done)) =
            (ok, self.submissions.first_mut(), self.completions.first_mut())
        {
            *admin = Some(Submission::new(asq, sq, 0));
            *done = Some(CompletionRing::new(acq, cq, Some(0)));
        }
    }

    /// A reset of the controller (7.3.2): queues are gone, AQA, ASQ and ACQ stay.
    pub(super) fn stop(&mut self) {
        self.submissions.fill(None);
        self.completions.fill(None);
        self.regs.csts = 0;
        self.regs.masked = 0;
        self.features.reset();
        self.events.reset();
        self.deferred = None;
        self.pending = false;
        self.turn = 0;
        NvmeStats::add(&mut self.stats.resets, 1);
        self.changed();
    }

    /// The end of a shutdown (7.6.2): what was written is durable.
    pub(super) fn finish_shutdown(&mut self) {
        for namespace in &mut self.namespaces {
            // There is nobody left to tell.
            let _ = namespace.backend.flush();
        }
        self.regs.csts = self.regs.csts & !CSTS_SHST | CSTS_SHST_COMPLETE;
        self.changed();
    }

    /// Nothing helps but a reset (9.5).
    pub(super) const fn fatal(&mut self) {
        self.regs.csts |= CSTS_CFS;
        self.changed();
    }

    /// A doorbell (3.1.24, 3.1.25). Wrong ones are ignored and an event (5.2, figure 148).
    fn ring(&mut self, offset: u64, value: u32, bus: &mut dyn DmaBus) {
        if !self.regs.running() {
            return;
        }
        let (id, head) = doorbell(offset);
        // The upper half is reserved.
        let value = value & 0xffff;
        let rung = if head {
            let cq = self.completions.get_mut(id).and_then(Option::as_mut);
            cq.map(|cq| cq.ring(value).map(|()| cq.vector.is_some()))
        } else {
            let sq = self.submissions.get_mut(id).and_then(Option::as_mut);
            sq.map(|sq| sq.ring(value).map(|()| false))
        };
        self.pending = true;
        match rung {
            Some(Ok(line)) => {
                if line {
                    self.update_line(bus);
                }
            }
            Some(Err(BadDoorbell)) => self.bad_doorbell(Event::BadDoorbellValue),
            None => self.bad_doorbell(Event::NoSuchDoorbell),
        }
    }

    fn bad_doorbell(&mut self, event: Event) {
        NvmeStats::add(&mut self.stats.bad_doorbells, 1);
        self.events.raise(event);
    }
}
