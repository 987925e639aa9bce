//! Waiting: what for, until when, and without the GIL.

use dwk_base::{Deadline, Error, Result};
use dwk_queue::{Turn, Waited};
use pyo3::prelude::*;

use super::held::Held;
use crate::errors::to_py;
use crate::waiting::{deadline_of, slice_of};

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

    /// Tells the next one who wants the same, if there is more of it.
    fn pass_on(&self) {
        match self.lane {
            Some(lane) => self.queue.pass_on_room(lane),
            None => self.queue.pass_on_items(),
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
            wish.pass_on();
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
    let Some(slice) = slice_of(deadline) else {
        return py.detach(|| turn.wait(deadline));
    };
    match py.detach(|| turn.wait(&slice)) {
        Waited::TimedOut => Waited::Interrupted,
        outcome => outcome,
    }
}
