//! Room: what adds is taken only while folding, packing and deleting could still go on afterwards.
//!
//! A fold writes what lies in the journal into stripes and may write all runs anew, before it gives anything
//! back, and until then the journal grows. New content is refused before the room for that, and the pool's
//! reserve, are taken. Before it is refused, what is dead is given back, once.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dwk_base::{Deadline, Result, codes};

use crate::keeper::{self, COMMIT_BYTES, CollectReport, LOOKS};
use crate::meta::Meta;

/// On a pool that is full, stripes are packed of which less than this lives.
const LIVE_FRACTION_FULL: f64 = 0.9;
/// Room for so many folds is kept: one after a drive was lost may take stripes that are half as wide.
const FOLDS: u64 = 2;
/// Between two looks whether something else still goes over all stripes.
const MOMENT: Duration = Duration::from_millis(10);

/// What is known about the room that is left.
#[derive(Debug, Default)]
pub(crate) struct Room {
    /// There was enough when it was looked at last.
    known: AtomicBool,
    /// Bytes of records that were admitted since then.
    unseen_bytes: AtomicU64,
    /// The record up to which everything was tried in vain that gives room back, and one more; 0 for none.
    relieved: AtomicU64,
    /// What cuts before this opening left on the drives was removed.
    reclaimed: Mutex<bool>,
}

impl Room {
    /// Locked while somebody is at it.
    fn reclaimed(&self) -> MutexGuard<'_, bool> {
        self.reclaimed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets a record of `bytes` pass, or not.
    ///
    /// # Errors
    /// `pool.full`, `context.deadline`
    pub(crate) fn admit_record(&self, meta: &Meta, bytes: u64, deadline: &Deadline) -> Result<()> {
        let step = meta.keeper.journal_bytes_max(meta) / LOOKS;
        let bytes = bytes + COMMIT_BYTES;
        let unseen = self.unseen_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if self.known.load(Ordering::Relaxed) && unseen < step {
            return Ok(());
        }
        let room = meta.make_room(step.max(bytes), deadline);
        self.known.store(room.is_ok(), Ordering::Relaxed);
        self.unseen_bytes.store(0, Ordering::Relaxed);
        room
    }
}

impl Meta {
    /// Fails unless `bytes` more have room; what is dead is given back first if that could help.
    ///
    /// # Errors
    /// `pool.full`, `context.deadline`
    pub(crate) fn make_room(&self, bytes: u64, deadline: &Deadline) -> Result<()> {
        for relieved in [false, true] {
            match self.check_room(bytes) {
                Err(error) if error.is(&codes::POOL_FULL) => {
                    if relieved {
                        return Err(error);
                    }
                    self.relieve(bytes, deadline);
                    deadline.check()?;
                }
                // Whether the drives that are left may hold it, is for the stripe to say.
                _ => break,
            }
        }
        Ok(())
    }

    fn check_room(&self, bytes: u64) -> Result<()> {
        let fold = self.unfolded_bytes() + self.state().run_bytes();
        let bytes = bytes + FOLDS * fold;
        let space = self.pool().space();
        let journal = self.keeper.journal_bytes_worst(self);
        if space.check_room(bytes, journal).is_ok() {
            return Ok(());
        }
        // Drives that say their room now count what the journal has taken by now. It may give some back meanwhile.
        let taken = || self.journal().status().preallocated_bytes;
        let before = taken();
        let counted = if space.ask_room() { before.min(taken()) } else { 0 };
        space.check_room(bytes, journal.saturating_sub(counted))
    }

    /// True once what cuts left on the drives was removed: nothing of that kind is added while the store is open.
    pub(crate) fn is_reclaimed(&self) -> bool {
        *self.keeper.room.reclaimed()
    }

    /// Removes what cuts left on the drives, if nobody did. While something else goes over all stripes it looks
    /// `looks` times more, a moment apart. True if it is done.
    pub(crate) fn reclaim(&self, mut looks: u32) -> bool {
        loop {
            let mut reclaimed = self.keeper.room.reclaimed();
            if *reclaimed {
                return true;
            }
            match self.pool().space().reclaim(self) {
                Ok(()) => {
                    *reclaimed = true;
                    return true;
                }
                Err(error) if error.is(&codes::POOL_REPAIRING) && looks > 0 => looks -= 1,
                Err(_) => return false,
            }
            drop(reclaimed);
            self.pool().seams().clock.sleep(MOMENT);
        }
    }

    /// What the journal holds that no fold has taken yet. A segment in use also holds what was folded from it:
    /// folding again would give none of that back.
    fn unfolded_bytes(&self) -> u64 {
        let first = {
            let state = self.state();
            let inline =
                state.inline_after(None).next().map_or(u64::MAX, |(sequence, _)| *sequence);
            inline.min(state.root().folded + 1)
        };
        self.journal().bytes_since(first)
    }

    /// Gives back what can be given back for `bytes` more, until the deadline, which is looked at between
    /// steps. What fails is left as it is: whoever wants room looks again.
    pub(crate) fn relieve(&self, bytes: u64, deadline: &Deadline) {
        self.reclaim(0);
        let alone = self.keeper.alone();
        let _ = keeper::collect_dead(self);
        // The rest is dear, and of no use if it was tried in vain and nothing happened since.
        let relieved = &self.keeper.room.relieved;
        let in_vain = relieved.load(Ordering::Relaxed) == self.state().applied() + 1;
        if in_vain || deadline.has_passed() {
            return;
        }
        let _ = keeper::fold(self);
        drop(alone);
        let share = self.options().live_fraction_min;
        while !deadline.has_passed() && self.pack_some(share).is_ok_and(|more| more) {}
        self.tighten(bytes, deadline);
        if !deadline.has_passed() && self.check_room(bytes).is_err() {
            relieved.store(self.state().applied() + 1, Ordering::Relaxed);
        }
    }

    /// Packs what would not be worth it on a pool that is not full, until there is room for `bytes` more.
    fn tighten(&self, bytes: u64, deadline: &Deadline) {
        let mut report = CollectReport::default();
        while self.check_room(bytes).is_err() && !deadline.has_passed() {
            let before = report.packed_bytes;
            let more = self.pack_step(LIVE_FRACTION_FULL, &mut report).is_ok_and(|more| more);
            // Packing fills the journal, which a fold empties again.
            let is_due = report.packed_bytes > before && (!more || self.keeper.is_long(self, 1));
            if (is_due && self.checkpoint().is_err()) || !more {
                return;
            }
        }
    }
}
