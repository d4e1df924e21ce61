//! Capability chains, as the recording program prints them.

use serde_json::{Map, Value};

use super::answer::{digits, hex};
use super::{Arg, Op, Stop};

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
