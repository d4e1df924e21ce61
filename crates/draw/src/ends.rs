//! Which life a mapping's end belongs to. It is found out when there are ends: most mappings of a large
//! trace never end, and need no entry then.

use std::collections::HashMap;

use crate::scene::Kind;
use crate::story::Life;

/// Which lives are mappings that are there, by their first byte.
#[derive(Debug, Default)]
pub(crate) struct Mapped {
    places: HashMap<u64, usize>,
    /// Lives that are in `places`, or were.
    known: usize,
    /// Ends that nobody has written down: first byte, lives there were, request.
    ended: Vec<(u64, usize, u64)>,
}

/// Ends that are kept until they are written down together.
const MOST_ENDED: usize = 4096;

impl Mapped {
    /// The mapping that begins at `first` ends.
    pub(crate) fn end(&mut self, first: u64, at: u64, lives: &mut [Life]) {
        self.ended.push((first, lives.len(), at));
        if self.ended.len() >= MOST_ENDED {
            self.settle(lives);
        }
    }

    /// Writes down which lives have ended.
    pub(crate) fn settle(&mut self, lives: &mut [Life]) {
        for (first, there, at) in std::mem::take(&mut self.ended) {
            self.know(&lives[..there]);
            if let Some(place) = self.places.remove(&first) {
                lives[place].to.get_or_insert(at);
            }
        }
    }

    fn know(&mut self, lives: &[Life]) {
        for (place, life) in lives.iter().enumerate().skip(self.known) {
            if life.kind == Kind::Mapping {
                self.places.insert(life.range.first(), place);
            }
        }
        self.known = self.known.max(lives.len());
    }

    /// The mapping that begins at `first`.
    pub(crate) fn find(&mut self, first: u64, lives: &mut [Life]) -> Option<usize> {
        self.settle(lives);
        self.know(lives);
        self.places.get(&first).copied()
    }
}
