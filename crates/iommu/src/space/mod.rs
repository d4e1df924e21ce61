//! An address space: what every IOVA of a container means.
//!
//! The table of mappings is the truth. Domains share it: a mapping holds for every attached group,
//! and differs between them only in what their IOMMU can express. `&mut self` changes, `&self`
//! translates; nothing here locks, sleeps or prints.

mod attach;
mod choose;
mod dirty;
mod map;
mod msi;
mod near;
#[cfg(test)]
mod tests;
mod translate;
mod unmap;
mod vaddr;
mod window;

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

pub use attach::needs_direct;
pub use dirty::BitmapSink;
pub use map::MapRequest;
pub use msi::Doorbell;
pub use translate::Translation;

use crate::cache::TranslationCache;
use crate::event::Observer;
use crate::table::MappingTable;
use crate::valid::ValidRanges;
use crate::{
    Dialect, Domain, IovaRange, LockedMemory, MmId, PageSizes, PinId, Pinner, Prot, ReservedRegion,
    Window,
};
use dirty::DirtyBits;

/// What a change needs of its surroundings, besides the address space itself.
pub struct Env<'a> {
    /// Pins and unpins client memory.
    pub pinner: &'a mut dyn Pinner,
    /// Locked pages of every address space.
    pub locked: &'a mut LockedMemory,
    /// Is told what changed.
    pub observer: &'a mut dyn Observer,
}

/// A mapping's value; its range is its key in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    vaddr: u64,
    pin: PinId,
    /// Pages charged to `mm` for this mapping alone.
    charged_pages: u64,
    mm: MmId,
    prot: Prot,
    state: State,
}

// Two in a cache line: see `table::leaf`.
const _: () = assert!(size_of::<Mapping>() == 32);

bitflags::bitflags! {
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    struct State: u8 {
        /// Memory is pinned behind it.
        const PINNED = 1;
        /// The user address waits for its update.
        const VADDR_INVALID = 2;
        /// `CAP_IPC_LOCK` at map time: no limit binds, also not later.
        const MAY_LOCK = 4;
        /// The pin is shared with the other half of a cut.
        const SHARED_PIN = 8;
    }
}

impl Mapping {
    /// The client's address of the first byte.
    #[must_use]
    pub const fn vaddr(&self) -> u64 {
        self.vaddr
    }

    /// Whose address that is.
    #[must_use]
    pub const fn mm(&self) -> MmId {
        self.mm
    }

    /// What devices may do.
    #[must_use]
    pub const fn prot(&self) -> Prot {
        self.prot
    }

    /// Whether memory is pinned behind it.
    #[must_use]
    pub const fn is_pinned(&self) -> bool {
        self.state.contains(State::PINNED)
    }

    /// Whether its user address was declared invalid and not yet replaced.
    #[must_use]
    pub const fn vaddr_is_invalid(&self) -> bool {
        self.state.contains(State::VADDR_INVALID)
    }
}

/// A pin that several mappings share since a cut.
#[derive(Clone, Copy, Debug)]
struct SharedPin {
    mappings: u32,
    /// Where the mapping that was cut began.
    first: u64,
    charged_pages: u64,
    /// Who paid, whatever became of the mappings' user addresses.
    mm: MmId,
}

/// What every IOVA of a container means.
pub struct AddressSpace {
    page_size: u64,
    dirty_bits_stray: bool,
    max_mappings: u32,
    table: MappingTable<Mapping>,
    cache: TranslationCache,
    domains: Vec<Domain>,
    /// What apertures and reserved regions leave; windows lie in it. Empty without a domain.
    valid: ValidRanges,
    windows: BTreeMap<u64, Window>,
    page_sizes: PageSizes,
    invalid_vaddrs: u32,
    shared_pins: BTreeMap<PinId, SharedPin>,
    dirty: Option<BTreeMap<u64, DirtyBits>>,
}

impl AddressSpace {
    /// An empty address space for CPU pages of `page_size` bytes (a power of two) and at most
    /// `max_mappings` mappings.
    #[must_use]
    pub fn new(page_size: u64, max_mappings: u32, dialect: &Dialect) -> Self {
        Self {
            page_size,
            dirty_bits_stray: dialect.dirty_bits_stray,
            max_mappings,
            table: MappingTable::new(),
            cache: TranslationCache::default(),
            domains: Vec::new(),
            valid: ValidRanges::default(),
            windows: BTreeMap::new(),
            page_sizes: PageSizes::ALL.for_cpu_pages(page_size),
            invalid_vaddrs: 0,
            shared_pins: BTreeMap::new(),
            dirty: None,
        }
    }

    /// The page sizes mappings may count on (`iova_pgsizes`): those that every domain has.
    #[must_use]
    pub const fn page_sizes(&self) -> PageSizes {
        self.page_sizes
    }

    /// The addresses mappings may use: windows are cut out. Empty without a domain, where nothing
    /// limits them.
    #[must_use]
    pub fn valid_ranges(&self) -> Vec<IovaRange> {
        let mut valid = self.valid.clone();
        self.windows.values().for_each(|w| valid.subtract(w.range));
        valid.as_slice().to_vec()
    }

    /// Mappings that may still be made (`DMA_AVAIL`).
    #[must_use]
    pub fn available(&self) -> u32 {
        self.max_mappings.saturating_sub(u32::try_from(self.table.len()).unwrap_or(u32::MAX))
    }

    /// Whether no further mapping may be made.
    fn is_full(&self) -> bool {
        let len = self.table.len();
        if planted!(OneMappingTooMany) {
            return len > self.max_mappings as usize;
        }
        len >= self.max_mappings as usize
    }

    /// The number of mappings.
    #[must_use]
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether nothing is mapped.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// The mappings, by ascending IOVA.
    pub fn mappings(&self) -> impl Iterator<Item = (IovaRange, &Mapping)> {
        self.table.iter()
    }

    /// The mapping that holds `iova`.
    #[must_use]
    #[inline]
    pub fn mapping_at(&self, iova: u64) -> Option<(IovaRange, &Mapping)> {
        self.table.get(iova)
    }

    /// The domains, oldest first.
    #[must_use]
    pub fn domains(&self) -> &[Domain] {
        &self.domains
    }

    /// Whether every domain enforces cache coherency; true without a domain.
    #[must_use]
    pub fn is_coherent(&self) -> bool {
        self.domains.iter().all(Domain::coherent)
    }

    /// The attached groups' reserved regions, with the group's number.
    pub fn reserved(&self) -> impl Iterator<Item = (u32, &ReservedRegion)> {
        let members = self.domains.iter().flat_map(Domain::members);
        members.flat_map(|m| m.reserved.iter().map(move |r| (m.group, r)))
    }

    /// Bytes of memory that the table of mappings and the translation cache take.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.table.bytes().saturating_add(self.cache.bytes())
    }
}
