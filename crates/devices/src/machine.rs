//! For tests: the machine around a device, and numbers that look random.

use alloc::vec;
use alloc::vec::Vec;
use core::any::Any;
use core::cell::RefCell;

use pci::{Aborted, DmaBus};

/// Where memory begins.
pub(crate) const BASE: u64 = 0x10_0000;
/// Where interrupts are written.
pub(crate) const DOORBELL: u64 = 0xfee0_0000;

/// Memory, a doorbell for interrupts, and books on both.
pub(crate) struct Machine {
    pub(crate) bytes: Vec<u8>,
    pub(crate) interrupts: Vec<u32>,
    pub(crate) reads: Vec<(u64, usize)>,
    pub(crate) writes: Vec<(u64, usize)>,
    /// How many bytes of a transfer it can make without a buffer, from or to a `RefCell<Vec<u8>>`.
    pub(crate) mapped: usize,
    /// The device's pin, where it has one.
    pub(crate) line: Option<bool>,
}

impl Machine {
    /// With so many bytes of memory, for a device that has no pin.
    pub(crate) fn new(size: usize) -> Self {
        let (reads, writes) = (vec![], vec![]);
        Self { bytes: vec![0; size], interrupts: vec![], reads, writes, mapped: 0, line: None }
    }

    /// The same, for one that has.
    pub(crate) fn with_pin(size: usize) -> Self {
        Self { line: Some(false), ..Self::new(size) }
    }

    pub(crate) fn at(&mut self, addr: u64, len: usize) -> Option<&mut [u8]> {
        let at = usize::try_from(addr.checked_sub(BASE)?).ok()?;
        self.bytes.get_mut(at..at.checked_add(len)?)
    }

    /// Numbers of 8 bytes, one after the other.
    pub(crate) fn put(&mut self, addr: u64, values: &[u64]) {
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.at(addr, bytes.len()).unwrap().copy_from_slice(&bytes);
    }

    pub(crate) fn u64(&mut self, addr: u64) -> u64 {
        u64::from_le_bytes(self.at(addr, 8).unwrap().try_into().unwrap())
    }
}

impl Machine {
    /// Moves as much as it can between memory and the same number of bytes of an object.
    fn move_mapped(
        &mut self,
        addr: u64,
        object: &dyn Any,
        offset: u64,
        len: usize,
        transfer: impl FnOnce(&mut [u8], &mut [u8]),
    ) -> usize {
        let now = len.min(self.mapped);
        let (Some(object), Some(memory)) =
            (object.downcast_ref::<RefCell<Vec<u8>>>(), self.at(addr, now))
        else {
            return 0;
        };
        transfer(memory, &mut object.borrow_mut()[offset as usize..][..now]);
        now
    }
}

impl DmaBus for Machine {
    fn read(&mut self, addr: u64, data: &mut [u8]) -> Result<(), Aborted> {
        self.reads.push((addr, data.len()));
        data.fill(0);
        data.copy_from_slice(self.at(addr, data.len()).ok_or(Aborted)?);
        Ok(())
    }

    fn write(&mut self, addr: u64, data: &[u8]) -> Result<(), Aborted> {
        if addr == DOORBELL {
            self.interrupts.push(u32::from_le_bytes(data.try_into().unwrap()));
            return Ok(());
        }
        self.writes.push((addr, data.len()));
        self.at(addr, data.len()).ok_or(Aborted)?.copy_from_slice(data);
        Ok(())
    }

    fn write_mapped(&mut self, addr: u64, source: &dyn Any, offset: u64, len: usize) -> usize {
        self.move_mapped(addr, source, offset, len, |memory, there| memory.copy_from_slice(there))
    }

    fn read_mapped(&mut self, addr: u64, target: &dyn Any, offset: u64, len: usize) -> usize {
        self.move_mapped(addr, target, offset, len, |memory, there| there.copy_from_slice(memory))
    }

    fn set_intx(&mut self, asserted: bool) {
        *self.line.as_mut().expect("a device with a pin") = asserted;
    }
}

/// xorshift64*, as good as any here.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}
