//! Keyboard signals, which are the client's.

use std::sync::atomic::{AtomicU8, Ordering};

use crate::sys::process::{Disposition, disposition, set_disposition};

/// While it lives this process ignores `SIGINT` and `SIGQUIT`: a terminal sends them to the client
/// too, and they are meant for it. Clients start with what was in force before.
#[derive(Debug)]
pub struct Interrupts(());

const HELD: [(i32, u8); 2] = [(libc::SIGINT, 1), (libc::SIGQUIT, 2)];
/// Signals of `HELD` that were at their default before.
static RESET: AtomicU8 = AtomicU8::new(0);

impl Interrupts {
    /// Begins to ignore them, unless something else than the default is in force.
    pub fn ignore() -> Interrupts {
        for (signal, bit) in HELD {
            if disposition(signal) == Ok(Disposition::Default) {
                set_disposition(signal, true);
                RESET.fetch_or(bit, Ordering::SeqCst);
            }
        }
        Interrupts(())
    }

    /// Signals that are ignored on behalf of clients, not for them.
    pub(super) fn to_reset() -> impl Iterator<Item = i32> {
        let bits = RESET.load(Ordering::SeqCst);
        HELD.into_iter().filter(move |(_, bit)| bits & bit != 0).map(|(signal, _)| signal)
    }
}

impl Drop for Interrupts {
    fn drop(&mut self) {
        for signal in Interrupts::to_reset() {
            set_disposition(signal, false);
        }
        RESET.store(0, Ordering::SeqCst);
    }
}
