//! The space of a pool: stripes written to, read from and repaired on its drives.
//!
//! # Overview
//! [`Space::fill`] gives a buffer for a stripe's content, [`Space::write`] encodes it and hands the shards
//! to the drives, [`Writing::wait`] returns when every shard is durable. [`Space::read`] and
//! [`Space::start_read`] return verified content, reconstructed where shards are lost, late or damaged.
//! [`Space::scrub`], [`Space::rebuild`] and [`Space::refresh`] repair.
//!
//! # Consistency
//! A stripe is never changed. It counts when somebody above commits it; until then its shards are
//! orphans. A shard is believed only if its header agrees with the committed row and its blocks with
//! its header; shards of one stripe must agree on the checks of all of them.
//!
//! # Retries
//! A shard that a drive refused goes to another drive. A drive that failed or was late is reported to
//! the [`Watch`] and not tried again for this stripe. Of repairs one runs at a time: a second one is
//! refused (`pool.repairing`).
//!
//! # Cancellation
//! A [`Writing`] that is dropped removes what it wrote. Repairs end at the next stripe.

mod buffers;
mod coding;
mod control;
mod encode;
mod filling;
mod header;
mod headers;
mod hedge;
mod landed;
mod mending;
mod notes;
mod options;
mod orphans;
mod owed;
mod pace;
mod placement;
mod presence;
mod read;
mod rebuild;
mod recover;
mod report;
mod restore;
mod room;
mod rows;
mod scrub;
mod shard;
mod sweep;
#[cfg(test)]
mod tests;
mod widen;
mod write;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError, Weak};

use dwk_base::{Epoch, Error, PoolId, Result, Seams, codes};
use dwk_erasure::{CodeSpec, Geometry};

use self::buffers::Memory;
use self::coding::Coding;
use self::headers::Headers;
use self::notes::Notes;
use self::owed::Owed;
use self::pace::Pace;
use crate::{RosterCell, Stripe, Watch};

pub(crate) use self::control::Stage;
pub use self::control::{Control, Progress};
pub use self::filling::Filling;
pub use self::landed::Landed;
pub use self::notes::Damage;
pub use self::options::SpaceOptions;
pub use self::pace::{Answers, Hedges};
pub use self::read::Reading;
pub use self::report::{RebuildReport, ScrubReport};
pub use self::write::Writing;

/// The tags of every sync that this part asks drives for.
pub const SYNC_TAGS: &[&str] =
    &[orphans::SYNC_QUARANTINE, restore::SYNC_REPAIR, write::SYNC_REMOVE, write::SYNC_WRITE];

/// The space of a pool. Cheap to share between threads.
pub struct Space {
    shared: Arc<Shared>,
    /// Held by whoever goes over all stripes: two repairs of one stripe would undo each other's work.
    sweeping: Mutex<()>,
}

/// What everything that works on stripes needs.
pub(crate) struct Shared {
    pool: PoolId,
    /// The epoch in which this opening began: what is older, this process did not write.
    opened: Epoch,
    coding: Coding,
    options: SpaceOptions,
    roster: Arc<RosterCell>,
    watch: Arc<dyn Watch>,
    seams: Seams,
    /// For stripes on their way in, and repairs.
    memory: Arc<Memory>,
    memory_bytes: usize,
    /// For reads under way.
    read_memory: Arc<Memory>,
    /// Reads that drives have not answered yet.
    owed: Arc<Owed>,
    /// How long they lately took.
    pace: Pace,
    headers: Headers,
    notes: Notes,
    outboxes: Mutex<BTreeMap<u16, Arc<write::Outbox>>>,
    /// Stripes on their way: who waits for memory helps those that wait for another drive.
    flights: Mutex<Vec<Weak<write::Flight>>>,
}

impl Space {
    /// A space on the drives of `roster`, each stripe encoded as `geometry` says.
    ///
    /// # Errors
    /// `geometry.not_storable`, `geometry.invalid`, `store.option`
    pub fn new(
        pool: PoolId,
        geometry: &Geometry,
        options: SpaceOptions,
        roster: Arc<RosterCell>,
        watch: Arc<dyn Watch>,
        seams: Seams,
    ) -> Result<Self> {
        if let Some(why) = geometry.not_storable_reason() {
            let text = format!("{geometry} cannot be stored yet: {why}");
            return Err(Error::new(&codes::GEOMETRY_NOT_STORABLE, text));
        }
        Self::with_code(pool, geometry.stripe_code(), options, roster, watch, seams)
    }

    /// A space whose stripes are encoded with `code`.
    ///
    /// # Errors
    /// `store.option`, `geometry.invalid`
    pub fn with_code(
        pool: PoolId,
        code: CodeSpec,
        options: SpaceOptions,
        roster: Arc<RosterCell>,
        watch: Arc<dyn Watch>,
        seams: Seams,
    ) -> Result<Self> {
        options.check()?;
        let coding = Coding::new(code);
        coding.code(&code)?;
        // A quarter is for reads.
        let memory_bytes = (options.memory_bytes / 4 * 3) as usize;
        let read_bytes = (options.memory_bytes / 4) as usize;
        let headers = Headers::new(options.header_cache_bytes);
        let pace = Pace::new(options.late_read);
        Ok(Self {
            shared: Arc::new(Shared {
                pool,
                opened: roster.load().epoch,
                coding,
                options,
                roster,
                watch,
                seams,
                memory: Memory::new(memory_bytes),
                memory_bytes,
                read_memory: Memory::new(read_bytes),
                owed: Arc::default(),
                pace,
                headers,
                notes: Notes::default(),
                outboxes: Mutex::default(),
                flights: Mutex::default(),
            }),
            sweeping: Mutex::new(()),
        })
    }

    /// Makes the caller the only one that goes over all stripes, or refuses.
    fn sweep_alone(&self) -> Result<MutexGuard<'_, ()>> {
        match self.sweeping.try_lock() {
            Ok(guard) => Ok(guard),
            Err(TryLockError::Poisoned(poisoned)) => Ok(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => {
                let text = "another scrub, rebuild or refresh of this pool is under way";
                Err(Error::new(&codes::POOL_REPAIRING, text))
            }
        }
    }

    /// Content of a full stripe with the drives of now, in bytes.
    pub fn payload_bytes_max(&self) -> usize {
        let shape = self.shared.full_shape();
        shape.data * shape.shard_bytes
    }

    /// How reads went around late drives.
    pub fn hedges(&self) -> Hedges {
        self.shared.pace.hedges()
    }

    /// The answers of the drive on a seat to reads.
    pub fn answers(&self, seat: u16) -> Answers {
        self.shared.pace.answers(seat)
    }

    /// True if a stripe can be read without the shards `missing`.
    pub fn readable(&self, stripe: &Stripe, missing: &[usize]) -> bool {
        self.shared.coding.stored(stripe.code).is_ok_and(|code| code.tolerates(missing))
    }
}

impl Shared {
    /// Says that a drive failed; not if it was the process that could not go on, or something that is no shard lies
    /// in the way of one.
    pub(crate) fn blame(&self, seat: u16, error: &Error) {
        if !error.is_of_process() && !error.is(&codes::BLOB_EXISTS) {
            self.watch.failed(seat, error);
        }
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl fmt::Debug for Space {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Space").field("pool", &self.shared.pool).finish_non_exhaustive()
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("pool", &self.pool).finish_non_exhaustive()
    }
}
