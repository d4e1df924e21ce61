//! Ordinary operations outside the windows answer alike with and without them.

use proptest::prelude::Rng;
use proptest::test_runner::{RngAlgorithm, TestRng};
use softvfio_iommu::{
    BitmapSink, Consumer, DirtyRefusal, IovaRange, LockBudget, MapRefusal, MapRequest, MmId, Prot,
    Translation, VaddrRefusal, Window,
};

use super::lab::{BAD, Lab, RW, host};
use super::world::{PAGE, range, sound};

/// Where windows go; every group suits them. Mappings stay below or above.
const WINDOWS: u64 = 0x1010_0000;
const WINDOW_PAGES: u64 = 16;
const GROUPS: [u32; 8] = [1, 2, 3, 6, 7, 8, 11, 12];

#[derive(Debug, PartialEq)]
enum Answer {
    Map(Result<(), MapRefusal>),
    Unmap(Result<u64, IovaRange>),
    Cut(Result<(), MapRefusal>),
    Existed(bool),
    Vaddr(Result<u64, VaddrRefusal>),
    Dirty(Result<u64, DirtyRefusal>, Vec<u64>),
    Attach(bool),
    Reach(Option<(u64, u64)>),
}

/// A bitmap in memory of its own.
struct Bitmap(Vec<u64>);

impl BitmapSink for Bitmap {
    fn read(&mut self, index: u64) -> Option<u64> {
        self.0.get(index as usize).copied()
    }

    fn write(&mut self, index: u64, words: &[u64]) -> Option<()> {
        let at = index as usize;
        self.0.get_mut(at..at + words.len())?.copy_from_slice(words);
        Some(())
    }
}

/// What is near differs: windows are not legal. The rest of a refusal does not.
fn apart_from_near(refusal: MapRefusal) -> MapRefusal {
    let nearest = softvfio_iommu::refusal::Nearest::default();
    match refusal {
        MapRefusal::Overlaps { existing, .. } => MapRefusal::Overlaps { existing, nearest },
        MapRefusal::NotUsable { why, .. } => MapRefusal::NotUsable { why, nearest },
        other => other,
    }
}

/// One ordinary operation, wherever the bits say.
fn ordinary(lab: &mut Lab, bits: u64) -> Answer {
    let by = |n: u32| (bits >> (8 * n)) & 0xff;
    let first = 0x1000_0000 + by(1) % 40 * PAGE + by(2) % 3 * 0x20_0000;
    let pages = 1 + by(3) % 6;
    let odd = if by(4) % 16 == 0 { 0x800 } else { 0 };
    let small = IovaRange::sized(first + odd, pages * PAGE).expect("far from the end");
    // Removing and asking may span the windows: they are not seen.
    let wide = match by(5) % 4 {
        0 => IovaRange::new(0x1000_0000, 0x107f_ffff).expect("a range"),
        1 => range(first, WINDOW_PAGES * 64),
        _ => small,
    };
    let vaddr = if by(6) % 12 == 0 { BAD } else { 0x7000_0000 + by(6) * PAGE };
    let budget = LockBudget { mm: MmId(1), limit_pages: (by(7) % 4 == 0).then_some(12) };
    let group = GROUPS[(by(7) % 8) as usize];
    lab.on(|space, host, env| match by(0) % 32 {
        0..10 => {
            let prot = [RW, Prot::READ, Prot::WRITE][(by(4) % 3) as usize];
            let request = MapRequest { range: small, vaddr, prot, budget };
            Answer::Map(space.map(&request, env).map_err(apart_from_near))
        }
        10..13 => Answer::Unmap(space.cut_by(wide).map_or_else(|| Ok(space.unmap(wide, env)), Err)),
        13 => Answer::Unmap(Ok(space.unmap(IovaRange::ALL, env))),
        14 => Answer::Existed(space.unmap_exact(small, env)),
        15..17 => Answer::Cut(space.cut(first + odd, env)),
        17 => Answer::Vaddr(space.invalidate_vaddr(wide, env)),
        18..21 => {
            let found = space.mappings().find(|(_, m)| m.vaddr_is_invalid()).map(|(r, _)| r);
            let range = found.unwrap_or(small);
            Answer::Vaddr(space.update_vaddr(range, vaddr, budget, env).map(|()| 0))
        }
        21..23 => Answer::Dirty(space.dirty_start(env).map(|()| 0), vec![]),
        23..25 => {
            let mut bitmap = Bitmap(vec![bits; 64]);
            let answer = space.dirty_query(wide, &mut bitmap).map(|()| 0);
            Answer::Dirty(answer, bitmap.0)
        }
        25..27 => {
            let mut bitmap = Bitmap(vec![bits; if by(4) % 4 == 0 { 1 } else { 64 }]);
            let answer = space.unmap_dirty(wide, &mut bitmap, env);
            Answer::Dirty(answer, bitmap.0)
        }
        27 if by(1) % 4 == 0 => {
            space.dirty_stop(env);
            Answer::Existed(true)
        }
        27..29 => {
            let attached = space.attach(host, &host.limits, group, Some(64), env);
            Answer::Attach(attached.is_ok())
        }
        // The last group takes the windows along, so one stays.
        29 if group != 1 => Answer::Existed(space.detach(group, env)),
        _ => Answer::Reach(match space.translate(1, first + 0x123, Prot::WRITE) {
            Ok(Translation::Memory { at, bytes }) => Some((at.vaddr, bytes)),
            _ => None,
        }),
    })
}

/// Something about windows, on one side only. Whether it was done.
fn about_windows(lab: &mut Lab, bits: u64) -> bool {
    let at = WINDOWS + (bits >> 8) % 4 * 0x4_0000;
    let group = GROUPS[(bits >> 16) as usize % 8];
    lab.on(|space, _, env| match bits % 8 {
        0..3 if space.windows().count() < 2 => {
            let range = range(at, WINDOW_PAGES);
            let window = Window { range, prot: RW, consumer: Consumer::MSI };
            space.add_window(window, env).is_ok()
        }
        3 => space.remove_window(range(at, WINDOW_PAGES), env) == Ok(true),
        4 => space.remove_all_windows(env).is_ok_and(|bytes| bytes != 0),
        5..7 => space.bind_doorbell(group, env).is_ok(),
        _ => {
            space.release_doorbell(group, env);
            true
        }
    })
}

#[test]
fn ordinary_operations_do_not_see_windows() {
    let _sound = sound();
    let mut rng = TestRng::from_seed(RngAlgorithm::XorShift, &[5; 16]);
    let (mut about, mut with_windows, mut refused) = (0, 0, 0);
    for _ in 0..150 {
        let (mut with, mut without) = (Lab::new(host(), 8), Lab::new(host(), 8));
        for lab in [&mut with, &mut without] {
            lab.on(|space, host, env| space.attach(host, &host.limits, 1, None, env)).unwrap();
        }
        for _ in 0..120 {
            let bits = rng.next_u64();
            if bits >> 62 == 0 {
                about += u32::from(about_windows(&mut with, bits));
            }
            with_windows += u32::from(with.space.windows().next().is_some());
            let bits = rng.next_u64();
            let answer = ordinary(&mut with, bits);
            assert_eq!(answer, ordinary(&mut without, bits), "operation {bits:#x}");
            refused += u32::from(matches!(
                answer,
                Answer::Map(Err(_))
                    | Answer::Unmap(Err(_))
                    | Answer::Vaddr(Err(_))
                    | Answer::Dirty(Err(_), _)
                    | Answer::Cut(Err(_))
                    | Answer::Attach(false)
            ));
            assert_same(&with, &without);
        }
    }
    println!(
        "{about} changes of windows, {with_windows} operations beside some, {refused} refused"
    );
    assert!(about > 1000 && with_windows > 5000 && refused > 1000);
}

fn assert_same(with: &Lab, without: &Lab) {
    let (a, b) = (&with.space, &without.space);
    assert!(a.mappings().eq(b.mappings()), "mappings, pins and charges");
    assert_eq!((a.available(), a.page_sizes()), (b.available(), b.page_sizes()), "DMA_AVAIL");
    assert_eq!(a.is_tracking_dirty(), b.is_tracking_dirty(), "tracking");
    assert_eq!(with.locked.pages(MmId(1)), without.locked.pages(MmId(1)), "locked memory");
    assert_eq!(with.pins.live, without.pins.live, "pins");
    // The valid ranges are those without windows, less the windows.
    let mut valid = b.valid_ranges();
    for window in a.windows() {
        let cut = valid.iter().flat_map(|v| {
            if !v.overlaps(window.range) {
                return vec![*v];
            }
            let (below, above) = v.without(window.range);
            below.into_iter().chain(above).collect()
        });
        valid = cut.collect();
    }
    assert_eq!(a.valid_ranges(), valid, "valid ranges");
}
