//! Which requests a container would refuse, and every reason there is.
//!
//! The order of the reasons is the engine's (kernel-semantics 2.2): the first decides the errno.
//! Nothing here asks the engine; a property test compares the two, request by request.

use std::collections::BTreeMap;

use iommu::{IovaRange, ReservedKind};

use crate::layout::{Item, Kind, bytes};
use crate::size::Bytes;
use crate::view::View;

/// What is in the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// Windows cannot be registered here.
    Policy,
    /// An address or the size is no multiple of the page.
    Alignment,
    /// Another item is there.
    Item,
    /// An MSI window is there.
    Window,
    /// The container is full.
    Entries,
    /// A reserved region.
    Reserved,
    /// No IOMMU reaches there.
    Aperture,
    /// `RLIMIT_MEMLOCK`.
    Memlock,
}

impl What {
    /// The word in JSON.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Policy => "policy",
            Self::Alignment => "alignment",
            Self::Item => "item",
            Self::Window => "window",
            Self::Entries => "entries",
            Self::Reserved => "reserved",
            Self::Aperture => "aperture",
            Self::Memlock => "memlock",
        }
    }

    /// What the kernel answers when this is the first reason.
    #[must_use]
    pub const fn errno(self) -> &'static str {
        match self {
            Self::Policy | Self::Alignment | Self::Reserved | Self::Aperture => "EINVAL",
            Self::Item | Self::Window => "EEXIST",
            Self::Entries => "ENOSPC",
            Self::Memlock => "ENOMEM",
        }
    }
}

/// One reason why an item cannot be mapped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The part of the item that it is about.
    pub range: IovaRange,
    /// What is in the way.
    pub what: What,
    /// The kind of a reserved region.
    pub kind: Option<ReservedKind>,
    /// Who says so; empty where nobody does.
    pub owner: String,
    /// The groups whose region it is.
    pub groups: Vec<u32>,
    /// A sentence.
    pub why: String,
}

/// One request, and what becomes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Map {
    /// What is to be mapped.
    pub kind: Kind,
    /// Its name and range.
    pub item: Item,
    /// Every reason against it, the deciding one first; none: it is made.
    pub conflicts: Vec<Conflict>,
}

impl Map {
    /// Whether it is made.
    #[must_use]
    pub fn is_legal(&self) -> bool {
        self.conflicts.is_empty()
    }
}

/// What limits a container besides addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Mappings (`dma_entry_limit`).
    pub entries: u32,
    /// Pages that may be locked; `None`: no limit counts.
    pub lock_pages: Option<u64>,
    /// Pages that other containers of the process have locked.
    pub locked_pages: u64,
    /// Bytes of a CPU page.
    pub page_size: u64,
}

/// Goes through the requests in order, as a container would.
#[must_use]
pub fn check<'a>(
    view: &View,
    bounds: &Bounds,
    requests: impl Iterator<Item = (Kind, &'a Item)>,
) -> Vec<Map> {
    let mut state = State { locked_pages: bounds.locked_pages, ..State::default() };
    let mut maps = Vec::new();
    for (kind, item) in requests {
        let conflicts = state.conflicts(view, bounds, kind, item.range);
        if conflicts.is_empty() {
            state.add(bounds, kind, item);
        }
        maps.push(Map { kind, item: item.clone(), conflicts });
    }
    maps
}

/// What a container holds.
#[derive(Default)]
struct State {
    /// First address to last address and name.
    mapped: BTreeMap<u64, (u64, String)>,
    windows: BTreeMap<u64, (u64, String)>,
    locked_pages: u64,
}

impl State {
    fn add(&mut self, bounds: &Bounds, kind: Kind, item: &Item) {
        let list = if kind == Kind::Window { &mut self.windows } else { &mut self.mapped };
        list.insert(item.range.first(), (item.range.last(), item.name.clone()));
        self.locked_pages = self.locked_pages.saturating_add(lock_pages(bounds, kind, item.range));
    }

    fn conflicts(
        &self,
        view: &View,
        bounds: &Bounds,
        kind: Kind,
        range: IovaRange,
    ) -> Vec<Conflict> {
        let mut found = Vec::new();
        let mut add = |range, what, why: String| {
            let (owner, groups) = (String::new(), Vec::new());
            found.push(Conflict { range, what, kind: None, owner, groups, why });
        };
        if kind == Kind::Window && view.max_windows.is_none() {
            let why = "MSI windows cannot be registered on this host: its policy is not `user`";
            add(range, What::Policy, why.into());
        }
        let page = view.granule;
        for (name, value) in [("size", range.size()), ("address", range.first())] {
            if value & (page - 1) != 0 {
                let why =
                    format!("its {name} {value:#x} is not a multiple of the IOMMU page {page:#x}");
                add(range, What::Alignment, why);
            }
        }
        for (common, name) in overlaps(&self.mapped, range) {
            add(common, What::Item, format!("{name} is mapped there"));
        }
        for (common, name) in overlaps(&self.windows, range) {
            add(common, What::Window, format!("the MSI window {name} is there"));
        }
        match (kind, view.max_windows) {
            (Kind::Window, Some(limit)) if self.windows.len() >= limit as usize => {
                add(range, What::Entries, format!("a container may have {limit} windows"));
            }
            (Kind::Ram | Kind::Bar, _) if self.mapped.len() >= bounds.entries as usize => {
                let limit = bounds.entries;
                let why =
                    format!("the container holds its limit of {limit} mappings (dma_entry_limit)");
                add(range, What::Entries, why);
            }
            _ => {}
        }
        found.extend(unusable(view, range));
        let (pages, locked) = (lock_pages(bounds, kind, range), self.locked_pages);
        if let Some(limit) = bounds.lock_pages
            && pages != 0
            && locked.saturating_add(pages) > limit
        {
            let of = |pages: u64| Bytes(u128::from(pages) * u128::from(bounds.page_size));
            found.push(Conflict {
                range,
                what: What::Memlock,
                kind: None,
                owner: "RLIMIT_MEMLOCK".into(),
                groups: Vec::new(),
                why: format!(
                    "{} are locked, {} more exceed the limit of {} (RLIMIT_MEMLOCK)",
                    of(locked),
                    of(pages),
                    of(limit)
                ),
            });
        }
        found
    }
}

/// Pages that mapping an item locks. Device memory is not charged.
fn lock_pages(bounds: &Bounds, kind: Kind, range: IovaRange) -> u64 {
    match kind {
        Kind::Ram => u64::try_from(bytes(range) / u128::from(bounds.page_size)).unwrap_or(u64::MAX),
        Kind::Bar | Kind::Window => 0,
    }
}

/// The entries of a list that share bytes with a range: which bytes, and whose.
fn overlaps(list: &BTreeMap<u64, (u64, String)>, range: IovaRange) -> Vec<(IovaRange, &str)> {
    let below = list.range(..range.first()).next_back();
    let near = below.into_iter().chain(list.range(range.first()..=range.last()));
    near.filter_map(|(first, (last, name))| {
        let common = IovaRange::new(*first, *last)?.intersection(range)?;
        Some((common, name.as_str()))
    })
    .collect()
}

/// The reserved regions in a range, and the parts of it that no IOMMU reaches.
fn unusable(view: &View, range: IovaRange) -> Vec<Conflict> {
    let mut found = Vec::new();
    for obstacle in view.obstacles.iter().filter(|o| o.kind.excludes_mappings()) {
        let Some(common) = range.intersection(obstacle.range) else { continue };
        found.push(Conflict {
            range: common,
            what: What::Reserved,
            kind: Some(obstacle.kind),
            owner: obstacle.owner.clone(),
            groups: obstacle.groups.clone(),
            why: format!("{} is {} ({})", obstacle.range, obstacle.owner, obstacle.kind),
        });
    }
    let parts = match view.aperture {
        None => vec![range],
        Some(aperture) => {
            let (below, above) = range.without(aperture);
            let outside = !range.overlaps(aperture);
            if outside { vec![range] } else { [below, above].into_iter().flatten().collect() }
        }
    };
    for part in parts {
        let why = match view.aperture {
            None => "the IOMMUs have no address in common".to_owned(),
            Some(aperture) => {
                format!("{part} is outside the aperture: the IOMMUs translate {aperture} only")
            }
        };
        found.push(Conflict {
            range: part,
            what: What::Aperture,
            kind: None,
            owner: "the aperture of the IOMMU".into(),
            groups: view.groups.clone(),
            why,
        });
    }
    found
}
