//! What a client's descriptor stands for: asked of the open file itself.
//!
//! `/dev/vfio/vfio`, `/dev/vfio/N` and the descriptors of devices are real files. The position of each
//! open file is its *tag*, and a lock on the byte of that number, which belongs to the open file, is
//! gone when its last descriptor is. Neither `dup`, `fork`, `exec` nor passing it through a socket
//! changes what is seen; no descriptor's number and no process is ever remembered.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};

use parking_lot::Mutex;
use rustix::fs::{Mode, OFlags, SeekFrom, inotify};
use vfio::{ContainerId, DeviceId, GroupId};

use crate::sys::locks;

/// Tags are from here on: far from where any file ends.
const FIRST_TAG: i64 = 0x5f76_6669_6f00_0000;

/// The kinds of files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `/dev/vfio/vfio`
    Container,
    /// `/dev/vfio/N`
    Group(GroupId),
    /// A device.
    Device(DeviceId),
}

/// What an open file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Object {
    Container(ContainerId),
    Group(GroupId),
    Device(DeviceId),
}

/// What was found out of a descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Identity {
    /// None of our files.
    Foreign,
    /// Met before.
    Known(Object),
    /// Of this kind, and met for the first time.
    New(Kind),
}

/// One of our files.
struct Tracked {
    kind: Kind,
    /// An open file of our own, to ask about locks.
    control: OwnedFd,
}

#[derive(Default)]
struct Tags {
    next: i64,
    /// By tag: which file, and what the open file is.
    live: BTreeMap<i64, (usize, Object)>,
}

/// Our files, and the open files that clients have of them.
pub(crate) struct Files {
    tracked: Vec<Tracked>,
    by_inode: HashMap<(u64, u64), usize>,
    tags: Mutex<Tags>,
    closes: OwnedFd,
    /// How often to look yet: a close is told of before the lock is gone.
    looks: AtomicU32,
}

/// After the last close that was told: many times longer than a lock stays.
const LOOKS: u32 = 20;

impl Files {
    /// With no file yet.
    ///
    /// # Errors
    /// Of `inotify_init`.
    pub(crate) fn new() -> io::Result<Self> {
        let flags = inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK;
        Ok(Self {
            tracked: Vec::new(),
            by_inode: HashMap::new(),
            tags: Mutex::default(),
            closes: inotify::init(flags)?,
            looks: AtomicU32::new(0),
        })
    }

    /// Adds a file: `file` is any descriptor of it.
    ///
    /// # Errors
    /// It cannot be opened anew, or watched.
    pub(crate) fn track(&mut self, file: BorrowedFd<'_>, kind: Kind) -> io::Result<()> {
        let stat = rustix::fs::fstat(file)?;
        // Watched first: our own description below does not close before we do.
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        let what = inotify::WatchFlags::CLOSE_WRITE | inotify::WatchFlags::CLOSE_NOWRITE;
        inotify::add_watch(&self.closes, &path, what)?;
        let control = rustix::fs::open(path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
        self.by_inode.insert((stat.st_dev, stat.st_ino), self.tracked.len());
        self.tracked.push(Tracked { kind, control });
        Ok(())
    }

    /// The kind of the file with this device and inode.
    pub(crate) fn kind_of(&self, dev: u64, ino: u64) -> Option<Kind> {
        let at = self.by_inode.get(&(dev, ino))?;
        Some(self.tracked.get(*at)?.kind)
    }

    /// What a descriptor stands for.
    pub(crate) fn identify(&self, fd: BorrowedFd<'_>) -> Identity {
        // No other file is ever at such a position, unless its owner means to confuse himself.
        if let Ok(tag) = rustix::fs::tell(fd)
            && let Some((_, object)) = self.tags.lock().live.get(&tag.cast_signed())
        {
            return Identity::Known(*object);
        }
        let Some(file) = self.file_of(fd) else { return Identity::Foreign };
        match self.tags.lock().object(file, fd) {
            Some(object) => Identity::Known(object),
            None => self.tracked.get(file).map_or(Identity::Foreign, |t| Identity::New(t.kind)),
        }
    }

    /// Tags an open file as an object.
    ///
    /// # Errors
    /// Of the system calls.
    pub(crate) fn give(&self, fd: BorrowedFd<'_>, object: Object) -> io::Result<i64> {
        let file = self.file_of(fd).ok_or(io::ErrorKind::NotFound)?;
        self.tags.lock().put(file, fd, object)
    }

    /// Tags an open file as the object that `new` makes, unless somebody else has tagged it meanwhile.
    ///
    /// # Errors
    /// Of the system calls.
    pub(crate) fn adopt(
        &self,
        fd: BorrowedFd<'_>,
        new: impl FnOnce() -> Object,
    ) -> io::Result<Object> {
        let file = self.file_of(fd).ok_or(io::ErrorKind::NotFound)?;
        let mut tags = self.tags.lock();
        if let Some(object) = tags.object(file, fd) {
            return Ok(object);
        }
        let object = new();
        tags.put(file, fd, object)?;
        Ok(object)
    }

    fn file_of(&self, fd: BorrowedFd<'_>) -> Option<usize> {
        let stat = rustix::fs::fstat(fd).ok()?;
        self.by_inode.get(&(stat.st_dev, stat.st_ino)).copied()
    }

    /// Forgets a tag: nobody got the open file.
    pub(crate) fn take_back(&self, tag: i64) {
        self.tags.lock().live.remove(&tag);
    }

    /// The descriptor to wait on for open files that were closed.
    pub(crate) fn closes(&self) -> BorrowedFd<'_> {
        self.closes.as_fd()
    }

    /// Whether anything was closed since the last time.
    pub(crate) fn something_closed(&self) -> bool {
        let mut bytes = [0; 4096];
        let mut any = false;
        while rustix::io::read(&self.closes, &mut bytes).is_ok_and(|n| n != 0) {
            any = true;
        }
        if any {
            self.looks.store(LOOKS, Ordering::Relaxed);
        }
        any
    }

    /// Whether something may have been closed, told of now or a while ago.
    pub(crate) fn may_be_closed(&self) -> bool {
        self.looks.load(Ordering::Relaxed) > 0
    }

    /// A while has passed, and somebody looked.
    pub(crate) fn looked(&self) {
        let less = |looks: u32| looks.checked_sub(1);
        let _ = self.looks.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }

    /// Takes out the objects whose open files are closed for good, the oldest last: devices before
    /// their groups, groups before their containers.
    pub(crate) fn take_closed(&self) -> Vec<Object> {
        let mut tags = self.tags.lock();
        let is_closed = |tag: i64, file: usize| {
            let control = self.tracked.get(file).map(|t| t.control.as_fd());
            control.is_none_or(|control| !locks::is_taken(control, tag).unwrap_or(true))
        };
        let closed: Vec<i64> = tags
            .live
            .iter()
            .filter(|(tag, (file, _))| is_closed(**tag, *file))
            .map(|(t, _)| *t)
            .collect();
        closed.iter().rev().filter_map(|tag| Some(tags.live.remove(tag)?.1)).collect()
    }

    /// Takes out all objects, as [`take_closed`](Self::take_closed) orders them.
    pub(crate) fn take_all(&self) -> Vec<Object> {
        let live = std::mem::take(&mut self.tags.lock().live);
        live.into_values().rev().map(|(_, object)| object).collect()
    }
}

impl Tags {
    /// What the open file behind `fd`, of our file number `file`, was tagged as.
    fn object(&self, file: usize, fd: BorrowedFd<'_>) -> Option<Object> {
        let tag = rustix::fs::tell(fd).ok()?.cast_signed();
        let (of, object) = self.live.get(&tag)?;
        (*of == file).then_some(*object)
    }

    fn put(&mut self, file: usize, fd: BorrowedFd<'_>, object: Object) -> io::Result<i64> {
        self.next += 1;
        let tag = FIRST_TAG + self.next;
        let mode = rustix::fs::fcntl_getfl(fd)?;
        rustix::fs::seek(fd, SeekFrom::Start(tag.unsigned_abs()))?;
        locks::take(fd, tag, mode.intersects(OFlags::RDWR | OFlags::WRONLY))?;
        self.live.insert(tag, (file, object));
        Ok(tag)
    }
}

#[cfg(test)]
mod tests {
    use rustix::fs::{MemfdFlags, memfd_create};

    use super::*;

    fn open(file: &OwnedFd) -> OwnedFd {
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        rustix::fs::open(path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).unwrap()
    }

    #[test]
    fn copies_are_the_same_object_and_the_last_close_ends_it() {
        let file = memfd_create("a", MemfdFlags::CLOEXEC).unwrap();
        let mut files = Files::new().unwrap();
        files.track(file.as_fd(), Kind::Container).unwrap();
        let (one, two) = (open(&file), open(&file));
        let (a, b) = (Object::Container(ContainerId(0)), Object::Container(ContainerId(1)));
        assert_eq!(files.identify(one.as_fd()), Identity::New(Kind::Container));
        assert_eq!(files.adopt(one.as_fd(), || a).unwrap(), a);
        assert_eq!(files.adopt(one.as_fd(), || b).unwrap(), a);
        files.give(two.as_fd(), b).unwrap();
        let copy = one.try_clone().unwrap();
        assert_eq!(files.identify(copy.as_fd()), Identity::Known(a));
        drop(one);
        assert!(!files.something_closed() && !files.may_be_closed());
        assert_eq!(files.take_closed(), []);
        drop(copy);
        crate::comes(|| files.something_closed());
        assert!(!files.something_closed());
        // Who closes last is told of before the lock is gone: whoever heard of it looked too early.
        assert!(files.may_be_closed());
        let mut closed = Vec::new();
        crate::comes(|| {
            closed = files.take_closed();
            !closed.is_empty()
        });
        assert_eq!(closed, [a]);
        (0..LOOKS).for_each(|_| files.looked());
        assert!(!files.may_be_closed());
        assert_eq!(files.take_all(), [b]);
    }

    #[test]
    fn a_tag_is_one_files() {
        let [a, b] = ["a", "b"].map(|name| memfd_create(name, MemfdFlags::CLOEXEC).unwrap());
        let mut files = Files::new().unwrap();
        files.track(a.as_fd(), Kind::Group(GroupId(7))).unwrap();
        assert_eq!(files.identify(b.as_fd()), Identity::Foreign);
        files.track(b.as_fd(), Kind::Device(DeviceId(0))).unwrap();
        let (group, device) = (open(&a), open(&b));
        let tag = files.give(group.as_fd(), Object::Group(GroupId(7))).unwrap();
        assert_eq!(files.identify(device.as_fd()), Identity::New(Kind::Device(DeviceId(0))));
        files.take_back(tag);
        assert_eq!(files.identify(group.as_fd()), Identity::New(Kind::Group(GroupId(7))));
    }
}
