//! The findings so far: equal ones are counted.

use super::finding::Finding;

/// Different findings that are kept.
const MOST: usize = 200;

/// The findings.
#[derive(Default)]
pub(super) struct Findings {
    pub(super) list: Vec<Finding>,
    /// How many more there were.
    pub(super) more: u64,
}

impl Findings {
    pub(super) fn add(&mut self, new: Finding) {
        let full = self.list.len() >= MOST;
        let same = self.list.iter_mut().rev().find(|old| {
            old.device == new.device
                && old.access == new.access
                && old.problem.is_like(&new.problem)
        });
        match same {
            Some(old) => old.times += 1,
            None if full => self.more += 1,
            None => self.list.push(new),
        }
    }
}
