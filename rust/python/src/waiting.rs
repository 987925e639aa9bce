//! How long Python waits, and that Ctrl-C ends it.

use std::sync::Arc;
use std::time::Duration;

use dwk_base::{Deadline, Error, Result, SystemClock, codes, units};
use pyo3::prelude::*;

use crate::detach::detach;
use crate::errors::to_py;

/// A signal that comes just before the main thread falls asleep is seen after this long.
const MAIN_THREAD_SLICE: Duration = Duration::from_millis(250);

/// A duration as `dwkernel.units` takes it: seconds, or text such as "30s".
pub(crate) fn duration_of(timeout: &Bound<'_, PyAny>) -> PyResult<Duration> {
    let py = timeout.py();
    if let Ok(text) = timeout.extract::<&str>() {
        return units::parse_duration(text).map_err(|error| to_py(py, &error));
    }
    let seconds = timeout.extract::<f64>().ok();
    seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()).ok_or_else(|| {
        let message = format!("not a duration: {timeout}");
        to_py(py, &Error::new(&codes::UNIT_INVALID, message).with("value", timeout))
    })
}

/// When a wait ends that begins now; `None` waits for ever.
pub(crate) fn deadline_of(timeout: Option<&Bound<'_, PyAny>>) -> PyResult<Deadline> {
    timeout.map_or(Ok(Deadline::never()), |timeout| Ok(after(duration_of(timeout)?)))
}

/// A deadline that does not wait.
pub(crate) fn now() -> Deadline {
    after(Duration::ZERO)
}

fn after(limit: Duration) -> Deadline {
    Deadline::after(Arc::new(SystemClock::default()), limit)
}

/// A nearer deadline, if this thread is the one that must look for signals before `deadline`.
pub(crate) fn slice_of(deadline: &Deadline) -> Option<Deadline> {
    let long = is_main_thread() && deadline.remaining() > MAIN_THREAD_SLICE;
    long.then(|| after(MAIN_THREAD_SLICE))
}

/// Calls `wait` without the GIL, with nearer deadlines one after the other, until it returns true or the
/// deadline has passed; returns which. Signals are looked for in between.
pub(crate) fn in_slices(
    py: Python<'_>,
    deadline: &Deadline,
    mut wait: impl FnMut(&Deadline) -> Result<bool> + Send,
) -> PyResult<bool> {
    loop {
        let slice = slice_of(deadline);
        if detach(py, || wait(slice.as_ref().unwrap_or(deadline)))? {
            return Ok(true);
        }
        if deadline.has_passed() {
            return Ok(false);
        }
        py.check_signals()?;
    }
}

/// Python handles signals in its main thread, which is the process's own where `python` was started.
#[cfg(target_os = "linux")]
fn is_main_thread() -> bool {
    dwk_queue::is_main_thread()
}

#[cfg(not(target_os = "linux"))]
fn is_main_thread() -> bool {
    true
}
