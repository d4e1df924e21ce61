//! What the process does to its own memory.

use uapi::Errno;

use super::{Answer, Done, Failure, Op, Stop, arg};
use crate::process::{Access, Kind, Place};

/// The longest name of a memory.
const MAX_NAME: usize = 23;
/// Bytes that one `mem_read` may ask for.
const MAX_READ: u64 = 1 << 20;

pub(super) fn mem(op: &mut Op<'_>) -> Done {
    let name = op.request.text_or("name", "buf")?;
    if name.is_empty() || name.len() > MAX_NAME || name.contains(['+', '-']) {
        return Ok(op.request.bad("name", "a name of at most 23 characters")?);
    }
    let kind = op.request.text_or("kind", "anon")?;
    let access = Access::named(&op.request.text_or("prot", "rw")?);
    let size = op.request.number("size", 0x40_0000)?;
    let align = op.request.number("align", 0x20_0000)?;
    let file_size = op.request.number("file_size", size)?;
    if kind == "shared" && file_size > i64::MAX.cast_unsigned() {
        return Ok(op.request.bad("file_size", "a size below 2^63")?);
    }
    if !op.world.add_memory(&name) {
        return Ok(op.request.bad("name", "at most 31 memories")?);
    }
    let room = size.wrapping_add(align.wrapping_mul(2));
    let process = &mut op.world.process;
    let p = match process.reserve(room) {
        Ok(p) => p,
        Err(errno) => return Ok(refused(errno)),
    };
    // An aligned block with inaccessible room on both sides.
    let two = align.wrapping_mul(2);
    let mut at = p.wrapping_add(two).wrapping_sub(1) & !align.wrapping_sub(1);
    if at.wrapping_add(size) > p.wrapping_add(size).wrapping_add(two).wrapping_sub(0x1000) {
        at = at.wrapping_sub(align);
    }
    op.world.set_memory(&name, at);
    let process = &mut op.world.process;
    let result = match &*kind {
        "hole" => {
            let _ = process.unmap_memory(p, room);
            Ok(())
        }
        "anon" => process.map_memory(at, size, access, Kind::Anonymous),
        "shared" => process.map_memory(at, size, access, Kind::Shared(file_size)),
        "region" => {
            let offset = op.request.number("file_offset", 0)?;
            let fd = op.device()?;
            let done = op.world.mmap_region(at, size, access, fd, offset);
            return Ok(Answer::done(done));
        }
        _ => return Ok(op.request.bad("kind", "anon, shared, hole or region")?),
    };
    Ok(result.map_or_else(refused, |()| Answer::ok()))
}

/// A memory call that failed.
fn refused(errno: Errno) -> Answer {
    let why = match errno {
        Errno::ENOMEM => "there is no room for that much memory, or a hole in the range",
        _ => "the address or the size is no multiple of a page, or 0",
    };
    Answer::done::<()>(Err(Failure::new(errno, why)))
}

pub(super) fn unmap(op: &mut Op<'_>) -> Done {
    let at = op.address("at", "buf")?;
    let size = op.request.number("size", 0x1000)?;
    let done = op.world.process.unmap_memory(at, size);
    Ok(done.map_or_else(refused, |()| Answer::ok()))
}

pub(super) fn protect(op: &mut Op<'_>) -> Done {
    let access = Access::named(&op.request.text_or("prot", "rw")?);
    let at = op.address("at", "buf")?;
    let size = op.request.number("size", 0x1000)?;
    let done = op.world.process.protect_memory(at, size, access);
    Ok(done.map_or_else(refused, |()| Answer::ok()))
}

pub(super) fn fill(op: &mut Op<'_>) -> Done {
    let mut at = op.address("at", "buf")?;
    let byte = op.request.number("byte", 0)?.to_le_bytes()[0];
    let mut left = op.request.number("size", 0x1000)?;
    op.world.note_decoding();
    while left > 0 {
        let n = match op.world.process.look(at, true)? {
            Place::Memory(room) => {
                let n = room.min(left);
                op.world.process.set(at, n, byte);
                n
            }
            Place::Region(device, position, _) => {
                op.world.touch_region(device, position, &mut [byte], true)?;
                1
            }
        };
        at = at.wrapping_add(n);
        left -= n;
    }
    Ok(Answer::ok())
}

pub(super) fn read(op: &mut Op<'_>) -> Done {
    let mut at = op.address("at", "buf")?;
    let mut data = vec![0; arg::size(op.request, "size", 16, MAX_READ)?];
    op.world.note_decoding();
    let mut rest = &mut data[..];
    while !rest.is_empty() {
        let room = match op.world.process.look(at, false)? {
            Place::Memory(room) => room,
            Place::Region(..) => 1,
        };
        let n = usize::try_from(room).unwrap_or(usize::MAX).min(rest.len());
        let (now, later) = rest.split_at_mut(n);
        match op.world.process.look(at, false)? {
            Place::Memory(_) => op.world.process.load(at, now).map_err(Stop::from)?,
            Place::Region(device, position, _) => {
                op.world.touch_region(device, position, now, false)?;
            }
        }
        rest = later;
        at = at.wrapping_add(n as u64);
    }
    let mut answer = Answer::ok();
    answer.put_bytes("data", &data);
    Ok(answer)
}
