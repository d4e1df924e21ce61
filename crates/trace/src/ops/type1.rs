//! Maps, unmaps, dirty pages and information of a container.

use uapi::ioctl;

use super::arg::{structure, words};
use super::{Answer, Arg, Done, Op, Stop, caps};
use crate::names::{DIRTY_FLAGS, map_flags, unmap_flags};
use crate::process::BITMAP;
use crate::request::parse_number;

const GET_DIRTY_BITMAP: u32 = 1;
const GET_BITMAP: u32 = 4;
/// Bytes of a bitmap that an answer shows.
const SHOWN: usize = 4096;

pub(super) fn map(op: &mut Op<'_>) -> Done {
    let arg = Arg::new(op)?;
    let flags = op.request.flags("flags", map_flags(op.world.abi()), 3)?;
    let argsz = op.request.number32("argsz", 32)?;
    let vaddr = op.address("vaddr", "0")?;
    let (iova, size) = (op.request.number("iova", 0)?, op.request.number("size", 0)?);
    arg.put(op, 0, &structure::<32>(&[argsz, flags], &[vaddr, iova, size]))?;
    let fd = op.container()?;
    op.world.note_decoding();
    let result = op.request_with(fd, ioctl::VFIO_IOMMU_MAP_DMA, arg);
    let mut answer = Answer::of(&result);
    if result.is_ok() && op.request.number("raw", 0)? != 0 {
        answer.put("argsz", arg.u32(op, 0)?).put_hex("flags", arg.u32(op, 4)?);
        answer.put_hex("iova", arg.u64(op, 16)?).put_hex("size", arg.u64(op, 24)?);
    }
    Ok(answer)
}

pub(super) fn unmap(op: &mut Op<'_>) -> Done {
    let arg = Arg::new(op)?;
    let flags = op.request.flags("flags", unmap_flags(op.world.abi()), 0)?;
    let with_bitmap = op.request.has("bitmap_size");
    let argsz = op.request.number32("argsz", if with_bitmap { 48 } else { 24 })?;
    let (iova, size) = (op.request.number("iova", 0)?, op.request.number("size", 0)?);
    let [pgsize, bits, data] = bitmap(op, with_bitmap)?;
    let bytes: [u8; 48] = structure(&[argsz, flags], &[iova, size, pgsize, bits, data]);
    let whole = with_bitmap || flags & GET_DIRTY_BITMAP != 0;
    arg.put(op, 0, if whole { &bytes } else { &bytes[..24] })?;
    let fd = op.container()?;
    let result = op.request_with(fd, ioctl::VFIO_IOMMU_UNMAP_DMA, arg);
    let mut answer = Answer::of(&result);
    if result.is_ok() {
        answer.put_hex("size", arg.u64(op, 16)?);
    }
    if !op.request.has("arg") {
        let now = (arg.u32(op, 0)?, arg.u32(op, 4)?, arg.u64(op, 8)?, arg.u64(op, 16)?);
        let changed = (now.0, now.1, now.2) != (argsz, flags, iova);
        if changed || (result.is_err() && now.3 != size) {
            answer.put("argsz", now.0).put_hex("flags", now.1);
            answer.put_hex("iova", now.2).put_hex("size_after", now.3);
        }
    }
    if with_bitmap && result.is_ok() {
        bitmap_out(op, &mut answer)?;
    }
    Ok(answer)
}

pub(super) fn dirty(op: &mut Op<'_>) -> Done {
    let arg = Arg::new(op)?;
    let flags = op.request.flags("flags", DIRTY_FLAGS, 0)?;
    let with_bitmap = op.request.has("bitmap_size");
    let argsz = op.request.number32("argsz", if flags & GET_BITMAP != 0 { 48 } else { 8 })?;
    let (iova, size) = (op.request.number("iova", 0)?, op.request.number("size", 0)?);
    let [pgsize, bits, data] = bitmap(op, with_bitmap)?;
    let bytes: [u8; 48] = structure(&[argsz, flags], &[iova, size, pgsize, bits, data]);
    arg.put(op, 0, &bytes)?;
    let fd = op.container()?;
    let result = op.request_with(fd, ioctl::VFIO_IOMMU_DIRTY_PAGES, arg);
    let mut answer = Answer::of(&result);
    if with_bitmap && result.is_ok() {
        bitmap_out(op, &mut answer)?;
    }
    Ok(answer)
}

/// The bitmap's structure (page size, size, address), its buffer filled.
fn bitmap(op: &mut Op<'_>, with_bitmap: bool) -> Result<[u64; 3], Stop> {
    let pgsize = op.request.number("bitmap_pgsize", 4096)?;
    let size = op.request.number("bitmap_size", 0)?;
    if !with_bitmap {
        return Ok([pgsize, size, 0]);
    }
    let at = op.world.process.bitmap();
    let byte = op.request.number("bitmap_fill", 0)?.to_le_bytes()[0];
    op.world.process.set_buffer(at, BITMAP, byte)?;
    let data = match &*op.request.text_or("bitmap_data", "ok")? {
        "ok" => at,
        "null" => 0,
        other => match parse_number(other) {
            Some(address) => address,
            None => return Ok(op.request.bad("bitmap_data", "ok, null or an address")?),
        },
    };
    Ok([pgsize, size, data])
}

/// The bitmap's buffer afterwards: up to 64 bytes, and on to the last that is not zero.
fn bitmap_out(op: &mut Op<'_>, answer: &mut Answer) -> Result<(), Stop> {
    let size = usize::try_from(op.request.number("bitmap_size", 0)?.min(BITMAP)).unwrap_or(0);
    let mut bytes = vec![0; size];
    op.world.process.load(op.world.process.bitmap(), &mut bytes)?;
    let last = bytes.iter().rposition(|b| *b != 0).map_or(0, |last| last + 1);
    let keep = size.min(last.max(64)).min(SHOWN);
    answer.put_bytes("bitmap", &bytes[..keep]);
    Ok(())
}

pub(super) fn get_info(op: &mut Op<'_>) -> Done {
    let arg = Arg::new(op)?;
    let argsz = op.request.number32("argsz", 0x1000)?;
    arg.put(op, 0, &words(&[argsz, op.request.number32("in_flags", 0)?]))?;
    let fd = op.container()?;
    let result = op.request_with(fd, ioctl::VFIO_IOMMU_GET_INFO, arg);
    let mut answer = Answer::of(&result);
    if result.is_ok() {
        let flags = arg.u32(op, 4)?;
        answer.put("argsz", arg.u32(op, 0)?).put_hex("flags", flags);
        answer.put_hex("pgsizes", arg.u64(op, 8)?);
        if argsz >= 20 {
            let offset = arg.u32(op, 16)?;
            answer.put("cap_offset", offset);
            if flags & 2 != 0 && offset != 0 {
                let caps = caps::read(op, arg, offset, argsz.min(0x1000), caps::Of::Iommu)?;
                answer.put("caps", caps);
            }
        }
    }
    arg.raw(op, &mut answer, 160)?;
    Ok(answer)
}
