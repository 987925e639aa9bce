//! Messages that an event loop waits for.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll};

use dwk_base::{CorrelationId, Result};
use dwk_stream::Publishing;
use pyo3::prelude::*;

use super::stream::numbers;
use crate::errors::to_py;
use crate::forks::Ours;
#[cfg(unix)]
use crate::queue::Bell;

/// Messages in line or on their way; see `dwkernel.bus.Stream.apublish`.
#[pyclass(frozen, module = "dwkernel._native")]
pub(crate) struct BusPublishing {
    publishing: Ours<Mutex<Option<Publishing>>>,
    correlation: CorrelationId,
}

impl BusPublishing {
    pub(super) fn new(publishing: Publishing, correlation: CorrelationId) -> Self {
        Self { publishing: Ours::new(Mutex::new(Some(publishing))), correlation }
    }

    fn told(
        &self,
        py: Python<'_>,
        outcome: Result<Vec<Result<dwk_stream::Published>>>,
    ) -> PyResult<Vec<(u64, bool)>> {
        let told = outcome.and_then(numbers);
        told.map_err(|error| to_py(py, &error.in_operation(self.correlation)))
    }
}

#[pymethods]
impl BusPublishing {
    /// `(sequence, duplicate)` of each, or nothing as long as that is open: then `bell` rings for `waiter`
    /// when it is known.
    #[cfg(unix)]
    fn poll(&self, py: Python<'_>, bell: &Bell, waiter: u64) -> PyResult<Option<Vec<(u64, bool)>>> {
        let publishing = self.publishing.get().map_err(|error| to_py(py, &error))?;
        let mut publishing = publishing.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(future) = publishing.as_mut() else { return Ok(None) };
        let waker = bell.waker(waiter);
        match Pin::new(future).poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(outcome) => {
                *publishing = None;
                self.told(py, outcome).map(Some)
            }
            Poll::Pending => Ok(None),
        }
    }

    /// Waits no longer: what it came to if that is known, or that the time was over.
    fn give_up(&self, py: Python<'_>) -> PyResult<Vec<(u64, bool)>> {
        let publishing = self.publishing.get().map_err(|error| to_py(py, &error))?;
        let publishing = publishing.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.told(py, publishing.map_or_else(|| Ok(Vec::new()), Publishing::give_up))
    }
}
