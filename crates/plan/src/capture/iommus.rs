//! `/sys/class/iommu`: what kinds of IOMMU there are, and what their registers say.

use crate::BadInput;

use super::tree::Tree;

/// An IOMMU, as its driver registered it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unit {
    /// Its name in sysfs: `dmar0`, `ivhd0`, `smmu3.0x0000000009050000`.
    pub(super) name: String,
    /// The kind, as in headers.
    pub(super) kind: &'static str,
    /// The PCI functions behind it.
    pub(super) devices: Vec<String>,
    /// The last address that its page tables express.
    pub(super) last: u64,
    /// A bitmap.
    pub(super) page_sizes: u64,
    /// Whether interrupts are isolated.
    pub(super) isolated: bool,
    /// Whether it enforces cache coherency.
    pub(super) coherent: bool,
    /// What was taken for granted.
    pub(super) not_known: Vec<String>,
}

/// Every IOMMU, by name.
pub(super) fn units(tree: &Tree) -> Result<Vec<Unit>, BadInput> {
    let mut units = Vec::new();
    for name in tree.list("sys/class/iommu")? {
        let dir = format!("sys/class/iommu/{name}");
        let devices = tree.list(&format!("{dir}/devices"))?;
        let unit = if tree.exists(&format!("{dir}/intel-iommu")) {
            intel(tree, &dir)?
        } else if tree.exists(&format!("{dir}/amd-iommu")) {
            amd()
        } else if name.starts_with("smmu3.") || name.starts_with("arm-smmu-v3") {
            smmu("smmuv3")
        } else if name.starts_with("smmu.") {
            smmu("smmuv2")
        } else {
            other()
        };
        units.push(Unit { name, devices, ..unit });
    }
    Ok(units)
}

fn unit(kind: &'static str) -> Unit {
    Unit {
        name: String::new(),
        kind,
        devices: Vec::new(),
        last: u64::MAX,
        page_sizes: 0x4020_1000,
        isolated: true,
        coherent: false,
        not_known: Vec::new(),
    }
}

/// VT-d. The driver takes the widest page table there is, cut to the width of the hardware (MGAW).
fn intel(tree: &Tree, dir: &str) -> Result<Unit, BadInput> {
    let register = |name: &str| tree.hexadecimal(&format!("{dir}/intel-iommu/{name}"));
    let (cap, ecap) = (register("cap")?, register("ecap")?);
    let field = |value: u64, from: u32, bits: u32| value >> from & ((1 << bits) - 1);
    let mgaw = field(cap, 16, 6) + 1;
    // Bits 1, 2, 3 of SAGAW: tables of 3, 4, 5 levels.
    let sagaw = field(cap, 8, 5);
    let widest = [(3, 57u64), (2, 48), (1, 39)].into_iter().find(|(bit, _)| sagaw >> bit & 1 == 1);
    // First-stage tables alone: the lower half of a canonical address.
    let first_stage_only =
        field(ecap, 43, 1) == 1 && field(ecap, 47, 1) == 1 && field(ecap, 46, 1) == 0;
    let width = match (widest, first_stage_only) {
        (_, true) if field(cap, 60, 1) == 1 => 56,
        (_, true) => 47,
        (Some((_, width)), false) => width.min(mgaw),
        (None, false) => {
            let what =
                format!("expected a capability register with a page table width, found {cap:#x}");
            return Err(BadInput::at(tree.show(&format!("{dir}/intel-iommu/cap")), 1, 1, what));
        }
    };
    let (large, huge) = match first_stage_only {
        true => (1, field(cap, 56, 1)),
        false => (field(cap, 34, 1), field(cap, 35, 1)),
    };
    let remaps = field(ecap, 3, 1) == 1;
    let mut not_known = Vec::new();
    if remaps {
        not_known.push(
            "whether interrupt remapping is on: VT-d can, and is taken to (else attaching is EPERM \
             without allow_unsafe_interrupts)"
                .into(),
        );
    }
    Ok(Unit {
        last: (1u64 << width) - 1,
        page_sizes: 0x1000 | large << 21 | huge << 30,
        isolated: remaps,
        coherent: field(ecap, 7, 1) == 1,
        not_known,
        ..unit("vt-d")
    })
}

/// AMD-Vi: version 1 tables, as VFIO's domains have.
fn amd() -> Unit {
    Unit {
        page_sizes: 0x000f_ff7f_ffff_f000,
        coherent: true,
        not_known: vec![
            "the address width: AMD-Vi version 1 tables are taken, which express 64 bits".into(),
            "whether interrupt remapping is on: it is taken to be".into(),
        ],
        ..unit("amd-vi")
    }
}

/// An SMMU says nothing about itself in sysfs.
fn smmu(kind: &'static str) -> Unit {
    Unit {
        last: (1 << 48) - 1,
        not_known: vec![
            "the address width and page sizes of the SMMU: 48 bits and 4 KiB, 2 MiB, 1 GiB are taken"
                .into(),
            "the interrupt controller and its doorbell: a GICv3 ITS is taken, at QEMU's address"
                .into(),
        ],
        ..unit(kind)
    }
}

/// Virtio's, or one that we do not know.
fn other() -> Unit {
    Unit {
        last: (1 << 48) - 1,
        page_sizes: 0xffff_ffff_ffff_f000,
        not_known: vec![
            "what kind of IOMMU this is, its address width and page sizes: as a \
                         virtio-iommu, 48 bits and every size are taken"
                .into(),
        ],
        ..unit("virtio-iommu")
    }
}

impl Unit {
    /// What groups are behind that belong to no IOMMU of the class.
    pub(super) fn unknown() -> Self {
        other()
    }
}
