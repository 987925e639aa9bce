//! `dwkernel._native.ObjectReader`: one version of an object, open.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dwk_base::{Error, Result, codes};
use dwk_kernel::operations::Read;
use dwk_kernel::{Guarded, Kernel};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::buffers::{Fresh, Shared};
use crate::errors::to_py;
use crate::sources::Watcher;
use crate::store::{Caller, ObjectTuple, object_tuple, run};

/// One version of an object, open. Threads may share it; they read one after the other.
#[pyclass(frozen, module = "dwkernel._native")]
pub(crate) struct ObjectReader {
    kernel: Arc<Kernel>,
    // Guarded outside the mutex: in a forked child a thread that does not exist may hold it.
    reader: Guarded<Mutex<Option<dwk_catalog::ObjectReader>>>,
    info: dwk_catalog::ObjectInfo,
}

impl ObjectReader {
    pub(crate) fn new(kernel: Arc<Kernel>, reader: dwk_catalog::ObjectReader) -> Self {
        let info = reader.info().clone();
        Self { kernel, reader: Guarded::new(Mutex::new(Some(reader))), info }
    }

    fn lock(&self) -> Result<MutexGuard<'_, Option<dwk_catalog::ObjectReader>>> {
        Ok(self.reader.get()?.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn fill(
        &self,
        py: Python<'_>,
        caller: &Caller,
        timeout_s: f64,
        (offset, bytes): (u64, usize),
        take: &mut (dyn FnMut(&[u8]) + Send),
    ) -> PyResult<usize> {
        let mut watcher = Watcher::new(self.kernel.seams(), None);
        let filled = run(py, &self.kernel, caller, timeout_s, |kernel, context| {
            let mut reader = self.lock()?;
            let closed = || Error::new(&codes::STORE_CLOSED, "the reader is closed");
            let reader = reader.as_mut().ok_or_else(closed)?;
            let look = &mut |filled| watcher.tell(filled, None);
            kernel.execute(context, Read { reader, offset, bytes, take, look })
        });
        filled.map_err(|error| watcher.explain(error))
    }
}

#[pymethods]
impl ObjectReader {
    /// What is known of the object.
    #[getter]
    fn info(&self) -> ObjectTuple {
        object_tuple(self.info.clone())
    }

    /// Up to `size` bytes from `offset`; fewer only at the end.
    fn read<'py>(
        &self,
        py: Python<'py>,
        caller: &Caller,
        timeout_s: f64,
        offset: u64,
        size: usize,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let left = self.info.size_bytes.saturating_sub(offset);
        let size = usize::try_from(left).unwrap_or(usize::MAX).min(size);
        let mut fresh = Fresh::new(py, size)?;
        self.fill(py, caller, timeout_s, (offset, size), &mut |bytes| fresh.push(bytes))?;
        Ok(fresh.done(py))
    }

    /// Fills a writable buffer from `offset`; returns how many bytes were there.
    fn readinto(
        &self,
        py: Python<'_>,
        caller: &Caller,
        timeout_s: f64,
        offset: u64,
        buffer: &Bound<'_, PyAny>,
    ) -> PyResult<usize> {
        let shared = Shared::new(buffer)?;
        let Some(mut target) = shared.target(0, shared.len()) else {
            let error = Error::new(&codes::BUFFER_READ_ONLY, "the buffer cannot be written to");
            return Err(to_py(py, &error));
        };
        let mut at = 0;
        self.fill(py, caller, timeout_s, (offset, target.len()), &mut |bytes| {
            target.write(at, bytes);
            at += bytes.len();
        })
    }

    /// Lets the version go.
    fn close(&self, py: Python<'_>) {
        // Waits for a read that is under way, without the GIL that it may need to end. In a forked child
        // there is nothing to let go.
        py.detach(|| self.lock().map(|mut reader| drop(reader.take())).unwrap_or_default());
    }
}
