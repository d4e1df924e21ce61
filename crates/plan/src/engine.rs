//! The same requests, carried out by the engine on the same host.

use iommu::pool::{Consumer, Window};
use iommu::refusal::WindowRefusal;
use iommu::{
    AddressSpace, Env, Host, LockBudget, LockedMemory, MapRefusal, MapRequest, MmId, PinError,
    PinId, Pinned, Pinner, Prot,
};

use crate::check::{Bounds, What};
use crate::layout::{Item, Kind, bytes};

/// What the engine said to each request.
#[derive(Clone, Debug)]
pub struct Answers {
    /// For each request nothing, or why not.
    pub refusals: Vec<Option<Refusal>>,
    /// Page tables: groups that can share them do.
    pub domains: usize,
}

/// Why the engine refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The reason in our words; `None` for one that no layout leads to.
    pub what: Option<What>,
    /// The engine's sentence.
    pub why: String,
}

/// Memory that is always there. Device memory is not charged.
struct Memory {
    pins: u64,
    charged_pages: u64,
}

impl Pinner for Memory {
    fn pin(&mut self, _vaddr: u64, _size: u64, _write: bool) -> Result<Pinned, PinError> {
        self.pins += 1;
        Ok(Pinned { id: PinId(self.pins), charged_pages: self.charged_pages })
    }

    fn unpin(&mut self, _pin: PinId) {}
}

/// Attaches the groups, then maps what is requested.
///
/// # Errors
/// A sentence: a group cannot be attached.
pub fn carry_out<'a>(
    host: &Host,
    groups: &[u32],
    bounds: &Bounds,
    requests: impl Iterator<Item = (Kind, &'a Item)>,
) -> Result<Answers, String> {
    let mut space = AddressSpace::new(host.page_size, bounds.entries, &host.dialect);
    let mut memory = Memory { pins: 0, charged_pages: 0 };
    let mut locked = LockedMemory::default();
    // Charged without a limit: this cannot fail.
    let _ = locked.charge(LockBudget { mm: MmId(1), limit_pages: None }, bounds.locked_pages);
    for group in groups {
        let mut env = Env { pinner: &mut memory, locked: &mut locked, observer: &mut () };
        space
            .attach(host, &host.limits, *group, bounds.lock_pages, &mut env)
            .map_err(|refusal| refusal.to_string())?;
    }
    let mut refusals = Vec::new();
    for (kind, item) in requests {
        let (range, prot) = (item.range, Prot::READ | Prot::WRITE);
        memory.charged_pages = match kind {
            Kind::Ram => {
                u64::try_from(bytes(range) / u128::from(host.page_size)).unwrap_or(u64::MAX)
            }
            Kind::Bar | Kind::Window => 0,
        };
        let mut env = Env { pinner: &mut memory, locked: &mut locked, observer: &mut () };
        let answer = if kind == Kind::Window {
            let window = Window { range, prot, consumer: Consumer::MSI };
            space
                .add_window(window, &mut env)
                .err()
                .map(|refusal| Refusal { what: of_window(&refusal), why: refusal.to_string() })
        } else {
            let budget = LockBudget { mm: MmId(1), limit_pages: bounds.lock_pages };
            // Where a guest's memory lies in the VMM is no business of a layout.
            let request = MapRequest { range, vaddr: 0, prot, budget };
            space
                .map(&request, &mut env)
                .err()
                .map(|refusal| Refusal { what: of_map(&refusal), why: refusal.to_string() })
        };
        refusals.push(answer);
    }
    Ok(Answers { refusals, domains: space.domains().len() })
}

fn of_map(refusal: &MapRefusal) -> Option<What> {
    Some(match refusal {
        MapRefusal::Misaligned { .. } => What::Alignment,
        MapRefusal::Overlaps { .. } => What::Item,
        MapRefusal::InWindow { .. } => What::Window,
        MapRefusal::NoEntriesLeft { .. } => What::Entries,
        MapRefusal::NotUsable { why: iommu::refusal::Unusable::Reserved(_), .. } => What::Reserved,
        MapRefusal::NotUsable { .. } => What::Aperture,
        MapRefusal::OverLimit(_) => What::Memlock,
        _ => return None,
    })
}

fn of_window(refusal: &WindowRefusal) -> Option<What> {
    Some(match refusal {
        WindowRefusal::NotTaken => What::Policy,
        WindowRefusal::Misaligned { .. } => What::Alignment,
        WindowRefusal::Mapped { .. } => What::Item,
        WindowRefusal::Window { .. } => What::Window,
        WindowRefusal::NoneLeft { .. } => What::Entries,
        WindowRefusal::NotUsable { why: iommu::refusal::Unusable::Reserved(_), .. } => {
            What::Reserved
        }
        WindowRefusal::NotUsable { .. } => What::Aperture,
        _ => return None,
    })
}
