//! `base::Error` as Python exceptions. The classes live in `dwkernel.errors`; the kind picks one.

use dwk_base::{Error, codes};
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyDict;

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

/// Every error code: `(name, kind, retryable, advice)`, sorted by name.
#[pyfunction]
pub(crate) fn error_registry() -> Vec<(&'static str, &'static str, bool, &'static str)> {
    codes::REGISTRY
        .iter()
        .map(|code| (code.name, code.kind.name(), code.retryable, code.advice))
        .collect()
}
