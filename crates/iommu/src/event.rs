//! Every change of an address space, told as it happens.

use crate::{IovaRange, MmId, Prot, Window};

/// A change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A mapping was made.
    Mapped {
        /// Where.
        range: IovaRange,
        /// The client's address of the first byte.
        vaddr: u64,
        /// Whose address that is.
        mm: MmId,
        /// What devices may do.
        prot: Prot,
    },
    /// A mapping was removed.
    Unmapped {
        /// Where it was.
        range: IovaRange,
    },
    /// A mapping was split in two; both halves keep their memory.
    Cut {
        /// What it was.
        range: IovaRange,
        /// The first byte of the upper half.
        at: u64,
    },
    /// A mapping's user address was declared invalid.
    VaddrInvalidated {
        /// Where.
        range: IovaRange,
    },
    /// A mapping got a new user address.
    VaddrUpdated {
        /// Where.
        range: IovaRange,
        /// The new address of the first byte.
        vaddr: u64,
    },
    /// A group was attached.
    Attached {
        /// Its number.
        group: u32,
        /// It shares the domain of an earlier group.
        merged: bool,
    },
    /// A group was detached.
    Detached {
        /// Its number.
        group: u32,
    },
    /// A doorbell's page got an IOVA in a group's domain.
    DoorbellBound {
        /// A group of the domain.
        group: u32,
        /// The physical address of the doorbell's register.
        doorbell: u64,
        /// Where devices of the domain reach the register.
        iova: u64,
    },
    /// A doorbell page lost its IOVA in a group's domain.
    DoorbellReleased {
        /// A group of the domain.
        group: u32,
        /// The doorbell's physical page.
        doorbell: u64,
    },
    /// A window was registered.
    WindowAdded {
        /// The window.
        window: Window,
    },
    /// A window was removed.
    WindowRemoved {
        /// Where it was.
        range: IovaRange,
    },
    /// Dirty tracking was switched.
    DirtyTracking {
        /// On or off.
        on: bool,
    },
}

/// Somebody who is told every change: traces, reports, pictures.
pub trait Observer {
    /// A change that has just happened.
    fn event(&mut self, event: &Event);
}

/// Nobody listens.
impl Observer for () {
    fn event(&mut self, _: &Event) {}
}
