//! Where real VMMs put RAM and BARs. Numbers only, with their sources beside them.
//!
//! What a VMM maps besides (ROMs, the VGA window's edges) is not modelled: one range of RAM counts
//! as one mapping.

use iommu::IovaRange;

use crate::layout::{Item, Wish, Wishes};

const M: u64 = 1 << 20;
const G: u64 = 1 << 30;
const T: u64 = 1 << 40;

/// A way to lay out a guest.
pub struct Preset {
    /// Its name on the command line.
    pub name: &'static str,
    /// What it is.
    pub about: &'static str,
    /// Where its numbers are from.
    pub sources: &'static [&'static str],
    place: fn(u64) -> Option<Placed>,
}

/// RAM and the places for BARs.
struct Placed {
    ram: Vec<(&'static str, IovaRange)>,
    mmio: Vec<(&'static str, IovaRange)>,
}

/// Every preset.
pub const PRESETS: &[Preset] = &[
    Preset {
        name: "qemu-q35",
        about: "QEMU q35 with an Intel vCPU, or of a machine type up to 7.0",
        sources: &[
            "qemu hw/i386/pc_q35.c, pc_q35_init: RAM below 4 GiB ends at 0x80000000 when there is 0xb0000000 or more",
            "qemu hw/pci-host/q35.c: 32-bit hole up to the I/O APIC, behind the 256 MiB of MMCONFIG at 0xb0000000; 64-bit hole of 1 << 35 behind RAM, from a multiple of 1 GiB",
        ],
        place: |ram| q35(ram, false),
    },
    Preset {
        name: "qemu-q35-amd",
        about: "QEMU q35 with an AMD vCPU, machine type 7.1 and on: RAM moves to 1 TiB before it reaches HyperTransport",
        sources: &[
            "as qemu-q35",
            "qemu hw/i386/pc.c, pc_memory_init: with enforce_amd_1tb_hole RAM above 4 GiB begins at AMD_ABOVE_1TB_START when RAM and the 64-bit hole would reach 0xfd00000000",
        ],
        place: |ram| q35(ram, true),
    },
    Preset {
        name: "qemu-virt",
        about: "QEMU virt (Arm)",
        sources: &[
            "qemu hw/arm/virt.c, base_memmap: RAM at 1 GiB, PCIe window 0x10000000 + 0x2eff0000",
            "qemu hw/arm/virt.c, extended_memmap and virt_set_memmap: behind RAM, not below 256 GiB, 64 MiB, 256 MiB of ECAM, then a window of 512 GiB, each at a multiple of its size",
        ],
        place: qemu_virt,
    },
    Preset {
        name: "cloud-hypervisor",
        about: "Cloud Hypervisor on x86_64",
        sources: &[
            "cloud-hypervisor ae44c2971 arch/src/x86_64/layout.rs: RAM to 0xc0000000 and from 4 GiB, 640 MiB for devices at 0xc0000000",
            "cloud-hypervisor ae44c2971 vmm/src/memory_manager.rs: the 64-bit window begins behind RAM (4 GiB at least) and ends 64 KiB and 1 MiB below 2^46 (the vCPU's address width; 46 bits taken)",
        ],
        place: cloud_hypervisor,
    },
    Preset {
        name: "cloud-hypervisor-arm",
        about: "Cloud Hypervisor on aarch64",
        sources: &[
            "cloud-hypervisor ae44c2971 arch/src/aarch64/layout.rs: RAM at 1 GiB to 0xfc000000 and from 4 GiB, 512 MiB for devices at 0x10000000",
            "cloud-hypervisor ae44c2971 vmm/src/memory_manager.rs: as on x86_64 (48 bits taken)",
        ],
        place: cloud_hypervisor_arm,
    },
    Preset {
        name: "firecracker",
        about: "Firecracker on x86_64",
        sources: &[
            "firecracker 81b38b9da src/vmm/src/arch/x86_64/layout.rs: gaps of 1 GiB below 4 GiB and of 256 GiB at 256 GiB; devices at 0xc0001000 up to 256 MiB below the I/O APIC",
        ],
        place: firecracker,
    },
    Preset {
        name: "firecracker-arm",
        about: "Firecracker on aarch64",
        sources: &[
            "firecracker 81b38b9da src/vmm/src/arch/aarch64/layout.rs: RAM at 2 GiB, at most 1022 GiB, a gap of 256 GiB at 256 GiB; devices from 0x40003000 to 0x70000000",
        ],
        place: firecracker_arm,
    },
    Preset {
        name: "crosvm",
        about: "crosvm on x86_64",
        sources: &[
            "crosvm f1e797a68 x86_64/src/lib.rs, arch_memory_regions: 640 KiB, 384 KiB (reserved, but memory), up to 0xd0000000, the rest from 4 GiB",
            "crosvm f1e797a68 x86_64/src/lib.rs: PCI memory up to 0xf7ffffff, of which the last 64 MiB are configuration space; above RAM 128 MiB of virtual configuration space, then 64-bit BARs up to 2^46",
        ],
        place: crosvm,
    },
    Preset {
        name: "crosvm-arm",
        about: "crosvm on aarch64",
        sources: &[
            "crosvm f1e797a68 aarch64/src/lib.rs: RAM at 2 GiB, PCI memory 32 MiB at 0x2000000; 1 GiB of platform MMIO behind RAM, then 64-bit BARs up to the vCPU's width (40 bits taken)",
        ],
        place: crosvm_arm,
    },
    Preset {
        name: "openvmm-arm",
        about: "OpenVMM on aarch64, Linux booted directly: RAM begins at 1 GiB to keep clear of the MSI window",
        sources: &[
            "openvmm 1488a37b7 openvmm/openvmm_core/src/worker/dispatch.rs: ram_start_address 1 GiB",
            "openvmm 1488a37b7 openvmm/openvmm_core/src/worker/memory_layout.rs: RAM in multiples of 1 GiB (2 MiB below 1 GiB), 64-bit windows behind it",
            "openvmm 1488a37b7 vmm_core/vm_manifest_builder/src/lib.rs: 512 MiB of low MMIO below 4 GiB",
        ],
        place: |ram| openvmm(ram, G),
    },
    Preset {
        name: "openvmm-arm-uefi",
        about: "OpenVMM on aarch64 with UEFI, which boots from low memory: RAM begins at 0",
        sources: &[
            "openvmm 1488a37b7 openvmm/openvmm_core/src/worker/dispatch.rs: ram_start_address 0 where Linux is not booted directly",
            "as openvmm-arm",
        ],
        place: |ram| openvmm(ram, 0),
    },
];

/// The names, for a message.
#[must_use]
pub fn names() -> String {
    PRESETS.iter().map(|p| p.name).collect::<Vec<_>>().join(", ")
}

/// The preset of that name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Preset> {
    PRESETS.iter().find(|p| p.name == name)
}

impl Preset {
    /// The layout for `ram` bytes of RAM.
    ///
    /// # Errors
    /// A sentence: the VMM has no place for that much.
    pub fn wishes(&self, ram: u64) -> Result<Wishes, String> {
        let no_place =
            || format!("{} has no place for {}", self.name, crate::size::Bytes(ram.into()));
        if ram == 0 {
            return Err("expected some RAM, found 0 bytes".into());
        }
        let placed = (self.place)(ram).ok_or_else(no_place)?;
        let wish = |(name, range): (&str, IovaRange)| Wish {
            name: name.into(),
            size: range.size(),
            first: Some(range.first()),
        };
        let item = |(name, range): (&str, IovaRange)| Item { name: name.into(), range };
        Ok(Wishes {
            origin: self.name.into(),
            name: self.name.into(),
            about: self.about.into(),
            sources: self.sources.iter().map(|s| (*s).to_owned()).collect(),
            ram: placed.ram.into_iter().map(wish).collect(),
            mmio: placed.mmio.into_iter().map(item).collect(),
            ..Wishes::default()
        })
    }
}

/// RAM in banks: names, where each begins and ends (exclusive), filled in order.
fn banks(
    mut ram: u64,
    places: &[(&'static str, u64, u64)],
) -> Option<Vec<(&'static str, IovaRange)>> {
    let mut filled = Vec::new();
    for &(name, first, end) in places {
        let size = ram.min(end.checked_sub(first)?);
        if let Some(range) = IovaRange::sized(first, size) {
            filled.push((name, range));
        }
        ram -= size;
    }
    (ram == 0).then_some(filled)
}

/// The end (exclusive) of the last bank.
fn end(ram: &[(&'static str, IovaRange)]) -> Option<u64> {
    ram.last()?.1.last().checked_add(1)
}

/// `first..end`.
fn upto(first: u64, end: u64) -> Option<IovaRange> {
    IovaRange::new(first, end.checked_sub(1)?)
}

fn q35(ram: u64, amd: bool) -> Option<Placed> {
    const HOLE64: u64 = 32 * G;
    const HYPER_TRANSPORT: u64 = 0xfd_0000_0000;
    let low = if ram >= 0xb000_0000 { 0x8000_0000 } else { 0xb000_0000 };
    let rest = ram.saturating_sub(low);
    let mut high = 4 * G;
    let used = high.checked_add(rest)?.checked_next_multiple_of(G)?.checked_add(HOLE64)?;
    if amd && used > HYPER_TRANSPORT {
        high = T;
    }
    let ram = banks(ram, &[("low", 0, low), ("high", high, u64::MAX)])?;
    let hole = end(&ram)?.max(4 * G).checked_next_multiple_of(G)?;
    let mmio = vec![
        ("pci32", upto(0xc000_0000, 0xfec0_0000)?),
        ("pci64", IovaRange::sized(hole, HOLE64)?),
    ];
    Some(Placed { ram, mmio })
}

fn qemu_virt(ram: u64) -> Option<Placed> {
    let ram = banks(ram, &[("ram", G, u64::MAX)])?;
    let behind = end(&ram)?.checked_next_multiple_of(G)?.max(256 * G);
    let ecam = behind.checked_add(64 * M)?.checked_next_multiple_of(256 * M)?;
    let window = ecam.checked_add(256 * M)?.checked_next_multiple_of(512 * G)?;
    let mmio = vec![
        ("pcie32", IovaRange::sized(0x1000_0000, 0x2eff_0000)?),
        ("pcie64", IovaRange::sized(window, 512 * G)?),
    ];
    Some(Placed { ram, mmio })
}

fn cloud_hypervisor(ram: u64) -> Option<Placed> {
    let top = (1u64 << 46) - 64 * 1024 - M;
    let ram = banks(ram, &[("low", 0, 0xc000_0000), ("high", 4 * G, top)])?;
    let behind = end(&ram)?.max(4 * G);
    let mmio =
        vec![("pci32", IovaRange::sized(0xc000_0000, 640 * M)?), ("pci64", upto(behind, top)?)];
    Some(Placed { ram, mmio })
}

fn cloud_hypervisor_arm(ram: u64) -> Option<Placed> {
    let top = (1u64 << 48) - 64 * 1024 - M;
    let ram = banks(ram, &[("low", G, 0xfc00_0000), ("high", 4 * G, top)])?;
    let behind = end(&ram)?.max(4 * G);
    let mmio =
        vec![("pci32", IovaRange::sized(0x1000_0000, 512 * M)?), ("pci64", upto(behind, top)?)];
    Some(Placed { ram, mmio })
}

fn firecracker(ram: u64) -> Option<Placed> {
    let places = [("low", 0, 3 * G), ("middle", 4 * G, 256 * G), ("high", 512 * G, u64::MAX)];
    let mmio = vec![
        ("mmio32", upto(0xc000_1000, 0xfec0_0000 - 256 * M)?),
        ("mmio64", IovaRange::sized(256 * G, 256 * G)?),
    ];
    Some(Placed { ram: banks(ram, &places)?, mmio })
}

fn firecracker_arm(ram: u64) -> Option<Placed> {
    if ram > 1022 * G {
        return None;
    }
    let places = [("low", 2 * G, 256 * G), ("high", 512 * G, u64::MAX)];
    let mmio = vec![
        ("mmio32", upto(0x4000_3000, 0x7000_0000)?),
        ("mmio64", IovaRange::sized(256 * G, 256 * G)?),
    ];
    Some(Placed { ram: banks(ram, &places)?, mmio })
}

fn crosvm(ram: u64) -> Option<Placed> {
    if ram < 2 * M {
        return None;
    }
    let places = [
        ("low", 0, 640 * 1024),
        ("bios", 640 * 1024, M),
        ("below4g", M, 0xd000_0000),
        ("high", 4 * G, 1 << 46),
    ];
    let ram = banks(ram, &places)?;
    let vcfg = end(&ram)?.checked_next_multiple_of(2 * M)?.max(4 * G);
    let mmio = vec![
        ("pci32", upto(0xd000_0000, 0xf400_0000)?),
        ("pci64", upto(vcfg.checked_add(128 * M)?, 1 << 46)?),
    ];
    Some(Placed { ram, mmio })
}

fn crosvm_arm(ram: u64) -> Option<Placed> {
    let ram = banks(ram, &[("ram", 2 * G, T)])?;
    let behind = end(&ram)?.checked_add(G)?;
    let mmio =
        vec![("pci32", IovaRange::sized(0x200_0000, 0x200_0000)?), ("pci64", upto(behind, T)?)];
    Some(Placed { ram, mmio })
}

fn openvmm(ram: u64, start: u64) -> Option<Placed> {
    let align = if ram < G { 2 * M } else { G };
    let low_end = 0xe000_0000 / align * align;
    let ram = banks(ram, &[("low", start, low_end), ("high", 4 * G, 1 << 48)])?;
    let behind = end(&ram)?.max(4 * G).checked_next_multiple_of(G)?;
    let mmio =
        vec![("mmio32", upto(0xe000_0000, 0xef00_0000)?), ("pcie64", upto(behind, 1 << 48)?)];
    Some(Placed { ram, mmio })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::{Kind, check_apart};

    #[test]
    fn banks_and_windows_lie_apart_whatever_the_size() {
        for preset in PRESETS {
            for shift in 20..47 {
                for ram in [1u64 << shift, 3 << shift, (1 << shift) - 4096] {
                    let Ok(wishes) = preset.wishes(ram) else { continue };
                    assert_eq!(
                        wishes.ram.iter().map(|w| w.size).sum::<u64>(),
                        ram,
                        "{}",
                        preset.name
                    );
                    let ram = wishes.ram.iter().map(|w| {
                        let range = IovaRange::sized(w.first.unwrap(), w.size).unwrap();
                        (Kind::Ram, w.name.as_str(), range)
                    });
                    let mmio = wishes.mmio.iter().map(|i| (Kind::Bar, i.name.as_str(), i.range));
                    check_apart(ram.chain(mmio)).unwrap_or_else(|e| panic!("{}: {e}", preset.name));
                }
            }
            assert!(preset.wishes(u64::MAX).is_err(), "{}", preset.name);
            assert!(preset.wishes(0).is_err());
            assert!(!preset.sources.is_empty());
        }
    }

    #[test]
    fn numbers_of_the_sources() {
        let ram = |name: &str, size| -> Vec<(u64, u64)> {
            let wishes = find(name).unwrap().wishes(size).unwrap();
            wishes.ram.iter().map(|w| (w.first.unwrap(), w.size)).collect()
        };
        assert_eq!(ram("qemu-q35", 0xafff_f000), [(0, 0xafff_f000)]);
        assert_eq!(ram("qemu-q35", 4 * G), [(0, 2 * G), (4 * G, 2 * G)]);
        assert_eq!(ram("qemu-q35", T), [(0, 2 * G), (4 * G, 1022 * G)]);
        assert_eq!(ram("qemu-q35-amd", T), [(0, 2 * G), (T, 1022 * G)]);
        // 4 GiB + 974 GiB and a hole of 32 GiB just stay below 0xfd00000000 = 1012 GiB.
        assert_eq!(ram("qemu-q35-amd", 978 * G), [(0, 2 * G), (4 * G, 976 * G)]);
        assert_eq!(ram("qemu-q35-amd", 979 * G), [(0, 2 * G), (T, 977 * G)]);
        assert_eq!(ram("openvmm-arm", 4 * G), [(G, 2 * G), (4 * G, 2 * G)]);
        assert_eq!(ram("openvmm-arm-uefi", 4 * G), [(0, 3 * G), (4 * G, G)]);
        let virt = find("qemu-virt").unwrap();
        assert_eq!(virt.wishes(G).unwrap().mmio[1].range.first(), 0x80_0000_0000);
    }
}
