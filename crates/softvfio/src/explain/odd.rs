//! Answers that are no refusals and look like a client's bug; and what a refused request changed.

use std::collections::HashMap;
use std::io::BufRead;

use trace::{Outcome, Session};
use uapi::irq::IrqIndex;
use vfio::device::{DeviceRefusal, IrqRefusal};
use vfio::{Refusal, Version};

use super::request::{answered, has_flag, number, range};

/// What looks odd about an answer.
pub(super) struct Odd {
    /// What, and why.
    pub(super) says: String,
    /// It is as it should be if the same is asked again with more room.
    probe: bool,
}

/// What looks odd about a request that was carried out last; `faults` is what devices met meanwhile.
pub(super) fn of<R: BufRead>(
    outcome: &Outcome,
    session: &Session<R>,
    faults: &[String],
) -> Option<Odd> {
    if outcome.why.is_some() {
        return None;
    }
    let says = match outcome.op() {
        "unmap" => unmap(outcome, session),
        "map" => map(outcome, session),
        "dirty" => dirty(outcome, session),
        "set_irqs" => set_irqs(outcome, session),
        "reset" => reset(outcome, session),
        "region_read" | "region_write" => region(outcome, session),
        "get_info" | "region_info" => return probe(outcome),
        _ => None,
    };
    let says = says.or_else(|| {
        let first = faults.first()?;
        let more = match faults.len() {
            1 => String::new(),
            n => format!(" (and {} more)", n - 1),
        };
        Some(format!("a device's DMA failed meanwhile: {first}{more}"))
    });
    says.map(|says| Odd { says, probe: false })
}

/// The first request that looks odd when the trace is over.
#[derive(Default)]
pub(super) struct Probes {
    first: Option<u64>,
    /// Requests that asked a container how much room its information needs, by slot. (Regions have
    /// nothing in their capabilities that a client must know.)
    open: HashMap<u64, u64>,
}

impl Probes {
    /// Takes note of an answer.
    pub(super) fn note(&mut self, outcome: &Outcome, odd: Option<Odd>) {
        let slot = number(outcome, "c").unwrap_or(0);
        let container = outcome.op() == "get_info";
        match odd {
            Some(Odd { probe: false, .. }) => {
                self.first.get_or_insert(outcome.request);
            }
            Some(_) if container => {
                self.open.entry(slot).or_insert(outcome.request);
            }
            None if container => {
                self.open.remove(&slot);
            }
            _ => {}
        }
    }

    /// The first odd one.
    pub(super) fn first(&self) -> Option<u64> {
        self.open.values().copied().chain(self.first).min()
    }
}

/// The version of the container of a request.
fn version<R: BufRead>(outcome: &Outcome, session: &Session<R>) -> Option<Version> {
    let container = session.container(session.container_of(outcome)?)?;
    Some(container.type1()?.version())
}

fn unmap<R: BufRead>(outcome: &Outcome, session: &Session<R>) -> Option<String> {
    let got = answered(outcome, "size")?;
    let asked = number(outcome, "size").unwrap_or(0);
    if has_flag(outcome, "all", 2) {
        return None;
    }
    if got > asked {
        return Some(format!(
            "it removed {got:#x} bytes, more than the {asked:#x} asked for: type1 version 1 removes \
             whole mappings"
        ));
    }
    if got != 0 {
        return None;
    }
    let range = range(outcome)?;
    let container = session.container(session.container_of(outcome)?)?;
    let space = container.type1()?.space();
    if range.last() == u64::MAX && !session.dialect().top_is_reachable {
        return Some(
            "it succeeded and removed nothing: before 7.3 an end of 2^64 counts as 0, and nothing \
             lies below that"
                .into(),
        );
    }
    Some(match space.mapping_at(range.first()) {
        Some((mapping, _)) if version(outcome, session) == Some(Version::V1) => format!(
            "it succeeded and removed nothing: it starts inside of the mapping {mapping}, where type1 \
             version 1 stops, even if other mappings follow"
        ),
        _ => "it succeeded and removed nothing: no mapping is there".into(),
    })
}

fn map<R: BufRead>(outcome: &Outcome, session: &Session<R>) -> Option<String> {
    let unreachable = !session.dialect().top_is_reachable;
    (range(outcome)?.last() == u64::MAX && unreachable).then(|| {
        "the mapping ends at 2^64, which counts as 0 before 7.3: no UNMAP_DMA finds it but one with \
         ALL"
            .into()
    })
}

fn dirty<R: BufRead>(outcome: &Outcome, session: &Session<R>) -> Option<String> {
    if !has_flag(outcome, "get_bitmap", 4) {
        return None;
    }
    let range = range(outcome)?;
    let container = session.container(session.container_of(outcome)?)?;
    let mut mappings = container.type1()?.space().mappings();
    (!mappings.any(|(mapping, _)| mapping.overlaps(range))).then(|| {
        "no mapping is in the range: the bitmap is as it was before, and not cleared".into()
    })
}

fn set_irqs<R: BufRead>(outcome: &Outcome, session: &Session<R>) -> Option<String> {
    if let Some(available) = answered(outcome, "ret").filter(|ret| *ret != 0) {
        return Some(format!(
            "it enabled nothing: the answer is how many vectors could be had, {available}, and not 0"
        ));
    }
    let mode = session.device_of(outcome)?.irqs()?.mode();
    let index =
        if outcome.has("index") { outcome.text_of("index").unwrap_or_default() } else { "intx" };
    let lists = |word: &str, bit: u64| has_flag(outcome, word, bit);
    let fds = outcome.member("fds");
    if lists("data_none", 1)
        && lists("action_trigger", 32)
        && number(outcome, "start").is_some_and(|start| start != 0)
        && number(outcome, "count").unwrap_or(0) == 0
        && matches!(index, "msi" | "msix" | "1" | "2")
    {
        return Some("a count of 0 disabled all vectors, whatever start is".into());
    }
    let none = fds
        .as_ref()
        .and_then(|fds| fds.as_array())
        .is_some_and(|fds| fds.iter().all(|fd| fd == -1 || fd == "-1"));
    let on_line = matches!(index, "intx" | "0") && mode == Some(IrqIndex::Intx);
    (none && on_line && lists("action_trigger", 32)).then(|| {
        "INTx is enabled and has no eventfd: the first interrupt masks the line, and nobody is told"
            .into()
    })
}

fn reset<R: BufRead>(outcome: &Outcome, session: &Session<R>) -> Option<String> {
    let mode = match session.device_of(outcome)?.irqs()?.mode()? {
        IrqIndex::Intx => "INTx",
        IrqIndex::Msi => "MSI",
        _ => "MSI-X",
    };
    Some(format!(
        "{mode} stays enabled, with its eventfds: a reset of the device does not disable interrupts, \
         although the device's own registers have forgotten them"
    ))
}

fn region<R: BufRead>(outcome: &Outcome, session: &Session<R>) -> Option<String> {
    let asked = match outcome.text_of("data") {
        Some(data) => u64::try_from(data.len() / 2).ok()?,
        None => number(outcome, "size").unwrap_or(4),
    };
    let moved = answered(outcome, "ret")?;
    if moved < asked {
        return Some(format!("only {moved} of {asked} bytes were moved: there the region ends"));
    }
    let device = session.device_of(outcome)?;
    let table = pci::MsixTable::find(device.model().config())?;
    let region =
        outcome.member("region").map(|r| r.as_str().map_or(r.to_string(), str::to_owned))?;
    let in_bar = region == format!("bar{}", table.bar()) || region == table.bar().to_string();
    let start = number(outcome, "offset").unwrap_or(0);
    let touches = start < table.range().end && table.range().start < start.saturating_add(asked);
    (in_bar && touches && asked != 0).then(|| {
        "the MSI-X table is there: through read and write it is all ones and keeps nothing; SET_IRQS \
         is what programs it"
            .into()
    })
}

/// An answer whose capabilities did not fit.
fn probe(outcome: &Outcome) -> Option<Odd> {
    let caps = if outcome.op() == "get_info" { 2 } else { 8 };
    let has = answered(outcome, "flags")? & caps != 0;
    let hidden = answered(outcome, "cap_offset").unwrap_or(0) == 0;
    let needed = answered(outcome, "argsz")?;
    (has && hidden).then(|| Odd {
        says: format!(
            "it has capabilities that did not fit: nothing of them was written, argsz says that \
             {needed} bytes are needed, and the request is to be made again with as many"
        ),
        probe: true,
    })
}

/// What a refused request changed all the same.
pub(super) fn effect<R: BufRead>(outcome: &Outcome, session: &Session<R>) -> Option<String> {
    match outcome.refusal.as_ref()? {
        Refusal::NotWritten if outcome.op() == "unmap" => {
            Some("the mappings are gone: only the answer is missing".into())
        }
        Refusal::Dirty(iommu::DirtyRefusal::Bitmap) if outcome.op() == "unmap" => {
            Some("mappings before the one whose bits could not be written are gone".into())
        }
        Refusal::Device(DeviceRefusal::Irq(
            IrqRefusal::BadEvent { .. }
            | IrqRefusal::NoVectorsLeft
            | IrqRefusal::BeyondEnabled { .. },
        )) => match session.device_of(outcome)?.irqs()?.mode()? {
            IrqIndex::Intx => None,
            _ if session.dialect().irq_range_checked_first
                && matches!(
                    outcome.refusal,
                    Some(Refusal::Device(DeviceRefusal::Irq(IrqRefusal::BeyondEnabled { .. })))
                ) =>
            {
                None
            }
            _ => Some(
                "vectors from start to the one that failed have lost the eventfds they had; those \
                 after it keep theirs"
                    .into(),
            ),
        },
        _ => None,
    }
}
