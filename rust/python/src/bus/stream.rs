//! Durable streams, as `dwkernel.bus.stream` uses them.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use dwk_base::{Error, Result, codes};
use dwk_bus::{Envelope, Pattern};
use dwk_kernel::operations::{
    CreateStream, DeleteStream, GetStream, ListStreams, Publish, PublishAsync, PublishLater,
    PublishTogether, PurgeStream, Purged, ReadStream, StatStream,
};
use dwk_kernel::{Context, Kernel};
use dwk_stream::{
    Cursor, Discard, From as Begin, Published, Retention, Stream, StreamConfig, Watch,
};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString, PyTuple};

use super::message::Message;
use super::option;
use super::publishing::BusPublishing;
use super::settings;
use super::space::{BusSpace, Fields, Keeper};
use crate::errors::to_py;
use crate::store::run;
use crate::waiting::{deadline_of, duration_of, in_slices};

/// Messages with the identities under which they are taken once.
pub(crate) type Outgoing = Vec<(Envelope, Option<String>)>;

/// A stream of a kernel; see `dwkernel.bus.Stream`.
#[pyclass(frozen, module = "dwkernel._native")]
pub(crate) struct BusStream {
    pub(super) stream: Stream,
    pub(super) space: Py<BusSpace>,
    pub(super) store: Keeper,
}

/// A place in a stream; see `dwkernel.bus.Stream.replay`.
#[pyclass(frozen, module = "dwkernel._native")]
pub(crate) struct BusCursor {
    stream: Py<BusStream>,
    cursor: Mutex<Cursor>,
    watch: Mutex<Watch>,
}

/// The streams of a kernel's tenant.
#[pyclass(frozen, module = "dwkernel._native")]
pub(crate) struct BusStreams {
    space: Py<BusSpace>,
    store: Keeper,
}

#[pymethods]
impl BusStreams {
    #[new]
    fn new(space: &Bound<'_, BusSpace>) -> PyResult<Self> {
        let store = space.get().store.clone().ok_or_else(|| {
            let text = "this bus belongs to no store";
            to_py(space.py(), &Error::new(&codes::STREAM_NO_STORE, text))
        })?;
        Ok(Self { space: space.clone().unbind(), store })
    }

    /// Makes a stream.
    fn create(
        &self,
        py: Python<'_>,
        timeout_s: f64,
        name: &str,
        options: &Bound<'_, PyDict>,
    ) -> PyResult<BusStream> {
        let config = config_of(options)?;
        let stream = self.store.run(py, timeout_s, |kernel, context| {
            kernel.execute(context, CreateStream { name, config })
        })?;
        Ok(self.wrap(py, stream))
    }

    /// Finds a stream.
    fn get(&self, py: Python<'_>, timeout_s: f64, name: &str) -> PyResult<BusStream> {
        let stream = self
            .store
            .run(py, timeout_s, |kernel, context| kernel.execute(context, GetStream { name }))?;
        Ok(self.wrap(py, stream))
    }

    /// All streams, by name.
    fn list(&self, py: Python<'_>, timeout_s: f64) -> PyResult<Vec<BusStream>> {
        let streams = self
            .store
            .run(py, timeout_s, |kernel, context| kernel.execute(context, ListStreams))?;
        Ok(streams.into_iter().map(|stream| self.wrap(py, stream)).collect())
    }

    /// Deletes a stream.
    fn delete(&self, py: Python<'_>, timeout_s: f64, name: &str) -> PyResult<()> {
        self.store
            .run(py, timeout_s, |kernel, context| kernel.execute(context, DeleteStream { name }))
    }

    /// Commits messages in all streams that take them; `(stream, sequence, duplicate)` of each.
    fn publish_together(
        &self,
        py: Python<'_>,
        timeout_s: f64,
        messages: &Bound<'_, PyAny>,
    ) -> PyResult<Vec<(String, u64, bool)>> {
        let messages = outgoing(self.space.get(), messages)?;
        let routed = self.store.run(py, timeout_s, |kernel, context| {
            kernel.execute(context, PublishTogether { messages: &messages })
        })?;
        let told = routed.into_iter().map(|routed| {
            let Published { sequence, duplicate } = routed.published;
            (routed.stream.to_string(), sequence, duplicate)
        });
        Ok(told.collect())
    }
}

impl BusStreams {
    fn wrap(&self, py: Python<'_>, stream: Stream) -> BusStream {
        BusStream { stream, space: self.space.clone_ref(py), store: self.store.clone() }
    }
}

impl Keeper {
    /// Runs `work` without the GIL and in a context of its own.
    pub(super) fn run<T: Send>(
        &self,
        py: Python<'_>,
        timeout_s: f64,
        work: impl FnOnce(&Kernel, &Context) -> Result<T> + Send,
    ) -> PyResult<T> {
        run(py, &self.kernel, &self.caller, timeout_s, work)
    }
}

#[pymethods]
impl BusStream {
    #[getter]
    fn name(&self) -> &str {
        self.stream.name()
    }

    /// Patterns of the subjects that it takes.
    #[getter]
    fn subjects(&self) -> Vec<String> {
        self.stream.config().subjects.iter().map(|pattern| pattern.as_str().to_owned()).collect()
    }

    /// What it was made with, by name.
    fn config<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        settings::of_stream(py, &self.stream.config())
    }

    /// Commits messages together; `(sequence, duplicate)` of each, or the error that one was refused with.
    fn publish(
        &self,
        py: Python<'_>,
        timeout_s: f64,
        messages: &Bound<'_, PyAny>,
    ) -> PyResult<Vec<(u64, bool)>> {
        let messages = outgoing(self.space.get(), messages)?;
        self.store.run(py, timeout_s, |kernel, context| {
            let publish = Publish { stream: &self.stream, messages: &messages };
            numbers(kernel.execute(context, publish)?)
        })
    }

    /// Puts messages in line that are committed together, and does not wait for that.
    fn publish_async(
        slf: &Bound<'_, Self>,
        timeout_s: f64,
        messages: &Bound<'_, PyAny>,
    ) -> PyResult<BusPublishing> {
        let this = slf.get();
        let messages = outgoing(this.space.get(), messages)?;
        this.store.run(slf.py(), timeout_s, |kernel, context| {
            let operation = PublishAsync { stream: &this.stream, messages: &messages };
            let publishing = kernel.execute(context, operation)?;
            Ok(BusPublishing::new(publishing, context.correlation()))
        })
    }

    /// Keeps messages that are in the stream after `delay_s` seconds.
    fn publish_later(
        &self,
        py: Python<'_>,
        timeout_s: f64,
        messages: &Bound<'_, PyAny>,
        delay_s: f64,
    ) -> PyResult<()> {
        let messages = outgoing(self.space.get(), messages)?;
        let delay = Duration::try_from_secs_f64(delay_s).unwrap_or(Duration::MAX);
        self.store.run(py, timeout_s, |kernel, context| {
            messages.iter().try_for_each(|(envelope, id)| {
                let (stream, message_id) = (&self.stream, id.as_deref());
                kernel.execute(context, PublishLater { stream, envelope, message_id, delay })
            })
        })
    }

    /// Where reading begins: `("first" | "last" | "next" | "sequence" | "time", number)`.
    fn cursor(slf: &Bound<'_, Self>, begin: &str, number: u64) -> PyResult<BusCursor> {
        let begin = match begin {
            "first" => Begin::First,
            "last" => Begin::Last,
            "next" => Begin::Next,
            "sequence" => Begin::Sequence(number),
            _ => Begin::Time(number),
        };
        let stream = &slf.get().stream;
        let watch = Mutex::new(stream.watch());
        let cursor = stream.cursor(begin).map_err(|error| to_py(slf.py(), &error))?;
        Ok(BusCursor { stream: slf.clone().unbind(), cursor: Mutex::new(cursor), watch })
    }

    /// Removes messages: all up to a number, or those with subjects like a pattern.
    #[pyo3(signature = (timeout_s, up_to, pattern))]
    fn purge(
        &self,
        py: Python<'_>,
        timeout_s: f64,
        up_to: Option<u64>,
        pattern: Option<&str>,
    ) -> PyResult<u64> {
        self.store.run(py, timeout_s, |kernel, context| {
            let pattern = pattern.map(Pattern::new).transpose()?;
            let which = match &pattern {
                Some(pattern) => Purged::Subjects(pattern),
                None => Purged::UpTo(up_to.unwrap_or(u64::MAX)),
            };
            kernel.execute(context, PurgeStream { stream: &self.stream, which })
        })
    }

    /// What it holds, by name.
    fn status<'py>(&self, py: Python<'py>, timeout_s: f64) -> PyResult<Bound<'py, PyDict>> {
        let status = self.store.run(py, timeout_s, |kernel, context| {
            kernel.execute(context, StatStream { stream: &self.stream })
        })?;
        let dict = PyDict::new(py);
        dict.set_item("first_sequence", status.first_sequence)?;
        dict.set_item("last_sequence", status.last_sequence)?;
        dict.set_item("messages", status.messages)?;
        dict.set_item("bytes", status.bytes)?;
        dict.set_item("frames", status.frames)?;
        dict.set_item("blocks", status.blocks)?;
        dict.set_item("window_ids", status.window_ids)?;
        dict.set_item("window_is_short", status.window_is_short)?;
        dict.set_item("delayed", status.delayed)?;
        dict.set_item("next_due_unix_ns", status.next_due_unix_ns)?;
        dict.set_item("failure", status.failure.map(|failure| failure.to_string()))?;
        Ok(dict)
    }
}

#[pymethods]
impl BusCursor {
    /// Up to so many messages, none at the end of the stream.
    fn next_many(
        &self,
        py: Python<'_>,
        timeout_s: f64,
        messages: usize,
        data_bytes: usize,
    ) -> PyResult<Vec<Message>> {
        let of = self.stream.get();
        let stored = of.store.run(py, timeout_s, |kernel, context| {
            let mut cursor = self.cursor.lock().unwrap_or_else(PoisonError::into_inner);
            let stream = of.stream.name();
            kernel.execute(
                context,
                ReadStream { cursor: &mut cursor, stream, messages, bytes: data_bytes },
            )
        })?;
        let space = &of.space.get().space;
        Ok(stored.into_iter().map(|one| Message::stored(space, one)).collect())
    }

    /// Waits until something was committed since the last time; false if nothing was in time.
    #[pyo3(signature = (timeout=None))]
    fn wait(&self, py: Python<'_>, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<bool> {
        in_slices(py, &deadline_of(timeout)?, |slice| {
            Ok(self.watch.lock().unwrap_or_else(PoisonError::into_inner).wait(slice))
        })
    }

    /// Goes on behind what could not be read.
    fn skip(&self, py: Python<'_>) -> u64 {
        py.detach(|| self.cursor.lock().unwrap_or_else(PoisonError::into_inner).skip())
    }
}

/// `(sequence, duplicate)` of each, or the error that one was refused with.
pub(super) fn numbers(outcomes: Vec<Result<Published>>) -> Result<Vec<(u64, bool)>> {
    outcomes.into_iter().map(|one| one.map(|one| (one.sequence, one.duplicate))).collect()
}

/// Messages as Python gives them: `(subject, data, headers, key, schema, priority, correlation, message_id)`.
pub(crate) fn outgoing(space: &BusSpace, messages: &Bound<'_, PyAny>) -> PyResult<Outgoing> {
    let py = messages.py();
    let mut outgoing = Vec::new();
    for one in messages.try_iter()? {
        let one = one?.cast_into::<PyTuple>()?;
        let (headers, key, schema) = (one.get_item(2)?, one.get_item(3)?, one.get_item(4)?);
        let (correlation, id) = (one.get_item(6)?, one.get_item(7)?);
        let headers: Option<Bound<'_, PyDict>> = headers.extract()?;
        let fields = Fields {
            headers: headers.as_ref(),
            key: key.extract()?,
            schema: schema.extract()?,
            priority: option("priority", &one.get_item(5)?)?,
            correlation: correlation.extract()?,
        };
        let subject = one.get_item(0)?.cast_into::<PyString>()?;
        let message = space.message(&subject, &one.get_item(1)?, &fields)?;
        let envelope = space.space.stamp(message).map_err(|error| to_py(py, &error))?;
        outgoing.push((envelope, id.extract()?));
    }
    Ok(outgoing)
}

/// A stream's configuration from named options.
fn config_of(options: &Bound<'_, PyDict>) -> PyResult<StreamConfig> {
    let py = options.py();
    let coded = |error: Error| to_py(py, &error);
    let mut config = StreamConfig::new(Vec::new());
    for (name, value) in options.iter() {
        if value.is_none() {
            continue;
        }
        let name = name.extract::<&str>()?;
        match name {
            "subjects" => {
                let patterns: Vec<String> = option(name, &value)?;
                let patterns = patterns.into_iter().map(Pattern::new).collect::<Result<_>>();
                config.subjects = patterns.map_err(coded)?;
            }
            "max_age" => config.max_age = Some(duration_of(&value)?),
            "max_bytes" => config.max_bytes = Some(option(name, &value)?),
            "max_messages" => config.max_messages = Some(option(name, &value)?),
            "keep_last_per_key" => config.keep_last_per_key = option(name, &value)?,
            "duplicate_window" => config.duplicate_window = duration_of(&value)?,
            "discard" => {
                config.discard = discard(&option::<String>(name, &value)?).map_err(coded)?;
            }
            "retention" => {
                config.retention = retention(&option::<String>(name, &value)?).map_err(coded)?;
            }
            other => return Err(coded(unknown("option", other))),
        }
    }
    Ok(config)
}

fn discard(name: &str) -> Result<Discard> {
    match name {
        "old" => Ok(Discard::Old),
        "new" => Ok(Discard::New),
        other => Err(unknown("discard", other)),
    }
}

fn retention(name: &str) -> Result<Retention> {
    match name {
        "limits" => Ok(Retention::Limits),
        "interest" => Ok(Retention::Interest),
        "work_queue" => Ok(Retention::WorkQueue),
        other => Err(unknown("retention", other)),
    }
}

fn unknown(what: &str, given: &str) -> Error {
    Error::new(&codes::STREAM_OPTION, format!("{given:?} is no {what} of a stream"))
        .with("option", what)
}
