//! A device's thread: watches polled registers, and lets the device do what it does on its own.

use std::time::{Duration, Instant};

use super::Door;
use super::slot::Slot;

/// After the last change, registers are watched without a pause for this long.
const SPIN: Duration = Duration::from_micros(100);

/// Afterwards with pauses that grow: the time since the last change, and the pause.
const PAUSES: [(Duration, Duration); 4] = [
    (Duration::from_millis(2), Duration::from_micros(20)),
    (Duration::from_millis(20), Duration::from_micros(100)),
    (Duration::from_secs(1), Duration::from_micros(500)),
    (Duration::MAX, Duration::from_millis(3)),
];

impl Door {
    /// Runs device number `n` until the session is over.
    pub(crate) fn work(&self, n: usize) {
        if let Some(slot) = self.slots.get(n) {
            self.work_on(slot);
        }
    }

    fn work_on(&self, slot: &Slot) {
        let mut kicks = 0;
        let mut last_change = Instant::now();
        while !self.stopped() {
            let kicked = slot.kicks();
            if kicked != kicks || slot.was_written() {
                kicks = kicked;
                let mut guarded = slot.lock_after_moment();
                let mut more = true;
                while more && !self.stopped() {
                    more = self.on_hardware(slot, &mut guarded, |guarded, up| {
                        slot.take_batch(guarded, up)
                    });
                    more |=
                        self.on_hardware(slot, &mut guarded, |guarded, up| guarded.device.run(up));
                    // Those who wait for the device have their turn.
                    parking_lot::MutexGuard::bump(&mut guarded);
                }
                last_change = Instant::now();
                continue;
            }
            let quiet = last_change.elapsed();
            if quiet < SPIN && slot.is_polled() {
                std::hint::spin_loop();
                continue;
            }
            if slot.was_written_low() {
                continue;
            }
            let pause = PAUSES.iter().find(|(until, _)| quiet < *until).map(|(_, pause)| *pause);
            // What is not polled is kicked.
            let watched = slot.is_polled() && slot.is_open();
            slot.wait_kick(kicks, pause.filter(|_| watched));
        }
    }
}
