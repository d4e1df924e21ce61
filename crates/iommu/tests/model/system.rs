//! The engine under test, with everything it needs around it, held to the model after every step.

use iommu::{
    AddressSpace, BitmapSink, Dialect, Env, Event, Host, IovaRange, LockBudget, LockedMemory, MmId,
    Observer, Prot, Translation,
};
use proptest_state_machine::{ReferenceStateMachine, StateMachineTest};

use super::machine::Machine;
use super::op::{Op, Sink, Transition};
use super::outcome::{Outcome, Target, Words};
use super::reference::Model;
use super::span::TOP;
use super::tally;
use super::world::FakePinner;

const MMS: [MmId; 2] = [MmId(1), MmId(2)];
const ACCESSES: [Prot; 3] = [Prot::READ, Prot::WRITE, Prot::READ.union(Prot::WRITE)];

/// The engine and its surroundings.
pub(crate) struct System {
    space: AddressSpace,
    host: Host,
    pinner: FakePinner,
    locked: LockedMemory,
    told: Told,
    v1: bool,
    steps: u64,
}

impl StateMachineTest for System {
    type SystemUnderTest = Self;
    type Reference = Machine;

    fn init_test(model: &Model) -> Self {
        let setup = &model.setup;
        let mut dialect = Dialect::V7_3;
        dialect.dirty_bits_stray = setup.stray;
        let mut locked = LockedMemory::default();
        for mm in MMS {
            let budget = LockBudget { mm, limit_pages: None };
            locked.charge(budget, setup.locked_elsewhere).expect("no limit");
        }
        Self {
            space: AddressSpace::new(setup.page_size, setup.max_mappings, &dialect),
            host: (*model.host).clone(),
            pinner: FakePinner::new(setup.page_size),
            locked,
            told: Told::default(),
            v1: setup.v1,
            steps: 0,
        }
    }

    fn apply(mut system: Self, model: &Model, _: Transition) -> Self {
        let outcome = system.carry_out(&model.op);
        tally::count(&outcome);
        assert_eq!(
            outcome, model.expected,
            "the engine's and the model's answer to {:x?}",
            model.op
        );
        system.steps += 1;
        system
    }

    fn check_invariants(system: &Self, model: &Model) {
        system.check_mappings(model);
        system.check_domains(model);
        system.check_translation(model);
    }

    fn teardown(system: Self, model: <Machine as ReferenceStateMachine>::State) {
        let Self { mut space, mut pinner, mut locked, .. } = system;
        let mut env = Env { pinner: &mut pinner, locked: &mut locked, observer: &mut () };
        space.unmap(IovaRange::ALL, &mut env);
        assert_eq!(pinner.live(), [], "pins left behind");
        for mm in MMS {
            assert_eq!(locked.pages(mm), model.setup.locked_elsewhere, "pages left locked");
        }
    }
}

impl System {
    fn carry_out(&mut self, op: &Op) -> Outcome {
        let Self { space, host, pinner, locked, told, v1, .. } = self;
        let env = &mut Env { pinner, locked, observer: told };
        match *op {
            Op::Nothing => Outcome::Done,
            Op::Map(request) => Outcome::Map(space.map(&request, env)),
            Op::Cut(at) => Outcome::Cut(space.cut(at, env)),
            Op::Unmap(range) => Outcome::Unmap(if *v1 {
                // What the front end does for version 1 (kernel-semantics 2.5).
                match space.mapping_at(range.first()) {
                    Some((found, _)) if found.first() < range.first() => Ok(0),
                    _ => Ok(space.unmap(range, env)),
                }
            } else {
                space.cut_by(range).map_or_else(|| Ok(space.unmap(range, env)), Err)
            }),
            Op::UnmapAll => Outcome::Unmap(Ok(space.unmap(IovaRange::ALL, env))),
            Op::UnmapExact(range) => Outcome::Existed(space.unmap_exact(range, env)),
            Op::UnmapDirty(range, sink) => {
                let mut bitmap = Memory::new(sink);
                let answer = space.unmap_dirty(range, &mut bitmap, env);
                Outcome::Dirty(answer, bitmap.words)
            }
            Op::Invalidate(range) => Outcome::Invalidate(space.invalidate_vaddr(range, env)),
            Op::Update { range, vaddr, budget } => {
                Outcome::Update(space.update_vaddr(range, vaddr, budget, env))
            }
            Op::DirtyStart => Outcome::DirtyStart(space.dirty_start(env)),
            Op::DirtyStop => {
                space.dirty_stop(env);
                Outcome::Done
            }
            Op::DirtyQuery(range, sink) => {
                let mut bitmap = Memory::new(sink);
                let answer = space.dirty_query(range, &mut bitmap);
                Outcome::Dirty(answer.map(|()| 0), bitmap.words)
            }
            Op::Attach { group, limit_pages, allow_unsafe } => {
                let mut limits = host.limits;
                limits.allow_unsafe_interrupts = allow_unsafe;
                Outcome::Attach(space.attach(host, &limits, group, limit_pages, env))
            }
            Op::Detach(group) => Outcome::Existed(space.detach(group, env)),
            Op::Bind(group) => Outcome::Bind(space.bind_doorbell(group, env).map(|d| d.iova)),
            Op::Translate { group, iova, access } => {
                Outcome::Translate(self.translate(group, iova, access))
            }
            Op::Choose { size, align } => Outcome::Choose(space.choose_iova(size, align)),
        }
    }

    fn translate(&self, group: u32, iova: u64, access: Prot) -> Result<Target, iommu::Fault> {
        Ok(match self.space.translate(group, iova, access)? {
            Translation::Memory { at, bytes } => {
                let home = self.pinner.home(at.pin, at.offset).expect("memory that is pinned");
                Target::Memory { home, vaddr: at.vaddr, mm: at.mm, bytes }
            }
            Translation::Doorbell { address } => Target::Doorbell(address),
        })
    }

    fn check_mappings(&self, model: &Model) {
        let space = &self.space;
        let found: Vec<_> = space
            .mappings()
            .map(|(r, m)| (r, m.vaddr(), m.mm(), m.prot(), m.is_pinned(), m.vaddr_is_invalid()))
            .collect();
        let expected: Vec<_> = model
            .spans()
            .into_iter()
            .map(|s| {
                let m = model.at(s.first).expect("it is there");
                (s.range(), m.vaddr, m.mm, m.prot, m.pin.is_some(), m.invalid)
            })
            .collect();
        assert_eq!(found, expected, "mappings");
        assert_eq!((space.len(), space.is_empty()), (expected.len(), expected.is_empty()), "len");
        assert_eq!(space.available(), model.available(), "available");
        assert_eq!(space.is_tracking_dirty(), model.tracking, "tracking");
        let told: Vec<_> = expected.iter().map(|e| (e.0, e.1)).collect();
        assert_eq!(self.told.mappings, told, "what the observer was told");
        for mm in MMS {
            assert_eq!(u128::from(self.locked.pages(mm)), model.locked(mm), "pages locked: {mm:?}");
        }
        let mut pins: Vec<_> = model.pins.iter().map(|p| (p.vaddr, p.size as u64)).collect();
        pins.sort_unstable();
        assert_eq!(self.pinner.live(), pins, "live pins");
    }

    fn check_domains(&self, model: &Model) {
        let valid: Vec<IovaRange> = model.valid.iter().map(|v| v.range()).collect();
        assert_eq!(self.space.valid_ranges(), valid, "valid ranges");
        assert_eq!(self.space.page_sizes().0, model.page_sizes(), "page sizes");
        let inside = |m: &super::reference::Mapping| {
            valid.is_empty() || model.valid.iter().any(|v| m.span.inside(*v))
        };
        assert!(model.maps.iter().all(inside), "a mapping outside the valid ranges");
        let reserved: Vec<_> = self.space.reserved().collect();
        assert_eq!(reserved, model.reserved(), "reserved regions");
        let coherent = model.domains.iter().all(|d| model.host.iommus[d.iommu].coherent);
        assert_eq!(self.space.is_coherent(), coherent, "coherency");
        assert_eq!(self.space.domains().len(), model.domains.len(), "domains");
        for (found, expected) in self.space.domains().iter().zip(&model.domains) {
            let groups: Vec<u32> = found.members().iter().map(|m| m.group).collect();
            assert_eq!(groups, expected.groups, "groups of a domain");
            let doorbells: Option<Vec<_>> = found.pool().map(|pool| {
                let mut bound: Vec<_> =
                    pool.bindings().map(|(_, p, slot)| (p, slot.iova)).collect();
                bound.sort_by_key(|(_, iova)| *iova);
                bound
            });
            let page = model.page_size();
            let bound = expected.window.as_ref().map(|(window, bound)| {
                let nth = |(n, p): (usize, &u64)| (p * page, window.first as u64 + n as u64 * page);
                bound.iter().enumerate().map(nth).collect()
            });
            assert_eq!(doorbells, bound, "doorbells");
        }
    }

    /// What devices meet: around every mapping and doorbell, and anywhere else.
    fn check_translation(&self, model: &Model) {
        let mut probes = vec![0, u64::MAX];
        for span in model.spans() {
            let around = [span.first, span.first + span.size() / 2, span.end - 1, span.end];
            probes.extend(around.iter().filter(|at| **at < TOP).map(|at| *at as u64));
            probes.extend(span.first.checked_sub(1).map(|at| at as u64));
        }
        for (window, bound) in model.domains.iter().filter_map(|d| d.window.as_ref()) {
            let page = u128::from(model.page_size());
            let ends = (0..=bound.len() as u128).map(|n| window.first + n * page);
            probes.extend(ends.flat_map(|at| [at as u64 - 1, at as u64 + 0x40]));
        }
        let anywhere = self.steps.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        probes.extend([anywhere, anywhere >> 24, anywhere >> 34]);
        // One group of each domain, in turn.
        for domain in &model.domains {
            let group = domain.groups[self.steps as usize % domain.groups.len()];
            for (n, iova) in probes.iter().enumerate() {
                let access = ACCESSES[(n + self.steps as usize) % ACCESSES.len()];
                let (found, expected) =
                    (self.translate(group, *iova, access), model.translate(group, *iova, access));
                assert_eq!(found, expected, "{access} of group {group} at {iova:#x}");
            }
        }
    }
}

/// The client's memory with a bitmap in it.
struct Memory {
    sink: Sink,
    words: Words,
}

impl Memory {
    fn new(sink: Sink) -> Self {
        Self { sink, words: Words(sink.memory()) }
    }
}

impl BitmapSink for Memory {
    fn read(&mut self, index: u64) -> Option<u64> {
        (index < self.sink.readable).then(|| self.words.0[index as usize])
    }

    fn write(&mut self, index: u64, words: &[u64]) -> Option<()> {
        if index + words.len() as u64 > self.sink.writable {
            return None;
        }
        let at = index as usize;
        self.words.0[at..at + words.len()].copy_from_slice(words);
        Some(())
    }
}

/// Mappings, as far as events tell.
#[derive(Default)]
struct Told {
    mappings: Vec<(IovaRange, u64)>,
}

impl Told {
    fn remove(&mut self, range: IovaRange) -> u64 {
        let at = self.mappings.iter().position(|(r, _)| *r == range).expect("told of before");
        self.mappings.remove(at).1
    }

    fn insert(&mut self, range: IovaRange, vaddr: u64) {
        self.mappings.push((range, vaddr));
        self.mappings.sort_unstable();
    }
}

impl Observer for Told {
    fn event(&mut self, event: &Event) {
        match *event {
            Event::Mapped { range, vaddr, .. } => self.insert(range, vaddr),
            Event::Unmapped { range } => {
                self.remove(range);
            }
            Event::Cut { range, at } => {
                let vaddr = self.remove(range);
                let low = IovaRange::new(range.first(), at - 1).expect("a lower half");
                self.insert(low, vaddr);
                let high = IovaRange::new(at, range.last()).expect("an upper half");
                self.insert(high, vaddr + low.size());
            }
            Event::VaddrUpdated { range, vaddr } => {
                self.remove(range);
                self.insert(range, vaddr);
            }
            _ => {}
        }
    }
}
