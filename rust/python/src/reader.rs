//! `dwkernel._native.ObjectReader`: one version of an object, open.

use std::sync::atomic::{AtomicU64, Ordering};

use dwk_base::{Deadline, Error, codes};
use dwk_kernel::operations::Read;
use dwk_kernel::{Context, Guarded};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::buffers::{Fresh, Shared};
use crate::detach::detach;
use crate::errors::to_py;
use crate::held::Held;
use crate::line::{Line, Turn};
use crate::sources::Watcher;
use crate::store::{Caller, ObjectTuple, object_tuple};

/// So much is read ahead, so that reading line by line does not ask the store for each byte.
const AHEAD_BYTES: usize = 64 << 10;
/// As far as a file can be sought.
const SEEK_MAX: u64 = (1 << 63) - 1;

/// One version of an object, open. Threads may share it; each call has it alone, so that each byte is handed
/// out once and lines are whole.
#[pyclass(frozen, module = "dwkernel._native")]
pub(crate) struct ObjectReader {
    kernel: Held,
    // Guarded outside the line: in a forked child a thread that does not exist may hold it.
    line: Guarded<Line<Open>>,
    /// Changed by whoever has the reader.
    position: AtomicU64,
    info: dwk_catalog::ObjectInfo,
}

#[derive(Default)]
struct Open {
    /// `None`: it was closed.
    reader: Option<dwk_catalog::ObjectReader>,
    ahead: Ahead,
}

/// Bytes that were read and not handed out.
#[derive(Default)]
struct Ahead {
    offset: u64,
    bytes: Vec<u8>,
}

impl Ahead {
    /// Those from `offset` on.
    fn from(&self, offset: u64) -> &[u8] {
        let skip = offset.checked_sub(self.offset).and_then(|skip| usize::try_from(skip).ok());
        skip.and_then(|skip| self.bytes.get(skip..)).unwrap_or_default()
    }
}

fn closed() -> Error {
    Error::new(&codes::STORE_CLOSED, "the reader is closed")
}

/// One call, which has the reader alone.
struct Call<'a> {
    owner: &'a ObjectReader,
    caller: &'a Caller,
    timeout_s: f64,
    /// As soon as it waits or asks the store.
    context: Option<Context>,
    turn: Turn<'a, Open>,
}

impl ObjectReader {
    pub(crate) fn new(kernel: Held, reader: dwk_catalog::ObjectReader) -> Self {
        let info = reader.info().clone();
        let open = Open { reader: Some(reader), ahead: Ahead::default() };
        let line = Guarded::new(Line::new(open));
        Self { kernel, line, position: AtomicU64::new(0), info }
    }

    fn call<'a>(
        &'a self,
        py: Python<'_>,
        caller: &'a Caller,
        timeout_s: f64,
    ) -> PyResult<Call<'a>> {
        let line = self.line.get().map_err(|error| to_py(py, &error))?;
        let (turn, context) = match line.try_enter() {
            Some(turn) => (turn, None),
            None => self.wait(py, caller, timeout_s, line)?,
        };
        if turn.value.reader.is_none() {
            return Err(to_py(py, &closed()));
        }
        Ok(Call { owner: self, caller, timeout_s, context, turn })
    }

    fn wait<'a>(
        &self,
        py: Python<'_>,
        caller: &Caller,
        timeout_s: f64,
        line: &'a Line<Open>,
    ) -> PyResult<(Turn<'a, Open>, Option<Context>)> {
        let mut watcher = Watcher::new(self.kernel.seams(), None);
        let entered = detach(py, || {
            let context = caller.context(self.kernel.seams(), timeout_s)?;
            let turn = line.enter(context.deadline(), &mut || watcher.look());
            let tied = |error: Error| error.in_operation(context.correlation());
            Ok((turn.map_err(tied)?, Some(context)))
        });
        entered.map_err(|error| watcher.explain(error))
    }

    fn at(&self) -> u64 {
        self.position.load(Ordering::Acquire)
    }

    fn go(&self, position: u64) {
        self.position.store(position, Ordering::Release);
    }

    /// How many of `wanted` bytes there are from `offset` on.
    fn there(&self, offset: u64, wanted: usize) -> usize {
        let left = self.info.size_bytes.saturating_sub(offset);
        usize::try_from(left).unwrap_or(usize::MAX).min(wanted)
    }
}

impl Call<'_> {
    /// Shows bytes from `offset` to `take`: those that were read ahead first.
    fn fill(
        &mut self,
        py: Python<'_>,
        offset: u64,
        bytes: usize,
        take: &mut (dyn FnMut(&[u8]) + Send),
    ) -> PyResult<usize> {
        let Self { owner, caller, timeout_s, context, turn } = self;
        let Open { reader, ahead } = &mut turn.value;
        let before = ahead.from(offset);
        let before = &before[..before.len().min(bytes)];
        take(before);
        let (skip, kernel) = (before.len(), &owner.kernel);
        if skip == bytes && bytes > 0 {
            return Ok(skip);
        }
        let mut watcher = Watcher::new(kernel.seams(), None);
        let filled = detach(py, || {
            let fresh = || caller.context(kernel.seams(), *timeout_s);
            let context = context.take().map_or_else(fresh, Ok)?;
            let reader = reader.as_mut().ok_or_else(closed)?;
            let look = &mut |filled| watcher.tell(filled, None);
            let (offset, bytes) = (offset + skip as u64, bytes - skip);
            kernel.execute(&context, Read { reader, offset, bytes, take, look })
        });
        filled.map(|filled| skip + filled).map_err(|error| watcher.explain(error))
    }

    fn read<'py>(
        &mut self,
        py: Python<'py>,
        offset: u64,
        size: usize,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let size = self.owner.there(offset, size);
        let mut fresh = Fresh::new(py, size)?;
        self.fill(py, offset, size, &mut |bytes| fresh.push(bytes))?;
        Ok(fresh.done(py))
    }

    /// What was read ahead from `offset` on, or is now; nothing only at the end.
    fn ahead(&mut self, py: Python<'_>, offset: u64, wanted: usize) -> PyResult<&[u8]> {
        if self.turn.value.ahead.from(offset).is_empty() {
            let wanted = self.owner.there(offset, wanted.max(AHEAD_BYTES));
            let mut bytes = Vec::with_capacity(wanted);
            if wanted > 0 {
                self.fill(py, offset, wanted, &mut |piece| bytes.extend_from_slice(piece))?;
            }
            self.turn.value.ahead = Ahead { offset, bytes };
        }
        Ok(self.turn.value.ahead.from(offset))
    }
}

#[pymethods]
impl ObjectReader {
    /// What is known of the object.
    #[getter]
    fn info(&self) -> ObjectTuple {
        object_tuple(self.info.clone())
    }

    /// Where the next read begins.
    #[getter]
    fn position(&self) -> u64 {
        self.at()
    }

    /// Moves the position; returns it. `None` if it is no place in a file.
    fn seek(
        &self,
        py: Python<'_>,
        caller: &Caller,
        timeout_s: f64,
        offset: i128,
        whence: u8,
    ) -> PyResult<Option<u64>> {
        let call = self.call(py, caller, timeout_s)?;
        let base = match whence {
            0 => 0,
            1 => self.at(),
            2 => self.info.size_bytes,
            _ => return Ok(None),
        };
        let position = offset.checked_add(i128::from(base));
        let position = position.and_then(|position| u64::try_from(position).ok());
        let position = position.filter(|position| *position <= SEEK_MAX);
        if let Some(position) = position {
            self.go(position);
        }
        drop(call);
        Ok(position)
    }

    /// Up to `size` bytes, all that are left if it is negative; fewer only at the end.
    fn read<'py>(
        &self,
        py: Python<'py>,
        caller: &Caller,
        timeout_s: f64,
        size: i64,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let mut call = self.call(py, caller, timeout_s)?;
        let at = self.at();
        let bytes = call.read(py, at, usize::try_from(size).unwrap_or(usize::MAX))?;
        self.go(at + bytes.as_bytes().len() as u64);
        Ok(bytes)
    }

    /// Fills a writable buffer; returns how many bytes were there.
    fn readinto(
        &self,
        py: Python<'_>,
        caller: &Caller,
        timeout_s: f64,
        buffer: &Bound<'_, PyAny>,
    ) -> PyResult<usize> {
        let shared = Shared::new(buffer)?;
        let Some(mut target) = shared.target(0, shared.len()) else {
            let error = Error::new(&codes::BUFFER_READ_ONLY, "the buffer cannot be written to");
            return Err(to_py(py, &error));
        };
        let mut call = self.call(py, caller, timeout_s)?;
        let (at, mut into) = (self.at(), 0);
        let wanted = self.there(at, target.len());
        let filled = call.fill(py, at, wanted, &mut |bytes| {
            target.write(into, bytes);
            into += bytes.len();
        })?;
        self.go(at + filled as u64);
        Ok(filled)
    }

    /// Up to the end of a line, and no more than `size` bytes unless it is negative.
    fn readline<'py>(
        &self,
        py: Python<'py>,
        caller: &Caller,
        timeout_s: f64,
        size: i64,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let mut call = self.call(py, caller, timeout_s)?;
        let (at, most) = (self.at(), usize::try_from(size).unwrap_or(usize::MAX));
        let mut line: Vec<u8> = Vec::new();
        let mut has_ended = false;
        while !has_ended && line.len() < most {
            // A line may be as long as the object.
            py.check_signals()?;
            let ahead = call.ahead(py, at + line.len() as u64, 0)?;
            let ahead = &ahead[..ahead.len().min(most - line.len())];
            let end = ahead.iter().position(|byte| *byte == b'\n').map(|end| end + 1);
            has_ended = end.is_some() || ahead.is_empty();
            line.extend_from_slice(&ahead[..end.unwrap_or(ahead.len())]);
        }
        self.go(at + line.len() as u64);
        Ok(PyBytes::new(py, &line))
    }

    /// Bytes ahead; the position stays.
    fn peek<'py>(
        &self,
        py: Python<'py>,
        caller: &Caller,
        timeout_s: f64,
        size: usize,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let mut call = self.call(py, caller, timeout_s)?;
        Ok(PyBytes::new(py, call.ahead(py, self.at(), size)?))
    }

    /// Up to `size` bytes from `offset`; the position stays.
    fn read_range<'py>(
        &self,
        py: Python<'py>,
        caller: &Caller,
        timeout_s: f64,
        offset: u64,
        size: usize,
    ) -> PyResult<Bound<'py, PyBytes>> {
        self.call(py, caller, timeout_s)?.read(py, offset, size)
    }

    /// Lets the version go, when a read that is under way has ended.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        // In a forked child there is nothing to let go.
        let Ok(line) = self.line.get() else { return Ok(()) };
        let mut watcher = Watcher::new(self.kernel.seams(), None);
        let closed = detach(py, || {
            let mut turn = line.enter(&Deadline::never(), &mut || watcher.look())?;
            turn.value = Open::default();
            Ok(())
        });
        closed.map_err(|error| watcher.explain(error))
    }
}
