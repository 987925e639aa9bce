//! `BoundedQueue`.
//!
//! Items go in and out with the GIL held, so that the garbage collector sees every one of them at any
//! time; only sleeping happens without it.

use dwk_base::{Error, codes};
use dwk_queue::{Options, PopError, PushError, Queue};
use pyo3::exceptions::PyStopIteration;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyTuple};

use super::held::Held;
use super::turn::QueueTurn;
use super::waiting::{Wish, until};
use crate::errors::to_py;
use crate::forks::Generation;

/// Items drawn from an iterator at a time: those that do not fit are told to the caller.
const DRAW_COUNT: usize = 256;
/// A bounded, lock-free queue of Python objects, for threads and asyncio tasks of one process.
///
/// Objects go through as references: nothing is copied or pickled. Items of one producer come out in the
/// order in which it put them in. Who waits is woken in the order in which they came; an item goes to
/// whoever asks first. A wait that is given up, by timeout, cancellation or Ctrl-C, loses no item.
///
/// `close` ends it in order: nothing more goes in, what is in it comes out, then `get` raises
/// `queue.closed` and iteration ends. It is a context manager that closes at the end.
///
/// It does not cross a fork (`queue.forked`) and is not pickled: use `BytesQueue` between processes. As
/// with other queues, threads that wait and are no daemons keep the program from ending.
///
/// Args:
///     capacity: items that each lane holds at most, 1 to 2^30; each takes 16 bytes of memory.
///     lanes: 1 to 64 lanes. Lane 0 is the most urgent: what is in it comes out first.
///     relief: every so many gets the lanes are looked at from the last one on, so that the less urgent
///         ones do not starve. By default they wait while there is anything more urgent.
///
/// Raises:
///     Invalid: `queue.capacity`.
#[pyclass(frozen, weakref, generic, module = "dwkernel.queue")]
pub(crate) struct BoundedQueue {
    queue: Held,
    made_in: Generation,
}

/// An argument that may be missing, where None is a value.
pub(crate) struct Given(Option<Py<PyAny>>);

impl<'a, 'py> FromPyObject<'a, 'py> for Given {
    type Error = PyErr;

    fn extract(object: Borrowed<'a, 'py, PyAny>) -> PyResult<Self> {
        Ok(Self(Some(object.to_owned().unbind())))
    }
}

#[pymethods]
impl BoundedQueue {
    #[new]
    #[pyo3(signature = (capacity, *, lanes=1, relief=None))]
    fn new(py: Python<'_>, capacity: i64, lanes: i64, relief: Option<i64>) -> PyResult<Self> {
        let made = || {
            let positive = |count: i64| usize::try_from(count).unwrap_or(0);
            let relief = relief.map(|every| std::num::NonZero::new(positive(every)));
            let relief = relief.map(|every| every.ok_or_else(no_relief)).transpose()?;
            Queue::with(&Options { capacity: positive(capacity), lanes: positive(lanes), relief })
        };
        let queue = made().map_err(|error| to_py(py, &error))?;
        Ok(Self { queue: Held::new(queue), made_in: Generation::now() })
    }

    /// Puts an item into a lane; waits for room.
    ///
    /// Args:
    ///     item: any object; a reference goes in, no copy.
    ///     timeout: seconds, or text such as "30s"; None waits for ever.
    ///     lane: which one, from 0 on.
    ///
    /// Raises:
    ///     Timeout: `queue.timeout`; the item did not go in.
    ///     State: `queue.closed`, also if it is closed meanwhile; `queue.forked`.
    ///     Invalid: `queue.capacity` if there is no such lane; `unit.invalid`.
    ///
    /// Waits without the GIL; Ctrl-C ends the wait.
    #[pyo3(signature = (item, timeout=None, *, lane=0))]
    fn put(
        &self,
        py: Python<'_>,
        item: Py<PyAny>,
        timeout: Option<&Bound<'_, PyAny>>,
        lane: usize,
    ) -> PyResult<()> {
        self.check(py, lane)?;
        match self.queue.push(lane, item) {
            Ok(()) => Ok(()),
            Err(PushError::Full(item)) => self.put_patiently(py, item, timeout, lane),
            Err(error) => Err(to_py(py, &error.into())),
        }
    }

    /// Puts an item into a lane if there is room, at once.
    ///
    /// Returns:
    ///     True if it went in, False if the lane is full.
    ///
    /// Raises:
    ///     State: `queue.closed`, `queue.forked`.
    ///     Invalid: `queue.capacity` if there is no such lane.
    #[pyo3(signature = (item, *, lane=0))]
    fn try_put(&self, py: Python<'_>, item: Py<PyAny>, lane: usize) -> PyResult<bool> {
        self.check(py, lane)?;
        match self.queue.push(lane, item) {
            Ok(()) => Ok(true),
            Err(PushError::Full(_)) => Ok(false),
            Err(error) => Err(to_py(py, &error.into())),
        }
    }

    /// Takes out the oldest item of the most urgent lane; waits for one.
    ///
    /// Args:
    ///     timeout: seconds, or text such as "30s"; None waits for ever.
    ///
    /// Returns:
    ///     The item.
    ///
    /// Raises:
    ///     Timeout: `queue.timeout`.
    ///     State: `queue.closed` once it is closed and empty; `queue.forked`.
    ///     Invalid: `unit.invalid`.
    ///
    /// Waits without the GIL; Ctrl-C ends the wait.
    #[pyo3(signature = (timeout=None))]
    fn get(&self, py: Python<'_>, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<Py<PyAny>> {
        self.check(py, 0)?;
        match self.queue.pop() {
            Ok(item) => Ok(item),
            Err(PopError::Empty) => self.get_patiently(py, timeout),
            Err(error) => Err(to_py(py, &error.into())),
        }
    }

    /// Takes out the oldest item of the most urgent lane, at once.
    ///
    /// Args:
    ///     default: what is returned if nothing is there; without it, that raises.
    ///
    /// Returns:
    ///     The item, or `default`.
    ///
    /// Raises:
    ///     Unavailable: `queue.empty` if nothing is there and there is no default.
    ///     State: `queue.closed` once it is closed and empty; `queue.forked`.
    #[pyo3(signature = (default=Given(None)))]
    fn try_get(&self, py: Python<'_>, default: Given) -> PyResult<Py<PyAny>> {
        self.check(py, 0)?;
        match (self.queue.pop(), default.0) {
            (Ok(item), _) => Ok(item),
            (Err(PopError::Empty), Some(default)) => Ok(default),
            (Err(error), _) => Err(to_py(py, &error.into())),
        }
    }

    /// Puts all items into a lane, in order, as room comes.
    ///
    /// Args:
    ///     items: an iterable; from other than lists and tuples up to 256 are drawn at a time.
    ///     timeout: for each such part (lists and tuples are one); None waits for ever.
    ///     lane: which one, from 0 on.
    ///
    /// Returns:
    ///     How many went in: all.
    ///
    /// Raises:
    ///     Timeout: `queue.timeout`; State: `queue.closed`. Both have an attribute `left`: the list of
    ///         items that were drawn and did not go in, in order.
    ///     State: `queue.forked`; Invalid: `queue.capacity`, `unit.invalid`; nothing was drawn.
    ///     What the iterator raises; all that it gave before has gone in.
    ///
    /// Waits without the GIL; Ctrl-C ends the wait.
    #[pyo3(signature = (items, timeout=None, *, lane=0))]
    fn put_many(
        &self,
        items: &Bound<'_, PyAny>,
        timeout: Option<&Bound<'_, PyAny>>,
        lane: usize,
    ) -> PyResult<usize> {
        let py = items.py();
        self.check(py, lane)?;
        if let Ok(list) = items.cast_exact::<PyList>() {
            return self.put_all(py, members(list), 0, timeout, lane);
        }
        if let Ok(tuple) = items.cast_exact::<PyTuple>() {
            return self.put_all(py, tuple.iter().map(Bound::unbind).collect(), 0, timeout, lane);
        }
        let (mut drawn, mut count) = (items.try_iter()?, 0);
        loop {
            let mut failure = None;
            let part = drawn.by_ref().take(DRAW_COUNT).map_while(|item| match item {
                Ok(item) => Some(item.unbind()),
                Err(error) => {
                    failure = Some(error);
                    None
                }
            });
            let part: Vec<_> = part.collect();
            let is_last = part.len() < DRAW_COUNT;
            // What was drawn before the iterator raised goes in, as it would one by one.
            count = self.put_all(py, part, count, timeout, lane)?;
            match failure {
                Some(error) => return Err(error),
                None if is_last => return Ok(count),
                None => {}
            }
        }
    }

    /// Takes out up to `limit` items, oldest first; waits for the first one only.
    ///
    /// Args:
    ///     limit: how many at most; 0 returns at once.
    ///     timeout: seconds, or text such as "30s"; None waits for ever.
    ///
    /// Returns:
    ///     A list of 1 to `limit` items.
    ///
    /// Raises:
    ///     As `get`.
    ///
    /// Waits without the GIL; Ctrl-C ends the wait.
    #[pyo3(signature = (limit, timeout=None))]
    fn get_many<'py>(
        &self,
        py: Python<'py>,
        limit: usize,
        timeout: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyList>> {
        self.check(py, 0)?;
        // No more room than there are items: `limit` may be any number.
        let mut taken = Vec::with_capacity(limit.min(self.queue.len()));
        let attempt = || match self.queue.pop_many(&mut taken, limit) {
            Ok(0) if limit > 0 => None,
            outcome => Some(outcome.map_err(Error::from)),
        };
        until(py, timeout, self.for_items(limit), attempt, || PopError::TimedOut.into())?;
        PyList::new(py, taken)
    }

    /// Takes nothing more in, and wakes everybody who waits. What is in it can be taken out.
    ///
    /// Closing twice is no error.
    ///
    /// Raises:
    ///     State: `queue.forked`.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        self.check(py, 0)?;
        self.queue.close();
        Ok(())
    }

    /// True once `close` was called.
    #[getter]
    fn closed(&self) -> bool {
        self.queue.is_closed()
    }

    /// Items that each lane holds at most.
    #[getter]
    fn capacity(&self) -> usize {
        self.queue.capacity()
    }

    /// How many lanes there are.
    #[getter]
    fn lanes(&self) -> usize {
        self.queue.lanes()
    }

    fn __len__(&self) -> usize {
        self.queue.len()
    }

    // An empty queue is still a queue.
    #[expect(clippy::unused_self, reason = "Python's protocol")]
    fn __bool__(&self) -> bool {
        true
    }

    fn __iter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __next__(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        self.check(py, 0)?;
        let attempt = || match self.queue.pop() {
            Ok(item) => Some(Ok(Some(item))),
            Err(PopError::Closed) => Some(Ok(None)),
            Err(_) => None,
        };
        let next = until(py, None, self.for_items(1), attempt, || PopError::TimedOut.into())?;
        next.ok_or_else(|| PyStopIteration::new_err(()))
    }

    /// What the queue has done.
    ///
    /// Returns:
    ///     A `QueueStats`.
    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let stats = self.queue.stats();
        let fields = PyDict::new(py);
        fields.set_item("depth", stats.depth.iter().sum::<usize>())?;
        fields.set_item("lanes", stats.depth)?;
        fields.set_item("puts", stats.puts)?;
        fields.set_item("gets", stats.gets)?;
        fields.set_item("put_waits", stats.put_waits)?;
        fields.set_item("get_waits", stats.get_waits)?;
        fields.set_item("putters", stats.putters)?;
        fields.set_item("getters", stats.getters)?;
        py.import("dwkernel.queue")?.getattr("QueueStats")?.call((), Some(&fields))
    }

    /// Puts an item into a lane, when there is room; to be awaited. Other tasks run on.
    ///
    /// Cancelled while it waits, nothing has gone in. For a time limit use `asyncio.timeout`.
    ///
    /// Args:
    ///     item: any object.
    ///     lane: which one, from 0 on.
    ///
    /// Raises:
    ///     State: `queue.closed`, `queue.forked`.
    ///     Invalid: `queue.capacity` if there is no such lane.
    #[pyo3(signature = (item, *, lane=0))]
    fn aput<'py>(
        slf: &Bound<'py, Self>,
        item: Bound<'py, PyAny>,
        lane: usize,
    ) -> PyResult<Bound<'py, PyAny>> {
        waiting(slf.py(), "aput")?.call1((slf, item, lane))
    }

    /// Takes the oldest item of the most urgent lane, when there is one; to be awaited. Other tasks run on.
    ///
    /// Cancelled while it waits, nothing has been taken. For a time limit use `asyncio.timeout`.
    ///
    /// Returns:
    ///     The item.
    ///
    /// Raises:
    ///     State: `queue.closed` once it is closed and empty; `queue.forked`.
    fn aget<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        waiting(slf.py(), "aget")?.call1((slf,))
    }

    fn __aiter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __anext__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        waiting(slf.py(), "anext")?.call1((slf,))
    }

    fn __enter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    #[pyo3(signature = (kind, error, trace))]
    fn __exit__(
        &self,
        py: Python<'_>,
        kind: Option<&Bound<'_, PyAny>>,
        error: Option<&Bound<'_, PyAny>>,
        trace: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let _ = (kind, error, trace);
        self.close(py)
    }

    fn __repr__(&self) -> String {
        let (depth, capacity) = (self.queue.len(), self.queue.capacity() * self.queue.lanes());
        let state = if self.queue.is_closed() { ", closed" } else { "" };
        format!("<BoundedQueue {depth} of {capacity}{state}>")
    }

    /// A place in the line of those who wait for items.
    fn _turn_to_get(&self, py: Python<'_>, wants: usize) -> PyResult<QueueTurn> {
        self.check(py, 0)?;
        Ok(QueueTurn::new(self.queue.turn_to_get(wants)))
    }

    /// A place in the line of those who wait for room.
    fn _turn_to_put(&self, py: Python<'_>, wants: usize, lane: usize) -> PyResult<QueueTurn> {
        self.check(py, lane)?;
        Ok(QueueTurn::new(self.queue.turn_to_put(lane, wants)))
    }

    #[expect(clippy::unused_self, reason = "Python's protocol")]
    fn __reduce__(&self, py: Python<'_>) -> PyResult<()> {
        let text = "a BoundedQueue stays in its process; a BytesQueue goes to others";
        Err(to_py(py, &Error::new(&codes::QUEUE_FORKED, text)))
    }

    #[allow(unsafe_code, reason = "the garbage collector keeps everybody else away")]
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        let mut outcome = Ok(());
        let look = |item: &Py<PyAny>| {
            if outcome.is_ok() {
                outcome = visit.call(item);
            }
        };
        // SAFETY: items go in and out with the GIL held only (or, without a GIL, by threads that the
        // collector has stopped), and the collector has it.
        unsafe { self.queue.for_each(look) };
        outcome
    }

    fn __clear__(&self) {
        while self.queue.pop().is_ok() {}
    }
}

impl BoundedQueue {
    #[inline]
    fn check(&self, py: Python<'_>, lane: usize) -> PyResult<()> {
        if self.made_in != Generation::now() {
            let text = "this queue was made before the fork that made this process";
            return Err(to_py(py, &Error::new(&codes::QUEUE_FORKED, text)));
        }
        if lane >= self.queue.lanes() {
            let text = format!("there is no lane {lane}: the queue has {}", self.queue.lanes());
            return Err(to_py(py, &Error::new(&codes::QUEUE_CAPACITY, text)));
        }
        Ok(())
    }

    #[cold]
    fn put_patiently(
        &self,
        py: Python<'_>,
        item: Py<PyAny>,
        timeout: Option<&Bound<'_, PyAny>>,
        lane: usize,
    ) -> PyResult<()> {
        let mut held = Some(item);
        let attempt = || match self.queue.push(lane, held.take()?) {
            Err(PushError::Full(item)) => {
                held = Some(item);
                None
            }
            outcome => Some(outcome.map_err(Error::from)),
        };
        let late = || PushError::TimedOut(()).into();
        until(py, timeout, self.for_room(lane), attempt, late)
    }

    #[cold]
    fn get_patiently(
        &self,
        py: Python<'_>,
        timeout: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Py<PyAny>> {
        let attempt = || match self.queue.pop() {
            Err(PopError::Empty) => None,
            outcome => Some(outcome.map_err(Error::from)),
        };
        until(py, timeout, self.for_items(1), attempt, || PopError::TimedOut.into())
    }

    /// Puts an item into lane 0 if that can be done at once and without any ado; else it comes back.
    #[inline]
    pub(super) fn push_now(&self, item: Py<PyAny>) -> Result<(), Py<PyAny>> {
        if self.made_in != Generation::now() {
            return Err(item);
        }
        self.queue.push(0, item).map_err(PushError::into_inner)
    }

    /// Takes an item out if that can be done at once and without any ado.
    #[inline]
    pub(super) fn pop_now(&self) -> Option<Py<PyAny>> {
        if self.made_in == Generation::now() { self.queue.pop().ok() } else { None }
    }

    fn for_items(&self, wants: usize) -> Wish<'_> {
        Wish { queue: &self.queue, wants, lane: None }
    }

    fn for_room(&self, lane: usize) -> Wish<'_> {
        Wish { queue: &self.queue, wants: 1, lane: Some(lane) }
    }

    /// Puts `items` in; returns `before` and how many they were. What did not go in is told in `left`.
    fn put_all(
        &self,
        py: Python<'_>,
        items: Vec<Py<PyAny>>,
        before: usize,
        timeout: Option<&Bound<'_, PyAny>>,
        lane: usize,
    ) -> PyResult<usize> {
        let count = before + items.len();
        let mut items = items.into_iter();
        let attempt = || match self.queue.push_many(lane, &mut items) {
            Ok(_) if items.len() == 0 => Some(Ok(())),
            Ok(_) => None,
            Err(error) => Some(Err(Error::from(error))),
        };
        let late = || PushError::TimedOut(()).into();
        let outcome = until(py, timeout, self.for_room(lane), attempt, late);
        if let Err(error) = outcome {
            error.value(py).setattr("left", PyList::new(py, items)?)?;
            return Err(error);
        }
        Ok(count)
    }
}

/// What is in `list`. Its iterator would ask for the length again for each.
fn members(list: &Bound<'_, PyList>) -> Vec<Py<PyAny>> {
    let mut members = Vec::with_capacity(list.len());
    members.extend((0..list.len()).map_while(|index| list.get_item(index).ok()).map(Bound::unbind));
    members
}

/// What the event loop's side of it is called there.
fn waiting<'py>(py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyAny>> {
    py.import("dwkernel._waiting")?.getattr(name)
}

fn no_relief() -> Error {
    Error::new(
        &codes::QUEUE_CAPACITY,
        "relief is 1 or more: after so many gets, one from the last lane",
    )
}
