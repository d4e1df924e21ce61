//! Client memory that keeps the books.

use std::collections::BTreeMap;

use iommu::{PinError, PinFault, PinId, Pinned, Pinner};

/// Addresses with this bit are not mapped.
pub const HOLE: u64 = 1 << 45;
/// Addresses with this bit cannot be written.
pub const READ_ONLY: u64 = 1 << 44;
/// Addresses with this bit do not count as locked memory.
pub const UNCOUNTED: u64 = 1 << 43;

/// A live pin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pin {
    /// Where it starts.
    pub vaddr: u64,
    /// Its bytes.
    pub size: u64,
    /// Pages that count.
    pub charged_pages: u64,
    /// Whether devices may write.
    pub write: bool,
}

/// Memory whose properties are bits of its address; every pin is remembered until it is given back.
#[derive(Default)]
pub struct Pins {
    live: BTreeMap<PinId, Pin>,
    next: u64,
}

impl Pins {
    /// The pins not given back.
    #[must_use]
    pub fn live(&self) -> &BTreeMap<PinId, Pin> {
        &self.live
    }

    /// Remembers a new pin.
    pub fn hold(&mut self, pin: Pin) -> Pinned {
        self.next += 1;
        let id = PinId(self.next);
        self.live.insert(id, pin);
        Pinned { id, charged_pages: pin.charged_pages }
    }

    /// Pages that count, of all live pins.
    #[must_use]
    pub fn charged_pages(&self) -> u64 {
        self.live.values().map(|p| p.charged_pages).sum()
    }
}

impl Pinner for Pins {
    fn pin(&mut self, vaddr: u64, size: u64, write: bool) -> Result<Pinned, PinError> {
        let last = vaddr.checked_add(size - 1).expect("the engine refuses a vaddr that wraps");
        let refused = |why| PinError { vaddr, charged_pages: 0, why };
        if vaddr & HOLE != 0 {
            return Err(refused(PinFault::NotMapped));
        }
        if last & HOLE != 0 {
            // The hole starts inside: a kernel has charged what lies before it.
            let hole = last & !(HOLE - 1);
            let charged_pages = (hole - vaddr) >> 12;
            return Err(PinError { vaddr: hole, charged_pages, why: PinFault::NotMapped });
        }
        if write && vaddr & READ_ONLY != 0 {
            return Err(refused(PinFault::NotPermitted));
        }
        let charged_pages = if vaddr & UNCOUNTED == 0 { size >> 12 } else { 0 };
        Ok(self.hold(Pin { vaddr, size, charged_pages, write }))
    }

    fn unpin(&mut self, pin: PinId) {
        assert!(self.live.remove(&pin).is_some(), "{pin:?} is given back and was not held");
    }
}
