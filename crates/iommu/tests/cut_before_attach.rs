//! A mapping cut before any group is attached: each half is pinned on its own when one comes.

use softvfio_iommu::{
    AddressSpace, Dialect, Env, Group, Host, InterruptController, Iommu, IovaRange, Limits,
    LockBudget, LockedMemory, MapRequest, MmId, MsiPolicy, PageSizes, PinError, PinId, Pinned,
    Pinner, Prot, Translation,
};

/// A pin's number is its address.
struct Memory;

impl Pinner for Memory {
    fn pin(&mut self, vaddr: u64, size: u64, _write: bool) -> Result<Pinned, PinError> {
        Ok(Pinned { id: PinId(vaddr), charged_pages: size >> 12 })
    }

    fn unpin(&mut self, _pin: PinId) {}
}

fn host() -> Host {
    let iommu = Iommu {
        kind: "any".into(),
        aperture: IovaRange::ALL,
        page_sizes: PageSizes(0x1000),
        write_only: true,
        msi: MsiPolicy::Implicit,
        msi_isolated: true,
        coherent: false,
        nests: false,
    };
    let controller =
        InterruptController { kind: "any".into(), doorbell: 0xfee0_0000, dynamic_msix: true };
    let group = Group { number: 1, iommu: 0, controller: 0, devices: vec![], reserved: vec![] };
    Host {
        name: "any".into(),
        dialect: Dialect::default(),
        page_size: 0x1000,
        iommus: vec![iommu],
        controllers: vec![controller],
        groups: vec![group],
        limits: Limits::default(),
    }
}

#[test]
fn each_half_starts_its_own_pin() {
    let host = host();
    let mut space = AddressSpace::new(0x1000, 16, &host.dialect);
    let (mut memory, mut locked) = (Memory, LockedMemory::default());
    let mut env = Env { pinner: &mut memory, locked: &mut locked, observer: &mut () };
    let request = MapRequest {
        range: IovaRange::sized(0x10000, 0x4000).unwrap(),
        vaddr: 0x7000_0000,
        prot: Prot::READ,
        budget: LockBudget { mm: MmId(0), limit_pages: None },
    };
    space.map(&request, &mut env).unwrap();
    space.cut(0x11000, &mut env).unwrap();
    space.attach(&host, &host.limits, 1, None, &mut env).unwrap();
    let Ok(Translation::Memory { at, .. }) = space.translate(1, 0x11008, Prot::READ) else {
        panic!("not translated");
    };
    assert_eq!((at.pin, at.offset, at.vaddr), (PinId(0x7000_1000), 8, 0x7000_1008));
}
