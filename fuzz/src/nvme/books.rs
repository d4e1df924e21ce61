//! What a correct driver knows of its queues, and what must hold when completions come.

use std::collections::BTreeMap;

use super::{BASE, QUEUES};

/// What a command does to queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    CreateSq(usize, u32, usize),
    DeleteSq(usize),
    CreateCq(usize, u32),
    DeleteCq(usize),
    /// Waits for an event.
    Event,
    Other,
}

#[derive(Clone, Copy, Debug)]
struct Submission {
    size: u32,
    tail: u32,
    /// As the newest completion tells it.
    head: u32,
    cqid: usize,
}

#[derive(Clone, Copy, Debug)]
struct Completion {
    size: u32,
    /// Entries posted and entries taken, in all.
    posted: u32,
    taken: u32,
}

/// The books.
#[derive(Default)]
pub(super) struct Books {
    submissions: [Option<Submission>; QUEUES],
    completions: [Option<Completion>; QUEUES],
    /// By command identifier: the queue and what it is.
    outstanding: BTreeMap<u16, (usize, Kind)>,
    cid: u16,
}

impl Books {
    /// Admin queues of these many entries, and nothing else.
    pub(super) fn started(sq: u32, cq: u32) -> Self {
        let mut books = Self::default();
        books.submissions[0] = Some(Submission { size: sq, tail: 0, head: 0, cqid: 0 });
        books.completions[0] = Some(Completion { size: cq, posted: 0, taken: 0 });
        books
    }

    /// A command's identifier, its place in the ring, and the tail behind it; `None` where no
    /// command fits.
    pub(super) fn submit(&mut self, id: usize, kind: Kind) -> Option<(u16, u32, u32)> {
        if self.awaits(Kind::DeleteSq(id)) {
            return None;
        }
        let sq = self.submissions[id].as_mut()?;
        let tail = (sq.tail + 1) % sq.size;
        if tail == sq.head {
            return None;
        }
        let slot = std::mem::replace(&mut sq.tail, tail);
        while self.outstanding.contains_key(&self.cid) {
            self.cid = self.cid.wrapping_add(1);
        }
        self.outstanding.insert(self.cid, (id, kind));
        Some((self.cid, slot, tail))
    }

    /// Whether such a command is under way: a queue that goes is left alone. Those of the admin
    /// queue are refused.
    fn awaits(&self, kind: Kind) -> bool {
        let kept = [Kind::DeleteSq(0), Kind::DeleteCq(0)];
        !kept.contains(&kind) && self.outstanding.values().any(|(_, other)| *other == kind)
    }

    /// Takes completions: the new head, if there is a queue.
    pub(super) fn take(&mut self, id: usize, count: u32) -> Option<u32> {
        if self.awaits(Kind::DeleteCq(id)) {
            return None;
        }
        let cq = self.completions[id].as_mut()?;
        cq.taken += count.min(cq.posted - cq.taken);
        Some(cq.taken % cq.size)
    }

    /// Completions are written.
    pub(super) fn posted(&mut self, addr: u64, data: &[u8]) {
        let id = ((addr - BASE) / 0x2000) as usize;
        assert_ne!(addr & 0x1000, 0, "a write into commands");
        assert_eq!(data.len() % 16, 0, "not a completion");
        for (entry, index) in data.chunks(16).zip(addr as u32 >> 4 & 0xff..) {
            let cq = self.completions[id].as_mut().expect("a queue that is there");
            let half = |at: usize| u16::from_le_bytes([entry[at], entry[at + 1]]);
            assert_eq!(index, cq.posted % cq.size, "the wrong place");
            let phase = (cq.posted / cq.size).is_multiple_of(2);
            assert_eq!(half(14) & 1, u16::from(phase), "the wrong phase");
            cq.posted += 1;
            assert!(cq.posted - cq.taken < cq.size, "queue {id} runs over");
            let (sqid, cid) = (usize::from(half(10)), half(12));
            let (from, kind) = self.outstanding.remove(&cid).expect("a command that is there");
            assert_eq!(from, sqid, "another queue's command");
            let sq = self.submissions[sqid].as_mut().expect("a queue that is there");
            assert_eq!(sq.cqid, id, "the wrong completion queue");
            sq.head = half(8).into();
            assert!(sq.head < sq.size, "a head beyond its ring");
            if half(14) >> 1 == 0 {
                self.done(kind);
            }
        }
    }

    fn done(&mut self, kind: Kind) {
        match kind {
            Kind::CreateSq(id, size, cqid) => {
                assert!(id != 0 && self.submissions[id].is_none() && size >= 2);
                assert!(cqid != 0 && self.completions[cqid].is_some());
                self.submissions[id] = Some(Submission { size, tail: 0, head: 0, cqid });
            }
            Kind::DeleteSq(id) => {
                assert!(self.submissions[id].take().is_some());
                self.outstanding.retain(|_, (queue, _)| *queue != id);
            }
            Kind::CreateCq(id, size) => {
                assert!(id != 0 && self.completions[id].is_none() && size >= 2);
                self.completions[id] = Some(Completion { size, posted: 0, taken: 0 });
            }
            Kind::DeleteCq(id) => {
                assert!(self.submissions.iter().flatten().all(|sq| sq.cqid != id));
                assert!(self.completions[id].take().is_some());
            }
            Kind::Event | Kind::Other => {}
        }
    }

    /// The driver took everything and waited.
    pub(super) fn finished(&self) {
        for (cid, (queue, kind)) in &self.outstanding {
            assert_eq!(*kind, Kind::Event, "command {cid} of queue {queue} is forgotten");
        }
    }
}
