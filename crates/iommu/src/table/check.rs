//! The invariants of the tree, checked node by node in tests.

use alloc::vec::Vec;

use super::edit::{INNER_MIN, LEAF_MIN};
use super::{MappingTable, NONE};

impl<V: Copy> MappingTable<V> {
    /// Panics when the table breaks one of its invariants.
    pub(crate) fn check(&self) {
        if self.store.leaves.len() == 0 {
            assert_eq!((self.len, self.height, self.inners.len()), (0, 0, 0));
            return;
        }
        let mut walk = Walk { table: self, leaves: Vec::new(), inners: 0 };
        walk.node(self.root, self.height, 0, None);
        assert_eq!(walk.inners, self.inners.len(), "inner nodes in use");
        assert_eq!(walk.leaves.len(), self.store.leaves.len(), "leaves in use");

        let (mut count, mut held, mut end) = (0, 0, None);
        for (i, &leaf) in walk.leaves.iter().enumerate() {
            let node = self.store.leaves.get(leaf).unwrap();
            let link =
                |at: Option<usize>| at.and_then(|at| walk.leaves.get(at)).map_or(NONE, |n| *n);
            assert_eq!((node.prev, node.next), (link(i.checked_sub(1)), link(Some(i + 1))));
            let mut places: Vec<_> = node.run.tags().to_vec();
            for (rank, key) in node.run.keys().iter().enumerate() {
                let entry = self.store.entry(self.store.ranked(node, rank)).unwrap();
                let range = entry.range().expect("in use");
                assert_eq!(range.first(), *key);
                assert!(end.is_none_or(|end| end < range.first()), "order at {range}");
                end = Some(range.last());
                count += 1;
            }
            places.sort_unstable();
            assert!(places.iter().enumerate().all(|(i, place)| i == usize::from(*place)));
            held += self.store.check_clusters(leaf);
        }
        assert_eq!(held, self.store.clusters.len(), "clusters in use");
        assert_eq!(count, self.len);
    }
}

struct Walk<'a, V> {
    table: &'a MappingTable<V>,
    leaves: Vec<u32>,
    inners: usize,
}

impl<V: Copy> Walk<'_, V> {
    /// Checks the node `at` whose keys lie in `low..high`.
    fn node(&mut self, at: u32, level: u32, low: u64, high: Option<u64>) {
        let is_root = level == self.table.height;
        let inside = |key: &u64| *key >= low && high.is_none_or(|high| *key < high);
        if level == 0 {
            let run = &self.table.store.leaves.get(at).unwrap().run;
            assert!(is_root || run.len() >= LEAF_MIN, "small leaf: {}", run.len());
            assert!(run.keys().iter().all(inside));
            self.leaves.push(at);
            return;
        }
        self.inners += 1;
        let run = self.table.inners.get(at).unwrap().run;
        assert!(run.len() >= if is_root { 2 } else { INNER_MIN }, "small node: {}", run.len());
        assert!(run.keys().is_sorted() && run.keys().iter().all(inside));
        assert_eq!(run.key(0), Some(low));
        for (i, child) in run.tags().iter().enumerate() {
            self.node(*child, level - 1, run.keys()[i], run.key(i + 1).or(high));
        }
    }
}
