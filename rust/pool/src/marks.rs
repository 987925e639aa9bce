//! What this opening found out about drives, beside what their superblocks say.
//!
//! Kept apart from membership's table: that is held while superblocks are written, as long as a drive may take for
//! one, and who found a drive failed must not wait for it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dwk_base::{DriveId, Waiter};

use crate::roster::{Roster, RosterCell, Seat, State};

/// Drives found failed or damaged since the pool was opened.
pub(crate) type Known = BTreeMap<DriveId, State>;

/// What is known, and the roster that shows it.
#[derive(Debug, Default)]
pub(crate) struct Marks {
    known: Mutex<Known>,
    roster: Arc<RosterCell>,
    /// Who waits for a drive's superblock now.
    writes: Mutex<BTreeMap<DriveId, Arc<Waiter>>>,
}

impl Marks {
    pub(crate) const fn roster(&self) -> &Arc<RosterCell> {
        &self.roster
    }

    /// What is known now. Nothing changes, nor does the roster, until it is dropped.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// True if the drive was found failed in this opening.
    pub(crate) fn is_failed(&self, id: DriveId) -> bool {
        self.lock().get(&id) == Some(&State::Failed)
    }

    /// A drive failed: who waits for its superblock waits no longer.
    pub(crate) fn fail(&self, id: DriveId) {
        let mut known = self.lock();
        known.insert(id, State::Failed);
        self.show(id, State::Failed, |_| true);
        drop(known);
        if let Some(waiter) = self.writes().get(&id) {
            waiter.stop();
        }
    }

    /// A drive returned damaged bytes. False if it is marked already.
    pub(crate) fn suspect(&self, id: DriveId) -> bool {
        let mut known = self.lock();
        let is_news = !known.contains_key(&id);
        if is_news {
            known.insert(id, State::Suspect);
            self.show(id, State::Suspect, |state| state == State::Ok);
        }
        is_news
    }

    /// A drive is not suspected any more. False if it was not, or failed meanwhile.
    pub(crate) fn clear(&self, id: DriveId) -> bool {
        let mut known = self.lock();
        let was_suspect = known.get(&id) == Some(&State::Suspect);
        if was_suspect {
            known.remove(&id);
            self.show(id, State::Ok, |state| state == State::Suspect);
        }
        was_suspect
    }

    /// Shows a drive in another state, if what it is in allows for it.
    fn show(&self, id: DriveId, state: State, may: impl Fn(State) -> bool) {
        let now = self.roster.load();
        let seats = now.seats.iter().map(|seat| {
            let is_other = seat.id == id && may(seat.state);
            if is_other { Arc::new(Seat { state, ..Seat::clone(seat) }) } else { Arc::clone(seat) }
        });
        self.roster.store(Roster { epoch: now.epoch, seats: seats.collect() });
    }

    /// Who waits for a superblock of this drive, until [`written`](Self::written), and is stopped when the drive is
    /// found failed meanwhile.
    pub(crate) fn writing(&self, id: DriveId) -> Arc<Waiter> {
        let waiter = Arc::new(Waiter::default());
        self.writes().insert(id, Arc::clone(&waiter));
        // In this order: whoever marks it after this sees the waiter.
        if self.is_failed(id) {
            waiter.stop();
        }
        waiter
    }

    /// Nobody waits for this drive's superblock any more.
    pub(crate) fn written(&self, id: DriveId) {
        self.writes().remove(&id);
    }

    fn writes(&self) -> MutexGuard<'_, BTreeMap<DriveId, Arc<Waiter>>> {
        self.writes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
