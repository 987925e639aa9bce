//! `dwkernel.queue.BytesQueue`: the part of it that must be fast.
//!
//! Short messages are copied with the GIL held, in about the time that a release of it would take. Long ones
//! and every wait go without it. The queue's locks are never held while a thread waits for the GIL: other
//! processes would wait for this one's threads then.

use std::sync::Arc;
use std::time::Duration;

use dwk_base::{Error, Result, Seams, SystemClock, codes};
use dwk_queue::shared::{self, Message, Need, Options, Taking, Try, Waiter};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList};

use crate::buffers::{Fresh, Input, Source};
use crate::detach::detach;
use crate::errors::to_py;
use crate::waiting::duration_of;

/// From this length on the GIL is released for the copy.
const LONG_BYTES: usize = 16 << 10;
/// How much of an iterable is looked at ahead of what is put.
const BATCH_COUNT_MAX: usize = 1024;
const BATCH_BYTES_MAX: usize = 256 << 10;
/// How long a call that does not wait gives another process that is in the middle of a put or get.
const LOCK_PATIENCE: Duration = Duration::from_millis(100);

/// The native part of `dwkernel.queue.BytesQueue`, which says what its methods do.
#[pyclass(frozen, subclass, module = "dwkernel._native")]
pub(crate) struct SharedQueue {
    queue: shared::SharedQueue,
}

/// `try_get`'s argument, which may be None.
enum Fallback<'py> {
    Missing,
    Given(Bound<'py, PyAny>),
}

impl<'py> FromPyObject<'_, 'py> for Fallback<'py> {
    type Error = PyErr;

    fn extract(object: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        Ok(Self::Given(object.to_owned()))
    }
}

/// A buffer, on its way into the queue.
struct Outgoing<'a>(Source<'a>);

impl Message for Outgoing<'_> {
    #[inline]
    fn bytes(&self) -> usize {
        self.0.len()
    }

    #[inline]
    fn for_each_piece(&self, each: impl FnMut(&[u8])) {
        self.0.for_each_piece(each);
    }
}

#[pymethods]
impl SharedQueue {
    #[new]
    #[pyo3(signature = (capacity_bytes, name))]
    fn new(py: Python<'_>, capacity_bytes: Option<u64>, name: Option<String>) -> PyResult<Self> {
        let queue = detach(py, || {
            if let Some(capacity_bytes) = capacity_bytes {
                let options = Options { capacity_bytes, name };
                return shared::SharedQueue::make(&options, &Seams::system());
            }
            let clock = Arc::new(SystemClock::default());
            shared::SharedQueue::attach(name.as_deref().unwrap_or_default(), clock)
        })?;
        Ok(Self { queue })
    }

    /// Put a message; wait for room.
    ///
    /// Args:
    ///     data: any C-contiguous buffer; its bytes are copied.
    ///     timeout: seconds, or text such as "30s"; None waits for ever.
    ///
    /// Raises:
    ///     State: `queue.closed`, also if it is closed meanwhile; the message is not in the queue then.
    ///     Timeout: `queue.timeout`
    ///     Invalid: `queue.message_size`, `buffer.type`, `unit.invalid`
    ///     Unavailable: `queue.abandoned` if every other process that used the queue died.
    ///     Corrupt: `queue.damaged`
    ///
    /// Waits without the GIL. Ctrl-C ends the wait; the message is in the queue or not at all.
    #[pyo3(signature = (data, timeout=None))]
    fn put(
        &self,
        py: Python<'_>,
        data: &Bound<'_, PyAny>,
        timeout: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        self.enter(py)?;
        let timeout = timeout.map(duration_of).transpose()?;
        let input = Input::new(data)?;
        let mut waiter = None;
        while !matches!(self.put_now(py, input.source())?, Try::Done(())) {
            let need = Need::Room(input.len());
            step(py, waiter.get_or_insert_with(|| Waiter::new(&self.queue, need, timeout)))?;
        }
        Ok(())
    }

    /// Take the oldest message; wait for one.
    ///
    /// Args:
    ///     timeout: seconds, or text such as "30s"; None waits for ever.
    ///
    /// Returns:
    ///     The bytes that were put. Nobody else gets them.
    ///
    /// Raises:
    ///     State: `queue.closed` once the queue is closed and empty.
    ///     Timeout: `queue.timeout`
    ///     Invalid: `unit.invalid`
    ///     Unavailable: `queue.abandoned` if every other process that used the queue died.
    ///     Corrupt: `queue.damaged`
    ///
    /// Waits without the GIL. Ctrl-C ends the wait; the message stays for the next then.
    #[pyo3(signature = (timeout=None))]
    fn get<'py>(
        &self,
        py: Python<'py>,
        timeout: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyBytes>> {
        self.enter(py)?;
        let timeout = timeout.map(duration_of).transpose()?;
        let mut waiter = None;
        loop {
            if let Try::Done(message) = self.get_now(py)? {
                return Ok(message);
            }
            step(py, waiter.get_or_insert_with(|| Waiter::new(&self.queue, Need::Item, timeout)))?;
        }
    }

    /// Put a message if there is room now.
    ///
    /// Args:
    ///     data: any C-contiguous buffer; its bytes are copied.
    ///
    /// Returns:
    ///     True if the message is in the queue; False if there was no room, or another process has
    ///     been in the middle of a put for 100 ms.
    ///
    /// Raises:
    ///     State: `queue.closed`
    ///     Invalid: `queue.message_size`, `buffer.type`
    ///     Corrupt: `queue.damaged`
    fn try_put(&self, py: Python<'_>, data: &Bound<'_, PyAny>) -> PyResult<bool> {
        self.enter(py)?;
        let input = Input::new(data)?;
        let need = Need::Room(input.len());
        let done = self.patiently(py, need, || self.put_now(py, input.source()))?;
        Ok(done.is_some())
    }

    /// Take the oldest message if there is one now.
    ///
    /// Args:
    ///     default: what to return if there is none, or another process has been in the middle of
    ///         a get for 100 ms.
    ///
    /// Returns:
    ///     The bytes that were put, or `default`.
    ///
    /// Raises:
    ///     Unavailable: `queue.empty` if there is none and no `default` was given.
    ///     State: `queue.closed` once the queue is closed and empty.
    ///     Corrupt: `queue.damaged`
    #[pyo3(signature = (default=Fallback::Missing), text_signature = "($self, default=...)")]
    fn try_get<'py>(&self, py: Python<'py>, default: Fallback<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.enter(py)?;
        let message = self.patiently(py, Need::Item, || self.get_now(py))?;
        match (message, default) {
            (Some(message), _) => Ok(message.into_any()),
            (None, Fallback::Given(default)) => Ok(default),
            (None, Fallback::Missing) => {
                let message = format!("queue {:?} has nothing to take", self.queue.name());
                Err(to_py(py, &Error::new(&codes::QUEUE_EMPTY, message)))
            }
        }
    }

    /// Put many messages, in order; wait for room.
    ///
    /// Args:
    ///     messages: an iterable of C-contiguous buffers. It is read at most 1024 messages or about
    ///         256 KiB ahead.
    ///     timeout: seconds, or text such as "30s", for all waits together; None waits for ever.
    ///
    /// Returns:
    ///     How many were put: all of them.
    ///
    /// Raises:
    ///     State: `queue.closed`
    ///     Timeout: `queue.timeout`
    ///     Invalid: `queue.message_size`, `buffer.type`, `unit.invalid`
    ///     Unavailable: `queue.abandoned` if every other process that used the queue died.
    ///     Corrupt: `queue.damaged`
    ///     Exception: whatever the iterable raises; what it gave before is put first.
    ///
    /// The messages before the one that failed are in the queue; of an error of the queue,
    /// `details["put"]` says how many.
    #[pyo3(signature = (messages, timeout=None))]
    fn put_many(
        &self,
        py: Python<'_>,
        messages: &Bound<'_, PyAny>,
        timeout: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<usize> {
        self.enter(py)?;
        let timeout = timeout.map(duration_of).transpose()?;
        let mut messages = messages.try_iter()?;
        let (mut waiter, mut count) = (None, 0);
        loop {
            let (batch, raised) = next_batch(&mut messages);
            let sources: Vec<_> = batch.iter().map(|input| Outgoing(input.source())).collect();
            let mut left = &sources[..];
            while let Some(first) = left.first() {
                let outcome = match self.put_all_now(py, left) {
                    Ok(Try::Done(done)) => {
                        count += done;
                        left = &left[done..];
                        continue;
                    }
                    Ok(Try::NotNow | Try::Busy) => {
                        let need = Need::Room(first.bytes());
                        let start = || Waiter::new(&self.queue, need, timeout);
                        let waiter = waiter.get_or_insert_with(start);
                        waiter.go_on_for(first.bytes());
                        detach(py, || Ok(waiter.step()))?
                    }
                    Err(error) => Err(error),
                };
                outcome.map_err(|error| to_py(py, &error.with("put", count)))?;
                py.check_signals()?;
            }
            if let Some(raised) = raised {
                return Err(raised);
            }
            if batch.is_empty() {
                return Ok(count);
            }
        }
    }

    /// Take up to `limit` messages; wait for the first only.
    ///
    /// Args:
    ///     limit: 1 or more.
    ///     timeout: seconds, or text such as "30s"; None waits for ever.
    ///
    /// Returns:
    ///     The oldest messages, in order, at least one: those that are there, up to `limit`. A
    ///     message of 16 KiB or more ends a batch.
    ///
    /// Raises:
    ///     State: `queue.closed` once the queue is closed and empty.
    ///     Timeout: `queue.timeout`
    ///     Invalid: `queue.capacity` if `limit` is less than 1; `unit.invalid`
    ///     Unavailable: `queue.abandoned` if every other process that used the queue died.
    ///     Corrupt: `queue.damaged`
    #[pyo3(signature = (limit, timeout=None))]
    fn get_many<'py>(
        &self,
        py: Python<'py>,
        limit: i64,
        timeout: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyList>> {
        self.enter(py)?;
        let timeout = timeout.map(duration_of).transpose()?;
        let Some(limit) = usize::try_from(limit).ok().filter(|limit| *limit > 0) else {
            let message = format!("a batch of {limit} messages");
            return Err(to_py(py, &Error::new(&codes::QUEUE_CAPACITY, message)));
        };
        let mut waiter = None;
        loop {
            if let Try::Done(taking) = or_raise(py, self.queue.try_take())? {
                return take_many(py, taking, limit);
            }
            step(py, waiter.get_or_insert_with(|| Waiter::new(&self.queue, Need::Item, timeout)))?;
        }
    }

    /// Wait until there is something to take, or the queue is closed; True if so, False after `timeout_s`.
    fn wait_item(&self, py: Python<'_>, timeout_s: f64) -> PyResult<bool> {
        self.wait(py, Need::Item, timeout_s)
    }

    /// Wait until there is room for so many bytes, or the queue is closed; True if so, False after `timeout_s`.
    fn wait_room(&self, py: Python<'_>, message_bytes: usize, timeout_s: f64) -> PyResult<bool> {
        self.wait(py, Need::Room(message_bytes), timeout_s)
    }

    /// Close the queue for every process: nothing more is put, what is in it can still be taken.
    ///
    /// Who waits to put fails with `queue.closed`, who waits to get does so once the queue is empty. Processes
    /// that are just starting still find it by its name, until the maker leaves; a new queue may have
    /// the name. Closing again changes nothing.
    fn close(&self) {
        self.queue.close();
    }

    /// Let go of the queue in this process; the others go on.
    ///
    /// Calls fail with `queue.closed` from now on. The name goes if this process made the queue. Happens by itself when
    /// the process ends in good order. Leaving again changes nothing.
    fn leave(&self) {
        self.queue.leave();
    }

    /// Size of the ring in bytes. A message takes its length, padded to a multiple of 8, and 8 bytes.
    #[getter]
    fn capacity_bytes(&self) -> usize {
        self.queue.capacity_bytes()
    }

    /// The length of the longest message in bytes.
    #[getter]
    fn message_bytes_max(&self) -> usize {
        self.queue.message_bytes_max()
    }

    /// What `attach` takes.
    #[getter]
    fn name(&self) -> &str {
        self.queue.name()
    }

    /// True once any process has closed the queue.
    #[getter]
    fn closed(&self) -> bool {
        self.queue.is_closed()
    }

    /// Figures of all processes together; makes no system call.
    fn counters<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let counters = self.queue.counters();
        let figures = PyDict::new(py);
        figures.set_item("items", counters.items)?;
        figures.set_item("used_bytes", counters.used_bytes)?;
        figures.set_item("puts", counters.puts)?;
        figures.set_item("gets", counters.gets)?;
        figures.set_item("put_waits", counters.put_waits)?;
        figures.set_item("get_waits", counters.get_waits)?;
        figures.set_item("recoveries", counters.recoveries)?;
        figures.set_item("deaths", counters.deaths)?;
        Ok(figures)
    }

    /// The processes that use the queue: `(pid, is_alive)` each.
    fn participants(&self) -> Vec<(u32, bool)> {
        let all = self.queue.participants().into_iter();
        all.map(|participant| (participant.pid, participant.is_alive)).collect()
    }

    fn __len__(&self) -> usize {
        self.queue.depth().0
    }

    fn __iter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyBytes>>> {
        self.enter(py)?;
        let mut waiter = None;
        loop {
            match self.try_get_now(py) {
                Ok(Try::Done(message)) => return Ok(Some(message?)),
                Ok(Try::NotNow | Try::Busy) => {}
                Err(error) if error.is(&codes::QUEUE_CLOSED) => return Ok(None),
                Err(error) => return Err(to_py(py, &error)),
            }
            step(py, waiter.get_or_insert_with(|| Waiter::new(&self.queue, Need::Item, None)))?;
        }
    }
}

impl SharedQueue {
    /// Makes sure that this process will leave in good order, if a fork made it since the last call.
    #[inline]
    fn enter(&self, py: Python<'_>) -> PyResult<()> {
        if self.queue.is_member() {
            return Ok(());
        }
        py.import("dwkernel._shared_queue")?.call_method0("_joined").map(drop)
    }

    #[inline]
    fn put_now(&self, py: Python<'_>, source: Source<'_>) -> PyResult<Try<()>> {
        if source.len() >= LONG_BYTES {
            return detach(py, || self.queue.try_put(&Outgoing(source)));
        }
        or_raise(
            py,
            match source {
                Source::Bytes(bytes) => self.queue.try_put(bytes),
                shared @ Source::Shared(_) => self.queue.try_put(&Outgoing(shared)),
            },
        )
    }

    fn put_all_now(&self, py: Python<'_>, messages: &[Outgoing<'_>]) -> Result<Try<usize>> {
        let bytes: usize = messages.iter().map(Message::bytes).sum();
        if bytes < LONG_BYTES {
            return self.queue.try_put_all(messages);
        }
        py.detach(|| self.queue.try_put_all(messages))
    }

    #[inline]
    fn get_now<'py>(&self, py: Python<'py>) -> PyResult<Try<Bound<'py, PyBytes>>> {
        Ok(match or_raise(py, self.try_get_now(py))? {
            Try::Done(message) => Try::Done(message?),
            Try::NotNow => Try::NotNow,
            Try::Busy => Try::Busy,
        })
    }

    /// The outer error is the queue's, the inner one Python's.
    #[inline]
    fn try_get_now<'py>(&self, py: Python<'py>) -> Result<Try<PyResult<Bound<'py, PyBytes>>>> {
        let mut taking = match self.queue.try_take()? {
            Try::Done(taking) => taking,
            Try::NotNow => return Ok(Try::NotNow),
            Try::Busy => return Ok(Try::Busy),
        };
        let bytes = taking.next_bytes()?.unwrap_or_default();
        let message = Fresh::new(py, bytes).map(|mut message| {
            if bytes < LONG_BYTES {
                message.fill(|room| taking.copy_into(room));
                taking.finish();
            } else {
                py.detach(|| {
                    message.fill(|room| taking.copy_into(room));
                    taking.finish();
                });
            }
            message.done(py)
        });
        Ok(Try::Done(message))
    }

    /// Tries until it was done or could not be, but gives up on a lock that is held for long.
    #[inline]
    fn patiently<T>(
        &self,
        py: Python<'_>,
        need: Need,
        mut attempt: impl FnMut() -> PyResult<Try<T>>,
    ) -> PyResult<Option<T>> {
        let mut waiter = None;
        loop {
            match attempt()? {
                Try::Done(value) => return Ok(Some(value)),
                Try::NotNow => return Ok(None),
                Try::Busy => {}
            }
            let start = || Waiter::new(&self.queue, need, Some(LOCK_PATIENCE));
            let waiter = waiter.get_or_insert_with(start);
            if detach(py, || Ok(waiter.step_for_lock()))?.is_err() {
                return Ok(None);
            }
            py.check_signals()?;
        }
    }

    fn wait(&self, py: Python<'_>, need: Need, timeout_s: f64) -> PyResult<bool> {
        self.enter(py)?;
        let timeout = Duration::try_from_secs_f64(timeout_s).unwrap_or_default();
        let mut waiter = Waiter::new(&self.queue, need, Some(timeout));
        while !waiter.is_ready() {
            match detach(py, || Ok(waiter.step()))? {
                Ok(()) => py.check_signals()?,
                Err(error) if error.is(&codes::QUEUE_TIMEOUT) => return Ok(false),
                Err(error) => return Err(to_py(py, &error)),
            }
        }
        Ok(true)
    }
}

#[inline]
fn or_raise<T>(py: Python<'_>, result: Result<T>) -> PyResult<T> {
    result.map_err(|error| to_py(py, &error))
}

/// Waits for a moment without the GIL, then lets Python look at signals.
#[cold]
fn step(py: Python<'_>, waiter: &mut Waiter<'_>) -> PyResult<()> {
    detach(py, || waiter.step())?;
    py.check_signals()
}

/// The next messages of an iterable, and what it raised instead of one more.
fn next_batch<'py>(
    messages: &mut Bound<'py, pyo3::types::PyIterator>,
) -> (Vec<Input<'py>>, Option<PyErr>) {
    let (mut batch, mut bytes) = (Vec::new(), 0);
    while batch.len() < BATCH_COUNT_MAX && bytes < BATCH_BYTES_MAX {
        match messages.next().map(|message| Input::new(&message?)) {
            Some(Ok(input)) => {
                bytes += input.len();
                batch.push(input);
            }
            Some(Err(raised)) => return (batch, Some(raised)),
            None => break,
        }
    }
    (batch, None)
}

fn take_many<'py>(
    py: Python<'py>,
    mut taking: Taking<'_>,
    limit: usize,
) -> PyResult<Bound<'py, PyList>> {
    let mut messages = Vec::with_capacity(limit.min(taking.items()).min(BATCH_COUNT_MAX));
    let mut is_long = false;
    while messages.len() < limit && !is_long {
        let Some(bytes) = or_raise(py, taking.next_bytes())? else { break };
        is_long = bytes >= LONG_BYTES;
        let mut message = Fresh::new(py, bytes)?;
        message.fill(|room| taking.copy_into(room));
        messages.push(message);
    }
    taking.finish();
    PyList::new(py, messages.into_iter().map(|message| message.done(py)))
}
