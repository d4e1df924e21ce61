//! An inner node: children by the lower bounds of what lies below them.
//!
//! Keys lie contiguously and unused places hold `u64::MAX`, so a search is three counts: how many
//! quarters end at or below the key, how many cache lines of the next quarter do, and how many keys
//! of the next line. The loads of a count do not depend on each other, which is what makes a cold
//! node cost few memory latencies, and there is no branch to miss.

use super::NONE;

/// Children per inner node at most.
pub(super) const INNER: usize = 128;
/// Keys per cache line of 64 bytes.
const LINE: usize = 8;

/// Ascending keys, each with a child.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(super) struct Inner {
    keys: [u64; INNER],
    children: [u32; INNER],
    len: u32,
}

impl Inner {
    /// A node without children.
    pub(super) fn new() -> Self {
        Self { keys: [u64::MAX; INNER], children: [NONE; INNER], len: 0 }
    }

    /// The number of children.
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.len as usize
    }

    /// Whether no further child fits.
    #[inline]
    pub(super) fn is_full(&self) -> bool {
        self.len() >= INNER
    }

    /// The keys, ascending.
    #[inline]
    pub(super) fn keys(&self) -> &[u64] {
        self.keys.get(..self.len()).unwrap_or(&[])
    }

    /// The children, in the order of the keys.
    #[inline]
    pub(super) fn children(&self) -> &[u32] {
        self.children.get(..self.len()).unwrap_or(&[])
    }

    /// The key at `at`.
    #[inline]
    pub(super) fn key(&self, at: usize) -> Option<u64> {
        self.keys().get(at).copied()
    }

    /// The position of the child whose bounds hold `key`.
    #[inline]
    pub(super) fn position_of(&self, key: u64) -> usize {
        self.rank(key).saturating_sub(1)
    }

    /// The child whose bounds hold `key`.
    #[inline]
    pub(super) fn child_of(&self, key: u64) -> u32 {
        self.children.get(self.position_of(key)).copied().unwrap_or(NONE)
    }

    /// The number of keys at or below `key`.
    #[inline]
    fn rank(&self, key: u64) -> usize {
        // Unused places hold the greatest key: only for that one they would count.
        if key == u64::MAX {
            return self.len();
        }
        let (lines, _) = self.keys.as_chunks::<LINE>();
        let [a, b, c, _] = lines.as_chunks::<4>().0 else { return 0 };
        let at = count(key, a[3][7], b[3][7], c[3][7]).wrapping_mul(4);
        let Some([a, b, c, _]) = lines.get(at..).and_then(<[_]>::first_chunk::<4>) else {
            return 0;
        };
        let at = at.wrapping_add(count(key, a[7], b[7], c[7]));
        let Some(line) = lines.get(at) else { return 0 };
        at.wrapping_mul(LINE).wrapping_add(rank_in_line(line, key))
    }

    /// Puts `key` at `at`, moving later keys up. The caller keeps the order and leaves room.
    pub(super) fn insert(&mut self, at: usize, key: u64, child: u32) {
        let len = self.len();
        if at > len || self.is_full() {
            return;
        }
        let next = at.saturating_add(1);
        self.keys.copy_within(at..len, next);
        self.children.copy_within(at..len, next);
        if let (Some(k), Some(c)) = (self.keys.get_mut(at), self.children.get_mut(at)) {
            (*k, *c) = (key, child);
        }
        self.len = self.len.saturating_add(1);
    }

    /// Appends a key greater than all others.
    pub(super) fn push(&mut self, key: u64, child: u32) {
        self.insert(self.len(), key, child);
    }

    /// Takes out the key at `at` and its child.
    pub(super) fn remove(&mut self, at: usize) -> Option<(u64, u32)> {
        let taken = (self.key(at)?, *self.children.get(at)?);
        let (len, next) = (self.len(), at.saturating_add(1));
        self.keys.copy_within(next..len, at);
        self.children.copy_within(next..len, at);
        self.len = self.len.saturating_sub(1);
        if let Some(free) = self.keys.get_mut(self.len as usize) {
            *free = u64::MAX;
        }
        Some(taken)
    }

    /// Takes out the keys from `at` on and their children.
    pub(super) fn split(&mut self, at: usize) -> Self {
        let mut upper = Self::new();
        for (key, child) in self.keys().iter().zip(self.children()).skip(at) {
            upper.push(*key, *child);
        }
        for free in self.keys.iter_mut().skip(at) {
            *free = u64::MAX;
        }
        self.len = self.len.min(u32::try_from(at).unwrap_or(u32::MAX));
        upper
    }

    /// Changes the key at `at`; the caller keeps the order.
    pub(super) fn set_key(&mut self, at: usize, key: u64) {
        if let Some(k) = self.keys.get_mut(at) {
            *k = key;
        }
    }

    /// Replaces the child `old` by `new`.
    pub(super) fn replace(&mut self, old: u32, new: u32) {
        // Unused places may change too: no early exit, no bound, so this is a few vector steps.
        for child in &mut self.children {
            *child = if *child == old { new } else { *child };
        }
    }
}

/// The number of keys of three ascending ones at or below `key`.
#[inline]
fn count(key: u64, a: u64, b: u64, c: u64) -> usize {
    usize::from(a <= key).wrapping_add(usize::from(b <= key)).wrapping_add(usize::from(c <= key))
}

/// The number of keys of a line at or below `key`.
///
/// By the borrow of subtractions: that compiles to compares and additions with carry, where
/// comparisons would become a longer sequence of vector instructions.
#[inline]
fn rank_in_line(line: &[u64; LINE], key: u64) -> usize {
    let above = line.iter().fold(0usize, |above, place| {
        let (_, borrow) = key.overflowing_sub(*place);
        above.wrapping_add(usize::from(borrow))
    });
    LINE.wrapping_sub(above)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rank_agrees_with_counting() {
        let mut node = Inner::new();
        assert_eq!(node.rank(u64::MAX), 0);
        for len in 0..INNER as u64 {
            node.push(len * 3 + 10, 0);
            for key in (0..INNER as u64 * 3 + 20).chain([u64::MAX]) {
                let count = node.keys().iter().filter(|k| **k <= key).count();
                assert_eq!(node.rank(key), count, "{key} among {}", len + 1);
            }
        }
    }

    #[test]
    fn the_greatest_key_is_a_key_like_others() {
        let mut node = Inner::new();
        node.push(u64::MAX, 1);
        assert_eq!((node.rank(u64::MAX - 1), node.rank(u64::MAX)), (0, 1));
        assert_eq!(node.remove(0), Some((u64::MAX, 1)));
        assert_eq!(node.remove(0), None);
    }

    #[test]
    fn splitting_frees_the_upper_places() {
        let mut node = Inner::new();
        (0..INNER as u32).for_each(|i| node.push(u64::from(i) * 10, i));
        node.insert(0, 1, 9);
        assert!(node.is_full());
        assert_eq!(node.key(0), Some(0), "a full node takes nothing");
        let upper = node.split(125);
        assert_eq!((node.len(), upper.keys()), (125, &[1250, 1260, 1270][..]));
        assert_eq!(upper.children(), [125, 126, 127]);
        assert_eq!(node.rank(5000), 125);
    }
}
