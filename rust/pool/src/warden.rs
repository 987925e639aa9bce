//! The warden: hears of drives that misbehave, takes them out of service, and sees to it that the
//! journal keeps as many members as the geometry's tolerance asks for.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::thread;

use dwk_base::{DriveId, Epoch, Error, Result, codes};
use dwk_drive::MemberState;
use dwk_journal::{Journal, Member};

use crate::membership::{Membership, leave_journal, mark};
use crate::roster::{Roster, Seat, State, Watch};

/// Watches over drives and the journal's members.
pub(crate) struct Warden {
    membership: Arc<Membership>,
    journal: OnceLock<Weak<Journal>>,
    tolerance: usize,
    mending: AtomicBool,
    closing: AtomicBool,
    one_mender: Mutex<()>,
}

impl Warden {
    pub(crate) fn new(membership: Arc<Membership>, tolerance: usize) -> Arc<Self> {
        Arc::new(Self {
            membership,
            journal: OnceLock::new(),
            tolerance,
            mending: AtomicBool::new(false),
            closing: AtomicBool::new(false),
            one_mender: Mutex::new(()),
        })
    }

    pub(crate) fn set_journal(&self, journal: &Arc<Journal>) {
        let _ = self.journal.set(Arc::downgrade(journal));
    }

    /// No mending from now on; waits for the one that is under way.
    pub(crate) fn close(&self) {
        self.closing.store(true, Ordering::SeqCst);
        drop(self.one_mender.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Makes failures durable and fills up the journal's members. Called when something changed.
    pub(crate) fn mend(&self) -> Result<()> {
        let _alone = self.one_mender.lock().unwrap_or_else(PoisonError::into_inner);
        if self.closing.load(Ordering::SeqCst) {
            return Ok(());
        }
        let Some(journal) = self.journal.get().and_then(Weak::upgrade) else { return Ok(()) };
        let is_left_over = self.record_failures(&journal)?;
        self.fill_up(&journal);
        if is_left_over {
            self.record_failures(&journal)?;
        }
        Ok(())
    }

    /// Makes failures durable. True if the journal's last member failed, which cannot leave before another one
    /// has come.
    fn record_failures(&self, journal: &Journal) -> Result<bool> {
        let mut is_left_over = false;
        for (id, in_journal) in self.unrecorded_failures() {
            let record = || self.evict(id);
            match if in_journal { journal.remove_member(id, &record) } else { record() } {
                Err(error) if error.is(&codes::JOURNAL_MEMBERS) => is_left_over = true,
                // The journal evicted it meanwhile, and made that durable itself.
                Err(error) if in_journal && error.is(&codes::DRIVE_UNKNOWN) => {}
                done => done?,
            }
        }
        Ok(is_left_over)
    }

    /// Has drives join the journal until it has as many members as it should.
    fn fill_up(&self, journal: &Journal) {
        let mut tried = BTreeSet::new();
        while let Some(seat) = self.next_member(&tried) {
            tried.insert(seat.id);
            let Some(drive) = seat.drive.clone() else { continue };
            let joined = || {
                self.membership.change(|superblock| {
                    superblock.journal.push(seat.id);
                    Ok(())
                })
            };
            // One that is full or sick is no reason to fail: the next one may do, and if none does
            // status says so.
            let _ = journal.add_member(Member { id: seat.id, drive }, &joined);
        }
    }

    /// Makes it durable that a drive failed and holds no journal.
    fn evict(&self, id: DriveId) -> Result<()> {
        self.membership.change(|superblock| {
            leave_journal(superblock, id)?;
            mark(superblock, id, MemberState::Failed);
            Ok(())
        })
    }

    /// Drives that were found failed in this opening and whose row does not say so yet, or which hold the
    /// journal all the same; and whether they do.
    fn unrecorded_failures(&self) -> Vec<(DriveId, bool)> {
        let table = self.membership.lock();
        let rows = table.superblock.members.iter();
        let failed = rows.filter(|row| table.marks.is_failed(row.id));
        let failed =
            failed.map(|row| (row.state, row.id, table.superblock.journal.contains(&row.id)));
        let unrecorded = failed.filter(|(state, _, in_journal)| match state {
            MemberState::Failed | MemberState::Removed => *in_journal,
            MemberState::Ok | MemberState::Stale | MemberState::Draining => true,
        });
        unrecorded.map(|(_, id, in_journal)| (id, in_journal)).collect()
    }

    /// A drive to join the journal, if it has fewer members than it should and there is one that was not
    /// tried. A drive that failed or is being emptied is on its way out and counts no more.
    fn next_member(&self, tried: &BTreeSet<DriveId>) -> Option<Arc<Seat>> {
        let table = self.membership.lock();
        let members = table.superblock.journal.clone();
        let roster = table.roster();
        drop(table);
        let wanted = members_wanted(self.tolerance, roster.seats.len());
        let is_going = |seat: &Seat| matches!(seat.state, State::Draining | State::Failed);
        let stays = |seat: &Seat| seat.drive.is_some() && !is_going(seat);
        let live = |id: &&DriveId| roster.seats.iter().any(|seat| seat.id == **id && stays(seat));
        if members.iter().filter(live).count() >= wanted {
            return None;
        }
        candidates(&roster, &members).into_iter().find(|seat| !tried.contains(&seat.id))
    }

    fn mend_soon(self: &Arc<Self>) {
        if self.mending.swap(true, Ordering::SeqCst) {
            return;
        }
        let me = Arc::clone(self);
        let mend = move || {
            me.mending.store(false, Ordering::SeqCst);
            // What cannot be mended now is tried again at the next failure and the next opening.
            let _ = me.mend();
        };
        if thread::Builder::new().name("dwk-warden".to_owned()).spawn(mend).is_err() {
            self.mending.store(false, Ordering::SeqCst);
        }
    }
}

/// How many members the journal should have: one more than the drives that may be lost, and never
/// fewer than two where there are two.
pub(crate) fn members_wanted(tolerance: usize, drives: usize) -> usize {
    (tolerance + 1).max(2).min(drives)
}

/// Drives that could join the journal, the best first: those with a log of their own, in a failure
/// domain of their own, whose shards are up to date. One that was away and lacks shards is as good as any: it gets
/// the journal whole.
pub(crate) fn candidates(roster: &Roster, members: &[DriveId]) -> Vec<Arc<Seat>> {
    let taken: Vec<&str> = roster
        .seats
        .iter()
        .filter(|seat| members.contains(&seat.id))
        .map(|seat| seat.failure_domain.as_str())
        .collect();
    let is_stale = |seat: &Seat| seat.drive.is_some() && seat.state == State::Stale;
    let able = roster.seats.iter().filter(|seat| seat.writable().is_some() || is_stale(seat));
    let free = able.filter(|seat| !members.contains(&seat.id));
    let mut seats: Vec<_> = free.cloned().collect();
    seats.sort_by_key(|seat| {
        let has_log = seat.drive.as_ref().is_some_and(|drive| drive.drive().log().is_some());
        (!has_log, taken.contains(&seat.failure_domain.as_str()), is_stale(seat), seat.index)
    });
    seats
}

/// The warden as the space below sees it: told of a failure, it mends on a thread of its own.
pub(crate) struct Watching(pub(crate) Arc<Warden>);

impl Watch for Watching {
    fn failed(&self, index: u16, error: &Error) {
        if error.is_of_process() {
            return;
        }
        let roster = self.0.membership.roster().load();
        if let Some(seat) = roster.seat(index).filter(|seat| seat.state != State::Failed) {
            self.0.membership.fail(seat.id, error);
            self.0.mend_soon();
        }
    }

    fn corrupted(&self, index: u16, _what: &str) {
        let roster = self.0.membership.roster().load();
        if let Some(seat) = roster.seat(index).filter(|seat| seat.state == State::Ok) {
            self.0.membership.suspect(seat.id);
        }
    }
}

/// The warden as the journal sees it.
pub(crate) struct Evicting(pub(crate) Arc<Warden>);

impl dwk_journal::Membership for Evicting {
    fn evict(&self, drive: DriveId, why: &Error) -> Result<Epoch> {
        let membership = &self.0.membership;
        membership.fail(drive, why);
        self.0.evict(drive)?;
        self.0.mend_soon();
        Ok(membership.epoch())
    }
}

impl fmt::Debug for Warden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Warden").field("tolerance", &self.tolerance).finish_non_exhaustive()
    }
}
