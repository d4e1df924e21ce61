//! Physical region pages: where a command's data lies (NVM Express 1.4, 4.3).
//!
//! What comes out is a list of segments in which neighbouring pages have become one, since each
//! segment is one transfer on the bus.

use alloc::vec::Vec;

use pci::DmaBus;

use super::command::u64_at;
use super::status::Status;

/// Bytes at a bus address, contiguous.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) addr: u64,
    pub(super) len: usize,
}

/// Entries of a list that are read at once. Lists of the longest command have no more with pages
/// of 4 KiB.
const BATCH: usize = 128;

/// Finds the segments of `len` bytes, not 0, with pages of `page` bytes (a power of two, 4096 at
/// least). Reads at most a list entry per page, and one per page of the list.
pub(super) fn segments(
    bus: &mut dyn DmaBus,
    (prp1, prp2): (u64, u64),
    len: usize,
    page: u64,
    out: &mut Vec<Segment>,
) -> Result<(), Status> {
    out.clear();
    if prp1 & 3 != 0 {
        return Err(Status::INVALID_PRP_OFFSET);
    }
    let mask = page.wrapping_sub(1);
    let first = len.min(page.saturating_sub(prp1 & mask) as usize);
    push(out, prp1, first);
    let mut left = len.saturating_sub(first);
    if left == 0 {
        return Ok(());
    }
    if left as u64 <= page {
        return data(out, prp2, &mut left, mask);
    }
    // PRP2 points to a list; where it does not fit its page, the last entry is the next list.
    if prp2 & 7 != 0 {
        return Err(Status::INVALID_PRP_OFFSET);
    }
    let mut list = prp2;
    while left != 0 {
        let room = (page.saturating_sub(list & mask) >> 3) as usize;
        let pages = (left as u64).div_ceil(page) as usize;
        let chained = pages > room;
        let mut bytes = [0; BATCH.saturating_mul(8)];
        let (mut done, entries) = (0_usize, pages.min(room));
        while done < entries {
            let now = entries.saturating_sub(done).min(BATCH);
            let Some(part) = bytes.get_mut(..now.saturating_mul(8)) else { break };
            let at = list.wrapping_add((done as u64).wrapping_mul(8));
            bus.read(at, part).map_err(|_| Status::DATA_TRANSFER_ERROR)?;
            for i in 0..now {
                let entry = u64_at(part, i.saturating_mul(8));
                done = done.saturating_add(1);
                if chained && done == entries {
                    if entry & mask != 0 {
                        return Err(Status::INVALID_PRP_OFFSET);
                    }
                    list = entry;
                } else {
                    data(out, entry, &mut left, mask)?;
                }
            }
        }
    }
    Ok(())
}

/// A page of data behind the first: from its start on.
fn data(out: &mut Vec<Segment>, addr: u64, left: &mut usize, mask: u64) -> Result<(), Status> {
    if addr & mask != 0 {
        return Err(Status::INVALID_PRP_OFFSET);
    }
    let now = (*left).min(mask.saturating_add(1) as usize);
    push(out, addr, now);
    *left = left.saturating_sub(now);
    Ok(())
}

fn push(out: &mut Vec<Segment>, addr: u64, len: usize) {
    if let Some(last) = out.last_mut()
        && last.addr.checked_add(last.len as u64) == Some(addr)
    {
        last.len = last.len.saturating_add(len);
    } else {
        out.push(Segment { addr, len });
    }
}
