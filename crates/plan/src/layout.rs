//! A guest's layout: its RAM, the BARs of its devices, where BARs may lie, and MSI windows.
//!
//! In a file it is a `softvfio-layout/1` (docs/plan.md). A layout that is being planned has ranges
//! only: what has no address yet is a [`Wish`].

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use iommu::IovaRange;
use serde_json::{Map, Value, json};

use crate::{BadInput, size};

/// What the format calls itself.
pub const FORMAT: &str = "softvfio-layout/1";

/// Items a list of a layout may have: looking for places takes time with their square.
pub const MAX_ITEMS: usize = 4096;

/// Bytes that a layout's file may have.
const MAX_FILE: u64 = 8 << 20;

/// What an item is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Guest memory.
    Ram,
    /// A BAR of an assigned device.
    Bar,
    /// An MSI window that is to be registered.
    Window,
}

impl Kind {
    /// The word in JSON.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Ram => "ram",
            Self::Bar => "bar",
            Self::Window => "window",
        }
    }
}

/// A range with a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// What people call it.
    pub name: String,
    /// Where it lies.
    pub range: IovaRange,
}

/// Something that is to have a range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    /// What people call it.
    pub name: String,
    /// Its size in bytes; not 0.
    pub size: u64,
    /// Where it must begin; `None`: anywhere.
    pub first: Option<u64>,
}

/// A layout before every item has its place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wishes {
    /// The file or preset, for messages; may be empty.
    pub origin: String,
    /// What people call it.
    pub name: String,
    /// What it is, in a sentence; may be empty.
    pub about: String,
    /// Where its numbers are from.
    pub sources: Vec<String>,
    /// RAM.
    pub ram: Vec<Wish>,
    /// BARs.
    pub bars: Vec<Wish>,
    /// Where BARs may lie and RAM may not.
    pub mmio: Vec<Item>,
    /// MSI windows.
    pub windows: Vec<Wish>,
}

/// A layout: every item has its place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// What people call it.
    pub name: String,
    /// What it is, in a sentence; may be empty.
    pub about: String,
    /// Where its numbers are from.
    pub sources: Vec<String>,
    /// RAM: each is mapped by one request.
    pub ram: Vec<Item>,
    /// BARs: mapped so that other devices reach them.
    pub bars: Vec<Item>,
    /// Where BARs may lie and RAM may not; nothing is mapped there.
    pub mmio: Vec<Item>,
    /// MSI windows.
    pub windows: Vec<Item>,
}

impl Layout {
    /// Everything that a container is asked for, in the order of the requests.
    pub fn items(&self) -> impl Iterator<Item = (Kind, &Item)> {
        let windows = self.windows.iter().map(|i| (Kind::Window, i));
        let ram = self.ram.iter().map(|i| (Kind::Ram, i));
        windows.chain(ram).chain(self.bars.iter().map(|i| (Kind::Bar, i)))
    }

    /// Bytes of RAM.
    #[must_use]
    pub fn ram_bytes(&self) -> u128 {
        self.ram.iter().map(|i| bytes(i.range)).sum()
    }

    /// The list of a kind.
    pub(crate) fn list_mut(&mut self, kind: Kind) -> &mut Vec<Item> {
        match kind {
            Kind::Ram => &mut self.ram,
            Kind::Bar => &mut self.bars,
            Kind::Window => &mut self.windows,
        }
    }

    /// As JSON: a `softvfio-layout/1`.
    #[must_use]
    pub fn json(&self) -> Value {
        let list = |items: &[Item]| -> Vec<Value> {
            let item = |i: &Item| {
                let size = format!("{:#x}", bytes(i.range));
                json!({"name": i.name, "first": hex(i.range.first()), "size": size})
            };
            items.iter().map(item).collect()
        };
        json!({
            "format": FORMAT, "name": self.name, "about": self.about, "sources": self.sources,
            "ram": list(&self.ram), "bars": list(&self.bars), "mmio": list(&self.mmio),
            "windows": list(&self.windows),
        })
    }
}

/// Bytes of a range: 2^64 of the whole space.
#[must_use]
pub fn bytes(range: IovaRange) -> u128 {
    u128::from(range.last() - range.first()) + 1
}

/// An address as JSON has it.
pub(crate) fn hex(number: u64) -> String {
    format!("{number:#x}")
}

/// Reads the layout in a file.
///
/// # Errors
/// The file and the place in it, and what was expected there.
pub fn read(path: &Path) -> Result<Wishes, BadInput> {
    let place = path.display().to_string();
    let members = read_object(path, MAX_FILE, "a layout")?;
    let bad = |what: String| BadInput::new(&place, what);
    match members.get("format") {
        Some(Value::String(format)) if format == FORMAT => {}
        other => {
            let found = other.map_or("nothing".to_owned(), short);
            return Err(bad(format!("expected format to be \"{FORMAT}\", found {found}")));
        }
    }
    let text = |member: &str| match members.get(member) {
        None => Ok(String::new()),
        Some(Value::String(text)) => Ok(text.clone()),
        Some(other) => {
            Err(bad(format!("expected {member} to be a string, found {}", short(other))))
        }
    };
    let sources = match members.get("sources") {
        None => Vec::new(),
        Some(Value::Array(list)) if list.iter().all(Value::is_string) => {
            list.iter().filter_map(|v| v.as_str().map(str::to_owned)).collect()
        }
        Some(other) => {
            return Err(bad(format!(
                "expected sources to be a list of strings, found {}",
                short(other)
            )));
        }
    };
    let list = |member: &str| wishes(&members, member).map_err(bad);
    let mmio = list("mmio")?.into_iter().enumerate().map(|(n, wish)| {
        let lacks = || bad(format!("expected mmio[{n}].first to be an address, found nothing"));
        let first = wish.first.ok_or_else(lacks)?;
        let range = IovaRange::sized(first, wish.size)
            .ok_or_else(|| bad(format!("expected mmio[{n}] to end below 2^64")))?;
        Ok(Item { name: wish.name, range })
    });
    Ok(Wishes {
        origin: place.clone(),
        name: match text("name")? {
            name if name.is_empty() => place.clone(),
            name => name,
        },
        about: text("about")?,
        sources,
        ram: list("ram")?,
        bars: list("bars")?,
        windows: list("windows")?,
        mmio: mmio.collect::<Result<_, BadInput>>()?,
    })
}

fn wishes(members: &Map<String, Value>, list: &str) -> Result<Vec<Wish>, String> {
    let values = match members.get(list) {
        None => return Ok(Vec::new()),
        Some(Value::Array(values)) if values.len() <= MAX_ITEMS => values,
        Some(other) => {
            return Err(format!(
                "expected {list} to be a list of at most {MAX_ITEMS} items, found {}",
                short(other)
            ));
        }
    };
    values.iter().enumerate().map(|(n, value)| wish(list, n, value)).collect()
}

fn wish(list: &str, n: usize, value: &Value) -> Result<Wish, String> {
    let Value::Object(item) = value else {
        return Err(format!("expected {list}[{n}] to be an object, found {}", short(value)));
    };
    let number = |member: &str| match item.get(member) {
        None => Ok(None),
        Some(Value::Number(number)) if number.is_u64() => Ok(number.as_u64()),
        Some(Value::String(text)) => {
            size::parse(text).map(Some).map_err(|what| format!("{list}[{n}].{member}: {what}"))
        }
        Some(other) => Err(format!(
            "expected {list}[{n}].{member} to be a size or an address, found {}",
            short(other)
        )),
    };
    let size = match number("size")? {
        None => return Err(format!("expected {list}[{n}].size to be a size, found nothing")),
        Some(0) => return Err(format!("expected {list}[{n}].size not to be 0")),
        Some(size) => size,
    };
    let name = match item.get("name") {
        None => format!("{}{n}", list.strip_suffix('s').unwrap_or(list)),
        Some(Value::String(name)) => {
            check_name(name).map_err(|what| format!("{list}[{n}].name: {what}"))?;
            name.clone()
        }
        Some(other) => {
            return Err(format!(
                "expected {list}[{n}].name to be a string, found {}",
                short(other)
            ));
        }
    };
    let first = number("first")?;
    if first.is_some_and(|first| IovaRange::sized(first, size).is_none()) {
        return Err(format!("expected {list}[{n}] to end below 2^64"));
    }
    Ok(Wish { name, size, first })
}

/// Whether a name can stand in a table.
///
/// # Errors
/// A sentence.
pub fn check_name(name: &str) -> Result<(), String> {
    if name.is_empty() || name.chars().count() > 64 || name.chars().any(char::is_control) {
        let found: String = name.chars().take(64).collect();
        return Err(format!("expected a name of 1 to 64 printable characters, found {found:?}"));
    }
    Ok(())
}

/// The beginning of a value, for a message.
fn short(value: &Value) -> String {
    match value {
        Value::Array(list) => format!("a list of {}", list.len()),
        Value::Object(_) => "an object".into(),
        other => other.to_string().chars().take(40).collect(),
    }
}

/// The one JSON object that a file consists of.
pub(crate) fn read_object(
    path: &Path,
    limit: u64,
    what: &str,
) -> Result<Map<String, Value>, BadInput> {
    let text = read_text(path, limit, what)?;
    serde_json::from_str(&text).map_err(|error| not_json(path, &error, what))
}

pub(crate) fn not_json(path: &Path, error: &serde_json::Error, what: &str) -> BadInput {
    let full = error.to_string();
    let why = full.rsplit_once(" at line").map_or(full.as_str(), |(why, _)| why);
    BadInput::at(
        path.display(),
        error.line(),
        error.column().max(1),
        format!("expected {what}: {why}"),
    )
}

/// Opens a file; `-` is standard input.
pub(crate) fn open(path: &Path) -> io::Result<Box<dyn BufRead>> {
    if path.as_os_str() == "-" {
        return Ok(Box::new(BufReader::new(io::stdin())));
    }
    Ok(Box::new(BufReader::new(fs::File::open(path)?)))
}

fn read_text(path: &Path, limit: u64, what: &str) -> Result<String, BadInput> {
    let bad = |error: io::Error| {
        BadInput::new(path.display(), format!("expected {what}: the file cannot be read: {error}"))
    };
    let mut bytes = Vec::new();
    // What has no size, such as a pipe or a device, may have no end.
    open(path).map_err(bad)?.take(limit + 1).read_to_end(&mut bytes).map_err(bad)?;
    text_of(bytes, path, limit, what)
}

/// The text that was read of a file.
pub(crate) fn text_of(
    bytes: Vec<u8>,
    path: &Path,
    limit: u64,
    what: &str,
) -> Result<String, BadInput> {
    if bytes.len() as u64 > limit {
        let what = format!("expected {what} of at most {}", size::Bytes(limit.into()));
        return Err(BadInput::new(path.display(), what));
    }
    String::from_utf8(bytes).map_err(|error| {
        let bytes = error.as_bytes();
        let good = bytes.get(..error.utf8_error().valid_up_to()).unwrap_or_default();
        let line = good.iter().filter(|b| **b == b'\n').count() + 1;
        let column = good.iter().rev().take_while(|b| **b != b'\n').count() + 1;
        BadInput::at(path.display(), line, column, format!("expected {what}: UTF-8 text"))
    })
}

/// Two items that lie over each other, and names that stand twice.
///
/// # Errors
/// A sentence with both.
pub fn check_apart<'a>(
    items: impl Iterator<Item = (Kind, &'a str, IovaRange)>,
) -> Result<(), String> {
    let mut sorted: Vec<_> = items.collect();
    let mut names = BTreeSet::new();
    for (kind, name, _) in &sorted {
        if !names.insert((*kind, *name)) {
            return Err(format!("expected one {} called {name}, found two", kind.word()));
        }
    }
    sorted.sort_by_key(|(_, _, range)| *range);
    for pair in sorted.windows(2) {
        if let [(kind, name, range), (other_kind, other, other_range)] = pair
            && range.overlaps(*other_range)
        {
            return Err(format!(
                "expected items that lie apart; {} {name} ({range}) and {} {other} ({other_range}) overlap",
                kind.word(),
                other_kind.word()
            ));
        }
    }
    Ok(())
}
