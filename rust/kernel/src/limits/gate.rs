//! So many operations under way at once.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use dwk_base::{Deadline, Error, Result, codes};

use super::{Live, Snapshot};

/// Counts those inside.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    inside: Mutex<u32>,
    /// Somebody left, or settings changed.
    changed: Condvar,
}

impl Gate {
    /// Goes in when there is room; false if the settings changed meanwhile, so that it begins anew.
    ///
    /// # Errors
    /// `limit.operations` if there is none until the deadline, `store.closed`
    pub(crate) fn enter(
        &self,
        live: &Live,
        snapshot: &Snapshot,
        deadline: &Deadline,
    ) -> Result<bool> {
        let mut inside = self.lock();
        if let Some(limit) = snapshot.settings.operations {
            while *inside >= limit {
                if live.is_past(snapshot)? {
                    return Ok(false);
                }
                let remaining = deadline.remaining();
                if remaining.is_zero() {
                    let text = format!("{inside} operations are under way, and {limit} may be");
                    return Err(Error::new(&codes::LIMIT_OPERATIONS, text).with("limit", limit));
                }
                let waited = self.changed.wait_timeout(inside, remaining);
                inside = waited.unwrap_or_else(PoisonError::into_inner).0;
            }
        }
        *inside += 1;
        Ok(true)
    }

    /// Comes out again.
    pub(crate) fn leave(&self) {
        *self.lock() -= 1;
        self.changed.notify_one();
    }

    /// Tells those who wait that settings changed.
    pub(crate) fn change(&self) {
        drop(self.lock());
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, u32> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
