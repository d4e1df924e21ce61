//! The standard library's `BTreeMap`, by first address.

use std::collections::BTreeMap;

use iommu::IovaRange;

use super::{Mappings, Refusal, Request, Rules, Value, walk};

/// `BTreeMap` from the first address to the last and the value.
pub struct Ordered {
    rules: Rules,
    map: BTreeMap<u64, (u64, Value)>,
}

fn entry<'a>((first, (last, value)): (&u64, &'a (u64, Value))) -> (IovaRange, &'a Value) {
    (IovaRange::new(*first, *last).expect("a range"), value)
}

impl Ordered {
    fn first_overlap(&self, range: IovaRange) -> Option<IovaRange> {
        if let Some((found, _)) = self.find(range.first()) {
            return Some(found);
        }
        self.map.range(range.first()..=range.last()).next().map(entry).map(|(found, _)| found)
    }
}

impl Mappings for Ordered {
    const NAME: &'static str = "btreemap";

    fn new(rules: Rules) -> Self {
        Self { rules, map: BTreeMap::new() }
    }

    fn map(&mut self, request: &Request) -> Result<(), Refusal> {
        let (range, value) = self.rules.check(request, self.map.len())?;
        // One search tells: of the mappings that start in or below the range, the last must end
        // below it. Only a refusal looks for the lowest.
        if let Some((_, (last, _))) = self.map.range(..=range.last()).next_back()
            && *last >= range.first()
        {
            return Err(Refusal::Overlaps(self.first_overlap(range).unwrap_or(range)));
        }
        self.map.insert(range.first(), (range.last(), value));
        Ok(())
    }

    fn unmap(&mut self, range: IovaRange) -> Option<u64> {
        // Both ends first, as the kernel does; then each mapping costs one removal, and a search
        // only when it was not already found at the low end.
        let low = self.find(range.first()).map(|(found, _)| found);
        if low.is_some_and(|found| !range.covers(found)) {
            return None;
        }
        if self.find(range.last()).is_some_and(|(found, _)| !range.covers(found)) {
            return None;
        }
        let mut next = low.or_else(|| self.first_overlap(range));
        let mut bytes = 0;
        while let Some(found) = next {
            self.map.remove(&found.first());
            bytes += found.size();
            if found.last() == range.last() {
                break;
            }
            next = self.first_overlap(range);
        }
        Some(bytes)
    }

    fn len(&self) -> usize {
        self.map.len()
    }

    fn find(&self, iova: u64) -> Option<(IovaRange, &Value)> {
        let (range, value) = self.map.range(..=iova).next_back().map(entry)?;
        range.contains(iova).then_some((range, value))
    }

    fn segments(&self, range: IovaRange, f: impl FnMut(u64, u64)) {
        let Some((found, _)) = self.find(range.first()) else { return };
        walk(self.map.range(found.first()..).map(entry), range, f);
    }
}
