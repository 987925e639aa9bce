//! A tenant's namespace: publishing, asking, subscribing.

use std::path::PathBuf;
use std::sync::Arc;

use dwk_base::{CorrelationId, Error, Result, Seams, codes};
use dwk_bus::{
    Bus, Filter, Limits, Message as Outgoing, Options, Pattern, Policy, Published, Rest, Space,
    Spill, Subject,
};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};

use super::message::Message;
use super::subscription::BusSubscription;
use crate::buffers::Input;
use crate::detach::detach;
use crate::errors::to_py;
use crate::forks::Ours;
use crate::held::Held;
use crate::store::Caller;
use crate::waiting::{deadline_of, in_slices};

/// Matched, queued, dropped.
type Counts = (usize, usize, usize);
/// Subscription, code, message.
type FailureTuple = (String, &'static str, String);

/// One principal in one namespace; see `dwkernel.bus.Bus`.
#[pyclass(frozen, module = "dwkernel._native")]
pub(crate) struct BusSpace {
    pub(super) space: Ours<Space>,
    principal: Option<Arc<str>>,
    seams: Seams,
    /// Ends with the last of its spaces; none for a kernel's.
    own: Ours<Option<Bus>>,
    /// Where streams are kept, if they can be.
    pub(super) store: Option<Keeper>,
}

/// The store that a bus belongs to, and who uses it.
#[derive(Clone)]
pub(super) struct Keeper {
    pub(super) kernel: Held,
    pub(super) caller: Caller,
}

impl BusSpace {
    pub(crate) fn of_kernel(space: Space, kernel: Held, caller: Caller) -> Self {
        let seams = kernel.seams().clone();
        let principal = Some(caller.principal().into());
        let store = Some(Keeper { kernel, caller });
        Self { space: Ours::new(space), principal, seams, own: Ours::new(None), store }
    }
}

/// A message's fields as Python gives them.
pub(super) struct Fields<'a, 'py> {
    pub(super) headers: Option<&'a Bound<'py, PyDict>>,
    pub(super) key: Option<&'a str>,
    pub(super) schema: Option<&'a str>,
    pub(super) priority: i64,
    pub(super) correlation: Option<&'a str>,
}

#[pymethods]
impl BusSpace {
    /// A bus of its own, for programs without a store.
    #[new]
    #[pyo3(signature = (principal=None))]
    fn new(py: Python<'_>, principal: Option<&str>) -> PyResult<Self> {
        let seams = Seams::system();
        let limits = Limits::default();
        let bus = Bus::new(Arc::clone(&seams.clock), Arc::clone(&seams.random), limits);
        let space = bus.space("").map_err(|error| to_py(py, &error))?;
        Ok(Self {
            space: Ours::new(space),
            principal: principal.map(Into::into),
            seams,
            own: Ours::new(Some(bus)),
            store: None,
        })
    }

    #[pyo3(signature = (subject, data, headers=None, key=None, schema=None, priority=0, correlation=None, timeout=None))]
    #[allow(clippy::too_many_arguments)] // by keyword, in Python
    fn publish(
        &self,
        subject: &Bound<'_, PyString>,
        data: &Bound<'_, PyAny>,
        headers: Option<&Bound<'_, PyDict>>,
        key: Option<&str>,
        schema: Option<&str>,
        priority: i64,
        correlation: Option<&str>,
        timeout: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Counts> {
        let py = subject.py();
        let fields = Fields { headers, key, schema, priority, correlation };
        let message = self.message(subject, data, &fields)?;
        let mut interrupted = Ok(());
        let published = self.space.publish_with(message, |rest| {
            interrupted = wait_for_room(py, rest, timeout);
        });
        interrupted?;
        published.map(counts).map_err(|error| to_py(py, &error))
    }

    /// Publishes `(subject, data)` or `(subject, data, headers)`, in order.
    #[pyo3(signature = (messages, timeout=None))]
    fn publish_many(
        &self,
        messages: &Bound<'_, PyAny>,
        timeout: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Counts> {
        let py = messages.py();
        let mut outgoing = Vec::new();
        for one in messages.try_iter()? {
            let one = one?;
            let (subject, data, headers) = match one.len()? {
                2 => (one.get_item(0)?, one.get_item(1)?, None),
                _ => (one.get_item(0)?, one.get_item(1)?, Some(one.get_item(2)?)),
            };
            let headers = headers.map(Bound::cast_into::<PyDict>).transpose()?;
            let fields = Fields {
                headers: headers.as_ref(),
                key: None,
                schema: None,
                priority: 0,
                correlation: None,
            };
            outgoing.push(self.message(subject.cast::<PyString>()?, &data, &fields)?);
        }
        let deadline = deadline_of(timeout)?;
        detach(py, || self.space.publish_many(outgoing, &deadline)).map(counts)
    }

    #[pyo3(signature = (subject, data, headers=None, key=None, schema=None, priority=0, correlation=None, timeout=None))]
    #[allow(clippy::too_many_arguments)] // by keyword, in Python
    fn publish_and_wait(
        &self,
        subject: &Bound<'_, PyString>,
        data: &Bound<'_, PyAny>,
        headers: Option<&Bound<'_, PyDict>>,
        key: Option<&str>,
        schema: Option<&str>,
        priority: i64,
        correlation: Option<&str>,
        timeout: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<(Counts, usize, Vec<FailureTuple>)> {
        let py = subject.py();
        let fields = Fields { headers, key, schema, priority, correlation };
        let (message, deadline) = (self.message(subject, data, &fields)?, deadline_of(timeout)?);
        let outcome = detach(py, || self.space.publish_and_wait(message, &deadline))?;
        let failures = outcome.failures.into_iter().map(|failure| {
            let error = failure.error;
            (failure.subscription.to_string(), error.code().name, error.message().to_owned())
        });
        Ok((counts(outcome.published), outcome.handled, failures.collect()))
    }

    #[pyo3(signature = (subject, data, headers=None, key=None, schema=None, priority=0, correlation=None, timeout=None))]
    #[allow(clippy::too_many_arguments)] // by keyword, in Python
    fn request(
        &self,
        subject: &Bound<'_, PyString>,
        data: &Bound<'_, PyAny>,
        headers: Option<&Bound<'_, PyDict>>,
        key: Option<&str>,
        schema: Option<&str>,
        priority: i64,
        correlation: Option<&str>,
        timeout: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Message> {
        let py = subject.py();
        let fields = Fields { headers, key, schema, priority, correlation };
        let (message, deadline) = (self.message(subject, data, &fields)?, deadline_of(timeout)?);
        let request = detach(py, || self.space.ask(message, &deadline))?;
        let mut answer = None;
        let told = in_slices(py, &deadline, |slice| match request.wait(slice) {
            Err(error) if error.is(&codes::BUS_TIMEOUT) && !deadline.has_passed() => Ok(false),
            outcome => {
                answer = Some(outcome?);
                Ok(true)
            }
        })?;
        match answer {
            Some(envelope) if told => Ok(Message::answer(&self.space, envelope)),
            _ => {
                let text = format!("no answer from {} in time", request.subject());
                Err(to_py(py, &Error::new(&codes::BUS_TIMEOUT, text)))
            }
        }
    }

    #[pyo3(signature = (pattern, *, name, filter, group, policy, messages_max, bytes_max, workers, spill_directory, spill_bytes_max))]
    #[allow(clippy::too_many_arguments)] // by keyword only
    fn subscribe(
        &self,
        py: Python<'_>,
        pattern: &str,
        name: Option<&str>,
        filter: Option<&str>,
        group: Option<&str>,
        policy: &str,
        messages_max: usize,
        bytes_max: usize,
        workers: usize,
        spill_directory: Option<PathBuf>,
        spill_bytes_max: u64,
    ) -> PyResult<BusSubscription> {
        let made = || -> Result<BusSubscription> {
            self.space.get()?;
            let options = Options {
                name: name.map(Into::into),
                filter: filter.map(Filter::new).transpose()?,
                group: group.map(Into::into),
                policy: self.policy(policy, spill_directory, spill_bytes_max)?,
                messages_max,
                bytes_max,
                workers,
            };
            let subscription = self.space.subscribe(Pattern::new(pattern)?, options)?;
            Ok(BusSubscription::new(&self.space, subscription))
        };
        made().map_err(|error| to_py(py, &error))
    }

    /// Ends a bus of its own; a kernel's ends with the kernel.
    #[pyo3(signature = (timeout=None))]
    fn close(&self, py: Python<'_>, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
        let deadline = deadline_of(timeout)?;
        match &*self.own {
            Some(bus) => detach(py, || bus.close(&deadline)),
            None => Ok(()),
        }
    }
}

impl BusSpace {
    pub(super) fn message(
        &self,
        subject: &Bound<'_, PyString>,
        data: &Bound<'_, PyAny>,
        fields: &Fields<'_, '_>,
    ) -> PyResult<Outgoing> {
        let py = subject.py();
        let made = || -> Result<Outgoing> {
            self.space.get()?;
            let text = subject.to_str().map_err(|_| not_text())?;
            let mut message = Outgoing::new(Subject::new(text)?, Vec::new());
            message.principal.clone_from(&self.principal);
            message.key = fields.key.map(Into::into);
            message.schema = fields.schema.map(Into::into);
            message.priority = u8::try_from(fields.priority)
                .map_err(|_| bad(&format!("priority={} is not 0 to 255", fields.priority)))?;
            message.correlation = fields.correlation.map(correlation_of).transpose()?;
            Ok(message)
        };
        let mut message = made().map_err(|error| to_py(py, &error))?;
        message.data = Input::new(data)?.source().to_vec().into();
        if let Some(headers) = fields.headers {
            message.headers.reserve(headers.len());
            for (name, value) in headers.iter() {
                message.headers.push((name.extract()?, value.extract()?));
            }
        }
        Ok(message)
    }

    fn policy(&self, name: &str, directory: Option<PathBuf>, bytes_max: u64) -> Result<Policy> {
        Ok(match (name, directory) {
            ("block", _) => Policy::Block,
            ("drop_oldest", _) => Policy::DropOldest,
            ("drop_newest", _) => Policy::DropNewest,
            ("spill", Some(directory)) => {
                let random = Arc::clone(&self.seams.random);
                Policy::Spill(Spill::in_directory(directory, bytes_max, random))
            }
            _ => {
                let text = format!(
                    "a slow consumer is met with block, drop_oldest, drop_newest or spill, not {name:?}"
                );
                return Err(Error::new(&codes::STORE_OPTION, text));
            }
        })
    }
}

fn bad(text: &str) -> Error {
    Error::new(&codes::STREAM_OPTION, text.to_owned())
}

fn correlation_of(text: &str) -> Result<CorrelationId> {
    let bad = |_| bad(&format!("correlation_id={text:?} is not 32 hexadecimal digits"));
    text.parse().map_err(bad)
}

fn not_text() -> Error {
    Error::new(&codes::BUS_SUBJECT, "a subject is text without lone surrogates")
}

fn counts(published: Published) -> Counts {
    (published.matched, published.queued, published.dropped)
}

/// Waits without the GIL for those that hold the publisher back; Ctrl-C ends it, and they do not get it.
fn wait_for_room(
    py: Python<'_>,
    mut rest: Rest<'_>,
    timeout: Option<&Bound<'_, PyAny>>,
) -> PyResult<()> {
    in_slices(py, &deadline_of(timeout)?, |slice| Ok(rest.wait(slice))).map(drop)
}
