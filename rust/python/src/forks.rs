//! Which process something belongs to: in a fork's child, locks may be held by threads that are not there.

use std::mem::ManuallyDrop;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicU32, Ordering};

use dwk_base::{Error, Result, codes};
use pyo3::prelude::*;

/// Counts forks, in the children. A queue or a bus knows the one it was made in.
static GENERATION: AtomicU32 = AtomicU32::new(0);

/// Tells queues and buses that this process is a fork's child.
#[pyfunction]
pub(crate) fn forked() {
    GENERATION.fetch_add(1, Ordering::Relaxed);
}

/// The process in which it was made, for less than a system call.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Generation(u32);

impl Generation {
    #[inline]
    pub(crate) fn now() -> Self {
        Self(GENERATION.load(Ordering::Relaxed))
    }

    /// `bus.forked` in a child that a fork made since.
    pub(crate) fn check(self) -> Result<()> {
        if self == Self::now() {
            return Ok(());
        }
        let text = "this bus was made before the fork that made this process";
        Err(Error::new(&codes::BUS_FORKED, text))
    }
}

/// Something that is not dropped in a child that a fork made since: its memory goes with the child.
pub(crate) struct Ours<T> {
    value: ManuallyDrop<T>,
    made_in: Generation,
}

impl<T> Ours<T> {
    pub(crate) fn new(value: T) -> Self {
        Self { value: ManuallyDrop::new(value), made_in: Generation::now() }
    }

    /// The value.
    ///
    /// # Errors
    /// `bus.forked`
    pub(crate) fn get(&self) -> Result<&T> {
        self.made_in.check()?;
        Ok(&self.value)
    }
}

impl<T> Deref for Ours<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> DerefMut for Ours<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.value
    }
}

impl<T> Drop for Ours<T> {
    #[allow(unsafe_code, reason = "dropped once, or never")]
    fn drop(&mut self) {
        if self.made_in == Generation::now() {
            // SAFETY: it is not used again.
            unsafe { ManuallyDrop::drop(&mut self.value) };
        }
    }
}
