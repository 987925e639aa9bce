//! Waiting for what another thread is about to finish.

use crate::sync::{MODEL, spin_loop, yield_now};

/// Turns of spinning double from 1 to `2^SPIN_STEPS`; after that the processor is given away.
const SPIN_STEPS: u32 = 6;
/// So often is the processor given away before it is better to sleep.
const YIELDS: u32 = 16;

/// Waits a little longer each time.
#[derive(Debug, Default)]
pub(crate) struct Patience {
    step: u32,
}

impl Patience {
    /// After losing a race: the winner is done already, so the processor is kept.
    #[inline]
    pub(crate) fn spin(&mut self) {
        if MODEL {
            return yield_now();
        }
        for _ in 0..1_u32 << self.step.min(SPIN_STEPS) {
            spin_loop();
        }
        self.step += 1;
    }

    /// While another thread is between two steps: it may have lost its processor to this one.
    #[inline]
    pub(crate) fn wait(&mut self) {
        if MODEL || self.step > SPIN_STEPS {
            self.step += 1;
            yield_now();
        } else {
            self.spin();
        }
    }
}

/// Looks again and again whether something is `ready`, for as long as a sleep and its end would take.
/// True as soon as it is.
pub(crate) fn linger(mut ready: impl FnMut() -> bool) -> bool {
    let mut patience = Patience::default();
    while !MODEL && patience.step <= SPIN_STEPS + YIELDS {
        patience.wait();
        if ready() {
            return true;
        }
    }
    false
}

/// Looks of [`settle`] at nothing at all before it is better to sleep.
const IDLE_LOOKS: u32 = 24;
/// Looks of [`settle`] altogether: whoever moves on for longer is not waited for.
const LOOKS: u32 = 400;

/// Looks at `level` until it stands still above zero or reaches `enough`; false if it stays zero for as
/// long as a sleep and its end would take.
///
/// For threads that share a lock with those who raise the level: who comes back when they have done what
/// they can finds the lock free, and neither has to be woken.
pub(crate) fn settle(enough: usize, level: impl Fn() -> usize) -> bool {
    let (mut before, mut idle) = (0, 0);
    for _ in 0..LOOKS {
        for _ in 0..16 {
            spin_loop();
        }
        yield_now();
        let now = level();
        if now >= enough || (now > 0 && now == before) {
            return true;
        }
        idle += u32::from(now == 0);
        if idle > IDLE_LOOKS {
            return false;
        }
        before = now;
    }
    true
}
