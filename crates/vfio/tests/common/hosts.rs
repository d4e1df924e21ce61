//! Hosts with several IOMMUs, so that groups of different kinds meet in one container.

#![allow(dead_code, unreachable_pub, missing_docs, reason = "each test file uses its part")]

use iommu::{
    Dialect, Group, Host, InterruptController, Iommu, IovaRange, Limits, MsiPolicy, PageSizes,
    Prot, ReservedKind, ReservedRegion,
};

pub const INTEL: u32 = 1;
pub const INTEL_39: u32 = 2;
pub const ARM: u32 = 3;
pub const AMD: u32 = 4;
pub const UNSAFE: u32 = 5;
pub const INTEL_TOO: u32 = 6;
pub const STRICT: u32 = 7;

fn range(first: u64, last: u64) -> IovaRange {
    IovaRange::new(first, last).unwrap()
}

fn region(first: u64, last: u64, kind: ReservedKind, owner: &str) -> ReservedRegion {
    ReservedRegion { range: range(first, last), kind, prot: Prot::WRITE, owner: owner.into() }
}

/// One group of every kind; all interrupts but those of [`UNSAFE`] are isolated.
pub fn mixed(dialect: &Dialect) -> Host {
    let iommu = |kind: &str, last, sizes, msi| Iommu {
        kind: kind.into(),
        aperture: range(0, last),
        page_sizes: PageSizes(sizes),
        write_only: false,
        msi,
        msi_isolated: true,
        coherent: false,
        nests: false,
    };
    let window = range(0x800_0000, 0x80f_ffff);
    let msi = || vec![region(0xfee0_0000, 0xfeef_ffff, ReservedKind::Msi, "the MSI range")];
    let group = |number, iommu, controller, reserved| Group {
        number,
        iommu,
        controller,
        devices: vec![format!("0000:00:{number:02x}.0")],
        reserved,
    };
    let controller = |kind: &str, doorbell| InterruptController {
        kind: kind.into(),
        doorbell,
        dynamic_msix: true,
    };
    Host {
        name: "mixed".into(),
        dialect: dialect.clone(),
        page_size: 4096,
        iommus: vec![
            iommu("vt-d", (1 << 48) - 1, 0x4020_1000, MsiPolicy::Implicit),
            iommu("vt-d", (1 << 39) - 1, 0x4020_1000, MsiPolicy::Implicit),
            iommu("smmuv3", (1 << 48) - 1, 0x4020_1000, MsiPolicy::Fixed { window }),
            iommu("amd-vi", u64::MAX, 0xf_ff7f_ffff_f000, MsiPolicy::Implicit),
            Iommu {
                msi_isolated: false,
                ..iommu("vt-d", (1 << 48) - 1, 0x4020_1000, MsiPolicy::Implicit)
            },
        ],
        controllers: vec![controller("apic", 0xfee0_0000), controller("gicv3-its", 0x809_0040)],
        groups: vec![
            group(INTEL, 0, 0, msi()),
            group(INTEL_39, 1, 0, msi()),
            group(
                ARM,
                2,
                1,
                vec![region(
                    0x800_0000,
                    0x80f_ffff,
                    ReservedKind::SwMsi,
                    "the MSI window of the SMMU",
                )],
            ),
            group(
                AMD,
                3,
                0,
                [
                    msi(),
                    vec![region(
                        0xfd_0000_0000,
                        0xff_ffff_ffff,
                        ReservedKind::Reserved,
                        "the HyperTransport range",
                    )],
                ]
                .concat(),
            ),
            group(UNSAFE, 4, 0, msi()),
            group(INTEL_TOO, 0, 0, msi()),
            group(
                STRICT,
                0,
                0,
                vec![region(0xe_0000, 0xf_ffff, ReservedKind::Direct, "an RMRR of the firmware")],
            ),
        ],
        limits: Limits::default(),
    }
}
