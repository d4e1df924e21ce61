//! The invariants of the tree, checked node by node in tests.

use alloc::vec::Vec;

use super::edit::{INNER_MIN, LEAF_MIN};
use super::{MappingTable, NONE};

impl<V: Copy> MappingTable<V> {
    /// Panics when the table breaks one of its invariants.
    pub(crate) fn check(&self) {
        if self.leaves.len() == 0 {
            assert_eq!((self.len, self.height, self.inners.len()), (0, 0, 0));
            return;
        }
        let mut walk = Walk { table: self, leaves: Vec::new(), inners: 0 };
        walk.node(self.root, self.height, 0, None);
        assert_eq!(walk.inners, self.inners.len(), "inner nodes in use");
        assert_eq!(walk.leaves.len(), self.leaves.len(), "leaves in use");

        let (mut count, mut end) = (0, None);
        for (i, &leaf) in walk.leaves.iter().enumerate() {
            let node = self.leaves.get(leaf).unwrap();
            let link =
                |at: Option<usize>| at.and_then(|at| walk.leaves.get(at)).map_or(NONE, |n| *n);
            assert_eq!((node.prev, node.next), (link(i.checked_sub(1)), link(Some(i + 1))));
            node.check();
            for range in (0..node.len()).map(|rank| node.range(rank).expect("in use")) {
                assert!(end.is_none_or(|end| end < range.first()), "order at {range}");
                end = Some(range.last());
                count += 1;
            }
        }
        assert_eq!(count, self.len);
        let unused = (self.leaves.len() as u32..).map_while(|at| self.leaves.get(at));
        unused.for_each(|leaf| assert_eq!(leaf.range(0), None, "not in use"));
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
            let leaf = self.table.leaves.get(at).unwrap();
            assert!(is_root || leaf.len() >= LEAF_MIN, "small leaf: {}", leaf.len());
            assert!((0..leaf.len()).all(|rank| inside(&leaf.range(rank).unwrap().first())));
            self.leaves.push(at);
            return;
        }
        self.inners += 1;
        let node = self.table.inners.get(at).unwrap();
        assert!(node.len() >= if is_root { 2 } else { INNER_MIN }, "small node: {}", node.len());
        assert!(node.keys().is_sorted() && node.keys().iter().all(inside));
        assert_eq!(node.key(0), Some(low));
        for (i, child) in node.children().iter().enumerate() {
            self.node(*child, level - 1, node.keys()[i], node.key(i + 1).or(high));
        }
    }
}
