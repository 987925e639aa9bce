//! A pool, open: its drives, its space, its journal.

use std::collections::BTreeMap;
use std::fmt;
use std::mem;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Duration;

use dwk_base::{Deadline, DriveId, Epoch, Error, PoolId, Result, Seams, codes};
use dwk_drive::{Drive, Lease, MemberState, Ticket};
use dwk_erasure::Geometry;
use dwk_journal::Journal;

use crate::membership::{Membership, leave_journal, mark};
use crate::replace::REPLACED;
use crate::roster::{Roster, Seat};
use crate::space::{Control, RebuildReport, ScrubReport, Stage};
use crate::space::{Space, SpaceOptions};
use crate::warden::Warden;
use crate::{Ledger, State};

/// Sizes and limits of a pool.
#[derive(Clone, Debug)]
pub struct PoolOptions {
    /// Of stripes and their buffers.
    pub space: SpaceOptions,
    /// Of the journal.
    pub journal: dwk_journal::Options,
    /// How long a drive may take to write a superblock.
    pub drive_timeout: Duration,
}

impl Default for PoolOptions {
    fn default() -> Self {
        Self {
            space: SpaceOptions::default(),
            journal: dwk_journal::Options::default(),
            drive_timeout: Duration::from_secs(30),
        }
    }
}

/// How long closing waits for drives to let go.
pub(crate) const CLOSE_TIME: Duration = Duration::from_secs(1);

/// A drive on its way into a pool.
pub struct NewDrive {
    /// The drive, empty.
    pub drive: Arc<dyn Drive>,
    /// What people will call it: `"d1"`.
    pub name: String,
    /// What its owner calls it by; `failure_domain`, `domain` or `host` says which drives
    /// fail together.
    pub labels: BTreeMap<String, String>,
}

/// Drives made one space.
pub struct Pool {
    pub(crate) id: PoolId,
    pub(crate) geometry: Geometry,
    pub(crate) membership: Arc<Membership>,
    pub(crate) warden: Arc<Warden>,
    pub(crate) space: Space,
    pub(crate) journal: Arc<Journal>,
    pub(crate) leases: Mutex<BTreeMap<DriveId, Lease>>,
    pub(crate) warnings: Vec<String>,
    pub(crate) read_only: Option<String>,
    pub(crate) closed: AtomicBool,
    /// Taken by what restores shards: two of those would remove each other's.
    pub(crate) repairing: Mutex<()>,
    pub(crate) seams: Seams,
}

impl Pool {
    /// Its identity.
    pub const fn id(&self) -> PoolId {
        self.id
    }

    /// Its geometry.
    pub const fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// Membership's version.
    pub fn epoch(&self) -> Epoch {
        self.membership.epoch()
    }

    /// Where content goes.
    pub const fn space(&self) -> &Space {
        &self.space
    }

    /// Where commits go.
    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    /// Who is in it now.
    pub fn roster(&self) -> Arc<Roster> {
        self.membership.roster().load()
    }

    /// Has `listener` called each time the roster is another one: a drive failed, came or went. It is called under
    /// the pool's locks: it must not wait, nor ask the pool for anything. Only the first one counts.
    pub fn on_change(&self, listener: impl Fn() + Send + Sync + 'static) {
        self.membership.on_change(Box::new(listener));
    }

    /// What was noticed while opening.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// The seams that it was opened with.
    pub const fn seams(&self) -> &Seams {
        &self.seams
    }

    /// Fails if the pool cannot be written to.
    ///
    /// # Errors
    /// `store.closed`, `pool.read_only`
    pub fn check_writable(&self) -> Result<()> {
        self.check_open()?;
        match &self.read_only {
            None => Ok(()),
            Some(why) => Err(Error::new(&codes::POOL_READ_ONLY, why.clone())),
        }
    }

    /// Fails if the pool was closed.
    ///
    /// # Errors
    /// `store.closed`
    pub fn check_open(&self) -> Result<()> {
        if self.closed.load(Ordering::SeqCst) {
            return Err(Error::new(&codes::STORE_CLOSED, "the pool is closed"));
        }
        Ok(())
    }

    /// Verifies every shard of every stripe, the journal's copies and the superblocks, and repairs what
    /// it finds.
    ///
    /// # Errors
    /// `store.closed`, `pool.read_only`, `pool.repairing`, and those of writing repairs.
    pub fn scrub(&self, ledger: &dyn Ledger, control: &Control) -> Result<ScrubReport> {
        self.check_writable()?;
        let _alone = self.begin_repair()?;
        let journal = self.journal.scrub()?;
        // A change writes every superblock anew, damaged ones too.
        self.membership.change(|_| Ok(()))?;
        self.warden.mend()?;
        let pass = self.space.begin_pass(control.after());
        let mut report = self.space.scrub(ledger, control)?;
        report.journal_repairs = journal.repaired_batches;
        report.lost_batches = journal.lost_batches;
        report.unrepaired_batches = journal.unrepaired_batches;
        if self.space.end_pass(pass, &report) {
            self.clear_suspects(ledger)?;
        }
        ledger.keep_damage()?;
        Ok(report)
    }

    /// True if a drive is suspected, or more damage was met than is remembered: a scrub of everything that finds and
    /// leaves nothing wrong ends both.
    pub fn is_doubtful(&self) -> bool {
        let roster = self.roster();
        let is_suspected = roster.seats.iter().any(|seat| seat.state == State::Suspect);
        is_suspected || self.space.has_more_damage()
    }

    /// Restores what is missing: on `drive`, or everywhere. A drive whose place another one took, and on
    /// which nothing is left, is a member no more.
    ///
    /// # Errors
    /// `drive.unknown`, `store.closed`, `pool.read_only`, `pool.repairing`, and those of reading and writing
    /// stripes.
    pub fn rebuild(
        &self,
        ledger: &dyn Ledger,
        drive: Option<&str>,
        control: &Control,
    ) -> Result<RebuildReport> {
        self.check_writable()?;
        let _alone = self.begin_repair()?;
        self.rebuild_alone(ledger, drive, control)
    }

    /// A rebuild by who has begun the repair.
    pub(crate) fn rebuild_alone(
        &self,
        ledger: &dyn Ledger,
        drive: Option<&str>,
        control: &Control,
    ) -> Result<RebuildReport> {
        let seat =
            drive.map(|name| self.roster().named(name).map(|seat| seat.index)).transpose()?;
        self.warden.mend()?;
        let mut stage = Stage::first(self.stale() + 1).and_then(self.space.widenings(ledger)?);
        self.refresh_alone(ledger, control, &mut stage)?;
        let report = self.space.rebuild_stage(ledger, seat, control, stage)?;
        self.retire_empty(ledger)?;
        ledger.keep_damage()?;
        // One that went may have held a copy of the journal.
        self.warden.mend()?;
        Ok(report)
    }

    /// Brings drives that were away up to date, reading only what changed. One for which that was not
    /// possible stays stale. One that lacks nothing but shards of stripes that are lost for good does not: no
    /// drive that comes back would change that, and they are known as lost.
    ///
    /// # Errors
    /// As [`rebuild`](Self::rebuild).
    pub fn refresh(&self, ledger: &dyn Ledger, control: &Control) -> Result<()> {
        self.check_writable()?;
        let _alone = self.begin_repair()?;
        self.refresh_alone(ledger, control, &mut Stage::first(self.stale()))?;
        self.warden.mend()
    }

    /// [`refresh`](Self::refresh), and then what was written while too few drives were here is written anew as far
    /// as there are enough now, as one piece of work.
    ///
    /// # Errors
    /// As [`rebuild`](Self::rebuild). What could not be brought up to date is no reason to leave the rest.
    pub fn heal(&self, ledger: &dyn Ledger, control: &Control) -> Result<()> {
        self.check_writable()?;
        let _alone = self.begin_repair()?;
        let mut stage = Stage::first(self.stale()).and_then(self.space.widenings(ledger)?);
        let refreshed = self.refresh_alone(ledger, control, &mut stage);
        let refreshed = refreshed.and_then(|()| self.warden.mend());
        self.space.widen(ledger, control, &stage.last())?;
        refreshed
    }

    /// How many drives are to be brought up to date.
    fn stale(&self) -> u32 {
        let roster = self.roster();
        let stale = |seat: &&Arc<Seat>| seat.state == State::Stale && !is_replaced(seat);
        roster.seats.iter().filter(stale).count() as u32
    }

    fn refresh_alone(
        &self,
        ledger: &dyn Ledger,
        control: &Control,
        stage: &mut Stage,
    ) -> Result<()> {
        let roster = self.roster();
        for seat in roster.seats.iter().filter(|seat| seat.state == State::Stale) {
            // Whose place another one took is emptied as it is.
            let mut now = MemberState::Draining;
            if !is_replaced(seat) {
                let refreshed =
                    self.space.refresh_stage(ledger, seat.index, control, stage.clone())?;
                stage.next(&refreshed.report);
                if !refreshed.is_current {
                    continue;
                }
                if refreshed.report.lost_stripes > 0 {
                    // Who finds it up to date later must find what it lacks as well.
                    ledger.keep_damage()?;
                }
                now = MemberState::Ok;
            }
            self.membership.change(|superblock| {
                mark(superblock, seat.id, now);
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Keeps other repairs out until what it returns is dropped.
    ///
    /// # Errors
    /// `pool.repairing`
    pub(crate) fn begin_repair(&self) -> Result<MutexGuard<'_, ()>> {
        match self.repairing.try_lock() {
            Ok(alone) => Ok(alone),
            // A panic in another repair left nothing half-done that the next one does not see.
            Err(TryLockError::Poisoned(alone)) => Ok(alone.into_inner()),
            Err(TryLockError::WouldBlock) => {
                Err(Error::new(&codes::POOL_REPAIRING, "another repair is under way"))
            }
        }
    }

    /// All was looked at: drives are trusted again on which nothing is known to be wrong. Where reads met damage
    /// beside the scrub, it may have come after the scrub had passed.
    fn clear_suspects(&self, ledger: &dyn Ledger) -> Result<()> {
        // Notes of what moved or went are of no concern.
        self.space.noted(ledger)?;
        let roster = self.roster();
        for seat in roster.seats.iter().filter(|seat| seat.state == State::Suspect) {
            if self.space.is_noted(seat.index) {
                continue;
            }
            self.membership.clear(seat.id);
            if self.space.is_noted(seat.index) {
                self.membership.suspect(seat.id);
            }
        }
        Ok(())
    }

    /// Ends membership of drives that were replaced and hold nothing any more.
    pub(crate) fn retire_empty(&self, ledger: &dyn Ledger) -> Result<()> {
        let roster = self.roster();
        for seat in &roster.seats {
            let replaced = is_replaced(seat);
            // In this order: what is on its way is in the table before it counts as arrived.
            let is_awaited = self.space.is_awaited(seat.index);
            if !replaced || is_awaited || ledger.usage(seat.index)?.shards > 0 {
                continue;
            }
            let retire = || {
                self.membership.change(|superblock| {
                    mark(superblock, seat.id, MemberState::Removed);
                    leave_journal(superblock, seat.id)
                })
            };
            let left = match self.journal.remove_member(seat.id, &retire) {
                Err(error) if error.is(&codes::DRIVE_UNKNOWN) => retire(),
                left => left,
            };
            match left {
                // Nobody could take its place in the journal: it stays until somebody can.
                Err(error) if error.is(&codes::JOURNAL_MEMBERS) => continue,
                done => done?,
            }
            // Its threads and its files are of no use any more.
            self.membership.lock().present.remove(&seat.id);
            let lease = self.leases().remove(&seat.id);
            drop(lease);
        }
        Ok(())
    }

    pub(crate) fn leases(&self) -> MutexGuard<'_, BTreeMap<DriveId, Lease>> {
        self.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Closes the journal, marks the superblocks clean and gives the drives back. A second call does
    /// nothing.
    ///
    /// # Errors
    /// Those of writing superblocks; everything acknowledged is durable all the same.
    pub fn close(&self) -> Result<()> {
        if self.closed.swap(true, Ordering::SeqCst) {
            return Ok(());
        }
        self.warden.close();
        let done = if self.read_only.is_none() {
            self.journal.close().and_then(|()| {
                self.membership.change(|superblock| {
                    superblock.clean = true;
                    Ok(())
                })
            })
        } else {
            Ok(())
        };
        let leases = mem::take(&mut *self.leases());
        let ending = leases.into_values().map(Lease::end).collect();
        await_all(ending, &Deadline::after(Arc::clone(&self.seams.clock), CLOSE_TIME));
        done
    }
}

/// Waits for drives to let go; one that hangs is not waited for any longer than this.
pub(crate) fn await_all(drives: Vec<Ticket<()>>, deadline: &Deadline) {
    for drive in drives {
        let _ = drive.wait_for(deadline.remaining());
    }
}

fn is_replaced(seat: &Seat) -> bool {
    seat.labels.contains_key(REPLACED)
}

impl Drop for Pool {
    /// Whoever mends membership or writes commits on a thread of its own has done with the drives before others may
    /// have them. Nothing is marked as closed.
    fn drop(&mut self) {
        if self.closed.swap(true, Ordering::SeqCst) {
            return;
        }
        self.warden.close();
        if self.read_only.is_none() {
            let _ = self.journal.close();
        }
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("id", &self.id).finish_non_exhaustive()
    }
}
