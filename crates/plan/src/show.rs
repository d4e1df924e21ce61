//! A host as text for people.

use std::fmt::Write;

use iommu::{Group, MsiPolicy, ReservedRegion};
use serde_json::Value;

use crate::host::{KnownHost, Memlock};
use crate::layout::hex;
use crate::plan::{group_list, page_sizes};
use crate::size::{Bytes, Count};
use crate::{Style, View};

/// Devices of a group that are listed.
const MAX_DEVICES: usize = 6;

/// Page sizes that are listed one by one.
const MAX_SIZES: usize = 6;

impl KnownHost {
    /// As text for people.
    #[must_use]
    pub fn text(&self, style: Style) -> String {
        let mut out = String::new();
        // Writing to a string cannot fail.
        let _ = self.write(&mut out, style);
        out
    }

    fn write(&self, out: &mut String, style: Style) -> std::fmt::Result {
        let view = View::of(&self.host, None);
        let about = if self.about.is_empty() { String::new() } else { format!(": {}", self.about) };
        writeln!(out, "{}{about}", style.bold(&self.name))?;
        let kernel = if self.kernel.is_empty() { "kernel unknown" } else { &self.kernel };
        writeln!(
            out,
            "Linux {kernel} (answers as {}), CPU pages of {}\n",
            self.host.dialect.name,
            Bytes(self.host.page_size.into())
        )?;
        self.write_iommus(out, style)?;
        writeln!(out, "{}", style.bold("may be mapped, with every group in one container"))?;
        let width = view.valid.iter().map(|v| hex(v.last()).len()).max().unwrap_or(0);
        for range in &view.valid {
            let size = Bytes(crate::layout::bytes(*range));
            writeln!(
                out,
                "  {:>width$} .. {:>width$}  {size}",
                hex(range.first()),
                hex(range.last())
            )?;
        }
        if view.valid.is_empty() {
            writeln!(out, "  {}", style.bad("nothing"))?;
        }
        self.write_reserved(out, style)?;
        self.write_groups(out, style, &view)?;
        let limits = self.host.limits;
        writeln!(out, "\n{}", style.bold("limits"))?;
        writeln!(
            out,
            "  mappings in a container  {} (dma_entry_limit)",
            Count(limits.dma_entry_limit.into())
        )?;
        let memlock = match self.memlock {
            None => "unknown".to_owned(),
            Some(Memlock::Unlimited) => "none".into(),
            Some(Memlock::Bytes(bytes)) => Bytes(bytes.into()).to_string(),
        };
        writeln!(out, "  locked memory            {memlock} (RLIMIT_MEMLOCK)")?;
        let allowed = if limits.allow_unsafe_interrupts { "allowed" } else { "not allowed" };
        writeln!(out, "  unsafe interrupts        {allowed} (allow_unsafe_interrupts)")?;
        if !self.asked.is_empty() {
            writeln!(out, "\n{}", style.bold("said by containers (GET_INFO)"))?;
            for said in &self.asked {
                writeln!(out, "  {}", sentence(said))?;
            }
        }
        if !self.not_known.is_empty() {
            writeln!(out, "\n{}", style.warn("not known"))?;
            for sentence in &self.not_known {
                writeln!(out, "  {sentence}")?;
            }
        }
        Ok(())
    }

    fn write_iommus(&self, out: &mut String, style: Style) -> std::fmt::Result {
        for (at, (iommu, name)) in self.host.iommus.iter().zip(&self.iommus).enumerate() {
            let called = if *name == iommu.kind { String::new() } else { format!(" {name}") };
            writeln!(out, "{}{called}: {}", style.bold("IOMMU"), iommu.kind)?;
            let (first, last) = (hex(iommu.aperture.first()), hex(iommu.aperture.last()));
            let end = u128::from(iommu.aperture.last()) + 1;
            let bits = match (iommu.aperture.first(), end.is_power_of_two()) {
                (0, true) => format!(", {} bits", end.trailing_zeros()),
                _ => String::new(),
            };
            writeln!(out, "  aperture   {first} .. {last}{bits}")?;
            writeln!(out, "  pages      {}", sizes(iommu.page_sizes.0))?;
            let policy = match iommu.msi {
                MsiPolicy::Fixed { window } => {
                    format!("fixed: doorbells are mapped at {window}, which the driver chose")
                }
                MsiPolicy::User { max_windows } => {
                    format!("user: the VMM registers up to {max_windows} windows for doorbells")
                }
                _ => "implicit: a write to the doorbell range is not translated".into(),
            };
            writeln!(out, "  MSIs       {policy}")?;
            for controller in self.doorbells(at) {
                writeln!(out, "  doorbell   {controller}")?;
            }
            let isolated = if iommu.msi_isolated { "isolated" } else { "not isolated" };
            let coherent = if iommu.coherent { "enforced" } else { "not enforced" };
            writeln!(out, "  interrupts {isolated}; cache coherency {coherent}\n")?;
        }
        Ok(())
    }

    /// The interrupt controllers that devices behind an IOMMU write to.
    fn doorbells(&self, iommu: usize) -> Vec<String> {
        let mut found: Vec<usize> =
            self.host.groups.iter().filter(|g| g.iommu == iommu).map(|g| g.controller).collect();
        found.sort_unstable();
        found.dedup();
        let controllers = found.into_iter().filter_map(|c| self.host.controllers.get(c));
        controllers.map(|c| format!("{} ({})", hex(c.doorbell), c.kind)).collect()
    }

    fn write_reserved(&self, out: &mut String, style: Style) -> std::fmt::Result {
        let mut seen: Vec<(&ReservedRegion, Vec<u32>)> = Vec::new();
        for group in &self.host.groups {
            for region in &group.reserved {
                match seen.iter_mut().find(|(known, _)| *known == region) {
                    Some((_, groups)) if groups.contains(&group.number) => {}
                    Some((_, groups)) => groups.push(group.number),
                    None => seen.push((region, vec![group.number])),
                }
            }
        }
        seen.sort_by_key(|(region, _)| (region.range, region.kind));
        writeln!(out, "\n{}", style.bold("reserved"))?;
        if seen.is_empty() {
            writeln!(out, "  nothing")?;
        }
        let width = seen.iter().map(|(r, _)| hex(r.range.last()).len()).max().unwrap_or(0);
        for (region, groups) in seen {
            writeln!(
                out,
                "  {:>width$} .. {:>width$}  {:16} {}; {}",
                hex(region.range.first()),
                hex(region.range.last()),
                region.kind.to_string(),
                region.owner,
                group_list(&groups, self.host.groups.len())
            )?;
        }
        Ok(())
    }

    fn write_groups(&self, out: &mut String, style: Style, view: &View) -> std::fmt::Result {
        writeln!(out, "\n{}", style.bold("groups"))?;
        let mut groups: Vec<&Group> = self.host.groups.iter().collect();
        groups.sort_by_key(|g| g.number);
        for group in groups {
            let shown: Vec<&str> =
                group.devices.iter().take(MAX_DEVICES).map(String::as_str).collect();
            let more = match group.devices.len().saturating_sub(MAX_DEVICES) {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            let iommu = match (self.iommus.len(), self.iommus.get(group.iommu)) {
                (0 | 1, _) | (_, None) => String::new(),
                (_, Some(name)) => format!("  behind {name}"),
            };
            writeln!(out, "  {:>4}  {}{more}{iommu}", group.number, shown.join(" "))?;
            if let Some((_, why)) = view.refused.iter().find(|(number, _)| *number == group.number)
            {
                writeln!(out, "        {}: {why}", style.bad("not for guests"))?;
            }
        }
        Ok(())
    }
}

/// What a container said, in a line. It is from a file: what cannot be read is left out.
fn sentence(said: &Value) -> String {
    let text = |member: &str| said.get(member).and_then(Value::as_str);
    let safe =
        |text: &str| -> String { text.chars().filter(|c| !c.is_control()).take(64).collect() };
    let mut parts = Vec::new();
    if let Some(group) = said.get("group").and_then(Value::as_u64) {
        let behind = text("iommu").map(|i| format!(" behind {}", safe(i))).unwrap_or_default();
        parts.push(format!("group {group}{behind}"));
    }
    parts.extend(text("type").map(safe));
    let last = said.get("valid").and_then(Value::as_array).and_then(|v| v.last()?.get("last"));
    parts.extend(last.and_then(Value::as_str).map(|last| format!("up to {}", safe(last))));
    let bitmap = |text: Option<&str>| crate::size::parse(text?).ok();
    parts.extend(bitmap(text("page_sizes")).map(|pages| format!("pages of {}", sizes(pages))));
    if let Some(limit) = said.get("dma_avail").and_then(Value::as_u64) {
        parts.push(format!("{} mappings", Count(limit.into())));
    }
    let migration = said.get("migration").and_then(|m| m.get("page_sizes")?.as_str());
    if let Some(pages) = bitmap(migration) {
        parts.push(format!("dirty tracking by {}", sizes(pages)));
    }
    match said.get("coherent").and_then(Value::as_bool) {
        Some(true) => parts.push("coherent".into()),
        Some(false) => parts.push("not coherent".into()),
        None => {}
    }
    parts.join(", ")
}

/// The sizes in a bitmap: `4 KiB, 2 MiB, 1 GiB`, or the ends of a long list.
fn sizes(bitmap: u64) -> String {
    let all: Vec<String> = page_sizes(bitmap).map(|s| Bytes(s.into()).to_string()).collect();
    match &all[..] {
        [] => "none".into(),
        [first, second, .., last] if all.len() > MAX_SIZES => {
            format!("{first}, {second} .. {last} ({} sizes)", all.len())
        }
        _ => all.join(", "),
    }
}
