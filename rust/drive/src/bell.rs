//! A bell that several answers ring: who waits for any of them waits for it.

use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use crate::checks::guard;

/// Rings once for each answer.
#[derive(Debug, Default)]
pub struct Bell {
    rings: Mutex<u64>,
    rung: Condvar,
}

impl Bell {
    /// How often it rang.
    pub fn rings(&self) -> u64 {
        *guard(&self.rings)
    }

    /// Waits until it rang more often than `rings`, at most so long. True if it did.
    pub fn wait_past(&self, rings: u64, limit: Duration) -> bool {
        let same = |now: &mut u64| *now <= rings;
        let waited = self.rung.wait_timeout_while(guard(&self.rings), limit, same);
        waited.is_ok_and(|(_, timeout)| !timeout.timed_out())
    }
}

/// Rings, if there is a bell, when it is dropped.
pub(crate) struct Ringer(pub(crate) Option<Arc<Bell>>);

impl Drop for Ringer {
    fn drop(&mut self) {
        if let Some(bell) = &self.0 {
            *guard(&bell.rings) += 1;
            bell.rung.notify_all();
        }
    }
}
