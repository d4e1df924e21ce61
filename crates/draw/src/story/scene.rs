//! The address space of a story as a scene.

use iommu::IovaRange;

use super::{Life, Story};
use crate::gather::{Cluster, gather};
use crate::scene::{Area, Column, Kind, MOST_AREAS, Mark, MarkKind, Scene};
use crate::size::{bytes, count, human};

impl Story {
    /// The address space after the last request noted, with at most [`MOST_AREAS`] areas of a kind.
    #[must_use]
    pub fn scene(&self, title: &str) -> Scene {
        self.scene_of(title, MOST_AREAS)
    }

    /// The same, with everything that is there.
    #[must_use]
    pub fn whole_scene(&self, title: &str) -> Scene {
        self.scene_of(title, usize::MAX)
    }

    fn scene_of(&self, title: &str, most: usize) -> Scene {
        let here = |l: &&Life| l.to.is_none();
        let (mut mapped, mut others): (Vec<&Life>, Vec<&Life>) =
            self.lives.iter().filter(here).partition(|l| l.kind == Kind::Mapping);
        mapped.sort_by_key(|l| l.range);
        others.sort_by_key(|l| (l.range.first(), std::cmp::Reverse(l.range.last())));
        let total: u128 = mapped.iter().map(|l| bytes(l.range)).sum();
        let columns = vec![
            Column {
                title: "what the IOMMU says".into(),
                apertures: self.apertures.clone(),
                areas: self.areas(&others, "regions", most),
            },
            Column {
                title: "what is mapped".into(),
                apertures: self.apertures.clone(),
                areas: self.areas(&mapped, "mappings", most),
            },
        ];
        let recent = |m: &&Mark| {
            m.kind == MarkKind::Fault || [m.request, m.again.last].contains(&self.requests)
        };
        let mut marks: Vec<Mark> = self.marks.iter().filter(recent).cloned().collect();
        marks.dedup_by(|a, b| (a.range, &a.text) == (b.range, &b.text));
        let first = marks.len().saturating_sub(8);
        let plural = if mapped.len() == 1 { "" } else { "s" };
        Scene {
            title: title.to_owned(),
            subtitle: format!(
                "container {} after request {}: {} mapping{plural}, {}",
                self.container,
                count(self.requests),
                count(mapped.len() as u64),
                human(total)
            ),
            columns,
            marks: marks.split_off(first),
        }
    }

    /// Lives as areas, gathered when they are too many.
    fn areas(&self, lives: &[&Life], what: &str, most: usize) -> Vec<Area> {
        let ranges: Vec<IovaRange> = lives.iter().map(|l| l.range).collect();
        let clusters = gather(&ranges, most);
        let area = |cluster: Cluster| {
            let members = &lives[cluster.members.clone()];
            let first = members.first()?;
            Some(if members.len() == 1 {
                Area {
                    range: first.range,
                    kind: first.kind,
                    name: self.name(first).to_owned(),
                    note: format!("request {}", first.from),
                }
            } else {
                Area {
                    range: cluster.range,
                    kind: first.kind,
                    name: format!("{} {what}", count(members.len() as u64)),
                    note: format!("{} in all", human(cluster.bytes)),
                }
            })
        };
        clusters.into_iter().filter_map(area).collect()
    }
}
