//! The switch: one power supply for several drives, cut at a chosen step.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use dwk_base::{Error, Result, codes};

use super::{FaultyDrive, Shared};
use crate::checks::guard;

/// Powers any number of [`FaultyDrive`]s, counts their I/O steps, and cuts them off all at once.
///
/// A step is a call that changes something or syncs, and with [`Power::count_reads`] also a read.
/// Clones are the same switch.
///
/// ```
/// use std::sync::Arc;
/// use bytes::Bytes;
/// use dwk_drive::{BlobName, Drive, MemoryDrive};
/// use dwk_drive::faulty::{FaultyDrive, Power};
///
/// let power = Power::new();
/// let drive = FaultyDrive::new(Arc::new(MemoryDrive::new("d1")), &power, 7);
/// let name = BlobName::new("s/a")?;
/// drive.put(&name, &[Bytes::from_static(b"x")])?;
/// power.cut_in(1);
/// assert!(drive.sync("example").is_err());
/// let drives = power.restore();            // fresh handles, in the order of creation
/// let _ = drives[0].stat(&name);           // kept, lost or torn, by the seed
/// assert!(drive.sync("example").is_err()); // whoever still holds an old handle is dead
/// # Ok::<(), dwk_base::Error>(())
/// ```
#[derive(Clone, Default)]
pub struct Power {
    supply: Arc<Supply>,
    drives: Arc<Mutex<Vec<Arc<Shared>>>>,
}

/// What the drives see of the switch.
pub(super) struct Supply {
    steps: AtomicU64,
    cut_at: AtomicU64,
    is_cut: AtomicBool,
    count_reads: AtomicBool,
    /// How many times the power came back: handles of an earlier life are dead.
    life: AtomicU64,
}

impl Default for Supply {
    fn default() -> Self {
        Self {
            steps: AtomicU64::new(0),
            cut_at: AtomicU64::new(u64::MAX),
            is_cut: AtomicBool::new(false),
            count_reads: AtomicBool::new(false),
            life: AtomicU64::new(0),
        }
    }
}

impl Power {
    /// A switch that is on.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many steps were made since the beginning, over all drives.
    pub fn steps(&self) -> u64 {
        self.supply.steps.load(Ordering::SeqCst)
    }

    /// Cuts at step number `step`, counted from 1: it and everything after it fails with `drive.io`.
    /// The step itself may be half done.
    pub fn cut_at(&self, step: u64) {
        self.supply.cut_at.store(step, Ordering::SeqCst);
    }

    /// Cuts at the step that is `steps` from now: 1 is the next one.
    pub fn cut_in(&self, steps: u64) {
        self.cut_at(self.steps() + steps);
    }

    /// Cuts between two steps.
    pub fn cut_now(&self) {
        self.supply.is_cut.store(true, Ordering::SeqCst);
    }

    /// True from the cut to the restart.
    pub fn is_cut(&self) -> bool {
        self.supply.is_cut.load(Ordering::SeqCst)
    }

    /// Makes reads, lists and the like count as steps too.
    pub fn count_reads(&self, count: bool) {
        self.supply.count_reads.store(count, Ordering::SeqCst);
    }

    /// Cuts the power if it is on, then brings it back: what was not synced is kept, lost or torn, and
    /// locks are gone. Returns the drives as they are found, in the order in which they were made;
    /// every older handle stays dead. Steps are counted on; no cut is planned.
    pub fn restore(&self) -> Vec<FaultyDrive> {
        self.cut_now();
        self.cut_at(u64::MAX);
        let life = self.supply.life.fetch_add(1, Ordering::SeqCst) + 1;
        let drives = guard(&self.drives);
        drives.iter().for_each(|drive| drive.survive());
        self.supply.is_cut.store(false, Ordering::SeqCst);
        drives.iter().map(|shared| FaultyDrive { shared: Arc::clone(shared), life }).collect()
    }

    pub(super) fn supply(&self) -> Arc<Supply> {
        Arc::clone(&self.supply)
    }

    pub(super) fn plug_in(&self, drive: Arc<Shared>) -> FaultyDrive {
        let life = self.supply.life.load(Ordering::SeqCst);
        guard(&self.drives).push(Arc::clone(&drive));
        FaultyDrive { shared: drive, life }
    }
}

impl std::fmt::Debug for Power {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Power({} steps, cut: {})", self.steps(), self.is_cut())
    }
}

impl Supply {
    #[cfg(test)]
    pub(super) fn cut_at_next(&self) {
        self.cut_at.store(0, Ordering::SeqCst);
    }

    /// Makes a step. `Ok(true)`: this is the one at which the power goes.
    pub(super) fn step(&self, life: u64, reads: bool) -> Result<bool> {
        self.same_life(life)?;
        if reads && !self.count_reads.load(Ordering::SeqCst) {
            return self.alive(life).map(|()| false);
        }
        let step = self.steps.fetch_add(1, Ordering::SeqCst) + 1;
        let planned = step >= self.cut_at.load(Ordering::SeqCst);
        if planned {
            let first = !self.is_cut.swap(true, Ordering::SeqCst);
            return if first { Ok(true) } else { Err(cut()) };
        }
        self.alive(life).map(|()| false)
    }

    /// Fails if the handle is of an earlier life.
    pub(super) fn same_life(&self, life: u64) -> Result<()> {
        if self.life.load(Ordering::SeqCst) == life { Ok(()) } else { Err(cut()) }
    }

    /// Fails if there is no power, or the handle is of an earlier life.
    pub(super) fn alive(&self, life: u64) -> Result<()> {
        if self.is_cut.load(Ordering::SeqCst) { Err(cut()) } else { self.same_life(life) }
    }
}

/// What every call says while there is no power.
pub(super) fn cut() -> Error {
    Error::new(&codes::DRIVE_IO, "the power is cut")
}
