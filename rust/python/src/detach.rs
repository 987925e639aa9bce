//! The one way out of the interpreter and back.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::{mem, thread};

use dwk_base::{Error, Result, codes};
use pyo3::prelude::*;

use crate::errors;

/// Less work than this is done before another thread could be woken, so the GIL is kept.
const WORK_BYTES_MIN: usize = 16 << 10;

/// Runs `work` with the GIL released; a panic becomes `internal.bug`, an error its Python exception.
pub(crate) fn detach<T: Send>(
    py: Python<'_>,
    work: impl FnOnce() -> Result<T> + Send,
) -> PyResult<T> {
    let outcome = py.detach(|| caught(work));
    outcome.map_err(|error| errors::to_py(py, &error))
}

/// As [`detach`], but keeps the GIL if there are only a few `bytes` to work on.
pub(crate) fn detach_if_long<T: Send>(
    py: Python<'_>,
    bytes: usize,
    work: impl FnOnce() -> Result<T> + Send,
) -> PyResult<T> {
    if bytes >= WORK_BYTES_MIN {
        return detach(py, work);
    }
    caught(work).map_err(|error| errors::to_py(py, &error))
}

/// Runs `work` in the interpreter, on a thread that has left it or was never in it; `None` if it has ended.
///
/// An interpreter that ends takes threads that ask for it off their stacks (until Python 3.14, which lets
/// them rest). These stacks are Rust's too, and what is cleaned up on the way would end the process with
/// `SIGABRT`: so such a thread rests here, and goes with the process.
pub(crate) fn attach<T>(work: impl FnOnce(Python<'_>) -> T) -> Option<T> {
    Python::try_attach(|py| {
        let resting = Resting;
        let done = work(py);
        mem::forget(resting);
        done
    })
}

/// Dropped only when the stack is taken down.
struct Resting;

impl Drop for Resting {
    fn drop(&mut self) {
        // A panic takes it down, too, and is caught above.
        while !thread::panicking() {
            thread::park();
        }
    }
}

// What a panic left half-done belongs to `work`, which is gone with it.
fn caught<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| Err(bug(panic.as_ref())))
}

fn bug(panic: &(dyn Any + Send)) -> Error {
    let said = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no message");
    Error::new(&codes::INTERNAL_BUG, format!("an assertion failed: {said}"))
}
