//! The rules of an address space, one by one. Numbers `#n` are rows of the kernel-semantics
//! reference's table of edge cases (section 11).

mod attach;
mod dirty;
mod map;
mod msi;
mod unmap;
mod vaddr;

use alloc::string::ToString;
use alloc::vec;
use alloc::vec::Vec;

use super::{AddressSpace, Env, MapRequest};
use crate::{
    AttachRefusal, Dialect, Event, Group, Host, InterruptController, Iommu, IovaRange, Limits,
    LockBudget, LockedMemory, MapRefusal, MmId, MsiPolicy, Observer, PageSizes, PinError, PinFault,
    PinId, Pinned, Pinner, Prot, ReservedKind, ReservedRegion,
};

const PAGE: u64 = 0x1000;
const RW: Prot = Prot::READ.union(Prot::WRITE);
/// Where the client's memory begins.
const MEMORY: u64 = 0x7f00_0000_0000;

/// Groups of the [`host`] by what their IOMMU is like.
const INTEL: u32 = 1;
const INTEL_39_BIT: u32 = 2;
const AMD: u32 = 3;
const AMD_TOO: u32 = 4;
const ARM: u32 = 5;
const ARM_TOO: u32 = 6;
const NOT_ISOLATED: u32 = 7;
const PAGES_OF_64K: u32 = 8;
const HIGH: u32 = 9;
const STRICT: u32 = 10;

fn r(first: u64, last: u64) -> IovaRange {
    IovaRange::new(first, last).unwrap()
}

fn host() -> Host {
    let window = r(0x800_0000, 0x80f_ffff);
    let arm = MsiPolicy::Fixed { window };
    let iommus = vec![
        iommu(r(0, (1 << 48) - 1), 0x4020_1000),
        iommu(r(0, (1 << 39) - 1), 0x4020_1000),
        iommu(IovaRange::ALL, !0xfff),
        Iommu { msi: arm, write_only: false, ..iommu(r(0, (1 << 48) - 1), 0x4020_1000) },
        Iommu { msi_isolated: false, ..iommu(r(0, (1 << 48) - 1), 0x4020_1000) },
        iommu(IovaRange::ALL, 0x2001_0000),
        iommu(r(1 << 60, u64::MAX), 0x1000),
    ];
    let region = |range, kind, owner: &str| ReservedRegion {
        range,
        kind,
        prot: RW,
        owner: owner.to_string(),
    };
    let apic = || region(r(0xfee0_0000, 0xfeef_ffff), ReservedKind::Msi, "the interrupt range");
    let smmu = || region(window, ReservedKind::SwMsi, "the MSI window of the SMMU");
    let ht = region(r(0xfd_0000_0000, 0xff_ffff_ffff), ReservedKind::Reserved, "HyperTransport");
    let usb = region(r(0x7000_0000, 0x7000_ffff), ReservedKind::DirectRelaxable, "USB's RMRR");
    let rmrr = region(r(0x7000_0000, 0x7000_ffff), ReservedKind::Direct, "an RMRR");
    let group = |number, iommu, controller, reserved: Vec<ReservedRegion>| Group {
        number,
        iommu,
        controller,
        devices: vec![],
        reserved,
    };
    Host {
        name: "one of each".to_string(),
        dialect: Dialect::V7_3,
        page_size: PAGE,
        iommus,
        controllers: [0xfee0_0000, 0x808_0040, 0x809_0040]
            .map(|doorbell| InterruptController {
                kind: "any".to_string(),
                doorbell,
                dynamic_msix: true,
            })
            .into(),
        groups: vec![
            group(INTEL, 0, 0, vec![apic(), usb]),
            group(INTEL_39_BIT, 1, 0, vec![apic()]),
            group(AMD, 2, 0, vec![apic(), ht]),
            group(AMD_TOO, 2, 0, vec![apic()]),
            group(ARM, 3, 1, vec![smmu()]),
            group(ARM_TOO, 3, 2, vec![smmu()]),
            group(NOT_ISOLATED, 4, 0, vec![]),
            group(PAGES_OF_64K, 5, 0, vec![]),
            group(HIGH, 6, 0, vec![]),
            group(STRICT, 0, 0, vec![rmrr]),
        ],
        limits: Limits::default(),
    }
}

fn iommu(aperture: IovaRange, page_sizes: u64) -> Iommu {
    Iommu {
        kind: "any".to_string(),
        aperture,
        page_sizes: PageSizes(page_sizes),
        write_only: true,
        msi: MsiPolicy::Implicit,
        msi_isolated: true,
        coherent: true,
        nests: false,
    }
}

/// An address space with all it needs.
struct Fixture {
    space: AddressSpace,
    host: Host,
    memory: Memory,
    locked: LockedMemory,
    events: Events,
}

impl Fixture {
    /// With these groups attached.
    fn with(groups: &[u32]) -> Self {
        Self::limited(groups, 65535)
    }

    fn limited(groups: &[u32], max_mappings: u32) -> Self {
        let host = host();
        let mut fixture = Self {
            space: AddressSpace::new(PAGE, max_mappings, &host.dialect),
            host,
            memory: Memory::default(),
            locked: LockedMemory::default(),
            events: Events::default(),
        };
        for group in groups {
            fixture.attach(*group).unwrap();
        }
        fixture.events.0.clear();
        fixture
    }

    /// Does something that needs surroundings.
    fn on<T>(&mut self, f: impl FnOnce(&mut AddressSpace, &mut Env<'_>) -> T) -> T {
        let Self { space, memory, locked, events, .. } = self;
        f(space, &mut Env { pinner: memory, locked, observer: events })
    }

    fn attach(&mut self, group: u32) -> Result<(), AttachRefusal> {
        let host = self.host.clone();
        self.on(|space, env| space.attach(&host, &host.limits, group, Some(0), env))
    }

    fn detach(&mut self, group: u32) {
        assert!(self.on(|space, env| space.detach(group, env)));
    }

    /// Maps client memory of the same address, for reading and writing and without limit.
    fn map(&mut self, iova: u64, size: u64) -> Result<(), MapRefusal> {
        self.map_limited(iova, size, None)
    }

    fn map_limited(
        &mut self,
        iova: u64,
        size: u64,
        limit_pages: Option<u64>,
    ) -> Result<(), MapRefusal> {
        let request = MapRequest {
            range: IovaRange::sized(iova, size).unwrap(),
            vaddr: MEMORY + (iova & 0xffff_ffff),
            prot: RW,
            budget: LockBudget { mm: MmId(1), limit_pages },
        };
        self.on(|space, env| space.map(&request, env))
    }

    fn ranges(&self) -> Vec<IovaRange> {
        self.space.mappings().map(|(range, _)| range).collect()
    }

    /// Pages locked by the two clients, and pins that live.
    fn held(&self) -> (u64, u64, usize) {
        (self.locked.pages(MmId(1)), self.locked.pages(MmId(2)), self.memory.live.len())
    }
}

/// Client memory without end but for one page; each page counts as locked.
#[derive(Default)]
struct Memory {
    live: Vec<PinId>,
    next: u64,
    bad: Option<u64>,
}

impl Pinner for Memory {
    fn pin(&mut self, vaddr: u64, size: u64, _write: bool) -> Result<Pinned, PinError> {
        if let Some(bad) = self.bad.filter(|b| vaddr <= *b && *b < vaddr + size) {
            let charged_pages = (bad - vaddr) / PAGE;
            return Err(PinError { vaddr: bad, charged_pages, why: PinFault::NotMapped });
        }
        self.next += 1;
        self.live.push(PinId(self.next));
        Ok(Pinned { id: PinId(self.next), charged_pages: size / PAGE })
    }

    fn unpin(&mut self, pin: PinId) {
        let at = self.live.iter().position(|p| *p == pin).expect("a live pin");
        self.live.remove(at);
    }
}

#[derive(Default)]
struct Events(Vec<Event>);

impl Observer for Events {
    fn event(&mut self, event: &Event) {
        self.0.push(*event);
    }
}
