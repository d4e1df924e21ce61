//! Status codes of completions (NVM Express 1.4, 4.6.1).

/// Code type in bits 8..=10, code in 0..=7, "do not retry" in bit 14: the status field of a
/// completion without its phase bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Status(u16);

/// Software need not try the same again.
const DNR: u16 = 1 << 14;

impl Status {
    pub(super) const SUCCESS: Self = Self(0);
    // Generic command status (figure 128).
    pub(super) const INVALID_OPCODE: Self = Self(0x001 | DNR);
    pub(super) const INVALID_FIELD: Self = Self(0x002 | DNR);
    pub(super) const DATA_TRANSFER_ERROR: Self = Self(0x004);
    pub(super) const INTERNAL_ERROR: Self = Self(0x006);
    pub(super) const INVALID_NAMESPACE: Self = Self(0x00b | DNR);
    pub(super) const COMMAND_SEQUENCE_ERROR: Self = Self(0x00c | DNR);
    pub(super) const INVALID_PRP_OFFSET: Self = Self(0x013 | DNR);
    pub(super) const LBA_OUT_OF_RANGE: Self = Self(0x080 | DNR);
    // Command specific status (figures 130 and 131).
    pub(super) const COMPLETION_QUEUE_INVALID: Self = Self(0x100 | DNR);
    pub(super) const INVALID_QUEUE_IDENTIFIER: Self = Self(0x101 | DNR);
    pub(super) const INVALID_QUEUE_SIZE: Self = Self(0x102 | DNR);
    pub(super) const EVENT_REQUEST_LIMIT: Self = Self(0x105 | DNR);
    pub(super) const INVALID_INTERRUPT_VECTOR: Self = Self(0x108 | DNR);
    pub(super) const INVALID_LOG_PAGE: Self = Self(0x109 | DNR);
    pub(super) const INVALID_QUEUE_DELETION: Self = Self(0x10c | DNR);
    pub(super) const FEATURE_NOT_SAVEABLE: Self = Self(0x10d | DNR);
    pub(super) const WRITE_TO_READ_ONLY: Self = Self(0x182 | DNR);
    // Media and data integrity errors (figure 133).
    pub(super) const WRITE_FAULT: Self = Self(0x280);
    pub(super) const UNRECOVERED_READ: Self = Self(0x281);
    pub(super) const COMPARE_FAILURE: Self = Self(0x285 | DNR);

    pub(super) const fn bits(self) -> u16 {
        self.0
    }

    pub(super) const fn is_success(self) -> bool {
        self.0 == 0
    }

    /// Whether storage, and not the request, is at fault.
    pub(super) const fn is_media(self) -> bool {
        self.0 & 0x700 == 0x200
    }
}
