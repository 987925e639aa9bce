//! The keeper: folds the journal into the pool and gives back what is dead.
//!
//! It works on a thread of its own that starts when the journal first grows past its limit. All its
//! work is idempotent: a crash in the middle leaves things as they were or done.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use dwk_base::{Error, Result, StripeId, codes};

use crate::meta::Meta;
use crate::record::{Operation, RecordWriter};
use crate::{checkpoint, pack};

/// Writers wait when the journal is this many times as long as it may be.
const HOLD_BACK: u64 = 4;
/// How long a writer waits for the keeper before it goes on all the same.
const HOLD_BACK_TIME: Duration = Duration::from_secs(10);
/// How many times the journal's length is looked at while it grows to its limit.
const LOOKS: u64 = 16;
/// Stripes dropped in one record.
const DROP_MAX: usize = 1024;

/// What a collection gave back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CollectReport {
    /// Stripes that nobody referred to.
    pub dropped_stripes: u64,
    /// Bytes of content on them and on half-empty stripes that were emptied.
    pub freed_bytes: u64,
    /// Bytes that were moved into full stripes.
    pub packed_bytes: u64,
}

/// The keeper's thread and the lock that makes it alone.
#[derive(Default)]
pub(crate) struct Keeper {
    alone: Mutex<()>,
    thread: Mutex<Option<JoinHandle<()>>>,
    /// Bytes of records since somebody last looked how long the journal is.
    unlooked_bytes: AtomicU64,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    stopping: AtomicBool,
    wanted: Mutex<bool>,
    wake: Condvar,
    done: Condvar,
    failed: Mutex<Option<Error>>,
}

impl Keeper {
    /// Held by whoever moves stripes or content.
    pub(crate) fn alone(&self) -> MutexGuard<'_, ()> {
        self.alone.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes the keeper when the journal is long; waits for it when it is far too long.
    pub(crate) fn hold_back(&self, meta: &Meta, record_bytes: u64) -> Result<()> {
        let limit = meta.options().journal_bytes_max;
        let since = self.unlooked_bytes.fetch_add(record_bytes, Ordering::Relaxed) + record_bytes;
        if since < limit / LOOKS {
            return Ok(());
        }
        self.unlooked_bytes.store(0, Ordering::Relaxed);
        let bytes = meta.journal().bytes_since(0);
        if bytes <= limit {
            return Ok(());
        }
        self.start(meta)?;
        let mut wanted = lock(&self.shared.wanted);
        if !*wanted {
            *wanted = true;
            self.shared.wake.notify_one();
        }
        if bytes > limit * HOLD_BACK {
            let _ = self.shared.done.wait_timeout(wanted, HOLD_BACK_TIME);
        }
        Ok(())
    }

    fn start(&self, meta: &Meta) -> Result<()> {
        let mut thread = lock(&self.thread);
        if thread.is_some() || self.shared.stopping.load(Ordering::SeqCst) {
            return Ok(());
        }
        let (me, shared) = (meta.downgrade(), Arc::clone(&self.shared));
        let run = move || {
            while shared.wait() {
                let Some(meta) = me.upgrade() else { return };
                let done = meta.checkpoint();
                *lock(&shared.failed) = done.err();
                shared.done.notify_all();
            }
        };
        let spawned = thread::Builder::new().name("dwk-keeper".to_owned()).spawn(run);
        *thread = Some(spawned.map_err(|error| {
            Error::new(&codes::INTERNAL_BUG, "no thread can be started").caused_by(error)
        })?);
        Ok(())
    }

    /// Stops the thread, then checkpoints what changed.
    pub(crate) fn stop(&self, meta: &Meta) -> Result<()> {
        self.halt();
        if meta.pool().check_writable().is_err() {
            return Ok(());
        }
        let _alone = self.alone();
        collect_dead(meta)?;
        checkpoint::write(meta)?;
        release(meta)
    }

    /// Stops the thread and leaves everything else as it is.
    pub(crate) fn halt(&self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        self.shared.wake.notify_all();
        let thread = lock(&self.thread).take();
        if let Some(thread) = thread.filter(|thread| thread.thread().id() != thread::current().id())
        {
            let _ = thread.join();
        }
    }

    /// Why the last fold failed, if it did.
    pub(crate) fn failure(&self) -> Option<Error> {
        lock(&self.shared.failed).clone()
    }
}

impl Shared {
    /// Waits for work; false when there will be none.
    fn wait(&self) -> bool {
        let mut wanted = lock(&self.wanted);
        while !*wanted && !self.stopping.load(Ordering::SeqCst) {
            wanted = self.wake.wait(wanted).unwrap_or_else(PoisonError::into_inner);
        }
        *wanted = false;
        !self.stopping.load(Ordering::SeqCst)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Meta {
    /// Packs what lies in the journal, writes a checkpoint, and lets the journal's segments be used again.
    ///
    /// # Errors
    /// Those of writing stripes and of commits; what was acknowledged stays where it is.
    pub fn checkpoint(&self) -> Result<()> {
        let _alone = self.keeper.alone();
        let before = self.state().applied() + 1;
        pack::journal_content(self, before)?;
        collect_dead(self)?;
        checkpoint::write(self)?;
        release(self)
    }

    /// Gives back the room of stripes that nobody refers to and packs those that are half empty.
    ///
    /// # Errors
    /// As [`checkpoint`](Self::checkpoint).
    pub fn collect(&self) -> Result<CollectReport> {
        let _alone = self.keeper.alone();
        let mut report = collect_dead(self)?;
        let sparse = sparse(self);
        if !sparse.is_empty() {
            report.packed_bytes = pack::stripes(self, &sparse)?;
            let emptied = collect_dead(self)?;
            report.dropped_stripes += emptied.dropped_stripes;
            report.freed_bytes += emptied.freed_bytes;
        }
        Ok(report)
    }

    /// Why the keeper's last work failed, if it did.
    pub fn keeper_failure(&self) -> Option<Error> {
        self.keeper.failure()
    }
}

/// Stripes of rows of which too little lives. Those of runs live as a whole.
fn sparse(meta: &Meta) -> BTreeSet<StripeId> {
    let state = meta.state();
    let runs: BTreeSet<StripeId> =
        state.root().runs.iter().flat_map(|run| &run.stripes).map(|stripe| stripe.id).collect();
    let share = meta.options().live_fraction_min;
    let kept = state.stripes_after(None).filter(|kept| {
        kept.live_bytes > 0
            && (kept.live_bytes as f64) < share * f64::from(kept.stripe.payload_bytes)
            && !runs.contains(&kept.stripe.id)
    });
    kept.map(|kept| kept.stripe.id).collect()
}

/// Drops stripes that are dead since before the oldest reader: first in the journal, then on the drives.
pub(crate) fn collect_dead(meta: &Meta) -> Result<CollectReport> {
    let mut report = CollectReport::default();
    loop {
        let stripes: Vec<_> = {
            let state = meta.state();
            // Before the state: a reader that pins later sees it as it is now.
            let oldest = meta.pins().oldest().unwrap_or(u64::MAX);
            let dead = state.dead().filter(|(_, since)| *since <= oldest);
            let kept = dead.filter_map(|(id, _)| state.stripe(id));
            kept.take(DROP_MAX).map(|kept| kept.stripe.clone()).collect()
        };
        if stripes.is_empty() {
            return Ok(report);
        }
        let mut record = RecordWriter::new();
        for stripe in &stripes {
            record.push(&Operation::DropStripe(stripe.id));
        }
        meta.commit_record(record)?;
        for stripe in &stripes {
            meta.pool().space().remove(stripe);
            report.dropped_stripes += 1;
            report.freed_bytes += u64::from(stripe.payload_bytes);
        }
    }
}

/// Lets the journal forget what is folded, packed, and read by nobody.
fn release(meta: &Meta) -> Result<()> {
    let (before, now) = {
        let state = meta.state();
        let inline = state.inline_after(None).next().map_or(u64::MAX, |(sequence, _)| *sequence);
        ((state.root().folded + 1).min(inline), state.applied())
    };
    match meta.pins().oldest() {
        Some(oldest) if oldest < now => Ok(()),
        _ => meta.journal().release(before),
    }
}

impl fmt::Debug for Keeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keeper")
    }
}
