//! A container's map, unmap, look-up and translation, one domain attached, all checks included,
//! against std's `BTreeMap` and a red-black tree of the kernel's shape that do the same checks and
//! the same accounting.
//!
//! Mappings are of 4 KiB to 2 MiB (log-uniform), naturally aligned, with random gaps, made and
//! removed in random order. Warm translations ask for pages asked for before: all of them at
//! random, or nine of ten among 128 (hot). `cargo xtask bench` prints the medians as ratios.

#![allow(missing_docs, unreachable_pub, reason = "a benchmark")]

mod peers;
mod pins;
mod space;
mod work;

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use iommu::{IovaRange, LockBudget, LockedMemory, MmId, Pinner};

use peers::{Mappings, Ordered, RedBlack, Request, Rules};
use pins::Pins;
use space::Space;
use work::Work;

/// Live mappings.
const SIZES: [usize; 3] = [1_000, 65_535, 1_000_000];
/// Pages asked for again and again.
const WARM: usize = 4096;

/// What a container can do, timed.
trait Container {
    const NAME: &'static str;
    fn new(limit: usize) -> Self;
    fn map(&mut self, range: IovaRange, vaddr: u64);
    fn unmap(&mut self, range: IovaRange);
    fn find(&self, iova: u64) -> bool;
    /// The user address behind `iova`, when it can be read.
    fn translate(&self, iova: u64) -> Option<u64>;
    fn bytes(&self) -> Option<usize> {
        None
    }
}

impl Container for Space {
    const NAME: &'static str = "softvfio";

    fn new(limit: usize) -> Self {
        Self::new(u32::try_from(limit).expect("a limit"))
    }

    fn map(&mut self, range: IovaRange, vaddr: u64) {
        self.map(range, vaddr).expect("free");
    }

    fn unmap(&mut self, range: IovaRange) {
        self.unmap(range).expect("mapped");
    }

    fn find(&self, iova: u64) -> bool {
        self.find(iova).is_some()
    }

    fn translate(&self, iova: u64) -> Option<u64> {
        self.translate(iova)
    }

    fn bytes(&self) -> Option<usize> {
        Some(self.bytes())
    }
}

/// A peer with the accounting that a container does beside its table.
struct Peer<M> {
    mappings: M,
    pins: Pins,
    locked: LockedMemory,
}

impl<M: Mappings> Container for Peer<M> {
    const NAME: &'static str = M::NAME;

    fn new(limit: usize) -> Self {
        let mappings = M::new(Rules::new(limit));
        Self { mappings, pins: Pins::default(), locked: LockedMemory::default() }
    }

    fn map(&mut self, range: IovaRange, vaddr: u64) {
        let pinned = self.pins.pin(vaddr, range.size(), true).expect("memory");
        let budget = LockBudget { mm: MmId(7), limit_pages: Some(u64::MAX) };
        self.locked.charge(budget, pinned.charged_pages).expect("no limit");
        let request = Request { iova: range.first(), size: range.size(), vaddr, prot: 3 };
        self.mappings.map(&request).expect("free");
    }

    fn unmap(&mut self, range: IovaRange) {
        let bytes = self.mappings.unmap(range).expect("mapped");
        self.locked.uncharge(MmId(7), bytes >> 12);
        self.pins.unpin(iommu::PinId(0));
    }

    fn find(&self, iova: u64) -> bool {
        self.mappings.find(iova).is_some()
    }

    fn translate(&self, iova: u64) -> Option<u64> {
        let (range, value) = self.mappings.find(iova)?;
        (value.prot & 1 != 0).then(|| value.vaddr + (iova - range.first()))
    }
}

fn filled<C: Container>(work: &Work) -> C {
    let mut c = C::new(work.live() + 1);
    work.ranges().for_each(|(range, vaddr)| c.map(range, vaddr));
    c
}

fn bench<C: Container>(criterion: &mut Criterion, work: &Work) {
    let n = work.live();
    let id = |_: &str| BenchmarkId::new(C::NAME, n);
    let mut c: C = filled(work);
    if let Some(bytes) = c.bytes() {
        println!("{}: {n} mappings take {} bytes each", C::NAME, bytes / n);
    }
    let mut group = criterion.benchmark_group("map_unmap");
    // Cycling through references copies nothing where the end is reached, and divides nothing.
    let picks = work.picked();
    let mut picks = picks.iter().cycle();
    group.bench_function(id("map_unmap"), |b| {
        b.iter(|| {
            let (range, vaddr) = *picks.next().expect("endless");
            c.unmap(black_box(range));
            c.map(black_box(range), vaddr);
        });
    });
    group.finish();
    let mut group = criterion.benchmark_group("lookup");
    let addresses = work.addresses();
    let mut addresses = addresses.iter().cycle();
    group.bench_function(id("lookup"), |b| {
        b.iter(|| c.find(black_box(*addresses.next().expect("endless"))));
    });
    group.finish();
    for (name, pages) in [("translate_warm", work.warm(WARM)), ("translate_hot", work.hot(WARM))] {
        let mut group = criterion.benchmark_group(name);
        for page in &pages {
            c.translate(*page);
        }
        let mut pages = pages.iter().cycle();
        group.bench_function(id(name), |b| {
            b.iter(|| c.translate(black_box(*pages.next().expect("endless"))));
        });
        group.finish();
    }
}

/// One request maps 2 MiB or 1 TiB.
fn big<C: Container>(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("one_request");
    for (name, size) in [("2MiB", 2u64 << 20), ("1TiB", 1 << 40)] {
        let range = IovaRange::sized(1 << 41, size).expect("a range");
        let mut c = C::new(1024);
        group.bench_function(BenchmarkId::new(C::NAME, name), |b| {
            b.iter(|| {
                c.map(black_box(range), 1 << 40);
                c.unmap(black_box(range));
            });
        });
    }
    group.finish();
}

fn all(criterion: &mut Criterion) {
    for n in SIZES {
        let work = Work::new(n);
        bench::<Space>(criterion, &work);
        bench::<Peer<Ordered>>(criterion, &work);
        bench::<Peer<RedBlack>>(criterion, &work);
    }
    big::<Space>(criterion);
}

criterion_group!(benches, all);
criterion_main!(benches);
