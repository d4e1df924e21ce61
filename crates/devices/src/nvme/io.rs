//! I/O commands: the NVM command set (NVM Express 1.4, chapter 6).

use alloc::vec::Vec;

use pci::DmaBus;

use super::command::{Command, Completion, nvm, u32_at, u64_at};
use super::identify::MDTS;
use super::prp::{self, Segment};
use super::stats::NvmeStats;
use super::status::Status;
use super::{Namespace, Nvme};

/// Bytes of a transfer at most.
pub(super) const MAX_TRANSFER: u64 = 4096 << MDTS;

/// Bytes of a segment from which on data goes without a buffer.
const LEAST_MAPPED: usize = 16 << 10;

/// All namespaces.
const BROADCAST: u32 = u32::MAX;

/// A range of Dataset Management (figure 367).
const RANGE_SIZE: usize = 16;

impl Nvme {
    /// Does a command; `moved` counts bytes.
    pub(super) fn io(
        &mut self,
        command: &Command,
        moved: &mut u64,
        bus: &mut dyn DmaBus,
    ) -> Result<Completion, Status> {
        if command.has_odd_flags() {
            return Err(Status::INVALID_FIELD);
        }
        match command.opcode {
            nvm::READ => self.read(command, moved, bus)?,
            nvm::WRITE => self.write(command, moved, bus)?,
            nvm::FLUSH => self.flush(command.nsid)?,
            nvm::COMPARE => self.compare(command, moved, bus)?,
            nvm::WRITE_ZEROES => self.write_zeroes(command)?,
            nvm::DATASET_MANAGEMENT => self.dataset_management(command, bus)?,
            _ => return Err(Status::INVALID_OPCODE),
        }
        Ok(Completion::ok(0))
    }

    pub(super) fn namespace(&mut self, nsid: u32) -> Result<&mut Namespace, Status> {
        find(&mut self.namespaces, nsid)
    }

    /// Where in its namespace `blocks` from `slba` on lie: offset and length in bytes.
    fn span(&mut self, nsid: u32, slba: u64, blocks: u64) -> Result<(u64, u64), Status> {
        let shift = self.block_size.shift();
        let all = self.namespace(nsid)?.blocks;
        let end = slba.checked_add(blocks).filter(|end| *end <= all);
        end.ok_or(Status::LBA_OUT_OF_RANGE)?;
        // No more than the backend's size.
        Ok((slba << shift, blocks << shift))
    }

    /// The span of a command that transfers its blocks; finds their place in memory.
    fn transfer(
        &mut self,
        command: &Command,
        bus: &mut dyn DmaBus,
    ) -> Result<(u64, usize), Status> {
        self.namespace(command.nsid)?;
        if command.blocks() << self.block_size.shift() > MAX_TRANSFER {
            return Err(Status::INVALID_FIELD);
        }
        let (offset, len) = self.span(command.nsid, command.slba(), command.blocks())?;
        self.locate(command, len as usize, bus)?;
        Ok((offset, len as usize))
    }

    /// Finds the place of a command's data in memory.
    fn locate(
        &mut self,
        command: &Command,
        len: usize,
        bus: &mut dyn DmaBus,
    ) -> Result<(), Status> {
        let page = self.regs.cc().page_size();
        prp::segments(bus, (command.prp1, command.prp2), len, page, &mut self.segments)
    }

    /// Sends a structure to where a command wants it.
    pub(super) fn send(
        &mut self,
        command: &Command,
        bytes: &[u8],
        bus: &mut dyn DmaBus,
    ) -> Result<(), Status> {
        self.locate(command, bytes.len(), bus)?;
        scatter(self.segments.iter().copied(), bytes, bus)
    }

    /// Read (6.9).
    fn read(
        &mut self,
        command: &Command,
        moved: &mut u64,
        bus: &mut dyn DmaBus,
    ) -> Result<(), Status> {
        let (offset, len) = self.transfer(command, bus)?;
        NvmeStats::add(moved, len as u64);
        let backend = &mut find(&mut self.namespaces, command.nsid)?.backend;
        let done = backend.mapped().map_or(0, |source| {
            directly(&self.segments, 1, |addr, done, len| {
                bus.write_mapped(addr, source, offset.saturating_add(done), len)
            })
        });
        if done < len {
            let data = self.data.first(len.saturating_sub(done));
            let offset = offset.saturating_add(done as u64);
            backend.read(offset, data).map_err(|_| Status::UNRECOVERED_READ)?;
            scatter(behind(&self.segments, done), data, bus)?;
        }
        NvmeStats::add(&mut self.stats.bytes_read, len as u64);
        NvmeStats::add(&mut self.stats.reads, 1);
        Ok(())
    }

    /// Write (6.15).
    fn write(
        &mut self,
        command: &Command,
        moved: &mut u64,
        bus: &mut dyn DmaBus,
    ) -> Result<(), Status> {
        let durable = command.fua() || !self.features.caches_writes();
        self.writable(command.nsid)?;
        let (offset, len) = self.transfer(command, bus)?;
        NvmeStats::add(moved, len as u64);
        // We may be killed at any time: a block that lies in one page is written as a whole or not
        // (AWUPF, 6.4).
        let block = 1 << self.block_size.shift();
        let backend = &mut find(&mut self.namespaces, command.nsid)?.backend;
        let done = backend.mapped().map_or(0, |target| {
            directly(&self.segments, block, |addr, done, len| {
                bus.read_mapped(addr, target, offset.saturating_add(done), len)
            })
        });
        if done < len {
            let data = self.data.first(len.saturating_sub(done));
            gather(behind(&self.segments, done), data, bus)?;
            let offset = offset.saturating_add(done as u64);
            backend.write(offset, data).map_err(|_| Status::WRITE_FAULT)?;
        }
        if durable {
            backend.flush().map_err(|_| Status::WRITE_FAULT)?;
        }
        NvmeStats::add(&mut self.stats.bytes_written, len as u64);
        NvmeStats::add(&mut self.stats.writes, 1);
        Ok(())
    }

    /// Compare (6.6): what is stored and what is in memory, a piece at a time.
    fn compare(
        &mut self,
        command: &Command,
        moved: &mut u64,
        bus: &mut dyn DmaBus,
    ) -> Result<(), Status> {
        let (offset, len) = self.transfer(command, bus)?;
        NvmeStats::add(moved, len as u64);
        let data = self.data.first(len);
        let backend = &mut find(&mut self.namespaces, command.nsid)?.backend;
        backend.read(offset, data).map_err(|_| Status::UNRECOVERED_READ)?;
        let mut stored = &*data;
        let mut piece = [0; 4096];
        for Segment { addr, len } in &self.segments {
            let (mut addr, mut left) = (*addr, *len);
            while left != 0 {
                let now = left.min(piece.len());
                let theirs = piece.get_mut(..now).ok_or(Status::INTERNAL_ERROR)?;
                bus.read(addr, theirs).map_err(|_| Status::DATA_TRANSFER_ERROR)?;
                let (ours, rest) = stored.split_at_checked(now).ok_or(Status::INTERNAL_ERROR)?;
                if ours != theirs {
                    return Err(Status::COMPARE_FAILURE);
                }
                stored = rest;
                addr = addr.wrapping_add(now as u64);
                left = left.saturating_sub(now);
            }
        }
        NvmeStats::add(&mut self.stats.bytes_read, len as u64);
        NvmeStats::add(&mut self.stats.reads, 1);
        Ok(())
    }

    /// Flush (6.8): one namespace, or all.
    fn flush(&mut self, nsid: u32) -> Result<(), Status> {
        let one = if nsid == BROADCAST { None } else { Some(self.namespace(nsid)?) };
        match one {
            Some(namespace) => namespace.backend.flush().map_err(|_| Status::WRITE_FAULT)?,
            None => {
                for namespace in &mut self.namespaces {
                    namespace.backend.flush().map_err(|_| Status::WRITE_FAULT)?;
                }
            }
        }
        NvmeStats::add(&mut self.stats.others, 1);
        Ok(())
    }

    /// Write Zeroes (6.16); deallocating is left to the backend.
    fn write_zeroes(&mut self, command: &Command) -> Result<(), Status> {
        let durable = command.fua() || !self.features.caches_writes();
        self.writable(command.nsid)?;
        let (offset, len) = self.span(command.nsid, command.slba(), command.blocks())?;
        let backend = &mut self.namespace(command.nsid)?.backend;
        backend.write_zeroes(offset, len).map_err(|_| Status::WRITE_FAULT)?;
        if durable {
            backend.flush().map_err(|_| Status::WRITE_FAULT)?;
        }
        NvmeStats::add(&mut self.stats.others, 1);
        Ok(())
    }

    /// Dataset Management (6.7): deallocates up to 256 ranges, other hints are taken note of.
    fn dataset_management(
        &mut self,
        command: &Command,
        bus: &mut dyn DmaBus,
    ) -> Result<(), Status> {
        let deallocate = command.cdw11 & 4 != 0;
        self.namespace(command.nsid)?;
        if deallocate {
            self.writable(command.nsid)?;
        }
        let count = (command.cdw10 & 0xff).saturating_add(1) as usize;
        let mut bytes = [0; 256_usize.saturating_mul(RANGE_SIZE)];
        let ranges = bytes.get_mut(..count.saturating_mul(RANGE_SIZE));
        let ranges = ranges.ok_or(Status::INTERNAL_ERROR)?;
        self.locate(command, ranges.len(), bus)?;
        gather(self.segments.iter().copied(), ranges, bus)?;
        let ranges = ranges.as_chunks::<RANGE_SIZE>().0;
        let spans = ranges
            .iter()
            .map(|range| self.span(command.nsid, u64_at(range, 8), u64::from(u32_at(range, 4))));
        let spans: Vec<(u64, u64)> = spans.collect::<Result<_, _>>()?;
        if deallocate {
            let backend = &mut self.namespace(command.nsid)?.backend;
            for (offset, len) in spans {
                backend.discard(offset, len).map_err(|_| Status::WRITE_FAULT)?;
            }
        }
        NvmeStats::add(&mut self.stats.others, 1);
        Ok(())
    }

    fn writable(&mut self, nsid: u32) -> Result<(), Status> {
        if self.namespace(nsid)?.backend.read_only() {
            return Err(Status::WRITE_TO_READ_ONLY);
        }
        Ok(())
    }
}

fn find(namespaces: &mut [Namespace], nsid: u32) -> Result<&mut Namespace, Status> {
    let index = nsid.checked_sub(1).ok_or(Status::INVALID_NAMESPACE)?;
    namespaces.get_mut(index as usize).ok_or(Status::INVALID_NAMESPACE)
}

/// Moves data between memory and a backend without a buffer, as far as `transfer` can and as that
/// pays: how many bytes. It takes an address, how much was moved so far, and a length, and answers how
/// much of that it moved. Segments are of whole blocks of `block` bytes, a power of two.
fn directly(
    segments: &[Segment],
    block: u64,
    mut transfer: impl FnMut(u64, u64, usize) -> usize,
) -> usize {
    let mut done = 0_usize;
    for Segment { addr, len } in segments {
        if *len < LEAST_MAPPED || (addr | *len as u64) & block.wrapping_sub(1) != 0 {
            break;
        }
        let now = transfer(*addr, done as u64, *len);
        done = done.saturating_add(now);
        if now < *len {
            break;
        }
    }
    done
}

/// What is left of segments behind so many bytes.
fn behind(segments: &[Segment], mut skipped: usize) -> impl Iterator<Item = Segment> {
    segments.iter().filter_map(move |Segment { addr, len }| {
        let now = skipped.min(*len);
        skipped = skipped.saturating_sub(now);
        let left = len.saturating_sub(now);
        (left != 0).then(|| Segment { addr: addr.wrapping_add(now as u64), len: left })
    })
}

/// Writes data to memory, a transfer for each segment.
fn scatter(
    segments: impl Iterator<Item = Segment>,
    data: &[u8],
    bus: &mut dyn DmaBus,
) -> Result<(), Status> {
    let mut rest = data;
    for Segment { addr, len } in segments {
        let (part, after) = rest.split_at_checked(len).ok_or(Status::INTERNAL_ERROR)?;
        bus.write(addr, part).map_err(|_| Status::DATA_TRANSFER_ERROR)?;
        rest = after;
    }
    Ok(())
}

/// Reads data from memory, a transfer for each segment.
fn gather(
    segments: impl Iterator<Item = Segment>,
    data: &mut [u8],
    bus: &mut dyn DmaBus,
) -> Result<(), Status> {
    let mut rest = data;
    for Segment { addr, len } in segments {
        let (part, after) = rest.split_at_mut_checked(len).ok_or(Status::INTERNAL_ERROR)?;
        bus.read(addr, part).map_err(|_| Status::DATA_TRANSFER_ERROR)?;
        rest = after;
    }
    Ok(())
}
