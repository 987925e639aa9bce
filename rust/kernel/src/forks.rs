//! What must not be touched in a child that a fork made: locks may be held there by threads that do not
//! exist, and drives belong to the parent.

use std::{mem, process};

use dwk_base::{Error, Result, codes};

/// A value of the process that made it. In a forked child it cannot be reached, and it is not dropped
/// there: its memory goes with the child.
#[derive(Debug)]
pub struct Guarded<T> {
    /// Always there until the drop.
    value: Option<T>,
    pid: u32,
}

impl<T> Guarded<T> {
    /// Ties `value` to this process.
    pub fn new(value: T) -> Self {
        Self { value: Some(value), pid: process::id() }
    }

    /// The value.
    ///
    /// # Errors
    /// `store.forked`
    pub fn get(&self) -> Result<&T> {
        self.check()?;
        self.value.as_ref().ok_or_else(gone)
    }

    /// The value, to change it.
    ///
    /// # Errors
    /// `store.forked`
    pub fn get_mut(&mut self) -> Result<&mut T> {
        self.check()?;
        self.value.as_mut().ok_or_else(gone)
    }

    fn check(&self) -> Result<()> {
        let here = process::id();
        if here == self.pid {
            return Ok(());
        }
        let text = format!("the store was opened by process {}, and this is {here}", self.pid);
        Err(Error::new(&codes::STORE_FORKED, text).with("pid", self.pid))
    }
}

impl<T> Drop for Guarded<T> {
    fn drop(&mut self) {
        if self.check().is_err() {
            mem::forget(self.value.take());
        }
    }
}

fn gone() -> Error {
    Error::new(&codes::INTERNAL_BUG, "a guarded value is used after its drop")
}
