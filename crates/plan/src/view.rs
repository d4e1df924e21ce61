//! What a container with some groups of a host may map, and who takes the rest.
//!
//! Computed from the description alone: the intersection of the apertures, minus every reserved
//! region but the relaxable ones. A test holds it against the engine, which gets there by another
//! way (attach by attach, kernel-semantics 4.1).

use std::collections::BTreeSet;

use iommu::space::needs_direct;
use iommu::{Group, Host, IovaRange, MsiPolicy, PageSizes, ReservedKind};

/// A reserved region, and every group that has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Obstacle {
    /// The range.
    pub range: IovaRange,
    /// Its kind.
    pub kind: ReservedKind,
    /// Who reserved it and why.
    pub owner: String,
    /// Whose it is.
    pub groups: Vec<u32>,
}

/// What a container may map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    /// The groups in it, ascending.
    pub groups: Vec<u32>,
    /// The groups that VFIO would not give to a user, and why.
    pub refused: Vec<(u32, String)>,
    /// What may be mapped: ascending and disjoint.
    pub valid: Vec<IovaRange>,
    /// The addresses that the IOMMUs of all groups express; `None`: they have none in common.
    pub aperture: Option<IovaRange>,
    /// The IOMMUs (indices) in use.
    pub iommus: Vec<usize>,
    /// Reserved regions, ascending.
    pub obstacles: Vec<Obstacle>,
    /// Page sizes that mappings may count on.
    pub page_sizes: PageSizes,
    /// The smallest of them.
    pub granule: u64,
    /// Windows that users may register; `None` where they may not.
    pub max_windows: Option<u32>,
    /// Doorbell pages that windows must hold.
    pub doorbell_pages: u32,
}

impl View {
    /// The view of a container with the groups of these numbers, or with every group that VFIO
    /// gives to a user. Numbers that the host has not are ignored.
    #[must_use]
    pub fn of(host: &Host, wanted: Option<&[u32]>) -> Self {
        let mut refused = Vec::new();
        let mut members: Vec<&Group> = Vec::new();
        for group in &host.groups {
            if wanted.is_some_and(|w| !w.contains(&group.number)) {
                continue;
            }
            match refusal(host, group) {
                Some(why) => refused.push((group.number, why)),
                None => members.push(group),
            }
        }
        members.sort_by_key(|g| g.number);
        let iommus: BTreeSet<usize> = members.iter().map(|g| g.iommu).collect();
        let of = || iommus.iter().filter_map(|i| host.iommus.get(*i));
        let aperture = of().map(|i| Some(i.aperture)).reduce(|a, b| a?.intersection(b?)).flatten();
        let obstacles = obstacles(&members);
        let mut valid: Vec<IovaRange> = aperture.into_iter().collect();
        for obstacle in obstacles.iter().filter(|o| o.kind.excludes_mappings()) {
            valid = subtract(&valid, obstacle.range);
        }
        let mut sizes = of().fold(PageSizes::ALL, |all, i| all.and(i.page_sizes));
        if sizes == PageSizes(0) {
            sizes = PageSizes(of().map(|i| i.page_sizes.smallest()).max().unwrap_or(0));
        }
        let page_sizes = sizes.for_cpu_pages(host.page_size);
        let user =
            |g: &&&Group| host.iommu_of(g).is_some_and(|i| matches!(i.msi, MsiPolicy::User { .. }));
        let page = |g: &&Group| {
            host.controllers.get(g.controller).map(|c| c.doorbell & !(host.page_size - 1))
        };
        let doorbells: BTreeSet<u64> = members.iter().filter(user).filter_map(page).collect();
        let max_windows = of().filter_map(|i| match i.msi {
            MsiPolicy::User { max_windows } => Some(max_windows),
            _ => None,
        });
        Self {
            max_windows: max_windows.min(),
            doorbell_pages: u32::try_from(doorbells.len()).unwrap_or(u32::MAX),
            groups: members.iter().map(|g| g.number).collect(),
            refused,
            valid,
            aperture,
            iommus: iommus.into_iter().collect(),
            obstacles,
            granule: page_sizes.smallest(),
            page_sizes,
        }
    }

    /// Whether `range` lies in one valid range.
    #[must_use]
    pub fn holds(&self, range: IovaRange) -> bool {
        self.valid.iter().any(|v| v.covers(range))
    }
}

/// Why VFIO would not give a group to a user.
fn refusal(host: &Host, group: &Group) -> Option<String> {
    let Some(iommu) = host.iommu_of(group) else {
        return Some("the description lacks its IOMMU".into());
    };
    if let Some(region) = needs_direct(group) {
        return Some(format!(
            "a device of it needs {} mapped to itself ({})",
            region.range, region.owner
        ));
    }
    if !iommu.msi_isolated && !host.limits.allow_unsafe_interrupts {
        return Some(
            "its interrupts are not isolated from other devices' (allow_unsafe_interrupts would \
             accept it)"
                .into(),
        );
    }
    None
}

fn obstacles(members: &[&Group]) -> Vec<Obstacle> {
    let mut found: Vec<Obstacle> = Vec::new();
    for group in members {
        for region in &group.reserved {
            let same = found.iter_mut().find(|o| {
                o.range == region.range && o.kind == region.kind && o.owner == region.owner
            });
            match same {
                Some(obstacle) => {
                    if !obstacle.groups.contains(&group.number) {
                        obstacle.groups.push(group.number);
                    }
                }
                None => found.push(Obstacle {
                    range: region.range,
                    kind: region.kind,
                    owner: region.owner.clone(),
                    groups: vec![group.number],
                }),
            }
        }
    }
    found.sort_by_key(|o| (o.range, o.kind));
    found
}

/// Ranges without a hole.
#[must_use]
pub(crate) fn subtract(ranges: &[IovaRange], hole: IovaRange) -> Vec<IovaRange> {
    let mut left = Vec::with_capacity(ranges.len() + 1);
    for range in ranges {
        if range.overlaps(hole) {
            let (below, above) = range.without(hole);
            left.extend(below);
            left.extend(above);
        } else {
            left.push(*range);
        }
    }
    left
}
