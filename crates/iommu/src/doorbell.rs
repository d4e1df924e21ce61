//! Doorbells with an IOVA: physical pages of interrupt controllers that devices reach through an
//! IOMMU.
//!
//! A table belongs to a domain (VFIO), or is shared by several domains (iommufd): it only knows
//! its window and who is in it.

use alloc::vec::Vec;

use crate::IovaRange;

/// One doorbell page and where devices reach it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Binding {
    /// The doorbell's physical page: the address with the bits below the page size cleared.
    pub doorbell: u64,
    /// The page's I/O virtual address.
    pub iova: u64,
}

/// Doorbells bound in one window, in order of first use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DoorbellTable {
    window: IovaRange,
    page_size: u64,
    bindings: Vec<Binding>,
}

/// Every page of the window is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowFull;

impl DoorbellTable {
    /// An empty table; `page_size` in bytes, a power of two.
    #[must_use]
    pub const fn new(window: IovaRange, page_size: u64) -> Self {
        Self { window, page_size, bindings: Vec::new() }
    }

    /// The window.
    #[must_use]
    pub const fn window(&self) -> IovaRange {
        self.window
    }

    /// The bindings, in order of first use.
    #[must_use]
    pub fn bindings(&self) -> &[Binding] {
        &self.bindings
    }

    /// Pages the window has.
    #[must_use]
    pub const fn pages(&self) -> u64 {
        match self.window.size().checked_div(self.page_size) {
            Some(n) => n,
            None => 0,
        }
    }

    /// The bus address at which devices reach the doorbell register at physical address
    /// `doorbell`; binds its page on first use. The flag says whether it did.
    ///
    /// # Errors
    /// [`WindowFull`]. The kernel's cookie allocator has no such check and would go on beyond its
    /// window, into addresses that belong to the client.
    pub fn bind(&mut self, doorbell: u64) -> Result<(u64, bool), WindowFull> {
        let offset = doorbell & self.page_size.wrapping_sub(1);
        let page = doorbell.wrapping_sub(offset);
        let wanted = if planted!(DoorbellBoundTwice) { doorbell } else { page };
        if let Some(b) = self.bindings.iter().find(|b| b.doorbell == wanted) {
            return Ok((b.iova | offset, false));
        }
        let used = u64::try_from(self.bindings.len()).map_err(|_| WindowFull)?;
        let iova = used
            .checked_mul(self.page_size)
            .and_then(|n| self.window.first().checked_add(n))
            .filter(|iova| {
                IovaRange::sized(*iova, self.page_size).is_some_and(|p| self.window.covers(p))
            })
            .ok_or(WindowFull)?;
        self.bindings.push(Binding { doorbell: page, iova });
        Ok((iova | offset, true))
    }

    /// The physical address behind `iova`, when a doorbell page is bound there.
    #[must_use]
    pub fn resolve(&self, iova: u64) -> Option<u64> {
        if !self.window.contains(iova) {
            return None;
        }
        let offset = iova & self.page_size.wrapping_sub(1);
        let page = iova.wrapping_sub(offset);
        self.bindings.iter().find(|b| b.iova == page).map(|b| b.doorbell | offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_devices_behind_one_doorbell_share_a_page() {
        let mut t = DoorbellTable::new(IovaRange::sized(0x800_0000, 0x2000).unwrap(), 0x1000);
        assert_eq!(t.bind(0x808_0040), Ok((0x800_0040, true)));
        assert_eq!(t.bind(0x808_0040), Ok((0x800_0040, false)));
        assert_eq!(t.bind(0x809_0040), Ok((0x800_1040, true)));
        assert_eq!(t.bind(0x80a_0040), Err(WindowFull));
        assert_eq!(t.resolve(0x800_1040), Some(0x809_0040));
        assert_eq!(t.resolve(0x800_2040), None);
        assert_eq!(t.pages(), 2);
    }
}
