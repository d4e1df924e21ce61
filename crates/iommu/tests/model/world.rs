//! The world around the engine: a host with IOMMUs of every kind, client memory, and who pins it.

use std::collections::BTreeMap;

use iommu::{
    Dialect, Group, Host, InterruptController, Iommu, IovaRange, Limits, MsiPolicy, PageSizes,
    PinError, PinFault, PinId, Pinned, Pinner, Prot, ReservedKind, ReservedRegion,
};

/// Numbers of groups to attach: those of [`host`], one whose IOMMU is missing and one unknown.
pub(crate) const GROUPS: [u32; 18] =
    [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 99];

/// A host such as no board carries: every difference between IOMMUs at once.
pub(crate) fn host(page_size: u64) -> Host {
    let window = sized(0x800_0000, 2 * page_size);
    let fixed = MsiPolicy::Fixed { window };
    let small = 0x4020_1000;
    let iommus = vec![
        iommu(0, (1 << 39) - 1, small),
        iommu(0, u64::MAX, !0xfff),
        Iommu { write_only: false, coherent: false, msi: fixed, ..iommu(0, (1 << 48) - 1, small) },
        Iommu { write_only: false, ..iommu(0x1_0000, (1 << 56) - 1, 0x2021_0000) },
        Iommu { msi_isolated: false, coherent: false, ..iommu(0, (1 << 48) - 1, small) },
        iommu(1 << 62, u64::MAX, small),
        iommu(0x10_0000, 0x10_ffff, small),
        // The ends of these fall on single bytes that reserved regions leave.
        iommu(0x9000, (1 << 40) - 1, small),
        iommu(0, 0xa001, small),
        // These share no page size with the others.
        iommu(0, u64::MAX, 0x2001_0000),
        iommu(0, u64::MAX, 0x10_0000),
    ];
    // Regions that end with the first byte of a page take the page along, and no more.
    let msi = region(0xfee0_0000, 0xfeef_ffff, ReservedKind::Msi);
    let sw = region(window.first(), window.last(), ReservedKind::SwMsi);
    let relaxable = region(0x7000_0000, 0x7fff_ffff, ReservedKind::DirectRelaxable);
    let hole = |first, last| region(first, last, ReservedKind::Reserved);
    let groups = vec![
        group(1, 0, 0, vec![msi.clone()]),
        group(2, 0, 0, vec![msi.clone(), relaxable.clone(), hole(0x9001, 0xa000)]),
        group(3, 1, 0, vec![msi.clone(), hole(0xfd_0000_0000, 0x100_0000_0000)]),
        group(4, 1, 1, vec![relaxable, hole(0x4_0000, 0x4_4000)]),
        group(5, 2, 0, vec![sw.clone()]),
        group(6, 2, 1, vec![sw.clone()]),
        group(7, 2, 2, vec![sw.clone()]),
        group(8, 2, 3, vec![sw, msi.clone()]),
        group(9, 3, 0, vec![hole(0x20_0000, 0x30_0000)]),
        group(10, 4, 0, vec![msi.clone()]),
        group(11, 5, 0, vec![]),
        group(12, 6, 0, vec![hole(0, 0x10_7fff), hole(0x10_8000, 0x1f_ffff)]),
        group(13, 1, 0, vec![msi, region(0x3000, 0x3fff, ReservedKind::Direct)]),
        group(14, 77, 0, vec![]),
        group(15, 7, 0, vec![]),
        group(16, 8, 0, vec![]),
        group(17, 1, 0, vec![hole(0, 0x1000), hole(u64::MAX - 0xffff, u64::MAX)]),
        group(18, 9, 0, vec![]),
        group(19, 10, 0, vec![]),
    ];
    Host {
        name: "every difference at once".into(),
        dialect: Dialect::V7_3,
        page_size,
        iommus,
        controllers: [0x808_0040, 0x809_0040, 0x80a_0040, 0x808_0080].map(controller).into(),
        groups,
        limits: Limits::default(),
    }
}

fn iommu(first: u64, last: u64, page_sizes: u64) -> Iommu {
    Iommu {
        kind: "model".into(),
        aperture: IovaRange::new(first, last).expect("an aperture"),
        page_sizes: PageSizes(page_sizes),
        write_only: true,
        msi: MsiPolicy::Implicit,
        msi_isolated: true,
        coherent: true,
        nests: false,
    }
}

fn controller(doorbell: u64) -> InterruptController {
    InterruptController { kind: "model".into(), doorbell, dynamic_msix: true }
}

fn group(number: u32, iommu: usize, controller: usize, reserved: Vec<ReservedRegion>) -> Group {
    Group { number, iommu, controller, devices: vec![format!("0000:00:{number:02x}.0")], reserved }
}

fn region(first: u64, last: u64, kind: ReservedKind) -> ReservedRegion {
    let range = IovaRange::new(first, last).expect("a region");
    ReservedRegion { range, kind, prot: Prot::READ | Prot::WRITE, owner: format!("a {kind} owner") }
}

fn sized(first: u64, size: u64) -> IovaRange {
    IovaRange::sized(first, size).expect("a window")
}

/// A part of the client's memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part {
    pub(crate) first: u64,
    pub(crate) last: u64,
    /// Pages count as locked memory.
    charged: bool,
    /// What keeps a device from reading, from writing.
    faults: (Option<PinFault>, Option<PinFault>),
}

/// The client's memory, ascending; between the parts nothing is mapped.
pub(crate) const MEMORY: [Part; 8] = [
    part(0x10_0000_0000, 0x4000_0000, true, None, None),
    part(0x20_0000_0000, 0x100_0000, true, None, Some(PinFault::NotPermitted)),
    part(0x30_0000_0000, 0x100_0000, false, None, None),
    off(0x30_0100_0000, 0x100_0000, PinFault::DeviceOff),
    part(0x40_0000_0000, 0x10_0000, true, None, None),
    off(0x40_0010_0000, 0x10_0000, PinFault::BeyondFile),
    part(1 << 60, 1 << 60, true, None, None),
    part(u64::MAX - 0xf_ffff, 0x10_0000, true, None, None),
];

/// Where memory is without end, as far as a bitmap's pages go.
pub(crate) const VAST: usize = 6;

const fn part(
    first: u64,
    size: u64,
    charged: bool,
    read: Option<PinFault>,
    write: Option<PinFault>,
) -> Part {
    Part { first, last: first + (size - 1), charged, faults: (read, write) }
}

const fn off(first: u64, size: u64, why: PinFault) -> Part {
    part(first, size, false, Some(why), Some(why))
}

/// What walking a range of client memory page by page meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Walk {
    /// Pages that count as locked memory, up to the end or the fault.
    pub(crate) charged_pages: u64,
    /// The first address that cannot be pinned.
    pub(crate) fault: Option<(u64, PinFault)>,
}

/// Walks `size` bytes of client memory.
pub(crate) fn walk(vaddr: u64, size: u64, write: bool, page_size: u64) -> Walk {
    let (mut at, end) = (u128::from(vaddr), u128::from(vaddr) + u128::from(size));
    let mut charged_pages = 0;
    while at < end {
        let here = at as u64;
        let Some(part) = MEMORY.iter().find(|p| p.first <= here && here <= p.last) else {
            return Walk { charged_pages, fault: Some((here, PinFault::NotMapped)) };
        };
        if let Some(why) = if write { part.faults.1 } else { part.faults.0 } {
            return Walk { charged_pages, fault: Some((here, why)) };
        }
        let next = end.min(u128::from(part.last) + 1);
        if part.charged {
            charged_pages += ((next - at) / u128::from(page_size)) as u64;
        }
        at = next;
    }
    Walk { charged_pages, fault: None }
}

/// Pins client memory; knows what is pinned and what was never.
#[derive(Debug)]
pub(crate) struct FakePinner {
    page_size: u64,
    next: u64,
    live: BTreeMap<PinId, (u64, u64)>,
}

impl FakePinner {
    pub(crate) fn new(page_size: u64) -> Self {
        Self { page_size, next: 7, live: BTreeMap::new() }
    }

    /// The user address and size of every live pin.
    pub(crate) fn live(&self) -> Vec<(u64, u64)> {
        let mut live: Vec<_> = self.live.values().copied().collect();
        live.sort_unstable();
        live
    }

    /// The user address, at the time of pinning, of a byte of a live pin.
    pub(crate) fn home(&self, pin: PinId, offset: u64) -> Option<u64> {
        let (vaddr, size) = self.live.get(&pin)?;
        (offset < *size).then_some(vaddr + offset)
    }
}

impl Pinner for FakePinner {
    fn pin(&mut self, vaddr: u64, size: u64, write: bool) -> Result<Pinned, PinError> {
        let Walk { charged_pages, fault } = walk(vaddr, size, write, self.page_size);
        if let Some((vaddr, why)) = fault {
            return Err(PinError { vaddr, charged_pages, why });
        }
        self.next += 1;
        let id = PinId(self.next);
        self.live.insert(id, (vaddr, size));
        Ok(Pinned { id, charged_pages })
    }

    fn unpin(&mut self, pin: PinId) {
        assert!(self.live.remove(&pin).is_some(), "{pin:?} was given back twice, or never pinned");
    }
}
