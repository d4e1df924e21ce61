//! A model's buffer for data on its way.

use alloc::vec::Vec;

/// Where a buffer begins, to the byte: kernels copy with `rep movsb`, which takes several times as
/// long to an address in the middle of a cache line. `pread` of 128 KiB on an AMD EPYC, Linux 6.18:
/// 6 us, and 61 us to where `malloc` puts such a vector, at 16 bytes of a page.
const ALIGN: usize = 64;

/// Bytes that are kept to be used again.
#[derive(Debug, Default)]
pub(crate) struct Buffer(Vec<u8>);

impl Buffer {
    pub(crate) const fn new() -> Self {
        Self(Vec::new())
    }

    /// Its first `len` bytes, whatever they hold; it grows for them.
    pub(crate) fn first(&mut self, len: usize) -> &mut [u8] {
        let room = len.saturating_add(ALIGN);
        if self.0.len() < room {
            self.0.resize(room, 0);
        }
        let start = self.0.as_ptr().align_offset(ALIGN);
        // Only a compiler that has no addresses finds none.
        let start = if start < ALIGN { start } else { 0 };
        self.0.get_mut(start..start.saturating_add(len)).unwrap_or_default()
    }

    /// The most that was asked for.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.0.len().saturating_sub(ALIGN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_begins_with_a_cache_line_and_keeps_what_it_holds() {
        let mut buffer = Buffer::new();
        for len in [1, 100, 4096, 1 << 20, 5] {
            let bytes = buffer.first(len);
            assert_eq!((bytes.len(), bytes.as_ptr().addr() % ALIGN), (len, 0));
            bytes[len - 1] = 7;
            let at = bytes.as_ptr();
            let again = buffer.first(len);
            assert_eq!((again.as_ptr(), again[len - 1]), (at, 7));
        }
        assert!(buffer.first(0).is_empty());
    }
}
