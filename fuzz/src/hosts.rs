//! Hosts with something of everything.

use iommu::{
    Dialect, Group, Host, InterruptController, Iommu, IovaRange, Limits, MsiPolicy, PageSizes,
    Prot, ReservedKind, ReservedRegion,
};

fn range(first: u64, last: u64) -> IovaRange {
    IovaRange::new(first, last).expect("written in order")
}

fn reserved(first: u64, last: u64, kind: ReservedKind) -> ReservedRegion {
    let prot = Prot::READ | Prot::WRITE;
    ReservedRegion { range: range(first, last), kind, prot, owner: kind.to_string() }
}

/// The window of an Arm SMMU.
const WINDOW: (u64, u64) = (0x800_0000, 0x80f_ffff);

/// Three IOMMUs of different reach, six groups, every kind of reserved region.
#[must_use]
pub fn mixed(dialect: &Dialect, page_size: u64) -> Host {
    let iommu = |kind: &str, last, page_sizes, msi| Iommu {
        kind: kind.into(),
        aperture: range(0, last),
        page_sizes: PageSizes(page_sizes),
        write_only: true,
        msi,
        msi_isolated: true,
        coherent: false,
        nests: false,
    };
    let vt_d = iommu("vt-d", 0xffff_ffff_ffff, 0x4020_1000, MsiPolicy::Implicit);
    let window = range(WINDOW.0, WINDOW.1);
    let mut smmu = iommu("smmuv3", u64::MAX, 0x2001_0000, MsiPolicy::Fixed { window });
    smmu.write_only = false;
    smmu.nests = true;
    let mut virtio = iommu("virtio-iommu", 0x7f_ffff_ffff, u64::MAX << 12, MsiPolicy::Implicit);
    virtio.coherent = true;
    virtio.msi_isolated = false;

    let msi = reserved(0xfee0_0000, 0xfeef_ffff, ReservedKind::Msi);
    let group = |number, iommu, reserved| Group {
        number,
        iommu,
        controller: usize::from(iommu == 1),
        devices: vec![format!("0000:00:{number:02x}.0")],
        reserved,
    };
    Host {
        name: "mixed".into(),
        dialect: dialect.clone(),
        page_size,
        iommus: vec![vt_d, smmu, virtio],
        controllers: vec![
            InterruptController { kind: "apic".into(), doorbell: 0xfee0_0000, dynamic_msix: true },
            InterruptController {
                kind: "gicv3-its".into(),
                doorbell: 0x808_0040,
                dynamic_msix: true,
            },
        ],
        groups: vec![
            group(1, 0, vec![msi.clone()]),
            group(
                2,
                0,
                vec![
                    reserved(0x10_0000, 0x1f_ffff, ReservedKind::DirectRelaxable),
                    msi.clone(),
                    reserved(0xfd_0000_0000, 0xff_ffff_ffff, ReservedKind::Reserved),
                ],
            ),
            group(3, 1, vec![reserved(WINDOW.0, WINDOW.1, ReservedKind::SwMsi)]),
            group(4, 1, vec![reserved(0x808_0000, 0x808_ffff, ReservedKind::Msi)]),
            group(5, 2, vec![msi]),
            group(6, 0, vec![reserved(0x20_0000, 0x20_0fff, ReservedKind::Direct)]),
        ],
        limits: Limits { dma_entry_limit: 24, allow_unsafe_interrupts: false },
    }
}
