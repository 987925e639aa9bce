//! Waiting: what for, until when, and without the GIL.

use std::sync::Arc;
use std::time::Duration;

use dwk_base::{Deadline, Error, Result, SystemClock, units};
use dwk_queue::{Turn, Waited};
use pyo3::prelude::*;
use pyo3::types::PyString;

use super::held::Held;
use crate::errors::to_py;

/// A signal that comes just before the main thread falls asleep is seen after this long.
const MAIN_THREAD_SLICE: Duration = Duration::from_millis(250);

/// What somebody waits for: items, or room in a lane.
#[derive(Clone, Copy)]
pub(super) struct Wish<'q> {
    pub(super) queue: &'q Held,
    /// How many items at most.
    pub(super) wants: usize,
    /// Room in this lane; `None`: items.
    pub(super) lane: Option<usize>,
}

impl Wish<'_> {
    fn turn(&self) -> Turn {
        match self.lane {
            Some(lane) => self.queue.turn_to_put(lane, self.wants),
            None => self.queue.turn_to_get(self.wants),
        }
    }

    /// Lets the others do what they can, for no longer than a sleep would take; true if it may be had now.
    fn settles(&self) -> bool {
        match self.lane {
            Some(lane) => self.queue.settle_for_room(lane),
            None => self.queue.settle_for_items(),
        }
    }
}

/// Tries until something comes of it, sleeping without the GIL in between. `late` is what it fails
/// with when the time is over.
pub(super) fn until<R>(
    py: Python<'_>,
    timeout: Option<&Bound<'_, PyAny>>,
    wish: Wish<'_>,
    mut attempt: impl FnMut() -> Option<Result<R>>,
    late: impl FnOnce() -> Error,
) -> PyResult<R> {
    let coded = |outcome: Result<R>| outcome.map_err(|error| to_py(py, &error));
    if let Some(done) = attempt() {
        return coded(done);
    }
    let deadline = deadline_of(timeout)?;
    // Whoever is to bring it may just be waiting for the GIL, and is at its best if left alone with it.
    if py.detach(|| wish.settles())
        && let Some(done) = attempt()
    {
        return coded(done);
    }
    let mut turn = wish.turn();
    loop {
        turn.enroll();
        if let Some(done) = attempt() {
            turn.served();
            return coded(done);
        }
        match sleep(py, &mut turn, &deadline) {
            Waited::Told => {}
            Waited::TimedOut => return Err(to_py(py, &late())),
            Waited::Interrupted => py.check_signals()?,
        }
    }
}

/// Sleeps without the GIL until `turn` is told something, or a signal may have come.
fn sleep(py: Python<'_>, turn: &mut Turn, deadline: &Deadline) -> Waited {
    if !is_main_thread() || deadline.remaining() <= MAIN_THREAD_SLICE {
        return py.detach(|| turn.wait(deadline));
    }
    let slice = Deadline::after(Arc::new(SystemClock::default()), MAIN_THREAD_SLICE);
    match py.detach(|| turn.wait(&slice)) {
        Waited::TimedOut => Waited::Interrupted,
        outcome => outcome,
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

/// `None` waits for ever; numbers are seconds, text is as in `dwkernel.units`.
pub(crate) fn deadline_of(timeout: Option<&Bound<'_, PyAny>>) -> PyResult<Deadline> {
    let Some(timeout) = timeout else { return Ok(Deadline::never()) };
    let limit = if let Ok(text) = timeout.cast::<PyString>() {
        units::parse_duration(text.to_str()?)
    } else {
        let seconds: f64 = timeout.extract()?;
        // What is negative is over already; what is endless never is.
        Ok(if seconds > 0.0 {
            Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
        } else {
            Duration::ZERO
        })
    };
    let limit = limit.map_err(|error| to_py(timeout.py(), &error))?;
    Ok(Deadline::after(Arc::new(SystemClock::default()), limit))
}
