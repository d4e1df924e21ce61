//! Bugs to plant, so that fuzzing can show that it would find them (feature `planted`, which
//! nothing but tests turns on).

use core::sync::atomic::{AtomicU8, Ordering};

/// A bug as somebody could have made it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// nvme: a completion queue is filled to its last entry, so that full looks like empty.
    FullQueueLooksEmpty = 1,
    /// ioat: of descriptors fetched together the links are not followed.
    LinksIgnored,
}

static PLANTED: AtomicU8 = AtomicU8::new(0);

/// Plants a bug instead of the one before, or none.
pub fn plant(bug: Option<Bug>) {
    PLANTED.store(bug.map_or(0, |b| b as u8), Ordering::Relaxed);
}

pub(crate) fn is_planted(bug: Bug) -> bool {
    PLANTED.load(Ordering::Relaxed) == bug as u8
}
