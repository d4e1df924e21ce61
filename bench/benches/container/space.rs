//! The engine itself: an address space with one domain attached, as a container uses it.

use iommu::{
    AddressSpace, Dialect, Env, Group, Host, InterruptController, Iommu, IovaRange, Limits,
    LockBudget, LockedMemory, MapRefusal, MapRequest, Mapping, MmId, MsiPolicy, PageSizes, Prot,
    ReservedKind, ReservedRegion, Translation,
};

use crate::pins::Pins;

/// The group attached.
const GROUP: u32 = 1;

/// [`AddressSpace`] with everything that a map and an unmap do: checks, pins, charges, events.
pub struct Space {
    space: AddressSpace,
    pins: Pins,
    locked: LockedMemory,
}

fn host() -> Host {
    let r = |first, last| IovaRange::new(first, last).expect("a range");
    let msi = ReservedRegion {
        range: r(0xfee0_0000, 0xfeef_ffff),
        kind: ReservedKind::Msi,
        prot: Prot::WRITE,
        owner: "the interrupt window".into(),
    };
    let group = Group {
        number: GROUP,
        iommu: 0,
        controller: 0,
        devices: vec!["0000:00:03.0".into()],
        reserved: vec![msi],
    };
    let controller =
        InterruptController { kind: "apic".into(), doorbell: 0xfee0_0000, dynamic_msix: true };
    Host {
        name: "bench".into(),
        dialect: Dialect::V7_3,
        page_size: 4096,
        iommus: vec![Iommu {
            kind: "vt-d".into(),
            aperture: r(0, (1 << 48) - 1),
            page_sizes: PageSizes(0x4020_1000),
            write_only: false,
            msi: MsiPolicy::Implicit,
            msi_isolated: true,
            coherent: false,
            nests: false,
        }],
        controllers: vec![controller],
        groups: vec![group],
        limits: Limits::default(),
    }
}

impl Space {
    pub fn new(limit: u32) -> Self {
        let host = host();
        let mut space = AddressSpace::new(4096, limit, &host.dialect);
        let (mut pins, mut locked) = (Pins::default(), LockedMemory::default());
        let mut env = Env { pinner: &mut pins, locked: &mut locked, observer: &mut () };
        space.attach(&host, &Limits::default(), GROUP, None, &mut env).expect("an empty space");
        Self { space, pins, locked }
    }

    pub fn map(&mut self, range: IovaRange, vaddr: u64) -> Result<(), MapRefusal> {
        let budget = LockBudget { mm: MmId(7), limit_pages: Some(u64::MAX) };
        let request = MapRequest { range, vaddr, prot: Prot::READ | Prot::WRITE, budget };
        let Self { space, pins, locked } = self;
        space.map(&request, &mut Env { pinner: pins, locked, observer: &mut () })
    }

    /// As version 2 of type1 unmaps.
    pub fn unmap(&mut self, range: IovaRange) -> Option<u64> {
        let Self { space, pins, locked } = self;
        let mut env = Env { pinner: pins, locked, observer: &mut () };
        if space.cut_by(range).is_some() {
            return None;
        }
        if space.unmap_exact(range, &mut env) {
            return Some(range.size());
        }
        Some(space.unmap(range, &mut env))
    }

    pub fn find(&self, iova: u64) -> Option<(IovaRange, &Mapping)> {
        self.space.mapping_at(iova)
    }

    pub fn translate(&self, iova: u64) -> Option<u64> {
        match self.space.translate(GROUP, iova, Prot::READ) {
            Ok(Translation::Memory { at, .. }) => Some(at.vaddr),
            _ => None,
        }
    }

    pub fn bytes(&self) -> usize {
        self.space.bytes()
    }
}
