//! Arguments: copied once, whole, before anything is believed.

use alloc::vec;
use alloc::vec::Vec;

use zerocopy::{FromBytes, IntoBytes};

use crate::{BadAddress, Caller};

/// Copies the first `size` bytes of a structure at `addr`; the rest of it is zero.
pub(crate) fn read<T: FromBytes + IntoBytes>(
    caller: &mut dyn Caller,
    addr: u64,
    size: usize,
) -> Result<T, BadAddress> {
    let mut value = T::new_zeroed();
    let bytes = value.as_mut_bytes();
    let size = size.min(bytes.len());
    if let Some(bytes) = bytes.get_mut(..size) {
        caller.copy_in(addr, bytes)?;
    }
    Ok(value)
}

/// The part of an argument that follows its first structure is not accessible.
pub(crate) struct BadTail;

/// The memory for an answer is not accessible.
pub(crate) struct NotWritten;

/// Copies the structure that follows another of `head` bytes at `addr`.
pub(crate) fn read_tail<T: FromBytes + IntoBytes>(
    caller: &mut dyn Caller,
    addr: u64,
    head: u32,
) -> Result<T, BadTail> {
    read_all(caller, addr.wrapping_add(head.into())).map_err(|_| BadTail)
}

/// Copies a whole structure at `addr`.
pub(crate) fn read_all<T: FromBytes + IntoBytes>(
    caller: &mut dyn Caller,
    addr: u64,
) -> Result<T, BadAddress> {
    read(caller, addr, size_of::<T>())
}

/// Writes the first `size` bytes of a structure to `addr`.
pub(crate) fn write<T: IntoBytes + zerocopy::Immutable>(
    caller: &mut dyn Caller,
    addr: u64,
    value: &T,
    size: usize,
) -> Result<(), NotWritten> {
    let bytes = value.as_bytes();
    write_bytes(caller, addr, bytes.get(..size).unwrap_or(bytes))
}

/// Writes bytes of an answer to `addr`.
pub(crate) fn write_bytes(
    caller: &mut dyn Caller,
    addr: u64,
    bytes: &[u8],
) -> Result<(), NotWritten> {
    caller.copy_out(addr, bytes).map_err(|_| NotWritten)
}

/// A string of fewer than `max` bytes and its NUL.
pub(crate) enum Text {
    /// Without the NUL.
    Whole(Vec<u8>),
    /// No NUL in the first `max` bytes.
    TooLong,
}

/// Copies a NUL-terminated string at `addr`, without touching memory beyond the NUL's piece.
pub(crate) fn read_string(
    caller: &mut dyn Caller,
    addr: u64,
    max: usize,
) -> Result<Text, BadAddress> {
    /// Pieces are aligned, so that none reaches into a page that the string does not.
    const PIECE: u64 = 64;
    let mut text = Vec::new();
    let mut at = addr;
    while text.len() < max {
        let room = PIECE.wrapping_sub(at & PIECE.wrapping_sub(1));
        let size = usize::try_from(room).unwrap_or(1).min(max.saturating_sub(text.len()));
        let mut piece = vec![0; size];
        if caller.copy_in(at, &mut piece).is_err() {
            // Memory may end inside the piece (never at a real page boundary): byte by byte.
            piece.truncate(1);
            caller.copy_in(at, &mut piece)?;
        }
        let end = piece.iter().position(|b| *b == 0);
        text.extend_from_slice(piece.get(..end.unwrap_or(piece.len())).unwrap_or_default());
        if end.is_some() {
            return Ok(Text::Whole(text));
        }
        at = at.wrapping_add(u64::try_from(piece.len()).unwrap_or(1));
    }
    Ok(Text::TooLong)
}
