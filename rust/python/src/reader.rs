//! `dwkernel._native.ObjectReader`: one version of an object, open.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dwk_base::{Error, Result, codes};
use dwk_kernel::operations::Read;
use dwk_kernel::{Guarded, Kernel};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::buffers::Shared;
use crate::errors::to_py;
use crate::store::{Caller, ObjectTuple, object_tuple, run};

/// What is read at once into a buffer that is not ours, in bytes.
const PIECE_BYTES: usize = 1 << 20;

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
        offset: u64,
        into: &mut [u8],
    ) -> PyResult<usize> {
        run(py, &self.kernel, caller, timeout_s, |kernel, context| {
            let mut reader = self.lock()?;
            let closed = || Error::new(&codes::STORE_CLOSED, "the reader is closed");
            let reader = reader.as_mut().ok_or_else(closed)?;
            kernel.execute(context, Read { reader, offset, into })
        })
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
        PyBytes::new_with(py, size, |into| {
            let filled = self.fill(py, caller, timeout_s, offset, into)?;
            debug_assert_eq!(filled, size, "the kernel fills what is there or fails");
            Ok(())
        })
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
        let target = Shared::new(buffer)?;
        if !target.is_writable() {
            let error = Error::new(&codes::BUFFER_READ_ONLY, "the buffer cannot be written to");
            return Err(to_py(py, &error));
        }
        let mut scratch = vec![0; target.len().min(PIECE_BYTES)];
        let mut filled = 0;
        while filled < target.len() {
            let length = scratch.len().min(target.len() - filled);
            let from = offset + filled as u64;
            let read = self.fill(py, caller, timeout_s, from, &mut scratch[..length])?;
            target.write(filled, &scratch[..read]);
            filled += read;
            if read < length {
                break;
            }
        }
        Ok(filled)
    }

    /// Lets the version go.
    fn close(&self, py: Python<'_>) {
        // Waits for a read that is under way, without the GIL that it may need to end. In a forked child
        // there is nothing to let go.
        py.detach(|| self.lock().map(|mut reader| drop(reader.take())).unwrap_or_default());
    }
}
