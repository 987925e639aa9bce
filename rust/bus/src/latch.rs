//! Counts what runs, so that somebody can wait for its end.

use std::sync::{Arc, Condvar, Mutex};

use dwk_base::Deadline;

use crate::sync::{guard, wait};

/// How many run.
#[derive(Debug, Default)]
pub(crate) struct Latch {
    running: Mutex<usize>,
    ended: Condvar,
}

impl Latch {
    /// One more runs, until the result is dropped.
    pub(crate) fn enter(self: &Arc<Self>) -> Running {
        *guard(&self.running) += 1;
        Running(Arc::clone(self))
    }

    /// Waits until none runs; returns how many still do at the deadline.
    pub(crate) fn wait(&self, deadline: &Deadline) -> usize {
        let mut running = guard(&self.running);
        while *running > 0 {
            let left = deadline.remaining();
            if left.is_zero() {
                break;
            }
            running = wait(&self.ended, running, left);
        }
        *running
    }
}

/// One that runs.
pub(crate) struct Running(Arc<Latch>);

impl Drop for Running {
    fn drop(&mut self) {
        *guard(&self.0.running) -= 1;
        self.0.ended.notify_all();
    }
}
