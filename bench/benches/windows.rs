//! Doorbells in windows: binding and releasing among many, and what an MSI's translation costs.

use std::hint::black_box;
use std::time::Instant;

use criterion::{BenchmarkId, Criterion};
use iommu::{
    AddressSpace, Consumer, Dialect, Env, Group, Host, InterruptController, Iommu, IovaRange,
    Limits, LockBudget, LockedMemory, MapRequest, MmId, MsiPolicy, PageSizes, PinError, PinId,
    Pinned, Pinner, Pool, Prot, ReservedKind, ReservedRegion, Translation, Window,
};

const PAGE: u64 = 0x1000;
const RW: Prot = Prot::READ.union(Prot::WRITE);
/// Translations that are timed together.
const BATCH: u32 = 20_000;
/// Rounds of which the median counts.
const ROUNDS: usize = 41;
const MAPPINGS: u64 = 65_535;
const DOORBELL: u64 = 0xfee0_0040;
const TRANSLATED: u32 = 1;
const UNTRANSLATED: u32 = 2;

fn window(first: u64, pages: u64) -> Window {
    let range = IovaRange::sized(first, pages * PAGE).expect("a window");
    Window { range, prot: RW, consumer: Consumer::MSI }
}

/// A pool of `n` windows of two pages, `n` of the pages bound.
fn pool(n: u64) -> Pool {
    let mut pool = Pool::new(PAGE, Prot::WRITE);
    for at in 0..n {
        pool.add(window(at * 4 * PAGE, 2));
    }
    for key in 0..n {
        pool.bind(Consumer::MSI, key * PAGE).expect("a page");
    }
    pool
}

struct Pins;

impl Pinner for Pins {
    fn pin(&mut self, vaddr: u64, _: u64, _: bool) -> Result<Pinned, PinError> {
        Ok(Pinned { id: PinId(vaddr), charged_pages: 0 })
    }

    fn unpin(&mut self, _: PinId) {}
}

/// A group whose MSIs are translated and one whose are not, and `mappings` mappings.
fn space(mappings: u64, windows: u64) -> (AddressSpace, u64) {
    let iommu = |msi| Iommu {
        kind: "any".into(),
        aperture: IovaRange::new(0, (1 << 48) - 1).expect("an aperture"),
        page_sizes: PageSizes(0x4020_1000),
        write_only: true,
        msi,
        msi_isolated: true,
        coherent: false,
        nests: false,
    };
    let group =
        |number, iommu, reserved| Group { number, iommu, controller: 0, devices: vec![], reserved };
    let msi = ReservedRegion {
        range: IovaRange::sized(0xfee0_0000, 0x10_0000).expect("a region"),
        kind: ReservedKind::Msi,
        prot: RW,
        owner: "x86".into(),
    };
    let host = Host {
        name: "bench".into(),
        dialect: Dialect::V7_3,
        page_size: PAGE,
        iommus: vec![iommu(MsiPolicy::User { max_windows: 8192 }), iommu(MsiPolicy::Implicit)],
        controllers: vec![InterruptController {
            kind: "any".into(),
            doorbell: DOORBELL,
            dynamic_msix: true,
        }],
        groups: vec![group(TRANSLATED, 0, vec![]), group(UNTRANSLATED, 1, vec![msi])],
        limits: Limits::default(),
    };
    let mut space = AddressSpace::new(PAGE, 65_535, &host.dialect);
    let (mut pins, mut locked) = (Pins, LockedMemory::default());
    let mut env = Env { pinner: &mut pins, locked: &mut locked, observer: &mut () };
    for number in [TRANSLATED, UNTRANSLATED] {
        space.attach(&host, &host.limits, number, None, &mut env).expect("attached");
    }
    let budget = LockBudget { mm: MmId(0), limit_pages: None };
    for n in 0..mappings {
        let range = IovaRange::sized((1 << 40) + n * 2 * PAGE, PAGE).expect("a range");
        let request = MapRequest { range, vaddr: n * PAGE, prot: RW, budget };
        space.map(&request, &mut env).expect("mapped");
    }
    for n in 0..windows {
        space.add_window(window(0x1000_0000 + n * 4 * PAGE, 1), &mut env).expect("a window");
    }
    let given = space.bind_doorbell(TRANSLATED, &mut env).expect("bound");
    (space, given.iova)
}

/// Nanoseconds of one translation, over a batch.
fn time(space: &AddressSpace, group: u32, iova: u64) -> f64 {
    let start = Instant::now();
    for _ in 0..BATCH {
        let found = space.translate(black_box(group), black_box(iova), Prot::WRITE);
        assert!(matches!(found, Ok(Translation::Doorbell { address: DOORBELL })));
    }
    start.elapsed().as_nanos() as f64 / f64::from(BATCH)
}

fn median(mut of: Vec<f64>) -> f64 {
    of.sort_by(f64::total_cmp);
    of[of.len() / 2]
}

/// Rounds of both, in turn: whatever disturbs one disturbs the other.
fn ratios() {
    for (mappings, windows) in [(0, 1), (100, 1), (MAPPINGS, 1), (MAPPINGS, 4096)] {
        let (space, iova) = space(mappings, windows);
        let (mut through, mut past, mut ratio) = (vec![], vec![], vec![]);
        for _ in 0..ROUNDS {
            let (a, b) = (time(&space, TRANSLATED, iova), time(&space, UNTRANSLATED, DOORBELL));
            through.push(a);
            past.push(b);
            ratio.push(a / b);
        }
        println!(
            "msi: {mappings} mappings, {windows} windows: translated {:.1} ns, untranslated {:.1} \
             ns, ratio {:.2}",
            median(through),
            median(past),
            median(ratio)
        );
    }
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("bind and release");
    for n in [1, 64, 4096] {
        let mut pool = pool(n);
        group.bench_function(BenchmarkId::from_parameter(n), |b| {
            b.iter(|| {
                let key = black_box(n * PAGE);
                let slot = pool.bind(Consumer::MSI, key);
                (slot, pool.release(Consumer::MSI, key))
            });
        });
    }
    group.finish();
    ratios();
    criterion.final_summary();
}
