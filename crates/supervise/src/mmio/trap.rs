//! One trapped access: from a SIGBUS to the device and back.
//!
//! The signal is ours if the kernel raised it for an address in a mapping of a device's file, asked
//! anew each time. Other memory that the instruction touches is the client's; pages of a device's
//! file before its end are too.

use std::io;

use libc::BUS_ADRERR;

use super::decode::{self, LONGEST};
use super::emulate::{self, Memory, Stop};
use super::regs::Regs;
use super::vector::{Layout, Vectors};
use super::{Bars, Unsupported};
use crate::maps::Space;
use crate::sys::procmap::Mapping;
use crate::sys::ptrace;

/// `__USER_CS`: the selector of 64-bit code.
const LONG_MODE: u64 = 0x33;
const PAGE: u64 = 4096;

/// What becomes of a SIGBUS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The access is done; no signal.
    Done,
    /// The signal is the client's.
    Pass,
    /// The same, because of the instruction.
    Unsupported(Unsupported),
}

/// Whether a signal can be ours, and where it happened.
pub(super) fn fault_address(tid: i32) -> io::Result<Option<u64>> {
    let signal = ptrace::signal(tid)?;
    Ok((signal.code == BUS_ADRERR).then_some(signal.address))
}

/// Answer a fault of a stopped thread.
pub(super) fn answer(
    tid: i32,
    address: u64,
    space: &mut Space,
    bars: &dyn Bars,
) -> io::Result<Outcome> {
    let Some(mapping) = space.find(address)? else { return Ok(Outcome::Pass) };
    let Some(key) = bars.find(mapping.dev, mapping.ino) else { return Ok(Outcome::Pass) };
    let mut user = ptrace::registers(tid)?;
    let before = Regs::from_user(&user);
    let mut bytes = [0; LONGEST];
    let len = ptrace::read_memory(tid, before.rip, &mut bytes)?;
    let bytes = bytes.get(..len).unwrap_or_default();
    let unsupported = |bytes: &[u8]| {
        let bytes = bytes.to_vec();
        Ok(Outcome::Unsupported(Unsupported { tid, rip: before.rip, address, bytes }))
    };
    if user.cs != LONG_MODE {
        return unsupported(bytes);
    }
    let decoded = match decode::decode(bytes, before.rip) {
        Ok(decoded) => decoded,
        Err(refused) => return unsupported(refused),
    };

    let mut vectors = match decoded.needs_vectors() {
        true => Some(Vectors::new(ptrace::xstate(tid)?, Layout::native())),
        false => None,
    };
    let known = [(mapping, Some(key)); 2];
    let mut memory = ClientMemory { tid, space, bars, fault: address / PAGE, known };
    let mut after = before;
    let result = emulate::execute(&decoded, &mut after, vectors.as_mut(), &mut memory);
    if let Some(vectors) = vectors.as_mut().filter(|vectors| vectors.changed) {
        ptrace::set_xstate(tid, &mut vectors.area)?;
    }
    if after != before {
        after.to_user(&mut user);
        ptrace::set_registers(tid, &user)?;
    }
    match result {
        Ok(()) => Ok(Outcome::Done),
        Err(Stop::Fault) => Ok(Outcome::Pass),
        Err(Stop::Unsupported) => {
            unsupported(bytes.get(..decoded.instruction.len()).unwrap_or(bytes))
        }
    }
}

/// Memory as one stopped thread sees it.
struct ClientMemory<'a> {
    tid: i32,
    space: &'a mut Space,
    bars: &'a dyn Bars,
    /// The page that is known to trap.
    fault: u64,
    /// The last mappings that were asked for, for this instruction, and whose they are.
    known: [(Mapping, Option<u32>); 2],
}

impl ClientMemory<'_> {
    fn mapping(&mut self, address: u64) -> Result<(Mapping, Option<u32>), Stop> {
        let holds = |(mapping, _): &&(Mapping, _)| (mapping.start..mapping.end).contains(&address);
        if let Some(known) = self.known.iter().find(holds) {
            return Ok(*known);
        }
        let mapping = self.space.find(address).map_err(|_| Stop::Fault)?.ok_or(Stop::Fault)?;
        let found = (mapping, self.bars.find(mapping.dev, mapping.ino));
        let [_, last] = self.known;
        self.known = [last, found];
        Ok(found)
    }

    /// The device that answers for an address, after `plain` was tried on what may be memory.
    /// None: `plain` did it.
    fn device(
        &mut self,
        address: u64,
        plain: impl FnOnce(i32) -> io::Result<bool>,
    ) -> Result<Option<(u32, u64)>, Stop> {
        let (mapping, key) = self.mapping(address)?;
        if address / PAGE != self.fault && matches!(plain(self.tid), Ok(true)) {
            return Ok(None);
        }
        let key = key.ok_or(Stop::Fault)?;
        Ok(Some((key, address.wrapping_sub(mapping.start).wrapping_add(mapping.offset))))
    }
}

/// The length of the naturally aligned piece that an access of `len` bytes begins with.
fn piece(address: u64, len: usize) -> usize {
    [8, 4, 2].into_iter().find(|n| *n <= len && address.is_multiple_of(*n as u64)).unwrap_or(1)
}

impl Memory for ClientMemory<'_> {
    fn load(&mut self, mut address: u64, mut data: &mut [u8]) -> Result<(), Stop> {
        while !data.is_empty() {
            let len = piece(address, data.len());
            let (part, rest) = data.split_at_mut(len);
            let plain = |tid| Ok(ptrace::read_memory(tid, address, part)? == len);
            if let Some((key, offset)) = self.device(address, plain)? {
                self.bars.load(key, offset, part).map_err(|_| Stop::Fault)?;
            }
            address = address.wrapping_add(len as u64);
            data = rest;
        }
        Ok(())
    }

    fn store(&mut self, mut address: u64, mut data: &[u8]) -> Result<(), Stop> {
        self.check_store(address, data.len())?;
        while !data.is_empty() {
            let len = piece(address, data.len());
            let (part, rest) = data.split_at(len);
            let plain = |tid| Ok(ptrace::write_memory(tid, address, part)? == len);
            if let Some((key, offset)) = self.device(address, plain)? {
                self.bars.store(self.tid, key, offset, part).map_err(|_| Stop::Fault)?;
            }
            address = address.wrapping_add(len as u64);
            data = rest;
        }
        Ok(())
    }

    fn check_store(&mut self, address: u64, len: usize) -> Result<(), Stop> {
        let last = address.checked_add(len as u64 - 1).ok_or(Stop::Fault)?;
        for at in [last, address] {
            if !self.mapping(at)?.0.writable {
                return Err(Stop::Fault);
            }
        }
        Ok(())
    }
}
