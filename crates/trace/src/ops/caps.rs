//! Capability chains, as the recording program prints them.

use serde_json::{Map, Value};

use uapi::windows::{
    RESERVED_GROUP_CONTAINER, SOFTVFIO_INFO_CAP_MSI_WINDOWS, SOFTVFIO_INFO_CAP_RESERVED_REGIONS,
};

use super::answer::{digits, hex};
use super::{Arg, Op, Stop};
use crate::names::RESERVED_KINDS;

/// Whose capabilities: the ids belong to the structure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Of {
    Iommu,
    Region,
}

/// The chain that starts at `offset`, in `limit` bytes.
pub(super) fn read(
    op: &Op<'_>,
    arg: Arg,
    mut offset: u32,
    limit: u32,
    of: Of,
) -> Result<Vec<Value>, Stop> {
    let mut caps = Vec::new();
    while offset != 0 && u64::from(offset) + 8 <= u64::from(limit) && caps.len() < 16 {
        let at = u64::from(offset);
        let [a, b, c, d]: [u8; 4] = arg.get(op, at)?;
        let (id, version) = (u16::from_le_bytes([a, b]), u16::from_le_bytes([c, d]));
        let next = arg.u32(op, at + 4)?;
        let mut cap = Map::new();
        cap.insert("id".into(), id.into());
        cap.insert("version".into(), version.into());
        cap.insert("at".into(), offset.into());
        cap.insert("next".into(), next.into());
        match (of, id) {
            (Of::Iommu, 1) => {
                cap.insert("iova_ranges".into(), pairs(op, arg, at, limit)?);
            }
            (Of::Iommu, 2) => {
                cap.insert("flags".into(), hex(arg.u32(op, at + 8)?));
                cap.insert("pgsize_bitmap".into(), hex(arg.u64(op, at + 16)?));
                cap.insert("max_dirty_bitmap_size".into(), hex(arg.u64(op, at + 24)?));
            }
            (Of::Iommu, 3) => {
                cap.insert("avail".into(), arg.u32(op, at + 8)?.into());
            }
            (Of::Iommu, SOFTVFIO_INFO_CAP_RESERVED_REGIONS) => {
                cap.insert("regions".into(), regions(op, arg, at, limit)?);
            }
            (Of::Iommu, SOFTVFIO_INFO_CAP_MSI_WINDOWS) => {
                let head = ["pages_needed", "pages_host", "page_shift", "max_windows"];
                for (name, at) in head.into_iter().zip((at + 8..).step_by(4)) {
                    cap.insert(name.into(), arg.u32(op, at)?.into());
                }
                cap.insert("windows".into(), windows(op, arg, at, limit)?);
            }
            (Of::Region, 1) => {
                cap.insert("sparse".into(), pairs(op, arg, at, limit)?);
            }
            _ => {
                let end = if next > offset { next } else { limit };
                let size = usize::try_from(end.saturating_sub(offset).saturating_sub(8));
                let size = size.unwrap_or(0).min(0x1000);
                cap.insert("body".into(), digits(&arg.bytes(op, at + 8, size)?).into());
            }
        }
        caps.push(Value::Object(cap));
        offset = next;
    }
    Ok(caps)
}

/// A list of pairs of 64-bit numbers, its count at offset 8.
fn pairs(op: &Op<'_>, arg: Arg, at: u64, limit: u32) -> Result<Value, Stop> {
    let mut pairs = Vec::new();
    for i in 0..u64::from(arg.u32(op, at + 8)?) {
        let pair = at + 16 + i * 16;
        if pair + 16 > u64::from(limit) {
            break;
        }
        pairs.push(Value::from(vec![hex(arg.u64(op, pair)?), hex(arg.u64(op, pair + 8)?)]));
    }
    Ok(pairs.into())
}

/// Reserved regions: start, last, kind, permission, group each.
fn regions(op: &Op<'_>, arg: Arg, cap: u64, limit: u32) -> Result<Value, Stop> {
    let mut regions = Vec::new();
    let size = u64::from(arg.u32(op, cap + 12)?);
    for i in 0..u64::from(arg.u32(op, cap + 8)?) {
        let at = cap + 16 + i * size;
        if size < 32 || at + size > u64::from(limit) {
            break;
        }
        let number = arg.u32(op, at + 16)?;
        let kind = RESERVED_KINDS.iter().find(|(_, kind)| *kind == number);
        let group = arg.u32(op, at + 24)?;
        regions.push(Value::from(vec![
            hex(arg.u64(op, at)?),
            hex(arg.u64(op, at + 8)?),
            kind.map_or(number.into(), |(word, _)| (*word).into()),
            permission(arg.u32(op, at + 20)?),
            if group == RESERVED_GROUP_CONTAINER { "container".into() } else { group.into() },
        ]));
    }
    Ok(regions.into())
}

/// MSI windows: start, last, pages used, permission each.
fn windows(op: &Op<'_>, arg: Arg, cap: u64, limit: u32) -> Result<Value, Stop> {
    let mut windows = Vec::new();
    for i in 0..u64::from(arg.u32(op, cap + 24)?) {
        let at = cap + 32 + i * 24;
        if at + 24 > u64::from(limit) {
            break;
        }
        windows.push(Value::from(vec![
            hex(arg.u64(op, at)?),
            hex(arg.u64(op, at + 8)?),
            arg.u32(op, at + 16)?.into(),
            permission(arg.u32(op, at + 20)?),
        ]));
    }
    Ok(windows.into())
}

fn permission(bits: u32) -> Value {
    match bits {
        0 => "none".into(),
        1 => "read".into(),
        2 => "write".into(),
        3 => "read write".into(),
        _ => hex(bits),
    }
}
