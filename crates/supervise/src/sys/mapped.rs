//! A file's bytes on their way to another process and back, without a copy of ours between.
//!
//! The file is mapped, and nothing here ever looks at the mapping: only its address is told to
//! `process_vm_writev` and `process_vm_readv`. These answer an error where the file was cut short, cannot
//! be read or has no room left; an access of our own would be `SIGBUS`.

use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::client::{Transfer, Way};
use super::mapping::Mapping;
use super::pair::Copier;

/// After a transfer whose bytes were in memory, so many are not asked about.
const TRUSTED: u32 = 8;
/// Bytes whose page tables are filled at once, ahead of somebody who reads a file from its one end to the
/// other: a fault in the middle of a copy takes longer.
const CHUNK: u64 = 2 << 20;

/// File systems where a mapping and `pwrite` are one and the same at any time: ext2 to 4, XFS, Btrfs,
/// F2FS, and tmpfs, which is also where block devices stand. With others (FUSE, 9P) either may have a
/// cache of its own.
const COHERENT: [u64; 5] = [0xef53, 0x5846_5342, 0x9123_683e, 0xf2f5_2010, 0x0102_1994];
/// Of a container's image; a file that is only read may be replaced by a copy there.
const OVERLAY: u64 = 0x794c_7630;

/// A file, mapped; to be read only, unless it may be written.
#[derive(Debug)]
pub(crate) struct MappedFile {
    mapping: Arc<Mapping>,
    file: File,
    writable: bool,
    /// Transfers until the next is asked about.
    trusted: AtomicU32,
    /// The chunk that was read last.
    last: AtomicU64,
    /// One bit for each chunk whose page tables are, or were, filled.
    filled: Box<[AtomicU64]>,
}

impl MappedFile {
    /// Maps the first `size` bytes of a file; `None` where that cannot be had.
    pub(crate) fn map(file: &File, size: u64, read_only: bool) -> Option<Self> {
        let kind = rustix::fs::fstatfs(file).ok()?.f_type.cast_unsigned();
        if !COHERENT.contains(&kind) && (kind != OVERLAY || read_only) {
            return None;
        }
        let (len, file) = (usize::try_from(size).ok()?, file.try_clone().ok()?);
        let mapping = Arc::new(Mapping::new(&file, len, !read_only)?);
        let words = size.div_ceil(CHUNK).div_ceil(64);
        Some(Self {
            mapping,
            file,
            writable: !read_only,
            trusted: AtomicU32::new(0),
            last: AtomicU64::new(u64::MAX),
            filled: (0..words).map(|_| AtomicU64::new(0)).collect(),
        })
    }

    /// Copies to address `addr` of a process, if the file has the bytes in memory; whether all of them
    /// were copied.
    pub(crate) fn send(&self, copier: Copier<'_>, addr: u64, offset: u64, len: usize) -> bool {
        self.fill_ahead(copier, offset);
        self.transfer(copier, Way::There, (addr, offset, len))
    }

    /// Copies from address `addr` of a process, if the file may be written and has the bytes that were
    /// there in memory; whether all of them were copied.
    pub(crate) fn receive(&self, copier: Copier<'_>, addr: u64, offset: u64, len: usize) -> bool {
        self.writable && self.transfer(copier, Way::Here, (addr, offset, len))
    }

    fn transfer(
        &self,
        copier: Copier<'_>,
        way: Way,
        (addr, offset, len): (u64, u64, usize),
    ) -> bool {
        let Some(end) =
            offset.checked_add(len as u64).filter(|end| *end <= self.mapping.len() as u64)
        else {
            return false;
        };
        // Otherwise reading is better at reading ahead, and writing at writing what was never there.
        let trusted = self.trusted.load(Ordering::Relaxed);
        if trusted == 0 && !self.mapping.is_cached(offset as usize, len) {
            return false;
        }
        self.trusted.store(trusted.checked_sub(1).unwrap_or(TRUSTED), Ordering::Relaxed);
        let here = self.mapping.address(offset as usize);
        // SAFETY: nobody accesses the mapping, and it is there as long as `self` is.
        let transfer = unsafe { Transfer::raw(copier.pid, way, addr, here, len) };
        // What is behind the end of a file on its last page reads as zeroes, and is lost if written.
        copier.run(transfer) == len
            && (&self.file).seek(SeekFrom::End(0)).is_ok_and(|size| size >= end)
    }

    /// Has the next chunk's page tables filled, when this one or the one before was read last.
    fn fill_ahead(&self, copier: Copier<'_>, offset: u64) {
        let chunk = offset / CHUNK;
        let last = self.last.swap(chunk, Ordering::Relaxed);
        let next = chunk + 1;
        let Some(word) = self.filled.get((next / 64) as usize) else { return };
        let (bit, reads_on) =
            (1 << (next % 64), last == chunk || last.checked_add(1) == Some(chunk));
        if reads_on && word.fetch_or(bit, Ordering::Relaxed) & bit == 0 {
            copier.pair.populate(&self.mapping, next * CHUNK, CHUNK);
        }
    }
}

#[cfg(test)]
mod tests {
    use rustix::fs::{MemfdFlags, memfd_create};
    use std::os::unix::fs::FileExt;

    use super::*;
    use crate::sys::pair::Pair;
    use crate::sys::pair::tests::copier;

    #[test]
    fn bytes_arrive_and_what_the_file_lost_does_not() {
        let file = File::from(memfd_create("mapped", MemfdFlags::CLOEXEC).unwrap());
        let bytes: Vec<u8> =
            (0..1_000_000_u32).map(|i| (i.wrapping_mul(40_503) >> 9) as u8).collect();
        file.write_all_at(&bytes, 0).unwrap();
        let mapped = MappedFile::map(&file, bytes.len() as u64, true).unwrap();
        let pair = Pair::default();
        let mut memory = vec![0_u8; 700_000];
        let at = memory.as_mut_ptr().expose_provenance() as u64;
        let mut send = |offset: u64, len: usize| {
            let sent = mapped.send(copier(&pair), at, offset, len);
            (sent, std::hint::black_box(&mut memory)[..len] == bytes[offset as usize..][..len])
        };
        for (offset, len) in [(0, 1), (4095, 2), (100_001, 700_000), (999_999, 1), (5, 0)] {
            assert_eq!(send(offset, len), (true, true), "{offset} {len}");
        }
        // What was written since is there.
        file.write_all_at(&[bytes[0]; 9], 50_000).unwrap();
        file.write_all_at(&bytes[50_000..50_009], 50_000).unwrap();
        assert_eq!(send(40_000, 20_000), (true, true));
        assert!(
            !mapped.send(copier(&pair), 8, 0, 100) && !mapped.send(copier(&pair), at, 999_999, 2)
        );
        assert!(!mapped.send(copier(&pair), at, u64::MAX, 2));
        // In the middle of a page: the rest of it reads as zeroes, which is not the file's.
        file.set_len(500_000).unwrap();
        assert!(
            mapped.send(copier(&pair), at, 499_000, 1000)
                && !mapped.send(copier(&pair), at, 499_000, 1001)
        );
        assert!(
            !mapped.send(copier(&pair), at, 400_000, 200_000)
                && !mapped.send(copier(&pair), at, 600_000, 5)
        );
        file.set_len(0).unwrap();
        assert!(!mapped.send(copier(&pair), at, 0, 1));
    }

    #[test]
    fn who_reads_on_has_the_next_chunk_filled() {
        let file = File::from(memfd_create("mapped", MemfdFlags::CLOEXEC).unwrap());
        file.set_len(70 * CHUNK + 5).unwrap();
        let mapped = MappedFile::map(&file, 70 * CHUNK + 5, true).unwrap();
        let pair = Pair::default();
        let filled = |places: &[u64]| {
            places.iter().for_each(|at| mapped.fill_ahead(copier(&pair), *at));
            let bits = |(n, word): (u32, &AtomicU64)| {
                let word = word.swap(0, Ordering::Relaxed);
                (0..64).filter(move |bit| word >> bit & 1 == 1).map(move |bit| n * 64 + bit)
            };
            (0..).zip(&mapped.filled).flat_map(bits).collect::<Vec<_>>()
        };
        assert_eq!(filled(&[0, 9 * CHUNK, 5 * CHUNK, 3 * CHUNK]), [0_u32; 0]);
        assert_eq!(filled(&[3 * CHUNK + 4096]), [4]);
        assert_eq!(filled(&[4 * CHUNK, 5 * CHUNK - 1, 5 * CHUNK]), [5, 6]);
        assert_eq!(filled(&[62 * CHUNK, 63 * CHUNK]), [64]);
        // At the end of the file, and behind it.
        assert_eq!(filled(&[68 * CHUNK, 69 * CHUNK]), [70]);
        assert_eq!(filled(&[u64::MAX, u64::MAX]), [0; 0]);
    }

    #[test]
    fn what_is_received_is_the_files() {
        let file = File::from(memfd_create("mapped", MemfdFlags::CLOEXEC).unwrap());
        let mut bytes = vec![1; 600_000];
        file.write_all_at(&bytes, 0).unwrap();
        let (pair, size) = (Pair::default(), bytes.len() as u64);
        let memory: Vec<u8> =
            (0..bytes.len() as u32).map(|i| (i.wrapping_mul(77) >> 3) as u8).collect();
        let at = memory.as_ptr().expose_provenance() as u64;
        let mapped = MappedFile::map(&file, size, false).unwrap();
        for (offset, len) in [(0, 1), (4095, 2), (100_001, 400_000), (599_999, 1), (5, 0)] {
            assert!(mapped.receive(copier(&pair), at, offset, len), "{offset} {len}");
            let offset = offset as usize;
            bytes[offset..offset + len].copy_from_slice(&memory[..len]);
            let mut now = vec![0; bytes.len()];
            file.read_exact_at(&mut now, 0).unwrap();
            assert!(now == bytes, "{offset} {len}");
        }
        assert!(!mapped.receive(copier(&pair), 8, 0, 100));
        assert!(!mapped.receive(copier(&pair), at, size - 1, 2));
        // In the middle of a page: what is behind it would be lost.
        file.set_len(500_000).unwrap();
        assert!(!mapped.receive(copier(&pair), at, 499_000, 1001));
        assert!(!mapped.receive(copier(&pair), at, 500_000, 100_000));
        let read_only = MappedFile::map(&file, 500_000, true).unwrap();
        assert!(!read_only.receive(copier(&pair), at, 0, 1));
        assert_eq!(file.metadata().unwrap().len(), 500_000);
    }
}
