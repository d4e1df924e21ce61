//! What the client finds in `/dev/vfio` and `/sys` besides the host's own.
//!
//! A pure function from emulated functions and groups to directories, files and links; how they are
//! put in place is `overlay`'s matter. Names, contents and the direction of links follow
//! Documentation/ABI/testing/sysfs-bus-pci and sysfs-kernel-iommu_groups, and what `cat` and `ls`
//! show on a 6.18 host. Functions hang under a root bus of their own, `pci0000:7f`, so that the
//! relative links resolve and `realpath` gives a path of the right depth.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::Write as _;

use super::tree::{SysFunction, SysGroup, SysIommu, SysResource, Tree};

/// What is laid over a directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Dir {
    /// What is in it.
    pub(super) children: BTreeMap<OsString, Node>,
    /// Nothing of the host's shows through.
    pub(super) opaque: bool,
}

/// An entry of a [`Dir`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Node {
    /// A directory, laid over the host's of that name.
    Dir(Dir),
    /// A file, in the place of the host's of that name.
    File {
        /// Permissions.
        mode: u32,
        /// Content.
        data: Vec<u8>,
    },
    /// A symbolic link, likewise.
    Link(OsString),
}

impl Dir {
    /// Hides what is there, and is nothing where nothing is.
    pub(super) fn is_vacuous(&self) -> bool {
        self.opaque && self.children.is_empty()
    }

    fn dir(&mut self, path: &str) -> &mut Dir {
        path.split('/').fold(self, |dir, name| {
            let node = dir.children.entry(name.into()).or_insert_with(|| Node::Dir(Dir::default()));
            if !matches!(node, Node::Dir(_)) {
                *node = Node::Dir(Dir::default());
            }
            match node {
                Node::Dir(dir) => dir,
                Node::File { .. } | Node::Link(_) => unreachable!("made a directory above"),
            }
        })
    }

    fn put(&mut self, path: &str, node: Node) {
        match path.rsplit_once('/') {
            Some((parent, name)) => self.dir(parent).put(name, node),
            None => drop(self.children.insert(path.into(), node)),
        }
    }

    fn file(&mut self, path: &str, mode: u32, data: impl Into<Vec<u8>>) {
        self.put(path, Node::File { mode, data: data.into() });
    }

    fn text(&mut self, path: &str, text: impl std::fmt::Display) {
        self.file(path, 0o444, format!("{text}\n"));
    }

    fn link(&mut self, path: &str, target: impl Into<OsString>) {
        self.put(path, Node::Link(target.into()));
    }
}

/// Which of the host's facts our files repeat.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    /// CPUs on line, as in `/sys/devices/system/cpu/online`.
    pub(super) cpus: String,
    /// Name of a root bus that the host does not have.
    pub(super) root_bus: String,
}

/// Everything to add below `/`.
pub(super) fn additions(tree: &Tree, facts: &Facts) -> Dir {
    let mut root = Dir::default();
    dev(tree, root.dir("dev"));
    let sys = root.dir("sys");
    modules(tree, sys);
    drivers(tree, sys);
    for group in &tree.groups {
        add_group(tree, group, facts, sys);
    }
    for function in &tree.functions {
        add_function(function, facts, sys);
    }
    for iommu in &tree.iommus {
        add_iommu(tree, iommu, facts, sys);
    }
    if tree.only_emulated {
        for path in [
            "sys/bus/pci/devices",
            "sys/kernel/iommu_groups",
            "sys/class/vfio-dev",
            "sys/class/iommu",
        ] {
            root.dir(path).opaque = true;
        }
        root.dir("sys/bus/pci/drivers/vfio-pci").opaque = true;
        root.dir("dev/vfio").opaque = true;
    }
    root
}

fn dev(tree: &Tree, dev: &mut Dir) {
    dev.file("vfio/vfio", 0o666, []);
    for group in &tree.groups {
        dev.file(&format!("vfio/{}", group.number), 0o666, []);
    }
}

fn modules(tree: &Tree, sys: &mut Dir) {
    let limit = tree.dma_entry_limit.unwrap_or(65535).to_string();
    let unsafe_interrupts = if tree.allow_unsafe_interrupts { "Y" } else { "N" };
    let parameters: [(&str, &[(&str, &str)]); 3] = [
        ("vfio", &[("enable_unsafe_noiommu_mode", "N")]),
        (
            "vfio_pci",
            &[
                ("disable_denylist", "N"),
                ("disable_idle_d3", "N"),
                ("disable_vga", "N"),
                ("enable_sriov", "N"),
                ("ids", ""),
                ("nointxmask", "N"),
            ],
        ),
        (
            "vfio_iommu_type1",
            &[
                ("allow_unsafe_interrupts", unsafe_interrupts),
                ("disable_hugepages", "N"),
                ("dma_entry_limit", &limit),
            ],
        ),
    ];
    for (module, parameters) in parameters {
        let dir = sys.dir(&format!("module/{module}"));
        dir.text("initstate", "live");
        for (name, value) in parameters {
            dir.text(&format!("parameters/{name}"), value);
        }
    }
    sys.link("module/vfio_pci/drivers/pci:vfio-pci", "../../../bus/pci/drivers/vfio-pci");
}

fn drivers(tree: &Tree, sys: &mut Dir) {
    sys.file("bus/pci/drivers_probe", 0o222, []);
    let used = tree.functions.iter().filter_map(|f| f.driver.as_deref());
    for driver in std::iter::once("vfio-pci").chain(used) {
        let dir = sys.dir(&format!("bus/pci/drivers/{driver}"));
        for name in ["bind", "unbind", "new_id", "remove_id"] {
            dir.file(name, 0o222, []);
        }
        if driver == "vfio-pci" {
            dir.link("module", "../../../../module/vfio_pci");
        }
    }
}

fn add_group(tree: &Tree, group: &SysGroup, facts: &Facts, sys: &mut Dir) {
    let dir = sys.dir(&format!("kernel/iommu_groups/{}", group.number));
    // A group of ours is whole: nothing of a real one with the same number shows through.
    dir.opaque = true;
    dir.dir("devices");
    for function in tree.functions.iter().filter(|f| f.group == group.number) {
        dir.link(
            &format!("devices/{}", function.bdf),
            format!("../../../../devices/{}/{}", facts.root_bus, function.bdf),
        );
    }
    if !group.kind.is_empty() {
        dir.file("type", 0o644, format!("{}\n", group.kind));
    }
    if let Some(name) = &group.name {
        dir.text("name", name);
    }
    let mut regions = group.reserved_regions.clone();
    if !regions.is_empty() && !regions.ends_with('\n') {
        regions.push('\n');
    }
    dir.file("reserved_regions", 0o444, regions);
}

fn add_function(function: &SysFunction, facts: &Facts, sys: &mut Dir) {
    let SysFunction { bdf, vendor, device, subsystem_vendor, subsystem_device, class, .. } =
        function;
    let home = format!("devices/{}/{bdf}", facts.root_bus);
    sys.link(&format!("bus/pci/devices/{bdf}"), format!("../../../{home}"));
    if let Some(driver) = &function.driver {
        sys.link(&format!("bus/pci/drivers/{driver}/{bdf}"), format!("../../../../{home}"));
    }
    let modalias = format!(
        "pci:v{vendor:08X}d{device:08X}sv{subsystem_vendor:08X}sd{subsystem_device:08X}bc{:02X}sc{:02X}i{:02X}",
        class >> 16 & 0xff,
        class >> 8 & 0xff,
        class & 0xff
    );
    let mut uevent = String::new();
    if let Some(driver) = &function.driver {
        let _ = writeln!(uevent, "DRIVER={driver}");
    }
    let _ = write!(
        uevent,
        "PCI_CLASS={class:X}\nPCI_ID={vendor:04X}:{device:04X}\n\
         PCI_SUBSYS_ID={subsystem_vendor:04X}:{subsystem_device:04X}\nPCI_SLOT_NAME={bdf}\nMODALIAS={modalias}\n"
    );
    let mut resources = String::new();
    for index in 0..function.resources.len().max(7) {
        let SysResource { start, end, flags } =
            function.resources.get(index).copied().unwrap_or_default();
        let _ = writeln!(resources, "0x{start:016x} 0x{end:016x} 0x{flags:016x}");
    }

    let dir = sys.dir(&home);
    dir.opaque = true;
    dir.text("vendor", format_args!("0x{vendor:04x}"));
    dir.text("device", format_args!("0x{device:04x}"));
    dir.text("subsystem_vendor", format_args!("0x{subsystem_vendor:04x}"));
    dir.text("subsystem_device", format_args!("0x{subsystem_device:04x}"));
    dir.text("class", format_args!("0x{class:06x}"));
    dir.text("revision", format_args!("0x{:02x}", function.revision));
    dir.text("irq", function.irq);
    dir.text("modalias", modalias);
    dir.text("local_cpulist", &facts.cpus);
    dir.text("local_cpus", cpu_mask(&facts.cpus));
    dir.text("dma_mask_bits", 64);
    dir.text("consistent_dma_mask_bits", 64);
    dir.text("ari_enabled", 0);
    dir.text("power_state", "D0");
    dir.text("broken_parity_status", 0);
    dir.file("resource", 0o444, resources);
    dir.file("config", 0o644, function.config.clone());
    dir.file("uevent", 0o644, uevent);
    for (name, value) in [
        ("enable", "1".to_owned()),
        ("msi_bus", "1".to_owned()),
        ("d3cold_allowed", "1".to_owned()),
        ("numa_node", function.numa_node.to_string()),
        ("driver_override", function.driver.clone().unwrap_or_else(|| "(null)".into())),
    ] {
        dir.file(name, 0o644, format!("{value}\n"));
    }
    dir.file("remove", 0o200, []);
    dir.file("rescan", 0o200, []);
    if let Some(method) = &function.reset_method {
        dir.file("reset", 0o200, []);
        dir.file("reset_method", 0o644, format!("{method}\n"));
    }
    if let Some(link) = &function.link {
        for which in ["current", "max"] {
            dir.text(&format!("{which}_link_speed"), &link.speed);
            dir.text(&format!("{which}_link_width"), link.width);
        }
    }
    dir.link("subsystem", "../../../bus/pci");
    dir.link("iommu_group", format!("../../../kernel/iommu_groups/{}", function.group));
    if let Some(driver) = &function.driver {
        dir.link("driver", format!("../../../bus/pci/drivers/{driver}"));
    }
    if let Some(iommu) = &function.iommu {
        dir.link("iommu", format!("../../virtual/iommu/{iommu}"));
    }
    for (name, data) in &function.extra {
        dir.file(name, 0o644, data.clone());
    }
    if let Some(number) = function.vfio_dev {
        let below = format!("vfio-dev/vfio{number}");
        let entry = dir.dir(&below);
        entry.file("uevent", 0o644, []);
        entry.link("device", "../../../".to_owned() + bdf);
        entry.link("subsystem", "../../../../../class/vfio-dev");
        sys.link(&format!("class/vfio-dev/vfio{number}"), format!("../../{home}/{below}"));
    }
}

fn add_iommu(tree: &Tree, iommu: &SysIommu, facts: &Facts, sys: &mut Dir) {
    let name = &iommu.name;
    sys.link(&format!("class/iommu/{name}"), format!("../../devices/virtual/iommu/{name}"));
    let dir = sys.dir(&format!("devices/virtual/iommu/{name}"));
    dir.opaque = true;
    dir.link("subsystem", "../../../../class/iommu");
    dir.file("uevent", 0o644, []);
    dir.dir("devices");
    for function in tree.functions.iter().filter(|f| f.iommu.as_ref() == Some(name)) {
        dir.link(
            &format!("devices/{}", function.bdf),
            format!("../../../../{}/{}", facts.root_bus, function.bdf),
        );
    }
    for (path, text) in &iommu.files {
        dir.text(path, text.trim_end_matches('\n'));
    }
}

/// `0-1,4` as `local_cpus` writes it: words of 32 bits, the highest first.
fn cpu_mask(list: &str) -> String {
    let mut words: Vec<u32> = vec![0];
    for range in list.trim().split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (Ok(first), Ok(last)) = (first.parse::<usize>(), last.parse::<usize>()) else {
            continue;
        };
        for cpu in first..=last.min(first.saturating_add(8191)) {
            let word = cpu / 32;
            if words.len() <= word {
                words.resize(word + 1, 0);
            }
            words[word] |= 1 << (cpu % 32);
        }
    }
    let mut text = String::new();
    for (index, word) in words.iter().rev().enumerate() {
        let _ = if index == 0 { write!(text, "{word:x}") } else { write!(text, ",{word:08x}") };
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_masks_are_as_the_kernel_writes_them() {
        assert_eq!(cpu_mask("0-1"), "3");
        assert_eq!(cpu_mask("0,33"), "2,00000001");
        assert_eq!(cpu_mask(""), "0");
    }

    #[test]
    fn identity_comes_from_configuration_space() {
        let mut config = vec![0; 256];
        config[..4].copy_from_slice(&[0x36, 0x1b, 0x10, 0x00]);
        config[8..12].copy_from_slice(&[2, 0x02, 0x08, 0x01]);
        config[0x2c..0x30].copy_from_slice(&[0xf4, 0x1a, 0x00, 0x11]);
        let function = SysFunction::new("0000:01:00.0", 17, config);
        let tree = Tree { functions: vec![function], ..Tree::default() };
        let facts = Facts { cpus: "0-1".into(), root_bus: "pci0000:7f".into() };
        let mut root = additions(&tree, &facts);
        let dir = root.dir("sys/devices/pci0000:7f/0000:01:00.0");
        let text = |name: &str| match &dir.children[&OsString::from(name)] {
            Node::File { data, .. } => String::from_utf8(data.clone()).unwrap(),
            other => panic!("{name} is {other:?}"),
        };
        assert_eq!(text("vendor"), "0x1b36\n");
        assert_eq!(text("class"), "0x010802\n");
        assert_eq!(text("modalias"), "pci:v00001B36d00000010sv00001AF4sd00001100bc01sc08i02\n");
        assert_eq!(
            text("uevent"),
            "DRIVER=vfio-pci\nPCI_CLASS=10802\nPCI_ID=1B36:0010\nPCI_SUBSYS_ID=1AF4:1100\n\
             PCI_SLOT_NAME=0000:01:00.0\nMODALIAS=pci:v00001B36d00000010sv00001AF4sd00001100bc01sc08i02\n"
        );
        assert_eq!(text("resource").lines().count(), 7);
    }
}
