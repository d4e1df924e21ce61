//! Values by ranges of numbers: a sparse array that does not care how long its runs are.

use std::collections::BTreeMap;

/// Disjoint half-open ranges, each with a value.
#[derive(Clone, Debug)]
pub(crate) struct Runs<V> {
    /// Start to (end, value).
    runs: BTreeMap<u64, (u64, V)>,
}

impl<V> Default for Runs<V> {
    fn default() -> Self {
        Self { runs: BTreeMap::new() }
    }
}

impl<V: Copy + PartialEq> Runs<V> {
    /// The value at `at`.
    pub(crate) fn get(&self, at: u64) -> Option<V> {
        let (_, &(end, value)) = self.runs.range(..=at).next_back()?;
        (at < end).then_some(value)
    }

    /// Gives every number of `start..end` the value.
    pub(crate) fn set(&mut self, start: u64, end: u64, value: V) {
        if start >= end {
            return;
        }
        self.clear(start, end);
        let (mut from, mut to) = (start, end);
        if let Some((&before, &(stop, old))) = self.runs.range(..start).next_back()
            && stop == start
            && old == value
        {
            self.runs.remove(&before);
            from = before;
        }
        if let Some(&(stop, old)) = self.runs.get(&end)
            && old == value
        {
            self.runs.remove(&end);
            to = stop;
        }
        self.runs.insert(from, (to, value));
    }

    /// Takes the values of `start..end` away.
    pub(crate) fn clear(&mut self, start: u64, end: u64) {
        if start >= end {
            return;
        }
        if let Some((&before, &(stop, value))) = self.runs.range(..start).next_back()
            && stop > start
        {
            self.runs.insert(before, (start, value));
            if stop > end {
                self.runs.insert(end, (stop, value));
            }
        }
        let inside: Vec<u64> = self.runs.range(start..end).map(|(&at, _)| at).collect();
        for at in inside {
            if let Some((stop, value)) = self.runs.remove(&at)
                && stop > end
            {
                self.runs.insert(end, (stop, value));
            }
        }
    }

    /// The first of [`pieces`](Self::pieces): where it ends, and its value.
    pub(crate) fn first_piece(&self, start: u64, end: u64) -> (u64, Option<V>) {
        if let Some((_, &(stop, value))) = self.runs.range(..=start).next_back()
            && start < stop
        {
            return (stop.min(end), Some(value));
        }
        let next = self.runs.range(start..).next().map_or(end, |(&at, _)| at);
        (next.min(end), None)
    }

    /// Cuts `start..end` into pieces of one value, gaps included: (start, end, value).
    pub(crate) fn pieces(&self, start: u64, end: u64) -> Vec<(u64, u64, Option<V>)> {
        let mut pieces = Vec::new();
        let mut at = start;
        let first = self.runs.range(..=start).next_back().map_or(start, |(&s, _)| s);
        for (&from, &(to, value)) in self.runs.range(first..end) {
            if to <= at {
                continue;
            }
            if from > at {
                pieces.push((at, from, None));
                at = from;
            }
            let stop = to.min(end);
            pieces.push((at, stop, Some(value)));
            at = stop;
        }
        if at < end {
            pieces.push((at, end, None));
        }
        pieces
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_split_and_join() {
        let mut r = Runs::default();
        r.set(10, 20, 'a');
        r.set(20, 30, 'a');
        r.set(15, 25, 'b');
        assert_eq!(
            r.pieces(0, 40),
            [
                (0, 10, None),
                (10, 15, Some('a')),
                (15, 25, Some('b')),
                (25, 30, Some('a')),
                (30, 40, None)
            ]
        );
        r.set(15, 25, 'a');
        assert_eq!(r.pieces(12, 28), [(12, 28, Some('a'))]);
        assert_eq!(r.first_piece(0, 40), (10, None));
        assert_eq!(r.first_piece(12, 14), (14, Some('a')));
        assert_eq!(r.first_piece(30, 40), (40, None));
        r.clear(0, 12);
        r.clear(13, 14);
        assert_eq!(
            (r.get(11), r.get(12), r.get(13), r.get(29)),
            (None, Some('a'), None, Some('a'))
        );
        r.clear(0, u64::MAX);
        assert_eq!(r.pieces(1, 2), [(1, 2, None)]);
    }
}
