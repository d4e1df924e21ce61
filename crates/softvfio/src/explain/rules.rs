//! What is known of a request: its name, the order of its checks, what looks odd about its answer.

use draw::story::parse;
use iommu::refusal::{Nearest, Unusable};
use iommu::{AttachRefusal, IovaRange, MapRefusal, VaddrRefusal, WindowRefusal};
use serde_json::Value;
use trace::Outcome;
use vfio::order::{self, Rule, Unmap};
use vfio::{Refusal, Version};

use super::Case;

/// A number of a request.
pub(super) fn number(outcome: &Outcome, member: &str) -> Option<u64> {
    match outcome.member(member)? {
        Value::Number(number) => number.as_u64(),
        Value::String(text) => parse(&text),
        _ => None,
    }
}

/// The addresses that a request is about.
pub(super) fn range(outcome: &Outcome) -> Option<IovaRange> {
    IovaRange::sized(number(outcome, "iova")?, number(outcome, "size")?)
}

/// Whether a request has a flag.
fn has_flag(outcome: &Outcome, word: &str, bit: u64) -> bool {
    match outcome.member("flags") {
        Some(Value::Array(list)) => list.iter().any(|f| f == word),
        Some(Value::Number(number)) => number.as_u64().is_some_and(|n| n & bit != 0),
        Some(Value::String(text)) => parse(&text).is_some_and(|n| n & bit != 0),
        _ => false,
    }
}

/// Linux's name of a request, where its checks are, and in which order; `None` for requests whose
/// order is not written down.
pub(super) fn order(case: &Case) -> Option<(&'static str, &'static str, Vec<Rule>)> {
    let (outcome, dialect) = (&case.outcome, &case.dialect);
    let window = has_flag(outcome, "reserved_msi_iova", 1 << 31);
    let type1 = "drivers/vfio/vfio_iommu_type1.c";
    Some(match outcome.op() {
        "map" if window => {
            ("VFIO_IOMMU_MAP_DMA, MSI window", "docs/msi-windows.md", order::map_window(dialect))
        }
        "map" => {
            let update = has_flag(outcome, "vaddr", 4);
            ("VFIO_IOMMU_MAP_DMA", type1, order::map(dialect, update))
        }
        "unmap" if window => (
            "VFIO_IOMMU_UNMAP_DMA, MSI window",
            "docs/msi-windows.md",
            order::unmap(dialect, Unmap::Windows),
        ),
        "unmap" => {
            let version = if case.v1 { Version::V1 } else { Version::V2 };
            ("VFIO_IOMMU_UNMAP_DMA", type1, order::unmap(dialect, Unmap::Mappings(version)))
        }
        "set_iommu" => ("VFIO_SET_IOMMU", "drivers/vfio/container.c", order::set_iommu()),
        "set_container" => {
            ("VFIO_GROUP_SET_CONTAINER", "drivers/vfio/group.c", order::set_container())
        }
        "get_device_fd" => {
            ("VFIO_GROUP_GET_DEVICE_FD", "drivers/vfio/group.c", order::get_device_fd())
        }
        _ => return None,
    })
}

/// What is in the way, as ranges.
pub(super) fn in_the_way(refusal: &Refusal) -> Vec<IovaRange> {
    match refusal {
        Refusal::Map(
            MapRefusal::Overlaps { existing, .. } | MapRefusal::InWindow { existing, .. },
        )
        | Refusal::Window(
            WindowRefusal::Mapped { existing, .. }
            | WindowRefusal::Window { existing, .. }
            | WindowRefusal::NotExact { existing, .. },
        )
        | Refusal::Vaddr(
            VaddrRefusal::NotExact { existing, .. }
            | VaddrRefusal::StillValid { existing }
            | VaddrRefusal::AlreadyInvalid { existing },
        )
        | Refusal::Cuts { existing, .. } => vec![*existing],
        Refusal::Window(WindowRefusal::Busy { window, .. }) => vec![*window],
        Refusal::Map(MapRefusal::NotUsable { why: Unusable::Reserved(region), .. })
        | Refusal::Window(WindowRefusal::NotUsable { why: Unusable::Reserved(region), .. }) => {
            vec![region.range]
        }
        Refusal::Attach(AttachRefusal::Reserved { region, mapping, .. }) => {
            vec![region.range, *mapping]
        }
        Refusal::Attach(AttachRefusal::NeedsDirect { region, .. }) => vec![region.range],
        Refusal::Attach(
            AttachRefusal::VaddrInvalid { mapping }
            | AttachRefusal::PageSize { mapping, .. }
            | AttachRefusal::Aperture { mapping: Some(mapping), .. },
        ) => vec![*mapping],
        Refusal::Attach(AttachRefusal::Window { window, .. }) => vec![*window],
        _ => Vec::new(),
    }
}

/// Where it would be legal.
pub(super) fn nearest(refusal: &Refusal) -> Option<Nearest> {
    match refusal {
        Refusal::Map(
            MapRefusal::Overlaps { nearest, .. }
            | MapRefusal::InWindow { nearest, .. }
            | MapRefusal::NotUsable { nearest, .. },
        )
        | Refusal::Window(
            WindowRefusal::Mapped { nearest, .. }
            | WindowRefusal::Window { nearest, .. }
            | WindowRefusal::NotUsable { nearest, .. },
        ) => Some(*nearest),
        _ => None,
    }
}

/// What looks odd about an answer that is no refusal.
pub(super) fn suspicion(outcome: &Outcome) -> Option<String> {
    if outcome.op() != "unmap" || outcome.why.is_some() {
        return None;
    }
    let got = outcome.got.get("size").and_then(Value::as_str).and_then(parse)?;
    let asked = number(outcome, "size").unwrap_or(0);
    let all = has_flag(outcome, "all", 2);
    match got {
        0 if all => None,
        0 => Some(
            "it succeeded and removed nothing: no mapping is there, or (type1 version 1) one \
             that begins before it"
                .into(),
        ),
        got if got > asked && !all => Some(format!(
            "it removed {got:#x} bytes, more than the {asked:#x} asked for: type1 version 1 removes \
             whole mappings"
        )),
        _ => None,
    }
}
