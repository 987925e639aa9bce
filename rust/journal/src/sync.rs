//! Locks, and waiting for several members at once.

use std::sync::{
    Condvar, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
};
use std::time::Duration;

use dwk_base::Result;
use dwk_drive::PARTS_OF_PATIENCE;

/// Takes a mutex. What it holds is only ever changed in whole steps, so a panic elsewhere does not matter.
pub(crate) fn guard<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes a lock to read, as [`guard`].
pub(crate) fn shared<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

/// Takes a lock to write, as [`guard`].
pub(crate) fn exclusive<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

/// Several answers on their way; the last one wakes the waiter, once.
pub(crate) struct Join {
    state: Mutex<Answers>,
    whole: Condvar,
}

struct Answers {
    answers: Vec<Option<Result<()>>>,
    missing: usize,
}

impl Join {
    pub(crate) fn new(count: usize) -> Self {
        let answers = (0..count).map(|_| None).collect();
        Self { state: Mutex::new(Answers { answers, missing: count }), whole: Condvar::new() }
    }

    pub(crate) fn answer(&self, index: usize, result: Result<()>) {
        let mut state = guard(&self.state);
        state.answers[index] = Some(result);
        state.missing -= 1;
        if state.missing == 0 {
            self.whole.notify_one();
        }
    }

    /// Waits at most `limit`, not counting time in which the process stood still; what is late is `None`.
    pub(crate) fn wait(&self, limit: Duration) -> Vec<Option<Result<()>>> {
        let mut state = guard(&self.state);
        for _ in 0..PARTS_OF_PATIENCE {
            let part = limit / PARTS_OF_PATIENCE;
            let waited = self.whole.wait_timeout_while(state, part, |state| state.missing > 0);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
            if state.missing == 0 {
                break;
            }
        }
        // Late answers still find their places.
        let count = state.answers.len();
        std::mem::replace(&mut state.answers, (0..count).map(|_| None).collect())
    }
}
