//! Waiting for what another thread is about to finish.

use crate::sync::{MODEL, spin_loop, yield_now};

/// Turns of spinning double from 1 to `2^SPIN_STEPS`; after that the processor is given away.
const SPIN_STEPS: u32 = 6;
/// So often is the processor given away before it is better to sleep.
const YIELDS: u32 = 4;

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

    /// False when what is waited for will take longer, if it comes at all.
    #[inline]
    pub(crate) fn lasts(&self) -> bool {
        !MODEL && self.step <= SPIN_STEPS + YIELDS
    }
}
