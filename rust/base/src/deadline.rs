//! Until when an operation may take, and who waits for it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::{Clock, Error, Result, codes};

/// So often work looks, while it waits, whether somebody still waits for it.
const NAP: Duration = Duration::from_millis(20);

/// Who waits for long work: may want it no more, and hears how far it is.
#[derive(Debug, Default)]
pub struct Waiter {
    stopped: AtomicBool,
    done_bytes: AtomicU64,
}

impl Waiter {
    /// Wants it no more.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
    }

    /// How much was done so far.
    pub fn done_bytes(&self) -> u64 {
        self.done_bytes.load(Ordering::Relaxed)
    }
}

/// A moment on a monotonic clock after which an operation gives up; or somebody who may want it no more before.
/// By default there is neither.
#[derive(Clone, Default)]
pub struct Deadline {
    /// `None`: there is no such moment.
    until: Option<(Arc<dyn Clock>, Duration)>,
    waiter: Option<Arc<Waiter>>,
}

impl Deadline {
    /// `limit` from now.
    pub fn after(clock: Arc<dyn Clock>, limit: Duration) -> Self {
        let at = clock.monotonic().saturating_add(limit);
        Self { until: Some((clock, at)), waiter: None }
    }

    /// It also ends when `waiter` wants it no more.
    #[must_use]
    pub fn waited_for_by(mut self, waiter: Arc<Waiter>) -> Self {
        self.waiter = Some(waiter);
        self
    }

    /// For a part of the work: `limit` from now, and no later than the whole.
    #[must_use]
    pub fn at_most(&self, clock: Arc<dyn Clock>, limit: Duration) -> Self {
        let part = Self::after(clock, limit.min(self.remaining()));
        Self { waiter: self.waiter.clone(), ..part }
    }

    /// No deadline: for work that nobody waits for, and that has limits of its own.
    pub const fn never() -> Self {
        Self { until: None, waiter: None }
    }

    /// True once nobody waits for the work any more.
    pub fn is_unwanted(&self) -> bool {
        self.waiter.as_ref().is_some_and(|waiter| waiter.stopped.load(Ordering::SeqCst))
    }

    /// How long a wait may last before it looks at the deadline again.
    pub fn nap(&self) -> Duration {
        if self.waiter.is_some() { NAP } else { Duration::MAX }
    }

    /// Tells who waits that so many bytes more are done.
    pub fn tell(&self, bytes: u64) {
        if let Some(waiter) = &self.waiter {
            waiter.done_bytes.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    /// What is left: zero once it passed or nobody waits any more, [`Duration::MAX`] if it never does.
    pub fn remaining(&self) -> Duration {
        if self.is_unwanted() {
            return Duration::ZERO;
        }
        let left = |(clock, at): &(Arc<dyn Clock>, Duration)| at.saturating_sub(clock.monotonic());
        self.until.as_ref().map_or(Duration::MAX, left)
    }

    /// True once the moment passed.
    pub fn has_passed(&self) -> bool {
        self.remaining().is_zero()
    }

    /// Fails once the moment passed, or nobody waits any more.
    ///
    /// # Errors
    /// `context.deadline`, `context.cancelled`
    pub fn check(&self) -> Result<()> {
        if self.is_unwanted() {
            return Err(Error::new(&codes::CONTEXT_CANCELLED, "the caller stopped the operation"));
        }
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
        assert_eq!(Deadline::never().nap(), Duration::MAX, "nobody is to be looked after");
    }

    #[test]
    fn who_waits_may_stop_the_work_and_each_part_of_it() {
        let (clock, waiter) = (Arc::new(ManualClock::default()), Arc::new(Waiter::default()));
        for whole in [Deadline::never(), Deadline::after(clock.clone(), Duration::from_secs(9))] {
            let waiter = Arc::new(Waiter::default());
            let whole = whole.waited_for_by(Arc::clone(&waiter));
            let part = whole.at_most(clock.clone(), Duration::from_secs(2));
            assert_eq!(part.remaining(), Duration::from_secs(2));
            assert!(part.nap() < Duration::from_millis(100));
            part.tell(7);
            assert_eq!(waiter.done_bytes(), 7);
            waiter.stop();
            for stopped in [whole, part] {
                assert!(stopped.is_unwanted() && stopped.remaining().is_zero());
                assert!(stopped.check().is_err_and(|error| error.is(&codes::CONTEXT_CANCELLED)));
            }
        }
        let deadline = Deadline::never().waited_for_by(waiter);
        assert!(deadline.check().is_ok() && deadline.remaining() == Duration::MAX);
    }
}
