//! `dwkernel.units`.

use dwk_base::units;
use pyo3::prelude::*;

use crate::errors::to_py;

/// Bytes from text such as `"10 GiB"`.
#[pyfunction]
pub(crate) fn parse_size(py: Python<'_>, text: &str) -> PyResult<u64> {
    units::parse_size(text).map_err(|error| to_py(py, &error))
}

/// Seconds from text such as `"30s"`.
#[pyfunction]
pub(crate) fn parse_duration(py: Python<'_>, text: &str) -> PyResult<f64> {
    let parsed = units::parse_duration(text).map_err(|error| to_py(py, &error))?;
    Ok(parsed.as_secs_f64())
}

/// Bytes for people: `"1.5 KiB"`.
#[pyfunction]
pub(crate) fn format_size(bytes: u64) -> String {
    units::format_size(bytes)
}
