//! A plan as text for people.

use std::fmt::Write;

use crate::Style;
use crate::check::What;
use crate::host::Memlock;
use crate::layout::{Layout, bytes, hex};
use crate::plan::Plan;
use crate::propose::How;
use crate::size::{Bytes, Count};

impl Plan<'_> {
    /// As text for people.
    #[must_use]
    pub fn text(&self, style: Style) -> String {
        let mut out = String::new();
        // Writing to a string cannot fail.
        let _ = self.write(&mut out, style);
        out
    }

    fn write(&self, out: &mut String, style: Style) -> std::fmt::Result {
        let host = self.host;
        let about = if host.about.is_empty() { String::new() } else { format!(": {}", host.about) };
        writeln!(out, "{}    {}{about}", style.bold("host"), host.name)?;
        let about = if self.layout.about.is_empty() {
            String::new()
        } else {
            format!(": {}", self.layout.about)
        };
        let name = if self.layout.name.is_empty() { "as asked" } else { &self.layout.name };
        writeln!(out, "{}  {name}{about}", style.bold("layout"))?;
        let all = host.host.groups.len();
        if self.view.groups.len() != all {
            writeln!(out, "{}  {} of {all}", style.bold("groups"), self.view.groups.len())?;
        }
        writeln!(out)?;
        self.write_maps(out, style)?;
        writeln!(out)?;
        self.write_verdict(out, style)?;
        self.write_budget(out, style)
    }

    fn write_maps(&self, out: &mut String, style: Style) -> std::fmt::Result {
        let name_width = self.maps.iter().map(|m| m.item.name.chars().count()).max().unwrap_or(0);
        let hex_width = self.maps.iter().map(|m| hex(m.item.range.last()).len()).max().unwrap_or(0);
        for map in &self.maps {
            let chosen =
                self.chosen.iter().any(|(kind, name)| *kind == map.kind && *name == map.item.name);
            let verdict = match (map.conflicts.first(), chosen) {
                (Some(first), _) => style.bad(format!("refused: {}", first.what.errno())),
                (None, true) => style.good("ok") + ", chosen here",
                (None, false) => style.good("ok"),
            };
            writeln!(
                out,
                "  {:6} {:name_width$}  {:>hex_width$} .. {:>hex_width$}  {:>10}  {verdict}",
                map.kind.word(),
                map.item.name,
                hex(map.item.range.first()),
                hex(map.item.range.last()),
                Bytes(bytes(map.item.range)).to_string(),
            )?;
            for conflict in &map.conflicts {
                let groups = match conflict.what {
                    What::Reserved => {
                        format!("; of {}", group_list(&conflict.groups, self.view.groups.len()))
                    }
                    _ => String::new(),
                };
                writeln!(out, "         {}{groups}", conflict.why)?;
            }
        }
        Ok(())
    }

    fn write_verdict(&self, out: &mut String, style: Style) -> std::fmt::Result {
        if let Some(why) = &self.blocked {
            writeln!(
                out,
                "{}: no group would be attached (EPERM); {why}\n",
                style.bad("not legal")
            )?;
        }
        let Some(proposal) = &self.proposal else {
            return match &self.no_proposal {
                Some(why) => {
                    writeln!(out, "{}; no other is proposed: {why}\n", style.bad("not legal"))
                }
                None if self.blocked.is_some() => writeln!(out, "the layout itself is legal\n"),
                None => writeln!(out, "{}\n", style.good("legal")),
            };
        };
        let refused = self.maps.iter().filter(|m| !m.is_legal()).count();
        writeln!(
            out,
            "{}: {refused} of {} would be refused. This would be legal, with {} at other addresses:\n",
            style.bad("not legal"),
            self.maps.len(),
            Bytes(proposal.moved_bytes)
        )?;
        for change in &proposal.changes {
            let to: Vec<String> = change
                .to
                .iter()
                .map(|r| format!("{} .. {}", hex(r.first()), hex(r.last())))
                .collect();
            let verb = match change.how {
                How::Split if change.to.len() == 1 => "shift to",
                How::Split => "split into",
                How::Move | How::MoveWindow => "move to",
                How::Drop => "leave out",
            };
            let place =
                if to.is_empty() { String::new() } else { format!(" {}", to.join(" and ")) };
            writeln!(out, "  {} {}: {}{place}", change.kind.word(), change.item, style.warn(verb))?;
            for need in &change.needs {
                writeln!(out, "    {} {need}", style.warn("but:"))?;
            }
        }
        writeln!(out)?;
        let args = arguments(&proposal.layout);
        if args.len() <= 16 {
            writeln!(out, "  {}\n", style.dim(format!("as arguments: {}", args.join(" "))))?;
        }
        Ok(())
    }

    fn write_budget(&self, out: &mut String, style: Style) -> std::fmt::Result {
        let b = &self.budget;
        let each = if b.containers == 1 {
            String::new()
        } else {
            format!(" in each of {} containers (a guest IOMMU: one a device)", b.containers)
        };
        let of = if self.proposal.is_some() { " of the legal layout" } else { "" };
        writeln!(out, "{}{of}", style.bold("budget"))?;
        writeln!(
            out,
            "  mappings       {} of {}{each}",
            Count(b.entries.into()),
            Count(b.entry_limit.into())
        )?;
        let limit = match b.memlock {
            None => "RLIMIT_MEMLOCK unknown".to_owned(),
            Some(Memlock::Unlimited) => "no RLIMIT_MEMLOCK".to_owned(),
            Some(Memlock::Bytes(limit)) => format!("RLIMIT_MEMLOCK {}", Bytes(limit.into())),
        };
        let times = if b.containers == 1 {
            String::new()
        } else {
            format!(" = {} x {}", b.containers, Bytes(b.locked_each))
        };
        writeln!(out, "  locked memory  {}{times} ({limit})", Bytes(b.locked))?;
        for tables in &b.tables {
            let total = if tables.total == tables.bytes {
                String::new()
            } else {
                format!(", {} in all", Bytes(tables.total))
            };
            writeln!(
                out,
                "  page tables    {} with pages of {}{total}",
                Bytes(tables.bytes),
                Bytes(tables.page.into())
            )?;
        }
        for advice in b.advice() {
            writeln!(out, "  {} {advice}", style.warn("note:"))?;
        }
        Ok(())
    }
}

/// The layout as arguments of `plan`, as a shell takes them.
#[must_use]
pub fn arguments(layout: &Layout) -> Vec<String> {
    let size = |item: &crate::Item| {
        let size = bytes(item.range);
        let unit = [(40u32, 'T'), (30, 'G'), (20, 'M'), (10, 'K')]
            .iter()
            .find(|(s, _)| size.is_multiple_of(1 << s));
        match unit {
            Some((shift, unit)) => format!("{}{unit}", size >> shift),
            None => format!("{size:#x}"),
        }
    };
    let at = |item: &crate::Item| format!("{}@{}", size(item), hex(item.range.first()));
    let ram = layout.ram.iter().map(|i| format!("--ram {}", at(i)));
    let bars = layout.bars.iter();
    let bars = bars.map(|i| format!("--bar {}", quoted(&format!("{}={}", i.name, at(i)))));
    let windows = layout.windows.iter().map(|i| format!("--msi-window {}", at(i)));
    ram.chain(bars).chain(windows).collect()
}

/// A word of a shell.
fn quoted(text: &str) -> String {
    if text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.,:+/=@%".contains(c)) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', "'\\''"))
}

/// `all groups`, `group 3`, `groups 1, 2 and 14 more`.
pub(crate) fn group_list(groups: &[u32], all: usize) -> String {
    let shown: Vec<String> = groups.iter().take(4).map(u32::to_string).collect();
    match groups.len() {
        1 if all != 1 => format!("group {}", shown.join("")),
        n if n == all => "every group".into(),
        n if n > 4 => format!("groups {} and {} more", shown.join(", "), n - 4),
        _ => format!("groups {}", shown.join(", ")),
    }
}

/// The sizes in a bitmap.
pub(crate) fn page_sizes(bitmap: u64) -> impl Iterator<Item = u64> {
    (0..64).map(|bit| 1u64 << bit).filter(move |size| bitmap & size != 0)
}
