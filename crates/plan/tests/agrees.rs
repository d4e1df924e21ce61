//! The plan and the engine, request by request: 10 000 random layouts on every kind of host.

use std::path::Path;

use iommu::{Host, IovaRange};
use proptest::prelude::*;
use softvfio_plan::engine::carry_out;
use softvfio_plan::{
    Bounds, Item, Kind, KnownHost, Layout, Plan, Question, View, Wish, Wishes, check,
};
use trace::hosts;

/// Random layouts in all.
const LAYOUTS: u32 = 10_000;

/// Every built-in host; interrupts need not be isolated.
fn machines() -> Vec<Host> {
    let load = |(name, _)| KnownHost::load(Path::new(name)).unwrap().host;
    let mut machines: Vec<Host> = hosts::list().map(load).collect();
    for host in &mut machines {
        host.limits.allow_unsafe_interrupts = true;
    }
    machines
}

/// Addresses at which something begins or ends on some host, and round ones.
fn address() -> impl Strategy<Value = u64> {
    let edges = prop::sample::select(vec![
        0u64,
        0x800_0000,
        0x810_0000,
        0x809_0000,
        0x80a_0000,
        0xfee0_0000,
        0xfef0_0000,
        0xfd_0000_0000,
        0x100_0000_0000,
        1 << 39,
        1 << 47,
        1 << 48,
        1 << 63,
        u64::MAX - 0xfff,
        0x4000_0000,
        0x1_0000_0000,
    ]);
    let off =
        prop::sample::select(vec![0i64, 0x1000, -0x1000, 0x20_0000, -0x20_0000, 1, -1, 0x800]);
    let near = (edges, off).prop_map(|(edge, off)| edge.wrapping_add_signed(off));
    prop_oneof![6 => near, 2 => (0u64..1 << 20).prop_map(|page| page << 12), 1 => any::<u64>()]
}

fn size() -> impl Strategy<Value = u64> {
    prop_oneof![
        8 => (12u32..44, 0u64..4).prop_map(|(shift, more)| (1 << shift) + more * 0x1000),
        2 => (0u32..63).prop_map(|shift| 1 << shift),
        1 => Just(u64::MAX),
        1 => 1u64..0x3000,
    ]
}

fn range() -> impl Strategy<Value = IovaRange> {
    (address(), size()).prop_filter_map("wraps", |(first, size)| IovaRange::sized(first, size))
}

fn requests() -> impl Strategy<Value = Vec<(Kind, Item)>> {
    let kind = prop_oneof![4 => Just(Kind::Ram), 2 => Just(Kind::Bar), 1 => Just(Kind::Window)];
    let all = prop::collection::vec((kind, range()), 1..12);
    all.prop_map(|list| {
        let named = |(n, (kind, range))| (kind, Item { name: format!("i{n}"), range });
        list.into_iter().enumerate().map(named).collect()
    })
}

#[test]
fn every_request_is_answered_as_the_engine_answers_it() {
    let machines = machines();
    let mut config = ProptestConfig::with_cases(LAYOUTS);
    config.failure_persistence = None;
    let any = (
        0..machines.len(),
        requests(),
        1u32..16,
        prop::option::of(0u64..1 << 26),
        (0u64..1 << 24, any::<u64>()),
    );
    let mut runner = proptest::test_runner::TestRunner::new(config);
    let outcome = runner.run(&any, |(at, requests, entries, lock_pages, (locked_pages, mask))| {
        let host = &machines[at];
        // Some groups, in any mixture.
        let mut groups: Vec<u32> = host.groups.iter().map(|g| g.number).collect();
        groups.retain(|number| mask >> (number % 64) & 1 == 1);
        if groups.is_empty() {
            groups = host.groups.iter().map(|g| g.number).collect();
        }
        let view = View::of(host, Some(&groups));
        prop_assert_eq!(&view.groups, &groups);
        let bounds = Bounds { entries, lock_pages, locked_pages, page_size: host.page_size };
        let list = || requests.iter().map(|(kind, item)| (*kind, item));
        let maps = check::check(&view, &bounds, list());
        let answers = carry_out(host, &groups, &bounds, list()).unwrap();
        for (map, refusal) in maps.iter().zip(&answers.refusals) {
            let ours = map.conflicts.first().map(|c| Some(c.what));
            let theirs = refusal.as_ref().map(|r| r.what);
            prop_assert_eq!(ours, theirs, "{:?} {:?} {:?}", map, refusal, view);
        }
        Ok(())
    });
    outcome.unwrap();
}

#[test]
fn what_may_be_mapped_is_what_the_engine_says() {
    for host in machines() {
        let view = View::of(&host, None);
        let mut space = iommu::AddressSpace::new(host.page_size, 10, &host.dialect);
        struct Nothing;
        impl iommu::Pinner for Nothing {
            fn pin(&mut self, _: u64, _: u64, _: bool) -> Result<iommu::Pinned, iommu::PinError> {
                unreachable!("nothing is mapped")
            }
            fn unpin(&mut self, _: iommu::PinId) {}
        }
        let mut locked = iommu::LockedMemory::default();
        let mut env = iommu::Env { pinner: &mut Nothing, locked: &mut locked, observer: &mut () };
        for group in &view.groups {
            space.attach(&host, &host.limits, *group, None, &mut env).unwrap();
        }
        assert_eq!(space.valid_ranges(), view.valid, "{}", host.name);
        assert_eq!(space.page_sizes(), view.page_sizes, "{}", host.name);
        assert_eq!(space.max_windows(), view.max_windows, "{}", host.name);
    }
}

/// What is proposed is legal, has every byte of RAM and every BAR, and moves nothing that could
/// have stayed.
#[test]
fn a_proposal_keeps_everything_and_is_legal() {
    let known: Vec<KnownHost> =
        hosts::list().map(|(name, _)| KnownHost::load(Path::new(name)).unwrap()).collect();
    let mut config = ProptestConfig::with_cases(1000);
    config.failure_persistence = None;
    let ram = prop::collection::vec((address(), 1u64..1 << 20), 1..5);
    let bars = prop::collection::vec((address(), 12u32..38), 0..3);
    let mut runner = proptest::test_runner::TestRunner::new(config);
    let proposed = std::cell::Cell::new(0);
    let outcome = runner.run(&(0..known.len(), ram, bars), |(at, ram, bars)| {
        let page = |value: u64| value & !0xfff;
        let ram = ram.iter().enumerate().map(|(n, (first, pages))| Wish {
            name: format!("ram{n}"),
            size: pages << 12,
            first: Some(page(*first)),
        });
        let bars = bars.iter().enumerate().map(|(n, (first, shift))| Wish {
            name: format!("bar{n}"),
            size: 1 << shift,
            first: Some(first >> shift << shift),
        });
        let wishes = Wishes { ram: ram.collect(), bars: bars.collect(), ..Wishes::default() };
        // Overlaps are bad input.
        let Ok(plan) = Plan::make(Question::new(&known[at], wishes)) else { return Ok(()) };
        let legal = plan.maps.iter().all(|m| m.conflicts.is_empty());
        prop_assert!(legal == (plan.proposal.is_none() && plan.no_proposal.is_none()));
        let Some(found) = &plan.proposal else { return Ok(()) };
        proposed.set(proposed.get() + 1);
        let bytes = |layout: &Layout| layout.ram_bytes();
        prop_assert_eq!(bytes(&found.layout), bytes(&plan.layout));
        prop_assert_eq!(found.layout.bars.len(), plan.layout.bars.len());
        for (old, new) in plan.layout.bars.iter().zip(&found.layout.bars) {
            prop_assert_eq!(old.range.size(), new.range.size());
            prop_assert_eq!(new.range.first() % new.range.size(), 0);
        }
        for map in plan.maps.iter().filter(|m| m.is_legal() && m.kind == Kind::Ram) {
            let stays = found.layout.ram.iter().any(|i| i.range.covers(map.item.range));
            prop_assert!(stays, "{:?} {:?}", map, found);
        }
        for map in plan.maps.iter().filter(|m| m.is_legal() && m.kind == Kind::Bar) {
            prop_assert!(found.layout.bars.contains(&map.item), "{:?} {:?}", map, found);
        }
        Ok(())
    });
    outcome.unwrap();
    assert!(proposed.get() > 100, "{proposed:?}");
}
