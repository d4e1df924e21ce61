//! The controller's registers (NVM Express 1.4, 3.1).

/// Offsets in BAR0, of words of 4 bytes.
pub(super) mod reg {
    pub(crate) const CAP: u64 = 0x00;
    pub(crate) const CAP_HIGH: u64 = 0x04;
    pub(crate) const VS: u64 = 0x08;
    pub(crate) const INTMS: u64 = 0x0c;
    pub(crate) const INTMC: u64 = 0x10;
    pub(crate) const CC: u64 = 0x14;
    pub(crate) const CSTS: u64 = 0x1c;
    pub(crate) const AQA: u64 = 0x24;
    pub(crate) const ASQ: u64 = 0x28;
    pub(crate) const ASQ_HIGH: u64 = 0x2c;
    pub(crate) const ACQ: u64 = 0x30;
    pub(crate) const ACQ_HIGH: u64 = 0x34;
    /// One behind the last register that this controller has.
    pub(crate) const END: u64 = 0x38;
    /// The doorbells: tail of queue 0, head of queue 0, tail of queue 1, ...
    pub(crate) const DOORBELLS: u64 = 0x1000;
    /// The MSI-X table, on a page of its own.
    pub(crate) const TABLE: u64 = 0x2000;
    /// The MSI-X pending bits.
    pub(crate) const PENDING: u64 = 0x3000;
    /// Bytes of BAR0.
    pub(crate) const SIZE: u64 = 0x4000;
}

/// The version that is implemented, 1.4.
pub(super) const VERSION: u32 = 0x0001_0400;

/// Entries of a queue at most.
pub(super) const MAX_ENTRIES: u32 = 2048;

/// CAP (3.1.1): queues contiguous, 10 seconds to get ready, the NVM command set, pages of 4 KiB to
/// 64 KiB, doorbells side by side.
pub(super) const CAP: u64 =
    (MAX_ENTRIES as u64 - 1) | 1 << 16 | 20 << 24 | 1 << 37 | (MAX_PAGE_SHIFT as u64) << 52;

/// CC.MPS at most: pages are 4096 << MPS.
const MAX_PAGE_SHIFT: u32 = 4;

/// CC (3.1.5): enabled.
pub(super) const CC_EN: u32 = 1;

/// CSTS (3.1.6): ready.
pub(super) const CSTS_RDY: u32 = 1;
/// CSTS: fatal; only a reset helps.
pub(super) const CSTS_CFS: u32 = 2;
/// CSTS: where a shutdown stands.
pub(super) const CSTS_SHST: u32 = 3 << 2;
/// CSTS: shutting down.
pub(super) const CSTS_SHST_OCCURRING: u32 = 1 << 2;
/// CSTS: shut down.
pub(super) const CSTS_SHST_COMPLETE: u32 = 2 << 2;

/// Configuration (3.1.5) taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cc(pub(super) u32);

impl Cc {
    pub(super) const fn enabled(self) -> bool {
        self.0 & CC_EN != 0
    }

    /// A shutdown is asked for, normal or abrupt.
    pub(super) const fn shutdown(self) -> bool {
        self.0 >> 14 & 3 != 0
    }

    pub(super) const fn page_size(self) -> u64 {
        4096 << (self.0 >> 7 & 0xf)
    }

    const fn css(self) -> u32 {
        self.0 >> 4 & 7
    }

    const fn ams(self) -> u32 {
        self.0 >> 11 & 7
    }

    /// log2 of the size of a command in I/O queues.
    pub(super) const fn iosqes(self) -> u32 {
        self.0 >> 16 & 0xf
    }

    /// log2 of the size of a completion in I/O queues.
    pub(super) const fn iocqes(self) -> u32 {
        self.0 >> 20 & 0xf
    }
}

/// The registers that software writes, and the status.
#[derive(Clone, Debug, Default)]
pub(super) struct Registers {
    /// Interrupts that are masked (INTMS and INTMC), for the pin.
    pub(super) masked: u32,
    pub(super) cc: u32,
    pub(super) csts: u32,
    pub(super) aqa: u32,
    pub(super) asq: u64,
    pub(super) acq: u64,
}

impl Registers {
    pub(super) const fn cc(&self) -> Cc {
        Cc(self.cc)
    }

    pub(super) const fn word(&self, offset: u64) -> u32 {
        match offset {
            reg::CAP => CAP as u32,
            reg::CAP_HIGH => (CAP >> 32) as u32,
            reg::VS => VERSION,
            reg::INTMS | reg::INTMC => self.masked,
            reg::CC => self.cc,
            reg::CSTS => self.csts,
            reg::AQA => self.aqa,
            reg::ASQ => self.asq as u32,
            reg::ASQ_HIGH => (self.asq >> 32) as u32,
            reg::ACQ => self.acq as u32,
            reg::ACQ_HIGH => (self.acq >> 32) as u32,
            _ => 0,
        }
    }

    /// Registers that only describe; the others are the controller's business.
    pub(super) const fn set_word(&mut self, offset: u64, value: u32) {
        let long = value as u64;
        match offset {
            reg::INTMS => self.masked |= value,
            reg::INTMC => self.masked &= !value,
            reg::AQA => self.aqa = value & 0x0fff_0fff,
            reg::ASQ => self.asq = self.asq & !0xffff_ffff | long & 0xffff_f000,
            reg::ASQ_HIGH => self.asq = self.asq & 0xffff_ffff | long << 32,
            reg::ACQ => self.acq = self.acq & !0xffff_ffff | long & 0xffff_f000,
            reg::ACQ_HIGH => self.acq = self.acq & 0xffff_ffff | long << 32,
            _ => {}
        }
    }

    /// Entries of the admin submission and completion queue.
    pub(super) const fn admin_sizes(&self) -> (u32, u32) {
        ((self.aqa & 0xfff).wrapping_add(1), (self.aqa >> 16 & 0xfff).wrapping_add(1))
    }

    /// Whether the controller can start as it is configured (3.1.5, 3.1.8 to 3.1.10). Sizes of I/O
    /// entries may come later.
    pub(super) const fn can_start(&self) -> bool {
        let cc = self.cc();
        let (sq, cq) = self.admin_sizes();
        let page = cc.page_size().wrapping_sub(1);
        cc.0 >> 7 & 0xf <= MAX_PAGE_SHIFT
            && cc.css() == 0
            && cc.ams() == 0
            && matches!(cc.iosqes(), 0 | 6)
            && matches!(cc.iocqes(), 0 | 4)
            && sq >= 2
            && cq >= 2
            && self.asq & page == 0
            && self.acq & page == 0
    }

    /// Whether commands are taken.
    pub(super) const fn running(&self) -> bool {
        self.csts & (CSTS_RDY | CSTS_CFS | CSTS_SHST) == CSTS_RDY
    }
}
