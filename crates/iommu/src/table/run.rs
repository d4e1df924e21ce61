//! A sorted run of keys with a tag each: the body of every tree node.
//!
//! Keys lie contiguously and unused places hold `u64::MAX`, so a search is two counts over whole
//! cache lines: how many lines end at or below the key, then how many keys of the next line do.
//! The loads of the first count do not depend on each other, which is what makes a cold node cost
//! one memory latency instead of one per step of a binary search, and there is no branch to miss.

/// Keys per cache line of 64 bytes.
const LINE: usize = 8;

/// Up to `N` ascending keys, each with a tag. `N` is a multiple of 8.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run<T, const N: usize> {
    keys: [u64; N],
    tags: [T; N],
    len: u32,
}

impl<T: Copy + Default + PartialEq, const N: usize> Run<T, N> {
    /// A run without keys.
    pub(super) fn new() -> Self {
        Self { keys: [u64::MAX; N], tags: [T::default(); N], len: 0 }
    }

    /// The number of keys.
    pub(super) fn len(&self) -> usize {
        self.len as usize
    }

    /// Whether no further key fits.
    pub(super) fn is_full(&self) -> bool {
        self.len() >= N
    }

    /// The keys, ascending.
    pub(super) fn keys(&self) -> &[u64] {
        self.keys.get(..self.len()).unwrap_or(&[])
    }

    /// The tags, in the order of the keys.
    pub(super) fn tags(&self) -> &[T] {
        self.tags.get(..self.len()).unwrap_or(&[])
    }

    /// The key at `at`.
    pub(super) fn key(&self, at: usize) -> Option<u64> {
        self.keys().get(at).copied()
    }

    /// The tag at `at`.
    pub(super) fn tag(&self, at: usize) -> Option<T> {
        self.tags().get(at).copied()
    }

    /// The number of keys at or below `key`.
    pub(super) fn rank(&self, key: u64) -> usize {
        let (lines, _) = self.keys.as_chunks::<LINE>();
        let whole: usize = lines.iter().map(|line| usize::from(line[LINE - 1] <= key)).sum();
        let part: usize =
            lines.get(whole).map_or(0, |line| line.iter().map(|k| usize::from(*k <= key)).sum());
        // Unused places hold the greatest key and count only for that very key.
        whole.saturating_mul(LINE).saturating_add(part).min(self.len())
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
        if let Some(free) = self.keys.get_mut(self.len as usize) {
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
        self.len = self.len.min(u32::try_from(at).unwrap_or(u32::MAX));
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

    /// Replaces every tag by what `f` makes of it.
    pub(super) fn map_tags(&mut self, f: impl Fn(T) -> T) {
        for tag in &mut self.tags {
            *tag = f(*tag);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rank_counts_keys_at_or_below() {
        let mut run = Run::<u8, 16>::new();
        assert_eq!(run.rank(u64::MAX), 0);
        for (i, key) in [0u64, 5, 9, 100, 200, 300, 400, 500, 600, 700].into_iter().enumerate() {
            run.push(key, i as u8);
        }
        for (key, rank) in [(0, 1), (4, 1), (5, 2), (499, 7), (500, 8), (650, 9), (u64::MAX, 10)] {
            assert_eq!(run.rank(key), rank, "{key}");
        }
    }

    #[test]
    fn the_greatest_key_is_a_key_like_others() {
        let mut run = Run::<u8, 8>::new();
        run.push(u64::MAX, 1);
        assert_eq!((run.rank(u64::MAX - 1), run.rank(u64::MAX)), (0, 1));
        assert_eq!(run.remove(0), Some((u64::MAX, 1)));
        assert_eq!(run.remove(0), None);
    }

    #[test]
    fn splitting_frees_the_upper_places() {
        let mut run = Run::<u8, 8>::new();
        (0..8).for_each(|i| run.push(i * 10, i as u8));
        run.insert(0, 1, 9);
        assert!(run.is_full());
        assert_eq!(run.len(), 8, "a full run takes nothing");
        let upper = run.split(3);
        assert_eq!((run.keys(), upper.keys()), (&[0, 10, 20][..], &[30, 40, 50, 60, 70][..]));
        assert_eq!(upper.tags(), [3, 4, 5, 6, 7]);
        assert_eq!(run.rank(1000), 3);
    }
}
