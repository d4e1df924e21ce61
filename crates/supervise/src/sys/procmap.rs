//! PROCMAP_QUERY (Linux 6.11): one mapping of another process, without the text of all.
//! `include/uapi/linux/fs.h`.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

#[repr(C)]
#[derive(Default)]
struct ProcmapQuery {
    size: u64,
    query_flags: u64,
    query_addr: u64,
    vma_start: u64,
    vma_end: u64,
    vma_flags: u64,
    vma_page_size: u64,
    vma_offset: u64,
    inode: u64,
    dev_major: u32,
    dev_minor: u32,
    vma_name_size: u32,
    build_id_size: u32,
    vma_name_addr: u64,
    build_id_addr: u64,
}

const SIZE: usize = size_of::<ProcmapQuery>();
/// `_IOWR('f', 17, struct procmap_query)`
const PROCMAP_QUERY: libc::c_ulong = 3 << 30 | (SIZE as u64) << 16 | (b'f' as u64) << 8 | 17;
const _: () = assert!(SIZE == 104);

/// One mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mapping {
    pub(crate) start: u64,
    /// One past the last byte.
    pub(crate) end: u64,
    /// Of the file, at `start`.
    pub(crate) offset: u64,
    pub(crate) dev: u64,
    pub(crate) ino: u64,
    pub(crate) readable: bool,
    pub(crate) writable: bool,
}

/// The mapping that holds an address; None: there is none. An error of ENOTTY: an older kernel.
pub(crate) fn query(maps: &File, address: u64) -> io::Result<Option<Mapping>> {
    let mut query = ProcmapQuery { size: SIZE as u64, query_addr: address, ..Default::default() };
    // SAFETY: the request reads and writes one procmap_query, which lives here; it follows the two
    // addresses in it only if their sizes are not 0.
    if unsafe { libc::ioctl(maps.as_raw_fd(), PROCMAP_QUERY, &raw mut query) } == -1 {
        let error = io::Error::last_os_error();
        return match error.raw_os_error() {
            Some(libc::ENOENT) => Ok(None),
            _ => Err(error),
        };
    }
    Ok(Some(Mapping {
        start: query.vma_start,
        end: query.vma_end,
        offset: query.vma_offset,
        dev: libc::makedev(query.dev_major, query.dev_minor),
        ino: query.inode,
        readable: query.vma_flags & 1 != 0,
        writable: query.vma_flags & 2 != 0,
    }))
}
