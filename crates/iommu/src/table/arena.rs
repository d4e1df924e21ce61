//! Nodes by number, always dense: numbers `0..len` are in use and no others.
//!
//! Nodes live in chunks, so growing never copies them and a small table stays small. Freeing a
//! node moves the last one into its place; the tree then corrects the one reference to it. Memory
//! therefore follows the number of nodes down as well as up.

use alloc::boxed::Box;
use alloc::vec::Vec;

/// Dense storage for `T`, in chunks of `CHUNK`, a power of two.
#[derive(Clone, Debug)]
pub(super) struct Arena<T, const CHUNK: usize> {
    chunks: Vec<Box<[T; CHUNK]>>,
    len: usize,
}

impl<T: Copy, const CHUNK: usize> Arena<T, CHUNK> {
    /// No nodes, no memory.
    pub(super) const fn new() -> Self {
        Self { chunks: Vec::new(), len: 0 }
    }

    /// The number of nodes.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Bytes of heap held.
    pub(super) fn bytes(&self) -> usize {
        let chunks = self.chunks.len().saturating_mul(size_of::<[T; CHUNK]>());
        chunks.saturating_add(self.chunks.capacity().saturating_mul(size_of::<Box<T>>()))
    }

    /// Node `at`.
    #[inline]
    pub(super) fn get(&self, at: u32) -> Option<&T> {
        let at = at as usize;
        self.chunks.get(at >> CHUNK.ilog2())?.get(at & (CHUNK.wrapping_sub(1)))
    }

    /// Node `at`.
    #[inline]
    pub(super) fn get_mut(&mut self, at: u32) -> Option<&mut T> {
        let at = at as usize;
        self.chunks.get_mut(at >> CHUNK.ilog2())?.get_mut(at & (CHUNK.wrapping_sub(1)))
    }

    /// Adds a node and returns its number.
    pub(super) fn push(&mut self, node: T) -> u32 {
        // 2^32 nodes would need more than 2^40 bytes of memory.
        let at = u32::try_from(self.len).unwrap_or(u32::MAX);
        match self.get_mut(at) {
            Some(place) => *place = node,
            None => self.chunks.push(Box::new([node; CHUNK])),
        }
        self.len = self.len.saturating_add(1);
        at
    }

    /// Frees node `at`. When another node had to move into its place, returns the number it had.
    /// Behind the last node, a chunk holds freed nodes as they were.
    pub(super) fn swap_remove(&mut self, at: u32) -> Option<u32> {
        let last = u32::try_from(self.len.saturating_sub(1)).unwrap_or(u32::MAX);
        let (freed, moved) = (*self.get(at)?, *self.get(last)?);
        *self.get_mut(last)? = freed;
        *self.get_mut(at)? = moved;
        self.len = self.len.saturating_sub(1);
        // The last chunk goes when the one before is half empty, lest a node freed and needed again
        // allocates each time.
        let spare = CHUNK >> 1;
        self.chunks.truncate(self.len.saturating_add(spare).div_ceil(CHUNK));
        let (used, held) = (self.chunks.len(), self.chunks.capacity());
        if held / 2 > used {
            self.chunks.shrink_to(used.saturating_add(used / 2));
        }
        (last != at).then_some(last)
    }
}
