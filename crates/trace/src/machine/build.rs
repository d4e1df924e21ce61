//! A machine: what a header says, completed by what we know of its platform.

use iommu::{Dialect, Host};
use pci::Bar;
use vfio::Abi;

use super::facts::{Arch, DeviceKind, Facts, Intx};
use super::header::{At, BadHeader, Header, HeaderDevice};
use super::host::host;
use super::kernel::dialect_of;
use crate::process::ProcessLayout;

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
    /// Whether its BARs can be mapped.
    pub(crate) mappable: bool,
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
    /// Which numbers the process speaks.
    pub(crate) abi: Abi,
    /// Where BAR 0 begins in a device's file.
    pub(crate) bar0_base: u64,
    /// What the user should know of how the header was taken.
    pub(crate) notes: Vec<String>,
}

impl Machine {
    /// Builds the machine of a header, in its kernel's dialect and its ABI or the ones given.
    pub(crate) fn build(
        header: &Header,
        facts: &Facts,
        dialect: Option<&'static Dialect>,
        abi: Option<Abi>,
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
        let built = host(header, facts, arch, dialect)?;
        let spec =
            |d: &HeaderDevice| DeviceSpec { intx: built.intx_of(d.group), ..spec(d, facts, arch) };
        let devices = header.devices.iter().map(spec).collect();
        let (host, memory) = (built.host, built.memory);
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
        let abi = abi.or(header.abi).unwrap_or_else(|| Abi::for_host(&host));
        let bar0_base = header.bar0_base;
        Ok(Self { host, devices, layout, disable_hugepages, abi, bar0_base, notes })
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
        mappable: device.mappable,
        link_comes_back: device.link_comes_back.unwrap_or(arch.link_comes_back || !express),
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
