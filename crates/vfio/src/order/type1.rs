//! Checks of a container's requests once it has an IOMMU: maps, unmaps, dirty pages, information.

use alloc::vec;
use alloc::vec::Vec;

use iommu::{Dialect, DirtyRefusal, MapRefusal, VaddrRefusal};
use uapi::Errno;
use uapi::type1::UnmapFlags;

use super::container::HAS_IOMMU;
use super::{FLAGS, READABLE, Rule, WRITABLE, rule};
use crate::{Refusal, Version};

pub(super) const SIZE: Rule = rule!("size is not 0", EINVAL, Refusal::Empty);
pub(super) const IOVA_ALIGNED: Rule = rule!(
    "iova is a multiple of the IOMMU's smallest page",
    EINVAL,
    Refusal::Misaligned { what: "iova", .. }
);
pub(super) const SIZE_ALIGNED: Rule =
    rule!("size is a multiple of it too", EINVAL, Refusal::Misaligned { what: "size", .. });
pub(super) const ALL_ALONE: Rule =
    rule!("ALL has iova 0 and size 0", EINVAL, Refusal::AllWithRange);
const BITMAP_READABLE: Rule =
    rule!("the bitmap's description can be read", EFAULT, Refusal::BadTail);
const BITMAP_ADDRESS: Rule =
    rule!("the bitmap is in user memory", EINVAL, Refusal::BitmapAddress(_));
const BITMAP_SIZE: Rule = rule!(
    "the bitmap has a bit for each page (64 pages are 8 bytes), and 256 MiB at most",
    EINVAL,
    Refusal::BitmapSize { .. }
);
const BITMAP_PAGES: Rule =
    rule!("the bitmap's page size is the IOMMU's smallest", EINVAL, Refusal::BitmapPageSize { .. });
const TRACKED: Rule =
    rule!("dirty pages are tracked (START)", EINVAL, Refusal::Dirty(DirtyRefusal::Off));
const BITMAP_WRITABLE: Rule =
    rule!("the bitmap can be written", EFAULT, Refusal::Dirty(DirtyRefusal::Bitmap));

pub(super) const MAP_ARGSZ: Rule =
    rule!("argsz is at least 32", EINVAL, Refusal::ArgszTooSmall { .. });
pub(super) const UNMAP_ARGSZ: Rule =
    rule!("argsz is at least 24", EINVAL, Refusal::ArgszTooSmall { min: 24, .. });

/// `iova` and `size` of a range that ends below 2^64.
pub(super) fn range_wraps(dialect: &Dialect) -> Rule {
    let rule = rule!("iova plus size stays below 2^64", EINVAL, Refusal::Wraps { .. });
    rule.answering(wrap(dialect))
}

pub(super) fn wrap(dialect: &Dialect) -> Errno {
    if dialect.wrap_is_eoverflow { Errno::EOVERFLOW } else { Errno::EINVAL }
}

/// What a `MAP_DMA` is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Map {
    /// A mapping.
    New,
    /// A mapping, where MSI windows can be in its way.
    NewBesideWindows,
    /// A mapping's user address.
    Update,
}

/// The checks of `MAP_DMA` in their order.
#[must_use]
pub fn map(dialect: &Dialect, what: Map) -> Vec<Rule> {
    let wraps = rule!("iova and vaddr plus size stay below 2^64", EINVAL, Refusal::Wraps { .. })
        .answering(wrap(dialect));
    let mix = rule!("READ or WRITE, or VADDR alone", EINVAL, Refusal::FlagMix(_));
    let mut rules = vec![HAS_IOMMU, READABLE, MAP_ARGSZ, FLAGS, SIZE];
    rules.extend(if dialect.wrap_is_eoverflow { [wraps, mix] } else { [mix, wraps] });
    rules.push(rule!(
        "iova, vaddr and size are multiples of the IOMMU's smallest page",
        EINVAL,
        Refusal::Map(MapRefusal::Misaligned { .. })
            | Refusal::Vaddr(VaddrRefusal::Misaligned { .. })
    ));
    if what == Map::Update {
        rules.extend(update_rules());
        return rules;
    }
    let free = rule!("nothing is mapped there", EEXIST, Refusal::Map(MapRefusal::Overlaps { .. }));
    rules.push(free);
    if what == Map::NewBesideWindows {
        rules.push(rule!(
            "no MSI window is there",
            EEXIST,
            Refusal::Map(MapRefusal::InWindow { .. })
        ));
    }
    rules.extend(new_rules());
    rules
}

/// What else is checked of a new mapping.
fn new_rules() -> Vec<Rule> {
    vec![
        rule!(
            "the container may hold another mapping (dma_entry_limit)",
            ENOSPC,
            Refusal::Map(MapRefusal::NoEntriesLeft { .. })
        ),
        rule!(
            "it lies within one valid range: inside every aperture, on nothing reserved",
            EINVAL,
            Refusal::Map(MapRefusal::NotUsable { .. })
        ),
        rule!("the memory can be pinned", EFAULT, Refusal::Map(MapRefusal::Pin(_))),
        rule!(
            "that many pages may be locked (RLIMIT_MEMLOCK)",
            ENOMEM,
            Refusal::Map(MapRefusal::OverLimit(_))
        ),
        rule!(
            "while dirty pages are tracked: it has less than 2^31 pages",
            EINVAL,
            Refusal::Map(MapRefusal::TooManyPages { .. })
        ),
    ]
}

/// What else is checked of a new user address.
fn update_rules() -> Vec<Rule> {
    vec![
        rule!(
            "something is mapped there",
            ENOENT,
            Refusal::Vaddr(VaddrRefusal::NothingMapped { .. })
        ),
        rule!(
            "its address was invalidated (UNMAP_DMA with VADDR)",
            EINVAL,
            Refusal::Vaddr(VaddrRefusal::StillValid { .. })
        ),
        rule!(
            "iova and size are exactly the mapping's",
            EINVAL,
            Refusal::Vaddr(VaddrRefusal::NotExact { .. })
        ),
        rule!(
            "the caller, if another process, may lock the pages",
            ENOMEM,
            Refusal::Vaddr(VaddrRefusal::OverLimit(_))
        ),
    ]
}

/// The checks of `UNMAP_DMA` in their order, by the flags that the request has.
#[must_use]
pub fn unmap(dialect: &Dialect, version: Version, flags: UnmapFlags) -> Vec<Rule> {
    let bitmap = flags.contains(UnmapFlags::GET_DIRTY_BITMAP);
    let mut rules = vec![
        HAS_IOMMU,
        READABLE,
        UNMAP_ARGSZ,
        FLAGS,
        rule!("GET_DIRTY_BITMAP goes with neither ALL nor VADDR", EINVAL, Refusal::FlagMix(_)),
    ];
    if bitmap {
        rules.extend([
            rule!(
                "argsz is at least 48, with the bitmap's description",
                EINVAL,
                Refusal::ArgszTooSmall { min: 48, .. }
            ),
            BITMAP_READABLE,
            BITMAP_ADDRESS,
            BITMAP_SIZE,
        ]);
    }
    rules.extend(unmap_range(dialect, flags));
    if bitmap {
        rules.extend([TRACKED, BITMAP_PAGES]);
    }
    if version == Version::V2 && !flags.contains(UnmapFlags::ALL) {
        rules.push(rule!("it cuts no mapping (type1v2)", EINVAL, Refusal::Cuts { .. }));
    }
    if flags.contains(UnmapFlags::VADDR) {
        rules.push(rule!(
            "no address in it is invalid already",
            EINVAL,
            Refusal::Vaddr(VaddrRefusal::AlreadyInvalid { .. })
        ));
    }
    if bitmap {
        rules.push(BITMAP_WRITABLE);
    }
    rules.push(WRITABLE);
    rules
}

/// What is checked of the range of an unmap.
pub(super) fn unmap_range(dialect: &Dialect, flags: UnmapFlags) -> Vec<Rule> {
    if flags.contains(UnmapFlags::ALL) {
        return vec![IOVA_ALIGNED, ALL_ALONE];
    }
    vec![IOVA_ALIGNED, SIZE, SIZE_ALIGNED, range_wraps(dialect)]
}

/// What a `DIRTY_PAGES` asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dirty {
    /// To start tracking.
    Start,
    /// To stop.
    Stop,
    /// Which pages are dirty.
    GetBitmap,
}

/// The checks of `DIRTY_PAGES` in their order.
#[must_use]
pub fn dirty_pages(dialect: &Dialect, what: Dirty) -> Vec<Rule> {
    let mut rules = vec![
        HAS_IOMMU,
        rule!("the container is a type1v2 one", EACCES, Refusal::DirtyNeedsV2),
        READABLE,
        rule!("argsz is at least 8", EINVAL, Refusal::ArgszTooSmall { min: 8, .. }),
        FLAGS,
        rule!("exactly one of START, STOP and GET_BITMAP", EINVAL, Refusal::FlagMix(_)),
    ];
    match what {
        Dirty::Start => rules.push(rule!(
            "no mapping has 2^31 pages or more",
            EINVAL,
            Refusal::Dirty(DirtyRefusal::TooManyPages { .. })
        )),
        Dirty::Stop => {}
        Dirty::GetBitmap => rules.extend([
            rule!(
                "argsz is at least 48, with range and bitmap",
                EINVAL,
                Refusal::ArgszTooSmall { min: 48, .. }
            ),
            BITMAP_READABLE,
            SIZE,
            range_wraps(dialect),
            BITMAP_ADDRESS,
            BITMAP_SIZE,
            BITMAP_PAGES,
            IOVA_ALIGNED,
            SIZE_ALIGNED,
            TRACKED,
            rule!("it cuts no mapping", EINVAL, Refusal::Dirty(DirtyRefusal::Cuts { .. })),
            BITMAP_WRITABLE,
        ]),
    }
    rules
}

/// The checks of `GET_INFO` of a container in their order.
#[must_use]
pub fn get_info() -> Vec<Rule> {
    let argsz = rule!("argsz is at least 16", EINVAL, Refusal::ArgszTooSmall { .. });
    vec![HAS_IOMMU, READABLE, argsz, WRITABLE]
}
