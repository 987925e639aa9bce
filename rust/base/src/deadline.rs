//! Until when an operation may take.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::{Clock, Error, Result, codes};

/// A moment on a monotonic clock after which an operation gives up.
/// By default there is none.
#[derive(Clone, Default)]
pub struct Deadline {
    /// `None`: there is no such moment.
    until: Option<(Arc<dyn Clock>, Duration)>,
}

impl Deadline {
    /// `limit` from now.
    pub fn after(clock: Arc<dyn Clock>, limit: Duration) -> Self {
        let at = clock.monotonic().saturating_add(limit);
        Self { until: Some((clock, at)) }
    }

    /// No deadline: for work that nobody waits for, and that has limits of its own.
    pub const fn never() -> Self {
        Self { until: None }
    }

    /// What is left: zero once it passed, [`Duration::MAX`] if it never does.
    pub fn remaining(&self) -> Duration {
        let left = |(clock, at): &(Arc<dyn Clock>, Duration)| at.saturating_sub(clock.monotonic());
        self.until.as_ref().map_or(Duration::MAX, left)
    }

    /// True once the moment passed.
    pub fn has_passed(&self) -> bool {
        self.remaining().is_zero()
    }

    /// Fails once the moment passed.
    ///
    /// # Errors
    /// `context.deadline`
    pub fn check(&self) -> Result<()> {
        if self.has_passed() { Err(Self::passed("the operation's time is over")) } else { Ok(()) }
    }

    /// What an operation fails with whose time is over; `text` says what that means for it.
    pub fn passed(text: impl Into<String>) -> Error {
        Error::new(&codes::CONTEXT_DEADLINE, text)
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
    use crate::ManualClock;

    #[test]
    fn passes_when_its_time_is_over() {
        let clock = Arc::new(ManualClock::default());
        let deadline = Deadline::after(clock.clone(), Duration::from_secs(2));
        assert!(deadline.check().is_ok());
        clock.advance(Duration::from_secs(2));
        assert!(deadline.check().is_err_and(|error| error.is(&codes::CONTEXT_DEADLINE)));
        let far = Deadline::after(clock, Duration::MAX);
        assert!(far.remaining() > Duration::from_secs(1 << 40));
        assert!(Deadline::never().check().is_ok());
    }
}
