//! Whether to look for the next trap for a moment before going to sleep.
//!
//! Clients touch registers in bursts. Awake, the tracer saves one of the two wake-ups across cores
//! of each trap, which about halves the cost; asleep, it costs nobody a core. Following the client
//! to its core was tried and is worse: the scheduler then wakes the client elsewhere.

use std::time::{Duration, Instant};

use crate::cores;

/// How long a look takes at most.
const LOOK: Duration = Duration::from_micros(100);
/// Traps without a look after one in vain.
const PAUSE: u32 = 4;

/// What became of the looks so far.
#[derive(Debug)]
pub(super) struct Patience {
    alone: bool,
    pause: u32,
}

impl Patience {
    pub(super) fn new() -> Self {
        Self { alone: cores() == 1, pause: 0 }
    }

    /// After a trap: what `look` finds, if it is worth a look and finds something soon.
    pub(super) fn look<T>(&mut self, mut look: impl FnMut() -> Option<T>) -> Option<T> {
        if self.alone || self.pause > 0 {
            self.pause = self.pause.saturating_sub(1);
            return None;
        }
        let start = Instant::now();
        while start.elapsed() < LOOK {
            let found = look();
            if found.is_some() {
                return found;
            }
            std::hint::spin_loop();
        }
        self.pause = PAUSE;
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_after_a_look_in_vain() {
        let mut patience = Patience { alone: false, pause: 0 };
        assert_eq!(patience.look(|| Some(1)), Some(1));
        assert_eq!(patience.look(|| None::<i32>), None);
        for _ in 0..PAUSE {
            assert_eq!(patience.look(|| -> Option<i32> { panic!("a look") }), None);
        }
        assert_eq!(patience.look(|| Some(2)), Some(2));
    }
}
