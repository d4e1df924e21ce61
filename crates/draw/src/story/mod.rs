//! What happened in an address space, from a trace that is replayed: what was there, from which
//! request to which, and what went wrong.
//!
//! A story costs about 50 bytes for each mapping that ever was; nothing is kept of the requests.

mod recorder;
mod scene;

use std::collections::HashMap;
use std::io::BufRead;

use iommu::{Event, IovaRange};
use trace::{Outcome, Session};
use vfio::ContainerId;

pub use self::recorder::Recorder;

use crate::ends::Mapped;
use crate::scene::{Again, Kind, Mark, MarkKind};

/// Marks in a row that say the same and are kept; more are counted.
const ALIKE: usize = 3;
/// Marks that are kept with their text.
const MOST_MARKS: usize = 500;

/// Something that was in an address space for a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Life {
    /// Where.
    pub range: IovaRange,
    /// What.
    pub kind: Kind,
    /// Which of the story's names it has.
    pub name: u32,
    /// The request that made it, from 1.
    pub from: u64,
    /// The request that ended it.
    pub to: Option<u64>,
}

/// What happened in one container.
#[derive(Debug)]
pub struct Story {
    /// Whose it is.
    pub container: ContainerId,
    /// Everything that ever was there, in the order in which it came.
    pub lives: Vec<Life>,
    /// What went wrong, the first ones of many.
    pub marks: Vec<Mark>,
    /// What went wrong beyond those.
    pub more_marks: u64,
    /// Requests of the trace so far.
    pub requests: u64,
    /// What the attached IOMMUs translate; as last known.
    pub apertures: Vec<IovaRange>,
    names: Vec<String>,
    ids: HashMap<String, u32>,
    mapped: Mapped,
    /// Windows that are there, by their first byte.
    windows: HashMap<u64, usize>,
    /// Regions that are there.
    reserved: Vec<usize>,
    /// Doorbells that are bound: physical page, group, place.
    doorbells: Vec<(u64, u32, usize)>,
}

impl Story {
    fn new(container: ContainerId) -> Self {
        Self {
            container,
            lives: Vec::new(),
            marks: Vec::new(),
            more_marks: 0,
            requests: 0,
            apertures: Vec::new(),
            names: Vec::new(),
            ids: HashMap::new(),
            mapped: Mapped::default(),
            windows: HashMap::new(),
            reserved: Vec::new(),
            doorbells: Vec::new(),
        }
    }

    /// The name of a life.
    #[must_use]
    pub fn name(&self, life: &Life) -> &str {
        usize::try_from(life.name).ok().and_then(|n| self.names.get(n)).map_or("", String::as_str)
    }

    /// Whether a mark says what the last ones said, one after the other: it is counted there.
    fn again(&mut self, kind: MarkKind, request: u64, same: impl Fn(&str) -> bool) -> bool {
        let from = self.marks.len().saturating_sub(ALIKE);
        let Some(alike) = self.marks.get_mut(from..).filter(|tail| tail.len() == ALIKE) else {
            return false;
        };
        if !alike.iter().all(|mark| mark.kind == kind && same(&mark.text)) {
            return false;
        }
        if let Some(last) = alike.last_mut() {
            last.again = Again { times: last.again.times.saturating_add(1), last: request };
        }
        true
    }

    /// Keeps a mark, or counts it when there are enough.
    fn mark(&mut self, mark: impl FnOnce() -> Mark) {
        if self.marks.len() < MOST_MARKS { self.marks.push(mark()) } else { self.more_marks += 1 }
    }

    fn begin(&mut self, range: IovaRange, kind: Kind, name: &str, from: u64) -> usize {
        // Names come in rows.
        let same = self.lives.last().filter(|before| self.name(before) == name).map(|l| l.name);
        let name = match same.or_else(|| self.ids.get(name).copied()) {
            Some(id) => id,
            None => {
                let id = u32::try_from(self.names.len()).unwrap_or(u32::MAX);
                self.names.push(name.to_owned());
                self.ids.insert(name.to_owned(), id);
                id
            }
        };
        self.lives.push(Life { range, kind, name, from, to: None });
        self.lives.len() - 1
    }

    fn end(&mut self, life: Option<usize>, at: u64) {
        if let Some(life) = life.and_then(|place| self.lives.get_mut(place)) {
            life.to.get_or_insert(at);
        }
    }

    fn event(&mut self, event: &Event, outcome: &Outcome) {
        let at = outcome.request;
        match *event {
            Event::Mapped { range, .. } => {
                let asked = outcome.text_of("vaddr").unwrap_or("mapping");
                let name = asked.split(['+', '-']).next().unwrap_or(asked);
                let name =
                    if name.starts_with(|c: char| c.is_ascii_digit()) { "mapping" } else { name };
                self.begin(range, Kind::Mapping, name, at);
            }
            Event::Unmapped { range } => self.mapped.end(range.first(), at, &mut self.lives),
            Event::Cut { range, at: cut } => {
                let place = self.mapped.find(range.first(), &mut self.lives);
                self.mapped.end(range.first(), at, &mut self.lives);
                let name = place.and_then(|p| self.lives.get(p)).map(|l| self.name(l).to_owned());
                let name = name.unwrap_or_default();
                let halves = [
                    IovaRange::new(range.first(), cut.wrapping_sub(1)),
                    IovaRange::new(cut, range.last()),
                ];
                for half in halves.into_iter().flatten() {
                    self.begin(half, Kind::Mapping, &name, at);
                }
            }
            Event::WindowAdded { window } => {
                let name = format!("MSI window, {}", window.prot);
                let place = self.begin(window.range, Kind::Window, &name, at);
                self.windows.insert(window.range.first(), place);
            }
            Event::WindowRemoved { range } => {
                let place = self.windows.remove(&range.first());
                self.end(place, at);
            }
            Event::DoorbellBound { group, doorbell, iova } => {
                let page = IovaRange::sized(iova & !0xfff, 0x1000);
                let name = format!("doorbell {doorbell:#x}");
                let known = |(_, _, place): &(u64, u32, usize)| {
                    self.lives.get(*place).is_some_and(|l| Some(l.range) == page)
                };
                if let Some(page) = page.filter(|_| !self.doorbells.iter().any(known)) {
                    let place = self.begin(page, Kind::Doorbell, &name, at);
                    self.doorbells.push((doorbell & !0xfff, group, place));
                }
            }
            Event::DoorbellReleased { group, doorbell } => {
                let page = doorbell & !0xfff;
                let own = self.doorbells.iter().position(|d| (d.0, d.1) == (page, group));
                let found = own.or_else(|| self.doorbells.iter().position(|d| d.0 == page));
                if let Some(found) = found {
                    let (_, _, place) = self.doorbells.remove(found);
                    self.end(Some(place), at);
                }
            }
            _ => {}
        }
    }

    /// Compares what the container's groups reserve, translate and bind with what is known.
    fn regions<R: BufRead>(&mut self, at: u64, session: &Session<R>) {
        let type1 = session.container(self.container).and_then(|c| c.type1());
        let mut wanted: Vec<(IovaRange, Kind, String)> = Vec::new();
        let mut apertures: Option<IovaRange> = None;
        for domain in type1.map(|t| t.space().domains()).unwrap_or_default() {
            let own = domain.aperture();
            apertures = Some(apertures.map_or(own, |all| all.intersection(own).unwrap_or(own)));
            for region in domain.members().iter().flat_map(|m| &m.reserved) {
                let entry = (region.range, Kind::of(region.kind), region.owner.clone());
                if !wanted.contains(&entry) {
                    wanted.push(entry);
                }
            }
        }
        if let Some(aperture) = apertures {
            self.apertures = vec![aperture];
        }
        let mut kept = Vec::new();
        for place in std::mem::take(&mut self.reserved) {
            let life = &self.lives[place];
            let name = self.name(life).to_owned();
            let still = wanted.iter().position(|w| *w == (life.range, life.kind, name.clone()));
            match still {
                Some(still) => {
                    wanted.remove(still);
                    kept.push(place);
                }
                None => self.end(Some(place), at),
            }
        }
        for (range, kind, owner) in wanted {
            kept.push(self.begin(range, kind, &owner, at));
        }
        self.reserved = kept;
        // A domain that goes takes its bindings along.
        let domains = type1.map(|t| t.space().domains()).unwrap_or_default();
        for (page, group, place) in std::mem::take(&mut self.doorbells) {
            let iova = self.lives[place].range.first();
            let bound = |d: &iommu::Domain| d.pool().is_some_and(|p| p.resolve(iova).is_some());
            if domains.iter().any(bound) {
                self.doorbells.push((page, group, place));
            } else {
                self.end(Some(place), at);
            }
        }
    }
}
