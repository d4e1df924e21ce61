//! The host of a machine: IOMMUs, interrupt controllers, groups, limits.

use iommu::host::{InterruptController, Iommu};
use iommu::{
    Dialect, Group, Host, IovaRange, Limits, MsiPolicy, PageSizes, Prot, ReservedKind,
    ReservedRegion,
};
use serde_json::{Map, Value};

use super::facts::{Arch, Facts, Intx, NamedRange};
use super::header::{At, BadHeader, Header, HeaderDevice};

/// Where Linux on Arm puts the MSI window when no region says so.
const SW_MSI: (u64, u64) = (0x800_0000, 0x80f_ffff);

/// IOMMUs a host may have.
const MAX_IOMMUS: usize = 64;

/// Windows a container may have where a header does not say.
const MAX_WINDOWS: u64 = 8;

/// A host, and what belongs to it besides.
pub(super) struct Built {
    pub(super) host: Host,
    /// Bytes of RAM.
    pub(super) memory: u64,
    /// Where INTx lines lead, by interrupt controller.
    intx: Vec<Intx>,
}

impl Built {
    /// Where the INTx lines of a group's devices lead.
    pub(super) fn intx_of(&self, group: u32) -> Intx {
        let controller = self.host.group(group).map(|g| g.controller);
        controller.and_then(|c| self.intx.get(c)).copied().unwrap_or_default()
    }
}

/// An IOMMU of the header, and where its devices' MSIs go unless they say.
struct Side {
    name: String,
    iommu: Iommu,
    controller: String,
    doorbell: Option<u64>,
}

/// The host of a header.
pub(super) fn host(
    header: &Header,
    facts: &Facts,
    arch: &Arch,
    dialect: &'static Dialect,
) -> Result<Built, BadHeader> {
    let named = header.platform.as_deref().and_then(|name| facts.platform(name));
    let platform = named.or_else(|| facts.platform(&arch.platform));
    let mut members = platform.map(|p| p.host.clone()).unwrap_or_default();
    members.extend(header.host.clone());
    let at = At { members: &members, top: Some("host"), path: "host".into() };
    let memory = at.number("memory")?.or(named.and_then(|p| p.memory).map(|m| m.0));
    let side = |name: &str, at: &At<'_>, devices: &[&HeaderDevice]| {
        let iommu = iommu(at, devices, header.page_size, facts, dialect)?;
        let controller = match (named, at.text("controller")?) {
            (_, Some(kind)) => kind,
            (Some(platform), None) => platform.controller.clone(),
            (None, None) if arch.tagged && !iommu.msi_isolated => "gicv2m".into(),
            (None, None) if arch.tagged => "gicv3-its".into(),
            (None, None) => "apic".into(),
        };
        if facts.controller(&controller).is_none() {
            return at.bad("controller", "a known interrupt controller");
        }
        let doorbell = at.number("doorbell")?;
        Ok(Side { name: name.to_owned(), iommu, controller, doorbell })
    };
    let mut sides = Vec::new();
    match at.object("iommus")? {
        None => sides.push(side("", &at, &header.devices.iter().collect::<Vec<_>>())?),
        Some(several) if several.is_empty() || several.len() > MAX_IOMMUS => {
            return at.bad("iommus", "1 to 64 IOMMUs by name");
        }
        Some(several) => {
            for (name, own) in several {
                let path = format!("host.iommus.{name}");
                let Value::Object(own) = own else {
                    let expected = format!("{path} to be an object");
                    return Err(BadHeader { member: "host".into(), expected });
                };
                // What all IOMMUs have alike stands beside them.
                let mut all = members.clone();
                all.remove("iommus");
                all.extend(own.clone());
                let of = |d: &&HeaderDevice| d.iommu.as_ref().is_none_or(|i| i == name);
                let devices: Vec<_> = header.devices.iter().filter(of).collect();
                sides.push(side(name, &At { members: &all, top: Some("host"), path }, &devices)?);
            }
        }
    }
    let mut host = Host {
        name: header.platform.clone().unwrap_or_else(|| "unnamed".into()),
        dialect: dialect.clone(),
        page_size: header.page_size,
        groups: Vec::new(),
        iommus: sides.iter().map(|s| s.iommu.clone()).collect(),
        controllers: Vec::new(),
        limits: limits(&header.params)?,
    };
    let mut intx = Vec::new();
    for device in &header.devices {
        let (place, side) = side_of(device, &sides)?;
        let (controller, its_intx) = controller(device, side, facts, dialect)?;
        let known = host.controllers.iter().position(|c| *c == controller);
        let number = known.unwrap_or(host.controllers.len());
        if known.is_none() {
            host.controllers.push(controller);
            intx.push(named.and_then(|p| p.intx).unwrap_or(its_intx));
        }
        let owners =
            Owners::of(facts, &side.iommu, device.controller.as_ref().unwrap_or(&side.controller));
        join_group(&mut host.groups, device, (place, number), &side.iommu, &owners)?;
    }
    Ok(Built { host, memory: memory.unwrap_or(u64::MAX), intx })
}

fn bad<T>(device: &HeaderDevice, member: &str, what: &str) -> Result<T, BadHeader> {
    let expected = format!("devices.{}.{member} to be {what}", device.name);
    Err(BadHeader { member: "devices".into(), expected })
}

/// The IOMMU of a device, and its place.
fn side_of<'a>(device: &HeaderDevice, sides: &'a [Side]) -> Result<(usize, &'a Side), BadHeader> {
    let found = match (&device.iommu, sides) {
        (None, [only]) => Some((0, only)),
        (None, _) => None,
        (Some(name), _) => sides.iter().enumerate().find(|(_, s)| s.name == *name),
    };
    match found {
        Some(found) => Ok(found),
        None => bad(device, "iommu", "the name of one of host.iommus"),
    }
}

/// The interrupt controller of a device, and where INTx lines lead there.
fn controller(
    device: &HeaderDevice,
    side: &Side,
    facts: &Facts,
    dialect: &Dialect,
) -> Result<(InterruptController, Intx), BadHeader> {
    let kind = device.controller.as_ref().unwrap_or(&side.controller);
    let Some(known) = facts.controller(kind) else {
        return bad(device, "controller", "a known interrupt controller");
    };
    let own = device.doorbell.or(side.doorbell.filter(|_| *kind == side.controller));
    let controller = InterruptController {
        kind: kind.clone(),
        doorbell: own.unwrap_or(known.doorbell.0),
        dynamic_msix: known.dynamic_msix.iter().any(|d| d == dialect.name),
    };
    Ok((controller, known.intx))
}

fn iommu(
    at: &At<'_>,
    devices: &[&HeaderDevice],
    page_size: u64,
    facts: &Facts,
    dialect: &Dialect,
) -> Result<Iommu, BadHeader> {
    let kind = at.text("iommu")?.unwrap_or_else(|| "unnamed".into());
    let pair = |v: &Value| {
        let [first, last] = v.as_array()?.as_slice() else { return None };
        let number = |v: &Value| v.as_str().and_then(crate::request::parse_number).or(v.as_u64());
        IovaRange::new(number(first)?, number(last)?)
    };
    let [aperture] = at.list("aperture", 1, pair)?[..] else {
        return at.bad("aperture", "one pair of first and last address");
    };
    let pgsizes = at.number("pgsizes")?.unwrap_or(page_size);
    if pgsizes == 0 {
        return at.bad("pgsizes", "a bitmap of page sizes, not 0");
    }
    let msi = match at.text("msi")?.as_deref() {
        None | Some("implicit") => MsiPolicy::Implicit,
        Some("fixed") => MsiPolicy::Fixed { window: window(devices) },
        Some("user") => match at.number("max_windows")?.unwrap_or(MAX_WINDOWS).try_into() {
            Ok(max_windows) => MsiPolicy::User { max_windows },
            Err(_) => return at.bad("max_windows", "a number of at most 32 bits"),
        },
        Some(_) => return at.bad("msi", "implicit, fixed or user"),
    };
    let known = facts.iommu(&kind);
    let write_only = match at.flag("write_only")? {
        Some(write_only) => write_only,
        None => known.write_only.iter().any(|d| d == dialect.name),
    };
    Ok(Iommu {
        aperture,
        page_sizes: PageSizes(pgsizes),
        write_only,
        msi,
        msi_isolated: at.flag("msi_isolated")?.unwrap_or(true),
        coherent: at.flag("coherent")?.unwrap_or_default(),
        nests: known.nests,
        kind,
    })
}

/// The window that a driver chose: sysfs prints it like any MSI range.
fn window(devices: &[&HeaderDevice]) -> IovaRange {
    let regions = devices.iter().flat_map(|d| &d.reserved);
    let found = regions.filter(|(_, _, kind)| kind == "msi").map(|&(first, last, _)| (first, last));
    let (first, last) = found.min().unwrap_or(SW_MSI);
    IovaRange::new(first, last).unwrap_or(IovaRange::ALL)
}

/// Puts a device into its group; `sides` are the places of IOMMU and interrupt controller.
fn join_group(
    groups: &mut Vec<Group>,
    device: &HeaderDevice,
    sides: (usize, usize),
    iommu: &Iommu,
    owners: &Owners,
) -> Result<(), BadHeader> {
    let known = groups.iter().position(|g| g.number == device.group);
    let at = known.unwrap_or(groups.len());
    if known.is_none() {
        groups.push(Group {
            number: device.group,
            iommu: sides.0,
            controller: sides.1,
            devices: Vec::new(),
            reserved: device.reserved.iter().filter_map(|r| region(r, iommu, owners)).collect(),
        });
    }
    let Some(group) = groups.get_mut(at) else { return Ok(()) };
    if (group.iommu, group.controller) != sides {
        return bad(device, "iommu and doorbell", "those of the other devices in its group");
    }
    for name in device.group_devices.iter().chain([&device.bdf]) {
        if !group.devices.contains(name) {
            group.devices.push(name.clone());
        }
    }
    Ok(())
}

/// What reserved ranges are, for people.
struct Owners {
    /// The IOMMU, with its article.
    iommu: String,
    /// Ranges of it that have names of their own.
    ranges: Vec<NamedRange>,
    /// A range in which the interrupt controller keeps doorbells.
    doorbells: String,
}

impl Owners {
    fn of(facts: &Facts, iommu: &Iommu, controller: &str) -> Self {
        let kind = facts.iommu(&iommu.kind);
        let doorbells = facts.controller(controller).map(|c| c.msi_range.clone());
        Self {
            iommu: kind.called.unwrap_or_else(|| "the IOMMU".into()),
            ranges: kind.ranges,
            doorbells: doorbells.unwrap_or_else(|| "the interrupt controller".into()),
        }
    }
}

fn region(
    (first, last, kind): &(u64, u64, String),
    iommu: &Iommu,
    owners: &Owners,
) -> Option<ReservedRegion> {
    let fixed = matches!(iommu.msi, MsiPolicy::Fixed { .. });
    let who = &owners.iommu;
    let (kind, prot, owner) = match kind.as_str() {
        "direct" => (ReservedKind::Direct, Prot::all(), "memory of the firmware".into()),
        "direct-relaxable" => (
            ReservedKind::DirectRelaxable,
            Prot::all(),
            "memory of the firmware, used at boot".into(),
        ),
        "msi" if fixed => (ReservedKind::SwMsi, Prot::WRITE, format!("the MSI window of {who}")),
        "msi" => (ReservedKind::Msi, Prot::WRITE, owners.doorbells.clone()),
        _ => {
            let same = |r: &&NamedRange| (r.first.0, r.last.0) == (*first, *last);
            let named = owners.ranges.iter().find(same).map(|r| r.called.clone());
            let owner = named.unwrap_or_else(|| format!("a range that {who} sets aside"));
            (ReservedKind::Reserved, Prot::empty(), owner)
        }
    };
    Some(ReservedRegion { range: IovaRange::new(*first, *last)?, kind, prot, owner })
}

fn limits(params: &Map<String, Value>) -> Result<Limits, BadHeader> {
    let at = At { members: params, top: Some("module_params"), path: "module_params".into() };
    let default = Limits::default();
    let dma_entry_limit = match at.number("dma_entry_limit")?.map(u32::try_from) {
        None => default.dma_entry_limit,
        Some(Ok(limit)) => limit,
        Some(Err(_)) => return at.bad("dma_entry_limit", "a number of at most 32 bits"),
    };
    let unsafe_interrupts = at.flag("allow_unsafe_interrupts")?;
    let allow_unsafe_interrupts = unsafe_interrupts.unwrap_or(default.allow_unsafe_interrupts);
    Ok(Limits { dma_entry_limit, allow_unsafe_interrupts })
}
