//! The channel's state: where it is in its chain, and whether it runs.

/// The state in CHANSTS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Descriptors are left.
    Active = 0,
    /// All descriptors are done.
    Idle = 1,
    /// Stopped; goes on, or starts anew.
    Suspended = 2,
    /// Stopped by an error or a reset.
    Halted = 3,
    /// Has a chain, and did nothing yet.
    Armed = 4,
}

/// How to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    Suspend,
    Abort,
    Reset,
}

/// The registers of a channel, and what is behind them.
#[derive(Clone, Debug)]
pub(super) struct Channel {
    /// CHANCTRL.
    pub(super) control: u16,
    /// CHANCMD: what is not done yet.
    pub(super) command: u8,
    /// DMACOUNT: descriptors since the chain began, modulo 2^16.
    pub(super) count: u16,
    /// CHAINADDR.
    pub(super) chain: u64,
    /// CHANCMP.
    pub(super) completion: u64,
    /// CHANERR.
    pub(super) errors: u32,
    /// CHANERRMSK.
    pub(super) error_mask: u32,
    state: State,
    /// The descriptor that was done last; 0: none since the chain began.
    completed: u64,
    /// Descriptors done since the chain began, modulo 2^16.
    done: u16,
    /// The next descriptor; `None` before the first of the chain.
    next: Option<u64>,
    /// Stopping, in the next `run`.
    stop: Option<Stop>,
    /// A new chain was given since the command to stop.
    armed: bool,
    /// DMACOUNT of a chain that is suspended.
    suspended_count: u16,
    /// What a reset leaves.
    rest: State,
    /// The completion record does not tell yet that the channel halted.
    pub(super) untold: bool,
}

impl Channel {
    /// A channel after power-on.
    pub(super) const fn new(polled: bool) -> Self {
        let rest = if polled { State::Suspended } else { State::Halted };
        Self {
            control: 0,
            command: 0,
            count: 0,
            chain: 0,
            completion: 0,
            errors: 0,
            error_mask: 0,
            state: rest,
            completed: 0,
            done: 0,
            next: None,
            stop: None,
            armed: false,
            suspended_count: 0,
            rest,
            untold: false,
        }
    }

    /// CHANSTS, which is also the completion record.
    pub(super) const fn status(&self) -> u64 {
        self.completed & !0x3f | self.state as u64
    }

    /// CDAR.
    pub(super) const fn current(&self) -> u64 {
        match self.next {
            Some(next) => next,
            None => self.chain,
        }
    }

    /// Whether the first descriptor of the chain is yet to come.
    pub(super) const fn at_start(&self) -> bool {
        self.next.is_none()
    }

    /// Descriptors that can be done.
    pub(super) const fn left(&self) -> u16 {
        match self.state {
            State::Suspended | State::Halted => 0,
            _ => self.count.wrapping_sub(self.done),
        }
    }

    /// CHAINADDR was written: a stopped channel has a new chain. After an error only a reset helps.
    pub(super) const fn start(&mut self, chain: u64) {
        self.chain = chain;
        if self.stop.is_some() {
            self.armed = true;
        } else if matches!(self.state, State::Suspended) || self.is_reset() {
            self.arm();
        }
    }

    const fn is_reset(&self) -> bool {
        matches!(self.state, State::Halted) && self.errors == 0
    }

    const fn arm(&mut self) {
        self.state = State::Armed;
        (self.completed, self.done, self.next) = (0, 0, None);
    }

    /// Stops before the next descriptor. The state follows in [`settle`](Self::settle).
    pub(super) const fn stop(&mut self, how: Stop, command: u8) {
        if !matches!(self.stop, Some(Stop::Reset)) {
            self.stop = Some(how);
            self.command = command;
        }
        self.armed = false;
        if !matches!(self.state, State::Suspended) {
            self.suspended_count = self.count;
        }
        (self.chain, self.count) = (0, 0);
    }

    /// Takes up a suspended chain where it stopped.
    pub(super) const fn resume(&mut self) {
        if matches!(self.state, State::Suspended) && self.stop.is_none() && self.next.is_some() {
            self.count = self.suspended_count;
            self.rest_or_run();
        }
    }

    /// Does the command to stop that waits, if there is one.
    pub(super) const fn settle(&mut self) -> Option<Stop> {
        let Some(how) = self.stop.take() else { return None };
        self.command = 0;
        match how {
            Stop::Suspend if matches!(self.state, State::Halted) => {}
            Stop::Suspend => self.state = State::Suspended,
            Stop::Abort => self.state = State::Halted,
            Stop::Reset => {
                self.state = self.rest;
                (self.errors, self.untold) = (0, false);
                (self.completed, self.done, self.next) = (0, 0, None);
            }
        }
        if self.armed {
            self.armed = false;
            if matches!(self.state, State::Suspended) || self.is_reset() {
                self.arm();
            }
        }
        Some(how)
    }

    /// A descriptor is done.
    pub(super) const fn advance(&mut self, next: u64) {
        self.completed = self.current();
        self.done = self.done.wrapping_add(1);
        self.next = Some(next);
        self.rest_or_run();
    }

    const fn rest_or_run(&mut self) {
        self.state = if self.count == self.done { State::Idle } else { State::Active };
    }

    /// An error: the channel halts before the current descriptor.
    pub(super) const fn halt(&mut self, errors: u32) {
        self.errors |= errors;
        self.state = State::Halted;
        self.untold = true;
    }
}
