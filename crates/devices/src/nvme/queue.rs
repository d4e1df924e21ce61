//! Queues: rings in memory and their doorbells (NVM Express 1.4, 3.1.24, 3.1.25 and 4.1).
//!
//! Heads and tails are below the size of their ring always.

/// A ring of commands.
#[derive(Clone, Debug)]
pub(super) struct Submission {
    pub(super) base: u64,
    /// Entries.
    pub(super) size: u32,
    /// The next to take.
    pub(super) head: u32,
    /// One behind the last; the doorbell's value.
    pub(super) tail: u32,
    /// The queue that gets the completions.
    pub(super) cqid: u16,
}

/// A ring of completions.
#[derive(Clone, Debug)]
pub(super) struct CompletionRing {
    pub(super) base: u64,
    /// Entries.
    pub(super) size: u32,
    /// The oldest that software has not taken; the doorbell's value.
    pub(super) head: u32,
    /// The next to fill.
    pub(super) tail: u32,
    /// What new entries carry in their phase bit.
    pub(super) phase: bool,
    /// The interrupt, if this queue has one.
    pub(super) vector: Option<u16>,
    /// Entries came since the last interrupt.
    pub(super) unsignalled: bool,
}

/// `to - from` around a ring.
pub(super) const fn distance(from: u32, to: u32, size: u32) -> u32 {
    if to >= from { to.wrapping_sub(from) } else { to.wrapping_add(size).wrapping_sub(from) }
}

const fn next(index: u32, size: u32) -> u32 {
    let next = index.wrapping_add(1);
    if next >= size { 0 } else { next }
}

/// A doorbell's value that cannot be: the event of figure 148.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BadDoorbell;

impl Submission {
    pub(super) const fn new(base: u64, size: u32, cqid: u16) -> Self {
        Self { base, size, head: 0, tail: 0, cqid }
    }

    /// Commands that wait.
    pub(super) const fn waiting(&self) -> u32 {
        distance(self.head, self.tail, self.size)
    }

    /// Commands that wait up to the end of the ring, and where the first is.
    pub(super) fn contiguous(&self) -> (u64, u32) {
        let until_end = self.size.saturating_sub(self.head);
        let at = self.base.wrapping_add(u64::from(self.head).wrapping_mul(64));
        (at, self.waiting().min(until_end))
    }

    pub(super) const fn advance(&mut self) {
        self.head = next(self.head, self.size);
    }

    /// The tail doorbell: new commands, no more than there is room for.
    pub(super) fn ring(&mut self, tail: u32) -> Result<(), BadDoorbell> {
        let room = self.size.saturating_sub(1).saturating_sub(self.waiting());
        if tail >= self.size || distance(self.tail, tail, self.size) > room {
            return Err(BadDoorbell);
        }
        self.tail = tail;
        Ok(())
    }
}

impl CompletionRing {
    pub(super) const fn new(base: u64, size: u32, vector: Option<u16>) -> Self {
        Self { base, size, head: 0, tail: 0, phase: true, vector, unsignalled: false }
    }

    /// Completions that software has not taken.
    pub(super) const fn filled(&self) -> u32 {
        distance(self.head, self.tail, self.size)
    }

    /// Entries that can be filled: one stays empty, else full would look like empty.
    pub(super) fn room(&self) -> u32 {
        let kept = if planted!(FullQueueLooksEmpty) { 0 } else { 1 };
        self.size.saturating_sub(kept).saturating_sub(self.filled())
    }

    /// Takes the next entry: its address and its phase.
    pub(super) fn take(&mut self) -> (u64, bool) {
        let at = self.base.wrapping_add(u64::from(self.tail).wrapping_mul(16));
        let phase = self.phase;
        self.tail = next(self.tail, self.size);
        if self.tail == 0 {
            self.phase = !self.phase;
        }
        self.unsignalled = true;
        (at, phase)
    }

    /// The head doorbell: no more taken than was there.
    pub(super) fn ring(&mut self, head: u32) -> Result<(), BadDoorbell> {
        if head >= self.size || distance(self.head, head, self.size) > self.filled() {
            return Err(BadDoorbell);
        }
        self.head = head;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rings_wrap() {
        let mut sq = Submission::new(0x1000, 4, 0);
        assert_eq!((sq.ring(3), sq.waiting()), (Ok(()), 3));
        assert_eq!((sq.ring(0), sq.ring(4)), (Err(BadDoorbell), Err(BadDoorbell)));
        (0..3).for_each(|_| sq.advance());
        assert_eq!((sq.ring(2), sq.contiguous()), (Ok(()), (0x10c0, 1)));
        let mut cq = CompletionRing::new(0, 2, None);
        assert_eq!((cq.room(), cq.take(), cq.room()), (1, (0, true), 0));
        assert_eq!((cq.ring(1), cq.take(), cq.ring(0)), (Ok(()), (16, true), Ok(())));
        assert_eq!((cq.ring(1), cq.take()), (Err(BadDoorbell), (0, false)));
    }
}
