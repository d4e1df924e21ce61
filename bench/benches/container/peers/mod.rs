//! The structures compared, each doing what a container's map and unmap must do.
//!
//! Every one makes the same checks in the same order (size and wrap, alignment, limit, valid
//! ranges, overlap) and stores the same value, so that a difference is the structure's own.

#![allow(dead_code, reason = "each benchmark uses its part")]

mod ordered;
mod red_black;

use iommu::IovaRange;

pub use self::ordered::Ordered;
pub use self::red_black::RedBlack;

/// What a container keeps for a mapping: 32 bytes, as the engine's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Value {
    pub vaddr: u64,
    pub pin: u64,
    pub pages: u64,
    pub owner: u32,
    pub prot: u8,
    pub flags: u8,
}

/// A mapping to be made.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    pub iova: u64,
    pub size: u64,
    pub vaddr: u64,
    pub prot: u8,
}

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    Empty,
    Wraps,
    Misaligned,
    LimitReached,
    NotUsable,
    Overlaps(IovaRange),
}

/// The checks that do not depend on the structure.
pub struct Rules {
    pub granule: u64,
    pub limit: usize,
    /// Sorted and disjoint.
    pub valid: Vec<IovaRange>,
}

impl Rules {
    /// What VT-d hardware with 48 bits allows: all but the interrupt window.
    pub fn new(limit: usize) -> Self {
        let r = |first, last| IovaRange::new(first, last).expect("a range");
        let valid = vec![r(0, 0xfedf_ffff), r(0xfef0_0000, (1 << 48) - 1)];
        Self { granule: 4096, limit, valid }
    }

    /// The range and value to store, or the first reason against it other than an overlap.
    pub fn check(&self, request: &Request, live: usize) -> Result<(IovaRange, Value), Refusal> {
        let Request { iova, size, vaddr, prot } = *request;
        if size == 0 || prot == 0 {
            return Err(Refusal::Empty);
        }
        let range = IovaRange::sized(iova, size).ok_or(Refusal::Wraps)?;
        vaddr.checked_add(size - 1).ok_or(Refusal::Wraps)?;
        if (iova | size | vaddr) & (self.granule - 1) != 0 {
            return Err(Refusal::Misaligned);
        }
        if live >= self.limit {
            return Err(Refusal::LimitReached);
        }
        let above = self.valid.partition_point(|v| v.first() <= range.first());
        if !above.checked_sub(1).and_then(|i| self.valid.get(i)).is_some_and(|v| v.covers(range)) {
            return Err(Refusal::NotUsable);
        }
        let value = Value { vaddr, pin: 1, pages: size >> 12, owner: 7, prot, flags: 1 };
        Ok((range, value))
    }
}

/// A container's table of mappings.
pub trait Mappings {
    /// Its name in reports.
    const NAME: &'static str;

    fn new(rules: Rules) -> Self;
    fn map(&mut self, request: &Request) -> Result<(), Refusal>;
    /// Removes every mapping that starts in the range, unless the range would cut one. Returns the
    /// bytes removed.
    fn unmap(&mut self, range: IovaRange) -> Option<u64>;
    fn len(&self) -> usize;
    /// The mapping that contains an address.
    fn find(&self, iova: u64) -> Option<(IovaRange, &Value)>;
    /// As `find`, for pages asked for again and again.
    fn translate(&self, iova: u64) -> Option<(IovaRange, &Value)> {
        self.find(iova)
    }
    /// The user addresses and sizes behind a range, until something is not mapped.
    fn segments(&self, range: IovaRange, f: impl FnMut(u64, u64));
    /// Makes room for translations, where there is a cache.
    fn warm(&mut self) {}
    /// Bytes of heap, where known exactly.
    fn bytes(&self) -> Option<usize> {
        None
    }
}

/// Walks ascending mappings from the one that contains `range.first()`.
fn walk<'a>(
    found: impl Iterator<Item = (IovaRange, &'a Value)>,
    range: IovaRange,
    mut f: impl FnMut(u64, u64),
) {
    let mut at = range.first();
    for (mapping, value) in found {
        if !mapping.contains(at) {
            return;
        }
        let last = mapping.last().min(range.last());
        f(value.vaddr + (at - mapping.first()), last - at + 1);
        if last == range.last() {
            return;
        }
        at = last + 1;
    }
}
