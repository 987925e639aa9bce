//! `base::Error` as Python exceptions. The classes live in `dwkernel.errors`; the kind picks one.

use std::collections::BTreeMap;

use dwk_base::{Error, codes};
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyDict;

/// Details that an error from Python keeps.
const CARRIED: [&str; 4] = ["pid", "host", "since", "program"];

static MAKE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();

/// The Python exception for `error`, with its code, details and correlation id.
pub(crate) fn to_py(py: Python<'_>, error: &Error) -> PyErr {
    let make = || {
        let make = MAKE.get_or_try_init(py, || {
            Ok::<_, PyErr>(py.import("dwkernel.errors")?.getattr("_from_native")?.unbind())
        })?;
        let details = PyDict::new(py);
        for (name, value) in error.details() {
            details.set_item(name, value)?;
        }
        let correlation = error.correlation().map(|id| id.to_string());
        make.bind(py).call1((error.code().name, error.to_string(), details, correlation))
    };
    match make() {
        Ok(exception) => PyErr::from_value(exception),
        // Only when the interpreter is shutting down or the package is torn apart.
        Err(import_error) => {
            let plain = PyRuntimeError::new_err(error.to_string());
            plain.set_cause(py, Some(import_error));
            plain
        }
    }
}

/// The error for an exception that came out of Python: the code that it has if it is one of dwkernel's, else
/// `drive.io`, for it was a drive that raised it.
pub(crate) fn from_py(py: Python<'_>, raised: &PyErr) -> Error {
    let value = raised.value(py);
    let name = value.getattr("code").and_then(|code| code.extract::<String>());
    let known = name.ok().and_then(|name| codes::REGISTRY.iter().find(|code| code.name == name));
    let text = value.str().map_or_else(|_| String::new(), |text| text.to_string());
    let kind = raised.get_type(py).name().map_or_else(|_| String::new(), |name| name.to_string());
    let Some(code) = known else {
        return Error::new(&codes::DRIVE_IO, format!("it raised {kind}: {text}"));
    };
    // What to do is added again to whatever comes of it.
    let said = text.split_once(code.advice).map_or(&*text, |(said, _)| said).trim_end_matches(". ");
    let details = value.getattr("details").and_then(|details| details.extract());
    let mut details: BTreeMap<String, String> = details.unwrap_or_default();
    let carried = CARRIED.into_iter().filter_map(|name| Some((name, details.remove(name)?)));
    carried.fold(Error::new(code, said), |error, (name, value)| error.with(name, value))
}

/// Every error code: `(name, kind, retryable, advice)`, sorted by name.
#[pyfunction]
pub(crate) fn error_registry() -> Vec<(&'static str, &'static str, bool, &'static str)> {
    codes::REGISTRY
        .iter()
        .map(|code| (code.name, code.kind.name(), code.retryable, code.advice))
        .collect()
}
