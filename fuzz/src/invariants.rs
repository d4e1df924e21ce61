//! What holds of an address space at any time.

use std::collections::BTreeSet;

use iommu::{AddressSpace, FaultReason, IovaRange, PinId, Prot, Translation};

use crate::pins::{Pin, Pins};

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
    let attached = !space.domains().is_empty();
    let valid = space.valid_ranges();
    for range in &ranges {
        let inside = valid.is_empty() || valid.iter().any(|v| v.covers(*range));
        assert!(!attached || inside, "{range} is mapped outside {valid:?}");
    }
    check_translation(space, &ranges);

    let mut met = BTreeSet::new();
    for (range, mapping) in space.mappings() {
        assert_eq!(mapping.is_pinned(), attached, "{range}");
        if let Some((pin, found)) = pin_of(space, pins, range) {
            assert!(!mapping.prot().contains(Prot::WRITE) || found.write, "{range}");
            met.insert(pin);
        }
    }
    met
}

/// The pin behind a mapping, all of whose bytes lie in it.
fn pin_of(space: &AddressSpace, pins: &Pins, range: IovaRange) -> Option<(PinId, Pin)> {
    let group = space.domains().first()?.members().first()?.group;
    let (_, mapping) = space.mapping_at(range.first())?;
    let access = if mapping.prot().contains(Prot::READ) { Prot::READ } else { Prot::WRITE };
    let Ok(Translation::Memory { at, .. }) = space.translate(group, range.first(), access) else {
        panic!("{range} is not translated");
    };
    let pin = *pins.live().get(&at.pin).expect("a live pin");
    let end = at.offset.checked_add(range.size());
    assert!(end.is_some_and(|end| end <= pin.size), "{range} goes beyond its pin");
    Some((at.pin, pin))
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
