//! A file that is mapped, and whose bytes nobody here ever looks at: an access of our own could be
//! `SIGBUS`, where the kernel's on our behalf is an error.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::ptr::NonNull;

/// Pages that are asked about at once.
const MOST: usize = 128;
const PAGE: usize = 4096;

/// The mapping.
#[derive(Debug)]
pub(super) struct Mapping {
    at: NonNull<libc::c_void>,
    len: usize,
}

// SAFETY: nobody accesses the mapping; it is unmapped once, by `drop`.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Of a file's first `len` bytes.
    pub(super) fn new(file: &File, len: usize, writable: bool) -> Option<Self> {
        let (any, fd) = (std::ptr::null_mut(), file.as_raw_fd());
        let prot = libc::PROT_READ | if writable { libc::PROT_WRITE } else { 0 };
        // SAFETY: a new mapping at an address that the kernel chooses.
        let at = unsafe { libc::mmap(any, len, prot, libc::MAP_SHARED, fd, 0) };
        if at == libc::MAP_FAILED {
            return None;
        }
        let mapping = Self { at: NonNull::new(at)?, len };
        // SAFETY: the mapping is ours; a child then lacks what it does not access.
        unsafe { libc::madvise(at, len, libc::MADV_DONTFORK) };
        Some(mapping)
    }

    pub(super) const fn len(&self) -> usize {
        self.len
    }

    /// The address of a byte, which may not be accessed.
    pub(super) const fn address(&self, offset: usize) -> *mut libc::c_void {
        self.at.as_ptr().wrapping_byte_add(offset)
    }

    /// Whether the file has these bytes in memory.
    pub(super) fn is_cached(&self, offset: usize, len: usize) -> bool {
        let mut at = offset & !(PAGE - 1);
        let end = offset + len;
        while at < end {
            let now = (end - at).min(MOST * PAGE);
            let mut pages = [0_u8; MOST];
            // SAFETY: the kernel writes a byte for each page of `now` bytes, which are at most `MOST`.
            if unsafe { libc::mincore(self.address(at), now, pages.as_mut_ptr()) } != 0 {
                return false;
            }
            if pages.iter().take(now.div_ceil(PAGE)).any(|page| page & 1 == 0) {
                return false;
            }
            at += now;
        }
        true
    }

    /// Fills page tables, so that a transfer of these bytes finds them: where the file has them in memory.
    pub(super) fn populate(&self, offset: usize, len: usize) {
        let offset = offset & !(PAGE - 1);
        let len = len.min(self.len.saturating_sub(offset));
        if len != 0 && self.is_cached(offset, len) {
            // SAFETY: the mapping is ours, and reading its pages changes nothing. Where the file was cut
            // short this is an error.
            unsafe { libc::madvise(self.address(offset), len, libc::MADV_POPULATE_READ) };
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped by `new`, and whoever has the address has `self`.
        unsafe { libc::munmap(self.at.as_ptr(), self.len) };
    }
}

#[cfg(test)]
pub(super) mod tests {
    use rustix::fs::{MemfdFlags, memfd_create};
    use std::os::unix::fs::FileExt;

    use super::*;

    /// Pages of the mapping that page tables have, as `/proc/self/smaps` counts them.
    pub(in crate::sys) fn present(mapping: &Mapping) -> usize {
        let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let first = format!("{:x}-", mapping.at.as_ptr().addr());
        let own = smaps.split_once(&first).unwrap().1;
        let rss = own.lines().find_map(|line| line.strip_prefix("Rss:")).unwrap();
        rss.trim().strip_suffix(" kB").unwrap().parse::<usize>().unwrap() / 4
    }

    #[test]
    fn what_is_cached_is_brought_into_page_tables() {
        let file = File::from(memfd_create("populate", MemfdFlags::CLOEXEC).unwrap());
        file.set_len(1 << 20).unwrap();
        file.write_all_at(&[1; 256 << 10], 0).unwrap();
        let mapping = Mapping::new(&file, 1 << 20, false).unwrap();
        assert_eq!(present(&mapping), 0);
        // The rest is a hole.
        mapping.populate(0, 512 << 10);
        assert_eq!(present(&mapping), 0);
        mapping.populate(0, 256 << 10);
        assert_eq!(present(&mapping), 64);
        mapping.populate(1 << 20, 5);
        mapping.populate(2 << 20, 5);
        file.set_len(0).unwrap();
        mapping.populate(0, 256 << 10);
        assert_eq!(present(&mapping), 0);
    }
}
