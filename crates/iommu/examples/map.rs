//! A host, a group, a mapping; what a device then sees, and why another mapping is refused.
//!
//! `cargo run -p softvfio-iommu --example map`

use softvfio_iommu::{
    AddressSpace, Dialect, Env, Group, Host, InterruptController, Iommu, IovaRange, Limits,
    LockBudget, LockedMemory, MapRefusal, MapRequest, MmId, MsiPolicy, PageSizes, PinError, PinId,
    Pinned, Pinner, Prot, ReservedKind, ReservedRegion, Translation,
};

/// An Arm host: one SMMU, which keeps 1 MiB at 0x8000000 for MSIs, and one group behind it.
fn arm_host() -> Host {
    let window = IovaRange::new(0x800_0000, 0x80f_ffff).expect("first <= last");
    let smmu = Iommu {
        kind: "smmuv3".into(),
        aperture: IovaRange::new(0, 0xffff_ffff_ffff).expect("first <= last"),
        page_sizes: PageSizes(0x4020_1000),
        write_only: false,
        msi: MsiPolicy::Fixed { window },
        msi_isolated: true,
        coherent: false,
        nests: false,
    };
    let its =
        InterruptController { kind: "gicv3-its".into(), doorbell: 0x808_0040, dynamic_msix: true };
    let group = Group {
        number: 7,
        iommu: 0,
        controller: 0,
        devices: vec!["0000:00:03.0".into()],
        reserved: vec![ReservedRegion {
            range: window,
            kind: ReservedKind::SwMsi,
            prot: Prot::WRITE,
            owner: "the MSI window of the SMMU".into(),
        }],
    };
    Host {
        name: "an Arm board".into(),
        dialect: Dialect::default(),
        page_size: 0x1000,
        iommus: vec![smmu],
        controllers: vec![its],
        groups: vec![group],
        limits: Limits::default(),
    }
}

/// Who owns the memory that is mapped. A hypervisor would lock guest pages here.
#[derive(Default)]
struct GuestMemory {
    pins: u64,
}

impl Pinner for GuestMemory {
    fn pin(&mut self, _vaddr: u64, size: u64, _write: bool) -> Result<Pinned, PinError> {
        self.pins += 1;
        Ok(Pinned { id: PinId(self.pins), charged_pages: size / 0x1000 })
    }

    fn unpin(&mut self, _pin: PinId) {}
}

fn main() {
    let host = arm_host();
    let mut space = AddressSpace::new(host.page_size, host.limits.dma_entry_limit, &host.dialect);
    let (mut memory, mut locked) = (GuestMemory::default(), LockedMemory::default());
    let mut env = Env { pinner: &mut memory, locked: &mut locked, observer: &mut () };

    space.attach(&host, &host.limits, 7, None, &mut env).expect("the group is free");
    println!("mappings may use {:?}", space.valid_ranges());

    // 2 MiB of guest memory at 0x7f0000000000, for devices at 0x100000.
    let budget = LockBudget { mm: MmId(1), limit_pages: Some(4096) };
    let request = |first, size| MapRequest {
        range: IovaRange::sized(first, size).expect("not empty, does not wrap"),
        vaddr: 0x7f00_0000_0000,
        prot: Prot::READ | Prot::WRITE,
        budget,
    };
    space.map(&request(0x10_0000, 0x20_0000), &mut env).expect("free and valid");

    let found = space.translate(7, 0x10_2345, Prot::WRITE).expect("mapped");
    let Translation::Memory { at, bytes } = found else { panic!("not memory") };
    println!("a device's write to 0x102345 lands at {:#x}, {bytes:#x} bytes follow", at.vaddr);
    assert_eq!(at.vaddr, 0x7f00_0000_2345);

    let fault = space.translate(7, 0x40_0000, Prot::READ).expect_err("nothing is there");
    println!("a device's {fault}");

    // A refusal is a value, and a sentence for people.
    let refused = space.map(&request(0x800_0000, 0x1000), &mut env).expect_err("the window");
    println!("a mapping at 0x8000000: {refused}");
    let MapRefusal::NotUsable { nearest, .. } = refused else { panic!("another reason") };
    assert_eq!(nearest.above, Some(0x810_0000));

    // How the group's devices reach their interrupt controller: bound in the window on first use.
    let doorbell = space.bind_doorbell(7, &mut env).expect("attached");
    println!("an MSI is a write to {:#x}", doorbell.iova);
    let reached = space.translate(7, doorbell.iova, Prot::WRITE);
    assert_eq!(reached, Ok(Translation::Doorbell { address: 0x808_0040 }));

    space.detach(7, &mut env);
    assert!(space.is_empty() && locked.pages(MmId(1)) == 0);
}
