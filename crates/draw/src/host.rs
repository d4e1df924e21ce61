//! A host as scenes: one for each IOMMU and set of reserved regions.

use std::fmt::Write;

use iommu::{Group, Host, Iommu, MsiPolicy};

use crate::scene::{Area, Column, Kind, Scene};
use crate::size::human;

/// The scenes of a host.
#[must_use]
pub fn scenes(host: &Host, title: &str) -> Vec<Scene> {
    let mut kinds: Vec<Vec<&Group>> = Vec::new();
    for group in &host.groups {
        let same = |g: &&mut Vec<&Group>| {
            g.first().is_some_and(|f| (f.iommu, &f.reserved) == (group.iommu, &group.reserved))
        };
        match kinds.iter_mut().find(same) {
            Some(groups) => groups.push(group),
            None => kinds.push(vec![group]),
        }
    }
    let scene = |groups: &Vec<&Group>| {
        let first = groups.first()?;
        let iommu = host.iommu_of(first)?;
        Some(Scene {
            title: title.to_owned(),
            subtitle: subtitle(iommu, groups),
            columns: vec![column(iommu, first)],
            marks: Vec::new(),
        })
    };
    kinds.iter().filter_map(scene).collect()
}

/// What an IOMMU and a group behind it say about the address space.
#[must_use]
pub fn column(iommu: &Iommu, group: &Group) -> Column {
    let mut areas: Vec<Area> = group
        .reserved
        .iter()
        .map(|region| Area {
            range: region.range,
            kind: Kind::of(region.kind),
            name: region.owner.clone(),
            note: region.kind.to_string(),
        })
        .collect();
    areas.sort_by_key(|a| (a.range.first(), std::cmp::Reverse(a.range.last())));
    Column { title: "what the IOMMU says".into(), apertures: vec![iommu.aperture], areas }
}

fn subtitle(iommu: &Iommu, groups: &[&Group]) -> String {
    let mut text = String::new();
    let numbers: Vec<u32> = groups.iter().map(|g| g.number).collect();
    let plural = if numbers.len() == 1 { "" } else { "s" };
    let _ = write!(text, "{}, group{plural} {}", iommu.kind, list(&numbers));
    let _ = write!(text, "; pages from {}", human(u128::from(iommu.page_sizes.smallest())));
    let _ = match iommu.msi {
        MsiPolicy::Implicit => write!(text, "; MSIs are not translated"),
        MsiPolicy::Fixed { .. } => write!(text, "; MSIs through the driver's window"),
        MsiPolicy::User { max_windows } => {
            write!(text, "; MSIs through windows that users register, at most {max_windows}")
        }
        _ => Ok(()),
    };
    text
}

/// Numbers with runs as ranges.
fn list(numbers: &[u32]) -> String {
    let mut runs: Vec<(u32, u32)> = Vec::new();
    for number in numbers {
        match runs.last_mut() {
            Some(run) if run.1.checked_add(1) == Some(*number) => run.1 = *number,
            _ => runs.push((*number, *number)),
        }
    }
    let run = |(from, to): &(u32, u32)| match to - from {
        0 => from.to_string(),
        1 => format!("{from}, {to}"),
        _ => format!("{from}\u{2013}{to}"),
    };
    runs.iter().map(run).collect::<Vec<_>>().join(", ")
}
