//! The smallest change that makes a layout legal.
//!
//! Smallest in bytes whose address changes. Windows move first: nobody remembers where they were.
//! RAM keeps every page that is legal where it is; the rest goes behind the last bank, or else to
//! the nearest free addresses. A BAR moves whole. What comes out is checked again, and carried out
//! by the engine, before anybody sees it.

use iommu::IovaRange;

use crate::check::{Map, What};
use crate::layout::{Item, Kind, Layout, bytes};
use crate::place::{bar_align, free, nearest};
use crate::size::Bytes;
use crate::view::View;

/// Pieces that the displaced part of one bank may go to.
const MAX_PIECES: usize = 64;

/// How an item changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// It stays in part.
    Split,
    /// It goes elsewhere whole.
    Move,
    /// A window goes elsewhere.
    MoveWindow,
    /// It is left out.
    Drop,
}

impl How {
    /// The word in JSON.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Split => "split",
            Self::Move => "move",
            Self::MoveWindow => "move-window",
            Self::Drop => "drop",
        }
    }
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Which item.
    pub item: String,
    /// What it is.
    pub kind: Kind,
    /// How it changes.
    pub how: How,
    /// Where it was.
    pub from: IovaRange,
    /// Where it is now.
    pub to: Vec<IovaRange>,
    /// What made it necessary.
    pub why: String,
    /// What else must change for it, in sentences.
    pub needs: Vec<String>,
}

/// A layout that is legal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposal {
    /// What changes.
    pub changes: Vec<Change>,
    /// The layout then.
    pub layout: Layout,
    /// Bytes whose address changes.
    pub moved_bytes: u128,
}

/// Proposes; `align` is what cuts of RAM are multiples of. Whether the outcome is legal is for the
/// caller to find out.
///
/// # Errors
/// A sentence: no change of addresses helps.
pub fn propose(view: &View, layout: &Layout, maps: &[Map], align: u64) -> Result<Proposal, String> {
    for map in maps {
        for conflict in &map.conflicts {
            match conflict.what {
                What::Entries | What::Memlock => {
                    return Err(format!("{}; no other place changes that", conflict.why));
                }
                What::Alignment if map.item.range.size() & (view.granule - 1) != 0 => {
                    let up = Bytes(bytes(map.item.range).next_multiple_of(view.granule.into()));
                    return Err(format!("{}: {}; make it {up}", map.item.name, conflict.why));
                }
                _ => {}
            }
        }
    }
    let mut work = Work { view, layout: layout.clone(), changes: Vec::new(), align };
    work.windows(maps)?;
    let displaced = work.cut(maps);
    work.bars(maps)?;
    work.settle(displaced)?;
    work.shift_mmio();
    work.unique_names();
    let moved = |change: &Change| -> u128 {
        let kept = change.to.iter().filter_map(|t| t.intersection(change.from)).map(bytes);
        bytes(change.from) - kept.sum::<u128>()
    };
    let moved_bytes = work.changes.iter().filter(|c| c.how != How::Drop).map(moved).sum();
    Ok(Proposal { changes: work.changes, layout: work.layout, moved_bytes })
}

/// Part of a bank that has lost its place.
struct Displaced {
    /// The bank.
    item: Item,
    /// What stays of it.
    kept: Vec<IovaRange>,
    /// What has to go elsewhere.
    bytes: u64,
    why: String,
}

struct Work<'a> {
    view: &'a View,
    layout: Layout,
    changes: Vec<Change>,
    align: u64,
}

fn reason(map: &Map) -> String {
    let sentences: Vec<&str> = map.conflicts.iter().take(3).map(|c| c.why.as_str()).collect();
    sentences.join("; ")
}

impl Work<'_> {
    /// Every range in use but that of one item.
    fn taken(&self, but: Option<(Kind, &str)>, with_mmio: bool) -> Vec<IovaRange> {
        let others = self.layout.items().filter(|(kind, item)| but != Some((*kind, &*item.name)));
        // An empty window above 4 GiB follows RAM about in every VMM; one with a BAR stays.
        let fixed = |i: &&Item| {
            i.range.first() >> 32 == 0 || self.layout.bars.iter().any(|b| b.range.overlaps(i.range))
        };
        let mmio = self.layout.mmio.iter().filter(|_| with_mmio).filter(fixed).map(|i| i.range);
        others.map(|(_, item)| item.range).chain(mmio).collect()
    }

    /// Puts windows for BARs behind RAM that took their place; large ones shrink instead.
    fn shift_mmio(&mut self) {
        let ram: Vec<IovaRange> = self.layout.ram.iter().map(|i| i.range).collect();
        let top = ram.iter().map(|r| r.last()).max().unwrap_or(0);
        let behind = top.checked_add(1).and_then(|end| end.checked_next_multiple_of(1 << 30));
        self.layout.mmio.retain_mut(|item| {
            if !ram.iter().any(|r| r.overlaps(item.range)) {
                return true;
            }
            let size = item.range.size();
            let small = size <= 512 << 30;
            let moved = behind.filter(|_| small).and_then(|at| IovaRange::sized(at, size));
            let rest = free(&[item.range], &mut ram.clone());
            match moved.or_else(|| rest.into_iter().max_by_key(|r| bytes(*r))) {
                Some(range) => {
                    item.range = range;
                    true
                }
                None => false,
            }
        });
    }

    /// Moves windows away from whatever lies under them.
    fn windows(&mut self, maps: &[Map]) -> Result<(), String> {
        for map in maps.iter().filter(|m| m.kind == Kind::Window) {
            let (name, from) = (map.item.name.as_str(), map.item.range);
            if map.conflicts.iter().any(|c| c.what == What::Policy) {
                self.layout.windows.retain(|w| w.name != name);
                self.change(map, How::Drop, Vec::new(), reason(map));
                continue;
            }
            let under =
                self.layout.ram.iter().chain(&self.layout.bars).find(|i| i.range.overlaps(from));
            let why = match (map.is_legal(), under) {
                (true, None) => continue,
                (true, Some(item)) => format!("{} ({}) lies under it", item.name, item.range),
                (false, _) => reason(map),
            };
            let mut taken = self.taken(Some((Kind::Window, name)), true);
            let space = free(&self.view.valid, &mut taken);
            let at = nearest(&space, from.size(), self.view.granule, from.first());
            let to = at.and_then(|at| IovaRange::sized(at, from.size()));
            let to = to.ok_or_else(|| {
                format!(
                    "no free place is large enough for the window {name} ({})",
                    Bytes(bytes(from))
                )
            })?;
            if let Some(window) = self.layout.windows.iter_mut().find(|w| w.name == name) {
                window.range = to;
            }
            self.change(map, How::MoveWindow, vec![to], why);
        }
        Ok(())
    }

    /// Takes RAM out of what cannot be mapped. Windows are where they will be.
    fn cut(&mut self, maps: &[Map]) -> Vec<Displaced> {
        let mut windows: Vec<IovaRange> = self.layout.windows.iter().map(|w| w.range).collect();
        let valid = free(&self.view.valid, &mut windows);
        let mut displaced = Vec::new();
        for map in maps.iter().filter(|m| m.kind == Kind::Ram && !m.is_legal()) {
            let range = map.item.range;
            if valid.iter().any(|v| v.covers(range)) && range.first() & (self.view.granule - 1) == 0
            {
                // Only a window was in the way.
                continue;
            }
            let kept: Vec<IovaRange> = valid
                .iter()
                .filter_map(|v| inner(v.intersection(range)?, range, self.align))
                .collect();
            let stays: u128 = kept.iter().map(|k| bytes(*k)).sum();
            let gone = u64::try_from(bytes(range) - stays).unwrap_or(u64::MAX);
            let at = self.layout.ram.iter().position(|i| i.name == map.item.name);
            let Some(at) = at else { continue };
            self.layout
                .ram
                .splice(at..=at, kept.iter().enumerate().map(|(n, k)| piece(&map.item, n, *k)));
            displaced.push(Displaced {
                item: map.item.clone(),
                kept,
                bytes: gone,
                why: reason(map),
            });
        }
        displaced
    }

    /// Moves BARs, whole.
    fn bars(&mut self, maps: &[Map]) -> Result<(), String> {
        for map in maps.iter().filter(|m| m.kind == Kind::Bar && !m.is_legal()) {
            let (name, from) = (map.item.name.as_str(), map.item.range);
            let size = from.size();
            let mut taken = self.taken(Some((Kind::Bar, name)), false);
            let here = free(&self.view.valid, &mut taken);
            let align = bar_align(size, Some(from.first()), self.view.granule);
            if here.iter().any(|f| f.covers(from)) && from.first() % align == 0 {
                continue;
            }
            let within = |places: &[IovaRange]| -> Vec<IovaRange> {
                here.iter().flat_map(|f| places.iter().filter_map(|p| f.intersection(*p))).collect()
            };
            let below_4g: Vec<IovaRange> = IovaRange::new(0, 0xffff_ffff).into_iter().collect();
            let mmio: Vec<IovaRange> = self.layout.mmio.iter().map(|i| i.range).collect();
            let small = from.last() <= 0xffff_ffff;
            let at = |space: &[IovaRange]| nearest(space, size, align, from.first());
            let in_mmio = within(&mmio);
            let (found, outside) = if small {
                let in_mmio: Vec<_> =
                    in_mmio.iter().filter_map(|r| r.intersection(below_4g[0])).collect();
                (at(&in_mmio), at(&within(&below_4g)).or_else(|| at(&here)))
            } else {
                (at(&in_mmio), at(&here))
            };
            let to = found.or(outside).and_then(|at| IovaRange::sized(at, size));
            let to = to.ok_or_else(|| {
                format!(
                    "no free place is large enough for {name} ({}, aligned to {})",
                    Bytes(bytes(from)),
                    Bytes(align.into())
                )
            })?;
            let mut needs = Vec::new();
            if found.is_none() && !mmio.is_empty() {
                needs.push(
                    "no window for BARs has a legal place for it: a window must move or grow"
                        .to_owned(),
                );
            }
            if small && to.last() > 0xffff_ffff {
                needs.push("it leaves the first 4 GiB: the BAR must be a 64-bit one".to_owned());
            }
            if let Some(bar) = self.layout.bars.iter_mut().find(|b| b.name == name) {
                bar.range = to;
            }
            self.change(map, How::Move, vec![to], reason(map));
            if let Some(change) = self.changes.last_mut() {
                change.needs = needs;
            }
        }
        Ok(())
    }

    /// Finds places for RAM that lost its own.
    fn settle(&mut self, displaced: Vec<Displaced>) -> Result<(), String> {
        for part in displaced {
            let mut to = part.kept.clone();
            let mut left = part.bytes;
            while left != 0 {
                if to.len() > part.kept.len() + MAX_PIECES {
                    return Err(format!(
                        "{} would fall into more than {MAX_PIECES} pieces",
                        part.item.name
                    ));
                }
                let mut taken = self.taken(None, true);
                let space = free(&self.view.valid, &mut taken);
                let piece = self.room(&space, left, part.item.range);
                let Some(piece) = piece else {
                    let room: u128 = space.iter().map(|r| bytes(*r)).sum();
                    return Err(format!(
                        "{} of {} have no legal place: {} are free",
                        Bytes(left.into()),
                        part.item.name,
                        Bytes(room)
                    ));
                };
                left -= piece.size();
                self.add(&part.item, &mut to, piece);
            }
            let how = if part.kept.is_empty() { How::Move } else { How::Split };
            to.sort_unstable();
            let (item, kind, from) = (part.item.name.clone(), Kind::Ram, part.item.range);
            self.changes.push(Change {
                item,
                kind,
                how,
                from,
                to,
                why: part.why,
                needs: Vec::new(),
            });
        }
        Ok(())
    }

    /// Where up to `size` bytes go: behind the last bank, else whole where it is nearest, else as
    /// much as the largest free range takes.
    fn room(&self, space: &[IovaRange], size: u64, near: IovaRange) -> Option<IovaRange> {
        let top = self.layout.ram.iter().map(|i| i.range.last()).max();
        let behind =
            top.and_then(|last| last.checked_add(1)).and_then(|at| IovaRange::sized(at, size));
        if let Some(behind) = behind
            && behind.first() & (self.view.granule - 1) == 0
            && space.iter().any(|f| f.covers(behind))
        {
            return Some(behind);
        }
        let near = top.unwrap_or(near.first());
        let large = if size >= 2 << 20 { self.align.max(2 << 20) } else { self.align };
        for align in [large, self.align, self.view.granule] {
            if let Some(at) = nearest(space, size, align, near) {
                return IovaRange::sized(at, size);
            }
        }
        let parts = space.iter().filter_map(|f| inner(*f, IovaRange::ALL, self.align.min(1 << 30)));
        let largest = parts.max_by_key(|r| (bytes(*r), std::cmp::Reverse(r.first())))?;
        IovaRange::sized(
            largest.first(),
            size.min(u64::try_from(bytes(largest)).unwrap_or(u64::MAX)),
        )
    }

    /// Adds a piece of a bank: to the end of what it continues, or as a bank of its own.
    fn add(&mut self, item: &Item, to: &mut Vec<IovaRange>, piece: IovaRange) {
        let before = piece.first().checked_sub(1);
        let own = to.iter_mut().find(|r| Some(r.last()) == before);
        if let Some(own) = own
            && let Some(joined) = IovaRange::new(own.first(), piece.last())
            && let Some(bank) = self.layout.ram.iter_mut().find(|b| b.range == *own)
        {
            bank.range = joined;
            *own = joined;
            return;
        }
        let n = to.len();
        to.push(piece);
        self.layout.ram.push(self::piece(item, n, piece));
    }

    /// Gives pieces other names where somebody had them already.
    fn unique_names(&mut self) {
        let mut seen = std::collections::BTreeSet::new();
        for item in &mut self.layout.ram {
            while !seen.insert(item.name.clone()) {
                item.name.push('\'');
            }
        }
        self.layout.ram.sort_by_key(|i| i.range);
    }

    fn change(&mut self, map: &Map, how: How, to: Vec<IovaRange>, why: String) {
        let (item, kind, from) = (map.item.name.clone(), map.kind, map.item.range);
        self.changes.push(Change { item, kind, how, from, to, why, needs: Vec::new() });
    }
}

/// The aligned inside of `part`; an end that it shares with `whole` stays as it is.
fn inner(part: IovaRange, whole: IovaRange, align: u64) -> Option<IovaRange> {
    let first = if part.first() == whole.first() && whole != IovaRange::ALL {
        part.first()
    } else {
        part.first().checked_next_multiple_of(align)?
    };
    let last = if part.last() == whole.last() && whole != IovaRange::ALL {
        part.last()
    } else {
        match part.last().checked_add(1) {
            None => part.last(),
            Some(end) => (end / align * align).checked_sub(1)?,
        }
    };
    let inner = IovaRange::new(first, last)?;
    (inner.first() & (align.min(4096) - 1) == 0).then_some(inner)
}

/// A piece of a bank: the first keeps its name.
fn piece(item: &Item, n: usize, range: IovaRange) -> Item {
    let name = if n == 0 { item.name.clone() } else { format!("{}.{n}", item.name) };
    Item { name, range }
}
