//! Everything that changes while a trace is replayed, told as typed events.
//!
//! Pictures and explanations need to know who put what where. [`Session::watch`](crate::Session::watch)
//! turns the recording on; a replay that only compares answers pays nothing for it.

use std::sync::{Arc, Mutex, PoisonError};

use iommu::{Event, Fault, Observer};
use vfio::ContainerId;

/// Something that happened because of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Change {
    /// An address space changed.
    Space {
        /// Whose; `None` when the group that brought it about was in no container afterwards.
        container: Option<ContainerId>,
        /// What.
        event: Event,
    },
    /// A device met no memory.
    Fault {
        /// The device, as requests call it.
        device: String,
        /// Its container, if its group was in one.
        container: Option<ContainerId>,
        /// What it met.
        fault: Fault,
    },
}

/// Events since the last time, in order. Whoever issues a request says whose space it is about.
#[derive(Clone, Debug, Default)]
pub(crate) struct Events(Arc<Mutex<Vec<Event>>>);

impl Events {
    /// Hands on the events since the last time.
    pub(crate) fn drain(&self, each: impl FnMut(Event)) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).drain(..).for_each(each);
    }
}

impl Observer for Events {
    fn event(&mut self, event: &Event) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(*event);
    }
}
