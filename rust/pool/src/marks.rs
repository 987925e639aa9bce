//! What this opening found out about drives, beside what their superblocks say.
//!
//! Kept apart from membership's table: that is held while superblocks are written, as long as a drive may take for
//! one, and who found a drive failed must not wait for it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dwk_base::{DriveId, Error, Waiter, codes};

use crate::roster::{Roster, RosterCell, Seat, State};

/// What was found out about a drive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    /// It returned damaged bytes.
    Suspect,
    /// It is not trusted any more.
    Failed,
    /// It is not trusted any more, because nothing can be written there: what lies there can be read.
    ReadOnly,
}

impl Mark {
    pub(crate) const fn state(self) -> State {
        match self {
            Self::Suspect => State::Suspect,
            Self::Failed | Self::ReadOnly => State::Failed,
        }
    }
}

/// Drives found failed or damaged since the pool was opened.
pub(crate) type Known = BTreeMap<DriveId, Mark>;

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
        self.lock().get(&id).is_some_and(|mark| mark.state() == State::Failed)
    }

    /// A drive failed: who waits for its superblock waits no longer.
    pub(crate) fn fail(&self, id: DriveId, why: &Error) {
        let mut known = self.lock();
        let is_read_only =
            why.is(&codes::DRIVE_READ_ONLY) || known.get(&id) == Some(&Mark::ReadOnly);
        let mark = if is_read_only { Mark::ReadOnly } else { Mark::Failed };
        known.insert(id, mark);
        self.show(id, mark, |_| true);
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
            known.insert(id, Mark::Suspect);
            self.show(id, Mark::Suspect, |state| state == State::Ok);
        }
        is_news
    }

    /// A drive is not suspected any more. False if it was not, or failed meanwhile.
    pub(crate) fn clear(&self, id: DriveId) -> bool {
        let mut known = self.lock();
        let was_suspect = known.get(&id) == Some(&Mark::Suspect);
        if was_suspect {
            known.remove(&id);
            self.show(id, None, |state| state == State::Suspect);
        }
        was_suspect
    }

    /// Shows a drive as it is marked, if the state that it is in allows for it.
    fn show(&self, id: DriveId, mark: impl Into<Option<Mark>>, may: impl Fn(State) -> bool) {
        let (now, mark) = (self.roster.load(), mark.into());
        let state = mark.map_or(State::Ok, Mark::state);
        let seats = now.seats.iter().map(|seat| {
            if seat.id != id || !may(seat.state) {
                return Arc::clone(seat);
            }
            let is_last_resort = mark == Some(Mark::ReadOnly) && seat.drive.is_some();
            Arc::new(Seat { state, is_last_resort, ..Seat::clone(seat) })
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
