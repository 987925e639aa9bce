//! Shards as Python gives them: a matrix with a row for each, or a list of buffers.

use dwk_base::{Code, Error, codes};
use dwk_erasure::shared::{Source, Target};
use pyo3::exceptions::PyTypeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyList};

use crate::buffers::{Input, Shared};
use crate::{errors, malloc};

/// Rows of equal length.
pub(crate) struct Rows<'py> {
    memory: Memory<'py>,
    count: usize,
    row_bytes: usize,
    /// Of the kind that results should be: the matrix, or the first row.
    sample: Option<Bound<'py, PyAny>>,
}

enum Memory<'py> {
    Matrix(Shared),
    List(Vec<Input<'py>>),
}

impl<'py> Rows<'py> {
    /// Rows from a C-contiguous buffer of shape (rows, bytes), or from an iterable of buffers.
    ///
    /// # Errors
    /// `buffer.type`, `buffer.length`
    pub(crate) fn new(object: &Bound<'py, PyAny>) -> PyResult<Self> {
        // A list has no dimensions, and to be told so costs as much as all else of a small call.
        let ndim = || object.getattr(intern!(object.py(), "ndim"))?.extract::<usize>();
        if !object.is_instance_of::<PyList>() && ndim().is_ok_and(|ndim| ndim == 2) {
            return Self::matrix(object);
        }
        let items = object.try_iter().map_err(|error| {
            if !error.is_instance_of::<PyTypeError>(object.py()) {
                return error;
            }
            wrong_type(object, "neither two-dimensional nor a list of buffers")
        })?;
        let list = items.collect::<PyResult<Vec<_>>>()?;
        let inputs = list.iter().map(Input::new).collect::<PyResult<Vec<_>>>()?;
        let row_bytes = inputs.first().map_or(0, Input::len);
        if let Some(index) = inputs.iter().position(|input| input.len() != row_bytes) {
            let lengths = format!("{row_bytes} and {} bytes", inputs[index].len());
            return Err(wrong_length(object.py(), format!("buffers 0 and {index} have {lengths}")));
        }
        let sample = list.into_iter().next();
        Ok(Self { count: inputs.len(), memory: Memory::List(inputs), row_bytes, sample })
    }

    /// One buffer as the only row.
    pub(crate) fn single(object: &Bound<'py, PyAny>) -> PyResult<Self> {
        let input = Input::new(object)?;
        let row_bytes = input.len();
        Ok(Self { memory: Memory::List(vec![input]), count: 1, row_bytes, sample: None })
    }

    fn matrix(object: &Bound<'py, PyAny>) -> PyResult<Self> {
        let shared = Shared::new(object)?;
        let &[count, row_bytes] = shared.shape() else {
            return Err(wrong_type(object, "not two-dimensional"));
        };
        if shared.item_bytes() != 1 {
            return Err(wrong_type(object, "not made of single bytes"));
        }
        let sample = Some(object.clone());
        Ok(Self { memory: Memory::Matrix(shared), count, row_bytes, sample })
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
    pub(crate) fn row(&self, index: usize) -> Source<'_> {
        match &self.memory {
            Memory::Matrix(memory) => memory.source(index * self.row_bytes, self.row_bytes),
            Memory::List(inputs) => match &inputs[index] {
                Input::Bytes(bytes) => bytes.as_bytes().into(),
                Input::Shared(memory) => memory.source(0, self.row_bytes),
            },
        }
    }

    /// Row `index`, to be written.
    ///
    /// # Errors
    /// `buffer.read_only`
    pub(crate) fn target(&self, py: Python<'_>, index: usize) -> PyResult<Target<'_>> {
        let target = match &self.memory {
            Memory::Matrix(memory) => memory.target(index * self.row_bytes, self.row_bytes),
            Memory::List(inputs) => match &inputs[index] {
                Input::Bytes(_) => None,
                Input::Shared(memory) => memory.target(0, self.row_bytes),
            },
        };
        target.ok_or_else(|| {
            let message = format!("row {index} is to be written and is read-only");
            wrong(py, &codes::BUFFER_READ_ONLY, message)
        })
    }

    /// New rows of the same kind and length.
    pub(crate) fn fresh(&self, py: Python<'py>, count: usize) -> PyResult<Fresh<'py>> {
        malloc::expect(count.saturating_mul(self.row_bytes));
        match (&self.memory, self.sample.as_ref().is_some_and(is_array)) {
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
        let target = |row: &FreshRow| {
            // SAFETY: the objects are alive in `result`, and the rows were measured.
            unsafe { Target::new(row.start, row.length) }
        };
        self.rows.iter().map(target).collect()
    }

    /// The Python object that holds the rows.
    pub(crate) fn into_result(self) -> Bound<'py, PyAny> {
        self.result
    }
}

/// Fails if bytes that are written lie among other ones: what is computed could not be right.
///
/// # Errors
/// `buffer.overlap`
pub(crate) fn expect_apart(
    py: Python<'_>,
    reads: &[Source<'_>],
    writes: &[Target<'_>],
) -> PyResult<()> {
    let reads = reads.iter().map(|row| (row.start().addr(), row.len(), false));
    let writes = writes.iter().map(|row| (row.start().addr(), row.len(), true));
    let mut places: Vec<_> = reads.chain(writes).collect();
    places.sort_unstable();
    // Where the last ones end, and the last ones that are written.
    let (mut end, mut written_end) = (0, 0);
    for (place, length, written) in places {
        if place < written_end || (written && place < end) {
            let message = "a row that is written shares memory with another row";
            return Err(wrong(py, &codes::BUFFER_OVERLAP, message.to_owned()));
        }
        end = place + length;
        written_end = if written { end } else { written_end };
    }
    Ok(())
}

fn is_array(object: &Bound<'_, PyAny>) -> bool {
    let kind = object.get_type();
    let py = object.py();
    // Without importing it: whoever has an array has NumPy already.
    let module = kind.getattr(intern!(py, "__module__"));
    module.is_ok_and(|module| module.extract::<&str>().is_ok_and(|name| name == "numpy"))
        && kind.name().is_ok_and(|name| name == "ndarray")
}

fn empty_array<'py>(py: Python<'py>, shape: impl IntoPyObject<'py>) -> PyResult<Bound<'py, PyAny>> {
    static EMPTY: PyOnceLock<[Py<PyAny>; 2]> = PyOnceLock::new();
    let [empty, uint8] = EMPTY.get_or_try_init(py, || {
        let numpy = py.import("numpy")?;
        let uint8 = numpy.call_method1("dtype", ("uint8",))?;
        PyResult::Ok([numpy.getattr("empty")?.unbind(), uint8.unbind()])
    })?;
    empty.bind(py).call1((shape, uint8))
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
