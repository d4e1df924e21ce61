//! The model as a state machine: how it begins, what is tried in which state, what that answers.
//!
//! Weights steer: what is refused rarely by chance is asked for often where it can happen.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use iommu::Prot;
use proptest::prelude::{BoxedStrategy, Just, Strategy, any, prop_oneof};
use proptest::sample::select;
use proptest_state_machine::ReferenceStateMachine;

use super::op::{Base, Edge, Len, Limit, Memory, Op, Payer, Place, Sink, Transition, Who};
use super::outcome::Outcome;
use super::reference::{Model, Setup};
use super::world::{GROUPS, MEMORY, host};

/// The state machine of [`Model`].
pub(crate) struct Machine;

impl ReferenceStateMachine for Machine {
    type State = Model;
    type Transition = Transition;

    fn init_state() -> BoxedStrategy<Model> {
        let page_size = prop_oneof![4 => Just(0x1000u64), 1 => Just(0x4000)];
        let max_mappings = prop_oneof![2 => 2u32..6, 3 => 6u32..14, 1 => 60u32..80];
        let elsewhere = prop_oneof![Just(0u64), 1u64..50];
        (page_size, max_mappings, any::<[bool; 2]>(), elsewhere)
            .prop_map(|(page_size, max_mappings, [stray, v1], locked_elsewhere)| {
                let setup = Setup { page_size, max_mappings, stray, v1, locked_elsewhere };
                Model::new(setup, Arc::new(host(page_size)))
            })
            .boxed()
    }

    fn transitions(model: &Model) -> BoxedStrategy<Transition> {
        let Setup { max_mappings, .. } = model.setup;
        let state = State {
            mapped: !model.maps.is_empty(),
            full: model.maps.len() as u32 == max_mappings,
            attached: !model.domains.is_empty(),
            invalid: model.maps.iter().any(|m| m.invalid),
            tracking: model.tracking,
            windowed: model.domains.iter().any(|d| d.window.is_some()),
        };
        STRATEGIES
            .with_borrow_mut(|all| all.entry(state).or_insert_with(|| steps(state).boxed()).clone())
    }

    fn apply(mut model: Model, transition: &Transition) -> Model {
        let op = transition.resolve(&model);
        model.expected = model.carry_out(&op);
        model.op = op;
        model
    }
}

impl Model {
    fn carry_out(&mut self, op: &Op) -> Outcome {
        match *op {
            Op::Nothing => Outcome::Done,
            Op::Map(request) => Outcome::Map(self.map(&request)),
            Op::Cut(at) => Outcome::Cut(self.cut(at)),
            Op::Unmap(range) => Outcome::Unmap(self.unmap(range)),
            Op::UnmapAll => Outcome::Unmap(Ok(self.remove(&self.spans()))),
            Op::UnmapExact(range) => {
                let spans = self.spans();
                let found: Vec<_> = spans.into_iter().filter(|s| s.range() == range).collect();
                self.remove(&found);
                Outcome::Existed(!found.is_empty())
            }
            Op::UnmapDirty(range, sink) => {
                let (answer, words) = self.unmap_dirty(range, sink);
                Outcome::Dirty(answer, words)
            }
            Op::Invalidate(range) => Outcome::Invalidate(self.invalidate(range)),
            Op::Update { range, vaddr, budget } => {
                Outcome::Update(self.update(range, vaddr, budget))
            }
            Op::DirtyStart => Outcome::DirtyStart(self.dirty_start()),
            Op::DirtyStop => {
                self.dirty_stop();
                Outcome::Done
            }
            Op::DirtyQuery(range, sink) => {
                let (answer, words) = self.dirty_query(range, sink);
                Outcome::Dirty(answer.map(|()| 0), words)
            }
            Op::Attach { group, limit_pages, allow_unsafe } => {
                Outcome::Attach(self.attach(group, limit_pages, allow_unsafe))
            }
            Op::Detach(group) => Outcome::Existed(self.detach(group)),
            Op::Bind(group) => Outcome::Bind(self.bind(group)),
            Op::Translate { group, iova, access } => {
                Outcome::Translate(self.translate(group, iova, access))
            }
            Op::Choose { size, align } => Outcome::Choose(self.choose(size, align)),
        }
    }
}

/// What there is decides what is worth trying.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct State {
    mapped: bool,
    full: bool,
    attached: bool,
    invalid: bool,
    tracking: bool,
    windowed: bool,
}

thread_local! {
    /// Making a strategy takes longer than a step.
    static STRATEGIES: RefCell<HashMap<State, BoxedStrategy<Transition>>> = RefCell::default();
}

fn steps(state: State) -> impl Strategy<Value = Transition> {
    let State { mapped, full, attached, invalid, tracking, windowed } = state;
    let when = |yes: bool, weight: u32| if yes { weight } else { 1 };
    prop_oneof![
        30 => map(),
        when(tracking, 9) + when(!attached, 4) => vast(),
        4 => place().prop_map(Transition::Cut),
        when(full, 24) => any::<usize>().prop_map(|n| Transition::Cut(place_of(Base::Mapping(n), Edge::Middle))),
        when(mapped, 6) => (place(), len()).prop_map(|(at, len)| Transition::Unmap(at, len)),
        1 => Just(Transition::UnmapAll),
        when(mapped, 3) => exact().prop_map(|(at, len)| Transition::UnmapExact(at, len)),
        when(tracking, 4) => (place(), len(), sink())
            .prop_map(|(at, len, sink)| Transition::UnmapDirty(at, len, sink)),
        when(mapped, 7) => exact().prop_map(|(at, len)| Transition::Invalidate(at, len)),
        when(invalid, 2) => Just(Transition::InvalidateAll),
        when(invalid, 36) + 3 => update(),
        when(!tracking, 9) => Just(Transition::DirtyStart),
        1 => Just(Transition::DirtyStop),
        when(tracking && mapped, 16) => (place(), len(), sink())
            .prop_map(|(at, len, sink)| Transition::DirtyQuery(at, len, sink)),
        when(!invalid, 14) + when(!mapped, 14) + when(!attached && mapped, 14) => attach(windowed),
        when(attached, 3) => who().prop_map(Transition::Detach),
        when(attached, 4) + when(windowed, 22) => who().prop_map(Transition::Bind),
        when(mapped && attached, 10) + 6 => (who(), place(), access())
            .prop_map(|(who, at, access)| Transition::Translate { who, at, access }),
        2 => (0u64..40, select(vec![0u64, 0x1000, 0x3000, 0x1_0000, 0x20_0000, 1 << 40]))
            .prop_map(|(pages, align)| Transition::Choose { pages, align }),
    ]
}

/// A mapping: mostly one that could succeed, with one thing or another wrong in the rest.
fn map() -> impl Strategy<Value = Transition> {
    let len = prop_oneof![
        12 => (1u16..6).prop_map(Len::Pages),
        4 => (50u16..140).prop_map(Len::Pages),
        2 => Just(Len::Whole),
        2 => Just(Len::Super),
        1 => (any::<u8>(), -9i16..9).prop_map(|(pages, more)| Len::Odd(pages, more)),
    ];
    let free = prop_oneof![
        6 => (0u16..300).prop_map(Base::Page),
        6 => (0usize..6).prop_map(Base::Valid),
        3 => any::<usize>().prop_map(Base::Mapping),
        3 => any::<usize>().prop_map(Base::Reserved),
        1 => Just(Base::Top),
        1 => any::<u64>().prop_map(Base::Raw),
    ];
    (place_at(free), len, memory(), prot(), payer())
        .prop_map(|(at, len, memory, prot, payer)| Transition::Map { at, len, memory, prot, payer })
}

/// A mapping about as large as a dirty bitmap allows, which is refused or not by a page.
fn vast() -> impl Strategy<Value = Transition> {
    let base =
        prop_oneof![(0usize..6).prop_map(Base::Valid), (40u32..63).prop_map(|n| Base::Raw(1 << n))];
    let len = any::<bool>().prop_map(Len::Vast);
    let at = (base, 0i8..40).prop_map(|(base, pages)| Place {
        base,
        edge: Edge::First,
        pages: pages * 3,
        bytes: 0,
    });
    let memory = (0u16..9).prop_map(|pages| Memory { part: 0, from_end: false, pages, bytes: 0 });
    let payer = Payer { mm: 1, limit: Limit::Unlimited };
    (at, len, memory, prot()).prop_map(move |(at, len, memory, prot)| Transition::Map {
        at,
        len,
        memory,
        prot,
        payer,
    })
}

fn update() -> impl Strategy<Value = Transition> {
    let at_the_top = (1u16..3).prop_map(|pages| Memory {
        part: MEMORY.len() - 1,
        from_end: true,
        pages,
        bytes: 0,
    });
    let memory = prop_oneof![4 => memory(), 1 => at_the_top];
    let short = (1u32..3).prop_map(|mm| Payer { mm, limit: Limit::Tight(-1) });
    (exact(), memory, prop_oneof![payer(), short])
        .prop_map(|((at, len), memory, payer)| Transition::Update { at, len, memory, payer })
}

/// An attach; of groups that share a window of doorbells, where there is one.
fn attach(windowed: bool) -> impl Strategy<Value = Transition> {
    let of = |groups: &[u32]| select(groups.to_vec()).prop_map(Who::Group);
    let again = any::<usize>().prop_map(Who::Attached);
    let who = prop_oneof![
        4 => of(&[1, 2, 3, 4, 5, 6, 7, 8]),
        if windowed { 4 } else { 1 } => of(&[5, 6, 7]),
        4 => of(&[9, 10, 12, 13, 14, 18, 19]),
        3 => of(&GROUPS),
        1 => again,
    ];
    let limit = prop_oneof![2 => Just(Limit::Unlimited), 5 => (-4i8..1).prop_map(Limit::Tight)];
    (who, limit, any::<bool>()).prop_map(|(who, limit, allow_unsafe)| Transition::Attach {
        who,
        limit,
        allow_unsafe,
    })
}

fn who() -> impl Strategy<Value = Who> {
    let attached = any::<usize>().prop_map(Who::Attached);
    prop_oneof![6 => attached, 1 => select(GROUPS.to_vec()).prop_map(Who::Group)]
}

/// A mapping as a whole, or nearly so.
fn exact() -> impl Strategy<Value = (Place, Len)> {
    let base = prop_oneof![
        any::<usize>().prop_map(Base::Mapping),
        any::<usize>().prop_map(Base::Invalid),
    ];
    let whole = base.prop_map(|base| (place_of(base, Edge::First), Len::Whole));
    prop_oneof![4 => whole, 3 => (place(), len())]
}

fn place_of(base: Base, edge: Edge) -> Place {
    Place { base, edge, pages: 0, bytes: 0 }
}

fn place() -> impl Strategy<Value = Place> {
    place_at(prop_oneof![
        8 => any::<usize>().prop_map(Base::Mapping),
        2 => (0usize..6).prop_map(Base::Valid),
        2 => any::<usize>().prop_map(Base::Reserved),
        2 => (0u16..300).prop_map(Base::Page),
        1 => Just(Base::Top),
        1 => any::<u64>().prop_map(Base::Raw),
    ])
}

fn place_at(base: impl Strategy<Value = Base>) -> impl Strategy<Value = Place> {
    let edge = prop_oneof![
        4 => Just(Edge::First),
        1 => Just(Edge::Middle),
        2 => Just(Edge::LastPage),
        2 => Just(Edge::After),
    ];
    let pages = prop_oneof![4 => Just(0i8), 3 => -2i8..3, 1 => -70i8..70];
    let bytes = prop_oneof![12 => Just(0i16), 1 => -9i16..9, 1 => Just(0x800)];
    (base, edge, pages, bytes).prop_map(|(base, edge, pages, bytes)| Place {
        base,
        edge,
        pages,
        bytes,
    })
}

fn len() -> impl Strategy<Value = Len> {
    prop_oneof![
        4 => Just(Len::Whole),
        4 => (1u16..6).prop_map(Len::Pages),
        3 => (50u16..2000).prop_map(Len::Pages),
        1 => (any::<u8>(), -9i16..9).prop_map(|(pages, more)| Len::Odd(pages, more)),
        1 => any::<bool>().prop_map(Len::Vast),
    ]
}

fn memory() -> impl Strategy<Value = Memory> {
    let part = prop_oneof![6 => Just(0usize), 2 => Just(1), 6 => 0..MEMORY.len()];
    let pages = prop_oneof![3 => 0u16..6, 1 => 0u16..150];
    let bytes = prop_oneof![16 => Just(0i16), 1 => -9i16..9];
    (part, prop_oneof![2 => Just(false), 1 => Just(true)], pages, bytes)
        .prop_map(|(part, from_end, pages, bytes)| Memory { part, from_end, pages, bytes })
}

fn payer() -> impl Strategy<Value = Payer> {
    (1u32..3, limit()).prop_map(|(mm, limit)| Payer { mm, limit })
}

fn limit() -> impl Strategy<Value = Limit> {
    prop_oneof![
        3 => Just(Limit::Unlimited),
        4 => (-3i8..2).prop_map(Limit::Tight),
        2 => (20i8..60).prop_map(Limit::Tight),
    ]
}

fn sink() -> impl Strategy<Value = Sink> {
    let ends = || prop_oneof![3 => Just(u64::MAX), 1 => 0u64..4];
    (ends(), ends(), any::<u64>()).prop_map(|(readable, writable, seed)| Sink {
        readable,
        writable,
        seed,
    })
}

fn prot() -> impl Strategy<Value = Prot> {
    prop_oneof![
        1 => Just(Prot::empty()),
        5 => Just(Prot::READ),
        5 => Just(Prot::WRITE),
        9 => Just(Prot::READ | Prot::WRITE),
    ]
}

fn access() -> impl Strategy<Value = Prot> {
    prop_oneof![Just(Prot::READ), Just(Prot::WRITE), Just(Prot::READ | Prot::WRITE)]
}
