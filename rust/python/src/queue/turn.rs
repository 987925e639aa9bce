//! What an event loop needs to wait on a queue.

use dwk_queue::Turn;
use pyo3::prelude::*;

use crate::forks::Ours;

/// An event loop's bell.
#[cfg(unix)]
#[pyclass(frozen, module = "dwkernel._native")]
pub(crate) struct Bell {
    bell: dwk_queue::Bell,
}

#[cfg(unix)]
impl Bell {
    pub(crate) fn waker(&self, waiter: u64) -> std::task::Waker {
        self.bell.waker(waiter)
    }
}

#[cfg(unix)]
#[pymethods]
impl Bell {
    #[new]
    fn new() -> PyResult<Self> {
        Ok(Self { bell: dwk_queue::Bell::new().map_err(std::io::Error::from)? })
    }

    fn fileno(&self) -> i32 {
        use std::os::fd::AsRawFd;
        self.bell.as_fd().as_raw_fd()
    }

    /// For whom it rang since the last call.
    fn answer(&self) -> Vec<u64> {
        self.bell.answer()
    }
}

/// A place in a queue's line, for an event loop.
#[pyclass(module = "dwkernel._native")]
pub(crate) struct QueueTurn {
    turn: Ours<Option<Turn>>,
}

impl QueueTurn {
    pub(super) fn new(turn: Turn) -> Self {
        Self { turn: Ours::new(Some(turn)) }
    }
}

#[pymethods]
impl QueueTurn {
    /// Enters the line: `bell` rings for `waiter` when it is worth a try.
    #[cfg(unix)]
    fn enroll(&mut self, bell: &Bell, waiter: u64) {
        if let Some(turn) = &mut *self.turn {
            turn.enroll_with(bell.bell.waker(waiter));
        }
    }

    /// Leaves it with what was waited for.
    fn served(&mut self) {
        if let Some(turn) = self.turn.take() {
            turn.served();
        }
    }

    /// Leaves it without; passes on what it was told.
    fn leave(&mut self) {
        *self.turn = None;
    }
}
