//! Python's memory as Rust may see it.
//!
//! Exact `bytes` cannot change, so they are borrowed, also while the GIL is released. Any other buffer
//! (bytearray, memoryview, NumPy array) can be written to by another thread at any moment; a Rust slice
//! of it would be unsound. It is exported, which pins its memory, and copied piece by piece into scratch
//! that stays in the cache. A buffer that changes during a call gives a wrong result, never a wrong access.

use std::mem::MaybeUninit;

use dwk_base::{Error, codes};
use dwk_erasure::shared;
use pyo3::buffer::PyUntypedBuffer;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::errors;

/// What is copied at once out of a shared buffer: stays in the cache.
pub(crate) const PIECE_BYTES: usize = 64 << 10;

/// Bytes that Python gave.
pub(crate) enum Input<'py> {
    /// Nobody can write to these.
    Bytes(Bound<'py, PyBytes>),
    /// Anybody may write to these at any time.
    Shared(Shared),
}

impl<'py> Input<'py> {
    /// The bytes of `object`: any C-contiguous buffer.
    pub(crate) fn new(object: &Bound<'py, PyAny>) -> PyResult<Self> {
        match object.cast_exact::<PyBytes>() {
            Ok(bytes) => Ok(Self::Bytes(bytes.clone())),
            Err(_) => Shared::new(object).map(Self::Shared),
        }
    }

    /// Length in bytes.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.as_bytes().len(),
            Self::Shared(shared) => shared.len(),
        }
    }

    /// As something that may leave the interpreter.
    pub(crate) fn source(&self) -> Source<'_> {
        match self {
            Self::Bytes(bytes) => Source::Bytes(bytes.as_bytes()),
            Self::Shared(shared) => Source::Shared(shared),
        }
    }
}

/// An [`Input`] as the code without the GIL sees it.
#[derive(Clone, Copy)]
pub(crate) enum Source<'a> {
    Bytes(&'a [u8]),
    Shared(&'a Shared),
}

impl Source<'_> {
    /// Length in bytes.
    pub(crate) fn len(self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::Shared(shared) => shared.len(),
        }
    }

    /// A copy.
    pub(crate) fn to_vec(self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.len());
        self.for_each_piece(|piece| bytes.extend_from_slice(piece));
        bytes
    }

    /// Hands the bytes to `each`, in order: whole if they cannot change, else in pieces.
    pub(crate) fn for_each_piece(self, mut each: impl FnMut(&[u8])) {
        match self {
            Self::Bytes(bytes) => each(bytes),
            Self::Shared(shared) => {
                let mut scratch = vec![0; shared.len().min(PIECE_BYTES)];
                let mut start = 0;
                while start < shared.len() {
                    let length = scratch.len().min(shared.len() - start);
                    shared.read(start, &mut scratch[..length]);
                    each(&scratch[..length]);
                    start += length;
                }
            }
        }
    }
}

/// An exported buffer: its memory stays where it is, its content does not.
pub(crate) struct Shared {
    buffer: PyUntypedBuffer,
}

impl Shared {
    /// Exports `object`'s buffer.
    ///
    /// # Errors
    /// `buffer.type` if it has none, or one that is not C-contiguous or holds Python objects.
    pub(crate) fn new(object: &Bound<'_, PyAny>) -> PyResult<Self> {
        let py = object.py();
        let name = || object.get_type().name().map_or_else(|_| "?".into(), |name| name.to_string());
        let buffer = PyUntypedBuffer::get(object).map_err(|_| {
            let message = format!("{} gives no buffer", name());
            errors::to_py(py, &Error::new(&codes::BUFFER_TYPE, message).with("type", name()))
        })?;
        if !buffer.is_c_contiguous() {
            let message = format!("the buffer of {} is not C-contiguous", name());
            return Err(errors::to_py(py, &Error::new(&codes::BUFFER_TYPE, message)));
        }
        if holds_objects(buffer.format().to_bytes()) {
            let message = format!("the buffer of {} holds Python objects, not bytes", name());
            return Err(errors::to_py(py, &Error::new(&codes::BUFFER_TYPE, message)));
        }
        Ok(Self { buffer })
    }

    /// Length in bytes.
    pub(crate) fn len(&self) -> usize {
        self.buffer.len_bytes()
    }

    /// Copies the bytes from `start` on to `into`.
    pub(crate) fn read(&self, start: usize, into: &mut [u8]) {
        self.source(0, self.len()).read(start, into);
    }

    /// Some of the bytes, to be read.
    #[allow(unsafe_code)]
    pub(crate) fn source(&self, start: usize, length: usize) -> shared::Source<'_> {
        self.check(start, length);
        // SAFETY: the range lies in the export, which lives as long as `self`.
        unsafe { shared::Source::new(self.start().add(start), length) }
    }

    /// Some of the bytes, to be written; `None` if the buffer is read-only.
    #[allow(unsafe_code)]
    pub(crate) fn target(&self, start: usize, length: usize) -> Option<shared::Target<'_>> {
        self.check(start, length);
        // SAFETY: the range lies in the writable export, which lives as long as `self`.
        (!self.buffer.readonly())
            .then(|| unsafe { shared::Target::new(self.start().add(start), length) })
    }

    /// Length of each dimension, in items.
    pub(crate) fn shape(&self) -> &[usize] {
        self.buffer.shape()
    }

    /// Length of an item.
    pub(crate) fn item_bytes(&self) -> usize {
        self.buffer.item_size()
    }

    /// Where the buffer begins.
    pub(crate) fn start(&self) -> *mut u8 {
        self.buffer.buf_ptr().cast()
    }

    fn check(&self, start: usize, length: usize) {
        let end = start.checked_add(length);
        assert!(end.is_some_and(|end| end <= self.len()), "{start}+{length} of {}", self.len());
    }
}

/// True if items of this format (PEP 3118) are or contain references: bytes written over one would crash
/// the interpreter.
fn holds_objects(format: &[u8]) -> bool {
    // Every other piece is the name of a field.
    format.split(|&byte| byte == b':').step_by(2).any(|piece| piece.contains(&b'O'))
}

/// A `bytes` object that nobody has seen yet, written from its beginning, and not zeroed before.
pub(crate) struct Fresh {
    object: Py<PyBytes>,
    at: *mut u8,
    left: usize,
}

// SAFETY: until `done` nobody but this struct reads or writes the object's bytes.
#[allow(unsafe_code)]
unsafe impl Send for Fresh {}

impl Fresh {
    /// Room for `size` bytes.
    ///
    /// # Errors
    /// `MemoryError`
    #[allow(unsafe_code)]
    pub(crate) fn new(py: Python<'_>, size: usize) -> PyResult<Self> {
        let length = pyo3::ffi::Py_ssize_t::try_from(size)
            .map_err(|_| pyo3::exceptions::PyOverflowError::new_err("more bytes than can be"))?;
        // SAFETY: a null pointer asks for a new object with room for `length` bytes; the pointer to them
        // is valid as long as the object, which is kept.
        let (object, at) = unsafe {
            let object = pyo3::ffi::PyBytes_FromStringAndSize(std::ptr::null(), length);
            let object = Bound::from_owned_ptr_or_err(py, object)?;
            let at = pyo3::ffi::PyBytes_AsString(object.as_ptr()).cast::<u8>();
            (object.cast_into::<PyBytes>()?, at)
        };
        Ok(Self { object: object.unbind(), at, left: size })
    }

    /// Adds bytes at the end of what was written.
    ///
    /// # Panics
    /// If there is no room for them.
    #[allow(unsafe_code)]
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        assert!(bytes.len() <= self.left, "more bytes than there is room for");
        // SAFETY: there is room for them, and nobody else has the object's memory.
        unsafe {
            self.at.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
            self.at = self.at.add(bytes.len());
        }
        self.left -= bytes.len();
    }

    /// Lets `write` fill what is left, or the beginning of that; it returns what it has filled.
    ///
    /// # Panics
    /// If it returns anything else.
    #[allow(unsafe_code)]
    pub(crate) fn fill(
        &mut self,
        write: impl for<'a> FnOnce(&'a mut [MaybeUninit<u8>]) -> &'a mut [u8],
    ) {
        // SAFETY: so many bytes are left, and nobody else has the object's memory.
        let room = unsafe { std::slice::from_raw_parts_mut(self.at.cast(), self.left) };
        let filled = write(room);
        assert!(std::ptr::eq(filled.as_ptr(), self.at), "not what was to be filled");
        let length = filled.len();
        // SAFETY: a slice within the room ends within it.
        self.at = unsafe { self.at.add(length) };
        self.left -= length;
    }

    /// The object, with zeroes for what was not written.
    #[allow(unsafe_code)]
    pub(crate) fn done(self, py: Python<'_>) -> Bound<'_, PyBytes> {
        // SAFETY: so many bytes are left of the object's memory.
        unsafe { self.at.write_bytes(0, self.left) };
        self.object.into_bound(py)
    }
}
