//! How many operations are under way, so that closing can wait for them.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dwk_base::{Deadline, Error, Result, codes};

/// So often who waits for operations looks whether it should go on.
const LOOK_EVERY: Duration = Duration::from_millis(100);

#[derive(Debug, Default)]
pub(crate) struct Flights {
    state: Mutex<State>,
    landed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    under_way: usize,
    closed: bool,
}

impl Flights {
    /// One more operation begins.
    ///
    /// # Errors
    /// `store.closed`
    pub(crate) fn begin(&self) -> Result<Flight<'_>> {
        let mut state = self.lock();
        if state.closed {
            return Err(Error::new(&codes::STORE_CLOSED, "the store is closed"));
        }
        state.under_way += 1;
        Ok(Flight(self))
    }

    /// Lets nobody in any more and waits for those inside; `look` is called now and then, and may end that.
    /// False if it was closed already.
    ///
    /// # Errors
    /// `context.deadline`: some are still under way, and the store stays shut for new ones; those of `look`,
    /// with the same effect
    pub(crate) fn close(
        &self,
        deadline: &Deadline,
        look: &mut dyn FnMut() -> Result<()>,
    ) -> Result<bool> {
        let mut state = self.lock();
        let first = !state.closed;
        state.closed = true;
        while state.under_way > 0 {
            deadline.check()?;
            let wait = deadline.remaining().min(LOOK_EVERY);
            let (waited, timeout) =
                self.landed.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner);
            state = waited;
            if timeout.timed_out() && state.under_way > 0 {
                // Who looks may need what somebody holds who lands.
                drop(state);
                look()?;
                state = self.lock();
            }
        }
        Ok(first)
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An operation that is under way until this is dropped.
#[derive(Debug)]
pub(crate) struct Flight<'a>(&'a Flights);

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.under_way -= 1;
        if state.under_way == 0 && state.closed {
            self.0.landed.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    use dwk_base::SystemClock;

    fn in_ms(ms: u64) -> Deadline {
        Deadline::after(Arc::new(SystemClock::default()), Duration::from_millis(ms))
    }

    #[test]
    fn closing_waits_for_what_is_under_way_and_lets_nothing_new_in() {
        let flights = Flights::default();
        let flight = flights.begin().unwrap();
        assert!(flights.close(&in_ms(10), &mut || Ok(())).is_err());
        assert!(flights.begin().is_err_and(|error| error.is(&codes::STORE_CLOSED)));
        std::thread::scope(|scope| {
            scope.spawn(|| drop(flight));
            assert!(flights.close(&in_ms(10_000), &mut || Ok(())).is_ok());
        });
    }

    #[test]
    fn who_closes_may_stop_waiting_and_it_stays_shut() {
        let flights = Flights::default();
        let flight = flights.begin().unwrap();
        let mut looks = 0;
        let mut stop = || {
            looks += 1;
            Err(Error::new(&codes::CONTEXT_CANCELLED, "enough"))
        };
        let stopped = flights.close(&in_ms(60_000), &mut stop);
        assert!(stopped.is_err_and(|error| error.is(&codes::CONTEXT_CANCELLED)));
        assert_eq!(looks, 1);
        assert!(flights.begin().is_err_and(|error| error.is(&codes::STORE_CLOSED)));
        drop(flight);
        assert!(flights.close(&in_ms(10_000), &mut || Ok(())).is_ok_and(|first| !first));
    }
}
