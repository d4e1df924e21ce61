//! From a tree of files to a header.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value, json};

use crate::BadInput;
use crate::layout::hex;

use super::Capture;
use super::asking::{Ask, Asked, ask_all};
use super::iommus::{Fact, Unit, units};
use super::pci::{function, is_address, is_bridge};
use super::tree::Tree;

/// Functions a profile may have: as many as a header.
const MAX_DEVICES: usize = 256;

/// A group, as sysfs has it.
pub(super) struct Group {
    pub(super) number: u32,
    kind: Option<String>,
    pub(super) reserved: Vec<(u64, u64, String)>,
    pub(super) members: Vec<String>,
}

/// Captures a machine; and why somebody who was to be asked has no answer.
pub(super) fn capture(
    root: &Path,
    ask: Option<Ask<'_>>,
) -> Result<(Capture, Vec<String>), BadInput> {
    let tree = Tree::at(root);
    if !tree.exists("sys") {
        let what = "expected a tree with sys in it (and proc): a copy of a machine's";
        return Err(BadInput::new(root.display(), what));
    }
    let groups = groups(&tree)?;
    if groups.is_empty() {
        let none = Capture::NoIommu(format!(
            "no IOMMU here: {} has no group. The hardware has none, or the firmware or the kernel \
             does not use it (intel_iommu=on, iommu=, amd_iommu=). VFIO cannot give a device to a \
             guest on this machine. Any other can be planned for all the same: softvfio plan \
             --host NAME, with a built-in host or a profile captured there",
            tree.show("sys/kernel/iommu_groups")
        ));
        return Ok((none, Vec::new()));
    }
    let mut units = units(&tree)?;
    let mut header = Map::new();
    let mut not_known = Vec::new();
    if units.is_empty() {
        not_known.push(format!("the IOMMUs: {} names none", tree.show("sys/class/iommu")));
        units.push(Unit::unknown());
    }
    let devices = devices(&tree, &groups, &units, &mut not_known)?;
    let Some(devices) = devices else {
        let what = "no PCI function that could be given to a guest: the groups hold bridges and \
                    platform devices alone";
        let none = format!("{}: {what}", tree.show("sys/kernel/iommu_groups"));
        return Ok((Capture::NoIommu(none), Vec::new()));
    };
    // Before the module's parameters are read: whoever opens a container loads it.
    let asked = match ask {
        Some(ask) => ask_all(&tree, &groups, &devices, &mut units, ask)?,
        None => Asked::default(),
    };
    let machine = machine(&tree, &units)?;
    header.insert("format".into(), json!("vfio-oracle/1"));
    match tree.line("proc/sys/kernel/osrelease")? {
        Some(release) => {
            header.insert("kernel".into(), json!(release));
        }
        None => not_known.push("the kernel's release: 7.3 is taken".to_owned()),
    }
    let page_size = page_size(&tree)?;
    if page_size.is_none() && machine == "aarch64" {
        not_known.push("the size of a CPU page: 4 KiB is taken".into());
    }
    header.insert("machine".into(), json!(machine));
    header.insert("page_size".into(), json!(page_size.unwrap_or(4096)));
    let parameters = parameters(&tree, &asked, &mut not_known)?;
    let path = "sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts";
    if tree.exists(path) && parameters.get("allow_unsafe_interrupts") == Some(&json!(false)) {
        // It was attached, so interrupts are isolated.
        units.iter_mut().filter(|u| u.asked).for_each(|u| {
            u.isolated = true;
            u.settle(Fact::Isolation);
        });
    }
    header.insert("module_params".into(), parameters);
    match memlock(&tree)? {
        Some(limit) => {
            header.insert("rlimit_memlock".into(), json!(limit));
        }
        None => not_known.push("RLIMIT_MEMLOCK".into()),
    }
    let (host, devices) =
        hosts(&units, devices, &groups, page_size.unwrap_or(4096), &mut not_known);
    let captured: std::collections::BTreeSet<_> =
        devices.values().filter_map(|d| d.get("group")).map(Value::to_string).collect();
    let left_out = match groups.len() - captured.len() {
        0 => String::new(),
        n => format!(" (and {n} without a PCI function for guests)"),
    };
    let plural = |n: usize| if n == 1 { "" } else { "s" };
    let (n, m) = (units.len(), captured.len());
    let about = format!("captured: {n} IOMMU{}, {m} group{}{left_out}", plural(n), plural(m));
    header.insert("about".into(), json!(about));
    header.insert("host".into(), Value::Object(host));
    header.insert("devices".into(), Value::Object(devices));
    let silent = |why: &String| format!("what a container says of itself (GET_INFO): {why}");
    not_known.extend(asked.silent.iter().map(silent));
    not_known.sort();
    not_known.dedup();
    header.insert("not_known".into(), json!(not_known));
    if !asked.answers.is_empty() {
        header.insert("asked".into(), json!(asked.answers));
    }
    Ok((Capture::Machine(header), asked.silent))
}

fn groups(tree: &Tree) -> Result<Vec<Group>, BadInput> {
    let mut groups = Vec::new();
    for name in tree.list("sys/kernel/iommu_groups")? {
        let dir = format!("sys/kernel/iommu_groups/{name}");
        let number = name.parse().map_err(|_| {
            BadInput::new(tree.show(&dir), "expected directories with the numbers of groups")
        })?;
        groups.push(Group {
            number,
            kind: tree.line(&format!("{dir}/type"))?,
            reserved: reserved(tree, &format!("{dir}/reserved_regions"))?,
            members: tree.list(&format!("{dir}/devices"))?,
        });
    }
    groups.sort_by_key(|g| g.number);
    Ok(groups)
}

/// Lines of first, last, kind.
fn reserved(tree: &Tree, path: &str) -> Result<Vec<(u64, u64, String)>, BadInput> {
    const KINDS: [&str; 4] = ["direct", "direct-relaxable", "reserved", "msi"];
    let number = |word: &str| u64::from_str_radix(word.strip_prefix("0x")?, 16).ok();
    let mut found = Vec::new();
    for (at, line) in tree.lines(path)?.iter().enumerate() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let region = match words[..] {
            [first, last, kind] if KINDS.contains(&kind) => {
                number(first).zip(number(last)).filter(|(f, l)| f <= l).map(|(f, l)| (f, l, kind))
            }
            _ => None,
        };
        let Some((first, last, kind)) = region else {
            let what =
                format!("expected first and last address with 0x, and one of {}", KINDS.join(", "));
            return Err(BadInput::at(tree.show(path), at + 1, 1, what));
        };
        found.push((first, last, kind.to_owned()));
    }
    Ok(found)
}

fn machine(tree: &Tree, units: &[Unit]) -> Result<String, BadInput> {
    let arm = units.iter().any(|u| u.kind.starts_with("smmu"));
    let machine = match tree.line("proc/sys/kernel/arch")? {
        // A program under `softvfio run` runs on another machine than it is shown.
        Some(machine) if arm && machine == "x86_64" => "aarch64".into(),
        Some(machine) => machine,
        None if arm => "aarch64".into(),
        None if tree.is_this_machine() => std::env::consts::ARCH.into(),
        None => "x86_64".into(),
    };
    if !["x86_64", "aarch64"].contains(&machine.as_str()) {
        let what = format!("expected an x86_64 or aarch64 machine, found {machine:?}");
        return Err(BadInput::new(tree.show("proc/sys/kernel/arch"), what));
    }
    Ok(machine)
}

/// From the auxiliary vector: pairs of words, `AT_PAGESZ` is 6.
fn page_size(tree: &Tree) -> Result<Option<u64>, BadInput> {
    let Some(vector) = tree.bytes("proc/self/auxv")? else { return Ok(None) };
    let word = |bytes: &[u8]| bytes.try_into().map(u64::from_ne_bytes).unwrap_or(0);
    let pairs = vector.chunks_exact(16).map(|pair| (word(&pair[..8]), word(&pair[8..])));
    Ok(pairs.into_iter().find(|(key, _)| *key == 6).map(|(_, size)| size))
}

fn parameters(tree: &Tree, asked: &Asked, not_known: &mut Vec<String>) -> Result<Value, BadInput> {
    let dir = "sys/module/vfio_iommu_type1/parameters";
    if !tree.exists(dir) {
        let what = match asked.dma_entry_limit {
            None => {
                "the parameters of vfio_iommu_type1, which is not loaded: the kernel's defaults"
            }
            Some(_) => "whether allow_unsafe_interrupts is set: the kernel's default",
        };
        let verb = if asked.dma_entry_limit.is_none() { "are" } else { "is" };
        not_known.push(format!("{what} {verb} taken"));
    }
    let flag = |name: &str| -> Result<bool, BadInput> {
        let path = format!("{dir}/{name}");
        match tree.line(&path)?.as_deref() {
            None | Some("N" | "0") => Ok(false),
            Some("Y" | "1") => Ok(true),
            Some(other) => {
                let found: String = other.chars().take(40).collect();
                Err(BadInput::at(
                    tree.show(&path),
                    1,
                    1,
                    format!("expected Y or N, found {found:?}"),
                ))
            }
        }
    };
    let path = format!("{dir}/dma_entry_limit");
    let limit = match (asked.dma_entry_limit, tree.line(&path)?) {
        // A container with nothing mapped has all of it left.
        (Some(limit), _) => limit,
        (None, None) => 65535,
        (None, Some(text)) => text.parse::<u32>().map_err(|_| {
            let found: String = text.chars().take(40).collect();
            let what = format!("expected a number of at most 32 bits, found {found:?}");
            BadInput::at(tree.show(&path), 1, 1, what)
        })?,
    };
    Ok(json!({
        "allow_unsafe_interrupts": flag("allow_unsafe_interrupts")?,
        "disable_hugepages": flag("disable_hugepages")?,
        "dma_entry_limit": limit,
    }))
}

/// The soft limit: the column after the name.
fn memlock(tree: &Tree) -> Result<Option<String>, BadInput> {
    let path = "proc/self/limits";
    for (at, line) in tree.lines(path)?.iter().enumerate() {
        let Some(rest) = line.strip_prefix("Max locked memory") else { continue };
        let soft = rest.split_whitespace().next().unwrap_or_default();
        return match (soft, soft.parse::<u64>()) {
            ("unlimited", _) => Ok(Some(soft.into())),
            (_, Ok(bytes)) => Ok(Some(hex(bytes))),
            _ => Err(BadInput::at(tree.show(path), at + 1, 1, "expected a number or unlimited")),
        };
    }
    Ok(None)
}

/// What can be given to guests: the place of its unit, and what a header says of it.
pub(super) type Devices = BTreeMap<String, (usize, Map<String, Value>)>;

fn devices(
    tree: &Tree,
    groups: &[Group],
    units: &[Unit],
    not_known: &mut Vec<String>,
) -> Result<Option<Devices>, BadInput> {
    let mut found = Devices::new();
    let mut left_out = 0usize;
    for group in groups {
        for address in group.members.iter().filter(|m| is_address(m)) {
            if is_bridge(tree, address)? {
                continue;
            }
            if found.len() == MAX_DEVICES {
                left_out += 1;
                continue;
            }
            let unit = units.iter().position(|u| u.devices.contains(address)).unwrap_or(0);
            let mut device = function(tree, address)?;
            let regions: Vec<Value> = group
                .reserved
                .iter()
                .map(|(first, last, kind)| json!([hex(*first), hex(*last), kind]))
                .collect();
            device.insert("group".into(), json!(group.number));
            device.insert("group_devices".into(), json!(group.members));
            device.insert("reserved_regions".into(), json!(regions));
            if let Some(kind) = &group.kind {
                device.insert("group_type".into(), json!(kind));
            }
            found.insert(address.clone(), (unit, device));
        }
    }
    if left_out != 0 {
        not_known.push(format!("{left_out} functions: a profile has {MAX_DEVICES} at most"));
    }
    Ok((!found.is_empty()).then_some(found))
}

/// The member `host`, and `devices` with the names of their IOMMUs. Units that are alike are one:
/// the kernel lets them share page tables.
fn hosts(
    units: &[Unit],
    devices: Devices,
    groups: &[Group],
    page_size: u64,
    not_known: &mut Vec<String>,
) -> (Map<String, Value>, Map<String, Value>) {
    let policy = |unit: usize| -> &'static str {
        let of = |g: &&Group| g.members.iter().any(|m| devices.get(m).is_some_and(|d| d.0 == unit));
        let msi: Vec<_> = groups
            .iter()
            .filter(of)
            .flat_map(|g| g.reserved.iter().filter(|(_, _, kind)| kind == "msi"))
            .collect();
        let arm = units.get(unit).is_some_and(|u| u.kind.starts_with("smmu"));
        let window = |r: &&(u64, u64, String)| (r.0, r.1) == (0x800_0000, 0x80f_ffff);
        match (arm, msi.iter().any(window)) {
            (true, _) if msi.is_empty() => "user",
            (true, _) | (false, true) => "fixed",
            (false, false) => "implicit",
        }
    };
    let used =
        |asked: bool| devices.values().any(|d| units.get(d.0).is_some_and(|u| u.asked == asked));
    // What is not known of one may be known of another.
    let several_minds = used(true) && used(false);
    let mut kinds: Vec<(Map<String, Value>, String)> = Vec::new();
    let mut place = BTreeMap::new();
    for unit in devices.values().map(|(unit, _)| *unit) {
        let Some(facts) = units.get(unit).filter(|_| !place.contains_key(&unit)) else { continue };
        let msi = policy(unit);
        if msi == "user" && facts.max_windows.is_none() {
            not_known.push(
                "where MSIs go: no region of kind msi behind an SMMU, so windows are taken to be \
                 the user's (docs/msi-windows.md)"
                    .into(),
            );
        }
        not_known.extend(facts.not_known.iter().map(|(_, sentence)| match several_minds {
            true => format!("{}: {sentence}", facts.called()),
            false => sentence.clone(),
        }));
        let page_sizes = if !facts.asked && page_size > 4096 && facts.kind.starts_with("smmu") {
            // With larger CPU pages the driver chooses tables with the same granule.
            page_size | (page_size * (page_size / 8))
        } else {
            facts.page_sizes
        };
        let members = json!({
            "iommu": facts.kind, "aperture": [[hex(facts.first), hex(facts.last)]], "pgsizes": hex(page_sizes),
            "msi": msi, "msi_isolated": facts.isolated, "coherent": facts.coherent,
        });
        let Value::Object(mut members) = members else { continue };
        if let Some(windows) = facts.max_windows.filter(|_| msi == "user") {
            members.insert("max_windows".into(), json!(windows));
        }
        let at = kinds.iter().position(|(known, _)| *known == members).unwrap_or_else(|| {
            kinds.push((members, facts.name.clone()));
            kinds.len() - 1
        });
        place.insert(unit, at);
    }
    let several = kinds.len() > 1;
    let devices = devices
        .into_iter()
        .map(|(address, (unit, mut device))| {
            let kind = place.get(&unit).and_then(|at| kinds.get(*at));
            if let Some((_, name)) = kind.filter(|_| several) {
                device.insert("iommu".into(), json!(name));
            }
            (address, Value::Object(device))
        })
        .collect();
    let host = if several {
        let named: Map<String, Value> =
            kinds.into_iter().map(|(members, name)| (name, Value::Object(members))).collect();
        Map::from_iter([("iommus".to_owned(), Value::Object(named))])
    } else {
        kinds.into_iter().next().map(|(members, _)| members).unwrap_or_default()
    };
    (host, devices)
}
