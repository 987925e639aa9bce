//! Where the bytes of a put come from, and how Python sees what a long operation does meanwhile.

use std::io::{self, Read};
use std::path::PathBuf;
use std::time::Duration;

use dwk_base::{Error, Result, Seams, codes};
use dwk_catalog::Source;
use dwk_pool::Progress;
use pyo3::exceptions::{PyException, PyTypeError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString};

use crate::buffers::Shared;
use crate::detach::attach;
use crate::files::FileSource;

/// The most that is asked of a Python file object at once, in bytes.
const READ_BYTES_MAX: usize = 1 << 20;
/// Progress is told, and signals are looked at, at most this often.
const EVERY: Duration = Duration::from_millis(50);

/// The bytes of a put, as Python gave them.
pub(crate) enum Origin<'py> {
    /// Nobody can write to these.
    Bytes(Bound<'py, PyBytes>),
    /// A buffer that anybody may write to.
    Buffer(BufferSource),
    /// Something with a method `read`.
    Stream(StreamSource),
    /// A file that is read without Python.
    File(FileSource),
}

/// What leaves the interpreter of an [`Origin`].
pub(crate) enum Taken<'a> {
    Bytes(&'a [u8]),
    Buffer(&'a mut BufferSource),
    Stream(&'a mut StreamSource),
    File(&'a mut FileSource),
}

impl<'py> Origin<'py> {
    /// From what Python gave: bytes, a path (a str), an object with `read`, or any buffer.
    pub(crate) fn new(data: &Bound<'py, PyAny>) -> PyResult<Self> {
        if let Ok(bytes) = data.cast_exact::<PyBytes>() {
            return Ok(Self::Bytes(bytes.clone()));
        }
        if data.is_instance_of::<PyString>() {
            // As the file system has it, also where it is not UTF-8.
            return Ok(Self::File(FileSource::new(data.extract::<PathBuf>()?)));
        }
        if data.hasattr("read")? {
            let read = data.getattr("read")?.unbind();
            return Ok(Self::Stream(StreamSource { read, failed: None }));
        }
        Ok(Self::Buffer(BufferSource { shared: Shared::new(data)?, at: 0 }))
    }

    /// As something that may leave the interpreter.
    pub(crate) fn taken(&mut self) -> Taken<'_> {
        match self {
            Self::Bytes(bytes) => Taken::Bytes(bytes.as_bytes()),
            Self::Buffer(buffer) => Taken::Buffer(buffer),
            Self::Stream(stream) => Taken::Stream(stream),
            Self::File(file) => Taken::File(file),
        }
    }

    /// Ties what the source raised to the error that the put ended with.
    pub(crate) fn explain(&mut self, py: Python<'_>, error: PyErr) -> PyErr {
        let raised = match self {
            Self::Bytes(_) | Self::Buffer(_) => None,
            Self::Stream(stream) => stream.failed.take(),
            Self::File(file) => file.failed(),
        };
        match raised {
            None => error,
            // Ctrl-C is no failure of the source.
            Some(raised) if !raised.is_instance_of::<PyException>(py) => raised,
            Some(raised) => {
                error.set_cause(py, Some(raised));
                error
            }
        }
    }
}

impl<'a> Taken<'a> {
    /// As the kernel takes it.
    pub(crate) fn source(self) -> Source<'a> {
        match self {
            Self::Bytes(bytes) => Source::Bytes(bytes),
            Self::Buffer(buffer) => Source::Stream(buffer),
            Self::Stream(stream) => Source::Stream(stream),
            Self::File(file) => Source::Stream(file),
        }
    }
}

/// Copies out of a buffer piece by piece.
pub(crate) struct BufferSource {
    shared: Shared,
    at: usize,
}

impl Read for BufferSource {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let length = into.len().min(self.shared.len() - self.at);
        self.shared.read(self.at, &mut into[..length]);
        self.at += length;
        Ok(length)
    }
}

/// Asks a Python object for more, with the GIL.
pub(crate) struct StreamSource {
    read: Py<PyAny>,
    failed: Option<PyErr>,
}

impl Read for StreamSource {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let wanted = into.len().min(READ_BYTES_MAX);
        let taken = attach(|py| self.ask(py, &mut into[..wanted]));
        taken.ok_or_else(ended)?.map_err(|raised| {
            let text = raised.to_string();
            self.failed = Some(raised);
            io::Error::other(text)
        })
    }
}

impl StreamSource {
    fn ask(&self, py: Python<'_>, into: &mut [u8]) -> PyResult<usize> {
        let piece = self.read.bind(py).call1((into.len(),))?;
        let length = if let Ok(bytes) = piece.cast_exact::<PyBytes>() {
            let bytes = bytes.as_bytes();
            copy_if_fits(bytes.len(), into)?.copy_from_slice(bytes);
            bytes.len()
        } else if piece.is_instance_of::<PyString>() || piece.is_none() {
            let name = piece.get_type().name()?;
            let text =
                format!("read() returned {name}: give a blocking file opened in binary mode");
            return Err(PyTypeError::new_err(text));
        } else {
            let shared = Shared::new(&piece)?;
            shared.read(0, copy_if_fits(shared.len(), into)?);
            shared.len()
        };
        Ok(length)
    }
}

fn ended() -> io::Error {
    io::Error::other("the interpreter has ended")
}

fn copy_if_fits(length: usize, into: &mut [u8]) -> PyResult<&mut [u8]> {
    let asked = into.len();
    into.get_mut(..length).ok_or_else(|| {
        PyTypeError::new_err(format!("read({asked}) returned {length} bytes, more than asked"))
    })
}

/// Tells Python how far an operation is, and stops it when Python wants that: on Ctrl-C, or when the
/// callable raises.
pub(crate) struct Watcher {
    seams: Seams,
    progress: Option<Py<PyAny>>,
    /// Asked whether to go on, besides.
    look: Option<Py<PyAny>>,
    next: Duration,
    raised: Option<PyErr>,
}

impl Watcher {
    /// Calls `progress(done, total)` now and then, if there is one.
    pub(crate) fn new(seams: &Seams, progress: Option<Py<PyAny>>) -> Self {
        let next = seams.clock.monotonic() + EVERY;
        let look = attach(|py| progress.as_ref()?.getattr(py, "look").ok()).flatten();
        Self { seams: seams.clone(), progress, look, next, raised: None }
    }

    /// Told how far it is.
    ///
    /// # Errors
    /// `context.cancelled`
    pub(crate) fn tell(&mut self, done: u64, total: Option<u64>) -> Result<()> {
        let now = self.seams.clock.monotonic();
        if now < self.next && Some(done) != total {
            return Ok(());
        }
        self.next = now + EVERY;
        self.call(Some((done, total)))
    }

    /// Told how far long work is, if there is news; signals and `look` are looked at in any case.
    ///
    /// # Errors
    /// `context.cancelled`
    pub(crate) fn tell_progress(&mut self, progress: Option<&Progress>) -> Result<()> {
        if self.raised.is_some() {
            return Ok(());
        }
        let Some(progress) = progress else { return self.call(None) };
        // Names of stripes are spread evenly, so a part of them says how many there are.
        let total = progress.stripes as f64 / progress.fraction;
        let total = if progress.fraction > 0.0 { Some(total.round() as u64) } else { None };
        self.call(Some((progress.stripes, total)))
    }

    /// Told how much was done so far; signals and `look` are looked at in any case.
    ///
    /// # Errors
    /// `context.cancelled`
    pub(crate) fn tell_bytes(&mut self, done: u64) -> Result<()> {
        if self.raised.is_some() {
            return Ok(());
        }
        self.call(Some((done, None)))
    }

    /// Signals are looked at.
    ///
    /// # Errors
    /// `context.cancelled`
    pub(crate) fn look(&mut self) -> Result<()> {
        self.call(None)
    }

    /// Raises what Python raised, if the operation ended well all the same.
    pub(crate) fn ended(&mut self) -> PyResult<()> {
        self.raised.take().map_or(Ok(()), Err)
    }

    fn call(&mut self, news: Option<(u64, Option<u64>)>) -> Result<()> {
        let told = attach(|py| {
            py.check_signals()?;
            if let Some(look) = &self.look {
                look.call0(py)?;
            }
            match (news, &self.progress) {
                (Some(news), Some(tell)) => tell.call1(py, news).map(drop),
                _ => Ok(()),
            }
        });
        let stopped = |text| Error::new(&codes::CONTEXT_CANCELLED, text);
        told.ok_or_else(|| stopped("the interpreter has ended"))?.map_err(|raised| {
            self.raised = Some(raised);
            stopped("the caller stopped the operation")
        })
    }

    /// What Python raised, if that ended the operation; `error` otherwise.
    pub(crate) fn explain(&mut self, error: PyErr) -> PyErr {
        self.raised.take().unwrap_or(error)
    }
}
