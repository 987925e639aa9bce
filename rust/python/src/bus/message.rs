//! A message, as a handler has it.

use std::sync::{Mutex, PoisonError};

use dwk_base::{Error, codes};
use dwk_bus::{Delivery, Envelope, Space, Subscription};
use dwk_kernel::operations::Verdict;
use dwk_stream::Stored;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyDict};

use super::consumer::Handed;
use crate::buffers::Input;
use crate::errors::to_py;
use crate::forks::Ours;
use crate::waiting::duration_of;

/// A message.
///
/// Whoever waits for it (`publish_and_wait`, `request`) is told that it was handled when its handler returns,
/// or when it is let go; or that it failed, if the handler raises.
#[pyclass(frozen, module = "dwkernel.bus")]
pub(crate) struct Message {
    envelope: Envelope,
    space: Space,
    /// What is to be said to whoever waits; none for an answer.
    delivery: Mutex<Ours<Option<Delivery>>>,
    data: PyOnceLock<Py<PyBytes>>,
    /// Of a stream's message.
    kept: Option<Kept>,
    /// Of a consumer's delivery.
    handed: Option<Handed>,
}

/// What a stream knows of a message.
struct Kept {
    sequence: u64,
    /// When it was committed.
    unix_ns: u64,
    message_id: Option<String>,
}

impl Message {
    pub(super) fn new(space: &Space, delivery: Delivery) -> Self {
        let envelope = delivery.envelope().clone();
        let (space, data) = (space.clone(), PyOnceLock::new());
        Self {
            envelope,
            space,
            delivery: Mutex::new(Ours::new(Some(delivery))),
            data,
            kept: None,
            handed: None,
        }
    }

    pub(super) fn answer(space: &Space, envelope: Envelope) -> Self {
        let (space, data) = (space.clone(), PyOnceLock::new());
        Self {
            envelope,
            space,
            delivery: Mutex::new(Ours::new(None)),
            data,
            kept: None,
            handed: None,
        }
    }

    pub(super) fn stored(space: &Space, stored: Stored) -> Self {
        let Stored { sequence, published_unix_ns: unix_ns, message_id, envelope } = stored;
        let kept = Some(Kept { sequence, unix_ns, message_id });
        Self { kept, ..Self::answer(space, envelope) }
    }

    /// The message of a dead letter.
    pub(super) fn buried(space: &Space, envelope: Envelope, sequence: u64) -> Self {
        let kept = Some(Kept { sequence, unix_ns: envelope.unix_ns(), message_id: None });
        Self { kept, ..Self::answer(space, envelope) }
    }

    pub(super) fn handed(space: &Space, stored: Stored, handed: Handed) -> Self {
        Self { handed: Some(handed), ..Self::stored(space, stored) }
    }

    pub(super) fn envelope(&self) -> &Envelope {
        &self.envelope
    }

    fn settle(&self, py: Python<'_>, verdict: Verdict<'_>) -> PyResult<()> {
        let Some(handed) = &self.handed else {
            let text =
                "the message was not delivered by a consumer: there is nothing to acknowledge";
            return Err(to_py(py, &Error::new(&codes::STREAM_ACK, text)));
        };
        handed.consumer.get().settle(py, handed.token, verdict)
    }

    /// Says that its handler failed.
    pub(super) fn fail_in(&self, subscription: &Subscription, why: &str) {
        if let Some(delivery) = self.take() {
            subscription.fail(delivery, Error::new(&codes::BUS_HANDLER, why));
        }
    }

    fn take(&self) -> Option<Delivery> {
        self.delivery.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

#[pymethods]
impl Message {
    /// What it is about.
    #[getter]
    fn subject(&self) -> &str {
        self.envelope.subject().as_str()
    }

    /// Its content, `bytes`.
    #[getter]
    fn data<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        let make = || PyBytes::new(py, self.envelope.data()).unbind();
        self.data.get_or_init(py, make).bind(py).clone()
    }

    /// Its headers by name; of two with the same name the first.
    #[getter]
    fn headers<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let headers = PyDict::new(py);
        for (name, value) in self.envelope.message().headers.iter().rev() {
            headers.set_item(name, value)?;
        }
        Ok(headers)
    }

    /// Its identity: a UUID of version 7, which sorts by time.
    #[getter]
    fn id(&self) -> String {
        self.envelope.id().to_string()
    }

    /// Ties it to the operation that it belongs to: 32 hexadecimal digits, or None.
    #[getter]
    fn correlation_id(&self) -> Option<String> {
        self.envelope.message().correlation.map(|id| id.to_string())
    }

    /// Who published it.
    #[getter]
    fn principal(&self) -> Option<&str> {
        self.envelope.message().principal.as_deref()
    }

    /// In whose namespace; None for nobody's in particular.
    #[getter]
    fn tenant(&self) -> Option<&str> {
        Some(self.envelope.tenant()).filter(|tenant| !tenant.is_empty())
    }

    /// Its number in the stream, from 1; None if it is not in one.
    #[getter]
    fn sequence(&self) -> Option<u64> {
        self.kept.as_ref().map(|kept| kept.sequence)
    }

    /// What its publisher gave a stream so that it is taken once; or None.
    #[getter]
    fn message_id(&self) -> Option<&str> {
        self.kept.as_ref().and_then(|kept| kept.message_id.as_deref())
    }

    /// When it was published (in a stream: committed), in nanoseconds since 1970.
    #[getter]
    fn published_ns(&self) -> u64 {
        self.kept.as_ref().map_or_else(|| self.envelope.unix_ns(), |kept| kept.unix_ns)
    }

    /// The same as a `datetime` in UTC, to the microsecond.
    #[getter]
    fn published_at<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        py.import("dwkernel.objects")?.getattr("moment")?.call1((self.published_ns(),))
    }

    /// Messages with the same key are handled in order; or None.
    #[getter]
    fn key(&self) -> Option<&str> {
        self.envelope.key()
    }

    /// How the data is to be read; or None.
    #[getter]
    fn schema(&self) -> Option<&str> {
        self.envelope.message().schema.as_deref()
    }

    /// 0 to 255; for filters.
    #[getter]
    fn priority(&self) -> u8 {
        self.envelope.message().priority
    }

    /// Where an answer is expected; None if it is no question.
    #[getter]
    fn reply_to(&self) -> Option<&str> {
        self.envelope.message().reply_to.as_ref().map(dwk_bus::Subject::as_str)
    }

    /// How often a consumer has delivered it, this time included; None if none has.
    #[getter]
    fn deliveries(&self) -> Option<u32> {
        self.handed.as_ref().map(|handed| handed.deliveries)
    }

    /// Says to the consumer that the message is done.
    ///
    /// Args:
    ///     durable: return when that is durable; else it soon is, and a crash before that delivers the
    ///         message once more.
    ///
    /// Raises:
    ///     State: `stream.ack`: this delivery is over, or there was none; `store.closed`.
    ///     NotFound: `stream.consumer_not_found`, `stream.not_found`.
    #[pyo3(signature = (*, durable=false))]
    fn ack(&self, py: Python<'_>, durable: bool) -> PyResult<()> {
        self.settle(py, if durable { Verdict::AckDurably } else { Verdict::Ack })
    }

    /// Gives the message back to the consumer: it is delivered again.
    ///
    /// Args:
    ///     delay: after so long; by default after the consumer's backoff.
    ///
    /// Raises:
    ///     State: `stream.ack`, `store.closed`.
    ///     Invalid: `stream.option`, `unit.invalid`.
    #[pyo3(signature = (delay=None))]
    fn nak(&self, py: Python<'_>, delay: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
        self.settle(py, Verdict::Nak(delay.map(duration_of).transpose()?))
    }

    /// Gives the message up: it becomes a dead letter, or is dropped.
    ///
    /// Args:
    ///     why: the reason, of which 256 bytes are kept.
    ///
    /// Raises:
    ///     State: `stream.ack`, `store.closed`.
    #[pyo3(signature = (why=""))]
    fn term(&self, py: Python<'_>, why: &str) -> PyResult<()> {
        self.settle(py, Verdict::Term(why))
    }

    /// Says to the consumer that it takes longer: `ack_wait` begins anew.
    ///
    /// Raises:
    ///     State: `stream.ack`, `store.closed`.
    fn in_progress(&self, py: Python<'_>) -> PyResult<()> {
        self.settle(py, Verdict::InProgress)
    }

    /// Answers a question.
    ///
    /// Args:
    ///     data: any contiguous buffer.
    ///
    /// Returns:
    ///     False if it was no question, or whoever asked is gone or has an answer.
    ///
    /// Raises:
    ///     Invalid: `bus.message_size`, `buffer.type`.
    fn reply(&self, data: &Bound<'_, PyAny>) -> PyResult<bool> {
        let bytes = Input::new(data)?.source().to_vec();
        let replied = self.space.reply(&self.envelope, bytes);
        replied.map_err(|error| to_py(data.py(), &error))
    }

    /// Says that it was handled.
    fn _done(&self) {
        drop(self.take());
    }

    fn __repr__(&self) -> String {
        let (subject, bytes) = (self.envelope.subject(), self.envelope.data().len());
        format!("<Message {subject} of {bytes} bytes>")
    }
}
