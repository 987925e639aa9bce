//! `dwkernel.erasure`.

use std::hash::{Hash, Hasher};

use dwk_base::{Error, codes};
use dwk_erasure::shared::Target;
use dwk_erasure::{Code, Geometry, SharedShard};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use crate::detach::{detach, detach_if_long};
use crate::errors;
use crate::rows::{Rows, expect_apart};
use crate::texts::{OfGeometry, Text};

/// A geometry: what a stripe is encoded with, and how its shards are laid over drives.
///
/// `Geometry("4+2")`, `Geometry("raid6:8")`, `Geometry("raid50:2x(4+1)")`; `levels()` lists the names.
/// Immutable, hashable, picklable; equal if the canonical forms are.
///
/// Raises:
///     Invalid: `geometry.invalid` with what is wrong and what to write instead.
#[pyclass(frozen, eq, hash, module = "dwkernel.erasure", name = "Geometry")]
pub(crate) struct PyGeometry {
    /// The canonical form, which says everything.
    text: String,
    inner: Geometry,
}

impl PartialEq for PyGeometry {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Hash for PyGeometry {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.text.hash(state);
    }
}

#[pymethods]
impl PyGeometry {
    #[new]
    #[allow(clippy::needless_pass_by_value, reason = "arguments are extracted")]
    fn new(py: Python<'_>, text: Text<OfGeometry>) -> PyResult<Self> {
        let inner = parsed(py, &text)?;
        Ok(Self { text: inner.to_string(), inner })
    }

    /// Drives that it takes.
    #[getter]
    fn drives(&self) -> usize {
        self.inner.drives()
    }

    /// How much of the drives' room holds data, from 0 to 1.
    #[getter]
    fn data_fraction(&self) -> f64 {
        self.inner.data_fraction()
    }

    /// How many arbitrary drives may be lost at once.
    #[getter]
    fn tolerance(&self) -> usize {
        self.inner.tolerance()
    }

    /// True if a store can be made with it; otherwise `not_storable_reason` says why not.
    #[getter]
    fn storable(&self) -> bool {
        self.inner.storable()
    }

    /// Why no store can be made with it, or None.
    #[getter]
    fn not_storable_reason(&self) -> Option<String> {
        self.inner.not_storable_reason().map(Into::into)
    }

    /// True if everything is readable without the `lost` drives (an iterable of indexes from 0).
    fn tolerates(&self, py: Python<'_>, lost: &Bound<'_, PyAny>) -> PyResult<bool> {
        let lost = indexes(lost)?;
        detach(py, || Ok(self.inner.tolerates(&lost)))
    }

    fn __str__(&self) -> &str {
        &self.text
    }

    fn __repr__(&self) -> String {
        format!("Geometry('{}')", self.text)
    }

    fn __getnewargs__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, [&self.text])
    }
}

/// The erasure code of one stripe: k data shards, m parity shards, all of one length.
///
/// Shards are the rows of an array of shape (rows, bytes) of uint8, or a list of buffers. What is an array
/// comes back as an array, anything else as a list of bytes. Every method releases the GIL from 16 KiB in
/// all on. A code is immutable: threads may share it. A buffer that changes during a call gives a
/// wrong result, never a wrong access.
///
/// `geometry`: a `Geometry` or its text; of a tree, the code of one stripe.
///
/// Rows that are written share memory with no other row, or `buffer.overlap` is raised; rows that are only
/// read may be one buffer.
///
/// Raises:
///     Invalid: `geometry.invalid`.
#[pyclass(frozen, module = "dwkernel.erasure", name = "Code")]
pub(crate) struct PyCode {
    text: String,
    inner: Code,
}

#[pymethods]
impl PyCode {
    #[new]
    fn new(py: Python<'_>, geometry: &Bound<'_, PyAny>) -> PyResult<Self> {
        let (text, spec) = if let Ok(given) = geometry.cast::<PyGeometry>() {
            (given.get().text.clone(), given.get().inner.stripe_code())
        } else {
            let geometry = parsed(py, &geometry.extract()?)?;
            (geometry.to_string(), geometry.stripe_code())
        };
        let inner = Code::new(&spec).map_err(|error| errors::to_py(py, &error))?;
        Ok(Self { text, inner })
    }

    /// Data shards of a stripe.
    #[getter]
    fn k(&self) -> usize {
        self.inner.k()
    }

    /// Parity shards of a stripe.
    #[getter]
    fn m(&self) -> usize {
        self.inner.m()
    }

    /// Computes the parity of k data shards.
    ///
    /// Args:
    ///     data: k rows.
    ///
    /// Returns:
    ///     m rows of the same kind and length.
    ///
    /// Raises:
    ///     Invalid: `buffer.type`, `buffer.length`.
    fn encode<'py>(
        &self,
        py: Python<'py>,
        data: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let k = self.inner.k();
        let rows = Rows::new(data)?.expect_count(py, k, "data shards")?;
        let mut fresh = rows.fresh(py, self.inner.m())?;
        let data: Vec<_> = (0..k).map(|index| rows.row(index)).collect();
        let mut parity = fresh.targets();
        detach_if_long(py, rows.len_bytes(), || self.inner.encode_shared(&data, &mut parity))?;
        Ok(fresh.into_result())
    }

    /// Computes the parity of the first k rows into the last m rows.
    ///
    /// Args:
    ///     shards: k + m rows, the last m writable.
    ///
    /// Raises:
    ///     Invalid: `buffer.type`, `buffer.length`, `buffer.read_only`, `buffer.overlap`.
    fn encode_into<'py>(&self, py: Python<'py>, shards: &Bound<'py, PyAny>) -> PyResult<()> {
        let (k, n) = (self.inner.k(), self.inner.shards());
        let rows = Rows::new(shards)?.expect_count(py, n, "shards")?;
        let data: Vec<_> = (0..k).map(|index| rows.row(index)).collect();
        let mut parity = targets(py, &rows, k..n)?;
        expect_apart(py, &data, &parity)?;
        detach_if_long(py, rows.len_bytes(), || self.inner.encode_shared(&data, &mut parity))
    }

    /// Rebuilds the rows of lost shards in place.
    ///
    /// Args:
    ///     shards: k + m rows; the content of lost rows is ignored, and they are writable.
    ///     lost: indexes of the lost shards, from 0.
    ///
    /// Reads only the rows that are needed.
    ///
    /// Raises:
    ///     Corrupt: `erasure.too_many_lost` if they cannot be rebuilt; nothing is written then.
    ///     Invalid: `buffer.type`, `buffer.length`, `buffer.read_only`, `buffer.overlap`.
    fn reconstruct<'py>(
        &self,
        py: Python<'py>,
        shards: &Bound<'py, PyAny>,
        lost: &Bound<'py, PyAny>,
    ) -> PyResult<()> {
        let n = self.inner.shards();
        let rows = Rows::new(shards)?.expect_count(py, n, "shards")?;
        let mut lost = indexes(lost)?;
        lost.sort_unstable();
        lost.dedup();
        let sources =
            self.inner.read_set(&lost, &lost).map_err(|error| errors::to_py(py, &error))?;
        let reads: Vec<_> = sources.iter().map(|&index| rows.row(index)).collect();
        let writes: Vec<_> =
            lost.iter().map(|&index| rows.target(py, index)).collect::<PyResult<_>>()?;
        expect_apart(py, &reads, &writes)?;
        let mut shards: Vec<_> = (0..n).map(|_| SharedShard::Absent).collect();
        for (&index, read) in sources.iter().zip(reads) {
            shards[index] = SharedShard::Present(read);
        }
        for (&index, write) in lost.iter().zip(writes) {
            shards[index] = SharedShard::Lost(write);
        }
        let bytes = rows.row_bytes() * (sources.len() + lost.len());
        detach_if_long(py, bytes, || self.inner.reconstruct_shared(&mut shards, &lost))
    }

    /// Tells whether the parity is that of the data.
    ///
    /// Args:
    ///     shards: k + m rows.
    ///
    /// Returns:
    ///     False if a byte differs anywhere.
    ///
    /// Raises:
    ///     Invalid: `buffer.type`, `buffer.length`.
    fn verify<'py>(&self, py: Python<'py>, shards: &Bound<'py, PyAny>) -> PyResult<bool> {
        let n = self.inner.shards();
        let rows = Rows::new(shards)?.expect_count(py, n, "shards")?;
        let shards: Vec<_> = (0..n).map(|index| rows.row(index)).collect();
        detach_if_long(py, rows.len_bytes(), || self.inner.verify_shared(&shards))
    }

    /// Puts new bytes into one data row and brings the parity rows up to date.
    ///
    /// Args:
    ///     shards: k + m rows; row `row` and the last m are writable.
    ///     row: index of a data shard, below k.
    ///     new: its new bytes, not in the row itself: its old bytes are needed.
    ///
    /// Costs reading one row and the parity, not the stripe.
    ///
    /// Raises:
    ///     Invalid: `buffer.type`, `buffer.length`, `buffer.read_only`, `buffer.overlap`.
    fn update<'py>(
        &self,
        py: Python<'py>,
        shards: &Bound<'py, PyAny>,
        row: &Bound<'py, PyAny>,
        new: &Bound<'py, PyAny>,
    ) -> PyResult<()> {
        let (k, n) = (self.inner.k(), self.inner.shards());
        let rows = Rows::new(shards)?.expect_count(py, n, "shards")?;
        let (row, new) = (index(row)?, Rows::single(new)?);
        if row >= k || new.row_bytes() != rows.row_bytes() {
            let message = format!(
                "row {row} of {} bytes is to be row 0 to {} of {} bytes",
                new.row_bytes(),
                k - 1,
                rows.row_bytes()
            );
            return Err(errors::to_py(py, &Error::new(&codes::BUFFER_LENGTH, message)));
        }
        let (old, new) = (rows.row(row), new.row(0));
        let mut writes = targets(py, &rows, (k..n).chain([row]))?;
        // It writes the row that it reads first.
        expect_apart(py, &[new], &writes)?;
        let bytes = rows.row_bytes() * (self.inner.m() + 2);
        detach_if_long(py, bytes, || {
            let (data, parity) = writes.split_last_mut().ok_or_else(no_row)?;
            self.inner.update_shared(row, old, new, parity)?;
            data.copy_from(new);
            Ok(())
        })
    }

    fn __repr__(&self) -> String {
        format!("Code('{}')", self.text)
    }

    fn __getnewargs__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, [&self.text])
    }
}

/// Every name of a level that `Geometry` and `Code` take, aliases too.
#[pyfunction]
pub(crate) fn levels() -> Vec<String> {
    dwk_erasure::levels().into_iter().map(Into::into).collect()
}

fn targets<'a>(
    py: Python<'_>,
    rows: &'a Rows<'_>,
    which: impl Iterator<Item = usize>,
) -> PyResult<Vec<Target<'a>>> {
    which.map(|index| rows.target(py, index)).collect()
}

fn parsed(py: Python<'_>, text: &Text<OfGeometry>) -> PyResult<Geometry> {
    text.text.parse().map_err(|error| errors::to_py(py, &error))
}

fn indexes(object: &Bound<'_, PyAny>) -> PyResult<Vec<usize>> {
    let items = object.try_iter().map_err(|error| {
        let other = !error.is_instance_of::<PyTypeError>(object.py());
        if other { error } else { wrong_index(object, "is no list of indexes") }
    })?;
    items.map(|item| index(&item?)).collect()
}

fn index(item: &Bound<'_, PyAny>) -> PyResult<usize> {
    item.extract().map_err(|_| wrong_index(item, "is no index"))
}

fn wrong_index(object: &Bound<'_, PyAny>, why: &str) -> PyErr {
    let message = format!("{object} {why}");
    errors::to_py(object.py(), &Error::new(&codes::BUFFER_LENGTH, message))
}

fn no_row() -> Error {
    Error::new(&codes::INTERNAL_BUG, "an update writes no row")
}
