//! Argument structures: an arena that an inaccessible page follows, so that `"arg":"tail:N"` can
//! give a structure of which only the first N bytes exist.

use super::{Op, Stop};
use crate::process::ARENA;
use crate::request::{Request, parse_number};

/// An argument structure in the arena.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arg {
    /// Its address.
    pub(crate) at: u64,
    /// What the request is given: the address, or null.
    pub(crate) passed: u64,
    /// The end of the arena.
    end: u64,
}

impl Arg {
    /// A fresh arena, every byte 0xaa, and the structure's place in it.
    pub(crate) fn new(op: &mut Op<'_>) -> Result<Self, Stop> {
        let arena = op.world.process.arena();
        op.world.process.set_buffer(arena, ARENA, 0xaa)?;
        let end = arena + ARENA;
        let text = op.request.text("arg")?;
        let at = match text.as_deref().and_then(|text| text.strip_prefix("tail:")) {
            None => arena,
            Some(bytes) => match parse_number(bytes) {
                Some(bytes) => end.wrapping_sub(bytes),
                None => return Ok(op.request.bad("arg", "null or tail:N with a number N")?),
            },
        };
        let passed = if text.as_deref() == Some("null") { 0 } else { at };
        Ok(Self { at, passed, end })
    }

    /// Bytes before the inaccessible page.
    pub(crate) fn room(self) -> u64 {
        self.end.wrapping_sub(self.at)
    }

    /// Writes what fits before the inaccessible page.
    pub(crate) fn put(self, op: &mut Op<'_>, offset: u64, bytes: &[u8]) -> Result<(), Stop> {
        let at = self.at.wrapping_add(offset);
        if at >= self.end {
            return Ok(());
        }
        let room = usize::try_from(self.end.wrapping_sub(at)).unwrap_or(usize::MAX);
        let bytes = bytes.get(..room).unwrap_or(bytes);
        Ok(op.world.process.store(at, bytes)?)
    }

    /// Reads `N` bytes back.
    pub(crate) fn get<const N: usize>(self, op: &Op<'_>, offset: u64) -> Result<[u8; N], Stop> {
        let mut bytes = [0; N];
        op.world.process.load(self.at.wrapping_add(offset), &mut bytes)?;
        Ok(bytes)
    }

    /// Reads a number back.
    pub(crate) fn u32(self, op: &Op<'_>, offset: u64) -> Result<u32, Stop> {
        Ok(u32::from_le_bytes(self.get(op, offset)?))
    }

    /// Reads a number back.
    pub(crate) fn u64(self, op: &Op<'_>, offset: u64) -> Result<u64, Stop> {
        Ok(u64::from_le_bytes(self.get(op, offset)?))
    }

    /// Reads bytes back.
    pub(crate) fn bytes(self, op: &Op<'_>, offset: u64, size: usize) -> Result<Vec<u8>, Stop> {
        let mut bytes = vec![0; size];
        op.world.process.load(self.at.wrapping_add(offset), &mut bytes)?;
        Ok(bytes)
    }

    /// `raw`: the first bytes of the structure, when the request asks for them.
    pub(crate) fn raw(
        self,
        op: &Op<'_>,
        answer: &mut super::Answer,
        default: u64,
    ) -> Result<(), Stop> {
        if op.request.number("raw", 0)? == 0 {
            return Ok(());
        }
        let size = size(op.request, "raw_size", default, ARENA)?;
        answer.put_bytes("raw", &self.bytes(op, 0, size)?);
        Ok(())
    }
}

/// A number of bytes that an answer will hold.
pub(crate) fn size(
    request: Request<'_>,
    member: &str,
    default: u64,
    limit: u64,
) -> Result<usize, Stop> {
    match usize::try_from(request.number(member, default)?) {
        Ok(size) if size as u64 <= limit => Ok(size),
        _ => Ok(request.bad(member, format!("at most {limit} bytes"))?),
    }
}

/// A structure of `N` bytes: so many 32-bit members, then 64-bit ones, little-endian; the rest is 0.
pub(crate) fn structure<const N: usize>(words: &[u32], longs: &[u64]) -> [u8; N] {
    let mut bytes = [0; N];
    let (head, body) = bytes.split_at_mut(N.min(words.len() * 4));
    for (to, word) in head.chunks_exact_mut(4).zip(words) {
        to.copy_from_slice(&word.to_le_bytes());
    }
    for (to, long) in body.chunks_exact_mut(8).zip(longs) {
        to.copy_from_slice(&long.to_le_bytes());
    }
    bytes
}

/// Numbers as the little-endian words of a structure.
pub(crate) fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}
