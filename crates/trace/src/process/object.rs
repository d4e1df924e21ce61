//! What a piece of memory holds: bytes by chunk, sparse, and which pages a fault has given it.
//!
//! An object outlives the mapping that made it: whoever pinned a part of it holds it too.

use std::collections::BTreeMap;

use super::runs::Runs;
use super::touch::Touched;

/// Bytes that are kept together once they differ. Small: every request clears its argument's memory
/// and writes a few words there.
const CHUNK: u64 = 256;

/// Chunks in a range that is set throughout that are worth keeping.
const FEW: usize = 4;

/// Memory that mappings and pins refer to.
#[derive(Debug)]
pub(crate) struct Object {
    page: u64,
    /// Bytes that exist: a file's size, or everything.
    size: u64,
    /// Whole chunks that hold one byte throughout; 0 where nothing was said.
    fill: Runs<u8>,
    /// Chunks with contents of their own, by index.
    chunks: BTreeMap<u64, Box<[u8; CHUNK as usize]>>,
    /// Which pages have been touched, on kernels where that shows.
    pub(crate) touched: Option<Touched>,
}

impl Object {
    /// Anonymous memory of pages of `page` bytes.
    pub(crate) fn anonymous(page: u64, touched: Option<Touched>) -> Self {
        Self { page, size: u64::MAX, fill: Runs::default(), chunks: BTreeMap::new(), touched }
    }

    /// A file in memory, `size` bytes long.
    pub(crate) fn file(page: u64, size: u64) -> Self {
        Self { size, ..Self::anonymous(page, None) }
    }

    /// Bytes of existing pages (the last page of a file exists as a whole) from `offset` on, at most 2^63.
    pub(crate) fn pages_from(&self, offset: u64) -> u64 {
        let end = self.size.div_ceil(self.page).saturating_mul(self.page).min(1 << 63);
        end.saturating_sub(offset)
    }

    /// Copies from `offset`.
    pub(crate) fn read(&self, mut offset: u64, mut data: &mut [u8]) {
        while !data.is_empty() {
            let (index, inside) = (offset / CHUNK, (offset % CHUNK) as usize);
            let n = data.len().min(CHUNK as usize - inside);
            let (now, rest) = data.split_at_mut(n);
            match self.chunks.get(&index) {
                Some(bytes) => now.copy_from_slice(&bytes[inside..inside + n]),
                None => now.fill(self.fill.get(index).unwrap_or(0)),
            }
            data = rest;
            offset = offset.wrapping_add(n as u64);
        }
    }

    /// Copies to `offset`.
    pub(crate) fn write(&mut self, mut offset: u64, mut data: &[u8]) {
        while !data.is_empty() {
            let (index, inside) = (offset / CHUNK, (offset % CHUNK) as usize);
            let n = data.len().min(CHUNK as usize - inside);
            let (now, rest) = data.split_at(n);
            self.chunk_mut(index)[inside..inside + n].copy_from_slice(now);
            data = rest;
            offset = offset.wrapping_add(n as u64);
        }
    }

    /// Sets `size` bytes from `offset`; whole chunks cost nothing each.
    pub(crate) fn fill(&mut self, offset: u64, size: u64, byte: u8) {
        let end = offset.saturating_add(size);
        let (first, last) = (offset.div_ceil(CHUNK), end / CHUNK);
        if first >= last {
            self.fill_parts(offset, end, byte);
            return;
        }
        self.fill_parts(offset, first * CHUNK, byte);
        if self.fill.first_piece(first, last) != (last, Some(byte)) {
            self.fill.set(first, last, byte);
        }
        // A few are set rather than given back: the next request needs them again.
        let mut inside = self.chunks.range_mut(first..last);
        inside.by_ref().take(FEW).for_each(|(_, chunk)| chunk.fill(byte));
        if let Some((&index, _)) = inside.next() {
            let mut inside = self.chunks.split_off(&index);
            self.chunks.append(&mut inside.split_off(&last));
        }
        self.fill_parts(last * CHUNK, end, byte);
    }

    /// Sets bytes of chunks that are not set as a whole: at most two.
    fn fill_parts(&mut self, mut offset: u64, end: u64, byte: u8) {
        while offset < end {
            let inside = offset % CHUNK;
            let n = (end - offset).min(CHUNK - inside);
            let index = offset / CHUNK;
            self.chunk_mut(index)[inside as usize..(inside + n) as usize].fill(byte);
            offset += n;
        }
    }

    fn chunk_mut(&mut self, index: u64) -> &mut [u8; CHUNK as usize] {
        let byte = self.fill.get(index).unwrap_or(0);
        self.chunks.entry(index).or_insert_with(|| Box::new([byte; CHUNK as usize]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_fills_and_pages() {
        let mut o = Object::anonymous(4096, None);
        o.fill(100, 1 << 40, 7);
        o.write(8190, &[1, 2, 3, 4]);
        let mut b = [0; 6];
        o.read(8189, &mut b);
        assert_eq!(b, [7, 1, 2, 3, 4, 7]);
        o.read(97, &mut b);
        assert_eq!(b, [0, 0, 0, 7, 7, 7]);
        o.fill(4096, 1 << 20, 0);
        o.read(8189, &mut b);
        assert_eq!(b, [0; 6]);
        o.read((1 << 40) + 98, &mut b);
        assert_eq!(b, [7, 7, 0, 0, 0, 0]);
        assert!(o.chunks.len() <= 4);
    }

    #[test]
    fn a_file_ends_with_its_last_page() {
        let o = Object::file(4096, 4097);
        assert_eq!((o.pages_from(0), o.pages_from(8191), o.pages_from(8192)), (8192, 1, 0));
        assert_eq!(Object::file(4096, 0).pages_from(0), 0);
    }
}
