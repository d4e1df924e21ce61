//! `/sys/class/iommu`: what kinds of IOMMU there are, and what their registers say.

use crate::BadInput;

use super::asking::Said;
use super::tree::Tree;

/// What a sentence of `not_known` is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fact {
    /// What kind of IOMMU.
    Kind,
    /// Address width and page sizes.
    Width,
    /// Whether interrupts are isolated.
    Isolation,
    /// Which interrupt controller.
    Controller,
}

/// An IOMMU, as its driver registered it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unit {
    /// Its name in sysfs: `dmar0`, `ivhd0`, `smmu3.0x0000000009050000`.
    pub(super) name: String,
    /// The kind, as in headers.
    pub(super) kind: &'static str,
    /// The PCI functions behind it.
    pub(super) devices: Vec<String>,
    /// The first address that its page tables express.
    pub(super) first: u64,
    /// The last one.
    pub(super) last: u64,
    /// A bitmap.
    pub(super) page_sizes: u64,
    /// Whether interrupts are isolated.
    pub(super) isolated: bool,
    /// Whether it enforces cache coherency.
    pub(super) coherent: bool,
    /// MSI windows that users may register; `None`: nobody said.
    pub(super) max_windows: Option<u32>,
    /// Whether a container said what it is like.
    pub(super) asked: bool,
    /// What was taken for granted.
    pub(super) not_known: Vec<(Fact, String)>,
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
        first: 0,
        last: u64::MAX,
        page_sizes: 0x4020_1000,
        isolated: true,
        coherent: false,
        max_windows: None,
        asked: false,
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
        not_known.push((
            Fact::Isolation,
            "whether interrupt remapping is on: VT-d can, and is taken to (else attaching is EPERM \
             without allow_unsafe_interrupts)"
                .into(),
        ));
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
            (
                Fact::Width,
                "the address width: AMD-Vi version 1 tables are taken, which express 64 bits"
                    .into(),
            ),
            (Fact::Isolation, "whether interrupt remapping is on: it is taken to be".into()),
        ],
        ..unit("amd-vi")
    }
}

/// An SMMU says nothing about itself in sysfs.
fn smmu(kind: &'static str) -> Unit {
    Unit {
        last: (1 << 48) - 1,
        not_known: vec![
            (
                Fact::Width,
                "the address width and page sizes of the SMMU: 48 bits and 4 KiB, 2 MiB, 1 GiB are \
                 taken"
                    .into(),
            ),
            (
                Fact::Controller,
                "the interrupt controller and its doorbell: a GICv3 ITS is taken, at QEMU's address"
                    .into(),
            ),
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
            (Fact::Kind, "what kind of IOMMU this is: a virtio-iommu is taken".into()),
            (
                Fact::Width,
                "the address width and page sizes of the IOMMU: 48 bits and every size are taken"
                    .into(),
            ),
        ],
        ..unit("virtio-iommu")
    }
}

impl Unit {
    /// What groups are behind that belong to no IOMMU of the class.
    pub(super) fn unknown() -> Self {
        other()
    }

    /// Its name, for people.
    pub(super) fn called(&self) -> &str {
        if self.name.is_empty() { "the IOMMU" } else { &self.name }
    }

    /// Takes what a container with a group behind it said, in the place of what was assumed. What
    /// may be mapped ends where the page tables do, unless a reserved region ends there too: then
    /// nobody may map what is beyond either.
    pub(super) fn correct(&mut self, said: &Said) {
        self.first = said.ranges.iter().map(|(first, _)| *first).min().unwrap_or(self.first);
        self.last = said.ranges.iter().map(|(_, last)| *last).max().unwrap_or(self.last);
        self.page_sizes = said.page_sizes;
        self.coherent = said.coherent;
        self.max_windows = said.max_windows;
        self.asked = true;
        self.settle(Fact::Width);
    }

    /// Takes that interrupts are not isolated, from a container that refused them.
    pub(super) fn refuse(&mut self) {
        self.isolated = false;
        self.settle(Fact::Isolation);
        for (_, sentence) in self.not_known.iter_mut().filter(|(f, _)| *f == Fact::Controller) {
            *sentence =
                "the interrupt controller and its doorbell: a GICv2m frame is taken, which \
                         does not isolate, at QEMU's address"
                    .into();
        }
    }

    /// Something is not taken for granted any more.
    pub(super) fn settle(&mut self, fact: Fact) {
        self.not_known.retain(|(about, _)| *about != fact);
    }
}
