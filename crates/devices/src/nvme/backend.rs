//! What a namespace's blocks are kept in: bytes, whatever the size of a block.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec;
use core::any::Any;

/// Storage failed. Whoever keeps it knows why; a controller only has codes for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackendError;

/// A namespace's bytes.
///
/// The controller stays inside `0..size()`; an implementation refuses what does not.
pub trait Backend: Send {
    /// Bytes; constant. What does not fill a block at the end is not used.
    fn size(&self) -> u64;

    /// Reads bytes from `offset` on.
    ///
    /// # Errors
    /// [`BackendError`]: `data` then holds anything.
    fn read(&mut self, offset: u64, data: &mut [u8]) -> Result<(), BackendError>;

    /// Writes bytes from `offset` on.
    ///
    /// # Errors
    /// [`BackendError`]: the range then holds anything.
    fn write(&mut self, offset: u64, data: &[u8]) -> Result<(), BackendError>;

    /// Makes all earlier writes durable.
    ///
    /// # Errors
    /// [`BackendError`]: they may be lost.
    fn flush(&mut self) -> Result<(), BackendError>;

    /// Writes zeroes.
    ///
    /// # Errors
    /// [`BackendError`]: the range then holds anything.
    fn write_zeroes(&mut self, offset: u64, len: u64) -> Result<(), BackendError>;

    /// Gives the range back; it reads as zeroes from now on.
    ///
    /// # Errors
    /// [`BackendError`]: the range then holds anything.
    fn discard(&mut self, offset: u64, len: u64) -> Result<(), BackendError>;

    /// Whether writes are refused; constant.
    fn read_only(&self) -> bool {
        false
    }

    /// All its bytes as something that the machine may be able to write from, and unless it is
    /// [`read_only`](Self::read_only) to read to, on its own ([`pci::DmaBus::write_mapped`],
    /// [`pci::DmaBus::read_mapped`]). Bytes that went there are written.
    fn mapped(&self) -> Option<&dyn Any> {
        None
    }
}

/// Bytes of a piece of memory.
const CHUNK: u64 = 64 << 10;

/// Memory that costs nothing where only zeroes are.
#[derive(Clone, Debug, Default)]
pub struct MemoryBackend {
    size: u64,
    /// By offset, in chunks.
    chunks: BTreeMap<u64, Box<[u8]>>,
}

impl MemoryBackend {
    /// `size` bytes of zeroes.
    #[must_use]
    pub const fn new(size: u64) -> Self {
        Self { size, chunks: BTreeMap::new() }
    }

    /// Bytes of memory in use.
    #[must_use]
    pub fn resident(&self) -> u64 {
        (self.chunks.len() as u64).saturating_mul(CHUNK)
    }

    fn check(&self, offset: u64, len: u64) -> Result<(), BackendError> {
        let end = offset.checked_add(len).ok_or(BackendError)?;
        if end <= self.size { Ok(()) } else { Err(BackendError) }
    }
}

/// Splits `offset..offset + len` where it crosses chunks: which chunk, where in it, how much.
fn pieces(offset: u64, len: u64) -> impl Iterator<Item = (u64, usize, usize)> {
    let (mut offset, mut left) = (offset, len);
    core::iter::from_fn(move || {
        if left == 0 {
            return None;
        }
        let inside = offset & CHUNK.wrapping_sub(1);
        let piece = left.min(CHUNK.saturating_sub(inside));
        let found = (offset / CHUNK, inside as usize, piece as usize);
        offset = offset.saturating_add(piece);
        left = left.saturating_sub(piece);
        Some(found)
    })
}

impl Backend for MemoryBackend {
    fn size(&self) -> u64 {
        self.size
    }

    fn read(&mut self, offset: u64, data: &mut [u8]) -> Result<(), BackendError> {
        self.check(offset, data.len() as u64)?;
        let mut rest = data;
        for (chunk, inside, piece) in pieces(offset, rest.len() as u64) {
            let (to, after) = rest.split_at_mut_checked(piece).ok_or(BackendError)?;
            let chunk = self.chunks.get(&chunk);
            match chunk.and_then(|c| c.get(inside..inside.saturating_add(piece))) {
                Some(from) => to.copy_from_slice(from),
                None => to.fill(0),
            }
            rest = after;
        }
        Ok(())
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Result<(), BackendError> {
        self.check(offset, data.len() as u64)?;
        let mut rest = data;
        for (chunk, inside, piece) in pieces(offset, rest.len() as u64) {
            let (from, after) = rest.split_at_checked(piece).ok_or(BackendError)?;
            let chunk = self.chunks.entry(chunk);
            let chunk = chunk.or_insert_with(|| vec![0; CHUNK as usize].into_boxed_slice());
            let to = chunk.get_mut(inside..inside.saturating_add(piece)).ok_or(BackendError)?;
            to.copy_from_slice(from);
            rest = after;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), BackendError> {
        Ok(())
    }

    fn write_zeroes(&mut self, offset: u64, len: u64) -> Result<(), BackendError> {
        self.discard(offset, len)
    }

    fn discard(&mut self, offset: u64, len: u64) -> Result<(), BackendError> {
        self.check(offset, len)?;
        if len == 0 {
            return Ok(());
        }
        let last = offset.saturating_add(len.saturating_sub(1));
        let (first_chunk, last_chunk) = (offset / CHUNK, last / CHUNK);
        // Chunks there are, not chunks there could be: the range may be a whole huge disk.
        let mut empty = alloc::vec::Vec::new();
        for (number, chunk) in self.chunks.range_mut(first_chunk..=last_chunk) {
            let start = number.saturating_mul(CHUNK);
            let from = offset.saturating_sub(start) as usize;
            let to = last.saturating_sub(start).saturating_add(1).min(CHUNK) as usize;
            if let Some(part) = chunk.get_mut(from..to) {
                part.fill(0);
            }
            if from == 0 && to == CHUNK as usize {
                empty.push(*number);
            }
        }
        for number in empty {
            self.chunks.remove(&number);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_big_disk_costs_what_is_written() {
        let mut disk = MemoryBackend::new(1 << 50);
        disk.write((1 << 49) + CHUNK - 2, &[1, 2, 3, 4]).unwrap();
        assert_eq!(disk.resident(), 2 * CHUNK);
        let mut data = [9; 8];
        disk.read((1 << 49) + CHUNK - 4, &mut data).unwrap();
        assert_eq!(data, [0, 0, 1, 2, 3, 4, 0, 0]);
        disk.discard(1 << 49, CHUNK + 1).unwrap();
        disk.read((1 << 49) + CHUNK - 4, &mut data).unwrap();
        assert_eq!((data, disk.resident()), ([0, 0, 0, 0, 0, 4, 0, 0], CHUNK));
        disk.write_zeroes(0, 1 << 50).unwrap();
        assert_eq!(disk.resident(), 0);
    }

    #[test]
    fn nothing_beyond_the_end() {
        let mut disk = MemoryBackend::new(1000);
        assert_eq!(disk.write(999, &[1, 2]), Err(BackendError));
        assert_eq!(disk.read(u64::MAX, &mut [0; 2]), Err(BackendError));
        assert_eq!(disk.discard(0, 1001), Err(BackendError));
        assert_eq!((disk.write(999, &[1]), disk.size(), disk.read_only()), (Ok(()), 1000, false));
    }
}
