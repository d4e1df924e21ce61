//! What is mapped at an address of a process: `PROCMAP_QUERY` (Linux 6.11), or the text of `maps`.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::AsRawFd;

use super::last_error;

/// A part of an address space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Vma {
    /// Its first address.
    pub(crate) start: u64,
    /// The address after its last.
    pub(crate) end: u64,
    pub(crate) readable: bool,
    pub(crate) writable: bool,
    pub(crate) shared: bool,
    /// Bytes from the start of its file.
    pub(crate) offset: u64,
    /// Its file's inode, 0 without a file.
    pub(crate) inode: u64,
    /// Its file's device: major and minor number.
    pub(crate) device: (u32, u32),
}

/// `struct procmap_query` of linux/fs.h.
#[repr(C)]
#[derive(Default)]
struct Query {
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

/// `_IOWR('f', 17, struct procmap_query)`
const PROCMAP_QUERY: libc::c_ulong = 0xc068_6611;
const READABLE: u64 = 1;
const WRITABLE: u64 = 2;
const SHARED: u64 = 8;

/// The part that covers `addr`, of the address space whose `maps` is open; `None` where nothing does.
///
/// # Errors
/// `ESRCH`: the address space is no more.
pub(crate) fn at(maps: &mut File, addr: u64) -> io::Result<Option<Vma>> {
    let size = size_of::<Query>() as u64;
    let mut query = Query { size, query_addr: addr, ..Query::default() };
    // SAFETY: the request reads and writes one `procmap_query`, which `query` is; it has no buffers.
    let answer = unsafe { libc::ioctl(maps.as_raw_fd(), PROCMAP_QUERY, &raw mut query) };
    if answer == 0 {
        return Ok(Some(Vma {
            start: query.vma_start,
            end: query.vma_end,
            readable: query.vma_flags & READABLE != 0,
            writable: query.vma_flags & WRITABLE != 0,
            shared: query.vma_flags & SHARED != 0,
            offset: query.vma_offset,
            inode: query.inode,
            device: (query.dev_major, query.dev_minor),
        }));
    }
    let error = last_error();
    match error.raw_os_error() {
        Some(libc::ENOENT) => Ok(None),
        Some(libc::ENOTTY) => from_text(maps, addr),
        _ => Err(error),
    }
}

/// The same where the kernel cannot be asked for one address.
fn from_text(maps: &mut File, addr: u64) -> io::Result<Option<Vma>> {
    maps.seek(SeekFrom::Start(0))?;
    let mut text = String::new();
    maps.read_to_string(&mut text)?;
    if text.is_empty() {
        return Err(io::Error::from_raw_os_error(libc::ESRCH));
    }
    Ok(text.lines().filter_map(line).find(|vma| vma.start <= addr && addr < vma.end))
}

/// A line of `maps`: `start-end rwxp offset major:minor inode name`.
fn line(text: &str) -> Option<Vma> {
    let hex = |text: &str| u64::from_str_radix(text, 16).ok();
    let mut words = text.split_ascii_whitespace();
    let (start, end) = words.next()?.split_once('-')?;
    let prot = words.next()?.as_bytes();
    let offset = hex(words.next()?)?;
    let (major, minor) = words.next()?.split_once(':')?;
    Some(Vma {
        start: hex(start)?,
        end: hex(end)?,
        readable: prot.first() == Some(&b'r'),
        writable: prot.get(1) == Some(&b'w'),
        shared: prot.get(3) == Some(&b's'),
        offset,
        inode: words.next()?.parse().ok()?,
        device: (hex(major)?.try_into().ok()?, hex(minor)?.try_into().ok()?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_say_the_same_of_our_own_memory() {
        let mut maps = File::open("/proc/self/maps").unwrap();
        let boxed = Box::new(5_u8);
        for addr in [&raw const *boxed as u64, at as *const () as u64] {
            let asked = at(&mut maps, addr).unwrap().unwrap();
            let read = from_text(&mut maps, addr).unwrap().unwrap();
            assert!(asked.start <= addr && addr < asked.end && asked.readable);
            assert_eq!(asked.writable, addr == &raw const *boxed as u64);
            assert_eq!(
                (read.start, read.writable, read.inode),
                (asked.start, asked.writable, asked.inode)
            );
        }
        assert_eq!(at(&mut maps, 0).unwrap(), None);
    }

    #[test]
    fn a_line_of_maps() {
        let text = "7f0a1000-7f0a3000 rw-s 00001000 fd:0a 4711    /dev/shm/a name";
        let vma = line(text).unwrap();
        assert_eq!((vma.start, vma.end, vma.offset), (0x7f0a_1000, 0x7f0a_3000, 0x1000));
        assert!(vma.readable && vma.writable && vma.shared);
        assert_eq!((vma.inode, vma.device), (4711, (0xfd, 10)));
        assert_eq!(line("nonsense"), None);
    }
}
