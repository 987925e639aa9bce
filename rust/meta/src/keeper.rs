//! The keeper: folds the journal into the pool and gives back what is dead.
//!
//! It works on a thread of its own that starts when there is first something to do: the journal is longer than
//! it may be, or enough is dead. All its work is idempotent: a crash in the middle leaves things as they were
//! or done.

use std::collections::BTreeSet;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use dwk_base::{Deadline, Error, Result, StripeId, codes};

use crate::meta::Meta;
use crate::owners::{KEYS_MAX, Owners};
use crate::record::{Operation, RecordWriter};
use crate::room::Room;
use crate::state::Key;
use crate::{checkpoint, pack};

/// Writers wait when the journal is this many times as long as it may be.
const HOLD_BACK: u64 = 4;
/// How long a writer waits for the keeper before it goes on all the same.
const HOLD_BACK_TIME: Duration = Duration::from_secs(10);
/// How many times the journal's length is looked at while it grows to its limit.
pub(crate) const LOOKS: u64 = 16;
/// What a commit takes of the journal beside its record when it is alone in its batch.
pub(crate) const COMMIT_BYTES: u64 = 4 << 10;
/// The journal may take this part of the smallest drive, however long it may be.
const DRIVE_SHARE: u64 = 64;
/// The keeper looks at the whole map to pack; it does so when this part of all content died meanwhile.
const GARBAGE_SHARE: u64 = 64;
/// A fold without room waits so often for whatever keeps from removing what cuts left: a few seconds.
const RECLAIM_LOOKS: u32 = 300;
/// Stripes dropped in one record and removed with one sync on each drive.
const DROP_MAX: usize = 256;
/// Packing moves the content of about so many full stripes before what it emptied is given back.
const PACK_STRIPES: u64 = 4;

/// What a collection gave back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CollectReport {
    /// Stripes that nobody referred to.
    pub dropped_stripes: u64,
    /// Bytes of content on them and on half-empty stripes that were emptied.
    pub freed_bytes: u64,
    /// Bytes that were moved into full stripes.
    pub packed_bytes: u64,
    /// Pieces of content that were to be moved and cannot be read: they stay where they are.
    pub unreadable_pieces: u64,
}

/// The keeper's thread and the lock that makes it alone.
#[derive(Default)]
pub(crate) struct Keeper {
    alone: Mutex<()>,
    thread: Mutex<Option<JoinHandle<()>>>,
    pub(crate) room: Room,
    journal_bytes_max: OnceLock<u64>,
    /// Bytes of records since somebody last looked how long the journal is.
    unlooked_bytes: AtomicU64,
    /// What the last fold could not take out of the journal: folding again is of use when it has grown.
    left_journal_bytes: AtomicU64,
    /// What the last collection could not give back.
    left_garbage_bytes: AtomicU64,
    /// Stripes with content that cannot be read: they are not packed again before somebody asks for it.
    lost: Mutex<BTreeSet<StripeId>>,
    /// Who owns what lies in sparse stripes, for the next steps of a collection.
    owners: Mutex<Owners>,
    /// Rows that were looked at to find what lies in stripes.
    pub(crate) looked_rows: AtomicU64,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    stopping: AtomicBool,
    wanted: Mutex<Wanted>,
    wake: Condvar,
    done: Condvar,
    failed: Mutex<Option<Error>>,
}

/// What the thread is to do.
#[derive(Clone, Copy, Default)]
struct Wanted {
    /// Fold and collect.
    work: bool,
    /// Keep what is known of damage.
    notes: bool,
}

impl Keeper {
    /// Held by whoever moves stripes or content.
    pub(crate) fn alone(&self) -> MutexGuard<'_, ()> {
        self.alone.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long the journal may get on these drives.
    pub(crate) fn journal_bytes_max(&self, meta: &Meta) -> u64 {
        *self.journal_bytes_max.get_or_init(|| {
            let roster = meta.pool().roster();
            let sizes = roster.seats.iter().map(|seat| seat.capacity_bytes / DRIVE_SHARE);
            let least = sizes.filter(|bytes| *bytes > 0).min().unwrap_or(u64::MAX);
            meta.options().journal_bytes_max.min(least)
        })
    }

    /// What the journal takes of a drive when the keeper is far behind.
    pub(crate) fn journal_bytes_worst(&self, meta: &Meta) -> u64 {
        let segment = u64::from(meta.journal().options().segment_bytes);
        let limit = self.journal_bytes_max(meta);
        let left = self.left_journal_bytes.load(Ordering::Relaxed);
        // Writers are held back beyond this, which is looked at now and then; it takes whole segments.
        (limit * HOLD_BACK + limit / LOOKS + left).next_multiple_of(segment) + 2 * segment
    }

    /// Wakes the keeper when there is work for it; waits for it when the journal is far too long.
    ///
    /// # Errors
    /// `context.deadline`
    pub(crate) fn hold_back(
        &self,
        meta: &Meta,
        record_bytes: u64,
        deadline: &Deadline,
    ) -> Result<()> {
        if self.is_wasteful(meta) {
            drop(self.wake(meta)?);
        }
        let limit = self.journal_bytes_max(meta);
        let bytes = record_bytes + COMMIT_BYTES;
        let since = self.unlooked_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if since < limit / LOOKS {
            return Ok(());
        }
        self.unlooked_bytes.store(0, Ordering::Relaxed);
        if self.is_long(meta, 1) {
            let wanted = self.wake(meta)?;
            if self.is_long(meta, HOLD_BACK) {
                let patience = HOLD_BACK_TIME.min(deadline.remaining());
                drop(self.shared.done.wait_timeout(wanted, patience));
                return deadline.check();
            }
        }
        Ok(())
    }

    /// Wakes the keeper if the store was left with work for it.
    pub(crate) fn look(&self, meta: &Meta) -> Result<()> {
        if self.is_long(meta, 1) || self.is_wasteful(meta) {
            drop(self.wake(meta)?);
        }
        Ok(())
    }

    /// True if the journal grew to `times` what it may be.
    pub(crate) fn is_long(&self, meta: &Meta, times: u64) -> bool {
        let left = self.left_journal_bytes.load(Ordering::Relaxed);
        meta.journal().bytes_since(0) > self.journal_bytes_max(meta) * times + left
    }

    /// True if so much died that it is worth looking at everything.
    fn is_wasteful(&self, meta: &Meta) -> bool {
        let (garbage, all) = {
            let state = meta.state();
            (state.garbage_bytes(), state.stripe_bytes())
        };
        let worth = meta.options().garbage_bytes_max.max(all / GARBAGE_SHARE);
        garbage > self.left_garbage_bytes.load(Ordering::Relaxed) + worth
    }

    fn wake(&self, meta: &Meta) -> Result<MutexGuard<'_, Wanted>> {
        self.start(meta)?;
        let mut wanted = lock(&self.shared.wanted);
        if !wanted.work {
            wanted.work = true;
            self.shared.wake.notify_one();
        }
        Ok(wanted)
    }

    /// Has the keeper keep what is known of damage. Without a thread the next fold or the end does.
    pub(crate) fn wake_for_notes(&self, meta: &Meta) {
        if self.start(meta).is_ok() {
            lock(&self.shared.wanted).notes = true;
            self.shared.wake.notify_one();
        }
    }

    fn start(&self, meta: &Meta) -> Result<()> {
        let mut thread = lock(&self.thread);
        if thread.is_some() || self.shared.stopping.load(Ordering::SeqCst) {
            return Ok(());
        }
        let (me, shared) = (meta.downgrade(), Arc::clone(&self.shared));
        let run = move || {
            while let Some(wanted) = shared.wait() {
                let Some(meta) = me.upgrade() else { return };
                if wanted.notes {
                    // What cannot be kept now is with the next fold, or at the end.
                    let _ = guarded(|| meta.note_damage());
                }
                if !wanted.work {
                    continue;
                }
                let failed = guarded(|| meta.keep()).err();
                *lock(&shared.failed) = failed;
                shared.done.notify_all();
            }
        };
        let spawned = thread::Builder::new().name("dwk-keeper".to_owned()).spawn(run);
        *thread = Some(spawned.map_err(|error| {
            Error::new(&codes::INTERNAL_BUG, "no thread can be started").caused_by(error)
        })?);
        Ok(())
    }

    /// Stops the thread, folds the journal if it is too long, and checkpoints what changed, as far as there is room.
    pub(crate) fn stop(&self, meta: &Meta) -> Result<()> {
        self.halt();
        if meta.pool().check_writable().is_err() {
            return Ok(());
        }
        // It is a hint: without it the store closes as well.
        let _ = meta.note_damage();
        match self.settle_at_end(meta) {
            // The journal keeps what there is no room to fold, and who closes cannot make any.
            Err(error) if error.is(&codes::POOL_FULL) => Ok(()),
            settled => settled,
        }
    }

    fn settle_at_end(&self, meta: &Meta) -> Result<()> {
        let _alone = self.alone();
        let is_long = meta.journal().bytes_since(0) > self.journal_bytes_max(meta);
        if !is_long && !meta.state().has_news() {
            return collect_dead(meta).map(drop);
        }
        // What cannot be read stays, and was told of while the store was open.
        settle(meta, if is_long { u64::MAX } else { 0 }).map(drop)
    }

    /// Stops the thread and leaves everything else as it is.
    pub(crate) fn halt(&self) {
        self.shared.stop();
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
    /// No more work.
    fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        // Who has looked and does not sleep yet would not hear it.
        drop(lock(&self.wanted));
        self.wake.notify_all();
    }

    /// Waits for work; `None` when there will be none.
    fn wait(&self) -> Option<Wanted> {
        let mut wanted = lock(&self.wanted);
        while !wanted.work && !wanted.notes && !self.stopping.load(Ordering::SeqCst) {
            wanted = self.wake.wait(wanted).unwrap_or_else(PoisonError::into_inner);
        }
        let wanted = std::mem::take(&mut *wanted);
        (!self.stopping.load(Ordering::SeqCst)).then_some(wanted)
    }
}

/// A bug in the keeper is told of like any other failure: nothing else would be folded any more.
fn guarded(work: impl FnOnce() -> Result<()>) -> Result<()> {
    catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|_| Err(Error::new(&codes::INTERNAL_BUG, "the keeper panicked")))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Meta {
    /// Packs what lies in the journal, writes a checkpoint, and lets the journal's segments be used again.
    ///
    /// # Errors
    /// Those of writing stripes and of commits; what was acknowledged stays where it is. `data.corrupt`,
    /// `journal.damaged`: some content cannot be read and stays where it is; everything else was done.
    pub fn checkpoint(&self) -> Result<()> {
        let was_reclaimed = self.is_reclaimed();
        let folded = self.fold_alone();
        // What cuts before this opening left on the drives may have had the room that it needs.
        let is_full = folded.as_ref().is_err_and(|error| error.is(&codes::POOL_FULL));
        if is_full && !was_reclaimed && self.reclaim(RECLAIM_LOOKS) {
            return self.fold_alone();
        }
        folded
    }

    fn fold_alone(&self) -> Result<()> {
        let _alone = self.keeper.alone();
        fold(self)
    }

    /// Gives back the room of stripes that nobody refers to and packs those that are half empty.
    ///
    /// # Errors
    /// As [`checkpoint`](Self::checkpoint).
    pub fn collect(&self) -> Result<CollectReport> {
        self.collect_while(|_, _| true).map(|(report, _)| report)
    }

    /// [`collect`](Self::collect), asking after each step, which fills a few stripes, whether to go on; `go_on`
    /// gets what was done so far and the dead bytes that are left. True if all was done.
    ///
    /// # Errors
    /// As [`checkpoint`](Self::checkpoint).
    pub fn collect_while(
        &self,
        mut go_on: impl FnMut(&CollectReport, u64) -> bool,
    ) -> Result<(CollectReport, bool)> {
        lock(&self.keeper.lost).clear();
        let mut report = CollectReport::default();
        while self.pack_step(self.options().live_fraction_min, &mut report)? {
            let left = self.state().garbage_bytes();
            if !go_on(&report, left) {
                lock(&self.keeper.owners).clear();
                return Ok((report, false));
            }
        }
        Ok((report, true))
    }

    /// What the keeper does each time that it wakes.
    fn keep(&self) -> Result<()> {
        let folded = if self.keeper.is_long(self, 1) { self.checkpoint() } else { Ok(()) };
        let stopping = &self.keeper.shared.stopping;
        let share = self.options().live_fraction_min;
        while !stopping.load(Ordering::SeqCst) && self.pack_some(share)? {}
        folded?;
        let lost = lock(&self.keeper.lost).len();
        if lost > 0 {
            let text = format!("{lost} half-empty stripes hold content that cannot be read");
            return Err(Error::new(&codes::DATA_CORRUPT, text));
        }
        Ok(())
    }

    /// One step of a collection of stripes of which less than `share` lives; true if there is more to do.
    pub(crate) fn pack_some(&self, share: f64) -> Result<bool> {
        self.pack_step(share, &mut CollectReport::default())
    }

    /// Packs as much as fills a few stripes. In between others may move stripes, too.
    pub(crate) fn pack_step(&self, share: f64, report: &mut CollectReport) -> Result<bool> {
        let _alone = self.keeper.alone();
        report.add(collect_dead(self)?);
        let sparse = self.sparse(share);
        let packed = if sparse.stripes.is_empty() { Ok(false) } else { self.pack(&sparse, report) };
        report.add(collect_dead(self)?);
        let garbage = self.state().garbage_bytes();
        self.keeper.left_garbage_bytes.store(garbage, Ordering::Relaxed);
        let more = matches!(packed, Ok(true)) && sparse.first < sparse.stripes.len();
        if !more {
            lock(&self.keeper.owners).clear();
        }
        packed.map(|_| more)
    }

    /// Packs the first ones of sparse stripes; true if that got anywhere.
    fn pack(&self, sparse: &Sparse, report: &mut CollectReport) -> Result<bool> {
        let chosen: BTreeSet<_> = sparse.stripes[..sparse.first].iter().copied().collect();
        let packed = match self.owners(sparse, &chosen) {
            Some(keys) => pack::stripes_of(self, &chosen, keys),
            None => pack::stripes(self, &chosen),
        }?;
        report.packed_bytes += packed.moved_bytes;
        report.unreadable_pieces += packed.lost_pieces;
        let found = packed.lost_in.len();
        lock(&self.keeper.lost).extend(packed.lost_in);
        Ok(packed.moved_bytes > 0 || found > 0)
    }

    /// Who owns what lies in the stripes that were chosen, if that does not take too much memory.
    fn owners(&self, sparse: &Sparse, chosen: &BTreeSet<StripeId>) -> Option<BTreeSet<Key>> {
        let mut owners = lock(&self.keeper.owners);
        owners.take(chosen).or_else(|| {
            // One pass finds them for steps to come as well. Where there are none, or one step alone has too many,
            // packing goes over the map itself.
            let (rows, bytes) = {
                let state = self.state();
                (state.row_count() as u64, state.live_bytes().max(1))
            };
            let keys = u128::from(sparse.first_bytes) * u128::from(rows) / u128::from(bytes);
            if sparse.first == sparse.stripes.len() || keys > KEYS_MAX as u128 {
                return None;
            }
            owners.find(self, &sparse.stripes, KEYS_MAX);
            owners.take(chosen)
        })
    }

    /// The stripes of which less than `share` lives, the emptiest first. Those of runs live as a whole.
    fn sparse(&self, share: f64) -> Sparse {
        let bytes_max = self.pool().space().payload_bytes_max() as u64 * PACK_STRIPES;
        let lost = lock(&self.keeper.lost).clone();
        let state = self.state();
        let runs: BTreeSet<StripeId> =
            state.root().runs.iter().flat_map(|run| &run.stripes).map(|stripe| stripe.id).collect();
        let sparse = state.stripes_after(None).filter(|kept| {
            kept.live_bytes > 0
                && (kept.live_bytes as f64) < share * f64::from(kept.stripe.payload_bytes)
                && !runs.contains(&kept.stripe.id)
                && !lost.contains(&kept.stripe.id)
        });
        let mut sparse: Vec<_> = sparse.map(|kept| (kept.live_bytes, kept.stripe.id)).collect();
        drop(state);
        sparse.sort_unstable();
        let mut bytes = 0;
        let chosen = sparse.iter().take_while(|(live_bytes, _)| {
            let room = bytes < bytes_max;
            bytes += live_bytes;
            room
        });
        let first = chosen.count();
        let first_bytes = sparse[..first].iter().map(|(live_bytes, _)| live_bytes).sum();
        let stripes = sparse.into_iter().map(|(_, id)| id).collect();
        Sparse { stripes, first, first_bytes }
    }

    /// Why the keeper's last work failed, if it did.
    pub fn keeper_failure(&self) -> Option<Error> {
        self.keeper.failure()
    }
}

/// Stripes that are worth packing.
struct Sparse {
    /// The emptiest first.
    stripes: Vec<StripeId>,
    /// So many of them fill a few stripes.
    first: usize,
    /// What lives in those.
    first_bytes: u64,
}

impl CollectReport {
    const fn add(&mut self, other: Self) {
        self.dropped_stripes += other.dropped_stripes;
        self.freed_bytes += other.freed_bytes;
        self.packed_bytes += other.packed_bytes;
        self.unreadable_pieces += other.unreadable_pieces;
    }
}

/// Packs what lies in the journal and checkpoints. The caller holds the keeper's lock.
pub(crate) fn fold(meta: &Meta) -> Result<()> {
    let before = meta.state().applied() + 1;
    let packed = settle(meta, before)?;
    let since = meta.journal().bytes_since(before);
    let left = meta.journal().bytes_since(0).saturating_sub(since);
    meta.keeper.left_journal_bytes.store(left, Ordering::Relaxed);
    packed.whole()
}

/// Packs what lies in records before `before`, and checkpoints. If packing fails the rest is done all the
/// same: it may be what makes the room that packing lacked.
fn settle(meta: &Meta, before: u64) -> Result<pack::Packed> {
    let packed = pack::journal_content(meta, before);
    collect_dead(meta)?;
    checkpoint::write(meta)?;
    release(meta)?;
    packed
}

/// Drops stripes that are dead since before the oldest reader: first in the journal, then on the drives.
/// The caller holds the keeper's lock.
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
            let garbage = meta.state().garbage_bytes();
            meta.keeper.left_garbage_bytes.fetch_min(garbage, Ordering::Relaxed);
            return Ok(report);
        }
        let mut record = RecordWriter::new();
        for stripe in &stripes {
            record.push(&Operation::DropStripe(stripe.id));
        }
        meta.commit_record(record)?;
        meta.pool().space().remove(&stripes);
        report.dropped_stripes += stripes.len() as u64;
        report.freed_bytes += stripes.iter().map(|s| u64::from(s.payload_bytes)).sum::<u64>();
    }
}

/// Lets the journal forget what is folded and packed, durably. Readers have copied what they need of it, or
/// hold it for the moment that this takes.
fn release(meta: &Meta) -> Result<()> {
    let before = {
        let state = meta.state();
        let inline = state.inline_after(None).next().map_or(u64::MAX, |(sequence, _)| *sequence);
        let copying = meta.pins().oldest_record().unwrap_or(u64::MAX);
        (state.root().folded + 1).min(inline).min(copying)
    };
    if meta.journal().release(before)? {
        // The next batch makes it durable. It may be the last one of this opening: so it is written now.
        meta.commit_record(RecordWriter::new())?;
    }
    Ok(())
}

impl fmt::Debug for Keeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keeper")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_keeper_that_goes_to_sleep_just_now_hears_that_it_is_to_end() {
        let shared = Arc::new(Shared::default());
        let held = lock(&shared.wanted); // it looked, saw nothing to do, and is about to sleep
        let there = Arc::clone(&shared);
        let stopper = thread::spawn(move || there.stop());
        while !shared.stopping.load(Ordering::SeqCst) {
            thread::yield_now();
        }
        thread::sleep(Duration::from_millis(50));
        let (_held, slept) = shared.wake.wait_timeout(held, Duration::from_secs(10)).unwrap();
        assert!(!slept.timed_out(), "it sleeps for ever, and who closes the store waits for it");
        stopper.join().unwrap();
    }

    #[test]
    fn a_panic_in_the_keeper_is_a_failure_that_is_shown() {
        assert!(guarded(|| Ok(())).is_ok());
        let error = guarded(|| panic!("a bug")).unwrap_err();
        assert!(error.is(&codes::INTERNAL_BUG), "{error}");
    }
}
