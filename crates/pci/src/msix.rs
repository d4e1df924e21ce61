//! MSI-X: the table and the pending bits in a BAR (PCI 3.0, 6.8.2).

use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;

use crate::bus::{Aborted, DmaBus};
use crate::regs::{cap, msix};
use crate::{Capability, ConfigSpace};

/// Bytes of a table entry: address (8), data (4), vector control (4, bit 0 masks).
pub const ENTRY_SIZE: u64 = 16;

/// The MSI-X table of a function, with its pending bits.
#[derive(Clone, Debug)]
pub struct MsixTable {
    /// Where the capability is.
    capability: u16,
    bar: u8,
    offset: u64,
    pba_bar: u8,
    pba_offset: u64,
    /// The table's bytes.
    table: Vec<u8>,
    /// One bit per vector.
    pending: Vec<u8>,
}

impl MsixTable {
    /// The table that the function's MSI-X capability announces, as after a reset: all masked.
    #[must_use]
    pub fn find(config: &ConfigSpace) -> Option<Self> {
        let Capability { offset: at, .. } = config.capability(cap::MSIX)?;
        let control = config.u16(at.saturating_add(msix::CONTROL));
        let table = config.u32(at.saturating_add(msix::TABLE));
        let pba = config.u32(at.saturating_add(msix::PBA));
        let vectors = usize::from(control & msix::SIZE_MASK).saturating_add(1);
        let mut found = Self {
            capability: at,
            bar: (table & 7) as u8,
            offset: u64::from(table & !7),
            pba_bar: (pba & 7) as u8,
            pba_offset: u64::from(pba & !7),
            table: vec![0; vectors.saturating_mul(ENTRY_SIZE as usize)],
            pending: vec![0; vectors.div_ceil(64).saturating_mul(8)],
        };
        found.reset();
        Some(found)
    }

    /// How many vectors there are: 1..=2048.
    #[must_use]
    pub fn vectors(&self) -> u32 {
        (self.table.len() as u64 / ENTRY_SIZE) as u32
    }

    /// The BAR that holds the table.
    #[must_use]
    pub const fn bar(&self) -> u8 {
        self.bar
    }

    /// The table's bytes within its BAR.
    #[must_use]
    pub fn range(&self) -> Range<u64> {
        self.offset..self.offset.saturating_add(self.table.len() as u64)
    }

    /// All vectors masked, nothing pending.
    pub fn reset(&mut self) {
        self.pending.fill(0);
        self.table.fill(0);
        for control in self.table.iter_mut().skip(12).step_by(ENTRY_SIZE as usize) {
            *control = 1;
        }
    }

    /// Whether interrupts go out through this table.
    #[must_use]
    pub fn enabled(&self, config: &ConfigSpace) -> bool {
        self.control(config) & msix::ENABLE != 0
    }

    fn control(&self, config: &ConfigSpace) -> u16 {
        config.u16(self.capability.saturating_add(msix::CONTROL))
    }

    /// Answers a read of a BAR when it touches the table or the pending bits; bytes of `data`
    /// outside both are left as they are.
    pub fn bar_read(&self, bar: u8, offset: u64, data: &mut [u8]) {
        if bar == self.bar {
            copy_out(&self.table, self.offset, offset, data);
        }
        if bar == self.pba_bar {
            copy_out(&self.pending, self.pba_offset, offset, data);
        }
    }

    /// Takes what a write to a BAR changes in the table; pending bits are read-only. Vectors that
    /// are pending and no longer masked fire.
    pub fn bar_write(
        &mut self,
        bar: u8,
        offset: u64,
        data: &[u8],
        config: &ConfigSpace,
        bus: &mut dyn DmaBus,
    ) {
        if bar != self.bar {
            return;
        }
        let mut touched = false;
        for (i, new) in (0_u64..).zip(data) {
            let at = offset.saturating_add(i).checked_sub(self.offset);
            let at = at.and_then(|at| usize::try_from(at).ok());
            if let Some(byte) = at.and_then(|at| self.table.get_mut(at)) {
                *byte = *new;
                touched = true;
            }
        }
        if touched {
            self.fire_pending(config, bus);
        }
    }

    /// Sends what waited for a mask to go. To be called after a write to the capability, too.
    pub fn fire_pending(&mut self, config: &ConfigSpace, bus: &mut dyn DmaBus) {
        if self.pending.iter().all(|byte| *byte == 0) {
            return;
        }
        for vector in 0..self.vectors() {
            if self.is_pending(vector) && !self.masked(config, vector) {
                self.set_pending(vector, false);
                // A write the bus refuses is lost; whoever answers for the bus reports it.
                let _ = self.fire(config, vector, bus);
            }
        }
    }

    /// Raises `vector`: a write to the bus, or a pending bit while it is masked. Nothing when
    /// MSI-X is off or there is no such vector.
    ///
    /// # Errors
    /// [`Aborted`] when the bus did not take the write.
    pub fn fire(
        &mut self,
        config: &ConfigSpace,
        vector: u32,
        bus: &mut dyn DmaBus,
    ) -> Result<(), Aborted> {
        if !self.enabled(config) || vector >= self.vectors() {
            return Ok(());
        }
        if self.masked(config, vector) {
            self.set_pending(vector, true);
            return Ok(());
        }
        let address = u64::from(self.field(vector, 0)) | u64::from(self.field(vector, 4)) << 32;
        bus.write(address, &self.field(vector, 8).to_le_bytes())
    }

    fn masked(&self, config: &ConfigSpace, vector: u32) -> bool {
        let control = self.control(config);
        control & msix::ENABLE == 0
            || control & msix::FUNCTION_MASK != 0
            || self.field(vector, 12) & 1 != 0
    }

    /// The u32 at `byte` of an entry; ones where there is none.
    fn field(&self, vector: u32, byte: usize) -> u32 {
        let at = (vector as usize).saturating_mul(ENTRY_SIZE as usize).saturating_add(byte);
        let bytes = self.table.get(at..at.saturating_add(4)).and_then(|b| b.try_into().ok());
        bytes.map_or(u32::MAX, u32::from_le_bytes)
    }

    fn is_pending(&self, vector: u32) -> bool {
        let byte = self.pending.get((vector >> 3) as usize).copied().unwrap_or(0);
        byte >> (vector & 7) & 1 != 0
    }

    fn set_pending(&mut self, vector: u32, pending: bool) {
        if let Some(byte) = self.pending.get_mut((vector >> 3) as usize) {
            *byte = *byte & !(1 << (vector & 7)) | u8::from(pending) << (vector & 7);
        }
    }
}

/// Copies the part of `data`, which starts at `offset`, that lies in `from`, which starts at
/// `start`.
fn copy_out(from: &[u8], start: u64, offset: u64, data: &mut [u8]) {
    for (i, byte) in (0_u64..).zip(data) {
        let at = offset.saturating_add(i).checked_sub(start);
        let at = at.and_then(|at| usize::try_from(at).ok());
        if let Some(source) = at.and_then(|at| from.get(at)) {
            *byte = *source;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ConfigSize;

    #[derive(Default)]
    struct Log(Vec<(u64, u8)>);

    impl DmaBus for Log {
        fn read(&mut self, _addr: u64, _data: &mut [u8]) -> Result<(), Aborted> {
            Err(Aborted)
        }

        fn write(&mut self, addr: u64, data: &[u8]) -> Result<(), Aborted> {
            self.0.push((addr, data[0]));
            Ok(())
        }

        fn set_intx(&mut self, _asserted: bool) {}
    }

    /// The recorded nvme's capability: 65 vectors, table at BAR0+0x2000, pending bits at 0x3000.
    fn nvme() -> ConfigSpace {
        let mut bytes = [0; 0x60];
        bytes[6] = 0x10;
        bytes[0x34] = 0x40;
        let cap = [0x11, 0, 0x40, 0, 0, 0x20, 0, 0, 0, 0x30, 0, 0];
        bytes[0x40..0x4c].copy_from_slice(&cap);
        ConfigSpace::from_bytes(&bytes, ConfigSize::Extended, &[None; 7])
    }

    #[test]
    fn masked_vectors_wait() {
        let mut c = nvme();
        let mut table = MsixTable::find(&c).unwrap();
        assert_eq!((table.vectors(), table.bar(), table.range()), (65, 0, 0x2000..0x2410));
        let mut bus = Log::default();
        table.bar_write(0, 0x2400, &[0, 0x10, 0xe0, 0xfe, 0, 0, 0, 0], &c, &mut bus);
        table.bar_write(0, 0x2408, &[7, 0, 0, 0], &c, &mut bus);
        table.fire(&c, 64, &mut bus).unwrap();
        c.write_u16(0x42, msix::ENABLE);
        table.fire(&c, 64, &mut bus).unwrap();
        let mut pba = [0; 8];
        table.bar_read(0, 0x3008, &mut pba);
        assert_eq!((bus.0.len(), pba), (0, [1, 0, 0, 0, 0, 0, 0, 0]));
        table.bar_write(0, 0x240c, &[0; 4], &c, &mut bus);
        table.fire(&c, 64, &mut bus).unwrap();
        assert_eq!(bus.0, [(0xfee0_1000, 7); 2]);
    }

    #[test]
    fn reads_outside_leave_the_bytes() {
        let table = MsixTable::find(&nvme()).unwrap();
        let mut data = [0x55; 8];
        table.bar_read(0, 0x1ffc, &mut data);
        assert_eq!(data, [0x55, 0x55, 0x55, 0x55, 0, 0, 0, 0]);
    }
}
