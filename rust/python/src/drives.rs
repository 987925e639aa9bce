//! Drives that are written in Python; see `dwkernel.plugins.kinds.drive`.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use dwk_base::{Error, Result, codes};
use dwk_drive::{
    BlobInfo, BlobName, Capacity, Description, Drive, Holder, Lock, LockMode, Log, Slot,
};
use dwk_kernel::{DriveSource, register_drives, unregister_drives};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList};

use crate::detach::attach;
use crate::errors::{from_py, to_py};

/// From now on drives with URLs of `scheme` are what `open(location, make)` returns.
#[pyfunction]
#[pyo3(name = "register_drives")]
pub(crate) fn register(py: Python<'_>, scheme: &str, open: Py<PyAny>) -> PyResult<()> {
    register_drives(scheme, Arc::new(Source(open))).map_err(|error| to_py(py, &error))
}

/// Nobody opens drives of `scheme` any more; true if somebody did.
#[pyfunction]
#[pyo3(name = "unregister_drives")]
pub(crate) fn unregister(scheme: &str) -> bool {
    unregister_drives(scheme)
}

struct Source(Py<PyAny>);

impl DriveSource for Source {
    fn open(&self, location: &str, make: bool) -> Result<Arc<dyn Drive>> {
        with_python(|py| {
            let object = self.0.call1(py, (location, make))?;
            let has_log = !object.call_method0(py, "log")?.is_none(py);
            let (object, location) = (Arc::new(object), location.to_owned());
            let drive = Foreign { object, location, of_log: false };
            let description = OnceLock::new();
            let log = has_log.then(|| ForeignLog(Foreign { of_log: true, ..drive.clone() }));
            Ok(Arc::new(ForeignDrive { drive, log, description }) as Arc<dyn Drive>)
        })
        .map_err(|error| error.with("drive", location))
    }
}

/// Runs `work` with the interpreter; what it raises becomes an error.
fn with_python<T>(work: impl FnOnce(Python<'_>) -> PyResult<T>) -> Result<T> {
    let done = attach(|py| work(py).map_err(|error| from_py(py, &error)));
    done.unwrap_or_else(|| Err(Error::new(&codes::DRIVE_IO, "the interpreter has ended")))
}

/// A drive as Python sees it.
#[derive(Clone)]
struct Foreign {
    object: Arc<Py<PyAny>>,
    location: String,
    /// What is called are the drive's logs, which are asked for anew each time.
    of_log: bool,
}

impl Foreign {
    /// Calls a method and takes apart what it returns.
    fn call<T, A>(
        &self,
        method: &str,
        arguments: impl FnOnce(Python<'_>) -> PyResult<A>,
        take: impl FnOnce(&Bound<'_, PyAny>) -> PyResult<T>,
    ) -> Result<T>
    where
        A: for<'py> pyo3::call::PyCallArgs<'py>,
    {
        let done = with_python(|py| {
            let arguments = arguments(py)?;
            let drive = self.object.bind(py);
            let called = if self.of_log { &drive.call_method0("log")? } else { drive };
            take(&called.call_method1(method, arguments)?)
        });
        done.map_err(|error| error.with("drive", &self.location))
    }
}

struct ForeignDrive {
    drive: Foreign,
    log: Option<ForeignLog>,
    /// It does not change while the drive is open, and is asked for often.
    description: OnceLock<Description>,
}

struct ForeignLog(Foreign);

#[expect(clippy::unnecessary_wraps, reason = "taken where something may fail")]
fn nothing(_: &Bound<'_, PyAny>) -> PyResult<()> {
    Ok(())
}

fn parts_of(py: Python<'_>, parts: &[Bytes]) -> PyResult<Py<PyList>> {
    let parts = parts.iter().map(|part| PyBytes::new(py, part));
    Ok(PyList::new(py, parts.collect::<Vec<_>>())?.unbind())
}

/// Copies what was read; more than there is room for is an error of the drive's.
fn copy(read: &Bound<'_, PyAny>, into: &mut [u8]) -> PyResult<usize> {
    let bytes: &[u8] = read.extract()?;
    if bytes.len() > into.len() {
        let text = format!("{} bytes came where {} were asked for", bytes.len(), into.len());
        return Err(to_py(read.py(), &Error::new(&codes::DRIVE_IO, text)));
    }
    into[..bytes.len()].copy_from_slice(bytes);
    Ok(bytes.len())
}

/// Names with lengths.
fn infos(listed: &Bound<'_, PyAny>) -> PyResult<Vec<BlobInfo>> {
    let py = listed.py();
    let info = |(name, bytes): (String, u64)| {
        let name = BlobName::new(name).map_err(|error| to_py(py, &error))?;
        Ok(BlobInfo { name, bytes })
    };
    listed.extract::<Vec<(String, u64)>>()?.into_iter().map(info).collect()
}

impl Drive for ForeignDrive {
    fn describe(&self) -> Description {
        let ask = || {
            let found: Result<BTreeMap<String, Option<String>>> =
                self.drive.call("describe", |_| Ok(()), |found| found.extract());
            let mut found = found.unwrap_or_default();
            let mut take = |name: &str| found.remove(name).flatten();
            let failure_domain = take("failure_domain");
            let is_read_only = take("read_only").is_some_and(|text| text != "false");
            let location = self.drive.location.clone();
            let labels = found.into_iter().filter_map(|(name, value)| Some((name, value?)));
            let labels = labels.filter(|(name, _)| name != "location").collect();
            Description { kind: "plugin", location, failure_domain, is_read_only, labels }
        };
        self.description.get_or_init(ask).clone()
    }

    fn put(&self, name: &BlobName, parts: &[Bytes]) -> Result<()> {
        self.drive.call("put", |py| Ok((name.as_str(), parts_of(py, parts)?)), nothing)
    }

    fn read(&self, name: &BlobName, offset: u64, into: &mut [u8]) -> Result<usize> {
        let length = into.len();
        self.drive.call("read", |_| Ok((name.as_str(), offset, length)), |read| copy(read, into))
    }

    fn list(
        &self,
        folder: Option<&str>,
        after: Option<&BlobName>,
        limit: usize,
    ) -> Result<Vec<BlobInfo>> {
        let after = after.map(BlobName::as_str);
        self.drive.call("list", |_| Ok((folder, after, limit)), infos)
    }

    fn delete(&self, name: &BlobName) -> Result<()> {
        self.drive.call("delete", |_| Ok((name.as_str(),)), nothing)
    }

    fn stat(&self, name: &BlobName) -> Result<BlobInfo> {
        let bytes =
            self.drive.call("stat", |_| Ok((name.as_str(),)), |found| found.extract::<u64>())?;
        Ok(BlobInfo { name: name.clone(), bytes })
    }

    fn capacity(&self) -> Result<Capacity> {
        let (total_bytes, free_bytes) =
            self.drive.call("capacity", |_| Ok(()), |found| found.extract::<(u64, u64)>())?;
        Ok(Capacity { total_bytes, free_bytes })
    }

    fn sync(&self, tag: &'static str) -> Result<()> {
        self.drive.call("sync", |_| Ok((tag,)), nothing)
    }

    fn read_superblock(&self, slot: Slot) -> Result<Option<Vec<u8>>> {
        self.drive.call("read_superblock", |_| Ok((number(slot),)), |found| found.extract())
    }

    fn write_superblock(&self, slot: Slot, bytes: &[u8]) -> Result<()> {
        let arguments = |py: Python<'_>| Ok((number(slot), PyBytes::new(py, bytes).unbind()));
        self.drive.call("write_superblock", arguments, nothing)
    }

    fn lock(&self, holder: &Holder, mode: LockMode) -> Result<Box<dyn Lock>> {
        let token = with_python(|py| {
            let (given, options) = (PyDict::new(py), PyDict::new(py));
            given.set_item("pid", holder.pid.to_string())?;
            given.set_item("host", &holder.host)?;
            given.set_item("since_unix_ns", holder.since_unix_ns.to_string())?;
            given.set_item("program", &holder.program)?;
            options.set_item("shared", mode == LockMode::Shared)?;
            let object = self.drive.object.bind(py);
            object.call_method("lock", (given,), Some(&options))?.extract::<String>()
        });
        let token = token.map_err(|error| error.with("drive", &self.drive.location))?;
        Ok(Box::new(Held { drive: self.drive.clone(), token }))
    }

    fn holder(&self) -> Result<Option<Holder>> {
        let found: Option<BTreeMap<String, String>> =
            self.drive.call("holder", |_| Ok(()), |found| found.extract())?;
        Ok(found.map(|mut found| {
            let mut take = |name: &str| found.remove(name).unwrap_or_default();
            Holder {
                pid: take("pid").parse().unwrap_or_default(),
                host: take("host"),
                since_unix_ns: take("since_unix_ns").parse().unwrap_or_default(),
                program: take("program"),
            }
        }))
    }

    fn log(&self) -> Option<&dyn Log> {
        self.log.as_ref().map(|log| log as &dyn Log)
    }
}

impl Log for ForeignLog {
    fn create_log(&self, name: &BlobName, bytes: u64) -> Result<()> {
        self.0.call("create_log", |_| Ok((name.as_str(), bytes)), nothing)
    }

    fn write_log(&self, name: &BlobName, offset: u64, parts: &[Bytes]) -> Result<()> {
        let arguments = |py: Python<'_>| Ok((name.as_str(), offset, parts_of(py, parts)?));
        self.0.call("write_log", arguments, nothing)
    }

    fn sync_log(&self, name: &BlobName, tag: &'static str) -> Result<()> {
        self.0.call("sync_log", |_| Ok((name.as_str(), tag)), nothing)
    }

    fn read_log(&self, name: &BlobName, offset: u64, into: &mut [u8]) -> Result<()> {
        let length = into.len();
        let arguments = |_: Python<'_>| Ok((name.as_str(), offset, length));
        let read = self.0.call("read_log", arguments, |read| copy(read, into))?;
        if read < length {
            let text = format!("{read} bytes came of a log where {length} were asked for");
            return Err(Error::new(&codes::DRIVE_IO, text).with("drive", &self.0.location));
        }
        Ok(())
    }

    fn list_logs(&self) -> Result<Vec<BlobInfo>> {
        self.0.call("list_logs", |_| Ok(()), infos)
    }

    fn delete_log(&self, name: &BlobName) -> Result<()> {
        self.0.call("delete_log", |_| Ok((name.as_str(),)), nothing)
    }
}

fn number(slot: Slot) -> u8 {
    match slot {
        Slot::A => 0,
        Slot::B => 1,
    }
}

/// A lock that was taken.
struct Held {
    drive: Foreign,
    token: String,
}

impl Lock for Held {}

impl Drop for Held {
    fn drop(&mut self) {
        // It ends with the process at the latest.
        let _ = self.drive.call("unlock", |_| Ok((self.token.as_str(),)), nothing);
    }
}
