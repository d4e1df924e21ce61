//! What containers say of themselves, in the place of what was taken for granted.
//!
//! One container for each IOMMU, with one group behind it: the first that answers. Only groups that
//! VFIO has already are asked, so nothing that the machine works with is touched.

use iommu::IovaRange;
use serde_json::{Value, json};

use crate::BadInput;
use crate::host::ranges;
use crate::layout::hex;

use super::iommus::Unit;
use super::machine::{Devices, Group};
use super::pci::is_bridge;
use super::tree::Tree;

/// What a container with one group says: `VFIO_IOMMU_GET_INFO`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// `type1v2` or `type1`.
    pub iommu_type: String,
    /// A bitmap.
    pub page_sizes: u64,
    /// What may be mapped, first and last address each.
    pub ranges: Vec<(u64, u64)>,
    /// Mappings that it takes.
    pub dma_avail: Option<u32>,
    /// Page sizes of dirty tracking, and the largest bitmap in bytes.
    pub migration: Option<(u64, u64)>,
    /// Whether DMA is coherent with the caches, whatever a device asks.
    pub coherent: bool,
    /// MSI windows that users may register, where there are such.
    pub max_windows: Option<u32>,
}

/// Why a group cannot be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Silent {
    /// A sentence.
    pub why: String,
    /// No other group will say more.
    pub is_final: bool,
    /// It was refused as where interrupts are not isolated.
    pub not_isolated: bool,
}

/// Asks a container with the group of a number.
pub type Ask<'a> = &'a mut dyn FnMut(u32) -> Result<Said, Silent>;

/// What came of it.
#[derive(Default)]
pub(super) struct Asked {
    /// As in a header.
    pub(super) answers: Vec<Value>,
    /// What the parameter `dma_entry_limit` is.
    pub(super) dma_entry_limit: Option<u32>,
    /// Why somebody was not asked: a sentence each.
    pub(super) silent: Vec<String>,
}

/// Asks a group of each IOMMU that has devices, and corrects what is known of it.
pub(super) fn ask_all(
    tree: &Tree,
    groups: &[Group],
    devices: &Devices,
    units: &mut [Unit],
    ask: Ask<'_>,
) -> Result<Asked, BadInput> {
    let mut asked = Asked::default();
    let mut free: Vec<String> = Vec::new();
    for (at, unit) in units.iter_mut().enumerate() {
        let behind =
            |g: &&Group| g.members.iter().any(|m| devices.get(m).is_some_and(|d| d.0 == at));
        let behind: Vec<&Group> = groups.iter().filter(behind).collect();
        if behind.is_empty() {
            continue;
        }
        let mut first: Option<String> = None;
        let mut candidates = 0;
        for group in behind {
            if !is_vfios(tree, group)? {
                continue;
            }
            candidates += 1;
            let said = ask(group.number).and_then(|said| fits(group, said));
            match said {
                Ok(said) => {
                    asked.answers.push(answer(group.number, unit, &said));
                    asked.dma_entry_limit = asked.dma_entry_limit.or(said.dma_avail);
                    unit.correct(&said);
                    first = None;
                    break;
                }
                Err(silent) if silent.is_final => {
                    asked.silent = vec![silent.why];
                    return Ok(asked);
                }
                Err(silent) if silent.not_isolated => {
                    unit.refuse();
                    first = Some(silent.why);
                    break;
                }
                Err(silent) => first = first.or(Some(silent.why)),
            }
        }
        if candidates == 0 {
            free.push(unit.called().to_owned());
        }
        asked.silent.extend(first);
    }
    if !free.is_empty() {
        let who = free.join(", ");
        asked.silent.push(format!("no group behind {who} has its devices bound to vfio-pci"));
    }
    Ok(asked)
}

/// Whether VFIO has a device of a group, and nobody else has one. Bridges may have their driver.
fn is_vfios(tree: &Tree, group: &Group) -> Result<bool, BadInput> {
    let mut has = false;
    for member in &group.members {
        match tree.link(&format!("sys/bus/pci/devices/{member}/driver")) {
            Some(driver) if driver.contains("vfio") => has = true,
            None => {}
            Some(driver) if driver == "pci-stub" => {}
            Some(_) if is_bridge(tree, member)? => {}
            Some(_) => return Ok(false),
        }
    }
    Ok(has)
}

/// An answer that allows what the group's own regions exclude is not about the group.
fn fits(group: &Group, said: Said) -> Result<Said, Silent> {
    let number = group.number;
    let silent = |why: String| Silent { why, is_final: false, not_isolated: false };
    if said.ranges.is_empty() || said.ranges.iter().any(|(first, last)| first > last) {
        return Err(silent(format!(
            "group {number}: its container names nothing that may be mapped"
        )));
    }
    let excluded = group.reserved.iter().filter(|(_, _, kind)| kind != "direct-relaxable");
    for (first, last, _) in excluded {
        if said.ranges.iter().any(|(from, to)| from <= last && first <= to) {
            return Err(silent(format!(
                "group {number}: its container allows the reserved {}, so it is not believed",
                hex(*first)
            )));
        }
    }
    Ok(said)
}

fn answer(group: u32, unit: &Unit, said: &Said) -> Value {
    let valid: Vec<IovaRange> =
        said.ranges.iter().filter_map(|(first, last)| IovaRange::new(*first, *last)).collect();
    let migration = said
        .migration
        .map(|(sizes, bitmap)| json!({"page_sizes": hex(sizes), "max_bitmap": hex(bitmap)}));
    json!({
        "group": group, "iommu": unit.called(), "type": said.iommu_type, "valid": ranges(&valid),
        "page_sizes": hex(said.page_sizes), "dma_avail": said.dma_avail, "migration": migration,
        "coherent": said.coherent, "max_windows": said.max_windows,
    })
}
