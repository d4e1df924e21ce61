//! Sequences of operations on one address space.

mod check;

use iommu::{
    AddressSpace, BitmapSink, Dialect, Env, Host, IovaRange, LockBudget, LockedMemory, MapRequest,
    MmId, Prot, Translation,
};

use crate::{Input, Pins, hosts};
use check::{Before, Told};

/// Operations of one sequence at most: longer ones find nothing that shorter ones do not.
const MAX_OPS: usize = 200;

/// Runs one sequence; panics when an invariant does not hold.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let mut world = World::new(&mut input);
    world.attach_first(input.u8());
    for _ in 0..MAX_OPS {
        if input.is_empty() {
            break;
        }
        world.step(&mut input);
        world.check();
    }
    world.end();
}

/// An address space and everything around it.
struct World {
    host: Host,
    space: AddressSpace,
    pins: Pins,
    locked: LockedMemory,
    told: Told,
}

impl World {
    fn new(input: &mut Input<'_>) -> Self {
        let dialect = input.pick(&Dialect::ALL);
        let page_size = input.pick(&[0x1000, 0x1000, 0x4000]);
        let host = hosts::mixed(dialect, page_size);
        let space = AddressSpace::new(page_size, host.limits.dma_entry_limit, dialect);
        Self {
            host,
            space,
            pins: Pins::default(),
            locked: LockedMemory::default(),
            told: Told::default(),
        }
    }

    /// The address space and what a change of it needs.
    fn parts(&mut self) -> (&mut AddressSpace, &Host, Env<'_>) {
        let env =
            Env { pinner: &mut self.pins, locked: &mut self.locked, observer: &mut self.told };
        (&mut self.space, &self.host, env)
    }

    /// Attaches the groups whose bits are set: some sequences begin with an IOMMU, some without.
    fn attach_first(&mut self, groups: u8) {
        let (space, host, mut env) = self.parts();
        for group in (0..8).filter(|group| groups >> group & 1 != 0) {
            // Some refuse, or have nothing in common with those before.
            let _ = space.attach(host, &host.limits, group, None, &mut env);
        }
    }

    fn step(&mut self, input: &mut Input<'_>) {
        let before = Before::of(self);
        match input.u8() % 20 {
            0..=5 => self.map(input, &before),
            6..=8 => self.unmap(input, &before),
            9 => self.unmap_exact(input, &before),
            10 => self.cut(input, &before),
            11 | 12 => self.attach(input, &before),
            13 => self.detach(input, &before),
            14 => self.invalidate_vaddr(input, &before),
            15 => self.update_vaddr(input, &before),
            16 => self.switch_dirty(input),
            17 => self.query_dirty(input, &before),
            18 => self.unmap_dirty(input, &before),
            _ => self.bind_doorbell(input, &before),
        }
    }

    fn map(&mut self, input: &mut Input<'_>, before: &Before) {
        let Some(range) = self.range(input) else { return };
        let vaddr = input.scaled();
        let vaddr = if input.u8() & 3 == 0 { vaddr } else { vaddr & !0xffff };
        let prot = Prot::from_bits_truncate(input.u8());
        let budget = budget(input);
        let request = MapRequest { range, vaddr, prot, budget };
        let (space, _, mut env) = self.parts();
        let answer = space.map(&request, &mut env);
        before.mapped(self, &request, &answer);
    }

    fn unmap(&mut self, input: &mut Input<'_>, before: &Before) {
        let Some(range) = self.range(input) else { return };
        let (space, _, mut env) = self.parts();
        let bytes = space.unmap(range, &mut env);
        before.unmapped(self, range, bytes);
    }

    fn unmap_exact(&mut self, input: &mut Input<'_>, before: &Before) {
        let Some(range) = self.range(input) else { return };
        let (space, _, mut env) = self.parts();
        let found = space.unmap_exact(range, &mut env);
        assert_eq!(found, before.ranges().contains(&range), "unmap_exact {range}");
        if found {
            before.unmapped(self, range, range.size());
        } else {
            before.unchanged(self);
        }
    }

    fn cut(&mut self, input: &mut Input<'_>, before: &Before) {
        let at = input.near(&self.landmarks(), self.granule());
        let (space, _, mut env) = self.parts();
        match space.cut(at, &mut env) {
            Ok(()) => before.cut(self, at),
            Err(_) => before.unchanged(self),
        }
    }

    fn attach(&mut self, input: &mut Input<'_>, before: &Before) {
        let group = u32::from(input.u8() % 8);
        let mut limits = self.host.limits;
        limits.allow_unsafe_interrupts = input.u8() & 1 == 0;
        let limit_pages = budget(input).limit_pages;
        let (space, host, mut env) = self.parts();
        match space.attach(host, &limits, group, limit_pages, &mut env) {
            Ok(()) => before.attached(self, group),
            Err(_) => before.unchanged(self),
        }
    }

    fn detach(&mut self, input: &mut Input<'_>, before: &Before) {
        let group = u32::from(input.u8() % 8);
        let (space, _, mut env) = self.parts();
        if space.detach(group, &mut env) {
            before.detached(self, group);
        } else {
            before.unchanged(self);
        }
    }

    fn invalidate_vaddr(&mut self, input: &mut Input<'_>, before: &Before) {
        let Some(range) = self.range(input) else { return };
        let (space, _, mut env) = self.parts();
        match space.invalidate_vaddr(range, &mut env) {
            Ok(bytes) => before.invalidated(self, range, bytes),
            Err(_) => before.unchanged(self),
        }
    }

    fn update_vaddr(&mut self, input: &mut Input<'_>, before: &Before) {
        let Some(range) = self.range(input) else { return };
        let (vaddr, budget) = (input.scaled() & !0xffff, budget(input));
        let (space, _, mut env) = self.parts();
        match space.update_vaddr(range, vaddr, budget, &mut env) {
            Ok(()) => before.updated(self, range, vaddr),
            Err(_) => before.unchanged(self),
        }
    }

    fn switch_dirty(&mut self, input: &mut Input<'_>) {
        let on = input.u8() & 3 != 0;
        let (space, _, mut env) = self.parts();
        if on {
            // Refused for a mapping that no bitmap can hold.
            let _ = space.dirty_start(&mut env);
        } else {
            space.dirty_stop(&mut env);
        }
    }

    fn query_dirty(&mut self, input: &mut Input<'_>, before: &Before) {
        let Some(range) = self.range(input) else { return };
        let mut bitmap = Bitmap::new(input);
        let answer = self.space.dirty_query(range, &mut bitmap);
        assert!(answer.is_err() || !before.cut_by(range), "{range} cuts a mapping");
        before.unchanged(self);
    }

    fn unmap_dirty(&mut self, input: &mut Input<'_>, before: &Before) {
        let Some(range) = self.range(input) else { return };
        let mut bitmap = Bitmap::new(input);
        let (space, _, mut env) = self.parts();
        match space.unmap_dirty(range, &mut bitmap, &mut env) {
            Ok(bytes) => before.unmapped(self, range, bytes),
            // With a bad bitmap a part may be gone, as in the kernel.
            Err(iommu::DirtyRefusal::Bitmap) => {}
            Err(_) => before.unchanged(self),
        }
    }

    fn bind_doorbell(&mut self, input: &mut Input<'_>, before: &Before) {
        let group = u32::from(input.u8() % 8);
        let (space, _, mut env) = self.parts();
        let bound = space.bind_doorbell(group, &mut env);
        assert_eq!(bound.is_ok(), self.space.domain_of(group).is_some());
        let translated = self.space.domain_of(group).is_some_and(|d| d.pool().is_some());
        if let (Ok(doorbell), true) = (bound, translated) {
            let reached = self.space.translate(group, doorbell.iova, Prot::WRITE);
            assert!(matches!(reached, Ok(Translation::Doorbell { .. })), "{reached:?}");
        }
        before.unchanged(self);
    }

    /// Everything goes: nothing may stay pinned or locked.
    fn end(mut self) {
        let (space, host, mut env) = self.parts();
        for group in &host.groups {
            space.detach(group.number, &mut env);
        }
        space.unmap(IovaRange::ALL, &mut env);
        self.check();
        assert!(self.space.is_empty() && self.pins.live().is_empty());
        assert_eq!(self.locked, LockedMemory::default());
    }

    /// A range of one of the forms that requests have.
    fn range(&self, input: &mut Input<'_>) -> Option<IovaRange> {
        let granule = self.granule();
        let landmarks = self.landmarks();
        let form = input.u8();
        if form & 7 == 7 {
            return Some(IovaRange::ALL);
        }
        let first = input.near(&landmarks, granule);
        let size = match form & 7 {
            0..=2 => granule.wrapping_mul(1 + u64::from(form >> 3)),
            3 | 4 => {
                // Whatever is there, exactly.
                let found = self.space.mapping_at(first).map(|(range, _)| range);
                return found.or_else(|| IovaRange::sized(first, granule));
            }
            5 => input.near(&landmarks, granule).wrapping_sub(first),
            _ => input.scaled(),
        };
        IovaRange::sized(first, size)
    }

    /// Ranges whose edges matter: mappings, holes, the ends of the space.
    fn landmarks(&self) -> Vec<IovaRange> {
        let mut marks: Vec<_> = self.space.mappings().map(|(range, _)| range).collect();
        marks.extend(self.space.valid_ranges());
        marks.extend(self.host.groups.iter().flat_map(|g| &g.reserved).map(|r| r.range));
        marks
    }

    fn granule(&self) -> u64 {
        self.space.page_sizes().smallest()
    }
}

fn budget(input: &mut Input<'_>) -> LockBudget {
    let choice = input.u8();
    let limit_pages = match choice & 3 {
        0 | 1 => None,
        2 => Some(64),
        _ => Some(u64::from(choice >> 4)),
    };
    LockBudget { mm: MmId(u32::from(choice >> 2 & 1)), limit_pages }
}

/// A bitmap in memory that may end early.
struct Bitmap {
    words: Vec<u64>,
}

impl Bitmap {
    fn new(input: &mut Input<'_>) -> Self {
        Self { words: vec![0; input.pick(&[4096, 4096, 1, 0, 64])] }
    }
}

impl BitmapSink for Bitmap {
    fn read(&mut self, index: u64) -> Option<u64> {
        self.words.get(usize::try_from(index).ok()?).copied()
    }

    fn write(&mut self, index: u64, words: &[u64]) -> Option<()> {
        let at = usize::try_from(index).ok()?;
        self.words.get_mut(at..at.checked_add(words.len())?)?.copy_from_slice(words);
        Some(())
    }
}
