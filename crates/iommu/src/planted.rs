//! Bugs to plant, so that tests can show that they would find them.
//!
//! With the feature `planted`, which nothing but tests turns on, [`plant`] plants one bug for the
//! whole process. Without the feature `planted!` is `false` and this module is not there.

use core::sync::atomic::{AtomicU8, Ordering};

/// A bug as somebody could have made it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// A late group's reserved region is compared without its last byte.
    AttachMissesLastByte = 1,
    /// The upper half of a cut mapping is not counted as waiting for its user address.
    CutForgetsInvalid,
    /// The upper half of a cut mapping begins at the start of the pin.
    CutLosesPinOffset,
    /// A range that ends inside a mapping does not count as cutting it.
    CutTestMissesEnd,
    /// The valid ranges stay as narrow as the group that left made them.
    DetachKeepsRanges,
    /// Bits of the mapping before, in the same word of the bitmap, are overwritten.
    DirtyLosesLead,
    /// A doorbell page is searched for by the address of the register.
    DoorbellBoundTwice,
    /// What a map that fails last of all had pinned stays pinned and charged.
    FailedMapStaysPinned,
    /// Doorbells are bound in the oldest domain, whoever asks.
    DomainsShareAPool,
    /// A domain made after a window was registered does not get it.
    LateDomainWithoutWindows,
    /// The limit of mappings is tested one too late.
    OneMappingTooMany,
    /// A mapping is searched for in the first valid range only.
    OnlyFirstRange,
    /// A binding ends when one reference is left.
    ReleaseFreesEarly,
    /// Bindings are looked for in the oldest domain before a window is removed.
    RemoveSeesOneDomain,
    /// The valid ranges stay cut where a window was removed.
    RemovedWindowStaysCut,
    /// Disabling interrupts that are not enabled gives another group's reference back.
    SurplusReleaseCounts,
    /// A place in the translation cache is not checked against the mapping found there.
    StaleHintTrusted,
    /// With the user address, another address space gets the charge, and the first one keeps it.
    UpdateChargesTwice,
    /// A window is not in the way of what begins below it.
    WindowAboveUnseen,
    /// A write-only mapping can be read whatever the IOMMU can express.
    WriteOnlyReadable,
}

impl Bug {
    /// Bugs that ordinary requests meet.
    pub const ALL: [Self; 13] = [
        Self::AttachMissesLastByte,
        Self::CutForgetsInvalid,
        Self::CutLosesPinOffset,
        Self::CutTestMissesEnd,
        Self::DetachKeepsRanges,
        Self::DirtyLosesLead,
        Self::DoorbellBoundTwice,
        Self::FailedMapStaysPinned,
        Self::OneMappingTooMany,
        Self::OnlyFirstRange,
        Self::StaleHintTrusted,
        Self::UpdateChargesTwice,
        Self::WriteOnlyReadable,
    ];

    /// Bugs that only windows which the user registers meet.
    pub const WINDOWS: [Self; 7] = [
        Self::DomainsShareAPool,
        Self::LateDomainWithoutWindows,
        Self::ReleaseFreesEarly,
        Self::RemoveSeesOneDomain,
        Self::RemovedWindowStaysCut,
        Self::SurplusReleaseCounts,
        Self::WindowAboveUnseen,
    ];
}

static PLANTED: AtomicU8 = AtomicU8::new(0);

/// Plants a bug instead of the one before, or none.
pub fn plant(bug: Option<Bug>) {
    PLANTED.store(bug.map_or(0, |b| b as u8), Ordering::Relaxed);
}

pub(crate) fn is_planted(bug: Bug) -> bool {
    PLANTED.load(Ordering::Relaxed) == bug as u8
}
