//! What must hold: after every operation, and between one and the next.

use std::collections::{BTreeMap, BTreeSet};

use iommu::{
    Event, IovaRange, LockedMemory, MapRefusal, MapRequest, Mapping, MmId, Observer, PageSizes,
    PinId,
};

use super::World;
use crate::invariants;
use crate::pins::Pin;

/// The mappings, as an observer was told of them.
#[derive(Default)]
pub(super) struct Told {
    ranges: BTreeSet<IovaRange>,
}

impl Observer for Told {
    fn event(&mut self, event: &Event) {
        match *event {
            Event::Mapped { range, .. } => assert!(self.ranges.insert(range), "twice: {range}"),
            Event::Unmapped { range } => assert!(self.ranges.remove(&range), "never: {range}"),
            Event::Cut { range, at } => {
                assert!(self.ranges.remove(&range), "never: {range}");
                self.ranges.extend(IovaRange::new(range.first(), at - 1));
                self.ranges.extend(IovaRange::new(at, range.last()));
            }
            _ => {}
        }
    }
}

impl World {
    /// What holds at any time.
    pub(super) fn check(&self) {
        let ranges = self.space.mappings().map(|(range, _)| range);
        assert!(self.told.ranges.iter().copied().eq(ranges), "the observer was told otherwise");
        let met = invariants::check(&self.space, &self.pins);
        assert!(met.iter().eq(self.pins.live().keys()), "pins met through mappings, and pins held");
        let locked: u64 = (0..2).map(|mm| self.locked.pages(MmId(mm))).sum();
        assert_eq!(locked, self.pins.charged_pages(), "locked pages");
        let limit = usize::try_from(self.host.limits.dma_entry_limit).expect("a small limit");
        assert!(self.space.len() <= limit, "{} mappings", self.space.len());
    }
}

/// The state before an operation.
pub(super) struct Before {
    mappings: Vec<(IovaRange, Mapping)>,
    valid: Vec<IovaRange>,
    page_sizes: PageSizes,
    groups: Vec<u32>,
    pins: BTreeMap<PinId, Pin>,
    locked: LockedMemory,
    dirty: bool,
}

impl Before {
    pub(super) fn of(world: &World) -> Self {
        let space = &world.space;
        Self {
            mappings: space.mappings().map(|(range, mapping)| (range, *mapping)).collect(),
            valid: space.valid_ranges(),
            page_sizes: space.page_sizes(),
            groups: groups(world),
            pins: world.pins.live().clone(),
            locked: world.locked.clone(),
            dirty: space.is_tracking_dirty(),
        }
    }

    pub(super) fn ranges(&self) -> Vec<IovaRange> {
        self.mappings.iter().map(|(range, _)| *range).collect()
    }

    /// A refusal changes nothing.
    pub(super) fn unchanged(&self, world: &World) {
        self.mappings_are(world, &self.mappings);
        assert_eq!(self.pins, *world.pins.live(), "pins");
        assert_eq!(self.locked, world.locked, "locked pages");
        self.surroundings_unchanged(world);
    }

    pub(super) fn mapped(
        &self,
        world: &World,
        request: &MapRequest,
        answer: &Result<(), MapRefusal>,
    ) {
        let overlaps = self.mappings.iter().any(|(r, _)| r.overlaps(request.range));
        match answer {
            Ok(()) => {
                assert!(!overlaps, "{} was mapped over something", request.range);
                let (range, new) = world.space.mapping_at(request.range.first()).expect("mapped");
                assert_eq!(range, request.range);
                assert_eq!((new.vaddr(), new.prot()), (request.vaddr, request.prot));
                assert_eq!(new.mm(), request.budget.mm);
                let others = world.space.mappings().filter(|(r, _)| *r != range);
                assert!(others.eq(self.mappings.iter().map(|(r, m)| (*r, m))), "other mappings");
                self.surroundings_unchanged(world);
            }
            Err(refusal) => {
                self.unchanged(world);
                match refusal {
                    MapRefusal::Overlaps { existing, nearest } => {
                        assert!(existing.overlaps(request.range) && overlaps);
                        self.legal(world, nearest);
                    }
                    MapRefusal::NotUsable { nearest, .. } => {
                        let inside = self.valid.iter().any(|v| v.covers(request.range));
                        assert!(!overlaps && !inside, "{} was legal", request.range);
                        self.legal(world, nearest);
                    }
                    MapRefusal::Misaligned { .. }
                    | MapRefusal::VaddrWraps { .. }
                    | MapRefusal::NoAccess => {}
                    _ => assert!(!overlaps, "an overlap is found before: {refusal}"),
                }
            }
        }
    }

    /// The places that a refusal offers are really to be had.
    fn legal(&self, world: &World, nearest: &iommu::refusal::Nearest) {
        for first in [nearest.above, nearest.below].into_iter().flatten() {
            let range = IovaRange::sized(first, nearest.size).expect("a range");
            assert_eq!(first % world.granule(), 0, "{range} is offered");
            let free = !self.mappings.iter().any(|(r, _)| r.overlaps(range));
            let inside = self.valid.is_empty() || self.valid.iter().any(|v| v.covers(range));
            assert!(free && inside, "{range} is offered and not to be had");
        }
    }

    /// What `range` would cut, by the naive test.
    pub(super) fn cut_by(&self, range: IovaRange) -> bool {
        self.mappings.iter().any(|(r, _)| {
            (r.contains(range.first()) && r.first() < range.first())
                || (r.contains(range.last()) && r.last() > range.last())
        })
    }

    pub(super) fn unmapped(&self, world: &World, wanted: IovaRange, bytes: u64) {
        let starts = |r: &IovaRange| wanted.contains(r.first());
        let (gone, stay): (Vec<_>, Vec<_>) = self.mappings.iter().partition(|(r, _)| starts(r));
        self.mappings_are(world, &stay);
        let sum = gone.iter().fold(0u64, |sum, (r, _)| sum.wrapping_add(r.size()));
        assert_eq!(bytes, sum, "bytes unmapped");
        self.surroundings_unchanged(world);
    }

    pub(super) fn cut(&self, world: &World, at: u64) {
        let mut expected = BTreeSet::from_iter(self.ranges());
        if let Some(whole) = expected.iter().copied().find(|r| r.contains(at) && r.first() != at) {
            expected.remove(&whole);
            expected.extend(IovaRange::new(whole.first(), at - 1));
            expected.extend(IovaRange::new(at, whole.last()));
        }
        assert!(world.space.mappings().map(|(r, _)| r).eq(expected), "cut at {at:#x}");
        for (range, new) in world.space.mappings() {
            let (old, mapping) = self.at(range.first());
            let into = range.first() - old.first();
            assert_eq!(new.vaddr(), mapping.vaddr().wrapping_add(into));
            assert_eq!((new.prot(), new.mm()), (mapping.prot(), mapping.mm()));
        }
        assert_eq!(self.pins, *world.pins.live(), "a cut pins nothing");
        assert_eq!(self.locked, world.locked, "locked pages");
    }

    pub(super) fn attached(&self, world: &World, group: u32) {
        let waiting = self.mappings.iter().any(|(_, m)| m.vaddr_is_invalid());
        assert!(!waiting, "a group came while a user address was invalid");
        let mut groups = self.groups.clone();
        groups.push(group);
        groups.sort_unstable();
        let mut now = self::groups(world);
        now.sort_unstable();
        assert_eq!(now, groups);
        assert!(world.space.mappings().map(|(r, _)| r).eq(self.ranges()));
        for valid in world.space.valid_ranges() {
            let before = self.valid.is_empty() || self.valid.iter().any(|v| v.covers(valid));
            assert!(before, "{valid} became valid with one more group");
        }
    }

    pub(super) fn detached(&self, world: &World, group: u32) {
        assert!(self.groups.contains(&group) && !groups(world).contains(&group));
        if groups(world).is_empty() {
            assert!(world.space.is_empty(), "mappings outlive the last group");
        } else {
            self.mappings_are(world, &self.mappings);
        }
    }

    pub(super) fn invalidated(&self, world: &World, wanted: IovaRange, bytes: u64) {
        let mut sum = 0u64;
        for (range, new) in world.space.mappings() {
            let (_, old) = self.at(range.first());
            let asked = wanted.contains(range.first());
            assert!(!(asked && old.vaddr_is_invalid()), "{range} was invalid already");
            assert_eq!(new.vaddr_is_invalid(), old.vaddr_is_invalid() || asked, "{range}");
            if asked {
                sum = sum.wrapping_add(range.size());
            }
        }
        assert_eq!(bytes, sum, "bytes invalidated");
        assert_eq!(self.pins, *world.pins.live(), "pins");
    }

    pub(super) fn updated(&self, world: &World, wanted: IovaRange, vaddr: u64) {
        let (old_range, old) = self.at(wanted.first());
        assert!(old_range == wanted && old.vaddr_is_invalid(), "{wanted} was not to be updated");
        let (_, new) = world.space.mapping_at(wanted.first()).expect("still mapped");
        assert!(new.vaddr() == vaddr && !new.vaddr_is_invalid());
        assert_eq!(self.pins, *world.pins.live(), "pins");
    }

    fn at(&self, iova: u64) -> (IovaRange, Mapping) {
        *self.mappings.iter().find(|(r, _)| r.contains(iova)).expect("mapped before")
    }

    fn mappings_are(&self, world: &World, expected: &[(IovaRange, Mapping)]) {
        let now: Vec<_> =
            world.space.mappings().map(|(range, mapping)| (range, *mapping)).collect();
        assert_eq!(now, expected, "mappings");
    }

    fn surroundings_unchanged(&self, world: &World) {
        assert_eq!(self.valid, world.space.valid_ranges());
        assert_eq!(self.page_sizes, world.space.page_sizes());
        assert_eq!(self.groups, groups(world));
        assert_eq!(self.dirty, world.space.is_tracking_dirty());
    }
}

fn groups(world: &World) -> Vec<u32> {
    world.space.domains().iter().flat_map(|d| d.members()).map(|m| m.group).collect()
}
