//! An address space at one moment: what is drawn, before anybody knows where.

use iommu::{IovaRange, ReservedKind};

use crate::gather::gather;
use crate::size::{count, human};

/// Areas of one kind that a picture shows at most in a column.
pub const MOST_AREAS: usize = 24;
/// Marks that a picture of one moment shows at most.
const MOST_MARKS: usize = 24;

/// What a part of an address space is. Each has a pattern, a character and a colour of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Guest memory of a layout.
    Ram,
    /// A device's memory of a layout.
    Bar,
    /// A mapping.
    Mapping,
    /// An MSI window: the driver's, or one that a user registered.
    Window,
    /// A page of a window with a doorbell behind it.
    Doorbell,
    /// The range of MSIs that are not translated.
    Msi,
    /// Addresses that nobody may use, or that must stay identity mapped.
    Reserved,
    /// Identity mapped at boot; mappings may use it.
    Relaxable,
}

impl Kind {
    /// All of them, in the order of a legend.
    pub const ALL: [Self; 8] = [
        Self::Mapping,
        Self::Ram,
        Self::Bar,
        Self::Window,
        Self::Doorbell,
        Self::Msi,
        Self::Reserved,
        Self::Relaxable,
    ];

    /// What JSON calls it.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Ram => "ram",
            Self::Bar => "bar",
            Self::Mapping => "mapping",
            Self::Window => "window",
            Self::Doorbell => "doorbell",
            Self::Msi => "msi",
            Self::Reserved => "reserved",
            Self::Relaxable => "direct-relaxable",
        }
    }

    /// What a legend calls it.
    #[must_use]
    pub const fn legend(self) -> &'static str {
        match self {
            Self::Ram => "RAM",
            Self::Bar => "BAR",
            Self::Mapping => "mapped",
            Self::Window => "MSI window",
            Self::Doorbell => "doorbell",
            Self::Msi => "MSIs, not translated",
            Self::Reserved => "reserved",
            Self::Relaxable => "direct-relaxable",
        }
    }

    /// What many of it are called.
    const fn plural(self) -> &'static str {
        match self {
            Self::Ram => "banks of RAM",
            Self::Bar => "BARs",
            Self::Mapping => "mappings",
            Self::Window => "MSI windows",
            Self::Doorbell => "doorbells",
            Self::Msi => "ranges of MSIs",
            Self::Reserved => "reserved regions",
            Self::Relaxable => "direct-relaxable regions",
        }
    }

    /// The kind of a reserved region.
    #[must_use]
    pub const fn of(kind: ReservedKind) -> Self {
        match kind {
            ReservedKind::Direct | ReservedKind::Reserved => Self::Reserved,
            ReservedKind::DirectRelaxable => Self::Relaxable,
            ReservedKind::Msi => Self::Msi,
            ReservedKind::SwMsi => Self::Window,
        }
    }
}

/// A part of an address space.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Area {
    /// Where.
    pub range: IovaRange,
    /// What.
    pub kind: Kind,
    /// What to call it, in a few words.
    pub name: String,
    /// What else to say, besides range and size.
    pub note: String,
}

/// Areas side by side with others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Column {
    /// What it shows.
    pub title: String,
    /// Addresses that exist at all: the page tables express them. None: all.
    pub apertures: Vec<IovaRange>,
    /// What is there, by ascending address. An area may lie within an earlier one.
    pub areas: Vec<Area>,
}

/// What went wrong somewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MarkKind {
    /// A request was refused.
    Refused,
    /// A device met no memory.
    Fault,
    /// What shall be there cannot be.
    Collision,
}

impl MarkKind {
    /// What a legend calls it.
    #[must_use]
    pub const fn legend(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Fault => "fault",
            Self::Collision => "collision",
        }
    }
}

/// Something that went wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// What.
    pub kind: MarkKind,
    /// The request, from 1; 0 when there was none.
    pub request: u64,
    /// Where; `None` when it is about no address.
    pub range: Option<IovaRange>,
    /// What happened, in a sentence.
    pub text: String,
    /// It happened again and again.
    pub again: Again,
}

/// How often a mark stands for others that say the same, wherever they were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Again {
    /// How many there are.
    pub times: u64,
    /// The request of the last of them.
    pub last: u64,
}

/// An address space at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scene {
    /// What it is.
    pub title: String,
    /// More about it.
    pub subtitle: String,
    /// One or two columns; more are not drawn.
    pub columns: Vec<Column>,
    /// What went wrong.
    pub marks: Vec<Mark>,
}

impl Mark {
    fn collision(range: IovaRange, text: String) -> Self {
        let (kind, range) = (MarkKind::Collision, Some(range));
        Self { kind, request: 0, range, text, again: Again::default() }
    }

    /// What it is, in a few words.
    #[must_use]
    pub fn name(&self) -> String {
        match self.kind {
            MarkKind::Collision => "collision".into(),
            kind => format!("request {}, {}", self.request, kind.legend()),
        }
    }

    /// All of it in a line.
    #[must_use]
    pub fn sentence(&self) -> String {
        match self.kind {
            MarkKind::Collision => self.text.clone(),
            _ if self.request == 0 => self.text.clone(),
            _ if self.again.times == 0 => format!("request {}: {}", self.request, self.text),
            _ => {
                let (first, Again { times, last }) = (self.request, self.again);
                let times = count(times.saturating_add(1));
                format!("requests {first} to {last}, {times} times: {}", self.text)
            }
        }
    }
}

impl Column {
    /// The column with at most [`MOST_AREAS`] areas of a kind: neighbours become one.
    fn gathered(&self) -> Self {
        let mut areas = Vec::new();
        for kind in Kind::ALL {
            let mut these: Vec<&Area> = self.areas.iter().filter(|a| a.kind == kind).collect();
            if these.len() <= MOST_AREAS {
                areas.extend(these.into_iter().cloned());
                continue;
            }
            these.sort_by_key(|a| (a.range.first(), std::cmp::Reverse(a.range.last())));
            let ranges: Vec<IovaRange> = these.iter().map(|a| a.range).collect();
            let area = |cluster: crate::gather::Cluster| {
                let members = &these[cluster.members.clone()];
                let first = *members.first()?;
                if members.len() == 1 {
                    return Some(first.clone());
                }
                let name = format!("{} {}", count(members.len() as u64), kind.plural());
                let mut note = format!("{} in all", human(cluster.bytes));
                if !first.note.is_empty() && members.iter().all(|a| a.note == first.note) {
                    note += &format!("; {}", first.note);
                }
                Some(Area { range: cluster.range, kind, name, note })
            };
            areas.extend(gather(&ranges, MOST_AREAS).into_iter().filter_map(area));
        }
        areas.sort_by_key(|a| (a.range.first(), std::cmp::Reverse(a.range.last())));
        Self { areas, ..self.clone() }
    }
}

impl Scene {
    /// Marks where areas of the last column lie on what the first reserves, or outside of what it
    /// translates. Returns how many there are.
    pub fn collide(&mut self) -> usize {
        let (Some(first), Some(last)) = (self.columns.first(), self.columns.last()) else {
            return 0;
        };
        if self.columns.len() < 2 {
            return 0;
        }
        let before = self.marks.len();
        for area in &last.areas {
            for other in first.areas.iter().filter(|o| o.kind != Kind::Relaxable) {
                if let Some(range) = area.range.intersection(other.range) {
                    let text = format!("{} lies on {}", area.name, other.name);
                    self.marks.push(Mark::collision(range, text));
                }
            }
            let outside = !first.apertures.is_empty()
                && !first.apertures.iter().any(|a| a.covers(area.range));
            if outside {
                let text = outside_of(&area.name, &first.apertures);
                self.marks.push(Mark::collision(area.range, text));
            }
        }
        self.marks.len() - before
    }

    /// The scene as a picture can show it: areas and marks are as many as there is room for.
    #[must_use]
    pub(crate) fn gathered(&self) -> Self {
        let many = |c: &Column| c.areas.len() > MOST_AREAS;
        let mut scene = self.clone();
        for column in scene.columns.iter_mut().filter(|c| many(c)) {
            *column = column.gathered();
        }
        let more = scene.marks.split_off(scene.marks.len().min(MOST_MARKS));
        if let Some(first) = more.first() {
            let text = format!("and {} more", count(more.len() as u64));
            scene.marks.push(Mark {
                kind: first.kind,
                request: 0,
                range: None,
                text,
                again: Again::default(),
            });
        }
        scene
    }

    /// From the first to the last address that matters.
    #[must_use]
    pub fn span(&self) -> IovaRange {
        let areas = self.columns.iter().flat_map(|c| c.areas.iter().map(|a| a.range));
        let apertures = self.columns.iter().flat_map(|c| c.apertures.iter().copied());
        let marks = self.marks.iter().filter_map(|m| m.range);
        hull(areas.chain(apertures).chain(marks))
    }
}

/// That something lies outside of apertures, and where they end.
fn outside_of(name: &str, apertures: &[IovaRange]) -> String {
    match apertures {
        [one] => {
            let (first, last) = (one.first(), one.last());
            format!(
                "{name} lies outside of {first:#x}\u{2013}{last:#x}, which the IOMMU translates"
            )
        }
        _ => format!("{name} lies outside of what the IOMMU translates"),
    }
}

/// The smallest range from 0 that holds all of `ranges`.
pub(crate) fn hull(ranges: impl Iterator<Item = IovaRange>) -> IovaRange {
    let last = ranges.map(IovaRange::last).max().unwrap_or(0xfff);
    IovaRange::new(0, last.max(0xfff)).unwrap_or(IovaRange::ALL)
}
