//! Filters, asked of messages that were read.

use dwk_base::{Result, Seams};
use dwk_bus::{Bus, Envelope, Filter, Limits, Message as Outgoing, Space, Subject};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};

use super::message::Message;
use crate::errors::to_py;

/// A condition on messages, as `Bus.subscribe` takes it.
#[pyclass(frozen, module = "dwkernel._native")]
pub(crate) struct BusFilter {
    filter: Filter,
    /// Stamps the messages of others: what is asked is an envelope.
    space: Space,
    _bus: Bus,
}

#[pymethods]
impl BusFilter {
    #[new]
    fn new(py: Python<'_>, text: &str) -> PyResult<Self> {
        let made = || -> Result<Self> {
            let (filter, seams) = (Filter::new(text)?, Seams::system());
            let bus = Bus::new(seams.clock, seams.random, Limits::default());
            Ok(Self { filter, space: bus.space("")?, _bus: bus })
        };
        made().map_err(|error| to_py(py, &error))
    }

    /// True if the condition holds for a message: one of ours, or anything that has its attributes.
    fn accepts(&self, message: &Bound<'_, PyAny>) -> PyResult<bool> {
        if let Ok(ours) = message.cast::<Message>() {
            return Ok(self.filter.accepts(ours.get().envelope()));
        }
        Ok(self.filter.accepts(&self.envelope_of(message)?))
    }
}

impl BusFilter {
    fn envelope_of(&self, message: &Bound<'_, PyAny>) -> PyResult<Envelope> {
        let py = message.py();
        let coded = |error| to_py(py, &error);
        let text = |name: &str| -> PyResult<Option<String>> { message.getattr(name)?.extract() };
        let subject: String = message.getattr("subject")?.extract()?;
        let data = message.getattr("data")?.cast_into::<PyBytes>()?;
        let headers = message.getattr("headers")?.cast_into::<PyDict>()?;
        let mut outgoing =
            Outgoing::new(Subject::new(subject).map_err(coded)?, data.as_bytes().to_vec());
        for (name, value) in headers.iter() {
            outgoing.headers.push((name.extract()?, value.extract()?));
        }
        outgoing.principal = text("principal")?.map(Into::into);
        outgoing.schema = text("schema")?.map(Into::into);
        outgoing.key = text("key")?.map(Into::into);
        outgoing.priority = message.getattr("priority")?.extract()?;
        self.space.stamp(outgoing).map_err(coded)
    }
}
