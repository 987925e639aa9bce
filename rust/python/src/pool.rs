//! `dwkernel.pool`: how the drives are, and work on them.

use std::collections::BTreeMap;
use std::sync::Arc;

use dwk_kernel::Kernel;
use dwk_kernel::operations::{Status, StoreStatus};
use pyo3::prelude::*;

use crate::store::{Caller, run};

/// One drive, as `dwkernel.DriveStatus` takes it.
#[derive(IntoPyObject)]
struct DriveOut {
    id: String,
    path: String,
    state: &'static str,
    capacity_bytes: u64,
    used_bytes: u64,
    labels: BTreeMap<String, String>,
    journal: bool,
}

/// The pool, as `dwkernel.PoolStatus` takes it.
#[derive(IntoPyObject)]
pub(crate) struct StatusOut {
    id: String,
    geometry: String,
    redundancy: &'static str,
    tolerance: usize,
    usable_bytes: u64,
    used_bytes: u64,
    drives: Vec<DriveOut>,
    advice: Vec<String>,
    warnings: Vec<String>,
    objects: u64,
    stripes: u64,
    degraded_stripes: u64,
    lost_stripes: u64,
    epoch: u64,
    read_only: Option<String>,
}

impl From<StoreStatus> for StatusOut {
    fn from(status: StoreStatus) -> Self {
        let StoreStatus { pool, map, mut warnings } = status;
        warnings.extend(pool.warnings);
        let drive = |drive: dwk_pool::DriveStatus| DriveOut {
            id: drive.name,
            path: drive.location,
            state: drive.state.name(),
            capacity_bytes: drive.capacity_bytes,
            used_bytes: drive.used_bytes,
            labels: drive.labels,
            journal: drive.journal,
        };
        Self {
            id: pool.id.to_string(),
            geometry: pool.geometry,
            redundancy: pool.redundancy.name(),
            tolerance: pool.tolerance,
            usable_bytes: pool.usable_bytes,
            used_bytes: map.live_bytes,
            drives: pool.drives.into_iter().map(drive).collect(),
            advice: pool.advice,
            warnings,
            objects: map.rows,
            stripes: map.stripes,
            degraded_stripes: pool.degraded_stripes,
            lost_stripes: pool.lost_stripes,
            epoch: pool.epoch.0,
            read_only: pool.read_only,
        }
    }
}

/// The drives of an open store.
#[pyclass(frozen, module = "dwkernel._native")]
pub(crate) struct Pool {
    kernel: Arc<Kernel>,
}

impl Pool {
    pub(crate) fn new(kernel: Arc<Kernel>) -> Self {
        Self { kernel }
    }
}

#[pymethods]
impl Pool {
    /// How every drive is.
    fn status(&self, py: Python<'_>, caller: &Caller, timeout_s: f64) -> PyResult<StatusOut> {
        run(py, &self.kernel, caller, timeout_s, |kernel, context| {
            kernel.execute(context, Status).map(StatusOut::from)
        })
    }
}
