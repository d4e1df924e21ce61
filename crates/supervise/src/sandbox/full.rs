//! A file system that is full: a file there may say that it is long, and yet each access to a mapping of
//! it raises SIGBUS, as it does beyond the end of an empty one.
//!
//! Registers that trap need such a file, and programs that compare what they map with the file's size
//! (Python's `mmap`) need one that says so.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags, ftruncate, openat};
use rustix::io::{Errno, pwrite};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_string, fsmount,
    fsopen,
};

/// One of the smallest size there is, mounted nowhere. For a process that may mount; allocates nothing.
pub(super) fn mount() -> Result<OwnedFd, Errno> {
    let fs = fsopen(c"tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&fs, c"size", c"1")?;
    fsconfig_create(&fs)?;
    fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
}

/// A file that says that it is `len` bytes long, in a file system that is filled first.
///
/// # Errors
/// Of the system calls; `ENOTEMPTY`: there is room still.
pub(crate) fn file_without_room(full: BorrowedFd<'_>, name: &str, len: u64) -> io::Result<OwnedFd> {
    const PAGE: &[u8] = &[0; 4096];
    /// Pages that are tried: there is room for one, which may be larger.
    const MOST: u64 = 64;
    let open = |name: &str, flags| {
        let flags = OFlags::CREATE | OFlags::RDWR | OFlags::CLOEXEC | flags;
        openat(full, name, flags, Mode::RUSR | Mode::WUSR)
    };
    let filler = open("full", OFlags::empty())?;
    for n in 0..MOST {
        if pwrite(&filler, PAGE, n * PAGE.len() as u64).is_err() {
            break;
        }
    }
    let file = open(name, OFlags::EXCL)?;
    ftruncate(&file, len)?;
    // Otherwise an access would be to memory.
    match pwrite(&file, &[0], 0) {
        Err(Errno::NOSPC) => Ok(file),
        _ => Err(Errno::NOTEMPTY.into()),
    }
}
