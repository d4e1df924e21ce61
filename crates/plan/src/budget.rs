//! What a layout costs: mappings, locked memory, page tables.
//!
//! Counted as `vfio_iommu_type1` counts: one entry a mapping, one container for all devices, each
//! page of RAM charged to the process once a container. With a guest IOMMU every device has an
//! address space of its own, so a container of its own: RAM is charged once for each.

use std::collections::BTreeSet;

use iommu::IovaRange;
use serde_json::{Value, json};

use crate::host::Memlock;
use crate::layout::{Layout, bytes, hex};
use crate::size::{Bytes, Count};
use crate::view::View;

/// Bits of an address that one table resolves, with 512 entries of 8 bytes.
const LEVEL_BITS: u32 = 9;

/// Bytes of a table.
const TABLE: u128 = 4096;

/// What was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Guest {
    /// Whether the guest has an IOMMU in front of its devices.
    pub viommu: bool,
    /// Devices assigned.
    pub devices: u32,
    /// The page that mappings are made of, where it was said.
    pub iommu_page: Option<u64>,
}

/// Page tables if pages of one size are used where they fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tables {
    /// Bytes of the largest page used.
    pub page: u64,
    /// Bytes of tables in one domain.
    pub bytes: u128,
    /// In all domains.
    pub total: u128,
    /// Entries in the tables that map pages, in one domain.
    pub leaves: u128,
    /// Mappings of that size that one container may hold at most, in bytes: what a guest with an
    /// IOMMU can have mapped for one device.
    pub reach: u128,
}

/// The costs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Containers: one, or with a guest IOMMU one a device.
    pub containers: u32,
    /// Mappings of a container.
    pub entries: u64,
    /// Mappings it may have.
    pub entry_limit: u32,
    /// Bytes locked by one container.
    pub locked_each: u128,
    /// Bytes locked by all.
    pub locked: u128,
    /// Bytes that may be locked, where known.
    pub memlock: Option<Memlock>,
    /// Domains of one container: sets of page tables.
    pub domains: usize,
    /// By page size, smallest first; empty where pages are not of 4 KiB.
    pub tables: Vec<Tables>,
    /// Mappings if a guest with an IOMMU maps all of RAM for a device in pages of that size.
    pub guest_entries: Option<u128>,
    /// The page that the guest maps by.
    pub guest_page: u64,
}

impl Budget {
    /// The costs of a layout.
    #[must_use]
    pub fn of(
        view: &View,
        layout: &Layout,
        guest: Guest,
        entry_limit: u32,
        memlock: Option<Memlock>,
        domains: usize,
    ) -> Self {
        let ranges: Vec<IovaRange> =
            layout.ram.iter().chain(&layout.bars).map(|i| i.range).collect();
        let containers = if guest.viommu { guest.devices.max(1) } else { 1 };
        let locked_each = layout.ram_bytes();
        let guest_page = guest.iommu_page.unwrap_or(view.granule);
        let sizes = [1u64 << 12, 1 << 21, 1 << 30];
        let usable = |size: &u64| {
            view.page_sizes.0 & size != 0 && guest.iommu_page.is_none_or(|page| *size <= page)
        };
        let tables = if view.granule == 4096 {
            let width = view.aperture.map_or(64, |a| 64 - a.last().leading_zeros());
            sizes
                .into_iter()
                .filter(usable)
                .map(|page| {
                    let (bytes, leaves) = tables(&ranges, page, width);
                    // A container for one device has one domain.
                    let each = if guest.viommu { 1 } else { domains.max(1) as u128 };
                    let total = bytes * u128::from(containers) * each;
                    let reach = u128::from(entry_limit) * u128::from(page);
                    Tables { page, bytes, total, leaves, reach }
                })
                .collect()
        } else {
            Vec::new()
        };
        Self {
            containers,
            entries: ranges.len() as u64,
            entry_limit,
            locked_each,
            locked: locked_each * u128::from(containers),
            memlock,
            domains,
            tables,
            guest_entries: guest.viommu.then(|| {
                layout.ram.iter().map(|i| bytes(i.range).div_ceil(guest_page.into())).sum()
            }),
            guest_page,
        }
    }

    /// Whether `RLIMIT_MEMLOCK` is known and too small.
    #[must_use]
    pub fn locks_too_much(&self) -> bool {
        matches!(self.memlock, Some(Memlock::Bytes(limit)) if u128::from(limit) < self.locked)
    }

    /// What should be known before the guest starts, in sentences.
    #[must_use]
    pub fn advice(&self) -> Vec<String> {
        let mut advice = Vec::new();
        if self.locks_too_much() {
            let kib = self.locked.div_ceil(1024);
            advice.push(format!(
                "RLIMIT_MEMLOCK must be {} at least, unless the process has CAP_IPC_LOCK: ulimit -l {kib}",
                Bytes(self.locked)
            ));
        }
        if let Some(entries) = self.guest_entries
            && entries > u128::from(self.entry_limit)
        {
            let reach = u128::from(self.entry_limit) * u128::from(self.guest_page);
            advice.push(format!(
                "a guest that maps all of its RAM in pages of {} needs {} mappings a device; \
                 dma_entry_limit is {}, which is enough for {}",
                Bytes(self.guest_page.into()),
                Count(entries),
                Count(self.entry_limit.into()),
                Bytes(reach)
            ));
        }
        advice
    }

    /// As JSON.
    #[must_use]
    pub fn json(&self) -> Value {
        let big = |number: u128| format!("{number:#x}");
        let tables: Vec<Value> = self
            .tables
            .iter()
            .map(|t| {
                json!({
                    "page": hex(t.page), "bytes": big(t.bytes), "bytes_total": big(t.total),
                    "leaves": big(t.leaves), "reach": big(t.reach),
                })
            })
            .collect();
        json!({
            "containers": self.containers, "entries": self.entries,
            "entry_limit": self.entry_limit, "locked_each": big(self.locked_each),
            "locked": big(self.locked), "rlimit_memlock": self.memlock.map(Memlock::json),
            "locks_too_much": self.locks_too_much(), "domains": self.domains,
            "page_tables": tables, "guest_entries": self.guest_entries.map(big),
            "guest_page": hex(self.guest_page), "advice": self.advice(),
        })
    }
}

/// Bytes of tables, and entries that map pages, for mappings at these ranges (disjoint), in pages
/// of at most `page` bytes where they fit, with addresses of `width` bits.
fn tables(ranges: &[IovaRange], page: u64, width: u32) -> (u128, u128) {
    let mut sorted = ranges.to_vec();
    sorted.sort_unstable();
    let levels = width.saturating_sub(12).div_ceil(LEVEL_BITS).clamp(1, 6);
    let mut count = 0u128;
    let mut leaves = 0u128;
    for level in 1..levels {
        // What a table of this level covers; an entry of the level above it.
        let covers = 12 + LEVEL_BITS * level;
        let as_page = 1u64.checked_shl(covers).is_some_and(|size| size <= page);
        count += if as_page { partial(&sorted, covers) } else { touched(&sorted, covers) };
    }
    for range in &sorted {
        let mut left = *range;
        // Whole pages of each size from the inside out.
        for shift in [30u32, 21, 12] {
            let size = 1u64 << shift;
            if size > page {
                continue;
            }
            let (first, end) = (u128::from(left.first()), u128::from(left.last()) + 1);
            let size = u128::from(size);
            let (from, to) = (first.next_multiple_of(size), end / size * size);
            if from < to {
                leaves += (to - from) / size;
                leaves += smaller(first, from, shift) + smaller(to, end, shift);
                break;
            }
            if shift == 12 {
                leaves += 1;
            }
            left = *range;
        }
    }
    // The table that everything starts from is there in any case.
    ((count + 1) * TABLE, leaves)
}

/// Pages below `shift` for the odd end of a range.
fn smaller(first: u128, end: u128, shift: u32) -> u128 {
    let mut total = 0;
    let (mut first, mut end) = (first, end);
    if shift > 21 && first < end {
        let size = 1u128 << 21;
        let (from, to) = (first.next_multiple_of(size), end / size * size);
        if from < to {
            total += (to - from) / size;
            total += (from - first).div_ceil(4096) + (end - to).div_ceil(4096);
            return total;
        }
    }
    first = first / 4096 * 4096;
    end = end.next_multiple_of(4096);
    total + (end - first) / 4096
}

/// Spans of `1 << shift` bytes that the ranges touch.
fn touched(sorted: &[IovaRange], shift: u32) -> u128 {
    if shift >= 64 {
        return u128::from(!sorted.is_empty());
    }
    let mut count = 0;
    let mut last = None;
    for range in sorted {
        let (from, to) = (range.first() >> shift, range.last() >> shift);
        count += u128::from(to - from) + 1;
        count -= u128::from(last == Some(from));
        last = Some(to);
    }
    count
}

/// Spans of `1 << shift` bytes that a range touches and does not fill.
fn partial(sorted: &[IovaRange], shift: u32) -> u128 {
    let mut spans = BTreeSet::new();
    let within = (1u64 << shift) - 1;
    for range in sorted {
        let (from, to) = (range.first() >> shift, range.last() >> shift);
        let starts = range.first() & within == 0;
        let ends = range.last() & within == within;
        if !starts || (from == to && !ends) {
            spans.insert(from);
        }
        if !ends {
            spans.insert(to);
        }
    }
    spans.len() as u128
}

#[cfg(test)]
mod tests {
    use super::*;

    fn r(first: u64, size: u64) -> IovaRange {
        IovaRange::sized(first, size).unwrap()
    }

    /// Page by page, table by table.
    fn by_hand(ranges: &[IovaRange], page: u64, width: u32) -> (u128, u128) {
        let levels = (width - 12).div_ceil(9);
        let mut made = BTreeSet::new();
        let mut leaves = 0;
        for range in ranges {
            let mut at = u128::from(range.first());
            let end = u128::from(range.last()) + 1;
            while at < end {
                let fits = |size: &&u64| {
                    let bytes = u128::from(**size);
                    **size <= page && at.is_multiple_of(bytes) && at + bytes <= end
                };
                let size = [1u64 << 30, 1 << 21, 1 << 12].iter().find(fits).copied().unwrap();
                for level in 1..levels {
                    let covers = 12 + 9 * level;
                    if 1u128 << covers > u128::from(size) {
                        made.insert((level, at >> covers));
                    }
                }
                leaves += 1;
                at += u128::from(size);
            }
        }
        ((made.len() as u128 + 1) * 4096, leaves)
    }

    #[test]
    fn tables_are_counted_as_a_walk_would_make_them() {
        let cases: [&[IovaRange]; 7] = [
            &[r(0, 4096)],
            &[r(0x1000, 0x20_0000)],
            &[r(0, 1 << 30), r(0x4020_0000, 0x3fe0_0000)],
            &[r(0, 0x800_0000), r(0x810_0000, 0x2000_0000)],
            &[r(0x1f_f000, 0x2000), r(0x20_1000, 0x1000), r(0x5fff_f000, 0x1000_1000)],
            &[r(0x3fff_f000, 0x8000_2000)],
            &[r((1 << 39) - 0x1000, 0x2000), r((1 << 39) + 0x10_0000, 0x4000_0000)],
        ];
        for ranges in cases {
            for page in [1 << 12, 1 << 21, 1 << 30] {
                assert_eq!(
                    tables(ranges, page, 48),
                    by_hand(ranges, page, 48),
                    "{ranges:?} {page:#x}"
                );
            }
        }
        assert_eq!(tables(&[r(0, 1 << 30)], 4096, 39), (4096 * (512 + 1 + 1), 1 << 18));
        assert_eq!(tables(&[], 4096, 48), (4096, 0));
        assert_eq!(tables(&[IovaRange::ALL], 1 << 30, 64).1, 1 << 34);
    }
}
