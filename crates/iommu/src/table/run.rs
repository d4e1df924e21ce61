//! A sorted run of keys with a tag each: the body of every tree node.
//!
//! Keys lie contiguously and unused places hold `u64::MAX`, so a search is two counts over whole
//! cache lines: how many lines end at or below the key, then how many keys of the next line do.
//! The loads of the first count do not depend on each other, which is what makes a cold node cost
//! one memory latency instead of one per step of a binary search, and there is no branch to miss.

/// Keys per cache line of 64 bytes.
const LINE: usize = 8;

/// Up to `N` ascending keys, each with a tag. `N` is 24 or 128.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(super) struct Run<T, const N: usize> {
    keys: [u64; N],
    tags: [T; N],
    len: u8,
}

impl<T: Copy + Default + PartialEq, const N: usize> Run<T, N> {
    /// A run without keys.
    pub(super) fn new() -> Self {
        Self { keys: [u64::MAX; N], tags: [T::default(); N], len: 0 }
    }

    /// The number of keys.
    #[inline]
    pub(super) fn len(&self) -> usize {
        usize::from(self.len)
    }

    /// Whether no further key fits.
    #[inline]
    pub(super) fn is_full(&self) -> bool {
        self.len() >= N
    }

    /// The keys, ascending.
    #[inline]
    pub(super) fn keys(&self) -> &[u64] {
        self.keys.get(..self.len()).unwrap_or(&[])
    }

    /// The tags, in the order of the keys.
    #[inline]
    pub(super) fn tags(&self) -> &[T] {
        self.tags.get(..self.len()).unwrap_or(&[])
    }

    /// The key at `at`.
    #[inline]
    pub(super) fn key(&self, at: usize) -> Option<u64> {
        self.keys().get(at).copied()
    }

    /// The tag at `at`, which must be below the length to mean anything.
    #[inline]
    pub(super) fn tag(&self, at: usize) -> Option<T> {
        self.tags.get(at).copied()
    }

    /// The number of keys at or below `key`.
    #[inline]
    pub(super) fn rank(&self, key: u64) -> usize {
        const { assert!(N == 24 || N == 128) };
        let (lines, _) = self.keys.as_chunks::<LINE>();
        let at = match lines.as_chunks::<4>().0.as_chunks::<4>().0 {
            [quads] => {
                let at = count(key, quads[0][3][7], quads[1][3][7], quads[2][3][7]);
                let Some(quad) = quads.get(at) else { return 0 };
                at.wrapping_mul(4).wrapping_add(count(key, quad[0][7], quad[1][7], quad[2][7]))
            }
            _ => match lines {
                [a, b, _] => usize::from(a[7] <= key).wrapping_add(usize::from(b[7] <= key)),
                _ => 0,
            },
        };
        let Some(line) = lines.get(at) else { return 0 };
        // Unused places hold the greatest key and count only for that very key.
        at.wrapping_mul(LINE).wrapping_add(rank_in_line(line, key)).min(self.len())
    }

    /// Puts `key` at `at`, moving later keys up. The caller keeps the order and leaves room.
    pub(super) fn insert(&mut self, at: usize, key: u64, tag: T) {
        let len = self.len();
        if at > len || len >= N {
            return;
        }
        let next = at.saturating_add(1);
        self.keys.copy_within(at..len, next);
        self.tags.copy_within(at..len, next);
        if let (Some(k), Some(t)) = (self.keys.get_mut(at), self.tags.get_mut(at)) {
            (*k, *t) = (key, tag);
        }
        self.len = self.len.saturating_add(1);
    }

    /// Appends a key greater than all others.
    pub(super) fn push(&mut self, key: u64, tag: T) {
        self.insert(self.len(), key, tag);
    }

    /// Takes out the key at `at` and its tag.
    pub(super) fn remove(&mut self, at: usize) -> Option<(u64, T)> {
        let taken = (self.key(at)?, self.tag(at)?);
        let (len, next) = (self.len(), at.saturating_add(1));
        self.keys.copy_within(next..len, at);
        self.tags.copy_within(next..len, at);
        self.len = self.len.saturating_sub(1);
        if let Some(free) = self.keys.get_mut(usize::from(self.len)) {
            *free = u64::MAX;
        }
        Some(taken)
    }

    /// Takes out the keys from `at` on.
    pub(super) fn split(&mut self, at: usize) -> Self {
        let mut upper = Self::new();
        for (key, tag) in self.keys().iter().zip(self.tags()).skip(at) {
            upper.push(*key, *tag);
        }
        for free in self.keys.iter_mut().skip(at) {
            *free = u64::MAX;
        }
        self.len = self.len.min(u8::try_from(at).unwrap_or(u8::MAX));
        upper
    }

    /// Changes the key at `at`; the caller keeps the order.
    pub(super) fn set_key(&mut self, at: usize, key: u64) {
        if let Some(k) = self.keys.get_mut(at) {
            *k = key;
        }
    }

    /// Replaces the tag `old` by `new`.
    pub(super) fn retag(&mut self, old: T, new: T) {
        // Unused places may change too: no early exit, no bound, so this is a few vector steps.
        for tag in &mut self.tags {
            *tag = if *tag == old { new } else { *tag };
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
    fn rank_counts_keys_at_or_below() {
        let mut run = Run::<u8, 24>::new();
        assert_eq!(run.rank(u64::MAX), 0);
        for (i, key) in [0u64, 5, 9, 100, 200, 300, 400, 500, 600, 700].into_iter().enumerate() {
            run.push(key, i as u8);
        }
        for (key, rank) in [(0, 1), (4, 1), (5, 2), (499, 7), (500, 8), (650, 9), (u64::MAX, 10)] {
            assert_eq!(run.rank(key), rank, "{key}");
        }
    }

    #[test]
    fn rank_agrees_with_counting() {
        fn agrees<const N: usize>() {
            let mut run = Run::<u16, N>::new();
            for len in 0..N as u64 {
                run.push(len * 3 + 10, 0);
                for key in 0..N as u64 * 3 + 20 {
                    let count = run.keys().iter().filter(|k| **k <= key).count();
                    assert_eq!(run.rank(key), count, "{key} among {}", len + 1);
                }
            }
        }
        agrees::<24>();
        agrees::<128>();
    }

    #[test]
    fn the_greatest_key_is_a_key_like_others() {
        let mut run = Run::<u8, 24>::new();
        run.push(u64::MAX, 1);
        assert_eq!((run.rank(u64::MAX - 1), run.rank(u64::MAX)), (0, 1));
        assert_eq!(run.remove(0), Some((u64::MAX, 1)));
        assert_eq!(run.remove(0), None);
    }

    #[test]
    fn splitting_frees_the_upper_places() {
        let mut run = Run::<u8, 24>::new();
        (0..24).for_each(|i| run.push(i * 10, i as u8));
        run.insert(0, 1, 9);
        assert!(run.is_full());
        assert_eq!(run.len(), 24, "a full run takes nothing");
        let upper = run.split(21);
        assert_eq!((run.len(), upper.keys()), (21, &[210, 220, 230][..]));
        assert_eq!(upper.tags(), [21, 22, 23]);
        assert_eq!(run.rank(1000), 21);
    }
}
