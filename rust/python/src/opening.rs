//! Opening a store, while the caller hears Ctrl-C and how far it is.

use std::sync::Arc;
use std::time::Duration;

use dwk_base::Seams;
use dwk_kernel::{Kernel, OpenSpec, Waiter};
use pyo3::prelude::*;

use crate::aside::aside;
use crate::detach::detach;
use crate::sources::Watcher;
use crate::store::Caller;

/// How often the calling thread looks at signals and progress.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Opens a store. Whoever is interrupted gets what was raised when the drives are let go again.
pub(crate) fn open(
    py: Python<'_>,
    caller: &Caller,
    timeout_s: f64,
    spec: &OpenSpec,
    progress: Option<Py<PyAny>>,
) -> PyResult<Kernel> {
    let seams = Seams::system();
    let mut watcher = Watcher::new(&seams, progress);
    let opened = detach(py, || {
        let waiter = Arc::new(Waiter::default());
        let context = caller.context(&seams, timeout_s)?.waited_for_by(Arc::clone(&waiter));
        let look = || {
            if watcher.tell_bytes(waiter.done_bytes()).is_err() {
                waiter.stop();
            }
        };
        aside(LOOK_EVERY, || Kernel::open(spec, &context, &seams), look)
    });
    match (opened, watcher.ended()) {
        (Ok(kernel), Ok(())) => Ok(kernel),
        (Ok(kernel), Err(raised)) => {
            // It came in this moment. Drives that are written in Python need the interpreter to close.
            py.detach(move || drop(kernel));
            Err(raised)
        }
        (Err(error), Ok(())) => Err(error),
        (Err(_), Err(raised)) => Err(raised),
    }
}
