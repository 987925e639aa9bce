//! An open store, shared by everything that Python has of it.

use std::mem::ManuallyDrop;
use std::ops::Deref;
use std::sync::Arc;

use dwk_kernel::Kernel;
use pyo3::prelude::*;

use crate::detach::attach;

/// Whoever lets it go last closes it. That may be in the middle of anything that Python does.
pub(crate) struct Held(ManuallyDrop<Arc<Kernel>>);

impl Held {
    pub(crate) fn new(kernel: Kernel) -> Self {
        Self(ManuallyDrop::new(Arc::new(kernel)))
    }
}

impl Clone for Held {
    fn clone(&self) -> Self {
        Self(ManuallyDrop::new(Arc::clone(&self.0)))
    }
}

impl Deref for Held {
    type Target = Kernel;

    fn deref(&self) -> &Kernel {
        &self.0
    }
}

impl Drop for Held {
    #[allow(unsafe_code, reason = "dropped once")]
    fn drop(&mut self) {
        // SAFETY: it is not used again.
        let kernel = unsafe { ManuallyDrop::take(&mut self.0) };
        let mut last = Arc::into_inner(kernel);
        if last.is_none() {
            return;
        }
        // Drives that are written in Python need the interpreter to be closed, and are called from here, too:
        // what is being raised at this moment is raised all the same. After the interpreter's end it goes as it is.
        attach(|py| {
            let raised = PyErr::take(py);
            let kernel = last.take();
            py.detach(move || drop(kernel));
            if let Some(raised) = raised {
                raised.restore(py);
            }
        });
    }
}
