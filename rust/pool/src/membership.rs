//! Who belongs to the pool, kept in the superblock of every drive.
//!
//! A change raises the epoch and takes two steps. It is proposed to every reachable drive, beside what is
//! in force there. Once the drives that have it are more than the geometry can lose, every rest that can be
//! opened holds one, and it is written to them as in force; it counts when so many have it so. Where so
//! many are not reachable (the last half of a mirror) a pool that is open goes on with those that are.
//! `docs/decisions/0004-two-steps.md` says why.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use dwk_base::{Clock, Deadline, DriveId, Epoch, Error, Pauses, Result, Seams, codes};
use dwk_drive::{
    Answer, Attached, Edition, MemberRow, MemberState, PARTS_OF_PATIENCE, SlotState, Superblock,
};

use crate::asking;
use crate::marks::{Known, Mark, Marks};
use crate::roster::{Roster, RosterCell, Seat, State};
use crate::verdict::follows;

/// A drive that is here, with what is needed to write its superblock.
#[derive(Debug)]
pub(crate) struct Present {
    pub(crate) drive: Arc<Attached>,
    pub(crate) slots: SlotState,
    /// The last epoch that was in force on it.
    pub(crate) took_part: Epoch,
    /// The last epoch that it has, in force or proposed.
    pub(crate) has: Epoch,
}

/// What an opening found about a drive, besides what its superblock says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Remark {
    /// What lies in its place is no part of this pool.
    pub(crate) is_foreign: bool,
    /// What was found.
    pub(crate) text: String,
    /// What to do so that it can be used again, if that is possible.
    pub(crate) cure: Option<&'static str>,
}

/// The superblock as all members share it, and the drives that are here.
#[derive(Debug)]
pub(crate) struct Table {
    /// `drive` is filled in for each drive as it is written.
    pub(crate) superblock: Superblock,
    pub(crate) present: BTreeMap<DriveId, Present>,
    /// What a roster cannot read from the superblock: drives found failed or damaged since.
    pub(crate) marks: Arc<Marks>,
    /// What else is known of drives, here or not.
    pub(crate) remarks: BTreeMap<DriveId, Remark>,
    /// The last epoch that was written anywhere, in force or not: it is never written again.
    pub(crate) tried: Epoch,
    /// What the next change follows. Empty while the pool is being made: until [`Membership::bear`]
    /// everything is only proposed.
    pub(crate) follows: Vec<Edition>,
}

/// Membership, open.
pub(crate) struct Membership {
    table: Mutex<Table>,
    /// The table's, for those who must not wait until superblocks are written.
    marks: Arc<Marks>,
    /// How many arbitrary drives the geometry can lose.
    tolerance: usize,
    drive_timeout: Duration,
    seams: Seams,
    /// Told that the roster is another one.
    listener: OnceLock<Listener>,
}

/// Called after something changed. It must not wait, nor ask the pool for anything.
pub(crate) type Listener = Box<dyn Fn() + Send + Sync>;

impl Membership {
    pub(crate) fn new(
        table: Table,
        tolerance: usize,
        drive_timeout: Duration,
        seams: Seams,
    ) -> Self {
        table.ask_rooms(&seams.clock);
        table.show();
        let marks = Arc::clone(&table.marks);
        let (table, listener) = (Mutex::new(table), OnceLock::new());
        Self { table, marks, tolerance, drive_timeout, seams, listener }
    }

    pub(crate) fn roster(&self) -> &Arc<RosterCell> {
        self.marks.roster()
    }

    /// Has `listener` called after each change from now on; the first one stays.
    pub(crate) fn on_change(&self, listener: Listener) {
        let _ = self.listener.set(listener);
    }

    /// Shows everybody the roster as the table has it now.
    fn show(&self, table: &Table) {
        table.show();
        self.tell();
    }

    fn tell(&self) {
        if let Some(listener) = self.listener.get() {
            listener();
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes membership: durable and in force on return.
    ///
    /// A drive that cannot be written is marked failed in a further change, which the rest gets; not so if it was
    /// the process that could not write it.
    ///
    /// # Errors
    /// `drives.too_many_lost` if too few drives took it, `journal.members` if none of those that are to hold the journal
    /// did, `process.exhausted` or `process.file_size` if that is why. If that was so when it was proposed, it never
    /// counts; else the pool goes on from it, here and in the next opening, as if it had not been
    /// acknowledged.
    pub(crate) fn change<T>(&self, edit: impl FnOnce(&mut Superblock) -> Result<T>) -> Result<T> {
        let mut table = self.lock();
        let mut next = table.superblock.clone();
        let result = edit(&mut next)?;
        let done = self.carry(&mut table, next);
        table.ask_rooms(&self.seams.clock);
        self.show(&table);
        done.map(|()| result)
    }

    /// Proposes a new pool, whose journal these drives will hold, to every drive. In both slots, so that
    /// nothing older is left.
    ///
    /// # Errors
    /// Those of the drives.
    pub(crate) fn announce(&self, journal: Vec<DriveId>) -> Result<()> {
        let mut table = self.lock();
        table.superblock.journal = journal;
        let first = table.superblock.clone();
        let drives = table.writable(&first);
        for _ in 0..2 {
            if let Some((_, error)) = self.write(&mut table, &first, &drives).pop_first() {
                return Err(error);
            }
        }
        Ok(())
    }

    /// Puts a new pool in force, once everything that it needs is there. In both slots: who finds a first
    /// proposal later may take the drive for an empty one.
    ///
    /// # Errors
    /// `drives.too_many_lost` if too few drives took it.
    pub(crate) fn bear(&self) -> Result<()> {
        let mut table = self.lock();
        let next = Superblock { in_force: true, ..table.superblock.clone() };
        let drives = table.writable(&next);
        let needed = self.needed(&table, &drives);
        let mut failed = self.write(&mut table, &next, &drives);
        let took: Vec<_> = drives.iter().filter(|id| !failed.contains_key(id)).copied().collect();
        failed.extend(self.write(&mut table, &next, &took));
        if let Some(error) = of_process(&failed) {
            return Err(error);
        }
        let written = drives.len() - failed.len();
        if written < needed {
            return Err(too_few(written, needed, failed.into_values().next()));
        }
        table.follows = vec![next.edition()];
        table.superblock = next.clone();
        let done = if failed.is_empty() {
            Ok(())
        } else {
            let mut next = next;
            give_up(&mut table, &mut next, failed);
            self.carry(&mut table, next)
        };
        self.show(&table);
        done
    }

    /// Carries a change through, and a further one for each drive that fails meanwhile.
    fn carry(&self, table: &mut Table, mut next: Superblock) -> Result<()> {
        loop {
            next.epoch = next.epoch.max(table.tried).next();
            table.tried = next.epoch;
            next.written_unix_ns = self.seams.clock.unix_ns();
            next.follows.clone_from(&table.follows);
            let drives = table.writable(&next);
            for row in next.members.iter_mut().filter(|row| drives.contains(&row.id)) {
                row.epoch = next.epoch;
            }
            let failed = self.agree(table, &mut next, &drives)?;
            if failed.is_empty() {
                return Ok(());
            }
            give_up(table, &mut next, failed);
        }
    }

    /// The two steps of a change to `next`. Returns the drives that failed.
    fn agree(
        &self,
        table: &mut Table,
        next: &mut Superblock,
        drives: &[DriveId],
    ) -> Result<BTreeMap<DriveId, Error>> {
        let needed = self.needed(table, drives);
        let is_enough = |failed: &BTreeMap<DriveId, Error>| drives.len() - failed.len() >= needed;
        let refuse = |failed: BTreeMap<DriveId, Error>| {
            too_few(drives.len() - failed.len(), needed, failed.into_values().next())
        };
        let is_born = !table.follows.is_empty();
        next.in_force = false;
        if is_born {
            // Until this change counts the next one follows what this one did, and makes sure that nobody
            // takes this one up any more, or takes it up as well.
            let seen = next.follows.iter().copied().chain([next.edition()]);
            table.follows = follows(next.follows[0], seen);
        }
        let mut failed = self.write(table, next, drives);
        let took: Vec<DriveId> =
            drives.iter().filter(|id| !failed.contains_key(id)).copied().collect();
        if let Some(error) = of_process(&failed) {
            table.pass_over(&took);
            return Err(error);
        }
        if !is_enough(&failed) {
            table.pass_over(&took);
            return Err(refuse(failed));
        }
        if !table.is_known_to_journal(next) {
            table.pass_over(&took);
            return Err(untold(failed.into_values().next()));
        }
        table.superblock = next.clone();
        if !is_born {
            return Ok(failed);
        }
        next.in_force = true;
        table.superblock.in_force = true;
        failed.extend(self.write(table, next, &took));
        if !is_enough(&failed) {
            return Err(of_process(&failed).unwrap_or_else(|| refuse(failed)));
        }
        table.follows = vec![next.edition()];
        // With the proposal a drive has all that an opening needs of it.
        failed.retain(|_, error| !error.is_of_process());
        Ok(failed)
    }

    /// How many of these drives have to take a change: more than can be lost. Where so many are not here, all that
    /// are; those that failed since the pool was opened lower it as far as the geometry can lose drives, because
    /// they may all be back at the next opening.
    fn needed(&self, table: &Table, drives: &[DriveId]) -> usize {
        let rows = table.superblock.members.iter();
        let members = rows.filter(|row| row.state != MemberState::Removed).count();
        let must_be_left = members.saturating_sub(self.tolerance).min(table.present.len());
        (self.tolerance + 1).min(drives.len().max(must_be_left)).max(1)
    }

    /// Writes `next` to the drives and returns those that failed. What the process has no descriptor for now is
    /// tried again, as long as a drive may take.
    fn write(
        &self,
        table: &mut Table,
        next: &Superblock,
        drives: &[DriveId],
    ) -> BTreeMap<DriveId, Error> {
        let mut failed = self.write_once(table, next, drives);
        let mut pauses = Pauses::new(&self.seams.clock, self.drive_timeout);
        let is_wanting = |error: &Error| error.is(&codes::PROCESS_EXHAUSTED);
        while failed.values().any(is_wanting) && pauses.pause() {
            let wanting = failed.iter().filter(|(_, error)| is_wanting(error));
            let again: Vec<DriveId> = wanting.map(|(id, _)| *id).collect();
            failed.retain(|_, error| !is_wanting(error));
            failed.extend(self.write_once(table, next, &again));
        }
        failed
    }

    fn write_once(
        &self,
        table: &mut Table,
        next: &Superblock,
        drives: &[DriveId],
    ) -> BTreeMap<DriveId, Error> {
        let mut tickets = Vec::new();
        for id in drives {
            let Some(present) = table.present.get(id) else { continue };
            let took_part = if next.in_force { next.epoch } else { present.took_part };
            let superblock = Superblock { drive: *id, took_part, ..next.clone() };
            let mut slots = present.slots;
            let ticket = present
                .drive
                .submit_log(move |drive| superblock.store(drive, &mut slots).map(|()| slots));
            tickets.push((*id, ticket, self.marks.writing(*id)));
        }
        let mut failed = BTreeMap::new();
        let late = |text: &str| Err(Error::new(&codes::DRIVE_TIMEOUT, text.to_owned()));
        let mut patience = self.drive_timeout;
        for (id, ticket, waiter) in tickets {
            let wanted = Deadline::never().waited_for_by(waiter);
            let answer = match ticket.wait_until(patience, &wanted) {
                Answer::Came(answer) => answer,
                Answer::TimeOver => late("the drive failed while its superblock was written"),
                Answer::Late => {
                    // The others had this time as well.
                    patience = self.drive_timeout / PARTS_OF_PATIENCE;
                    late("a superblock was not written in time")
                }
            };
            self.marks.written(id);
            match answer {
                Ok(slots) => {
                    if let Some(present) = table.present.get_mut(&id) {
                        present.slots = slots;
                        present.has = next.epoch;
                        if next.in_force {
                            present.took_part = next.epoch;
                        }
                    }
                }
                Err(error) => {
                    failed.insert(id, error);
                }
            }
        }
        failed
    }

    /// How long a drive may take to write a superblock.
    pub(crate) const fn drive_timeout(&self) -> Duration {
        self.drive_timeout
    }

    /// The epoch in force.
    pub(crate) fn epoch(&self) -> Epoch {
        self.lock().superblock.epoch
    }

    /// Marks a drive failed in this opening, without waiting for a change that is under way: that does not wait for
    /// the drive any longer either.
    pub(crate) fn fail(&self, id: DriveId, why: &Error) {
        self.marks.fail(id, why);
        self.tell();
    }

    /// Marks a drive that returned damaged bytes, unless it is marked already, until it is scrubbed or the pool is
    /// opened again.
    pub(crate) fn suspect(&self, id: DriveId) {
        if self.marks.suspect(id) {
            self.tell();
        }
    }

    /// Ends suspicion. One that failed meanwhile stays failed.
    pub(crate) fn clear(&self, id: DriveId) {
        if self.marks.clear(id) {
            self.tell();
        }
    }
}

fn too_few(written: usize, needed: usize, cause: Option<Error>) -> Error {
    let text = format!("a change of membership reached {written} drives and needs {needed}");
    let error = Error::new(&codes::DRIVES_TOO_MANY_LOST, text);
    match cause {
        Some(cause) => error.caused_by(cause),
        None => error,
    }
}

fn untold(cause: Option<Error>) -> Error {
    let text = "of the drives that are to hold the journal none took a change of membership";
    let error = Error::new(&codes::JOURNAL_MEMBERS, text);
    match cause {
        Some(cause) => error.caused_by(cause),
        None => error,
    }
}

/// Why the process could not write to one of them, if that was so.
fn of_process(failed: &BTreeMap<DriveId, Error>) -> Option<Error> {
    failed.values().find(|error| error.is_of_process()).cloned()
}

/// Marks drives failed, in this opening and in `next`.
fn give_up(table: &mut Table, next: &mut Superblock, failed: BTreeMap<DriveId, Error>) {
    for (id, why) in failed {
        mark(next, id, MemberState::Failed);
        table.marks.fail(id, &why);
    }
}

/// Sets a member's state. Who was removed stays so: a late report about it does not bring it back.
pub(crate) fn mark(superblock: &mut Superblock, id: DriveId, state: MemberState) {
    let mut rows = superblock.members.iter_mut();
    let row = rows.find(|row| row.id == id && row.state != MemberState::Removed);
    if let Some(row) = row {
        row.state = state;
    }
}

/// Takes a drive off the list of those that hold the journal. The list is asked and not the journal, which goes on
/// with a drive whose leaving was not acknowledged, while it may be in force all the same.
///
/// # Errors
/// `journal.members`: it is the last one.
pub(crate) fn leave_journal(superblock: &mut Superblock, id: DriveId) -> Result<()> {
    if superblock.journal == [id] {
        let text = format!("drive {id} is the last one that holds the journal");
        return Err(Error::new(&codes::JOURNAL_MEMBERS, text).with("drive", id));
    }
    superblock.journal.retain(|member| *member != id);
    Ok(())
}

impl Table {
    /// Of a pool whose drives are yet to be found.
    pub(crate) fn new(superblock: Superblock, follows: Vec<Edition>) -> Self {
        let (present, remarks) = (BTreeMap::new(), BTreeMap::new());
        let (marks, tried) = (Arc::default(), superblock.epoch);
        Self { superblock, present, marks, remarks, tried, follows }
    }

    /// Asks the drives how much room they have. One that failed may never answer, and who does not answer
    /// in time has what it had.
    fn ask_rooms(&self, clock: &Arc<dyn Clock>) {
        let (rows, known) = (self.superblock.members.iter(), self.marks.lock().clone());
        let here = rows.filter(|row| self.state(row, true, &known) != State::Failed);
        let drives = here.map(|row| Some(&self.present.get(&row.id)?.drive));
        asking::rooms(drives, clock);
    }

    /// What these drives were given does not count: it makes room for the next.
    fn pass_over(&mut self, drives: &[DriveId]) {
        for id in drives {
            if let Some(present) = self.present.get_mut(id) {
                present.slots.pass_over();
            }
        }
    }

    /// True if a drive that is to hold the journal has the last that was meant for it. Otherwise they would all look
    /// like older copies of themselves.
    fn is_known_to_journal(&self, next: &Superblock) -> bool {
        let has = |id: &DriveId| self.present.get(id).map(|present| present.has);
        let meant = |id: &DriveId| next.member(*id).map(|row| row.epoch);
        next.journal.is_empty() || next.journal.iter().any(|id| has(id) >= meant(id))
    }

    /// Members whose superblock is to be kept up to date.
    fn writable(&self, next: &Superblock) -> Vec<DriveId> {
        let rows = next.members.iter();
        let kept =
            rows.filter(|row| !matches!(row.state, MemberState::Failed | MemberState::Removed));
        let here = kept.filter(|row| self.present.contains_key(&row.id));
        let well = here.filter(|row| !self.marks.is_failed(row.id));
        well.map(|row| row.id).collect()
    }

    /// The roster that this table adds up to.
    pub(crate) fn roster(&self) -> Roster {
        self.roster_with(&self.marks.lock())
    }

    /// Shows everybody the roster as it is now.
    fn show(&self) {
        // What is marked from here on is marked in this roster.
        let known = self.marks.lock();
        self.marks.roster().store(self.roster_with(&known));
    }

    fn roster_with(&self, known: &Known) -> Roster {
        let rows = self.superblock.members.iter();
        let members = rows.filter(|row| row.state != MemberState::Removed);
        let seats = members.map(|row| self.seat(row, known));
        Roster { epoch: self.superblock.epoch, seats: seats.map(Arc::new).collect() }
    }

    fn seat(&self, row: &MemberRow, known: &Known) -> Seat {
        let drive = self.present.get(&row.id).map(|present| Arc::clone(&present.drive));
        let described = drive.as_ref().map(|drive| drive.drive().describe());
        let state = self.state(row, drive.is_some(), known);
        let said = drive.as_ref().and_then(|drive| drive.room().said());
        let capacity = said.filter(|_| state != State::Failed);
        let location = described.as_ref().map_or(&row.location, |known| &known.location).clone();
        Seat {
            index: row.index,
            id: row.id,
            name: row.name.clone(),
            state,
            failure_domain: failure_domain(row, &location),
            labels: row.labels.clone(),
            location,
            capacity_bytes: capacity.map_or(row.capacity_bytes, |room| room.total_bytes),
            is_last_resort: known.get(&row.id) == Some(&Mark::ReadOnly) && drive.is_some(),
            drive,
        }
    }

    fn state(&self, row: &MemberRow, here: bool, known: &Known) -> State {
        match (row.state, known.get(&row.id).map(|mark| mark.state())) {
            (MemberState::Failed, _) | (_, Some(State::Failed)) => State::Failed,
            _ if !here && self.remarks.get(&row.id).is_some_and(|remark| remark.is_foreign) => {
                State::Foreign
            }
            _ if !here => State::Missing,
            (MemberState::Draining, _) => State::Draining,
            (MemberState::Stale, _) => State::Stale,
            (_, Some(state)) => state,
            _ => State::Ok,
        }
    }
}

/// Label `failure_domain`, then `domain`, then `host`, else the drive alone: two directories of one file system are warned
/// about, but kept apart like two drives, for that is what their owner asked for.
fn failure_domain(row: &MemberRow, location: &str) -> String {
    let label = ["failure_domain", "domain", "host"].iter().find_map(|name| row.labels.get(*name));
    label.cloned().unwrap_or_else(|| format!("{}@{location}", row.name))
}

impl fmt::Debug for Membership {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Membership").field("tolerance", &self.tolerance).finish_non_exhaustive()
    }
}
