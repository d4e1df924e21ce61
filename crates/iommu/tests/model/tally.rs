//! Which refusals and faults the engine can give, and how often a run met each.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use iommu::refusal::{Field, Unusable};
use iommu::{
    AttachRefusal, BindRefusal, DirtyRefusal, FaultReason, MapRefusal, PinFault, VaddrRefusal,
};

use super::outcome::Outcome;

/// Times that each must occur in a run.
pub(crate) const AT_LEAST: u64 = 100;

/// Every refusal and fault that there is to meet.
pub(crate) const REACHABLE: [&str; 48] = [
    "map: iova misaligned",
    "map: vaddr misaligned",
    "map: size misaligned",
    "map: vaddr wraps",
    "map: no access",
    "map: overlaps",
    "map: no entries left",
    "map: reserved region",
    "map: outside aperture",
    "map: pin, not mapped",
    "map: pin, not permitted",
    "map: pin, beyond file",
    "map: pin, device off",
    "map: over limit",
    "map: too many pages",
    "cut: misaligned",
    "cut: no entries left",
    "unmap: cuts",
    "vaddr: iova misaligned",
    "vaddr: vaddr misaligned",
    "vaddr: size misaligned",
    "vaddr: wraps",
    "vaddr: nothing mapped",
    "vaddr: not exact",
    "vaddr: still valid",
    "vaddr: already invalid",
    "vaddr: over limit",
    "attach: unknown group",
    "attach: already attached",
    "attach: vaddr invalid",
    "attach: aperture, mapping outside",
    "attach: aperture, nothing shared",
    "attach: reserved region",
    "attach: nothing valid",
    "attach: unsafe interrupts",
    "attach: needs direct",
    "attach: page size",
    "attach: pin",
    "attach: over limit",
    "dirty: off",
    "dirty: cuts",
    "dirty: too many pages",
    "dirty: bitmap",
    "bind: not attached",
    "bind: window full",
    "fault: no domain",
    "fault: not mapped",
    "fault: not permitted",
];

/// Refusals that exist and that nothing in this crate can provoke, with the reason.
pub(crate) const UNREACHABLE: [(&str, &str); 4] = [
    (
        "map: nothing translated",
        "the aperture of every attached group meets the valid ranges, so they share an address",
    ),
    (
        "map: crosses ranges",
        "what divides valid ranges is a reserved region of an attached group, which is named first",
    ),
    (
        "fault: not pinned",
        "a device needs a domain, the first domain pins what is mapped, the last takes it along",
    ),
    ("fault: of the front end", "doorbell, vector, memory gone, bus master: the engine's callers"),
];

static MET: Mutex<BTreeMap<&'static str, u64>> = Mutex::new(BTreeMap::new());

/// Counts an answer of the engine.
pub(crate) fn count(outcome: &Outcome) {
    if let Some(name) = name(outcome) {
        let mut met = MET.lock().unwrap_or_else(PoisonError::into_inner);
        *met.entry(name).or_insert(0) += 1;
    }
}

/// What was met so far, and begins to count anew.
pub(crate) fn take() -> BTreeMap<&'static str, u64> {
    std::mem::take(&mut MET.lock().unwrap_or_else(PoisonError::into_inner))
}

fn name(outcome: &Outcome) -> Option<&'static str> {
    Some(match outcome {
        Outcome::Map(Err(refusal)) => map(refusal),
        Outcome::Cut(Err(MapRefusal::Misaligned { .. })) => "cut: misaligned",
        Outcome::Cut(Err(MapRefusal::NoEntriesLeft { .. })) => "cut: no entries left",
        Outcome::Cut(Err(other)) => panic!("no refusal of a cut: {other}"),
        Outcome::Unmap(Err(_)) => "unmap: cuts",
        Outcome::Invalidate(Err(refusal)) | Outcome::Update(Err(refusal)) => vaddr(refusal),
        Outcome::DirtyStart(Err(refusal)) | Outcome::Dirty(Err(refusal), _) => match refusal {
            DirtyRefusal::Off => "dirty: off",
            DirtyRefusal::Cuts { .. } => "dirty: cuts",
            DirtyRefusal::TooManyPages { .. } => "dirty: too many pages",
            DirtyRefusal::Bitmap => "dirty: bitmap",
            other => panic!("give it a name here: {other}"),
        },
        Outcome::Attach(Err(refusal)) => attach(refusal),
        Outcome::Bind(Err(BindRefusal::NotAttached { .. })) => "bind: not attached",
        Outcome::Bind(Err(BindRefusal::WindowFull { .. })) => "bind: window full",
        Outcome::Bind(Err(other)) => panic!("give it a name here: {other}"),
        Outcome::Translate(Err(fault)) => match fault.reason {
            FaultReason::NoDomain => "fault: no domain",
            FaultReason::NotMapped => "fault: not mapped",
            FaultReason::NotPermitted { .. } => "fault: not permitted",
            FaultReason::NotPinned => "fault: not pinned",
            _ => "fault: of the front end",
        },
        _ => return None,
    })
}

fn map(refusal: &MapRefusal) -> &'static str {
    match refusal {
        MapRefusal::Misaligned { field: Field::Iova, .. } => "map: iova misaligned",
        MapRefusal::Misaligned { field: Field::Vaddr, .. } => "map: vaddr misaligned",
        MapRefusal::Misaligned { field: Field::Size, .. } => "map: size misaligned",
        MapRefusal::VaddrWraps { .. } => "map: vaddr wraps",
        MapRefusal::NoAccess => "map: no access",
        MapRefusal::Overlaps { .. } => "map: overlaps",
        MapRefusal::NoEntriesLeft { .. } => "map: no entries left",
        MapRefusal::NotUsable { why: Unusable::Reserved(_), .. } => "map: reserved region",
        MapRefusal::NotUsable { why: Unusable::OutsideAperture(Some(_)), .. } => {
            "map: outside aperture"
        }
        MapRefusal::NotUsable { why: Unusable::OutsideAperture(None), .. } => {
            "map: nothing translated"
        }
        MapRefusal::NotUsable { why: Unusable::CrossesRanges, .. } => "map: crosses ranges",
        MapRefusal::Pin(error) => match error.why {
            PinFault::NotMapped => "map: pin, not mapped",
            PinFault::NotPermitted => "map: pin, not permitted",
            PinFault::BeyondFile => "map: pin, beyond file",
            PinFault::DeviceOff => "map: pin, device off",
        },
        MapRefusal::OverLimit(_) => "map: over limit",
        MapRefusal::TooManyPages { .. } => "map: too many pages",
        other => panic!("give it a name here: {other}"),
    }
}

fn vaddr(refusal: &VaddrRefusal) -> &'static str {
    match refusal {
        VaddrRefusal::Misaligned { field: Field::Iova, .. } => "vaddr: iova misaligned",
        VaddrRefusal::Misaligned { field: Field::Vaddr, .. } => "vaddr: vaddr misaligned",
        VaddrRefusal::Misaligned { field: Field::Size, .. } => "vaddr: size misaligned",
        VaddrRefusal::VaddrWraps { .. } => "vaddr: wraps",
        VaddrRefusal::NothingMapped { .. } => "vaddr: nothing mapped",
        VaddrRefusal::NotExact { .. } => "vaddr: not exact",
        VaddrRefusal::StillValid { .. } => "vaddr: still valid",
        VaddrRefusal::AlreadyInvalid { .. } => "vaddr: already invalid",
        VaddrRefusal::OverLimit(_) => "vaddr: over limit",
        other => panic!("give it a name here: {other}"),
    }
}

fn attach(refusal: &AttachRefusal) -> &'static str {
    match refusal {
        AttachRefusal::UnknownGroup { .. } => "attach: unknown group",
        AttachRefusal::AlreadyAttached { .. } => "attach: already attached",
        AttachRefusal::VaddrInvalid { .. } => "attach: vaddr invalid",
        AttachRefusal::Aperture { mapping: Some(_), .. } => "attach: aperture, mapping outside",
        AttachRefusal::Aperture { mapping: None, .. } => "attach: aperture, nothing shared",
        AttachRefusal::Reserved { .. } => "attach: reserved region",
        AttachRefusal::NothingValid { .. } => "attach: nothing valid",
        AttachRefusal::UnsafeInterrupts { .. } => "attach: unsafe interrupts",
        AttachRefusal::NeedsDirect { .. } => "attach: needs direct",
        AttachRefusal::PageSize { .. } => "attach: page size",
        AttachRefusal::Pin { .. } => "attach: pin",
        AttachRefusal::OverLimit { .. } => "attach: over limit",
        other => panic!("give it a name here: {other}"),
    }
}
