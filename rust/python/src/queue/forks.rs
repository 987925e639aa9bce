//! Which process a queue belongs to.

use std::sync::atomic::{AtomicU32, Ordering};

use pyo3::prelude::*;

/// Counts forks, in the children. A queue knows the one it was made in.
static GENERATION: AtomicU32 = AtomicU32::new(0);

/// Tells the queues that this process is a fork's child.
#[pyfunction]
pub(crate) fn queue_forked() {
    GENERATION.fetch_add(1, Ordering::Relaxed);
}

/// The process in which it was made, for less than a system call.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Generation(u32);

impl Generation {
    #[inline]
    pub(super) fn now() -> Self {
        Self(GENERATION.load(Ordering::Relaxed))
    }
}
