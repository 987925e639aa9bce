//! Locks that outlive a panic: what they guard is left sound by who held them.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub(crate) fn guard<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits to be woken, but at most `limit`.
pub(crate) fn wait<'a, T>(
    wake: &Condvar,
    held: MutexGuard<'a, T>,
    limit: Duration,
) -> MutexGuard<'a, T> {
    wake.wait_timeout(held, limit).unwrap_or_else(PoisonError::into_inner).0
}
