//! A guest's layout: what shall be where. A `softvfio-layout/1` (`docs/plan.md`) whose every `first` is
//! filled in; `start` will do for it.
//!
//! ```json
//! {"name": "my guest",
//!  "ram": [{"first": "0x0", "size": "0x10000000", "name": "low"}],
//!  "bars": [{"first": "0x8000000000", "size": 16384, "name": "nvme BAR0"}]}
//! ```

use iommu::IovaRange;
use serde_json::{Map, Value};

use crate::scene::{Area, Column, Kind};

/// A guest's layout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// What it is called.
    pub name: Option<String>,
    /// What is where.
    pub column: Column,
}

/// Whether an object is a layout.
#[must_use]
pub fn is_layout(members: &Map<String, Value>) -> bool {
    let named = members.get("format").is_some_and(|format| format == plan::layout::FORMAT);
    named || ["ram", "bars", "windows"].iter().any(|list| members.contains_key(*list))
}

impl Layout {
    /// Reads a layout.
    ///
    /// # Errors
    /// Where and what was expected: `ram[2].size: expected ...`.
    pub fn read(members: &Map<String, Value>) -> Result<Self, String> {
        let mut areas = Vec::new();
        for (member, kind) in [("ram", Kind::Ram), ("bars", Kind::Bar), ("windows", Kind::Window)] {
            let list = match members.get(member) {
                None => continue,
                Some(Value::Array(list)) => list,
                Some(_) => return Err(format!("{member}: expected a list")),
            };
            for (at, value) in list.iter().enumerate() {
                let place = format!("{member}[{at}]");
                let nameless = format!("{}{at}", member.strip_suffix('s').unwrap_or(member));
                areas.push(area(value, kind, &place, nameless)?);
            }
        }
        areas.sort_by_key(|a: &Area| (a.range.first(), std::cmp::Reverse(a.range.last())));
        let name = members.get("name").and_then(Value::as_str).map(str::to_owned);
        let column = Column { title: "the guest".into(), apertures: Vec::new(), areas };
        Ok(Self { name, column })
    }
}

fn area(value: &Value, kind: Kind, place: &str, nameless: String) -> Result<Area, String> {
    let Value::Object(members) = value else {
        return Err(format!("{place}: expected an object with first and size"));
    };
    let number = |member: &str| {
        let number = match members.get(member) {
            Some(Value::Number(number)) => number.as_u64().ok_or_else(|| not_u64(number)),
            Some(Value::String(text)) => plan::size::parse(text),
            Some(other) => Err(not_u64(other)),
            None => return Err(format!("{place}: expected a member {member}")),
        };
        number.map_err(|what| format!("{place}.{member}: {what}"))
    };
    let first = if members.contains_key("start") { "start" } else { "first" };
    let (start, size) = (number(first)?, number("size")?);
    let range = IovaRange::sized(start, size).ok_or_else(|| {
        format!("{place}.size: expected a size that is not 0 and ends within 2^64, found {size:#x}")
    })?;
    let name = members.get("name").and_then(Value::as_str);
    let name = name.map_or(nameless, str::to_owned);
    Ok(Area { range, kind, name, note: String::new() })
}

fn not_u64(found: &impl ToString) -> String {
    let found = crate::size::cut(&found.to_string(), 40);
    format!("expected a number of at most 64 bits, found {found}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Layout, String> {
        Layout::read(&serde_json::from_str(text).unwrap())
    }

    #[test]
    fn numbers_are_those_of_plan() {
        let layout =
            read(r#"{"ram":[{"start":"0x1000","size":4096,"name":"low"}],"bars":[]}"#).unwrap();
        let area = &layout.column.areas[0];
        assert_eq!((area.range.last(), area.name.as_str()), (0x1fff, "low"));
        let top = read(r#"{"ram":[{"start":"0xfffffffffffff000","size":"0x1000"}]}"#).unwrap();
        assert_eq!(top.column.areas[0].range.last(), u64::MAX);
        let units = read(r#"{"ram":[{"first":"4G","size":"1.5T"}]}"#).unwrap();
        assert_eq!(units.column.areas[0].range, IovaRange::sized(4 << 30, 3 << 39).unwrap());
        assert_eq!(units.column.areas[0].name, "ram0");
    }

    #[test]
    fn a_layout_is_known_by_its_format_or_a_list() {
        let is = |text: &str| is_layout(&serde_json::from_str(text).unwrap());
        assert!(is(r#"{"format":"softvfio-layout/1"}"#) && is(r#"{"windows":[]}"#));
        assert!(is(r#"{"ram":[]}"#) && is(r#"{"bars":[]}"#));
        assert!(!is(r#"{"format":"vfio-oracle/1"}"#) && !is("{}"));
    }

    #[test]
    fn what_is_wrong_names_its_place() {
        let cases = [
            (r#"{"ram":7}"#, "ram: expected a list"),
            (r#"{"ram":[7]}"#, "ram[0]: expected an object with first and size"),
            (r#"{"bars":[{"start":0}]}"#, "bars[0]: expected a member size"),
            (r#"{"windows":[{"size":1}]}"#, "windows[0]: expected a member first"),
            (
                r#"{"bars":[{"start":"x","size":1}]}"#,
                "bars[0].start: expected a size like 4096, 0x1000, 2M or 1.5T, found \"x\"",
            ),
            (
                r#"{"bars":[{"start":-1,"size":1}]}"#,
                "bars[0].start: expected a number of at most 64 bits, found -1",
            ),
            (
                r#"{"ram":[{"start":4096,"size":"0xffffffffffffffff"}]}"#,
                "ram[0].size: expected a size that is not 0 and ends within 2^64, found \
                 0xffffffffffffffff",
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(read(text).unwrap_err(), expected);
        }
    }
}
