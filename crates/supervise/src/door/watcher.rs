//! Waits for what no request brings: eventfds that devices watch, and open files that were closed.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, epoll, eventfd, poll};
use vfio::{DeviceId, EventId};

use super::Door;
use super::slot::{Guarded, Slot};

/// The eventfds that devices watch.
pub(super) struct Watcher {
    epoll: OwnedFd,
    wake: OwnedFd,
    watched: Mutex<BTreeMap<(DeviceId, EventId), Arc<OwnedFd>>>,
}

impl Watcher {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            wake: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            watched: Mutex::default(),
        })
    }

    /// Lets the thread look up.
    pub(super) fn wake(&self) {
        // A counter that is full has woken it already.
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
    }
}

fn timespec(time: Duration) -> Timespec {
    Timespec { tv_sec: time.as_secs().cast_signed(), tv_nsec: time.subsec_nanos().into() }
}

impl Door {
    /// A device may watch other eventfds than before.
    pub(super) fn update_watched(&self, id: DeviceId, guarded: &Guarded) {
        let mut watched = self.watcher.watched.lock();
        let wanted: Vec<EventId> = guarded.device.watched_events().collect();
        let known = watched.range((id, EventId(0))..=(id, EventId(u32::MAX)));
        let gone: Vec<_> =
            known.map(|(key, _)| *key).filter(|(_, event)| !wanted.contains(event)).collect();
        for key in gone {
            if let Some(fd) = watched.remove(&key) {
                let _ = epoll::delete(&self.watcher.epoll, &*fd);
            }
        }
        for event in wanted {
            if !watched.contains_key(&(id, event))
                // A descriptor of its own: the same eventfd may be watched twice.
                && let Some(fd) = self.events.get(event).and_then(|fd| fd.try_clone().ok())
            {
                let data = epoll::EventData::new_u64(u64::from(id.0) << 32 | u64::from(event.0));
                if epoll::add(&self.watcher.epoll, &fd, data, epoll::EventFlags::IN).is_ok() {
                    watched.insert((id, event), Arc::new(fd));
                }
            }
        }
    }

    /// Waits until the session is over.
    pub(crate) fn watch_events(&self) {
        const PAUSE: Duration = Duration::from_millis(2);
        let mut looked = Instant::now();
        while !self.stopped() {
            let (epoll, wake) = (self.watcher.epoll.as_fd(), self.watcher.wake.as_fd());
            let mut fds = [
                PollFd::from_borrowed_fd(epoll, PollFlags::IN),
                PollFd::from_borrowed_fd(wake, PollFlags::IN),
                PollFd::from_borrowed_fd(self.files.closes(), PollFlags::IN),
            ];
            let later = self.ask_again();
            let limit = if self.files.may_be_closed() { Some(PAUSE) } else { later };
            let ready = poll(&mut fds, limit.map(timespec).as_ref());
            if fds[1].revents().contains(PollFlags::IN) {
                let _ = rustix::io::read(&self.watcher.wake, &mut [0; 8]);
            }
            if ready.is_ok() {
                self.close_closed(false);
                self.deliver();
            }
            if looked.elapsed() >= PAUSE {
                looked = Instant::now();
                self.files.looked();
            }
        }
    }

    /// Hands eventfds that fired on to the devices that watch them.
    fn deliver(&self) {
        let mut list = Vec::with_capacity(16);
        let none = Timespec { tv_sec: 0, tv_nsec: 0 };
        let spare = rustix::buffer::spare_capacity(&mut list);
        if epoll::wait(&self.watcher.epoll, spare, Some(&none)).is_err() {
            return;
        }
        for fired in &list {
            let data = fired.data.u64();
            let id = DeviceId(u32::try_from(data >> 32).unwrap_or(u32::MAX));
            let event = EventId((data & 0xffff_ffff) as u32);
            self.events.clear(event);
            if let Some(slot) = self.slot(id) {
                self.fire(slot, event);
            }
        }
    }

    fn fire(&self, slot: &Slot, event: EventId) {
        let Some(mut guarded) = slot.lock_within(Duration::from_secs(1)) else { return };
        self.on_hardware(slot, &mut guarded, |guarded, up| guarded.device.event_fired(up, event));
        drop(guarded);
        slot.kick();
    }
}
