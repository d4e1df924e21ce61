//! Where devices go: addresses, groups, BARs, and what sysfs says of them.

use std::collections::BTreeSet;

use pci::{Bdf, regs};
use trace::profile::{Placement, Profile};

use super::EmulatedDevice;
use super::registers::sys_iommu;
use crate::sandbox::{SysFunction, SysGroup, SysIommu, SysResource, Tree};

/// BARs with addresses of 32 bits begin here, and each device has this much.
const LOW: u64 = 0xe000_0000;
const LOW_STEP: u64 = 0x0100_0000;
/// BARs with addresses of 64 bits begin here, and each device has this much.
const HIGH: u64 = 0x40_0000_0000;
const HIGH_STEP: u64 = 0x10_0000_0000;
/// Devices that have addresses of their own.
const MOST: usize = 16;

/// Gives each device an address, a group and places for its BARs.
pub(super) fn placements(devices: &mut [EmulatedDevice]) -> Result<Vec<Placement>, String> {
    if devices.len() > MOST {
        return Err(format!("{} devices are more than {MOST}", devices.len()));
    }
    let taken: BTreeSet<Bdf> = devices.iter().filter_map(|d| d.bdf).collect();
    let explicit = devices.iter().filter(|d| d.bdf.is_some()).count();
    if taken.len() != explicit {
        return Err("two devices have the same address".into());
    }
    let buses = 1..=u8::MAX;
    let mut free =
        buses.filter_map(|bus| Bdf::new(0, bus, 0, 0)).filter(|bdf| !taken.contains(bdf));
    let groups: BTreeSet<u32> = devices.iter().filter_map(|d| d.group).collect();
    let mut free_groups = (1..).filter(|group| !groups.contains(group));
    let mut placements = Vec::new();
    for (n, device) in (0_u64..).zip(devices) {
        place_bars(device, n)?;
        let bdf = device.bdf.or_else(|| free.next()).ok_or("no address is free")?;
        let group = device.group.or_else(|| free_groups.next()).ok_or("no group is free")?;
        let resource = device.bars.iter().map(|bar| {
            bar.map_or((0, 0, 0), |bar| {
                (bar.start, bar.start + (bar.size - 1), bar.resource_flags())
            })
        });
        placements.push(Placement {
            name: format!("{}{n}", device.kind),
            model: device.kind.clone(),
            bdf: bdf.to_string(),
            group,
            like: device.iommu.clone(),
            resource: resource.collect(),
            config: device.model.config().bytes().to_vec(),
            reset_method: device.reset_method.clone(),
        });
    }
    Ok(placements)
}

/// Puts the BARs of device `n` where no other's are.
fn place_bars(device: &mut EmulatedDevice, n: u64) -> Result<(), String> {
    let (mut low, mut high) = (LOW + n * LOW_STEP, HIGH + n * HIGH_STEP);
    let (low_end, high_end) = (low + LOW_STEP, high + HIGH_STEP);
    for (index, bar) in (0_u16..).zip(&mut device.bars) {
        let Some(bar) = bar.as_mut().filter(|bar| bar.is_memory()) else { continue };
        let (next, end) = if bar.is_64() { (&mut high, high_end) } else { (&mut low, low_end) };
        let start = next.checked_next_multiple_of(bar.size.max(1));
        let start = start.filter(|start| start.checked_add(bar.size).is_some_and(|e| e <= end));
        let kind = &device.kind;
        bar.start =
            start.ok_or(format!("{kind}: BAR {index} of {:#x} bytes is too large", bar.size))?;
        *next = bar.start + bar.size;
        let config = device.model.config_mut();
        let at = if index == 6 { regs::ROM_BAR } else { regs::BAR0 + 4 * index };
        // The ROM's lowest bit enables it.
        let kind = if index == 6 { config.u32(at) & 1 } else { bar.type_bits() };
        config.set_u32(at, (bar.start & 0xffff_ffff) as u32 | kind);
        if bar.is_64() {
            config.set_u32(at + 4, (bar.start >> 32) as u32);
        }
    }
    Ok(())
}

/// What the program finds in sysfs.
pub(super) fn tree(profile: &Profile, placements: &[Placement], only_emulated: bool) -> Tree {
    let iommus: Vec<SysIommu> = profile.host.iommus.iter().enumerate().map(sys_iommu).collect();
    let behind = |p: &Placement| {
        let group = profile.host.group(p.group)?;
        iommus.get(group.iommu).map(|iommu| iommu.name.clone())
    };
    let function = |p: &Placement| SysFunction {
        iommu: behind(p),
        resources: p
            .resource
            .iter()
            .map(|(start, end, flags)| SysResource { start: *start, end: *end, flags: *flags })
            .collect(),
        reset_method: (!p.reset_method.is_empty()).then(|| p.reset_method.clone()),
        ..SysFunction::new(&p.bdf, p.group, p.config.clone())
    };
    let group = |g: &iommu::Group| SysGroup {
        number: g.number,
        kind: "DMA".into(),
        name: None,
        reserved_regions: g
            .reserved
            .iter()
            .map(|r| {
                // sysfs prints the software window like any MSI range.
                let kind = if r.kind == iommu::ReservedKind::SwMsi {
                    "msi".into()
                } else {
                    r.kind.to_string()
                };
                format!("0x{:016x} 0x{:016x} {kind}\n", r.range.first(), r.range.last())
            })
            .collect(),
    };
    Tree {
        functions: placements.iter().map(function).collect(),
        groups: profile.host.groups.iter().map(group).collect(),
        iommus,
        only_emulated,
        dma_entry_limit: Some(profile.host.limits.dma_entry_limit),
        allow_unsafe_interrupts: profile.host.limits.allow_unsafe_interrupts,
    }
}
