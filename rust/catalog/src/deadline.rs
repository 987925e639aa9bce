//! Until when an operation may take.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use dwk_base::{Clock, Error, Result, codes};

/// A moment on a monotonic clock after which an operation gives up.
#[derive(Clone)]
pub struct Deadline {
    clock: Arc<dyn Clock>,
    at: Duration,
}

impl Deadline {
    /// `limit` from now.
    pub fn after(clock: Arc<dyn Clock>, limit: Duration) -> Self {
        let at = clock.monotonic().saturating_add(limit);
        Self { clock, at }
    }

    /// What is left; zero once it passed.
    pub fn remaining(&self) -> Duration {
        self.at.saturating_sub(self.clock.monotonic())
    }

    /// The moment, on the monotonic clock.
    pub const fn at(&self) -> Duration {
        self.at
    }

    /// The clock that it is measured on.
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    /// Fails once the moment passed.
    ///
    /// # Errors
    /// `context.deadline`
    pub fn check(&self) -> Result<()> {
        if self.remaining().is_zero() {
            return Err(Error::new(&codes::CONTEXT_DEADLINE, "the operation's time is over"));
        }
        Ok(())
    }
}

impl fmt::Debug for Deadline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Deadline").field(&self.remaining()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dwk_base::ManualClock;

    #[test]
    fn passes_when_its_time_is_over() {
        let clock = Arc::new(ManualClock::default());
        let deadline = Deadline::after(clock.clone(), Duration::from_secs(2));
        assert!(deadline.check().is_ok());
        clock.advance(Duration::from_secs(2));
        assert!(deadline.check().is_err_and(|error| error.is(&codes::CONTEXT_DEADLINE)));
        assert_eq!(Deadline::after(clock, Duration::MAX).at, Duration::MAX);
    }
}
