//! Eventfds: counters with references.

use std::collections::{BTreeMap, BTreeSet};

use vfio::EventId;

#[derive(Debug)]
struct Event {
    count: u64,
    references: u32,
}

/// The eventfds of a process.
#[derive(Debug, Default)]
pub(crate) struct Events {
    events: BTreeMap<EventId, Event>,
    next: u32,
    /// Signalled, and nobody has looked yet who watches.
    signalled: BTreeSet<EventId>,
}

impl Events {
    /// A new one, with one reference.
    pub(crate) fn create(&mut self) -> EventId {
        let id = EventId(self.next);
        self.next = self.next.wrapping_add(1);
        self.events.insert(id, Event { count: 0, references: 1 });
        id
    }

    /// One reference more.
    pub(crate) fn get(&mut self, id: EventId) {
        if let Some(event) = self.events.get_mut(&id) {
            event.references += 1;
        }
    }

    /// One reference less; the last one ends the eventfd.
    pub(crate) fn put(&mut self, id: EventId) {
        if let Some(event) = self.events.get_mut(&id) {
            event.references -= 1;
            if event.references == 0 {
                self.events.remove(&id);
            }
        }
    }

    /// Adds 1.
    pub(crate) fn signal(&mut self, id: EventId) {
        if let Some(event) = self.events.get_mut(&id) {
            event.count = event.count.saturating_add(1);
            self.signalled.insert(id);
        }
    }

    /// Adds `value`; not when the counter would become 2^64 - 1.
    pub(crate) fn add(&mut self, id: EventId, value: u64) -> bool {
        let Some(event) = self.events.get_mut(&id) else { return false };
        match event.count.checked_add(value).filter(|count| *count != u64::MAX) {
            Some(count) => event.count = count,
            None => return false,
        }
        self.signalled.insert(id);
        true
    }

    /// What was signalled since the last call.
    pub(crate) fn take_signalled(&mut self) -> Vec<EventId> {
        std::mem::take(&mut self.signalled).into_iter().collect()
    }

    /// The counter.
    pub(crate) fn count(&self, id: EventId) -> u64 {
        self.events.get(&id).map_or(0, |event| event.count)
    }

    /// The counter, cleared; `None` when it was 0.
    pub(crate) fn take(&mut self, id: EventId) -> Option<u64> {
        let event = self.events.get_mut(&id)?;
        let count = std::mem::take(&mut event.count);
        (count != 0).then_some(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_counts_and_lives_as_long_as_it_is_held() {
        let mut e = Events::default();
        let id = e.create();
        e.get(id);
        e.signal(id);
        e.signal(id);
        assert_eq!(e.count(id), 2);
        assert_eq!((e.take(id), e.take(id)), (Some(2), None));
        e.put(id);
        e.signal(id);
        assert_eq!(e.count(id), 1);
        e.put(id);
        assert_eq!(e.count(id), 0);
    }
}
