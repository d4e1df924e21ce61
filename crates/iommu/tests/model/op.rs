//! What is done to an address space: steered (relative to what is there) and resolved.
//!
//! A [`Transition`] says "the third mapping plus a page"; it means something in every state, so
//! that a failing run can be shrunk. The model turns it into an [`Op`] with numbers, which both
//! sides carry out.

use iommu::{IovaRange, LockBudget, MapRequest, MmId, Prot};

use super::reference::Model;
use super::span::{Span, TOP};
use super::world::{GROUPS, MEMORY, VAST, walk};

/// A step, relative to the state it is taken in.
#[derive(Clone, Debug)]
pub(crate) enum Transition {
    Map { at: Place, len: Len, memory: Memory, prot: Prot, payer: Payer },
    Cut(Place),
    Unmap(Place, Len),
    UnmapAll,
    UnmapExact(Place, Len),
    UnmapDirty(Place, Len, Sink),
    Invalidate(Place, Len),
    InvalidateAll,
    Update { at: Place, len: Len, memory: Memory, payer: Payer },
    DirtyStart,
    DirtyStop,
    DirtyQuery(Place, Len, Sink),
    Attach { who: Who, limit: Limit, allow_unsafe: bool },
    Detach(Who),
    Bind(Who),
    Translate { who: Who, at: Place, access: Prot },
    Choose { pages: u64, align: u64 },
}

/// A step with its numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    Nothing,
    Map(MapRequest),
    Cut(u64),
    Unmap(IovaRange),
    UnmapAll,
    UnmapExact(IovaRange),
    UnmapDirty(IovaRange, Sink),
    Invalidate(IovaRange),
    Update { range: IovaRange, vaddr: u64, budget: LockBudget },
    DirtyStart,
    DirtyStop,
    DirtyQuery(IovaRange, Sink),
    Attach { group: u32, limit_pages: Option<u64>, allow_unsafe: bool },
    Detach(u32),
    Bind(u32),
    Translate { group: u32, iova: u64, access: Prot },
    Choose { size: u64, align: u64 },
}

/// A group.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Who {
    /// The n-th attached one.
    Attached(usize),
    Group(u32),
}

/// An address, from what is there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) base: Base,
    pub(crate) edge: Edge,
    pub(crate) pages: i8,
    pub(crate) bytes: i16,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Base {
    /// The n-th mapping, modulo their number.
    Mapping(usize),
    /// The n-th mapping whose user address is invalid, or else any.
    Invalid(usize),
    /// The n-th valid range.
    Valid(usize),
    /// The n-th region that any group reserves, attached or not.
    Reserved(usize),
    /// The n-th page of the space.
    Page(u16),
    /// The end of the space.
    Top,
    /// Anywhere.
    Raw(u64),
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Edge {
    First,
    Middle,
    /// The page of the last byte.
    LastPage,
    /// The first byte after.
    After,
}

/// A size, from where it starts.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Len {
    Pages(u16),
    /// So many pages and bytes more (or fewer): never aligned.
    Odd(u8, i16),
    /// As much as the base of the place has.
    Whole,
    /// Pages beyond what a dirty bitmap holds, or one fewer than that.
    Vast(bool),
    /// 2 MiB.
    Super,
}

/// Client memory to map.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory {
    /// The n-th part of it.
    pub(crate) part: usize,
    /// From its end instead of its beginning.
    pub(crate) from_end: bool,
    pub(crate) pages: u16,
    pub(crate) bytes: i16,
}

/// Who pays for locked pages.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Payer {
    pub(crate) mm: u32,
    pub(crate) limit: Limit,
}

/// A limit of locked pages.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Limit {
    /// `CAP_IPC_LOCK`.
    Unlimited,
    /// What the request needs, and so many pages more or fewer.
    Tight(i8),
}

/// Where a bitmap goes: words before `readable` can be read, before `writable` written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sink {
    pub(crate) readable: u64,
    pub(crate) writable: u64,
    pub(crate) seed: u64,
}

impl Sink {
    /// Words at the beginning of every bitmap.
    pub(crate) const WORDS: usize = 4096;

    /// What the client left in its memory: anything.
    pub(crate) fn memory(self) -> Vec<u64> {
        (0..Self::WORDS as u64).map(|i| self.seed.wrapping_mul(i | 1).rotate_left(17)).collect()
    }
}

impl Transition {
    /// The step in numbers.
    pub(crate) fn resolve(&self, model: &Model) -> Op {
        let page_aligned = |range: IovaRange| aligned(range, model.granule());
        match *self {
            Self::Map { at, len, memory, prot, payer } => {
                let range = at.range(len, model);
                let vaddr = memory.vaddr(len, model);
                let budget = payer.budget(vaddr, range, prot, model);
                Op::Map(MapRequest { range, vaddr, prot, budget })
            }
            Self::Cut(at) => Op::Cut(at.iova(model)),
            Self::Unmap(at, len) => Op::Unmap(at.range(len, model)),
            Self::UnmapAll => Op::UnmapAll,
            Self::UnmapExact(at, len) => Op::UnmapExact(at.range(len, model)),
            Self::UnmapDirty(at, len, sink) => {
                let range = page_aligned(at.range(len, model));
                Op::UnmapDirty(range, model.bounded(range, sink))
            }
            Self::Invalidate(at, len) => Op::Invalidate(at.range(len, model)),
            Self::InvalidateAll => Op::Invalidate(IovaRange::ALL),
            Self::Update { at, len, memory, payer } => {
                let range = at.range(len, model);
                let vaddr = memory.vaddr(len, model);
                let mm = MmId(payer.mm);
                let limit_pages = payer.limit.pages(mm, model.charge_at(range), model);
                Op::Update { range, vaddr, budget: LockBudget { mm, limit_pages } }
            }
            Self::DirtyStart => Op::DirtyStart,
            Self::DirtyStop => Op::DirtyStop,
            Self::DirtyQuery(at, len, sink) => {
                let range = page_aligned(at.range(len, model));
                Op::DirtyQuery(range, model.bounded(range, sink))
            }
            Self::Attach { who, limit, allow_unsafe } => {
                let group = who.number(model);
                let limit_pages = limit.pages(MmId(1), model.unpinned_charge(MmId(1)), model);
                Op::Attach { group, limit_pages, allow_unsafe }
            }
            Self::Detach(who) => Op::Detach(who.number(model)),
            Self::Bind(who) => Op::Bind(who.number(model)),
            Self::Translate { who, at, access } => {
                Op::Translate { group: who.number(model), iova: at.iova(model), access }
            }
            Self::Choose { pages, align } => Op::Choose { size: pages * model.page_size(), align },
        }
    }
}

impl Who {
    fn number(self, model: &Model) -> u32 {
        let attached: Vec<u32> = model.domains.iter().flat_map(|d| d.groups.clone()).collect();
        match self {
            Self::Attached(_) if attached.is_empty() => GROUPS[0],
            Self::Attached(n) => attached[n % attached.len()],
            Self::Group(number) => number,
        }
    }
}

impl Place {
    fn iova(self, model: &Model) -> u64 {
        let granule = u128::from(model.granule());
        let base = self.span(model);
        let at = match self.edge {
            Edge::First => base.first,
            Edge::Middle => base.first + base.size() / 2 / granule * granule,
            Edge::LastPage => (base.end - 1) / granule * granule,
            Edge::After => base.end,
        };
        let moved = at as i128 + i128::from(self.pages) * granule as i128 + i128::from(self.bytes);
        (moved.rem_euclid(TOP as i128)) as u64
    }

    /// The range of that length there, cut off at the end of the space.
    fn range(self, len: Len, model: &Model) -> IovaRange {
        let first = u128::from(self.iova(model));
        let size = match len {
            Len::Whole => self.span(model).size(),
            other => u128::from(other.bytes(model)),
        };
        Span::new(first, (first + size).min(TOP)).range()
    }

    fn span(self, model: &Model) -> Span {
        let granule = u128::from(model.granule());
        let page = |n: u16| {
            let first = u128::from(n) * granule;
            Span::new(first, first + granule)
        };
        let nth = |spans: Vec<Span>, n: usize| match spans.len() {
            0 => page(n as u16 % 64),
            len => spans[n % len],
        };
        match self.base {
            Base::Mapping(n) => nth(model.spans(), n),
            Base::Invalid(n) => {
                let invalid = model.maps.iter().filter(|m| m.invalid).map(|m| m.span);
                let invalid: Vec<Span> = invalid.collect();
                nth(if invalid.is_empty() { model.spans() } else { invalid }, n)
            }
            Base::Valid(n) => nth(model.valid.clone(), n),
            Base::Reserved(n) => nth(model.reserved_spans(), n),
            Base::Page(n) => page(n),
            Base::Top => Span::new(TOP - granule, TOP),
            Base::Raw(at) => Span::new(u128::from(at), u128::from(at) + 1),
        }
    }
}

impl Len {
    fn bytes(self, model: &Model) -> u64 {
        let granule = model.granule();
        match self {
            Self::Pages(n) => u64::from(n.max(1)) * granule,
            Self::Odd(pages, more) => {
                (u64::from(pages) + 8).wrapping_mul(granule).wrapping_add_signed(more.into())
            }
            Self::Whole => granule,
            Self::Vast(true) => granule << 31,
            Self::Vast(false) => (granule << 31) - granule,
            Self::Super => 0x20_0000,
        }
    }
}

impl Memory {
    /// Vast mappings have only one part of memory that they fit in.
    fn vaddr(self, len: Len, model: &Model) -> u64 {
        let n = if matches!(len, Len::Vast(_)) { VAST } else { self.part };
        let part = MEMORY[n % MEMORY.len()];
        let pages = u64::from(self.pages) * model.granule();
        let at = if self.from_end {
            part.last.wrapping_add(1).wrapping_sub(pages)
        } else {
            part.first.wrapping_add(pages)
        };
        at.wrapping_add_signed(self.bytes.into())
    }
}

impl Payer {
    fn budget(self, vaddr: u64, range: IovaRange, prot: Prot, model: &Model) -> LockBudget {
        let mm = MmId(self.mm);
        let wraps = u128::from(vaddr) + Span::of(range).size() > TOP;
        let needed = if wraps || range == IovaRange::ALL {
            0
        } else {
            let write = prot.contains(Prot::WRITE);
            walk(vaddr, range.size(), write, model.page_size()).charged_pages
        };
        LockBudget { mm, limit_pages: self.limit.pages(mm, u128::from(needed), model) }
    }
}

impl Limit {
    fn pages(self, mm: MmId, needed: u128, model: &Model) -> Option<u64> {
        match self {
            Self::Unlimited => None,
            Self::Tight(more) => {
                let fits = (model.locked(mm) + needed) as i128 + i128::from(more);
                Some(fits.max(0) as u64)
            }
        }
    }
}

/// The range, grown to whole pages.
fn aligned(range: IovaRange, granule: u64) -> IovaRange {
    let mask = granule - 1;
    IovaRange::new(range.first() & !mask, range.last() | mask).expect("a range grows")
}
