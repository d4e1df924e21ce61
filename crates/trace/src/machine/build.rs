//! A machine: what a header says, completed by what we know of its platform.

use iommu::host::{InterruptController, Iommu};
use iommu::{
    Dialect, Group, Host, IovaRange, Limits, MsiPolicy, PageSizes, Prot, ReservedKind,
    ReservedRegion,
};
use pci::Bar;
use serde_json::{Map, Value};

use super::facts::{Arch, DeviceKind, Facts, Intx};
use super::header::{At, BadHeader, Header, HeaderDevice};
use super::kernel::dialect_of;
use crate::process::ProcessLayout;

/// Where Linux on Arm puts the MSI window when no region says so.
const SW_MSI: (u64, u64) = (0x800_0000, 0x80f_ffff);

/// Bytes that a hole of a BAR is filled with at most.
const MAX_HOLE: u64 = 1 << 20;

/// A device, to be built.
#[derive(Clone, Debug)]
pub(crate) struct DeviceSpec {
    /// What requests call it.
    pub(crate) name: String,
    /// Its address.
    pub(crate) bdf: String,
    /// Its group.
    pub(crate) group: u32,
    /// The driver it is bound to; empty: none.
    pub(crate) driver: String,
    /// BARs and ROM.
    pub(crate) bars: [Option<Bar>; 7],
    /// Configuration space; may end early.
    pub(crate) config: Vec<u8>,
    /// Its full size in bytes.
    pub(crate) config_size: usize,
    /// Whether it has a way to be reset alone, in sysfs' words.
    pub(crate) reset_method: Option<String>,
    /// Constants: BAR, offset, bytes.
    pub(crate) constants: Vec<(u8, u64, Vec<u8>)>,
    /// The start of its ROM.
    pub(crate) rom: Vec<u8>,
    /// Where its INTx line leads.
    pub(crate) intx: Intx,
    /// Whether its link comes back after a reset of its bus.
    pub(crate) link_comes_back: bool,
}

/// A machine as a header describes it.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    /// IOMMUs, groups, interrupt controllers, limits, dialect.
    pub(crate) host: Host,
    /// Devices, in the header's order.
    pub(crate) devices: Vec<DeviceSpec>,
    /// The shape of a process.
    pub(crate) layout: ProcessLayout,
    /// `disable_hugepages`, which has no effect that requests see.
    pub(crate) disable_hugepages: bool,
    /// What the user should know of how the header was taken.
    pub(crate) notes: Vec<String>,
}

impl Machine {
    /// Builds the machine of a header, in its kernel's dialect or the one given.
    pub(crate) fn build(
        header: &Header,
        facts: &Facts,
        dialect: Option<&'static Dialect>,
    ) -> Result<Self, BadHeader> {
        let mut notes = Vec::new();
        let dialect = match dialect {
            Some(dialect) => dialect,
            None => dialect_for(header.kernel.as_deref(), &mut notes)?,
        };
        let name = header.machine.as_deref().unwrap_or_else(|| arch_of(header));
        let Some(arch) = facts.arch(name) else {
            let expected = format!("machine to be {}, found {name}", facts.arches());
            return Err(BadHeader { member: "machine".into(), expected });
        };
        let (host, memory, intx) = host(header, facts, arch, dialect)?;
        let spec = |d| DeviceSpec { intx, ..spec(d, facts, arch) };
        let devices = header.devices.iter().map(spec).collect();
        let layout = ProcessLayout {
            page: header.page_size,
            top: arch.mmap_top.0,
            limit: arch.user_limit.0,
            // Since Linux 6.7, where a table of page entries maps a huge page.
            huge: if dialect.name == "6.1" { 1 } else { header.page_size * header.page_size / 8 },
            tagged: arch.tagged,
            memory,
        };
        let params = At {
            members: &header.params,
            top: Some("module_params"),
            path: "module_params".into(),
        };
        let disable_hugepages = params.flag("disable_hugepages")?.unwrap_or_default();
        Ok(Self { host, devices, layout, disable_hugepages, notes })
    }
}

/// The architecture of a platform's name, when the header has no `machine`.
fn arch_of(header: &Header) -> &'static str {
    match header.platform.as_deref() {
        Some(platform) if platform.starts_with("arm") => "aarch64",
        _ => "x86_64",
    }
}

fn dialect_for(
    kernel: Option<&str>,
    notes: &mut Vec<String>,
) -> Result<&'static Dialect, BadHeader> {
    let Some(release) = kernel else {
        notes.push("the header names no kernel: answering as 7.3".into());
        return Ok(&Dialect::V7_3);
    };
    match dialect_of(release) {
        Some((dialect, true)) => Ok(dialect),
        Some((dialect, false)) => {
            notes.push(format!("kernel {release}: answering as {}, the nearest", dialect.name));
            Ok(dialect)
        }
        None => {
            let expected = format!("kernel to be a release like 6.12.1, found {release:?}");
            Err(BadHeader { member: "kernel".into(), expected })
        }
    }
}

/// The host, the memory it has, and where INTx lines lead.
fn host(
    header: &Header,
    facts: &Facts,
    arch: &Arch,
    dialect: &'static Dialect,
) -> Result<(Host, u64, Intx), BadHeader> {
    let named = header.platform.as_deref().and_then(|name| facts.platform(name));
    let platform = named.or_else(|| facts.platform(&arch.platform));
    let mut members = platform.map(|p| p.host.clone()).unwrap_or_default();
    members.extend(header.host.clone());
    let at = At { members: &members, top: Some("host"), path: "host".into() };
    let iommu = iommu(&at, header, facts, dialect)?;
    let kind = match (named, at.text("controller")?) {
        (_, Some(kind)) => kind,
        (Some(platform), None) => platform.controller.clone(),
        (None, None) if arch.tagged && !iommu.msi_isolated => "gicv2m".into(),
        (None, None) if arch.tagged => "gicv3-its".into(),
        (None, None) => "apic".into(),
    };
    let Some(controller) = facts.controller(&kind) else {
        return at.bad("controller", "a known interrupt controller");
    };
    let memory = at.number("memory")?.or(named.and_then(|p| p.memory).map(|m| m.0));
    let intx = named.and_then(|p| p.intx).unwrap_or(controller.intx);
    let doorbells = &controller.msi_range;
    let controller = InterruptController {
        kind,
        doorbell: at.number("doorbell")?.unwrap_or(controller.doorbell.0),
        dynamic_msix: controller.dynamic_msix.iter().any(|d| d == dialect.name),
    };
    let owners = Owners {
        iommu: facts.iommu(&iommu.kind).called.unwrap_or_else(|| "the IOMMU".into()),
        doorbells: doorbells.clone(),
    };
    let host = Host {
        name: header.platform.clone().unwrap_or_else(|| "unnamed".into()),
        dialect: dialect.clone(),
        page_size: header.page_size,
        groups: groups(header, &iommu, &owners),
        iommus: vec![iommu],
        controllers: vec![controller],
        limits: limits(&header.params)?,
    };
    Ok((host, memory.unwrap_or(u64::MAX), intx))
}

fn iommu(
    at: &At<'_>,
    header: &Header,
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
    let pgsizes = at.number("pgsizes")?.unwrap_or(header.page_size);
    if pgsizes == 0 {
        return at.bad("pgsizes", "a bitmap of page sizes, not 0");
    }
    let msi = match at.text("msi")?.as_deref() {
        None | Some("implicit") => MsiPolicy::Implicit,
        Some("fixed") => MsiPolicy::Fixed { window: window(header) },
        Some(_) => return at.bad("msi", "implicit or fixed"),
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
fn window(header: &Header) -> IovaRange {
    let regions = header.devices.iter().flat_map(|d| &d.reserved);
    let found = regions.filter(|(_, _, kind)| kind == "msi").map(|&(first, last, _)| (first, last));
    let (first, last) = found.min().unwrap_or(SW_MSI);
    IovaRange::new(first, last).unwrap_or(IovaRange::ALL)
}

/// What reserved ranges are, for people.
struct Owners {
    /// The IOMMU, with its article.
    iommu: String,
    /// A range in which the interrupt controller keeps doorbells.
    doorbells: String,
}

fn groups(header: &Header, iommu: &Iommu, owners: &Owners) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for device in &header.devices {
        let reserved = || device.reserved.iter().filter_map(|r| region(r, iommu, owners)).collect();
        let at = match groups.iter().position(|g| g.number == device.group) {
            Some(at) => at,
            None => {
                groups.push(Group {
                    number: device.group,
                    iommu: 0,
                    controller: 0,
                    devices: Vec::new(),
                    reserved: reserved(),
                });
                groups.len() - 1
            }
        };
        let Some(group) = groups.get_mut(at) else { continue };
        for name in device.group_devices.iter().chain([&device.bdf]) {
            if !group.devices.contains(name) {
                group.devices.push(name.clone());
            }
        }
    }
    groups
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
        _ => (ReservedKind::Reserved, Prot::empty(), format!("a range that {who} sets aside")),
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

fn spec(device: &HeaderDevice, facts: &Facts, arch: &Arch) -> DeviceSpec {
    let word = |at: usize| match device.config.get(at..at + 2) {
        Some(&[low, high]) => u16::from_le_bytes([low, high]),
        _ => 0xffff,
    };
    let known = facts.device(word(0), word(2));
    let size = pci::ConfigSize::of(device.config_size);
    let config = pci::ConfigSpace::from_bytes(&device.config, size, &[None; 7]);
    let express = config.capability(pci::regs::cap::EXPRESS).is_some();
    let mut bars = [None; 7];
    for (bar, &(start, end, flags)) in bars.iter_mut().zip(&device.resource) {
        *bar = Bar::from_resource(start, end, flags);
    }
    DeviceSpec {
        name: device.name.clone(),
        bdf: device.bdf.clone(),
        group: device.group,
        driver: device.driver.clone().unwrap_or_default(),
        bars,
        config: device.config.clone(),
        config_size: device.config_size,
        reset_method: device.reset_method.clone(),
        constants: known.map(|k| constants(k, arch)).unwrap_or_default(),
        rom: known.map(|k| k.rom.0.clone()).unwrap_or_default(),
        intx: Intx::default(),
        link_comes_back: arch.link_comes_back || !express,
    }
}

/// What a kind of device always reads as. Holes that read as 0 need not be said.
fn constants(kind: &DeviceKind, arch: &Arch) -> Vec<(u8, u64, Vec<u8>)> {
    let byte = arch.unassigned.0.first().copied().unwrap_or(0);
    let holes = kind.unassigned.iter().filter(|_| byte != 0).map(|hole| {
        let size = usize::try_from(hole.size.0.min(MAX_HOLE)).unwrap_or(0);
        (hole.bar, hole.offset.0, vec![byte; size])
    });
    let registers = kind.constants.iter().map(|c| (c.bar, c.offset.0, c.data.0.clone()));
    holes.chain(registers).collect()
}
