//! `dwkernel._native.Store`: an open store, as `dwkernel.kernel` uses it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use dwk_base::{Error, Result, Seams, codes};
use dwk_catalog::{
    ContainerInfo, ContainerName, Entry, Expected, Key, ListOptions, ObjectInfo, PutOptions,
    Record, RecordChange,
};
use dwk_kernel::operations::{
    self, CommitRecords, Configure, CreateContainer, Delete, DeleteContainer, Get, GetContainer,
    GetDesk, GetRecord, GetSettings, Head, List, ListContainers, ListRecords, Put,
};
use dwk_kernel::{
    Context, Create, Deadline, Drives, Kernel, OpenSpec, Principal, Settings, Snapshot, Tuning,
};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};

use crate::bus::{BusSpace, outgoing};
use crate::detach::detach;
use crate::errors::to_py;
use crate::held::Held;
use crate::opening;
use crate::policies::PolicyDesk;
use crate::pool::Pool;
use crate::reader::ObjectReader;
use crate::sources::{Origin, Watcher};
use crate::texts::{Labels, OfContainer, OfKey, OfMetadata, OfOption, Text};

/// Who calls: a principal, a tenant, roles.
#[derive(Clone)]
#[pyclass(frozen, module = "dwkernel._native")]
pub(crate) struct Caller {
    principal: Principal,
    tenant: Option<String>,
    roles: Vec<String>,
}

#[pymethods]
impl Caller {
    #[new]
    #[pyo3(signature = (principal, tenant=None, roles=Vec::new()))]
    fn new(
        py: Python<'_>,
        principal: String,
        tenant: Option<String>,
        roles: Vec<String>,
    ) -> PyResult<Self> {
        let principal = Principal::new(principal);
        let principal = principal.map_err(|error| to_py(py, &error))?;
        Ok(Self { principal, tenant, roles })
    }
}

impl Caller {
    pub(crate) fn principal(&self) -> &str {
        self.principal.as_str()
    }

    pub(crate) fn context(&self, seams: &Seams, timeout_s: f64) -> Result<Context> {
        let limit = Duration::try_from_secs_f64(timeout_s).unwrap_or(Duration::MAX);
        let deadline = Deadline::after(Arc::clone(&seams.clock), limit);
        let context = Context::new(self.principal.clone(), deadline, &*seams.random);
        let context = context.with_roles(self.roles.iter().cloned())?;
        match &self.tenant {
            Some(tenant) => context.in_tenant(tenant.clone()),
            None => Ok(context),
        }
    }
}

/// Name, moment of creation in nanoseconds since 1970, options.
type ContainerTuple<'py> = (String, u64, Bound<'py, PyBytes>);

/// Key, size, version, etag, checksum, content type, metadata, tags, moment of creation.
pub(crate) type ObjectTuple = (
    String,
    u64,
    u64,
    String,
    u64,
    Option<String>,
    BTreeMap<String, String>,
    BTreeMap<String, String>,
    u64,
);

/// Drives as Python says them: a number, or places.
#[derive(FromPyObject)]
enum DrivesArgument {
    Count(usize),
    At(Vec<String>),
}

/// An entry of a listing: an object, or a prefix that was rolled up.
#[derive(IntoPyObject)]
pub(crate) enum EntryOut {
    Object(ObjectTuple),
    Prefix(String),
}

/// An open store.
#[pyclass(frozen, module = "dwkernel._native")]
pub(crate) struct Store {
    pub(crate) kernel: Held,
}

impl Store {
    /// Runs `work` without the GIL and in a context of its own.
    pub(crate) fn run<T: Send>(
        &self,
        py: Python<'_>,
        caller: &Caller,
        timeout_s: f64,
        work: impl FnOnce(&Kernel, &Context) -> Result<T> + Send,
    ) -> PyResult<T> {
        run(py, &self.kernel, caller, timeout_s, work)
    }
}

/// Runs `work` on `kernel` without the GIL and in a context of its own.
pub(crate) fn run<T: Send>(
    py: Python<'_>,
    kernel: &Kernel,
    caller: &Caller,
    timeout_s: f64,
    work: impl FnOnce(&Kernel, &Context) -> Result<T> + Send,
) -> PyResult<T> {
    detach(py, || {
        let context = caller.context(kernel.seams(), timeout_s)?;
        // Also what is refused before the door, such as a bad key.
        work(kernel, &context).map_err(|error| error.in_operation(context.correlation()))
    })
}

/// Key, value or None to remove it, and the version that it must be at: None for any, 0 for absent.
type Changed = (String, Option<Vec<u8>>, Option<u64>);

fn record_change((key, value, version): Changed) -> RecordChange {
    let expected = match version {
        None => Expected::Any,
        Some(0) => Expected::Absent,
        Some(version) => Expected::Version(version),
    };
    RecordChange { key, value, expected }
}

/// What stays as it is until the next opening, by name.
fn tuning_of(given: &Bound<'_, PyDict>) -> PyResult<Tuning> {
    let py = given.py();
    let mut tuning = Tuning::default();
    let streams = &mut tuning.streams;
    for (name, value) in given.iter() {
        let name = name.extract::<&str>()?;
        // Whether it is possible, as far as its type says; others check what it means.
        let taken = match name {
            "drive_timeout_s" => value.extract().is_ok_and(|seconds| {
                let limit = Duration::try_from_secs_f64(seconds).ok();
                tuning.drive_timeout = limit.filter(|limit| !limit.is_zero());
                tuning.drive_timeout.is_some()
            }),
            "merge_bytes" => value.extract().map(|value| streams.merge_bytes = value).is_ok(),
            "merge_frames" => value.extract().map(|value| streams.merge_frames = value).is_ok(),
            "delayed_max" => value.extract().map(|value| streams.delayed_max = value).is_ok(),
            "keys_max" => value.extract().map(|value| streams.keys_max = value).is_ok(),
            _ => {
                let text = format!("there is no setting {name:?}");
                return Err(to_py(py, &Error::new(&codes::CONFIG_UNKNOWN, text)));
            }
        };
        if !taken || streams.merge_bytes == 0 || streams.merge_frames == 0 || streams.keys_max == 0
        {
            let text = format!("{name}={value:?} is not possible");
            let error = Error::new(&codes::CONFIG_VALUE, text).with("field", name);
            return Err(to_py(py, &error));
        }
    }
    Ok(tuning)
}

/// Settings by name; what is left out is not limited.
fn settings_of(given: &Bound<'_, PyDict>) -> PyResult<Settings> {
    let py = given.py();
    let mut settings = Settings::default();
    for (name, value) in given.iter() {
        let name = name.extract::<&str>()?;
        let taken = match name {
            "operations" => value.extract().map(|value| settings.operations = value),
            "rate" => value.extract().map(|value| settings.rate = value),
            "burst" => value.extract().map(|value| settings.burst = value),
            "object_size" => value.extract().map(|value| settings.object_bytes_max = value),
            _ => {
                let text = format!("there is no limit {name:?}");
                return Err(to_py(py, &Error::new(&codes::CONFIG_UNKNOWN, text)));
            }
        };
        taken.map_err(|_| {
            let text = format!("limits.{name}: {value:?} is no such number");
            let error = Error::new(&codes::CONFIG_VALUE, text);
            to_py(py, &error.with("field", format!("limits.{name}")))
        })?;
    }
    Ok(settings)
}

#[pymethods]
impl Store {
    /// The caller's tenant's part of the bus.
    fn bus(&self, py: Python<'_>, caller: &Caller, timeout_s: f64) -> PyResult<BusSpace> {
        let space = self.run(py, caller, timeout_s, |kernel, context| {
            kernel.execute(context, operations::Bus)
        })?;
        Ok(BusSpace::of_kernel(space, self.kernel.clone(), caller.clone()))
    }

    /// Opens a store; see `dwkernel.open`.
    #[staticmethod]
    #[pyo3(signature = (caller, timeout_s, *, path, drives, geometry, labels, create, read_only, force, program, settings=None, progress=None))]
    #[allow(clippy::too_many_arguments, clippy::fn_params_excessive_bools)] // by keyword only
    fn open(
        py: Python<'_>,
        caller: &Caller,
        timeout_s: f64,
        path: Option<PathBuf>,
        drives: Option<DrivesArgument>,
        geometry: Option<Text<OfOption>>,
        labels: BTreeMap<String, BTreeMap<String, String>>,
        create: &str,
        read_only: bool,
        force: bool,
        program: String,
        settings: Option<&Bound<'_, PyDict>>,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<Self> {
        let tuning = settings.map(tuning_of).transpose()?.unwrap_or_default();
        let drives = drives.map(|drives| match drives {
            DrivesArgument::Count(count) => Drives::Count(count),
            DrivesArgument::At(places) => Drives::At(places),
        });
        let create = match create {
            "new" => Create::New,
            "if_missing" => Create::IfMissing,
            _ => Create::Never,
        };
        let geometry = geometry.map(|geometry| geometry.text);
        let spec =
            OpenSpec { path, drives, geometry, labels, create, read_only, force, program, tuning };
        let kernel = opening::open(py, caller, timeout_s, &spec, progress)?;
        Ok(Self { kernel: Held::new(kernel) })
    }

    /// The pool's identity.
    #[getter]
    fn id(&self) -> String {
        self.kernel.id().to_string()
    }

    /// Where its drives are; none once it was closed.
    #[getter]
    fn locations(&self) -> Vec<String> {
        self.kernel.locations()
    }

    /// Its drives.
    #[getter]
    fn pool(&self) -> Pool {
        Pool::new(self.kernel.clone())
    }

    /// Whether it was closed.
    #[getter]
    fn closed(&self) -> bool {
        self.kernel.is_closed()
    }

    /// Waits for what is under way and lets the drives go.
    fn close(&self, py: Python<'_>, caller: &Caller, timeout_s: f64) -> PyResult<()> {
        let mut watcher = Watcher::new(self.kernel.seams(), None);
        let closed = self.run(py, caller, timeout_s, |kernel, context| {
            kernel.close_looking(context, &mut || watcher.look())
        });
        closed.map_err(|error| watcher.explain(error))
    }

    /// Sets everything that can be set while the store is open, in one step; the version of the settings.
    fn configure(
        &self,
        py: Python<'_>,
        caller: &Caller,
        timeout_s: f64,
        settings: &Bound<'_, PyDict>,
    ) -> PyResult<u64> {
        let settings = settings_of(settings)?;
        self.run(py, caller, timeout_s, |kernel, context| {
            kernel.execute(context, Configure { settings })
        })
    }

    /// The settings that count now, by name, with their version.
    fn settings<'py>(
        &self,
        py: Python<'py>,
        caller: &Caller,
        timeout_s: f64,
    ) -> PyResult<Bound<'py, PyDict>> {
        let snapshot = self
            .run(py, caller, timeout_s, |kernel, context| kernel.execute(context, GetSettings))?;
        let Snapshot { version, settings } = *snapshot;
        let dict = PyDict::new(py);
        dict.set_item("version", version)?;
        dict.set_item("operations", settings.operations)?;
        dict.set_item("rate", settings.rate)?;
        dict.set_item("burst", settings.burst)?;
        dict.set_item("object_size", settings.object_bytes_max)?;
        Ok(dict)
    }

    /// Where questions to policies lie.
    fn policies(&self, py: Python<'_>, caller: &Caller, timeout_s: f64) -> PyResult<PolicyDesk> {
        let desk =
            self.run(py, caller, timeout_s, |kernel, context| kernel.execute(context, GetDesk))?;
        Ok(PolicyDesk { desk })
    }

    /// Changes records of a space, all or none; their version.
    fn commit_records(
        &self,
        py: Python<'_>,
        caller: &Caller,
        timeout_s: f64,
        space: &str,
        changes: Vec<Changed>,
    ) -> PyResult<u64> {
        let changes: Vec<_> = changes.into_iter().map(record_change).collect();
        self.run(py, caller, timeout_s, |kernel, context| {
            kernel.execute(context, CommitRecords { space, changes: &changes })
        })
    }

    /// A record's value and version.
    fn get_record<'py>(
        &self,
        py: Python<'py>,
        caller: &Caller,
        timeout_s: f64,
        space: &str,
        key: &str,
    ) -> PyResult<Option<(Bound<'py, PyBytes>, u64)>> {
        let found = self.run(py, caller, timeout_s, |kernel, context| {
            kernel.execute(context, GetRecord { space, key })
        })?;
        Ok(found.map(|record| (PyBytes::new(py, &record.value), record.version)))
    }

    /// A page of records: key, value, version.
    fn list_records<'py>(
        &self,
        py: Python<'py>,
        caller: &Caller,
        timeout_s: f64,
        space: &str,
        after: &str,
        limit: usize,
    ) -> PyResult<Vec<(String, Bound<'py, PyBytes>, u64)>> {
        let page = self.run(py, caller, timeout_s, |kernel, context| {
            kernel.execute(context, ListRecords { space, after, limit })
        })?;
        let told = |Record { key, value, version }| (key, PyBytes::new(py, &value), version);
        Ok(page.into_iter().map(told).collect())
    }

    /// Makes a container.
    fn create_container<'py>(
        &self,
        py: Python<'py>,
        caller: &Caller,
        timeout_s: f64,
        name: Text<OfContainer>,
        options: &[u8],
    ) -> PyResult<ContainerTuple<'py>> {
        let info = self.run(py, caller, timeout_s, |kernel, context| {
            let name = ContainerName::new(name.text)?;
            kernel.execute(context, CreateContainer { name: &name, options })
        })?;
        Ok(container_tuple(py, &info))
    }

    /// What is known of a container.
    fn get_container<'py>(
        &self,
        py: Python<'py>,
        caller: &Caller,
        timeout_s: f64,
        name: Text<OfContainer>,
    ) -> PyResult<ContainerTuple<'py>> {
        let info = self.run(py, caller, timeout_s, |kernel, context| {
            let name = ContainerName::new(name.text)?;
            kernel.execute(context, GetContainer { name: &name })
        })?;
        Ok(container_tuple(py, &info))
    }

    /// A page of containers.
    fn list_containers<'py>(
        &self,
        py: Python<'py>,
        caller: &Caller,
        timeout_s: f64,
        after: Option<String>,
        limit: usize,
    ) -> PyResult<Vec<ContainerTuple<'py>>> {
        let page = self.run(py, caller, timeout_s, |kernel, context| {
            let after = after.map(ContainerName::new).transpose()?;
            kernel.execute(context, ListContainers { after: after.as_ref(), limit })
        })?;
        Ok(page.iter().map(|info| container_tuple(py, info)).collect())
    }

    /// Deletes an empty container.
    fn delete_container(
        &self,
        py: Python<'_>,
        caller: &Caller,
        timeout_s: f64,
        name: Text<OfContainer>,
    ) -> PyResult<()> {
        self.run(py, caller, timeout_s, |kernel, context| {
            let name = ContainerName::new(name.text)?;
            kernel.execute(context, DeleteContainer { name: &name })
        })
    }

    /// Writes an object from bytes, a buffer, a file object or (a str) a path.
    #[pyo3(signature = (caller, timeout_s, key, data, *, if_absent, if_match, content_type, metadata, tags, progress, publish=None))]
    #[allow(clippy::too_many_arguments)] // by keyword only
    fn put(
        &self,
        py: Python<'_>,
        caller: &Caller,
        timeout_s: f64,
        key: Text<OfKey>,
        data: &Bound<'_, PyAny>,
        if_absent: bool,
        if_match: Option<Text<OfOption>>,
        content_type: Option<Text<OfMetadata>>,
        metadata: Labels,
        tags: Labels,
        progress: Option<Py<PyAny>>,
        publish: Option<(Bound<'_, BusSpace>, Bound<'_, PyAny>)>,
    ) -> PyResult<ObjectTuple> {
        let publish = publish.map(|(space, messages)| outgoing(space.get(), &messages));
        let publish = publish.transpose()?.unwrap_or_default();
        let if_match = if_match.map(|etag| etag.text);
        let content_type = content_type.map(|kind| kind.text);
        let (Labels(metadata), Labels(tags)) = (metadata, tags);
        let options = PutOptions { if_absent, if_match, content_type, metadata, tags };
        let mut origin = Origin::new(data)?;
        let mut watcher = Watcher::new(self.kernel.seams(), progress);
        let taken = origin.taken();
        let stored = self.run(py, caller, timeout_s, |kernel, context| {
            let key = Key::new(key.text)?;
            let mut told = |done| watcher.tell(done, None);
            let (source, options) = (taken.source(), &options);
            let (progress, publish) = (&mut told, &publish[..]);
            kernel.execute(context, Put { key: &key, source, options, progress, publish })
        });
        let stored = stored.map_err(|error| origin.explain(py, error));
        let info = stored.map_err(|error| watcher.explain(error))?;
        Ok(object_tuple(info))
    }

    /// Opens an object for reading.
    fn get(
        &self,
        py: Python<'_>,
        caller: &Caller,
        timeout_s: f64,
        key: Text<OfKey>,
    ) -> PyResult<ObjectReader> {
        let reader = self.run(py, caller, timeout_s, |kernel, context| {
            let key = Key::new(key.text)?;
            kernel.execute(context, Get { key: &key })
        })?;
        Ok(ObjectReader::new(self.kernel.clone(), reader))
    }

    /// What is known of an object.
    fn head(
        &self,
        py: Python<'_>,
        caller: &Caller,
        timeout_s: f64,
        key: Text<OfKey>,
    ) -> PyResult<ObjectTuple> {
        let info = self.run(py, caller, timeout_s, |kernel, context| {
            let key = Key::new(key.text)?;
            kernel.execute(context, Head { key: &key })
        })?;
        Ok(object_tuple(info))
    }

    /// A page of a listing, and where the next one starts.
    #[allow(clippy::too_many_arguments)] // as `dwkernel.Kernel.list` calls it
    fn list(
        &self,
        py: Python<'_>,
        caller: &Caller,
        timeout_s: f64,
        prefix: Text<OfKey>,
        delimiter: Option<Text<OfOption>>,
        start_after: Option<Text<OfKey>>,
        limit: usize,
    ) -> PyResult<(Vec<EntryOut>, Option<String>)> {
        let delimiter = delimiter.map(|text| text.text);
        let start_after = start_after.map(|key| key.text);
        let options = ListOptions { prefix: prefix.text, delimiter, start_after, limit };
        self.run(py, caller, timeout_s, |kernel, context| {
            let page = kernel.execute(context, List { options: &options })?;
            let entries = page.entries.into_iter().map(|entry| match entry {
                Entry::Object(info) => EntryOut::Object(object_tuple(info)),
                Entry::Prefix(prefix) => EntryOut::Prefix(prefix),
            });
            Ok((entries.collect(), page.next))
        })
    }

    /// Deletes an object.
    fn delete(
        &self,
        py: Python<'_>,
        caller: &Caller,
        timeout_s: f64,
        key: Text<OfKey>,
        if_match: Option<Text<OfOption>>,
    ) -> PyResult<()> {
        let if_match = if_match.map(|etag| etag.text);
        self.run(py, caller, timeout_s, |kernel, context| {
            let key = Key::new(key.text)?;
            kernel.execute(context, Delete { key: &key, if_match: if_match.as_deref() })
        })
    }
}

fn container_tuple<'py>(py: Python<'py>, info: &ContainerInfo) -> ContainerTuple<'py> {
    let options = PyBytes::new(py, &info.options);
    (info.name.to_string(), info.created_unix_ns, options)
}

pub(crate) fn object_tuple(info: ObjectInfo) -> ObjectTuple {
    let (key, etag) = (info.key.to_string(), info.etag());
    let ObjectInfo { size_bytes, version, checksum, content_type, metadata, tags, .. } = info;
    let created = info.created_unix_ns;
    (key, size_bytes, version, etag, checksum, content_type, metadata, tags, created)
}

/// Lets go of all drives in memory; how many they were.
#[pyfunction]
pub(crate) fn forget_memory_drives(py: Python<'_>) -> usize {
    py.detach(dwk_kernel::forget_memory_drives)
}
