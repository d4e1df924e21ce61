//! Eventfds of clients, kept for interrupts.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fmt::Display;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use parking_lot::RwLock;
use rustix::event::PollFlags;
use vfio::EventId;

use crate::is_ready;

/// What `/proc/self/fd` says of an eventfd.
const NAME: &str = "anon_inode:[eventfd]";

/// The eventfds that devices hold.
#[derive(Default)]
pub(crate) struct Events {
    held: RwLock<HashMap<EventId, Arc<OwnedFd>>>,
    next: AtomicU32,
}

impl Events {
    /// Keeps an eventfd; `None` when the descriptor is something else.
    pub(crate) fn add(&self, fd: OwnedFd) -> Option<EventId> {
        let link = std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).ok()?;
        if link.to_str() != Some(NAME) {
            return None;
        }
        let id = EventId(self.next.fetch_add(1, Ordering::Relaxed));
        self.held.write().insert(id, Arc::new(fd));
        Some(id)
    }

    /// Lets go of one.
    pub(crate) fn remove(&self, id: EventId) {
        self.held.write().remove(&id);
    }

    /// One of them.
    pub(crate) fn get(&self, id: EventId) -> Option<Arc<OwnedFd>> {
        self.held.read().get(&id).cloned()
    }

    /// How many are held.
    pub(crate) fn len(&self) -> usize {
        self.held.read().len()
    }

    /// Adds 1 to the counter; `false` when that would block, as the counter is full.
    pub(crate) fn signal(&self, id: EventId) -> bool {
        let Some(fd) = self.get(id) else { return false };
        is_ready(&fd, PollFlags::OUT) && rustix::io::write(&*fd, &1_u64.to_ne_bytes()).is_ok()
    }

    /// Whether the counter is not 0.
    pub(crate) fn is_pending(&self, id: EventId) -> bool {
        self.get(id).is_some_and(|fd| is_ready(&fd, PollFlags::IN))
    }

    /// Whether a process other than this one has an eventfd open still. Ours keeps it from being
    /// closed, of which the kernel's VFIO, which keeps the counter alone, would hear.
    pub(crate) fn is_open_elsewhere(&self, id: EventId) -> bool {
        let Some(fd) = self.get(id) else { return false };
        // A kernel that does not number them leaves it open.
        number(Path::new("/proc/self/fdinfo"), fd.as_raw_fd()).is_none_or(somebody_has)
    }

    /// Sets the counter to 0.
    pub(crate) fn clear(&self, id: EventId) {
        if let Some(fd) = self.get(id)
            && is_ready(&fd, PollFlags::IN)
        {
            // Somebody else may have read it first: it is 0 all the same.
            let _ = rustix::io::read(&*fd, &mut [0; 8]);
        }
    }
}

/// The number that the kernel gave the eventfd behind a descriptor.
fn number(fdinfo: &Path, fd: impl Display) -> Option<u64> {
    let text = std::fs::read_to_string(fdinfo.join(fd.to_string())).ok()?;
    text.lines().find_map(|line| line.strip_prefix("eventfd-id:")?.trim().parse().ok())
}

/// Whether another process has the eventfd with a number. Those that cannot be looked into are none
/// of the session's.
fn somebody_has(eventfd: u64) -> bool {
    let has = |task: &Path| {
        let fds = std::fs::read_dir(task.join("fd")).into_iter().flatten().flatten();
        let events = fds.filter(|fd| {
            std::fs::read_link(fd.path()).is_ok_and(|link| link.to_str() == Some(NAME))
        });
        let fdinfo = task.join("fdinfo");
        events.into_iter().any(|fd| number(&fdinfo, fd.file_name().display()) == Some(eventfd))
    };
    if others().any(|process| has(&process)) {
        return true;
    }
    // A thread may have descriptors of its own, and the first one, as which the process is listed, may be
    // gone. That is rare, and there may be many threads.
    others().any(|process| {
        let threads = std::fs::read_dir(process.join("task")).into_iter().flatten().flatten();
        let first = process.file_name().map(OsStr::to_owned);
        threads.filter(|t| Some(t.file_name()) != first).any(|thread| has(&thread.path()))
    })
}

/// The directories of other processes.
fn others() -> impl Iterator<Item = PathBuf> {
    let own = std::process::id();
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let others = entries.filter(move |entry| {
        let pid = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok());
        pid.is_some_and(|pid| pid != own)
    });
    others.map(|process| process.path())
}

#[cfg(test)]
mod tests {
    use rustix::event::{EventfdFlags, eventfd};

    use super::*;

    #[test]
    fn signals_add_up_and_a_full_counter_does_not_block() {
        let events = Events::default();
        let fd = eventfd(0, EventfdFlags::empty()).unwrap();
        let id = events.add(fd.try_clone().unwrap()).unwrap();
        assert!(!events.is_pending(id));
        assert!(events.signal(id) && events.signal(id) && events.is_pending(id));
        let mut count = [0; 8];
        rustix::io::read(&fd, &mut count).unwrap();
        assert_eq!(u64::from_ne_bytes(count), 2);
        rustix::io::write(&fd, &(u64::MAX - 1).to_ne_bytes()).unwrap();
        assert!(!events.signal(id));
        events.clear(id);
        events.clear(id);
        assert!(!events.is_pending(id) && events.signal(id));
        events.remove(id);
        assert!(!events.signal(id) && events.len() == 0);
    }

    #[test]
    fn another_process_keeps_an_eventfd_open() {
        let events = Events::default();
        let fd = eventfd(0, EventfdFlags::CLOEXEC).unwrap();
        let id = events.add(fd.try_clone().unwrap()).unwrap();
        crate::comes(|| !events.is_open_elsewhere(id));
        let mut child = std::process::Command::new("cat");
        let mut child = child.stdin(std::process::Stdio::piped()).stdout(fd).spawn().unwrap();
        assert!(events.is_open_elsewhere(id));
        drop(child.stdin.take());
        child.wait().unwrap();
        crate::comes(|| !events.is_open_elsewhere(id));
    }

    #[test]
    fn other_files_are_none() {
        let file = std::fs::File::open("/proc/self/exe").unwrap();
        assert_eq!(Events::default().add(file.into()), None);
    }
}
