//! Consumers of durable streams, as `dwkernel.bus.consumer` uses them.

use std::time::Duration;

use dwk_base::{Error, Result, codes};
use dwk_bus::{Filter, Pattern};
use dwk_kernel::operations::{
    CreateConsumer, DeadLetters, DeleteConsumer, Fetch, GetConsumer, ListConsumers, Redrive,
    Settle, StatConsumer, Steer, SteerConsumer, Verdict,
};
use dwk_stream::consumer::{Reason, Token};
use dwk_stream::{Ack, Consumer, ConsumerConfig, From as Begin};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::message::Message;
use super::stream::BusStream;
use super::{option, settings};
use crate::errors::to_py;
use crate::waiting::{deadline_of, duration_of};

/// A fetch that waits holds up a kernel that closes, and Ctrl-C, for no longer than this.
const SLICE: Duration = Duration::from_millis(250);

/// Sequence, deliveries, reason, when and how deliveries ended, the message.
type LetterTuple = (u64, u32, Option<String>, Vec<(u64, &'static str)>, Option<Message>);

/// A consumer of a stream; see `dwkernel.bus.Consumer`.
#[pyclass(frozen, module = "dwkernel._native")]
pub(crate) struct BusConsumer {
    consumer: Consumer,
    stream: Py<BusStream>,
}

/// A delivery that a message is.
pub(super) struct Handed {
    pub(super) consumer: Py<BusConsumer>,
    pub(super) token: Token,
    pub(super) deliveries: u32,
}

#[pymethods]
impl BusConsumer {
    /// Makes a consumer of `stream`.
    #[staticmethod]
    fn create(
        stream: &Bound<'_, BusStream>,
        timeout_s: f64,
        options: &Bound<'_, PyDict>,
    ) -> PyResult<Self> {
        let (of, config) = (stream.get(), config_of(options)?);
        let consumer = of.store.run(stream.py(), timeout_s, |kernel, context| {
            kernel.execute(context, CreateConsumer { stream: &of.stream, config })
        })?;
        Ok(Self { consumer, stream: stream.clone().unbind() })
    }

    /// Finds a consumer of `stream`.
    #[staticmethod]
    fn get(stream: &Bound<'_, BusStream>, timeout_s: f64, name: &str) -> PyResult<Self> {
        let of = stream.get();
        let consumer = of.store.run(stream.py(), timeout_s, |kernel, context| {
            kernel.execute(context, GetConsumer { stream: &of.stream, name })
        })?;
        Ok(Self { consumer, stream: stream.clone().unbind() })
    }

    /// All consumers of `stream`, by name.
    #[staticmethod]
    fn list(stream: &Bound<'_, BusStream>, timeout_s: f64) -> PyResult<Vec<Self>> {
        let of = stream.get();
        let consumers = of.store.run(stream.py(), timeout_s, |kernel, context| {
            kernel.execute(context, ListConsumers { stream: &of.stream })
        })?;
        let own = |consumer| Self { consumer, stream: stream.clone().unbind() };
        Ok(consumers.into_iter().map(own).collect())
    }

    /// Deletes a consumer of `stream`.
    #[staticmethod]
    fn delete(stream: &Bound<'_, BusStream>, timeout_s: f64, name: &str) -> PyResult<()> {
        let of = stream.get();
        of.store.run(stream.py(), timeout_s, |kernel, context| {
            kernel.execute(context, DeleteConsumer { stream: &of.stream, name })
        })
    }

    #[getter]
    fn name(&self) -> &str {
        self.consumer.name()
    }

    /// What it was made with, by name.
    fn config<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        settings::of_consumer(py, self.consumer.config())
    }

    /// Up to `limit` messages, as soon as there is one; none if there is none in time.
    #[pyo3(signature = (timeout_s, limit, timeout))]
    fn fetch(
        slf: &Bound<'_, Self>,
        timeout_s: f64,
        limit: &Bound<'_, PyAny>,
        timeout: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Vec<Message>> {
        let limit = option("limit", limit)?;
        let (py, consumer) = (slf.py(), &slf.get().consumer);
        let (of, patience) = (slf.get().stream.get(), deadline_of(timeout)?);
        loop {
            let slice = patience.remaining().min(SLICE);
            let out = of.store.run(py, timeout_s, |kernel, context| {
                kernel.execute(context, Fetch { consumer, limit, patience: slice })
            })?;
            if !out.is_empty() || limit == 0 || patience.has_passed() {
                let space = &of.space.get().space;
                let message = |one: dwk_stream::Delivery| {
                    let (token, deliveries) = (one.token, one.deliveries);
                    let handed = Handed { consumer: slf.clone().unbind(), token, deliveries };
                    Message::handed(space, one.stored, handed)
                };
                return Ok(out.into_iter().map(message).collect());
            }
            py.check_signals()?;
        }
    }

    /// Makes every acknowledgement durable; hands nothing out; hands out again; passes over what is damaged.
    fn steer(&self, py: Python<'_>, timeout_s: f64, what: &str) -> PyResult<()> {
        let steer = match what {
            "flush" => Steer::Flush,
            "pause" => Steer::Pause,
            "resume" => Steer::Resume,
            _ => Steer::Skip,
        };
        let (store, consumer) = (&self.stream.get().store, &self.consumer);
        store.run(py, timeout_s, |kernel, context| {
            kernel.execute(context, SteerConsumer { consumer, steer })
        })
    }

    /// How it stands, by name.
    fn status<'py>(&self, py: Python<'py>, timeout_s: f64) -> PyResult<Bound<'py, PyDict>> {
        let (store, consumer) = (&self.stream.get().store, &self.consumer);
        let (status, before) = store.run(py, timeout_s, |kernel, context| {
            kernel.execute(context, StatConsumer { consumer })
        })?;
        let dict = PyDict::new(py);
        dict.set_item("floor_sequence", status.floor_sequence)?;
        dict.set_item("delivered_sequence", status.delivered_sequence)?;
        dict.set_item("lag", before)?;
        dict.set_item("pending", status.out)?;
        dict.set_item("scheduled", status.scheduled)?;
        dict.set_item("redelivered", status.repeated)?;
        dict.set_item("oldest_s", status.oldest_age.map(|age| age.as_secs_f64()))?;
        dict.set_item("is_paused", status.is_paused)?;
        dict.set_item("deliveries", status.counters.delivered)?;
        dict.set_item("acknowledged", status.counters.acknowledged)?;
        dict.set_item("dead", status.counters.buried)?;
        Ok(dict)
    }

    /// Dead letters of messages behind `after`.
    fn dead_letters(
        &self,
        py: Python<'_>,
        timeout_s: f64,
        after: u64,
        limit: usize,
    ) -> PyResult<Vec<LetterTuple>> {
        let (of, consumer) = (self.stream.get(), &self.consumer);
        let found = of.store.run(py, timeout_s, |kernel, context| {
            kernel.execute(context, DeadLetters { consumer, after, limit })
        })?;
        let space = &of.space.get().space;
        let told = found.into_iter().map(|one| {
            let letter = one.letter;
            let why = match letter.reason {
                Reason::Exhausted => None,
                Reason::Terminated(why) => Some(why),
            };
            let history = letter.history.iter().map(|event| (event.unix_ms, event.ending.name()));
            let message = one.envelope.map(|e| Message::buried(space, e, letter.sequence));
            (letter.sequence, letter.deliveries, why, history.collect(), message)
        });
        Ok(told.collect())
    }

    /// Delivers the message of a dead letter again; false if there is none.
    fn redrive(&self, py: Python<'_>, timeout_s: f64, sequence: u64) -> PyResult<bool> {
        let (store, consumer) = (&self.stream.get().store, &self.consumer);
        store.run(py, timeout_s, |kernel, context| {
            kernel.execute(context, Redrive { consumer, sequence })
        })
    }
}

impl BusConsumer {
    /// Says what becomes of a delivery.
    pub(super) fn settle(
        &self,
        py: Python<'_>,
        token: Token,
        verdict: Verdict<'_>,
    ) -> PyResult<()> {
        // Long enough for a commit; nothing else is waited for.
        const TIMEOUT_S: f64 = 300.0;
        let (store, consumer) = (&self.stream.get().store, &self.consumer);
        store.run(py, TIMEOUT_S, |kernel, context| {
            kernel.execute(context, Settle { consumer, token, verdict })
        })
    }
}

/// A consumer's configuration from named options.
fn config_of(options: &Bound<'_, PyDict>) -> PyResult<ConsumerConfig> {
    let py = options.py();
    let coded = |error: Error| to_py(py, &error);
    let mut config = ConsumerConfig::new("");
    for (name, value) in options.iter() {
        if value.is_none() {
            continue;
        }
        let name = name.extract::<&str>()?;
        match name {
            "name" => config.name = option(name, &value)?,
            "ack" => config.ack = ack(&option::<String>(name, &value)?).map_err(coded)?,
            "ack_wait" => config.ack_wait = duration_of(&value)?,
            "max_deliver" => config.max_deliver = Some(option(name, &value)?),
            "backoff" => {
                let delays = value.try_iter()?.map(|delay| duration_of(&delay?));
                config.backoff = delays.collect::<PyResult<_>>()?;
            }
            "max_ack_pending" => config.max_ack_pending = option(name, &value)?,
            "filter" => {
                config.filter = Some(Filter::new(&option::<String>(name, &value)?).map_err(coded)?);
            }
            "subjects" => {
                let patterns: Vec<String> = option(name, &value)?;
                let patterns = patterns.into_iter().map(Pattern::new).collect::<Result<_>>();
                config.subjects = patterns.map_err(coded)?;
            }
            "start" => config.start = start(option(name, &value)?).map_err(coded)?,
            "priority_window" => config.priority_window = option(name, &value)?,
            "dead_letters" => config.dead_letter = option(name, &value)?,
            "inactive_after" => config.inactive_after = Some(duration_of(&value)?),
            other => return Err(coded(unknown("option", other))),
        }
    }
    Ok(config)
}

fn ack(name: &str) -> Result<Ack> {
    match name {
        "explicit" => Ok(Ack::Explicit),
        "none" => Ok(Ack::None),
        "all" => Ok(Ack::All),
        other => Err(unknown("ack", other)),
    }
}

fn start((begin, number): (String, u64)) -> Result<Begin> {
    match &*begin {
        "first" => Ok(Begin::First),
        "last" => Ok(Begin::Last),
        "new" => Ok(Begin::Next),
        "sequence" => Ok(Begin::Sequence(number)),
        "time" => Ok(Begin::Time(number)),
        other => Err(unknown("start", other)),
    }
}

fn unknown(what: &str, given: &str) -> Error {
    Error::new(&codes::STREAM_OPTION, format!("{given:?} is no {what} of a consumer"))
        .with("option", what)
}
