//! `/sys/class/iommu`: what drivers of IOMMUs show there, for a host that is described.
//!
//! Names and formats: `Documentation/ABI/testing/sysfs-class-iommu-intel-iommu` and `-amd-iommu`; an
//! SMMU is named by its registers' address, a virtio device by its place. VT-d's capability registers:
//! its specification 4.1, 11.4.2 and 11.4.3; AMD's extended feature
//! register (HATS): its document 48882.

use iommu::Iommu;

use crate::sandbox::SysIommu;

/// The entry of a host's IOMMU of that number.
pub(super) fn sys_iommu((n, iommu): (usize, &Iommu)) -> SysIommu {
    let at = n as u64;
    let (name, files) = match iommu.kind.as_str() {
        "vt-d" => (format!("dmar{n}"), intel(iommu, at)),
        "amd-vi" => (format!("ivhd{n}"), amd()),
        // As on QEMU's virt, which has one.
        "smmuv3" => (format!("smmu3.0x{:016x}", 0x905_0000 + at * 0x2_0000), Vec::new()),
        "smmuv2" => (format!("smmu.0x{:016x}", 0x905_0000 + at * 0x2_0000), Vec::new()),
        _ => (format!("0000:00:{:02x}.0", 1 + at % 31), Vec::new()),
    };
    SysIommu { name, files }
}

fn intel(iommu: &Iommu, n: u64) -> Vec<(String, String)> {
    let width = u64::from(64 - iommu.aperture.last().leading_zeros()).max(1);
    let has = |size: u64| u64::from(iommu.page_sizes.0 & size != 0);
    // Tables of 3, 4, 5 levels, as many as the width needs and fewer.
    let tables = [(39, 1), (48, 2), (57, 3)].into_iter();
    let sagaw =
        tables.filter(|(bits, _)| *bits <= width.max(39)).fold(0u64, |s, (_, bit)| s | 1 << bit);
    // ND: 2^16 domains; MGAW; SLLPS: 2 MiB and 1 GiB.
    let cap = 6 | sagaw << 8 | (width - 1) << 16 | has(1 << 21) << 34 | has(1 << 30) << 35;
    // QI, IR, PT, SC.
    let ecap =
        1 << 1 | u64::from(iommu.msi_isolated) << 3 | 1 << 6 | u64::from(iommu.coherent) << 7;
    let file = |name: &str, text: String| (format!("intel-iommu/{name}"), text);
    vec![
        file("version", "1:0".into()),
        file("address", format!("{:x}", 0xfed9_0000 + n * 0x1000)),
        file("cap", format!("{cap:x}")),
        file("ecap", format!("{ecap:x}")),
        file("domains_supported", "65536".into()),
        file("domains_used", "1".into()),
    ]
}

/// Page tables of 6 levels express 64 bits.
fn amd() -> Vec<(String, String)> {
    let file = |name: &str, text: &str| (format!("amd-iommu/{name}"), text.to_owned());
    vec![file("cap", "190b640f"), file("features", "800:0")]
}
