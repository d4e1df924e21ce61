//! What holds of an address space at any time.

use std::collections::BTreeSet;

use iommu::{AddressSpace, FaultReason, IovaRange, PinId, Prot, Translation};

use crate::pins::Pins;

/// Group numbers that are tried.
pub const GROUPS: u32 = 8;

/// Panics when the mappings overlap or lie where they may not, when a device sees something else
/// than the table says, or when a mapping's pin is not held. Returns the pins that were met.
pub fn check(space: &AddressSpace, pins: &Pins) -> BTreeSet<PinId> {
    let ranges: Vec<_> = space.mappings().map(|(range, _)| range).collect();
    assert_eq!(ranges.len(), space.len());
    for pair in ranges.windows(2) {
        assert!(pair[0].last() < pair[1].first(), "{} and {} overlap", pair[0], pair[1]);
    }
    check_valid(space, &ranges);
    check_doorbells(space);
    check_translation(space, &ranges);
    check_pins(space, pins)
}

/// What may be mapped is what every group allows, and nothing is mapped elsewhere.
fn check_valid(space: &AddressSpace, ranges: &[IovaRange]) {
    if space.domains().is_empty() {
        return;
    }
    let valid = space.valid_ranges();
    for range in ranges {
        let inside = valid.is_empty() || valid.iter().any(|v| v.covers(*range));
        assert!(inside, "{range} is mapped outside {valid:?}");
    }
    let apertures = || space.domains().iter().map(|d| d.aperture());
    let holes = || space.reserved().map(|(_, r)| r).filter(|r| r.kind.excludes_mappings());
    for edge in apertures().chain(holes().map(|r| r.range)) {
        let beside = [edge.first().wrapping_sub(1), edge.last().wrapping_add(1)];
        for iova in beside.into_iter().chain([edge.first(), edge.last()]) {
            let allowed = apertures().all(|a| a.contains(iova))
                && !holes().any(|hole| hole.range.contains(iova));
            let reported = valid.iter().any(|v| v.contains(iova));
            assert_eq!(reported, allowed, "whether {iova:#x} is valid: {valid:?}");
        }
    }
}

/// A doorbell page has one place, in a window.
fn check_doorbells(space: &AddressSpace) {
    for pool in space.domains().iter().filter_map(|d| d.pool()) {
        let bindings: Vec<_> = pool.bindings().collect();
        let places: BTreeSet<u64> = bindings.iter().map(|(_, _, slot)| slot.iova).collect();
        assert_eq!(places.len(), bindings.len(), "{bindings:?}");
        let in_window = |iova: &u64| pool.windows().any(|w| w.range.contains(*iova));
        assert!(places.iter().all(in_window), "{bindings:?}");
    }
}

/// Every mapping lies in a pin that is held, and no two in the same part of it.
fn check_pins(space: &AddressSpace, pins: &Pins) -> BTreeSet<PinId> {
    let attached = !space.domains().is_empty();
    let mut parts = Vec::new();
    for (range, mapping) in space.mappings() {
        assert_eq!(mapping.is_pinned(), attached, "{range}");
        if let Some((id, offset)) = pin_of(space, range) {
            let pin = pins.live().get(&id).expect("a live pin");
            let end = offset.checked_add(range.size()).expect("an end");
            assert!(end <= pin.size, "{range} goes beyond its pin");
            assert!(!mapping.prot().contains(Prot::WRITE) || pin.write, "{range}");
            parts.push((id, offset, end));
        }
    }
    parts.sort_unstable();
    for pair in parts.windows(2) {
        let apart = pair[0].0 != pair[1].0 || pair[0].2 <= pair[1].1;
        assert!(apart, "two mappings have the same part of {:?}", pair[0].0);
    }
    parts.into_iter().map(|(id, ..)| id).collect()
}

/// The pin behind a mapping, and where in it the mapping begins.
fn pin_of(space: &AddressSpace, range: IovaRange) -> Option<(PinId, u64)> {
    let group = space.domains().first()?.members().first()?.group;
    let (_, mapping) = space.mapping_at(range.first())?;
    let access = if mapping.prot().contains(Prot::READ) { Prot::READ } else { Prot::WRITE };
    match space.translate(group, range.first(), access) {
        Ok(Translation::Memory { at, .. }) => Some((at.pin, at.offset)),
        other => panic!("{range} is not translated: {other:?}"),
    }
}

/// Devices see what the table says, at the edges of every mapping and beside them.
fn check_translation(space: &AddressSpace, ranges: &[IovaRange]) {
    let members = space.domains().iter().flat_map(|d| d.members());
    let groups: Vec<u32> = members.map(|m| m.group).collect();
    for range in ranges {
        let probes = [
            range.first(),
            range.last(),
            range.first().wrapping_sub(1),
            range.last().wrapping_add(1),
            range.first().wrapping_add(range.size() / 2),
        ];
        for iova in probes {
            for group in &groups {
                check_probe(space, *group, iova, ranges);
            }
        }
    }
    for group in (0..GROUPS).filter(|g| !groups.contains(g)) {
        let fault = space.translate(group, 0, Prot::READ).expect_err("not attached");
        assert_eq!(fault.reason, FaultReason::NoDomain);
    }
}

fn check_probe(space: &AddressSpace, group: u32, iova: u64, ranges: &[IovaRange]) {
    let found = ranges.iter().find(|r| r.contains(iova));
    let table = space.mapping_at(iova);
    assert_eq!(found.copied(), table.map(|(range, _)| range), "at {iova:#x}");
    for access in [Prot::READ, Prot::WRITE] {
        let answer = space.translate(group, iova, access);
        let Some((range, mapping)) = table else {
            match answer {
                Err(fault) => assert_eq!(fault.reason, FaultReason::NotMapped),
                Ok(Translation::Doorbell { .. }) => {}
                Ok(Translation::Memory { .. }) => panic!("memory at {iova:#x}, unmapped"),
            }
            continue;
        };
        match answer {
            Ok(Translation::Memory { at, bytes }) => {
                let into = iova - range.first();
                assert_eq!(at.vaddr, mapping.vaddr().wrapping_add(into));
                assert_eq!((at.mm, bytes), (mapping.mm(), range.size().wrapping_sub(into)));
                let write_only = space.domain_of(group).is_some_and(|d| d.write_only());
                let allowed =
                    mapping.prot().contains(access) || (access == Prot::READ && !write_only);
                assert!(allowed, "{access} access to {range}, which is {}", mapping.prot());
            }
            Ok(Translation::Doorbell { .. }) => panic!("a doorbell inside {range}"),
            Err(fault) => assert!(!mapping.prot().contains(access), "{fault}"),
        }
    }
}
