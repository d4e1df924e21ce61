//! A bug to plant, so that fuzzing can show that it would find it (feature `planted`, which
//! nothing but tests turns on).

use core::sync::atomic::{AtomicBool, Ordering};

static PLANTED: AtomicBool = AtomicBool::new(false);

/// Plants the bug for the whole process, or takes it out: the number `0` is taken for one that begins
/// with `0x`.
pub fn plant(on: bool) {
    PLANTED.store(on, Ordering::Relaxed);
}

pub(crate) fn is_planted() -> bool {
    PLANTED.load(Ordering::Relaxed)
}
