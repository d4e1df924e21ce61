//! `softvfio plan`: a guest's layout checked against a host.

use std::ffi::OsString;
use std::io::{self, IsTerminal};
use std::path::Path;
use std::process::ExitCode;

use clap::Args;
use draw::{Again, Area, Column, Kind as AreaKind, Mark, MarkKind};
use plan::{
    BadInput, Kind, KnownHost, Memlock, Plan as Answer, Question, Style, What, Wish, Wishes,
};
use plan::{layout, preset, size};

use crate::output::{for_terminal, print};
use crate::picture::{Drawing, beside, write_svg};

/// The layout is legal.
const LEGAL: u8 = 0;
/// It is not.
const NOT_LEGAL: u8 = 1;
/// An argument or a file cannot be used.
const BAD_INPUT: u8 = 2;

/// Options of `softvfio plan`.
#[derive(Args)]
#[command(after_help = "Examples:
  softvfio plan --host arm-smmuv3-its --ram 4G@0
  softvfio plan --host x86-amd --layout qemu-q35 --ram 1T --guest-viommu
  softvfio plan --host x86-intel-39bit --ram 8G@0 --bar gpu=16G@0x8000000000
  softvfio plan --host arm-smmuv3-its-user --ram 4G@0 --msi-window 1M@0x8000000
  softvfio plan --host box.json --layout guest.json --json
  softvfio plan --host x86-amd --layout qemu-q35 --ram 1T --svg guest.svg

Sizes: 4096, 0x1000, 2M, 1.5T (powers of 1024). What has no address is placed
where the host allows it. A preset takes one --ram, all of the guest's memory.

Exit status: 0 when every mapping would be made, 1 when one would not, 2 when an
argument or a file cannot be used. Presets, the JSON and worked examples:
docs/plan.md.")]
pub(crate) struct Plan {
    /// The host: a built-in one, or a file with a header; `help` lists the built-in ones.
    #[arg(long, value_name = "NAME|FILE")]
    host: OsString,
    /// A bank of RAM. Repeat for more.
    #[arg(long, value_name = "SIZE[@ADDR]")]
    ram: Vec<String>,
    /// A BAR that is mapped for other devices. Repeat for more.
    #[arg(long, value_name = "NAME=SIZE[@ADDR]")]
    bar: Vec<String>,
    /// An MSI window to register, where the host's policy is `user`. Repeat for more.
    #[arg(long, value_name = "SIZE[@ADDR]")]
    msi_window: Vec<String>,
    /// A layout to start from: a file, or the preset of a VMM; `help` lists the presets.
    #[arg(long, value_name = "FILE|PRESET")]
    layout: Option<OsString>,
    /// Groups that the container has, in place of all.
    #[arg(long, value_name = "N,...", value_delimiter = ',')]
    group: Option<Vec<u32>>,
    /// The page that mappings are made of: cuts are multiples of it, page tables are counted by it.
    #[arg(long, value_name = "4K|2M|1G")]
    iommu_page: Option<String>,
    /// The guest has an IOMMU: every device an address space of its own.
    #[arg(long)]
    guest_viommu: bool,
    /// Devices assigned.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    devices: u32,
    /// A limit on locked memory that counts. (The host's own is advice: it can be raised.)
    #[arg(long, value_name = "SIZE|unlimited")]
    memlock: Option<String>,
    /// Write JSON for programs.
    #[arg(long)]
    json: bool,
    /// Also draw the layout beside the host, as SVG, to this file (`-`: standard output, in place of
    /// text).
    #[arg(long, value_name = "FILE")]
    svg: Option<OsString>,
}

impl Plan {
    /// Plans, prints, and says how it is.
    pub(crate) fn run(&self) -> ExitCode {
        if self.host == "help" {
            return crate::host::list(false);
        }
        if self.layout.as_deref().is_some_and(|l| l == "help") {
            let presets = preset::PRESETS.iter();
            let lines: String = presets.map(|p| format!("{:22} {}\n", p.name, p.about)).collect();
            return print(&lines, LEGAL, BAD_INPUT);
        }
        match self.answer() {
            Ok((text, status)) => print(&text, status, BAD_INPUT),
            Err(why) => {
                eprintln!("softvfio: {why}");
                ExitCode::from(BAD_INPUT)
            }
        }
    }

    fn answer(&self) -> Result<(String, u8), String> {
        if self.json && self.svg.as_deref().is_some_and(|file| file == "-") {
            return Err("--svg -: expected a file: standard output has the JSON".into());
        }
        let planned = self.planned().map_err(|bad| bad.to_string())?;
        let (text, scenes, status) = planned;
        match &self.svg {
            None => Ok((text, status)),
            Some(file) => {
                write_svg(&scenes, file)?;
                Ok((if file == "-" { String::new() } else { text }, status))
            }
        }
    }

    /// The answer as text or JSON, the pictures of it where they are wanted, and the exit status.
    fn planned(&self) -> Result<(String, Vec<Drawing>, u8), BadInput> {
        let host = KnownHost::load(Path::new(&self.host))?;
        for note in &host.notes {
            eprintln!("softvfio: {}: {note}", host.name);
        }
        let iommu_page = match &self.iommu_page {
            None => None,
            Some(text) => Some(size::parse(text).map_err(argument("--iommu-page", text))?),
        };
        let memlock = match &self.memlock {
            None => None,
            Some(text) => Some(Memlock::parse(text).map_err(argument("--memlock", text))?),
        };
        let question = Question {
            groups: self.group.clone(),
            iommu_page,
            guest_viommu: self.guest_viommu,
            devices: self.devices,
            memlock,
            ..Question::new(&host, self.wishes()?)
        };
        let answer = Answer::make(question)?;
        let text = if self.json {
            format!("{:#}\n", answer.json())
        } else {
            for_terminal(answer.text(Style::for_output(io::stdout().is_terminal())))
        };
        let scenes = if self.svg.is_some() { drawings(&answer) } else { Vec::new() };
        Ok((text, scenes, if answer.is_legal() { LEGAL } else { NOT_LEGAL }))
    }

    /// What the arguments ask for.
    fn wishes(&self) -> Result<Wishes, BadInput> {
        let mut ram = Vec::new();
        for (n, text) in self.ram.iter().enumerate() {
            ram.push(wish("--ram", text, format!("ram{n}"), text)?);
        }
        let mut wishes = match &self.layout {
            None => Wishes::default(),
            Some(named) => match named.to_str().and_then(preset::find) {
                Some(preset) => from_preset(preset, std::mem::take(&mut ram))?,
                None => {
                    let path = Path::new(named);
                    if !path.exists() && named.to_str().is_some_and(|n| !n.contains(['/', '.'])) {
                        let what = format!("expected a file, or a preset: {}", preset::names());
                        return Err(BadInput::new(path.display(), what));
                    }
                    layout::read(path)?
                }
            },
        };
        wishes.ram.extend(ram);
        for text in &self.bar {
            let (name, rest) = text.rsplit_once('=').ok_or_else(|| {
                argument("--bar", text)("expected NAME=SIZE or NAME=SIZE@ADDRESS".into())
            })?;
            layout::check_name(name).map_err(|what| BadInput::new("--bar", what))?;
            wishes.bars.push(wish("--bar", text, name.to_owned(), rest)?);
        }
        for (n, text) in self.msi_window.iter().enumerate() {
            wishes.windows.push(wish("--msi-window", text, format!("msi{n}"), text)?);
        }
        if wishes.ram.is_empty() && wishes.bars.is_empty() && wishes.windows.is_empty() {
            let what = "expected something to map: --ram, --bar, --msi-window or --layout";
            return Err(BadInput::new("plan", what));
        }
        Ok(wishes)
    }
}

/// The layout beside the groups of its container, as `softvfio draw LAYOUT --host HOST` has it, with
/// what is refused.
fn drawings(answer: &Answer<'_>) -> Vec<Drawing> {
    let kind = |kind| match kind {
        Kind::Ram => AreaKind::Ram,
        Kind::Bar => AreaKind::Bar,
        Kind::Window => AreaKind::Window,
    };
    let area = |map: &plan::Map| Area {
        range: map.item.range,
        kind: kind(map.kind),
        name: map.item.name.clone(),
        note: map
            .conflicts
            .first()
            .map_or(String::new(), |c| format!("refused: {}", c.what.errno())),
    };
    let mut areas: Vec<Area> = answer.maps.iter().map(area).collect();
    areas.sort_by_key(|a| (a.range.first(), std::cmp::Reverse(a.range.last())));
    let guest = Column { title: "the guest".into(), apertures: Vec::new(), areas };
    // What lies on something reserved is marked as a collision already.
    let seen = |what| matches!(what, What::Reserved | What::Aperture);
    let marks = answer.maps.iter().zip(1..).flat_map(|(map, request)| {
        map.conflicts.iter().filter(|c| !seen(c.what)).map(move |conflict| Mark {
            kind: MarkKind::Refused,
            request,
            range: Some(conflict.range),
            text: format!("{}: {}: {}", map.item.name, conflict.what.errno(), conflict.why),
            again: Again::default(),
        })
    });
    let marks: Vec<Mark> = marks.collect();
    let mut host = answer.host.host.clone();
    host.groups.retain(|group| answer.view.groups.contains(&group.number));
    let title = match answer.layout.name.as_str() {
        "" => "a guest",
        name => name,
    };
    let scenes = beside(&host, &answer.host.name, title, &guest).into_iter().map(|mut scene| {
        scene.marks.extend(marks.iter().cloned());
        Drawing::Scene(scene)
    });
    scenes.collect()
}

fn from_preset(preset: &preset::Preset, ram: Vec<Wish>) -> Result<Wishes, BadInput> {
    let bad = |what: String| BadInput::new(format!("--layout {}", preset.name), what);
    let [Wish { size, first: None, .. }] = ram[..] else {
        let what = "a preset takes all of the guest's memory in one --ram SIZE, without an address";
        return Err(bad(what.into()));
    };
    preset.wishes(size).map_err(bad)
}

/// What is wrong with the argument `text` of an option.
fn argument(option: &str, text: &str) -> impl Fn(String) -> BadInput {
    let place = format!("{option} {}", text.chars().take(60).collect::<String>());
    move |what| BadInput::new(&place, what)
}

/// What one argument asks for: `text` in all, of which `rest` is size and address.
fn wish(option: &str, text: &str, name: String, rest: &str) -> Result<Wish, BadInput> {
    let bad = argument(option, text);
    let (size, first) = size::parse_at(rest).map_err(&bad)?;
    if size == 0 {
        return Err(bad("expected a size, found 0".into()));
    }
    if first.is_some_and(|first| iommu::IovaRange::sized(first, size).is_none()) {
        return Err(bad("expected it to end below 2^64".into()));
    }
    Ok(Wish { name, size, first })
}
