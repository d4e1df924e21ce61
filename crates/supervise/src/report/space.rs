//! What a container's IOVAs mean, and meant: mappings and windows with the requests that made and
//! removed them, and answers that the program may have overlooked.

use std::collections::{BTreeMap, VecDeque};

use iommu::{IovaRange, MmId};

use super::finding::{Owner, Problem};

/// Removed mappings, and refused ones, that are remembered.
const MEMORY: usize = 2048;
/// Answers that may have been overlooked.
const SUSPECTS: usize = 64;

/// A live mapping.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mapping {
    pub(super) last: u64,
    pub(super) vaddr: u64,
    pub(super) mm: MmId,
    pub(super) request: u64,
}

/// Why nothing is mapped somewhere.
enum Past {
    Unmapped { mapping: Owner, by: u64 },
    Refused { asked: Owner, answer: String },
    Closed { window: Owner, by: u64 },
}

impl Past {
    const fn range(&self) -> IovaRange {
        match self {
            Self::Unmapped { mapping: owner, .. }
            | Self::Refused { asked: owner, .. }
            | Self::Closed { window: owner, .. } => owner.range,
        }
    }
}

/// An answer that mattered.
pub(super) enum Suspect {
    /// A mapping was refused; the program's address was to be there.
    Map { asked: Owner, vaddr: u64, answer: String },
    /// An unmap left something.
    Unmap { asked: Owner, removed: u64 },
}

impl Suspect {
    const fn range(&self) -> IovaRange {
        match self {
            Self::Map { asked, .. } | Self::Unmap { asked, .. } => asked.range,
        }
    }
}

/// A container's.
#[derive(Default)]
pub(super) struct Space {
    mappings: BTreeMap<u64, Mapping>,
    windows: BTreeMap<u64, Owner>,
    past: VecDeque<Past>,
    suspects: VecDeque<Suspect>,
    pub(super) mapped: u64,
    /// Its descriptor is closed.
    pub(super) closed: bool,
    /// It was closed by the program's end.
    pub(super) left: bool,
}

impl Space {
    /// How many mappings there are.
    pub(super) fn count(&self) -> u64 {
        self.mappings.len() as u64
    }

    pub(super) fn map(&mut self, range: IovaRange, mapping: Mapping) {
        self.mapped = self.mapped.saturating_add(range.size());
        self.mappings.insert(range.first(), mapping);
        self.suspects.retain(|suspect| !suspect.range().overlaps(range));
    }

    /// A mapping was removed by a request; what it was.
    pub(super) fn unmap(&mut self, range: IovaRange, by: u64) -> Option<Mapping> {
        let mapping = self.mappings.remove(&range.first())?;
        self.mapped = self.mapped.saturating_sub(range.size());
        let owner = Owner { range, request: mapping.request };
        self.remember(Past::Unmapped { mapping: owner, by });
        Some(mapping)
    }

    /// A mapping was split.
    pub(super) fn cut(&mut self, range: IovaRange, at: u64) {
        let Some(lower) = self.mappings.get_mut(&range.first()) else { return };
        let upper = Mapping { vaddr: lower.vaddr.wrapping_add(at - range.first()), ..*lower };
        lower.last = at - 1;
        self.mappings.insert(at, upper);
    }

    /// A mapping has another address.
    pub(super) fn set_vaddr(&mut self, range: IovaRange, vaddr: u64) {
        if let Some(mapping) = self.mappings.get_mut(&range.first()) {
            mapping.vaddr = vaddr;
        }
    }

    pub(super) fn open_window(&mut self, range: IovaRange, request: u64) {
        self.windows.insert(range.first(), Owner { range, request });
    }

    /// A window was closed; what it was.
    pub(super) fn close_window(&mut self, range: IovaRange, by: u64) -> Option<Owner> {
        let window = self.windows.remove(&range.first())?;
        self.remember(Past::Closed { window, by });
        Some(window)
    }

    /// A mapping was refused.
    pub(super) fn refused(&mut self, asked: Owner, vaddr: u64, answer: String) -> Option<Problem> {
        let fell_short = self.existing(asked.range).and_then(|existing| {
            self.suspects.iter().rev().find_map(|suspect| match suspect {
                Suspect::Unmap { asked: unmap, removed } if unmap.range.overlaps(asked.range) => {
                    Some(Problem::UnmapFellShort {
                        asked: *unmap,
                        removed: *removed,
                        existing,
                        refused: Some(asked.request),
                    })
                }
                _ => None,
            })
        });
        self.remember(Past::Refused { asked, answer: answer.clone() });
        if self.existing(asked.range).is_some() {
            self.suspect(Suspect::Map { asked, vaddr, answer });
        }
        fell_short
    }

    /// An unmap removed so many bytes.
    pub(super) fn unmapped(&mut self, asked: Owner, removed: u64) {
        if removed < asked.range.size() && self.existing(asked.range).is_some() {
            self.suspect(Suspect::Unmap { asked, removed });
        }
    }

    /// Whether any answer may have been overlooked.
    pub(super) fn has_suspects(&self) -> bool {
        !self.suspects.is_empty()
    }

    /// A device moved bytes there: whether it should not have.
    pub(super) fn moved(&self, iova: u64) -> Option<Problem> {
        let (existing, mapping) = self.mapping(iova)?;
        self.suspects.iter().rev().filter(|suspect| suspect.range().contains(iova)).find_map(
            |suspect| match suspect {
                Suspect::Map { asked, vaddr, answer } => {
                    let wanted = vaddr.wrapping_add(iova - asked.range.first());
                    let is = mapping.vaddr.wrapping_add(iova - existing.range.first());
                    let (asked, answer) = (*asked, answer.clone());
                    (is != wanted).then_some(Problem::OtherMapping { asked, answer, existing })
                }
                Suspect::Unmap { asked, removed } => {
                    let (asked, removed) = (*asked, *removed);
                    Some(Problem::UnmapFellShort { asked, removed, existing, refused: None })
                }
            },
        )
    }

    /// Why a device found nothing there.
    pub(super) fn why_unmapped(&self, iova: u64) -> Problem {
        match self.past.iter().rev().find(|past| past.range().contains(iova)) {
            Some(Past::Unmapped { mapping, by }) => {
                Problem::UnmappedEarlier { mapping: *mapping, unmapped: *by }
            }
            Some(Past::Refused { asked, answer }) => {
                Problem::MapRefused { asked: *asked, answer: answer.clone() }
            }
            Some(Past::Closed { window, by }) => {
                Problem::ClosedWindow { window: *window, closed: *by }
            }
            None => {
                let owner = |(first, mapping): (&u64, &Mapping)| owner(*first, mapping);
                let below = self.mappings.range(..=iova).next_back().and_then(owner);
                let above = self.mappings.range(iova..).next().and_then(owner);
                Problem::NeverMapped { nearest: [below, above] }
            }
        }
    }

    /// The mapping that has an IOVA.
    pub(super) fn mapping(&self, iova: u64) -> Option<(Owner, Mapping)> {
        let (first, mapping) = self.mappings.range(..=iova).next_back()?;
        (iova <= mapping.last).then_some((owner(*first, mapping)?, *mapping))
    }

    /// The lowest mapping in a range.
    fn existing(&self, range: IovaRange) -> Option<Owner> {
        if let Some((owner, _)) = self.mapping(range.first()) {
            return Some(owner);
        }
        let (first, mapping) = self.mappings.range(range.first()..=range.last()).next()?;
        owner(*first, mapping)
    }

    fn remember(&mut self, past: Past) {
        if self.past.len() >= MEMORY {
            self.past.pop_front();
        }
        self.past.push_back(past);
    }

    fn suspect(&mut self, suspect: Suspect) {
        if self.suspects.len() >= SUSPECTS {
            self.suspects.pop_front();
        }
        self.suspects.push_back(suspect);
    }
}

fn owner(first: u64, mapping: &Mapping) -> Option<Owner> {
    Some(Owner { range: IovaRange::new(first, mapping.last)?, request: mapping.request })
}
