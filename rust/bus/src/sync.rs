//! Locks, and waiting under one.

use std::sync::{
    Condvar, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
};
use std::time::Duration;

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

/// Waits to be woken, but at most `limit`; a limit of [`Duration::MAX`] is none.
pub(crate) fn wait<'a, T>(
    woken: &Condvar,
    guard: MutexGuard<'a, T>,
    limit: Duration,
) -> MutexGuard<'a, T> {
    if limit == Duration::MAX {
        return woken.wait(guard).unwrap_or_else(PoisonError::into_inner);
    }
    woken.wait_timeout(guard, limit).unwrap_or_else(PoisonError::into_inner).0
}
