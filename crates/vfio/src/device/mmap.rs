//! Which parts of a device can be mapped.

use core::ops::Range;

use pci::Bar;
use uapi::region::RegionIndex;

use super::region::memory_on;
use super::{Device, DeviceRefusal, Open, Upstream};

/// A part of a BAR that a client may map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mappable {
    /// The BAR, 0..=5.
    pub bar: u8,
    /// Bytes from the start of the BAR, a whole number of pages: the last page may go beyond a
    /// BAR that is smaller.
    pub range: Range<u64>,
}

impl Device {
    /// Whether a BAR can be mapped: memory, and whole pages of its own.
    pub(super) const fn is_mappable(&self, bar: &Bar) -> bool {
        let in_page = self.page_size.wrapping_sub(1);
        self.mappable && bar.is_memory() && (bar.size >= self.page_size || bar.start & in_page == 0)
    }

    /// Checks an `mmap` of `len` bytes at `offset` of the descriptor's file.
    ///
    /// Whether an access then succeeds is seen at each: [`mmio`](Self::mmio).
    ///
    /// # Errors
    /// Private mappings, other regions than BARs, BARs that cannot be mapped, and ranges beyond
    /// the end: all `EINVAL`.
    pub fn mmap(&self, offset: u64, len: u64, shared: bool) -> Result<Mappable, DeviceRefusal> {
        let (index, start) = self.split_offset(offset)?;
        if !shared {
            return Err(DeviceRefusal::NotMappable("the mapping is private"));
        }
        let bar = RegionIndex::try_from(index).ok().and_then(RegionIndex::bar);
        let number = bar.ok_or(DeviceRefusal::NotMappable("the region is no BAR"))?;
        let bar = self.function.bar(number).filter(|bar| self.is_mappable(bar));
        let bar = bar.ok_or(DeviceRefusal::NotMappable("the BAR has no whole pages of memory"))?;
        let in_page = self.page_size.wrapping_sub(1);
        let pages_end = bar.size.saturating_add(in_page) & !in_page;
        let end = len.checked_add(in_page).map(|len| len & !in_page);
        let end = end.and_then(|len| start.checked_add(len)).filter(|end| *end <= pages_end);
        let end = end.ok_or(DeviceRefusal::BeyondBar { bar: number, offset: start })?;
        Ok(Mappable { bar: number, range: start..end })
    }

    /// Whether an access to a mapped BAR would reach the function now. Where not, it is a
    /// `SIGBUS`, and pinning the mapping fails ([`PinFault::DeviceOff`](iommu::PinFault::DeviceOff)).
    #[must_use]
    pub fn decodes_memory(&self) -> bool {
        let decodes = |open: &Open| {
            !open.low_power.is_entered() && memory_on(&open.config, self.model.config())
        };
        self.open.as_ref().is_some_and(decodes)
    }

    /// An access to a mapped BAR, of any width. It reaches all of the BAR, the MSI-X table too;
    /// behind a BAR's end nobody answers.
    ///
    /// # Errors
    /// [`DeviceRefusal::MemoryOff`] where an access is a `SIGBUS`: the function does not decode
    /// memory, or is in low power.
    pub fn mmio(
        &mut self,
        up: &mut Upstream<'_>,
        bar: u8,
        offset: u64,
        access: Mmio<'_>,
    ) -> Result<(), DeviceRefusal> {
        self.opened()?;
        // Also behind a BAR's end: whether a page is there does not depend on what is in it.
        if !self.decodes_memory() {
            return Err(DeviceRefusal::MemoryOff);
        }
        let len = match &access {
            Mmio::Read(data) => data.len(),
            Mmio::Write(data) => data.len(),
        };
        let mut span = self.span(bar, offset, len);
        if let Ok(span) = &mut span {
            (span.excluded, span.width) = (0..0, 8);
        }
        match (access, span) {
            (Mmio::Read(data), Ok(span)) => {
                data.fill(0xff);
                self.read_span(up, &span, data)
            }
            (Mmio::Write(data), Ok(span)) => self.write_span(up, &span, data),
            (Mmio::Read(data), Err(_)) => {
                data.fill(0xff);
                Ok(())
            }
            (Mmio::Write(_), Err(_)) => Ok(()),
        }
    }
}

/// An access to a mapped BAR.
#[derive(Debug)]
pub enum Mmio<'a> {
    /// A load; the bytes are filled.
    Read(&'a mut [u8]),
    /// A store.
    Write(&'a [u8]),
}
