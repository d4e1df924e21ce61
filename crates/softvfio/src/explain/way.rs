//! What is in the way of a refused request, and who put it there.

use draw::Kind;
use draw::story::{Life, Story};
use iommu::refusal::{Nearest, Unusable};
use iommu::{AttachRefusal, DirtyRefusal, IovaRange, MapRefusal, VaddrRefusal, WindowRefusal};
use vfio::Refusal;

use super::find::Case;
use super::request::range;

/// Something in the way.
pub(super) struct Obstacle {
    /// Where, if it has addresses.
    pub(super) range: Option<IovaRange>,
    /// What it is.
    pub(super) what: String,
    /// The request that put it there, where that is known.
    pub(super) since: Option<u64>,
}

/// What is in the way.
pub(super) fn obstacles(case: &Case) -> Vec<Obstacle> {
    let Some(refusal) = &case.outcome.refusal else { return Vec::new() };
    let ranges = ranges(refusal);
    let mut found: Vec<Obstacle> = there(case, &ranges)
        .into_iter()
        .map(|(story, life)| Obstacle {
            range: Some(life.range),
            what: what(story, life),
            since: Some(life.from),
        })
        .collect();
    for range in ranges {
        if !found.iter().any(|o| o.range == Some(range)) {
            let what = "what the group that is to be attached reserves".into();
            found.push(Obstacle { range: Some(range), what, since: None });
        }
    }
    let held = case.holders.in_the_way(&case.outcome, refusal);
    let held =
        held.into_iter().map(|(what, since)| Obstacle { range: None, what, since: Some(since) });
    found.extend(held);
    found
}

/// What lies in or on ranges of the request's container.
fn there<'a>(case: &'a Case, way: &[IovaRange]) -> Vec<(&'a Story, &'a Life)> {
    let mut found = Vec::new();
    // Whatever else is where the request wants to be would be in the way next.
    let asked = range(&case.outcome).filter(|_| !way.is_empty());
    let asked = asked.filter(|_| case.outcome.op() == "map");
    let own = |story: &&Story| case.container.is_none_or(|id| id == story.container);
    for story in case.stories.iter().filter(own) {
        for life in &story.lives {
            let exact = way.contains(&life.range)
                || (life.kind == Kind::Doorbell && way.iter().any(|w| w.covers(life.range)));
            let next = asked.is_some_and(|a| a.overlaps(life.range));
            // What the firmware used at boot is in nobody's way.
            if life.to.is_none() && life.kind != Kind::Relaxable && (exact || next) {
                found.push((story, life));
            }
        }
    }
    found
}

fn what(story: &Story, life: &Life) -> String {
    let name = story.name(life);
    match life.kind {
        Kind::Mapping => format!("a mapping of {name}"),
        _ => name.to_owned(),
    }
}

/// The ranges that a refusal names.
fn ranges(refusal: &Refusal) -> Vec<IovaRange> {
    match refusal {
        Refusal::Map(
            MapRefusal::Overlaps { existing, .. } | MapRefusal::InWindow { existing, .. },
        )
        | Refusal::Window(
            WindowRefusal::Mapped { existing, .. }
            | WindowRefusal::Window { existing, .. }
            | WindowRefusal::NotExact { existing, .. },
        )
        | Refusal::Vaddr(
            VaddrRefusal::NotExact { existing, .. }
            | VaddrRefusal::StillValid { existing }
            | VaddrRefusal::AlreadyInvalid { existing },
        )
        | Refusal::Dirty(DirtyRefusal::Cuts { existing, .. })
        | Refusal::Cuts { existing, .. } => vec![*existing],
        Refusal::Dirty(DirtyRefusal::TooManyPages { mapping, .. }) => vec![*mapping],
        Refusal::Window(WindowRefusal::Busy { window, .. }) => vec![*window],
        Refusal::Map(MapRefusal::NotUsable { why: Unusable::Reserved(region), .. })
        | Refusal::Window(WindowRefusal::NotUsable { why: Unusable::Reserved(region), .. }) => {
            vec![region.range]
        }
        Refusal::Attach(AttachRefusal::Reserved { region, mapping, .. }) => {
            vec![region.range, *mapping]
        }
        Refusal::Attach(AttachRefusal::NeedsDirect { region, .. }) => vec![region.range],
        Refusal::Attach(
            AttachRefusal::VaddrInvalid { mapping }
            | AttachRefusal::PageSize { mapping, .. }
            | AttachRefusal::Aperture { mapping: Some(mapping), .. },
        ) => vec![*mapping],
        Refusal::Attach(AttachRefusal::Window { window, .. }) => vec![*window],
        _ => Vec::new(),
    }
}

/// Where a map would be legal.
pub(super) fn nearest(refusal: &Refusal) -> Option<Nearest> {
    match refusal {
        Refusal::Map(
            MapRefusal::Overlaps { nearest, .. }
            | MapRefusal::InWindow { nearest, .. }
            | MapRefusal::NotUsable { nearest, .. },
        )
        | Refusal::Window(
            WindowRefusal::Mapped { nearest, .. }
            | WindowRefusal::Window { nearest, .. }
            | WindowRefusal::NotUsable { nearest, .. },
        ) => Some(*nearest),
        _ => None,
    }
}
