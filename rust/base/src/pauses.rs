//! Trying again what the process could not do just now.

use std::sync::Arc;
use std::time::Duration;

use crate::Clock;

const FIRST: Duration = Duration::from_millis(2);
const LONGEST: Duration = Duration::from_millis(250);

/// Pauses between tries, each twice as long as the one before, until together they have taken as long as they may.
/// Time in which the process stood still does not count.
pub struct Pauses {
    clock: Arc<dyn Clock>,
    next: Duration,
    left: Duration,
}

impl Pauses {
    /// Pauses of at most `limit` together.
    pub fn new(clock: &Arc<dyn Clock>, limit: Duration) -> Self {
        Self { clock: Arc::clone(clock), next: FIRST, left: limit }
    }

    /// Waits before another try; false if the time is over.
    pub fn pause(&mut self) -> bool {
        let pause = self.next.min(self.left);
        if pause.is_zero() {
            return false;
        }
        self.clock.sleep(pause);
        self.left = self.left.saturating_sub(pause);
        self.next = (self.next * 2).min(LONGEST);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ManualClock;

    #[test]
    fn pauses_grow_and_end_together_when_the_time_is_over() {
        let manual = Arc::new(ManualClock::default());
        let clock: Arc<dyn Clock> = Arc::clone(&manual) as _;
        let start = clock.monotonic();
        let mut pauses = Pauses::new(&clock, Duration::from_secs(3));
        let tries = std::iter::from_fn(|| pauses.pause().then_some(())).count();
        assert_eq!(clock.monotonic(), start + Duration::from_secs(3));
        assert!((15..30).contains(&tries), "{tries}");
        assert!(!Pauses::new(&clock, Duration::ZERO).pause());
    }
}
