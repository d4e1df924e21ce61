//! Every built-in host as a tree of `/sys`, captured again: what sysfs carries is the same, and a
//! plan on it gives the same answers. The trees have the form of real ones.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use iommu::{MsiPolicy, ReservedKind};
use serde_json::Value;
use softvfio_plan::capture::{Capture, Said, Silent, capture, capture_asking};
use softvfio_plan::layout;
use softvfio_plan::{Kind, KnownHost, Plan, Question, View, Wish, Wishes};
use trace::hosts;

/// A directory of its own, gone at the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let n = COUNT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("softvfio-{name}-{}-{n}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }

    fn write(&self, path: &str, text: impl AsRef<[u8]>) {
        let path = self.0.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn link(&self, path: &str, target: &str) {
        let path = self.0.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        symlink(target, path).unwrap();
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The tree of a host.
fn tree(known: &KnownHost, header: &serde_json::Map<String, Value>) -> Scratch {
    let tree = Scratch::new(&known.name);
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    tree.write("proc/sys/kernel/osrelease", text(&header["kernel"]) + "\n");
    tree.write("proc/sys/kernel/arch", text(&header["machine"]) + "\n");
    let parameters = "sys/module/vfio_iommu_type1/parameters";
    let limits = known.host.limits;
    tree.write(&format!("{parameters}/dma_entry_limit"), format!("{}\n", limits.dma_entry_limit));
    let flag = if limits.allow_unsafe_interrupts { "Y\n" } else { "N\n" };
    tree.write(&format!("{parameters}/allow_unsafe_interrupts"), flag);
    for (n, iommu) in known.host.iommus.iter().enumerate() {
        let members = known.host.groups.iter().filter(|g| g.iommu == n);
        let devices: Vec<&String> = members.flat_map(|g| &g.devices).collect();
        let name = match iommu.kind.as_str() {
            "vt-d" => {
                let name = format!("dmar{n}");
                let width = u64::from(64 - iommu.aperture.last().leading_zeros());
                // MGAW, both depths of tables, large pages; interrupt remapping and snooping.
                let cap = (width - 1) << 16 | 0b110 << 8 | 3 << 34;
                let ecap = u64::from(iommu.msi_isolated) << 3 | u64::from(iommu.coherent) << 7;
                let dir = format!("sys/class/iommu/{name}/intel-iommu");
                tree.write(&format!("{dir}/cap"), format!("{cap:x}\n"));
                tree.write(&format!("{dir}/ecap"), format!("{ecap:x}\n"));
                name
            }
            "amd-vi" => {
                tree.write(&format!("sys/class/iommu/ivhd{n}/amd-iommu/cap"), "190b640f\n");
                format!("ivhd{n}")
            }
            "smmuv3" => format!("smmu3.0x{:016x}", 0x905_0000 + n),
            _ => format!("virtio{n}"),
        };
        for device in devices {
            let link = format!("sys/class/iommu/{name}/devices/{device}");
            tree.link(&link, &format!("../../../../pci0000:00/{device}"));
        }
    }
    for group in &known.host.groups {
        let dir = format!("sys/kernel/iommu_groups/{}", group.number);
        let line = |r: &iommu::ReservedRegion| {
            let kind = match r.kind {
                ReservedKind::SwMsi => "msi".to_owned(),
                kind => kind.to_string(),
            };
            format!("0x{:016x} 0x{:016x} {kind}\n", r.range.first(), r.range.last())
        };
        tree.write(&format!("{dir}/type"), "DMA\n");
        let lines: String = group.reserved.iter().map(line).collect();
        tree.write(&format!("{dir}/reserved_regions"), lines);
        for device in &group.devices {
            tree.link(&format!("{dir}/devices/{device}"), &format!("../../../../devices/{device}"));
            let dir = format!("sys/bus/pci/devices/{device}");
            tree.write(&format!("{dir}/class"), "0x00ff00\n");
            tree.write(&format!("{dir}/config"), [0x34, 0x12, 0xe8, 0x11]);
            tree.link(&format!("{dir}/driver"), "../../../bus/pci/drivers/vfio-pci");
        }
    }
    tree
}

fn captured(root: &Path) -> KnownHost {
    let Capture::Machine(header) = capture(root).unwrap() else { panic!("there are IOMMUs") };
    KnownHost::of_header(&header, "captured").unwrap()
}

const fn policy(msi: MsiPolicy) -> &'static str {
    match msi {
        MsiPolicy::Fixed { .. } => "fixed",
        MsiPolicy::User { .. } => "user",
        _ => "implicit",
    }
}

#[test]
fn built_in_hosts_go_round() {
    for (name, _) in hosts::list() {
        let known = KnownHost::load(Path::new(name)).unwrap();
        let tree = tree(&known, &hosts::header(name).unwrap());
        let again = captured(&tree.0);
        assert_eq!(again.host.dialect, known.host.dialect, "{name}");
        assert_eq!(again.host.limits, known.host.limits, "{name}");
        assert_eq!(again.host.page_size, known.host.page_size, "{name}");
        assert_eq!(again.host.groups.len(), known.host.groups.len(), "{name}");
        for group in &known.host.groups {
            let other = again.host.group(group.number).unwrap();
            assert_eq!(other.devices, group.devices, "{name}");
            assert_eq!(other.reserved, group.reserved, "{name}");
            let of = |host: &KnownHost, group| {
                let iommu = host.host.iommu_of(group).unwrap();
                (iommu.kind.clone(), policy(iommu.msi))
            };
            assert_eq!(of(&again, other), of(&known, group), "{name}");
        }
        // Isolation and the width of an SMMU are not in sysfs: the profile says so.
        let sayable = known.host.iommus.iter().all(|i| i.kind == "vt-d");
        assert!(sayable || !again.not_known.is_empty(), "{name}");
        let answers = |host: &KnownHost| {
            let mut host = host.clone();
            host.host.limits.allow_unsafe_interrupts = true;
            let wish =
                |name: &str, size, first| Wish { name: name.into(), size, first: Some(first) };
            let ram = vec![
                wish("a", 2 << 30, 0),
                wish("b", 2 << 30, 2 << 30),
                wish("c", 1 << 40, 1 << 32),
            ];
            let bars = vec![wish("d", 1 << 30, 3 << 39)];
            let wishes = Wishes { ram, bars, ..Wishes::default() };
            let plan = Plan::make(Question::new(&host, wishes)).unwrap();
            // How many doorbells there are is not in sysfs, so the window's size may differ.
            let maps = plan.maps.iter().filter(|m| m.kind != Kind::Window);
            let maps: Vec<_> = maps.map(|m| (m.item.clone(), m.conflicts.clone())).collect();
            (maps, plan.proposal.map(|p| p.layout), View::of(&host.host, None).valid)
        };
        assert_eq!(answers(&again), answers(&known), "{name}");
    }
}

/// What a container of a host says: what is on its page, as the kernel would.
fn said(known: &KnownHost, group: u32) -> Said {
    let iommu = known.host.iommu_of(known.host.group(group).unwrap()).unwrap();
    let view = View::of(&known.host, Some(&[group]));
    Said {
        iommu_type: "type1v2".into(),
        page_sizes: iommu.page_sizes.0,
        ranges: view.valid.iter().map(|r| (r.first(), r.last())).collect(),
        dma_avail: Some(known.host.limits.dma_entry_limit),
        migration: Some((0x1000, 1 << 28)),
        coherent: iommu.coherent,
        max_windows: None,
    }
}

fn silent(why: &str) -> Silent {
    Silent { why: why.into(), is_final: false, not_isolated: false }
}

/// Captures with answers; also the groups that were asked, and why some said nothing.
fn asked(
    root: &Path,
    mut ask: impl FnMut(u32) -> Result<Said, Silent>,
) -> (KnownHost, Vec<u32>, Vec<String>) {
    let mut groups = Vec::new();
    let (capture, silent) = capture_asking(root, &mut |group| {
        groups.push(group);
        ask(group)
    })
    .unwrap();
    let Capture::Machine(header) = capture else { panic!("there are IOMMUs") };
    (KnownHost::of_header(&header, "captured").unwrap(), groups, silent)
}

#[test]
fn what_containers_say_beats_what_is_taken_for_granted() {
    for (name, _) in hosts::list() {
        let mut known = KnownHost::load(Path::new(name)).unwrap();
        known.host.limits.allow_unsafe_interrupts = true;
        for iommu in &mut known.host.iommus {
            // Neither what the registers in the tree say nor what is taken where there are none.
            iommu.aperture = iommu::IovaRange::new(0, (1 << 44) - 1).unwrap();
            iommu.page_sizes = iommu::PageSizes(0x20_1000);
            iommu.coherent = !iommu.coherent;
        }
        known.host.limits.dma_entry_limit = 70_000;
        let tree = tree(&known, &hosts::header(name).unwrap());
        let (again, groups, none) = asked(&tree.0, |group| Ok(said(&known, group)));
        assert_eq!((groups.len(), none.len()), (again.asked.len(), 0), "{name}");
        assert_eq!(again.host.limits.dma_entry_limit, 70_000);
        for group in &known.host.groups {
            let of = |host: &KnownHost| {
                let iommu = host.host.iommu_of(host.host.group(group.number).unwrap()).unwrap();
                (iommu.aperture, iommu.page_sizes, iommu.coherent)
            };
            assert_eq!(of(&again), of(&known), "{name}");
        }
        let width = |s: &String| s.contains("width");
        assert!(!again.not_known.iter().any(width), "{name}: {:?}", again.not_known);
        assert!(
            again.text(softvfio_plan::Style::default()).contains("said by containers (GET_INFO)")
        );
    }
}

/// A group is asked only where VFIO has it, and no answer is no failure.
#[test]
fn who_is_asked() {
    let known = KnownHost::load(Path::new("x86-amd")).unwrap();
    let header = hosts::header("x86-amd").unwrap();
    let tree = tree(&known, &header);
    // The first group is the host's, the second has no driver, the third is busy.
    for (device, driver) in [("0000:00:03.0", Some("nvme")), ("0000:00:04.0", None)] {
        let link = tree.0.join(format!("sys/bus/pci/devices/{device}/driver"));
        fs::remove_file(&link).unwrap();
        if let Some(driver) = driver {
            symlink(format!("../../../bus/pci/drivers/{driver}"), &link).unwrap();
        }
    }
    let (again, groups, none) = asked(&tree.0, |group| match group {
        3 => Err(silent("group 3 is busy")),
        group => Ok(said(&known, group)),
    });
    assert_eq!((&groups[..], none.len()), (&[3, 4][..], 0));
    assert_eq!(again.host.iommus[0].aperture, known.host.iommus[0].aperture);
    assert_eq!(again.not_known, ["RLIMIT_MEMLOCK"]);

    // Nobody answers: what was taken for granted stays, with the first reason.
    let (again, _, none) = asked(&tree.0, |group| Err(silent(&format!("group {group} is busy"))));
    assert_eq!(none, ["group 3 is busy"]);
    assert!(again.asked.is_empty());
    let says = |what: &str| again.not_known.iter().any(|s| s.contains(what));
    assert!(says("(GET_INFO): group 3 is busy") && says("the address width: AMD-Vi"));

    // Without /dev/vfio/vfio one question is enough.
    let (_, groups, none) =
        asked(&tree.0, |_| Err(Silent { is_final: true, ..silent("no container") }));
    assert_eq!((groups.len(), &none[0][..]), (1, "no container"));

    // An answer that knows nothing of the group's regions is somebody else's.
    let (again, groups, none) =
        asked(&tree.0, |_| Ok(Said { ranges: vec![(0, u64::MAX)], ..said(&known, 4) }));
    assert_eq!(groups.len(), 2);
    assert!(none[0].contains("0xfee00000") && none[0].contains("not believed"), "{none:?}");
    assert!(again.asked.is_empty());

    // Attaching is EPERM: that is known then.
    let (again, groups, _) =
        asked(&tree.0, |_| Err(Silent { not_isolated: true, ..silent("EPERM") }));
    assert_eq!(groups.len(), 1);
    assert!(!again.host.iommus[0].msi_isolated);
    assert!(!again.not_known.iter().any(|s| s.contains("remapping")), "{:?}", again.not_known);

    // Nobody may be asked.
    for device in ["0000:00:05.0", "0000:00:06.0"] {
        fs::remove_file(tree.0.join(format!("sys/bus/pci/devices/{device}/driver"))).unwrap();
    }
    let (_, groups, none) = asked(&tree.0, |_| panic!("no group is VFIO's"));
    assert!(groups.is_empty() && none[0].contains("ivhd0"), "{none:?}");
}

/// What is known of one IOMMU is not said of another.
#[test]
fn sentences_name_the_iommu_that_was_not_asked() {
    let known = KnownHost::load(Path::new("arm-two-its-user")).unwrap();
    let tree = tree(&known, &hosts::header("arm-two-its-user").unwrap());
    let (again, _, none) = asked(&tree.0, |group| match known.host.group(group).unwrap().iommu {
        0 => Ok(Said { ranges: vec![(0, (1 << 40) - 1)], ..said(&known, group) }),
        _ => Err(silent("it is busy")),
    });
    assert_eq!(none, ["it is busy"]);
    let name = &again.iommus[1];
    let width = again.not_known.iter().find(|s| s.contains("width")).unwrap();
    assert!(width.starts_with(&format!("{name}: the address width")), "{width}");
    let lasts: Vec<u64> = again.host.iommus.iter().map(|i| i.aperture.last()).collect();
    assert_eq!(lasts, [(1 << 40) - 1, (1 << 48) - 1]);
}

/// VT-d's registers: what the width is where tables and hardware differ.
#[test]
fn width_of_vt_d() {
    let tree = Scratch::new("width");
    tree.write("sys/kernel/iommu_groups/0/reserved_regions", "");
    tree.link("sys/kernel/iommu_groups/0/devices/0000:00:02.0", "x");
    let width = |mgaw: u64, sagaw: u64, ecap: u64| {
        let cap = (mgaw - 1) << 16 | sagaw << 8;
        tree.write("sys/class/iommu/dmar0/intel-iommu/cap", format!("{cap:x}\n"));
        tree.write("sys/class/iommu/dmar0/intel-iommu/ecap", format!("{ecap:x}\n"));
        let iommu = captured(&tree.0).host.iommus[0].clone();
        (64 - iommu.aperture.last().leading_zeros(), iommu.page_sizes.0, iommu.msi_isolated)
    };
    assert_eq!(width(48, 0b110, 8), (48, 0x1000, true));
    assert_eq!(width(39, 0b110, 0), (39, 0x1000, false));
    assert_eq!(width(57, 0b1100, 8), (57, 0x1000, true));
    assert_eq!(width(57, 0b10, 8), (39, 0x1000, true));
    // Scalable mode with a first stage alone: half of what its tables express.
    assert_eq!(width(48, 0b110, 1 << 43 | 1 << 47), (47, 0x20_1000, false));
    assert_eq!(width(48, 0b110, 1 << 43 | 1 << 46 | 1 << 47), (48, 0x1000, false));
    tree.write("sys/class/iommu/dmar0/intel-iommu/cap", "2f0000\n");
    let refused = capture(&tree.0).unwrap_err().to_string();
    assert!(refused.contains("intel-iommu/cap:1:1: expected"), "{refused}");
}

/// No file of a tree makes a capture panic, whatever is in it.
#[test]
fn files_may_hold_anything() {
    let known = KnownHost::load(Path::new("mixed")).unwrap();
    let junk: [&[u8]; 6] =
        [b"", b"\n\n", b"\xff\xfe\x00", b"0x", b"0xffffffffffffffffffff x y\n", &[b'a'; 100_000]];
    let paths = [
        "proc/sys/kernel/osrelease",
        "proc/sys/kernel/arch",
        "proc/self/limits",
        "proc/self/auxv",
        "sys/module/vfio_iommu_type1/parameters/dma_entry_limit",
        "sys/kernel/iommu_groups/1/reserved_regions",
        "sys/kernel/iommu_groups/1/type",
        "sys/kernel/iommu_groups/x/type",
        "sys/class/iommu/dmar7/intel-iommu/cap",
        "sys/bus/pci/devices/0000:00:03.0/class",
        "sys/bus/pci/devices/0000:00:03.0/resource",
        "sys/bus/pci/devices/0000:00:03.0/config",
    ];
    for path in paths {
        for bytes in junk {
            let tree = tree(&known, &hosts::header("mixed").unwrap());
            tree.write(path, bytes);
            match capture(&tree.0) {
                Err(bad) => assert_eq!(bad.to_string().lines().count(), 1),
                Ok(Capture::Machine(header)) => {
                    // A release that is none is found when the profile is read.
                    let _ = KnownHost::of_header(&header, "junk");
                }
                Ok(Capture::NoIommu(_)) => panic!("there is one"),
            }
        }
    }
}

/// The layout on the page is one.
#[test]
fn the_layout_on_the_page_can_be_read() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/plan.md");
    let page = fs::read_to_string(page).unwrap();
    let shown = page.split("```json\n").nth(1).unwrap().split("```").next().unwrap();
    let scratch = Scratch::new("page");
    scratch.write("layout.json", shown);
    let wishes = layout::read(&scratch.0.join("layout.json")).unwrap();
    assert_eq!((wishes.ram.len(), wishes.bars.len(), wishes.windows.len()), (2, 1, 1));
    let host = KnownHost::load(Path::new("arm-smmuv3-its-user")).unwrap();
    let plan = Plan::make(Question::new(&host, wishes)).unwrap();
    // What is printed is read as the same.
    let printed = plan.layout.json().to_string();
    scratch.write("again.json", printed);
    let again = layout::read(&scratch.0.join("again.json")).unwrap();
    let again = Plan::make(Question::new(&host, again)).unwrap();
    assert_eq!(again.layout, plan.layout);
}
