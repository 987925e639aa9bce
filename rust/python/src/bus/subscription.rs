//! A subscription, to be pulled from.

use std::sync::Arc;
use std::task::{Context, Poll};

use dwk_base::Result;
use dwk_bus::{Delivery, Space, Subscription};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::message::Message;
use crate::errors::to_py;
use crate::forks::Ours;
#[cfg(unix)]
use crate::queue::Bell;
use crate::waiting::{deadline_of, in_slices};

/// Messages that match a pattern; see `dwkernel.bus.Subscription`.
#[pyclass(frozen, module = "dwkernel._native")]
pub(crate) struct BusSubscription {
    space: Space,
    subscription: Ours<Arc<Subscription>>,
}

impl BusSubscription {
    pub(super) fn new(space: &Space, subscription: Subscription) -> Self {
        Self { space: space.clone(), subscription: Ours::new(Arc::new(subscription)) }
    }
}

#[pymethods]
impl BusSubscription {
    /// Up to `limit` messages, as soon as there is one; an empty list if there is none in time.
    #[pyo3(signature = (limit, timeout=None))]
    fn next_many(
        &self,
        py: Python<'_>,
        limit: usize,
        timeout: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Vec<Message>> {
        self.subscription.get().map_err(|error| to_py(py, &error))?;
        let mut taken: Vec<Delivery> = Vec::new();
        let ready = self.subscription.next_many(&mut taken, limit, &crate::waiting::now());
        if ready.map_err(|error| to_py(py, &error))? == 0 {
            in_slices(py, &deadline_of(timeout)?, |deadline| {
                Ok(self.subscription.next_many(&mut taken, limit, deadline)? > 0)
            })?;
        }
        Ok(taken.into_iter().map(|delivery| Message::new(&self.space, delivery)).collect())
    }

    /// The next message for one of its workers; None if there is none in time.
    #[pyo3(signature = (worker, timeout=None))]
    fn next_for(
        &self,
        py: Python<'_>,
        worker: usize,
        timeout: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Option<Message>> {
        self.subscription.get().map_err(|error| to_py(py, &error))?;
        let mut taken = None;
        in_slices(py, &deadline_of(timeout)?, |deadline| -> Result<bool> {
            taken = self.subscription.next_for(worker, deadline)?;
            Ok(taken.is_some())
        })?;
        Ok(taken.map(|delivery| Message::new(&self.space, delivery)))
    }

    /// The next message; None if there is none now: then `bell` rings for `waiter` when there may be.
    #[cfg(unix)]
    fn poll(&self, py: Python<'_>, bell: &Bell, waiter: u64) -> PyResult<Option<Message>> {
        self.subscription.get().map_err(|error| to_py(py, &error))?;
        let waker = bell.waker(waiter);
        match self.subscription.poll_next(&mut Context::from_waker(&waker)) {
            Poll::Ready(Ok(delivery)) => Ok(Some(Message::new(&self.space, delivery))),
            Poll::Ready(Err(error)) => Err(to_py(py, &error)),
            Poll::Pending => Ok(None),
        }
    }

    /// Counts a message that its handler failed with, and tells whoever waits for it.
    fn fail(&self, message: &Message, why: &str) {
        message.fail_in(&self.subscription, why);
    }

    /// Takes in no more. What waits can still be pulled.
    fn close(&self, py: Python<'_>) {
        py.detach(|| self.subscription.close());
    }

    #[getter]
    fn name(&self) -> &str {
        self.subscription.name()
    }

    #[getter]
    fn pattern(&self) -> &str {
        self.subscription.pattern().as_str()
    }

    #[getter]
    fn workers(&self) -> usize {
        self.subscription.workers()
    }

    /// What it did and holds, by name.
    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let stats = self.subscription.stats();
        let dict = PyDict::new(py);
        dict.set_item("queued", stats.queued)?;
        dict.set_item("delivered", stats.delivered)?;
        dict.set_item("dropped", stats.dropped)?;
        dict.set_item("filtered", stats.filtered)?;
        dict.set_item("failed", stats.failed)?;
        dict.set_item("lost", stats.lost)?;
        dict.set_item("waits", stats.waits)?;
        dict.set_item("depth", stats.depth)?;
        dict.set_item("depth_bytes", stats.depth_bytes)?;
        dict.set_item("spilled", stats.spilled)?;
        dict.set_item("spilled_bytes", stats.spilled_bytes)?;
        dict.set_item("lag_s", stats.lag.as_secs_f64())?;
        Ok(dict)
    }
}
