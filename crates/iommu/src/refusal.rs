//! Why the engine refuses. Values, not numbers: the caller maps them to errnos, people read them.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use thiserror::Error;

use crate::account::OverLimit;
use crate::{IovaRange, PinError, Prot, ReservedKind, ReservedRegion};

/// Which address of a request is not aligned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// The I/O virtual address.
    Iova,
    /// The user address.
    Vaddr,
    /// The size.
    Size,
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Iova => "iova",
            Self::Vaddr => "vaddr",
            Self::Size => "size",
        })
    }
}

/// Where a mapping of the refused size would be legal, on either side of where it was asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Nearest {
    /// Bytes that were to be mapped.
    pub size: u64,
    /// The next legal IOVA above.
    pub above: Option<u64>,
    /// The next legal IOVA below.
    pub below: Option<u64>,
}

impl fmt::Display for Nearest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let size = self.size;
        match (self.above, self.below) {
            (Some(a), Some(b)) => {
                write!(f, "; nearest legal IOVA for {size:#x} bytes: {a:#x} (or {b:#x} below)")
            }
            (Some(one), None) | (None, Some(one)) => {
                write!(f, "; nearest legal IOVA for {size:#x} bytes: {one:#x}")
            }
            (None, None) => write!(f, "; no legal IOVA for {size:#x} bytes is near"),
        }
    }
}

/// What makes an IOVA unusable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unusable {
    /// A reserved region is in the way.
    Reserved(ReservedRegion),
    /// It lies, at least partly, outside what the page tables of every attached IOMMU express.
    OutsideAperture(Option<IovaRange>),
    /// It crosses from one valid range into the next, which touch but are two.
    CrossesRanges,
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reserved(r) => write!(f, "{} is {} ({})", r.range, r.owner, r.kind),
            Self::OutsideAperture(Some(a)) => {
                write!(f, "the attached IOMMUs translate {a} only")
            }
            Self::OutsideAperture(None) => f.write_str("the attached IOMMUs translate nothing"),
            Self::CrossesRanges => f.write_str("it lies in two valid ranges that touch"),
        }
    }
}

/// Why a mapping was not made.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum MapRefusal {
    /// An address or the size is no multiple of the smallest IOMMU page.
    #[error("{field} {value:#x} is not a multiple of the IOMMU page size {granule:#x}")]
    Misaligned {
        /// Which one.
        field: Field,
        /// Its value.
        value: u64,
        /// The smallest page in bytes.
        granule: u64,
    },
    /// The user address range wraps.
    #[error("vaddr {vaddr:#x} plus {size:#x} bytes goes beyond 2^64")]
    VaddrWraps {
        /// Its start.
        vaddr: u64,
        /// Its size in bytes.
        size: u64,
    },
    /// The device could neither read nor write.
    #[error("a mapping needs READ or WRITE")]
    NoAccess,
    /// Something is mapped there already.
    #[error("{existing} is already mapped{nearest}")]
    Overlaps {
        /// The lowest mapping in the way.
        existing: IovaRange,
        /// Where it would go.
        nearest: Nearest,
    },
    /// An MSI window is there.
    #[error("{existing} is an MSI window{nearest}")]
    InWindow {
        /// The lowest window in the way.
        existing: IovaRange,
        /// Where the mapping would go.
        nearest: Nearest,
    },
    /// The container is full.
    #[error("the container already holds its limit of {limit} mappings (dma_entry_limit)")]
    NoEntriesLeft {
        /// Mappings allowed.
        limit: u32,
    },
    /// The range is not inside one valid range.
    #[error("{why}{nearest}")]
    NotUsable {
        /// What is in the way.
        why: Unusable,
        /// Where it would go.
        nearest: Nearest,
    },
    /// The memory cannot be pinned.
    #[error("cannot pin {:#x}: {}", .0.vaddr, .0.why)]
    Pin(PinError),
    /// The memory would be locked over the limit.
    #[error("{0}")]
    OverLimit(OverLimit),
    /// Dirty tracking is on and the mapping has more pages than a bitmap can (2^31-1).
    #[error("dirty tracking is on and {pages} pages exceed a bitmap's 2147483647")]
    TooManyPages {
        /// Pages of the mapping.
        pages: u64,
    },
}

impl fmt::Display for OverLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} pages are locked, {} more would exceed the limit of {} (RLIMIT_MEMLOCK)",
            self.locked_pages, self.wanted_pages, self.limit_pages
        )
    }
}

/// Why a mapping's user address was not changed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum VaddrRefusal {
    /// An address or the size is no multiple of the smallest IOMMU page.
    #[error("{field} {value:#x} is not a multiple of the IOMMU page size {granule:#x}")]
    Misaligned {
        /// Which one.
        field: Field,
        /// Its value.
        value: u64,
        /// The smallest page in bytes.
        granule: u64,
    },
    /// The user address range wraps.
    #[error("vaddr {vaddr:#x} plus {size:#x} bytes goes beyond 2^64")]
    VaddrWraps {
        /// Its start.
        vaddr: u64,
        /// Its size in bytes.
        size: u64,
    },
    /// Nothing is mapped there.
    #[error("nothing is mapped in {wanted}")]
    NothingMapped {
        /// What was asked for.
        wanted: IovaRange,
    },
    /// The request is not exactly one mapping.
    #[error("{wanted} is not exactly the mapping {existing}")]
    NotExact {
        /// What was asked for.
        wanted: IovaRange,
        /// The mapping found.
        existing: IovaRange,
    },
    /// The mapping's address is valid: there is nothing to update.
    #[error("the user address of {existing} was not invalidated")]
    StillValid {
        /// The mapping.
        existing: IovaRange,
    },
    /// The mapping's address is invalid already.
    #[error("the user address of {existing} is already invalid")]
    AlreadyInvalid {
        /// The mapping.
        existing: IovaRange,
    },
    /// The new owner may not lock that much.
    #[error("{0}")]
    OverLimit(OverLimit),
}

/// Why a group was not attached.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum AttachRefusal {
    /// The host has no such group, or its IOMMU is missing from the description.
    #[error("the host describes no IOMMU group {group}")]
    UnknownGroup {
        /// Its number.
        group: u32,
    },
    /// The group is attached already.
    #[error("group {group} is already attached")]
    AlreadyAttached {
        /// Its number.
        group: u32,
    },
    /// A mapping waits for its new user address.
    #[error("the user address of {mapping} is invalid; update it before attaching a group")]
    VaddrInvalid {
        /// The first such mapping.
        mapping: IovaRange,
    },
    /// The group's IOMMU cannot express what is mapped, or shares no address with the others.
    #[error("group {group} is behind an IOMMU that translates {aperture}{}", conflict(.mapping.as_ref()))]
    Aperture {
        /// Its number.
        group: u32,
        /// What its IOMMU translates.
        aperture: IovaRange,
        /// A mapping outside; `None` when no valid range is left.
        mapping: Option<IovaRange>,
    },
    /// A reserved region of the group is mapped.
    #[error("group {group} reserves {} ({}, {}), where {mapping} is mapped", .region.range, .region.owner, .region.kind)]
    Reserved {
        /// Its number.
        group: u32,
        /// The region.
        region: ReservedRegion,
        /// The mapping in it.
        mapping: IovaRange,
    },
    /// Nothing would be left to map.
    #[error("with the reserved regions of group {group} no valid IOVA would be left")]
    NothingValid {
        /// Its number.
        group: u32,
    },
    /// The group's interrupts are not isolated.
    #[error(
        "the interrupts of group {group} are not isolated from other devices' \
         (allow_unsafe_interrupts would accept it)"
    )]
    UnsafeInterrupts {
        /// Its number.
        group: u32,
    },
    /// The group's IOMMU has no page small enough for what is mapped.
    #[error(
        "group {group} is behind an IOMMU with pages of {granule:#x} bytes, and {mapping} is mapped"
    )]
    PageSize {
        /// Its number.
        group: u32,
        /// The smallest page of its IOMMU in bytes.
        granule: u64,
        /// The lowest mapping that is not made of such pages.
        mapping: IovaRange,
    },
    /// An MSI window of the container does not suit the group's IOMMU.
    #[error("the MSI window {window} does not suit group {group}: {why}")]
    Window {
        /// Its number.
        group: u32,
        /// The window.
        window: IovaRange,
        /// What is wrong.
        why: WindowMisfit,
    },
    /// A device must keep an identity mapping that a user's domain cannot give it.
    #[error("a device of group {group} needs {} mapped to itself ({})", .region.range, .region.owner)]
    NeedsDirect {
        /// Its number.
        group: u32,
        /// The region, of kind [`ReservedKind::Direct`].
        region: ReservedRegion,
    },
    /// Memory mapped before there was an IOMMU cannot be pinned now.
    #[error("{mapping}: cannot pin {:#x}: {}", .error.vaddr, .error.why)]
    Pin {
        /// The mapping.
        mapping: IovaRange,
        /// What is wrong.
        error: PinError,
    },
    /// Memory mapped before there was an IOMMU would be locked over the limit.
    #[error("{mapping}: {error}")]
    OverLimit {
        /// The mapping.
        mapping: IovaRange,
        /// The limit.
        error: OverLimit,
    },
}

/// What keeps a group from taking a window that exists already.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum WindowMisfit {
    /// Its IOMMU does not translate all of it.
    #[error("its IOMMU translates {0}")]
    Aperture(IovaRange),
    /// A region that the group reserves is in it.
    #[error("{} is {} ({})", .0.range, .0.owner, .0.kind)]
    Reserved(ReservedRegion),
    /// Its IOMMU has larger pages.
    #[error("its IOMMU has pages of {granule:#x} bytes")]
    PageSize {
        /// The smallest page in bytes.
        granule: u64,
    },
    /// Its IOMMU cannot give exactly the window's permission.
    #[error("its IOMMU cannot express {0} memory")]
    Permission(Prot),
    /// Its IOMMU allows fewer windows.
    #[error("its IOMMU allows {limit} window(s)")]
    TooMany {
        /// Windows allowed.
        limit: u32,
    },
}

fn conflict(mapping: Option<&IovaRange>) -> String {
    match mapping {
        Some(m) => alloc::format!(", and {m} is mapped"),
        None => String::from(", of which nothing is valid here"),
    }
}

/// Why a doorbell was not bound.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum BindRefusal {
    /// The group is in no domain.
    #[error("group {group} is attached to no domain")]
    NotAttached {
        /// Its number.
        group: u32,
    },
    /// Every page of the driver's window has a doorbell. (Linux has no such check: it would go on
    /// beyond its window, into addresses that belong to the client.)
    #[error("all {pages} pages of the MSI window {window} have doorbells")]
    WindowFull {
        /// The window.
        window: IovaRange,
        /// Its size in pages.
        pages: u64,
    },
    /// No window was registered.
    #[error(
        "the IOMMU of group {group} translates MSIs and no MSI window is registered; {needed} \
         page(s) are needed for the attached devices"
    )]
    NoWindow {
        /// The group.
        group: u32,
        /// Doorbell pages that its domain's devices need.
        needed: u32,
    },
    /// Windows were registered, none of them writable.
    #[error("no MSI window is writable, and a doorbell is written; {needed} page(s) are needed")]
    NoWritableWindow {
        /// Doorbell pages that the domain's devices need.
        needed: u32,
    },
    /// Every page of the registered windows has a doorbell.
    #[error(
        "all {pages} page(s) of the registered MSI windows have doorbells; the attached devices \
         need {needed}"
    )]
    WindowsFull {
        /// Pages of all writable windows.
        pages: u64,
        /// Doorbell pages that the domain's devices need.
        needed: u32,
    },
}

/// Why an MSI window was not registered, or not removed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum WindowRefusal {
    /// No attached IOMMU lets users choose where doorbells go.
    #[error("no attached IOMMU takes MSI windows")]
    NotTaken,
    /// The window would be neither readable nor writable.
    #[error("a window needs READ or WRITE")]
    NoAccess,
    /// An address or the size is no multiple of the smallest IOMMU page.
    #[error("{field} {value:#x} is not a multiple of the IOMMU page size {granule:#x}")]
    Misaligned {
        /// Which one.
        field: Field,
        /// Its value.
        value: u64,
        /// The smallest page in bytes.
        granule: u64,
    },
    /// A mapping is there.
    #[error("{existing} is already mapped{nearest}")]
    Mapped {
        /// The lowest mapping in the way.
        existing: IovaRange,
        /// Where the window would go.
        nearest: Nearest,
    },
    /// A window is there.
    #[error("{existing} is already an MSI window{nearest}")]
    Window {
        /// The lowest window in the way.
        existing: IovaRange,
        /// Where the window would go.
        nearest: Nearest,
    },
    /// The container has as many windows as the host allows.
    #[error("the container already has its {limit} MSI window(s)")]
    NoneLeft {
        /// Windows allowed.
        limit: u32,
    },
    /// The range is not inside one valid range.
    #[error("{why}{nearest}")]
    NotUsable {
        /// What is in the way.
        why: Unusable,
        /// Where the window would go.
        nearest: Nearest,
    },
    /// An IOMMU cannot give exactly that permission.
    #[error("an attached IOMMU cannot express {prot} memory")]
    Permission {
        /// What was asked for.
        prot: Prot,
    },
    /// The range to remove is part of a window, or several windows.
    #[error("{wanted} is not exactly the MSI window {existing}")]
    NotExact {
        /// What was asked for.
        wanted: IovaRange,
        /// The lowest window it touches.
        existing: IovaRange,
    },
    /// Interrupts are enabled through the window.
    #[error("{pages} doorbell page(s) are bound in the MSI window {window}")]
    Busy {
        /// The window.
        window: IovaRange,
        /// Pages bound, over all domains the largest.
        pages: u64,
    },
}

/// Why a dirty query failed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum DirtyRefusal {
    /// Tracking is off.
    #[error("dirty tracking is off")]
    Off,
    /// The range cuts a mapping.
    #[error("{wanted} cuts the mapping {existing}")]
    Cuts {
        /// What was asked for.
        wanted: IovaRange,
        /// The mapping cut.
        existing: IovaRange,
    },
    /// A mapping has more pages than a bitmap can (2^31-1).
    #[error("{mapping} has {pages} pages; a bitmap can hold 2147483647")]
    TooManyPages {
        /// The mapping.
        mapping: IovaRange,
        /// Its pages.
        pages: u64,
    },
    /// The bitmap's memory cannot be read or written.
    #[error("the bitmap is not accessible")]
    Bitmap,
}

/// Regions of a list whose kind mappings must keep out of.
pub(crate) fn excluding(regions: &[ReservedRegion]) -> impl Iterator<Item = &ReservedRegion> {
    regions.iter().filter(|r| r.kind.excludes_mappings())
}

/// The regions in the way of `wanted`, most telling first: hardware and MSI ranges by address.
pub(crate) fn in_the_way<'a>(
    regions: impl Iterator<Item = &'a ReservedRegion>,
    wanted: IovaRange,
) -> Option<ReservedRegion> {
    let mut found: Vec<&ReservedRegion> = regions
        .filter(|r| r.kind != ReservedKind::DirectRelaxable && r.range.overlaps(wanted))
        .collect();
    found.sort_by_key(|r| r.range);
    found.first().map(|r| (*r).clone())
}
