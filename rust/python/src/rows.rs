//! Shards as Python gives them: a matrix with a row for each, or a list of buffers.
//!
//! [`Columns::run`] brings them to code that wants slices: rows that cannot change and rows that nobody
//! else can see are passed as they are; rows in shared memory go through scratch, some columns at a time.

use std::cell::RefCell;

use dwk_base::{Code, Error, Result, codes};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList};

use crate::buffers::{Input, Shared};
use crate::errors;

/// Scratch for one piece of all rows: fits the second-level cache.
const SCRATCH_BYTES: usize = 256 << 10;
const PIECE_BYTES_MAX: usize = 64 << 10;
const PIECE_BYTES_MIN: usize = 4 << 10;
/// Rows of scratch begin this much apart beyond a page, or all would fall into the same cache sets.
const ROW_GAP_BYTES: usize = 192;

/// Rows of equal length.
pub(crate) struct Rows<'py> {
    memory: Memory<'py>,
    count: usize,
    row_bytes: usize,
    /// True if results should be NumPy arrays.
    numpy: bool,
}

enum Memory<'py> {
    Matrix(Shared),
    List(Vec<Input<'py>>),
}

/// One row, to be read.
#[derive(Clone, Copy)]
pub(crate) enum Row<'a> {
    Bytes(&'a [u8]),
    Shared { memory: &'a Shared, start: usize },
}

/// One row, to be written.
pub(crate) enum Target<'a> {
    /// Nobody else can see it yet.
    Fresh(&'a mut [u8]),
    Shared {
        memory: &'a Shared,
        start: usize,
    },
}

impl<'py> Rows<'py> {
    /// Rows from a C-contiguous buffer of shape (rows, bytes), or from an iterable of buffers.
    ///
    /// # Errors
    /// `buffer.type`, `buffer.length`
    pub(crate) fn new(object: &Bound<'py, PyAny>) -> PyResult<Self> {
        if let Ok(true) = object.getattr("ndim").and_then(|ndim| ndim.eq(2)) {
            return Self::matrix(object);
        }
        let list = object.try_iter().and_then(Iterator::collect::<PyResult<Vec<_>>>);
        let Ok(list) = list else {
            return Err(wrong_type(object, "neither two-dimensional nor a list of buffers"));
        };
        let numpy = list.first().is_some_and(is_array);
        let inputs = list.iter().map(Input::new).collect::<PyResult<Vec<_>>>()?;
        let row_bytes = inputs.first().map_or(0, Input::len);
        if let Some(index) = inputs.iter().position(|input| input.len() != row_bytes) {
            let lengths = format!("{row_bytes} and {} bytes", inputs[index].len());
            return Err(wrong_length(object.py(), format!("buffers 0 and {index} have {lengths}")));
        }
        Ok(Self { count: inputs.len(), memory: Memory::List(inputs), row_bytes, numpy })
    }

    /// One buffer as the only row.
    pub(crate) fn single(object: &Bound<'py, PyAny>) -> PyResult<Self> {
        let input = Input::new(object)?;
        let row_bytes = input.len();
        Ok(Self { memory: Memory::List(vec![input]), count: 1, row_bytes, numpy: false })
    }

    fn matrix(object: &Bound<'py, PyAny>) -> PyResult<Self> {
        let shared = Shared::new(object)?;
        let &[count, row_bytes] = shared.shape() else {
            return Err(wrong_type(object, "not two-dimensional"));
        };
        if shared.item_bytes() != 1 {
            return Err(wrong_type(object, "not made of single bytes"));
        }
        Ok(Self { memory: Memory::Matrix(shared), count, row_bytes, numpy: is_array(object) })
    }

    /// The rows, if there are `count`.
    ///
    /// # Errors
    /// `buffer.length`
    pub(crate) fn expect_count(self, py: Python<'_>, count: usize, what: &str) -> PyResult<Self> {
        if self.count == count {
            return Ok(self);
        }
        let message = format!("{} rows were given, this code has {count} {what}", self.count);
        Err(wrong_length(py, message))
    }

    /// Length of each row in bytes.
    pub(crate) fn row_bytes(&self) -> usize {
        self.row_bytes
    }

    /// All rows in bytes.
    pub(crate) fn len_bytes(&self) -> usize {
        self.row_bytes * self.count
    }

    /// Row `index`, to be read.
    pub(crate) fn row(&self, index: usize) -> Row<'_> {
        match &self.memory {
            Memory::Matrix(memory) => Row::Shared { memory, start: index * self.row_bytes },
            Memory::List(inputs) => match &inputs[index] {
                Input::Bytes(bytes) => Row::Bytes(bytes.as_bytes()),
                Input::Shared(memory) => Row::Shared { memory, start: 0 },
            },
        }
    }

    /// Row `index`, to be written.
    ///
    /// # Errors
    /// `buffer.read_only`
    pub(crate) fn target(&self, py: Python<'_>, index: usize) -> PyResult<Target<'_>> {
        match self.row(index) {
            Row::Shared { memory, start } if memory.is_writable() => {
                Ok(Target::Shared { memory, start })
            }
            _ => {
                let message = format!("row {index} is to be written and is read-only");
                Err(errors::to_py(py, &Error::new(&codes::BUFFER_READ_ONLY, message)))
            }
        }
    }

    /// New rows of the same kind and length.
    pub(crate) fn fresh(&self, py: Python<'py>, count: usize) -> PyResult<Fresh<'py>> {
        match (&self.memory, self.numpy) {
            (Memory::Matrix(_), true) => Fresh::matrix(py, count, self.row_bytes),
            (Memory::List(_), true) => Fresh::arrays(py, count, self.row_bytes),
            _ => Fresh::bytes(py, count, self.row_bytes),
        }
    }
}

/// Rows that were just made for a result: nobody else has seen them.
pub(crate) struct Fresh<'py> {
    result: Bound<'py, PyAny>,
    rows: Vec<FreshRow>,
}

struct FreshRow {
    start: *mut u8,
    length: usize,
}

impl<'py> Fresh<'py> {
    fn matrix(py: Python<'py>, count: usize, row_bytes: usize) -> PyResult<Self> {
        let result = empty_array(py, (count, row_bytes))?;
        let start = Shared::new(&result)?.start();
        let row = |index: usize| FreshRow {
            start: start.wrapping_add(index * row_bytes),
            length: row_bytes,
        };
        Ok(Self { rows: (0..count).map(row).collect(), result })
    }

    fn arrays(py: Python<'py>, count: usize, row_bytes: usize) -> PyResult<Self> {
        let arrays: Vec<_> =
            (0..count).map(|_| empty_array(py, (row_bytes,))).collect::<PyResult<_>>()?;
        let row = |array| Ok(FreshRow { start: Shared::new(array)?.start(), length: row_bytes });
        let rows = arrays.iter().map(row).collect::<PyResult<_>>()?;
        Ok(Self { rows, result: PyList::new(py, arrays)?.into_any() })
    }

    #[allow(unsafe_code)]
    fn bytes(py: Python<'py>, count: usize, row_bytes: usize) -> PyResult<Self> {
        let (mut objects, mut rows) = (Vec::with_capacity(count), Vec::with_capacity(count));
        for _ in 0..count {
            let length = row_bytes.try_into()?;
            // SAFETY: a null pointer asks for a new object with room for `length` bytes; the pointer to
            // them is valid as long as the object, which `result` keeps.
            let (object, start) = unsafe {
                let object = pyo3::ffi::PyBytes_FromStringAndSize(std::ptr::null(), length);
                let object = Bound::from_owned_ptr_or_err(py, object)?;
                let start = pyo3::ffi::PyBytes_AsString(object.as_ptr()).cast::<u8>();
                (object.cast_into::<PyBytes>()?, start)
            };
            rows.push(FreshRow { start, length: row_bytes });
            objects.push(object);
        }
        Ok(Self { rows, result: PyList::new(py, objects)?.into_any() })
    }

    /// The rows, to be filled.
    #[allow(unsafe_code)]
    pub(crate) fn targets(&mut self) -> Vec<Target<'_>> {
        let slice = |row: &FreshRow| {
            if row.length == 0 {
                return Target::Fresh(&mut []);
            }
            // SAFETY: the objects are alive in `result` and were made by `self`: no other code has a
            // reference to them until `result` is handed out, which takes `self`.
            Target::Fresh(unsafe { std::slice::from_raw_parts_mut(row.start, row.length) })
        };
        self.rows.iter().map(slice).collect()
    }

    /// The Python object that holds the rows.
    pub(crate) fn into_result(self) -> Bound<'py, PyAny> {
        self.result
    }
}

/// What code that knows slices only reads and writes.
pub(crate) struct Columns<'a> {
    /// Read.
    pub(crate) reads: Vec<Row<'a>>,
    /// Written.
    pub(crate) writes: Vec<Target<'a>>,
    /// True if the writes' old content is wanted.
    pub(crate) update: bool,
    /// Length of each row.
    pub(crate) row_bytes: usize,
}

thread_local! {
    /// Kept between calls: fresh memory of this size would be mapped and unmapped each time.
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

impl Columns<'_> {
    /// Calls `work` with slices of all reads and writes, once or for some columns at a time.
    pub(crate) fn run(
        mut self,
        mut work: impl FnMut(&[&[u8]], &mut [&mut [u8]]) -> Result<()>,
    ) -> Result<()> {
        let shared_rows = self.shared_rows();
        let piece = if shared_rows == 0 { self.row_bytes.max(1) } else { piece_bytes(shared_rows) };
        let stride = piece.min(self.row_bytes) + ROW_GAP_BYTES;
        let mut scratch = SCRATCH.take();
        if scratch.len() < stride * shared_rows {
            scratch.resize(stride * shared_rows, 0);
        }
        // Rows of no bytes are worked on too: the arguments are checked there.
        let mut start = 0;
        let outcome = loop {
            let length = piece.min(self.row_bytes - start);
            let outcome = self.run_piece(start, length, scratch.chunks_mut(stride), &mut work);
            start += length;
            if outcome.is_err() || start == self.row_bytes {
                break outcome;
            }
        };
        SCRATCH.set(scratch);
        outcome
    }

    fn shared_rows(&self) -> usize {
        let reads = self.reads.iter().filter(|row| matches!(row, Row::Shared { .. })).count();
        reads + self.writes.iter().filter(|row| matches!(row, Target::Shared { .. })).count()
    }

    fn run_piece<'s>(
        &mut self,
        at: usize,
        length: usize,
        mut scratch: impl Iterator<Item = &'s mut [u8]>,
        work: &mut impl FnMut(&[&[u8]], &mut [&mut [u8]]) -> Result<()>,
    ) -> Result<()> {
        let mut room = || scratch.next().map(|row| &mut row[..length]).unwrap_or_default();
        let mut reads: Vec<&[u8]> = Vec::with_capacity(self.reads.len());
        for row in &self.reads {
            reads.push(match row {
                Row::Bytes(bytes) => &bytes[at..at + length],
                Row::Shared { memory, start } => {
                    let copy = room();
                    memory.read(start + at, copy);
                    copy
                }
            });
        }
        let mut destinations = Vec::with_capacity(self.writes.len());
        let mut writes: Vec<&mut [u8]> = Vec::with_capacity(self.writes.len());
        for target in &mut self.writes {
            match target {
                Target::Fresh(bytes) => {
                    writes.push(&mut bytes[at..at + length]);
                    destinations.push(None);
                }
                Target::Shared { memory, start } => {
                    let copy = room();
                    if self.update {
                        memory.read(*start + at, copy);
                    }
                    writes.push(copy);
                    destinations.push(Some((*memory, *start + at)));
                }
            }
        }
        work(&reads, &mut writes)?;
        for (copy, destination) in writes.iter().zip(destinations) {
            if let Some((memory, start)) = destination {
                memory.write(start, copy);
            }
        }
        Ok(())
    }
}

fn piece_bytes(rows: usize) -> usize {
    let even = SCRATCH_BYTES / rows / PIECE_BYTES_MIN * PIECE_BYTES_MIN;
    even.clamp(PIECE_BYTES_MIN, PIECE_BYTES_MAX)
}

fn is_array(object: &Bound<'_, PyAny>) -> bool {
    let kind = object.get_type();
    let py = object.py();
    // Without importing it: whoever has an array has NumPy already.
    let module = kind.getattr(intern!(py, "__module__"));
    module.is_ok_and(|module| module.eq("numpy").unwrap_or(false))
        && kind.name().is_ok_and(|name| name == "ndarray")
}

fn empty_array<'py>(py: Python<'py>, shape: impl IntoPyObject<'py>) -> PyResult<Bound<'py, PyAny>> {
    py.import(intern!(py, "numpy"))?.call_method1(intern!(py, "empty"), (shape, "uint8"))
}

fn wrong_type(object: &Bound<'_, PyAny>, why: &str) -> PyErr {
    let name = object.get_type().name().map_or_else(|_| "?".into(), |name| name.to_string());
    wrong(object.py(), &codes::BUFFER_TYPE, format!("{name} is {why}"))
}

fn wrong_length(py: Python<'_>, message: String) -> PyErr {
    wrong(py, &codes::BUFFER_LENGTH, message)
}

fn wrong(py: Python<'_>, code: &'static Code, message: String) -> PyErr {
    errors::to_py(py, &Error::new(code, message))
}
