//! A layout on a host: what would be mapped, what would not, what would, and what it costs.

mod text;

use serde_json::{Value, json};

pub use text::arguments;
pub(crate) use text::{group_list, page_sizes};

use crate::budget::{Budget, Guest};
use crate::check::{Bounds, Map, check};
use crate::engine::carry_out;
use crate::host::{KnownHost, Memlock, range, ranges};
use crate::layout::{Kind, Layout, MAX_ITEMS, Wish, Wishes, check_apart, check_name, hex};
use crate::place::place;
use crate::propose::{Proposal, propose};
use crate::size::Bytes;
use crate::{BadInput, View};

/// What is asked.
#[derive(Clone, Debug)]
pub struct Question<'a> {
    /// On which host.
    pub host: &'a KnownHost,
    /// What is to be mapped.
    pub wishes: Wishes,
    /// The groups that the container has; `None`: every group that VFIO gives to a user.
    pub groups: Option<Vec<u32>>,
    /// The page that mappings are made of.
    pub iommu_page: Option<u64>,
    /// Whether the guest has an IOMMU.
    pub guest_viommu: bool,
    /// Devices assigned.
    pub devices: u32,
    /// A limit that counts, in place of the host's, which is advice.
    pub memlock: Option<Memlock>,
}

impl<'a> Question<'a> {
    /// The plain question: all groups, one device, no guest IOMMU.
    #[must_use]
    pub fn new(host: &'a KnownHost, wishes: Wishes) -> Self {
        Self {
            host,
            wishes,
            groups: None,
            iommu_page: None,
            guest_viommu: false,
            devices: 1,
            memlock: None,
        }
    }
}

/// The answer.
#[derive(Clone, Debug)]
pub struct Plan<'a> {
    /// The host.
    pub host: &'a KnownHost,
    /// What the container may map.
    pub view: View,
    /// The layout, every item with its place.
    pub layout: Layout,
    /// Items whose place the plan chose.
    pub chosen: Vec<(Kind, String)>,
    /// Every request.
    pub maps: Vec<Map>,
    /// A layout that is legal; `None` where this one is, or none was found.
    pub proposal: Option<Proposal>,
    /// Why there is no proposal.
    pub no_proposal: Option<String>,
    /// Why VFIO would give no group to a guest, whatever the layout; the rest of the answer is as
    /// if that were mended.
    pub blocked: Option<String>,
    /// What it costs: the proposal's where there is one.
    pub budget: Budget,
}

impl<'a> Plan<'a> {
    /// Answers a question.
    ///
    /// # Errors
    /// What was asked makes no sense: overlapping items, groups that the host has not.
    pub fn make(question: Question<'a>) -> Result<Self, BadInput> {
        let Question { host, mut wishes, groups, iommu_page, guest_viommu, devices, memlock } =
            question;
        if let Some(wanted) = &groups
            && let Some(missing) = wanted.iter().find(|g| host.host.group(**g).is_none())
        {
            let known: Vec<String> =
                host.host.groups.iter().map(|g| g.number.to_string()).collect();
            let what = format!(
                "the host {} has no group {missing}; it has {}",
                host.name,
                known.join(", ")
            );
            return Err(BadInput::new("--group", what));
        }
        let mut machine = host.host.clone();
        let mut view = View::of(&machine, groups.as_deref());
        let refused =
            |view: &View| view.refused.first().map(|(n, why)| format!("group {n}: {why}"));
        let mut blocked = None;
        if view.groups.is_empty() || (groups.is_some() && !view.refused.is_empty()) {
            // The layout is looked at all the same, if a module parameter is all that is missing.
            blocked = refused(&view);
            machine.limits.allow_unsafe_interrupts = true;
            view = View::of(&machine, groups.as_deref());
        }
        if view.groups.is_empty() || (groups.is_some() && !view.refused.is_empty()) {
            let why = refused(&view).unwrap_or_else(|| "no group was named".into());
            let what = format!("expected groups that VFIO gives to a guest; {why}");
            return Err(BadInput::new(if groups.is_some() { "--group" } else { &host.name }, what));
        }
        if let Some(page) = iommu_page
            && (page & (page.wrapping_sub(1)) != 0 || view.page_sizes.0 & page == 0)
        {
            let sizes: Vec<String> =
                page_sizes(view.page_sizes.0).map(|s| Bytes(s.into()).to_string()).collect();
            let what = format!(
                "the IOMMU has no pages of {}; it has {}",
                Bytes(page.into()),
                sizes.join(", ")
            );
            return Err(BadInput::new("--iommu-page", what));
        }
        let place_of = wishes.origin.clone();
        let bad = |what: String| {
            BadInput::new(if place_of.is_empty() { "the layout" } else { &place_of }, what)
        };
        for (kind, list) in
            [("ram", &wishes.ram), ("bars", &wishes.bars), ("windows", &wishes.windows)]
        {
            if list.len() > MAX_ITEMS {
                return Err(bad(format!(
                    "expected {MAX_ITEMS} {kind} at most, found {}",
                    list.len()
                )));
            }
        }
        need_window(&mut wishes, &view, host.host.page_size);
        let chosen = chosen(&wishes);
        let layout = place(&wishes, &view).map_err(&bad)?;
        check_layout(&layout).map_err(&bad)?;
        let page_size = machine.page_size;
        let entries = machine.limits.dma_entry_limit;
        let mut bounds = Bounds { entries, lock_pages: None, locked_pages: 0, page_size };
        if let Some(Memlock::Bytes(limit)) = memlock {
            // The container that is looked at is the last; the others have locked their share.
            let others = if guest_viommu { devices.saturating_sub(1) } else { 0 };
            let share = layout.ram_bytes() / u128::from(page_size) * u128::from(others);
            bounds.lock_pages = Some(limit / page_size);
            bounds.locked_pages = u64::try_from(share).unwrap_or(u64::MAX);
        }
        let maps = check(&view, &bounds, layout.items());
        let engine = |layout: &Layout| {
            carry_out(&machine, &view.groups, &bounds, layout.items()).map_err(|why| {
                bad(format!(
                    "the groups of {} cannot share a container: {why}; name some with --group",
                    host.name
                ))
            })
        };
        let answers = engine(&layout)?;
        let mut proposal = None;
        let mut no_proposal = None;
        if maps.iter().any(|m| !m.is_legal()) {
            let align = iommu_page.unwrap_or(view.granule).max(view.granule);
            match propose(&view, &layout, &maps, align) {
                Err(why) => no_proposal = Some(why),
                Ok(found) => {
                    // The engine has the last word.
                    let refused = engine(&found.layout)?.refusals.into_iter().flatten().next();
                    match refused {
                        None => proposal = Some(found),
                        Some(refusal) => {
                            no_proposal =
                                Some(format!("no change was found that is legal: {}", refusal.why))
                        }
                    }
                }
            }
        }
        let guest = Guest { viommu: guest_viommu, devices, iommu_page };
        let final_layout = proposal.as_ref().map_or(&layout, |p| &p.layout);
        let known = memlock.or(host.memlock);
        let budget = Budget::of(&view, final_layout, guest, entries, known, answers.domains);
        Ok(Self { host, view, layout, chosen, maps, proposal, no_proposal, blocked, budget })
    }

    /// Whether every request would be granted.
    #[must_use]
    pub fn is_legal(&self) -> bool {
        self.blocked.is_none() && self.maps.iter().all(Map::is_legal)
    }

    /// As JSON: a `softvfio-plan/1`.
    #[must_use]
    pub fn json(&self) -> Value {
        let maps: Vec<Value> = self.maps.iter().map(map_json).collect();
        json!({
            "format": "softvfio-plan/1", "legal": self.is_legal(), "host": self.host.json(),
            "groups": self.view.groups, "valid": ranges(&self.view.valid),
            "layout": self.layout.json(), "maps": maps,
            "proposal": self.proposal.as_ref().map(proposal_json),
            "no_proposal": self.no_proposal, "blocked": self.blocked, "budget": self.budget.json(),
        })
    }
}

/// Where windows must be registered and none is wished for: one that holds every doorbell.
fn need_window(wishes: &mut Wishes, view: &View, page_size: u64) {
    if view.max_windows.is_some() && wishes.windows.is_empty() && view.doorbell_pages != 0 {
        let size = u64::from(view.doorbell_pages) * page_size.max(view.granule);
        wishes.windows.push(Wish { name: "msi".into(), size, first: None });
    }
}

fn chosen(wishes: &Wishes) -> Vec<(Kind, String)> {
    let lists =
        [(Kind::Ram, &wishes.ram), (Kind::Bar, &wishes.bars), (Kind::Window, &wishes.windows)];
    let free = |(kind, list): (Kind, &Vec<Wish>)| -> Vec<(Kind, String)> {
        list.iter().filter(|w| w.first.is_none()).map(|w| (kind, w.name.clone())).collect()
    };
    lists.into_iter().flat_map(free).collect()
}

/// Items that cannot be meant: the guest itself could not have them. (A window may lie over an
/// item: that is the host's business, and a conflict.)
fn check_layout(layout: &Layout) -> Result<(), String> {
    for (kind, item) in layout.items() {
        check_name(&item.name).map_err(|what| format!("{}: {what}", kind.word()))?;
    }
    let of = |kind: Kind, items: &'_ [crate::Item]| -> Vec<(Kind, String, iommu::IovaRange)> {
        items.iter().map(|i| (kind, i.name.clone(), i.range)).collect()
    };
    let apart = |lists: &[Vec<(Kind, String, iommu::IovaRange)>]| {
        check_apart(lists.iter().flatten().map(|(k, n, r)| (*k, n.as_str(), *r)))
    };
    let (ram, bars) = (of(Kind::Ram, &layout.ram), of(Kind::Bar, &layout.bars));
    apart(&[ram.clone(), bars])?;
    apart(&[of(Kind::Window, &layout.windows)])?;
    let mut sorted = ram;
    sorted.sort_by_key(|(_, _, range)| *range);
    for window in &layout.mmio {
        let after = sorted.partition_point(|(_, _, r)| r.last() < window.range.first());
        if let Some((_, name, range)) =
            sorted.get(after).filter(|(_, _, r)| r.overlaps(window.range))
        {
            return Err(format!(
                "expected RAM outside of mmio; ram {name} ({range}) and mmio {} ({}) overlap",
                window.name, window.range
            ));
        }
    }
    Ok(())
}

fn map_json(map: &Map) -> Value {
    let conflicts: Vec<Value> = map.conflicts.iter().map(|c| {
        json!({
            "first": hex(c.range.first()), "last": hex(c.range.last()), "what": c.what.word(),
            "kind": c.kind.map(|k| k.to_string()), "owner": c.owner, "groups": c.groups, "why": c.why,
        })
    }).collect();
    let first = map.conflicts.first();
    json!({
        "item": map.item.name, "kind": map.kind.word(), "first": hex(map.item.range.first()),
        "last": hex(map.item.range.last()), "legal": map.is_legal(),
        "errno": first.map(|c| c.what.errno()), "why": first.map(|c| &c.why), "conflicts": conflicts,
    })
}

fn proposal_json(proposal: &Proposal) -> Value {
    let changes: Vec<Value> = proposal.changes.iter().map(|c| {
        json!({
            "item": c.item, "kind": c.kind.word(), "change": c.how.word(), "from": range(c.from),
            "to": ranges(&c.to), "why": c.why, "needs": c.needs,
        })
    }).collect();
    json!({
        "changes": changes, "layout": proposal.layout.json(),
        "moved_bytes": format!("{:#x}", proposal.moved_bytes),
    })
}
