//! A queue of Python objects as those see it who hold the GIL.

#![allow(unsafe_code, reason = "the GIL keeps everybody else away")]

use std::ops::Deref;
use std::vec;

use dwk_queue::{PopError, PushError, Queue};
use pyo3::prelude::*;

/// What goes in and out here does so with the GIL held; sleepers and those who settle only look.
///
/// Boxed: Python aligns its objects to 16 bytes, a queue wants cache lines of its own.
pub(super) struct Held(Box<Queue<Py<PyAny>>>);

impl Held {
    pub(super) fn new(queue: Queue<Py<PyAny>>) -> Self {
        Self(Box::new(queue))
    }

    /// Puts an item in.
    #[inline]
    pub(super) fn push(&self, lane: usize, item: Py<PyAny>) -> Result<(), PushError<Py<PyAny>>> {
        #[cfg(Py_GIL_DISABLED)]
        return self.0.try_push_to(lane, item);
        // SAFETY: whatever touches the queue, lines included, holds the GIL; sleepers and those who settle
        // only look.
        #[cfg(not(Py_GIL_DISABLED))]
        unsafe {
            self.0.try_push_alone_to(lane, item)
        }
    }

    /// Takes an item out.
    #[inline]
    pub(super) fn pop(&self) -> Result<Py<PyAny>, PopError> {
        #[cfg(Py_GIL_DISABLED)]
        return self.0.try_pop();
        // SAFETY: as above.
        #[cfg(not(Py_GIL_DISABLED))]
        unsafe {
            self.0.try_pop_alone()
        }
    }

    /// Puts as many in as there is room for.
    pub(super) fn push_many(
        &self,
        lane: usize,
        items: &mut vec::IntoIter<Py<PyAny>>,
    ) -> Result<usize, PushError<()>> {
        #[cfg(Py_GIL_DISABLED)]
        return self.0.try_push_many(lane, items);
        // SAFETY: as in `push`.
        #[cfg(not(Py_GIL_DISABLED))]
        unsafe {
            self.0.try_push_many_alone(lane, items)
        }
    }

    /// Takes out as many as there are.
    pub(super) fn pop_many(
        &self,
        into: &mut Vec<Py<PyAny>>,
        limit: usize,
    ) -> Result<usize, PopError> {
        #[cfg(Py_GIL_DISABLED)]
        return self.0.try_pop_many(into, limit);
        // SAFETY: as in `push`.
        #[cfg(not(Py_GIL_DISABLED))]
        unsafe {
            self.0.try_pop_many_alone(into, limit)
        }
    }
}

impl Deref for Held {
    type Target = Queue<Py<PyAny>>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}
