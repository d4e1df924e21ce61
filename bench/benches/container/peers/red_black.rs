//! A red-black tree with nodes of its own: the kernel's shape.

use intrusive_collections::{Bound, KeyAdapter, RBTree, RBTreeLink, intrusive_adapter};
use iommu::IovaRange;

use super::{Mappings, Refusal, Request, Rules, Value, walk};

/// As the kernel's `struct vfio_dma`: one allocation with links and fields.
pub struct Node {
    link: RBTreeLink,
    range: IovaRange,
    value: Value,
}

intrusive_adapter!(pub ByFirst = Box<Node>: Node { link => RBTreeLink });

impl<'a> KeyAdapter<'a> for ByFirst {
    type Key = u64;

    fn get_key(&self, node: &'a Node) -> u64 {
        node.range.first()
    }
}

/// `intrusive_collections::RBTree` by first address.
pub struct RedBlack {
    rules: Rules,
    tree: RBTree<ByFirst>,
    len: usize,
}

impl RedBlack {
    fn first_overlap(&self, range: IovaRange) -> Option<IovaRange> {
        if let Some((found, _)) = self.find(range.first()) {
            return Some(found);
        }
        let above = self.tree.lower_bound(Bound::Included(&range.first()));
        above.get().map(|node| node.range).filter(|found| found.overlaps(range))
    }
}

impl Mappings for RedBlack {
    const NAME: &'static str = "rbtree";

    fn new(rules: Rules) -> Self {
        Self { rules, tree: RBTree::new(ByFirst::new()), len: 0 }
    }

    fn map(&mut self, request: &Request) -> Result<(), Refusal> {
        let (range, value) = self.rules.check(request, self.len)?;
        let below = self.tree.upper_bound_mut(Bound::Included(&range.last()));
        if below.get().is_some_and(|node| node.range.last() >= range.first()) {
            return Err(Refusal::Overlaps(self.first_overlap(range).unwrap_or(range)));
        }
        self.tree.insert(Box::new(Node { link: RBTreeLink::new(), range, value }));
        self.len += 1;
        Ok(())
    }

    fn unmap(&mut self, range: IovaRange) -> Option<u64> {
        if self.find(range.last()).is_some_and(|(found, _)| !range.covers(found)) {
            return None;
        }
        let mut at = self.tree.upper_bound_mut(Bound::Included(&range.first()));
        match at.get().map(|node| node.range).filter(|found| found.contains(range.first())) {
            Some(found) if !range.covers(found) => return None,
            Some(_) => {}
            None => at.move_next(),
        }
        let mut bytes = 0;
        while at.get().is_some_and(|node| node.range.overlaps(range)) {
            let Some(node) = at.remove() else { break };
            self.len -= 1;
            bytes += node.range.size();
        }
        Some(bytes)
    }

    fn len(&self) -> usize {
        self.len
    }

    fn find(&self, iova: u64) -> Option<(IovaRange, &Value)> {
        let node = self.tree.upper_bound(Bound::Included(&iova)).get()?;
        node.range.contains(iova).then_some((node.range, &node.value))
    }

    fn segments(&self, range: IovaRange, f: impl FnMut(u64, u64)) {
        let mut at = self.tree.upper_bound(Bound::Included(&range.first()));
        let nodes = std::iter::from_fn(|| {
            let node = at.get()?;
            at.move_next();
            Some((node.range, &node.value))
        });
        walk(nodes, range, f);
    }
}
