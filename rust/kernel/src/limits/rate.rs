//! So many operations a second: a token bucket with a line.
//!
//! Tokens come at the rate and are kept up to the burst. An operation takes a number; it may go when as many
//! tokens have come. One that would wait beyond its deadline takes none and is told how long it would be.
//!
//! Source: the token bucket of RFC 2697, with a queue in front of it.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dwk_base::{Clock, Deadline, Error, Result, codes};

use super::{Live, Settings, Snapshot};

/// The bucket.
#[derive(Debug, Default)]
pub(crate) struct Rate {
    state: Mutex<State>,
    /// Settings changed.
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Tokens that came since the bucket is there.
    granted: f64,
    /// Numbers that were taken.
    taken: f64,
    /// Until when tokens were counted.
    since: Duration,
    /// Of the settings that they were counted under.
    version: u64,
    rate: Option<f64>,
}

impl State {
    /// Counts the tokens that came until `now`, at the rate that held, and goes on with that of `snapshot`.
    fn advance(&mut self, now: Duration, snapshot: &Snapshot) {
        let settings = &snapshot.settings;
        match self.rate {
            Some(rate) => {
                self.granted += now.saturating_sub(self.since).as_secs_f64() * rate;
                self.granted = self.granted.min(self.taken + settings.burst());
            }
            None => self.granted = self.taken + settings.burst(),
        }
        self.since = now;
        if snapshot.version > self.version {
            (self.version, self.rate) = (snapshot.version, settings.rate);
            // Those who wait take new numbers.
            self.taken = self.taken.min(self.granted);
        }
    }

    /// How long until the operation with `number` may go.
    fn wait_for(&self, number: f64, rate: f64) -> Duration {
        let wait_s = ((number - self.granted) / rate).max(0.0);
        Duration::try_from_secs_f64(wait_s).unwrap_or(Duration::MAX)
    }
}

impl Rate {
    /// Waits for the operation's turn; false if the settings changed meanwhile, so that it begins anew.
    ///
    /// # Errors
    /// `limit.rate` (detail `retry_after_s`) if its turn would come after the deadline, `store.closed`
    pub(crate) fn enter(
        &self,
        clock: &dyn Clock,
        live: &Live,
        snapshot: &Snapshot,
        deadline: &Deadline,
    ) -> Result<bool> {
        let Settings { rate: Some(rate), .. } = snapshot.settings else { return Ok(true) };
        let mut state = self.lock();
        state.advance(clock.monotonic(), snapshot);
        let number = state.taken + 1.0;
        let wait = state.wait_for(number, rate);
        if wait > deadline.remaining() {
            return Err(refused(rate, wait));
        }
        state.taken = number;
        loop {
            // Only under the lock: whoever changes settings takes it before it tells.
            if live.is_past(snapshot)? {
                return Ok(false);
            }
            state.advance(clock.monotonic(), snapshot);
            let wait = state.wait_for(number, rate);
            if wait.is_zero() {
                return Ok(true);
            }
            let waited = self.changed.wait_timeout(state, wait);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Goes on at the rate of `snapshot`, and tells those who wait.
    pub(crate) fn change(&self, clock: &dyn Clock, snapshot: &Snapshot) {
        self.lock().advance(clock.monotonic(), snapshot);
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn refused(rate: f64, wait: Duration) -> Error {
    let text = format!("{rate} operations a second are let in, and its turn would come too late");
    Error::new(&codes::LIMIT_RATE, text).with("retry_after_s", format!("{:.3}", wait.as_secs_f64()))
}
