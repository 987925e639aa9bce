//! `dwkernel.pool`: how the drives are, and work on them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dwk_base::{Result, StripeId};
use dwk_kernel::operations::{
    Collect, Listener, Rebuild, Replace, Scrub, Status, StoreStatus, Work,
};
use dwk_kernel::{Context, Kernel};
use dwk_pool::{Progress, RebuildReport};
use pyo3::prelude::*;

use crate::aside::aside;
use crate::held::Held;
use crate::sources::Watcher;
use crate::store::{Caller, run};
use crate::texts::{OfDrive, Text};

/// How often the calling thread looks at signals and progress while others work.
const LOOK_EVERY: Duration = Duration::from_millis(50);

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
    uuid: String,
    late_reads: u64,
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
    hedged_reads: u64,
    hedges_won: u64,
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
            uuid: drive.id.to_string(),
            late_reads: drive.answers.late,
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
            hedged_reads: pool.hedges.asked,
            hedges_won: pool.hedges.won,
            lost_stripes: pool.lost_stripes,
            epoch: pool.epoch.0,
            read_only: pool.read_only,
        }
    }
}

/// The drives of an open store.
#[pyclass(frozen, module = "dwkernel._native")]
pub(crate) struct Pool {
    kernel: Held,
}

impl Pool {
    pub(crate) fn new(kernel: Held) -> Self {
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

    /// Reads and verifies everything and repairs what is wrong.
    fn scrub(
        &self,
        py: Python<'_>,
        caller: &Caller,
        timeout_s: f64,
        restart: bool,
        rate: u64,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<WorkOut> {
        let report =
            self.work(py, caller, timeout_s, (rate, progress), |kernel, context, work| {
                kernel.execute(context, Scrub { restart, work })
            })?;
        let (mut numbers, notes) = shown(&report.result.lost);
        numbers.extend([
            ("stripes", report.result.stripes),
            ("good_shards", report.result.good_shards),
            ("damaged_shards", report.result.damaged_shards),
            ("absent_shards", report.result.absent_shards),
            ("unread_shards", report.result.unread_shards),
            ("restored_shards", report.result.restored_shards),
            ("unrestored_shards", report.result.unrestored_shards),
            ("lost_stripes", report.result.lost_stripes),
            ("inconsistent_stripes", report.result.inconsistent_stripes),
            ("orphans", report.result.orphans),
            ("removed_orphans", report.result.removed_orphans),
            ("foreign_files", report.result.foreign_files),
            ("journal_repairs", report.result.journal_repairs),
            ("lost_batches", report.result.lost_batches),
            ("unrepaired_batches", report.result.unrepaired_batches),
            ("read_bytes", report.result.read_bytes),
            ("written_bytes", report.result.written_bytes),
        ]);
        Ok(WorkOut { seconds: report.seconds, numbers, notes })
    }

    /// Restores what is missing.
    fn rebuild(
        &self,
        py: Python<'_>,
        caller: &Caller,
        timeout_s: f64,
        drive: Option<Text<OfDrive>>,
        rate: u64,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<WorkOut> {
        let drive = drive.map(|drive| drive.text);
        let how = (rate, progress);
        let report = self.work(py, caller, timeout_s, how, |kernel, context, work| {
            kernel.execute(context, Rebuild { drive: drive.as_deref(), work })
        })?;
        Ok(rebuilt(&report))
    }

    /// Gives back the room of what is dead and packs what is half empty.
    fn collect(
        &self,
        py: Python<'_>,
        caller: &Caller,
        timeout_s: f64,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<WorkOut> {
        let done = self.work(py, caller, timeout_s, (0, progress), |kernel, context, work| {
            kernel.execute(context, Collect { work })
        })?;
        let report = done.result;
        let numbers = BTreeMap::from([
            ("dropped_stripes", report.dropped_stripes),
            ("freed_bytes", report.freed_bytes),
            ("packed_bytes", report.packed_bytes),
            ("unreadable_pieces", report.unreadable_pieces),
        ]);
        Ok(WorkOut { seconds: done.seconds, numbers, notes: Vec::new() })
    }

    /// Puts a new drive in another one's place and rebuilds onto it.
    #[allow(clippy::too_many_arguments)] // as `dwkernel.Pool.replace` calls it
    fn replace(
        &self,
        py: Python<'_>,
        caller: &Caller,
        timeout_s: f64,
        old: Text<OfDrive>,
        new: Text<OfDrive>,
        rate: u64,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<WorkOut> {
        let (old, new) = (old.text, new.text);
        let how = (rate, progress);
        let report = self.work(py, caller, timeout_s, how, |kernel, context, work| {
            kernel.execute(context, Replace { old: &old, new: &new, work })
        })?;
        Ok(rebuilt(&report))
    }
}

/// What long work came to, as `dwkernel.ScrubReport` and `RebuildReport` take it.
#[derive(IntoPyObject)]
pub(crate) struct WorkOut {
    seconds: f64,
    numbers: BTreeMap<&'static str, u64>,
    notes: Vec<String>,
}

struct Timed<T> {
    seconds: f64,
    result: T,
}

fn shown(lost: &[StripeId]) -> (BTreeMap<&'static str, u64>, Vec<String>) {
    const SHOWN: usize = 20;
    let notes = lost.iter().take(SHOWN).map(|id| format!("stripe {id} cannot be read any more"));
    (BTreeMap::new(), notes.collect())
}

fn rebuilt(report: &Timed<RebuildReport>) -> WorkOut {
    let (mut numbers, notes) = shown(&report.result.lost);
    numbers.extend([
        ("stripes", report.result.stripes),
        ("missing_shards", report.result.missing_shards),
        ("restored_shards", report.result.restored_shards),
        ("unrestored_shards", report.result.unrestored_shards),
        ("lost_stripes", report.result.lost_stripes),
        ("removed_files", report.result.removed_files),
        ("widened_stripes", report.result.widened_stripes),
        ("weak_stripes", report.result.weak_stripes),
        ("unlisted_drives", report.result.unlisted_drives),
        ("read_bytes", report.result.read_bytes),
        ("written_bytes", report.result.written_bytes),
    ]);
    WorkOut { seconds: report.seconds, numbers, notes }
}

impl Pool {
    /// Does long work on a thread of its own, so that the calling one can hear Ctrl-C and tell progress.
    fn work<T: Send>(
        &self,
        py: Python<'_>,
        caller: &Caller,
        timeout_s: f64,
        (rate, progress): (u64, Option<Py<PyAny>>),
        run_it: impl FnOnce(&Kernel, &Context, Work) -> Result<T> + Send,
    ) -> PyResult<Timed<T>> {
        let (stop, latest) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(None)));
        let heard = Arc::clone(&latest);
        let listener: Listener = Arc::new(move |progress: &Progress| {
            *heard.lock().unwrap_or_else(PoisonError::into_inner) = Some(progress.clone());
        });
        let work = Work { rate_bytes_per_s: rate, listener: Some(listener), stop: stop.clone() };
        let mut watcher = Watcher::new(self.kernel.seams(), progress);
        let clock = Arc::clone(&self.kernel.seams().clock);
        let start = clock.monotonic();
        let done = run(py, &self.kernel, caller, timeout_s, |kernel, context| {
            let look = || {
                let now = latest.lock().unwrap_or_else(PoisonError::into_inner).take();
                if watcher.tell_progress(now.as_ref()).is_err() {
                    stop.store(true, Ordering::SeqCst);
                }
            };
            aside(LOOK_EVERY, || run_it(kernel, context, work), look)
        });
        let seconds = clock.monotonic().saturating_sub(start).as_secs_f64();
        match done {
            Ok(result) => watcher.ended().map(|()| Timed { seconds, result }),
            Err(error) => Err(watcher.explain(error)),
        }
    }
}
