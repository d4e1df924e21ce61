//! Descriptors and the open files behind them.

use std::collections::BTreeMap;

use vfio::{ContainerId, DeviceId, EventId, GroupId};

/// The first descriptor that is free: 0, 1 and 2 are the standard ones, 3 is the script.
const FIRST_FREE: i32 = 4;

/// Descriptors a process may have (`RLIMIT_NOFILE`).
const MAX_FDS: usize = 1024;

/// Name of an open file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct FileKey(u32);

/// What an open file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum File {
    /// None of ours.
    Other,
    /// A container.
    Container(ContainerId),
    /// A group.
    Group(GroupId),
    /// A device.
    Device(DeviceId),
    /// An eventfd.
    Event(EventId),
}

/// The descriptors of a process.
#[derive(Debug)]
pub(crate) struct Files {
    fds: BTreeMap<i32, FileKey>,
    files: BTreeMap<FileKey, File>,
    next: u32,
}

impl Files {
    /// What a new process has.
    pub(crate) fn new() -> Self {
        let mut files = Self { fds: BTreeMap::new(), files: BTreeMap::new(), next: 1 };
        files.files.insert(FileKey(0), File::Other);
        for fd in 0..FIRST_FREE {
            files.fds.insert(fd, FileKey(0));
        }
        files
    }

    /// Gives a file the lowest free descriptor; `None` when there are too many.
    pub(crate) fn open(&mut self, file: File) -> Option<i32> {
        if self.fds.len() >= MAX_FDS {
            return None;
        }
        let fd = (0..).zip(self.fds.keys()).find(|(want, have)| want != *have);
        let fd = fd.map_or_else(|| i32::try_from(self.fds.len()).unwrap_or(i32::MAX), |(w, _)| w);
        let key = FileKey(self.next);
        self.next = self.next.wrapping_add(1);
        self.fds.insert(fd, key);
        self.files.insert(key, file);
        Some(fd)
    }

    /// Whether a descriptor is free.
    pub(crate) fn has_room(&self) -> bool {
        self.fds.len() < MAX_FDS
    }

    /// The file behind a descriptor.
    pub(crate) fn get(&self, fd: i32) -> Option<(FileKey, File)> {
        let key = *self.fds.get(&fd)?;
        Some((key, *self.files.get(&key)?))
    }

    /// Takes a descriptor away; the file stays until [`forget`](Self::forget).
    pub(crate) fn close(&mut self, fd: i32) -> Option<(FileKey, File)> {
        let key = self.fds.remove(&fd)?;
        Some((key, *self.files.get(&key)?))
    }

    /// Whether a descriptor names the file.
    pub(crate) fn has_fd(&self, key: FileKey) -> bool {
        self.fds.values().any(|&k| k == key)
    }

    /// The last reference to a file has gone: what it was.
    pub(crate) fn forget(&mut self, key: FileKey) -> Option<File> {
        self.files.remove(&key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_free_descriptor() {
        let mut f = Files::new();
        assert_eq!(f.open(File::Group(GroupId(1))), Some(4));
        assert_eq!(f.open(File::Group(GroupId(2))), Some(5));
        assert!(f.close(4).is_some());
        assert!(f.close(4).is_none());
        assert_eq!(f.open(File::Other), Some(4));
        assert_eq!(f.open(File::Other), Some(6));
        assert_eq!(f.get(0).map(|(_, file)| file), Some(File::Other));
        assert!(f.get(99).is_none());
        while f.open(File::Other).is_some() {}
        assert!(!f.has_room());
    }
}
