//! A piece of a file, mapped here and in a client at once: register pages.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

use super::last_error;

/// Words of 32 bits that another process reads and writes too.
#[derive(Debug)]
pub(crate) struct SharedWords {
    words: NonNull<AtomicU32>,
    count: usize,
}

// SAFETY: what `words` points to is only reached through atomics and unmapped once, by `drop`.
unsafe impl Send for SharedWords {}
// SAFETY: as above.
unsafe impl Sync for SharedWords {}

impl SharedWords {
    /// Maps `len` bytes (a multiple of 4096, not 0) at `offset` of a file.
    ///
    /// # Errors
    /// Of `mmap`.
    pub(crate) fn map(file: BorrowedFd<'_>, offset: u64, len: usize) -> io::Result<Self> {
        let offset = i64::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput)?;
        let prot = libc::PROT_READ | libc::PROT_WRITE;
        let (any, fd) = (std::ptr::null_mut(), file.as_raw_fd());
        // SAFETY: a new mapping at an address that the kernel chooses.
        let at = unsafe { libc::mmap(any, len, prot, libc::MAP_SHARED, fd, offset) };
        if at == libc::MAP_FAILED {
            return Err(last_error());
        }
        let words = NonNull::new(at.cast::<AtomicU32>()).ok_or(io::ErrorKind::Other)?;
        Ok(Self { words, count: len / 4 })
    }

    /// The words.
    pub(crate) fn words(&self) -> &[AtomicU32] {
        // SAFETY: `count` words are mapped for as long as `self` lives, aligned to a page, and only
        // accessed as atomics on this side. What the other process does to them is a value.
        unsafe { std::slice::from_raw_parts(self.words.as_ptr(), self.count) }
    }

    /// The word at a byte offset, 0 beyond the end.
    pub(crate) fn load(&self, offset: u64) -> u32 {
        let word = usize::try_from(offset / 4).ok().and_then(|i| self.words().get(i));
        word.map_or(0, |word| word.load(Ordering::Acquire))
    }
}

impl Drop for SharedWords {
    fn drop(&mut self) {
        // SAFETY: mapped by `map`, and no reference outlives `self`.
        unsafe { libc::munmap(self.words.as_ptr().cast(), self.count * 4) };
    }
}
