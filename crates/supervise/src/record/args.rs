//! An argument structure: what was in it, and what a replay finds in it afterwards.

use crate::watch::{Piece, bytes_at};

/// The longest structure that a trace holds.
const MOST: usize = 0x1000;
/// What a replay fills memory with before a request.
const FILL: u8 = 0xaa;

/// A structure.
pub(super) struct Structure {
    /// Its first bytes: `argsz` of them, as far as they could be read.
    pub(super) before: Vec<u8>,
    /// The same bytes and those that were written, afterwards.
    pub(super) after: Vec<u8>,
    /// Fewer bytes than any structure has: the rest cannot be read.
    pub(super) short: bool,
}

impl Structure {
    /// The structure at `arg`; `None` when it is too long.
    pub(super) fn of(arg: u64, read: &[Piece], written: &[Piece]) -> Option<Self> {
        let argsz = bytes_at(read, arg, 4);
        let argsz = <[u8; 4]>::try_from(argsz).map_or(0, u32::from_le_bytes);
        let wanted = usize::try_from(argsz).ok()?.clamp(8, MOST);
        let before = bytes_at(read, arg, wanted);
        let mut after = before.clone();
        for piece in written {
            let at = usize::try_from(piece.addr.checked_sub(arg)?).ok()?;
            let end = at.checked_add(piece.bytes.len()).filter(|end| *end <= 1 << 17)?;
            if after.len() < end {
                after.resize(end, FILL);
            }
            after.get_mut(at..end)?.copy_from_slice(&piece.bytes);
        }
        let short = before.len() < 8;
        Some(Self { before, after, short })
    }
}

/// Bytes as digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
