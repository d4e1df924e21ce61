use std::collections::BTreeMap;

use super::super::additions::{Facts, additions};
use super::super::tree::{SysFunction, SysGroup, Tree};
use super::*;

/// Directories by path; a name that ends in `/` is a directory, `a>b` a link, else a file.
struct Fake(BTreeMap<&'static str, &'static str>);

impl Host for Fake {
    fn entries(&self, dir: &Path) -> Option<Vec<Entry>> {
        let names = self.0.get(dir.to_str()?)?;
        let entry = |name: &str| {
            let (name, kind) = match (name.strip_suffix('/'), name.split_once('>')) {
                (Some(name), _) => (name, EntryKind::Dir),
                (None, Some((name, target))) => (name, EntryKind::Link(target.into())),
                (None, None) => (name, EntryKind::Other),
            };
            Entry { name: name.into(), kind }
        };
        Some(names.split_whitespace().map(entry).collect())
    }
}

fn laptop() -> Fake {
    Fake(BTreeMap::from([
        ("/dev", "null tty ptmx pts/ fd>/proc/self/fd"),
        ("/sys", "bus/ devices/ kernel/ module/ class/"),
        ("/sys/bus", "pci/"),
        ("/sys/bus/pci", "devices/ drivers/ drivers_probe"),
        ("/sys/bus/pci/devices", "0000:00:02.0>../../../devices/pci0000:00/0000:00:02.0"),
        ("/sys/bus/pci/drivers", "i915/"),
        ("/sys/devices", "pci0000:00/ virtual/"),
        ("/sys/kernel", "iommu_groups/ mm/"),
        ("/sys/kernel/iommu_groups", "0/ 1/"),
        ("/sys/module", "i915/"),
        ("/sys/class", "net/"),
    ]))
}

fn tree() -> Tree {
    Tree {
        functions: vec![SysFunction::new("0000:01:00.0", 17, vec![0; 256])],
        groups: vec![SysGroup { number: 17, kind: "DMA".into(), ..SysGroup::default() }],
        ..Tree::default()
    }
}

fn script(tree: &Tree, host: &Fake) -> Script {
    let facts = Facts { cpus: "0".into(), root_bus: "pci0000:7f".into() };
    plan(&additions(tree, &facts), Path::new("/stage"), host).unwrap()
}

/// What the client sees: paths by whether they are ours. Follows the script as the kernel would.
fn seen(script: &Script) -> BTreeMap<String, &'static str> {
    let mut built = BTreeMap::new();
    let mut seen = BTreeMap::new();
    let mut stage = String::new();
    let text = |path: &CString| path.to_str().unwrap().to_owned();
    for step in &script.steps {
        match step {
            Step::Private | Step::Tmpfs(_) | Step::BindSelf(_) => {}
            Step::Mkdir(path) => {
                assert_eq!(built.insert(text(path), "dir"), None, "{step}");
            }
            Step::File { path, .. } => assert_eq!(built.insert(text(path), "file"), None, "{step}"),
            Step::Symlink { path, .. } => {
                assert_eq!(built.insert(text(path), "link"), None, "{step}");
            }
            Step::BindDir { to, .. } | Step::BindFile { to, .. } => {
                assert_eq!(built.insert(text(to), "host"), None, "{step}");
            }
            Step::Move { from, to } => {
                let (from, to) = (text(from), text(to));
                if from == "/stage" {
                    stage = to;
                    continue;
                }
                let from = format!("/stage{}", from.strip_prefix(&stage).unwrap());
                for (path, kind) in &built {
                    if let Some(rest) = path.strip_prefix(&from)
                        && (rest.is_empty() || rest.starts_with('/'))
                    {
                        seen.insert(format!("{to}{rest}"), *kind);
                    }
                }
            }
        }
    }
    seen
}

fn replaced(script: &Script) -> Vec<String> {
    let target = |step: &'_ Step| match step {
        Step::Move { from, to } if from.to_bytes() != b"/stage" => Some(to.clone()),
        _ => None,
    };
    script.steps.iter().filter_map(target).map(|to| to.into_string().unwrap()).collect()
}

#[test]
fn only_what_changes_is_replaced() {
    let script = script(&tree(), &laptop());
    let mut replaced = replaced(&script);
    replaced.sort_unstable();
    let expected =
        ["/dev", "/sys/bus/pci", "/sys/devices", "/sys/kernel/iommu_groups", "/sys/module"];
    assert_eq!(replaced, expected);
}

#[test]
fn the_hosts_entries_stand_beside_ours() {
    let script = script(&tree(), &laptop());
    let seen = seen(&script);
    for (path, kind) in [
        ("/dev/null", "host"),
        ("/dev/pts", "host"),
        ("/dev/fd", "link"),
        ("/dev/vfio", "dir"),
        ("/dev/vfio/vfio", "file"),
        ("/dev/vfio/17", "file"),
        ("/sys/bus/pci/devices/0000:00:02.0", "link"),
        ("/sys/bus/pci/devices/0000:01:00.0", "link"),
        ("/sys/bus/pci/drivers/i915", "host"),
        ("/sys/bus/pci/drivers/vfio-pci/bind", "file"),
        ("/sys/bus/pci/drivers_probe", "file"),
        ("/sys/devices/pci0000:00", "host"),
        ("/sys/devices/pci0000:7f/0000:01:00.0/vendor", "file"),
        ("/sys/kernel/iommu_groups/1", "host"),
        ("/sys/kernel/iommu_groups/17/devices/0000:01:00.0", "link"),
        ("/sys/module/i915", "host"),
        ("/sys/module/vfio_pci/parameters/ids", "file"),
    ] {
        assert_eq!(seen.get(path), Some(&kind), "{path}");
    }
}

#[test]
fn ptmx_stays_beside_its_pts() {
    let step = |host: &Fake, path: &str| {
        let script = script(&tree(), host);
        let find = |step: &&Step| match step {
            Step::Symlink { path: to, .. }
            | Step::BindDir { to, .. }
            | Step::BindFile { to, .. } => to.to_bytes() == path.as_bytes(),
            _ => false,
        };
        script.steps.iter().find(find).map(ToString::to_string)
    };
    let mut host = laptop();
    assert_eq!(step(&host, "/stage/0/.host").unwrap(), "binding /dev to /stage/0/.host");
    assert_eq!(step(&host, "/stage/0/ptmx").unwrap(), "creating link /stage/0/ptmx");
    assert_eq!(seen(&script(&tree(), &host))["/dev/ptmx"], "link");

    // A container's link finds the directory that is there.
    host.0.insert("/dev", "null ptmx>pts/ptmx pts/");
    assert_eq!(step(&host, "/stage/0/.host"), None);
    host.0.insert("/dev", "null ptmx .host pts/");
    assert_eq!(step(&host, "/stage/0/ptmx").unwrap(), "binding /dev/ptmx to /stage/0/ptmx");
    assert_eq!(step(&server(), "/stage/0/.host"), None);
}

#[test]
fn a_host_without_pci_or_iommu_gets_both() {
    let mut host = laptop();
    host.0.insert("/sys/bus", "usb/");
    host.0.insert("/sys/kernel", "mm/");
    for path in ["/sys/bus/pci", "/sys/bus/pci/devices", "/sys/bus/pci/drivers"] {
        host.0.remove(path);
    }
    let script = script(&tree(), &host);
    assert!(replaced(&script).iter().any(|path| path == "/sys/bus"));
    assert!(replaced(&script).iter().any(|path| path == "/sys/kernel"));
    let seen = seen(&script);
    assert_eq!(seen["/sys/bus/usb"], "host");
    assert_eq!(seen["/sys/bus/pci/devices/0000:01:00.0"], "link");
    assert_eq!(seen["/sys/kernel/mm"], "host");
    assert_eq!(seen["/sys/kernel/iommu_groups/17/type"], "file");
}

/// With vfio loaded, a device bound to vfio-pci, and a group 17 of its own.
fn server() -> Fake {
    let mut host = laptop();
    host.0.insert("/dev", "null vfio/");
    host.0.insert("/dev/vfio", "vfio 17 5 devices/");
    host.0.insert("/sys/bus/pci/drivers", "i915/ vfio-pci/");
    host.0.insert("/sys/bus/pci/drivers/vfio-pci", "bind unbind new_id 0000:03:00.0>../../../../x");
    host.0.insert("/sys/bus/pci/devices", "0000:01:00.0>../../../devices/pci0000:00/0000:01:00.0");
    host.0.insert("/sys/kernel/iommu_groups", "5/ 17/");
    host.0.insert("/sys/kernel/iommu_groups/17", "devices/ reserved_regions type name");
    host.0.insert("/sys/module", "vfio/ vfio_pci/ vfio_iommu_type1/ i915/");
    host.0.insert("/sys/module/vfio", "initstate parameters/ holders/");
    host.0.insert("/sys/module/vfio/parameters", "enable_unsafe_noiommu_mode");
    host.0.insert("/sys/module/vfio_pci", "initstate parameters/ drivers/");
    host.0.insert("/sys/module/vfio_pci/drivers", "pci:vfio-pci>../../../bus/pci/drivers/vfio-pci");
    host.0.insert("/sys/module/vfio_pci/parameters", "ids");
    host.0.insert("/sys/module/vfio_iommu_type1", "initstate parameters/");
    host.0.insert("/sys/module/vfio_iommu_type1/parameters", "dma_entry_limit");
    host
}

#[test]
fn a_host_with_vfio_keeps_its_own_beside_ours() {
    let script = script(&tree(), &server());
    let replaced = replaced(&script);
    assert!(replaced.contains(&"/dev/vfio".to_owned()) && !replaced.contains(&"/dev".to_owned()));
    assert!(replaced.contains(&"/sys/module/vfio".to_owned()), "{replaced:?}");
    assert!(!replaced.contains(&"/sys/module".to_owned()));
    let seen = seen(&script);
    assert_eq!(seen["/dev/vfio/vfio"], "file");
    assert_eq!(seen["/dev/vfio/17"], "file");
    assert_eq!(seen["/dev/vfio/5"], "host");
    assert_eq!(seen["/sys/bus/pci/drivers/vfio-pci/0000:03:00.0"], "link");
    assert_eq!(seen["/sys/bus/pci/drivers/vfio-pci/bind"], "file");
    assert_eq!(seen["/sys/module/vfio/holders"], "host");
    // A group of ours is ours alone.
    assert_eq!(seen.get("/sys/kernel/iommu_groups/17/name"), None);
    for path in ["/dev/vfio/17", "/sys/bus/pci/devices/0000:01:00.0", "/sys/kernel/iommu_groups/17"]
    {
        assert!(script.shadowed.contains(&PathBuf::from(path)), "{path} is hidden, and told");
    }
}

#[test]
fn the_hosts_can_be_hidden() {
    let tree = Tree { only_emulated: true, ..tree() };
    let seen = seen(&script(&tree, &server()));
    for path in [
        "/dev/vfio/5",
        "/dev/vfio/devices",
        "/sys/bus/pci/drivers/vfio-pci/0000:03:00.0",
        "/sys/kernel/iommu_groups/5",
    ] {
        assert_eq!(seen.get(path), None, "{path}");
    }
    assert_eq!(seen["/sys/bus/pci/drivers/i915"], "host");
    assert_eq!(seen["/dev/vfio/17"], "file");
    // There is nothing to hide there.
    assert_eq!(seen.get("/sys/class/iommu"), None);
}

#[test]
fn a_host_without_sys_is_refused() {
    let mut host = laptop();
    host.0.remove("/sys");
    let facts = Facts { cpus: "0".into(), root_bus: "pci0000:7f".into() };
    let error = plan(&additions(&tree(), &facts), Path::new("/stage"), &host).unwrap_err();
    assert_eq!(error, PlanError::NoDirectory("/sys".into()));
}
