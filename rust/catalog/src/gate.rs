//! Many commits into containers at a time, or one container's end alone.
//!
//! A container may be deleted only while it is empty. That it is empty is seen in one moment and the
//! deletion committed in a later one; between them no put may come. Puts pass the gate together for the
//! time of their commit, a deletion alone, and who waits at it looks at its deadline.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use dwk_base::{Deadline, Result};

#[derive(Debug, Default)]
pub(crate) struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Commits that are inside.
    inside: usize,
    /// Deletions that are inside or wait; commits let them go first.
    closing: usize,
    /// A deletion is inside.
    closed: bool,
}

impl Gate {
    /// Goes in together with others.
    pub(crate) fn share(&self, deadline: &Deadline) -> Result<Shared<'_>> {
        let mut state = self.wait(self.lock(), deadline, |state| state.closing == 0)?;
        state.inside += 1;
        Ok(Shared(self))
    }

    /// Goes in alone.
    pub(crate) fn close(&self, deadline: &Deadline) -> Result<Closed<'_>> {
        let mut state = self.lock();
        state.closing += 1;
        drop(state);
        // From here on the guard takes the announcement back, also when the deadline passes.
        let mut closed = Closed { gate: self, inside: false };
        let free = |state: &State| state.inside == 0 && !state.closed;
        self.wait(self.lock(), deadline, free)?.closed = true;
        closed.inside = true;
        Ok(closed)
    }

    fn wait<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        deadline: &Deadline,
        ready: impl Fn(&State) -> bool,
    ) -> Result<MutexGuard<'a, State>> {
        while !ready(&state) {
            deadline.check()?;
            let waited = self.changed.wait_timeout(state, deadline.remaining());
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        Ok(state)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Inside together with others until it is dropped.
#[derive(Debug)]
pub(crate) struct Shared<'a>(&'a Gate);

impl Drop for Shared<'_> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.inside -= 1;
        if state.inside == 0 && state.closing > 0 {
            self.0.changed.notify_all();
        }
    }
}

/// Inside alone until it is dropped.
#[derive(Debug)]
pub(crate) struct Closed<'a> {
    gate: &'a Gate,
    inside: bool,
}

impl Drop for Closed<'_> {
    fn drop(&mut self) {
        let mut state = self.gate.lock();
        state.closing -= 1;
        if self.inside {
            state.closed = false;
        }
        self.gate.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dwk_base::{SystemClock, codes};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    fn soon(ms: u64) -> Deadline {
        Deadline::after(Arc::new(SystemClock::default()), Duration::from_millis(ms))
    }

    #[test]
    fn who_goes_in_alone_waits_for_the_others_and_gives_up_at_its_deadline() {
        let gate = Gate::default();
        let shared = gate.share(&soon(1000)).unwrap();
        assert!(gate.close(&soon(20)).is_err_and(|error| error.is(&codes::CONTEXT_DEADLINE)));
        let other = gate.share(&soon(1000)).unwrap();
        drop((shared, other));
        let closed = gate.close(&soon(1000)).unwrap();
        assert!(gate.share(&soon(20)).is_err());
        drop(closed);
        assert!(gate.share(&soon(20)).is_ok());
    }

    #[test]
    fn nobody_is_inside_with_one_that_is_alone() {
        let (gate, inside) = (Gate::default(), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let (gate, inside) = (&gate, &inside);
                scope.spawn(move || {
                    for turn in 0..300 {
                        if (turn + thread) % 7 == 0 {
                            let _closed = gate.close(&soon(10_000)).unwrap();
                            assert_eq!(inside.fetch_add(100, Ordering::SeqCst), 0);
                            inside.fetch_sub(100, Ordering::SeqCst);
                        } else {
                            let _shared = gate.share(&soon(10_000)).unwrap();
                            assert!(inside.fetch_add(1, Ordering::SeqCst) < 100);
                            inside.fetch_sub(1, Ordering::SeqCst);
                        }
                    }
                });
            }
        });
    }
}
