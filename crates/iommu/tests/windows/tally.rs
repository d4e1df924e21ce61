//! How often a run met each refusal, and each operation each state of a window.

use std::collections::BTreeMap;

use softvfio_iommu::refusal::{Field, Unusable, WindowMisfit};
use softvfio_iommu::{AttachRefusal, BindRefusal, MapRefusal, WindowRefusal};

use super::model::Model;
use super::steps::{Answer, KINDS, Kind, Op};

/// Times that each must occur in a run.
pub(crate) const AT_LEAST: u64 = 100;

/// Every refusal that windows can cause or meet.
const REFUSALS: [&str; 24] = [
    "window: not taken",
    "window: no access",
    "window: iova misaligned",
    "window: size misaligned",
    "window: mapped",
    "window: window",
    "window: none left",
    "window: reserved region",
    "window: outside aperture",
    "window: permission",
    "remove: not exact",
    "remove: busy",
    "remove all: busy",
    "bind: not attached",
    "bind: window full",
    "bind: no window",
    "bind: no writable window",
    "bind: windows full",
    "attach: window, aperture",
    "attach: window, reserved",
    "attach: window, page size",
    "attach: window, permission",
    "attach: window, too many",
    "map: in window",
];

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Met {
    Absent,
    Free,
    Bound,
}

/// How often what was met.
#[derive(Default)]
pub(crate) struct Tally {
    refusals: BTreeMap<&'static str, u64>,
    windows: BTreeMap<(Kind, Met), u64>,
}

impl Tally {
    pub(crate) fn count(&mut self, op: Op, met: Met, answer: &Answer) {
        *self.windows.entry((op.kind(), met)).or_default() += 1;
        if let Some(name) = name(answer) {
            *self.refusals.entry(name).or_default() += 1;
        }
    }

    pub(crate) fn assert_all_met(&self) {
        let mut rare = Vec::new();
        for name in REFUSALS {
            let times = self.refusals.get(name).copied().unwrap_or(0);
            println!("{times:6} {name}");
            rare.extend((times < AT_LEAST).then(|| (name.to_owned(), times)));
        }
        for kind in KINDS {
            for met in [Met::Absent, Met::Free, Met::Bound] {
                let times = self.windows.get(&(kind, met)).copied().unwrap_or(0);
                println!("{times:6} {kind:?} against {met:?}");
                rare.extend((times < AT_LEAST).then(|| (format!("{kind:?} {met:?}"), times)));
            }
        }
        assert_eq!(rare, [], "must occur {AT_LEAST} times in a run");
    }
}

/// What an operation is about to meet: windows in its range, or, where it has none, any window
/// with anything bound in it; in its own domain, where it is about interrupts.
pub(crate) fn met(op: Op, model: &Model) -> Met {
    let range = match op {
        Op::Add(window) => Some(window.range),
        Op::Remove(range) | Op::Map(range, _) | Op::Unmap(range) | Op::Exact(range) => Some(range),
        _ => None,
    };
    let there = |w: &&softvfio_iommu::Window| range.is_none_or(|r| r.overlaps(w.range));
    let windows: Vec<_> = model.windows.iter().filter(there).collect();
    let bound = match op {
        Op::Enable(group) | Op::Disable(group) => model.domain_of(group).is_some_and(|d| {
            d.enabled.iter().any(|e| windows.iter().any(|w| w.range.contains(e.iova)))
        }),
        _ => windows.iter().any(|w| model.used(w.range) != 0),
    };
    match (windows.is_empty(), bound) {
        (true, _) => Met::Absent,
        (false, false) => Met::Free,
        (false, true) => Met::Bound,
    }
}

fn name(answer: &Answer) -> Option<&'static str> {
    Some(match answer {
        Answer::Add(Err(refusal)) => match refusal {
            WindowRefusal::NotTaken => "window: not taken",
            WindowRefusal::NoAccess => "window: no access",
            WindowRefusal::Misaligned { field: Field::Iova, .. } => "window: iova misaligned",
            WindowRefusal::Misaligned { .. } => "window: size misaligned",
            WindowRefusal::Mapped { .. } => "window: mapped",
            WindowRefusal::Window { .. } => "window: window",
            WindowRefusal::NoneLeft { .. } => "window: none left",
            WindowRefusal::NotUsable { why: Unusable::Reserved(_), .. } => {
                "window: reserved region"
            }
            WindowRefusal::NotUsable { .. } => "window: outside aperture",
            WindowRefusal::Permission { .. } => "window: permission",
            other => panic!("no refusal of a registration: {other}"),
        },
        Answer::Remove(Err(WindowRefusal::NotExact { .. })) => "remove: not exact",
        Answer::Remove(Err(WindowRefusal::Busy { .. })) => "remove: busy",
        Answer::Remove(Err(other)) => panic!("no refusal of a removal: {other}"),
        Answer::RemoveAll(Err(WindowRefusal::Busy { .. })) => "remove all: busy",
        Answer::RemoveAll(Err(other)) => panic!("no refusal of removing all: {other}"),
        Answer::Enable(Err(refusal)) => match refusal {
            BindRefusal::NotAttached { .. } => "bind: not attached",
            BindRefusal::WindowFull { .. } => "bind: window full",
            BindRefusal::NoWindow { .. } => "bind: no window",
            BindRefusal::NoWritableWindow { .. } => "bind: no writable window",
            BindRefusal::WindowsFull { .. } => "bind: windows full",
            other => panic!("give it a name here: {other}"),
        },
        Answer::Attach(Err(AttachRefusal::Window { why, .. })) => match why {
            WindowMisfit::Aperture(_) => "attach: window, aperture",
            WindowMisfit::Reserved(_) => "attach: window, reserved",
            WindowMisfit::PageSize { .. } => "attach: window, page size",
            WindowMisfit::Permission(_) => "attach: window, permission",
            WindowMisfit::TooMany { .. } => "attach: window, too many",
        },
        Answer::Map(Err(MapRefusal::InWindow { .. })) => "map: in window",
        _ => return None,
    })
}
