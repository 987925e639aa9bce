//! Who belongs to the pool, kept in the superblock of every drive.
//!
//! A change raises the epoch, is written to every reachable drive, and counts once the drives that have
//! it are more than the geometry can lose: then every rest that can be opened holds one. Where so many
//! are not reachable (the last half of a mirror) a pool that is open goes on with those that are.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dwk_base::{DriveId, Epoch, Error, Result, Seams, codes};
use dwk_drive::{Attached, MemberRow, MemberState, SlotState, Superblock};

use crate::roster::{Roster, RosterCell, Seat, State};

/// A drive that is here, with what is needed to write its superblock.
#[derive(Debug)]
pub(crate) struct Present {
    pub(crate) drive: Arc<Attached>,
    pub(crate) slots: SlotState,
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
    /// What a roster cannot read from the superblock: drives found damaged or out of date since.
    pub(crate) suspect: BTreeMap<DriveId, State>,
    /// What else is known of drives, here or not.
    pub(crate) remarks: BTreeMap<DriveId, Remark>,
    /// The last epoch that was written anywhere, in force or not: it is never written again.
    pub(crate) tried: Epoch,
}

/// Membership, open.
pub(crate) struct Membership {
    table: Mutex<Table>,
    roster: Arc<RosterCell>,
    /// How many arbitrary drives the geometry can lose.
    tolerance: usize,
    drive_timeout: Duration,
    seams: Seams,
}

impl Membership {
    pub(crate) fn new(
        table: Table,
        tolerance: usize,
        drive_timeout: Duration,
        seams: Seams,
    ) -> Self {
        let roster = Arc::new(RosterCell::new(table.roster()));
        Self { table: Mutex::new(table), roster, tolerance, drive_timeout, seams }
    }

    pub(crate) const fn roster(&self) -> &Arc<RosterCell> {
        &self.roster
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes membership: durable and in force on return.
    ///
    /// A drive that cannot be written is marked failed in a further change, which the rest gets.
    ///
    /// # Errors
    /// `drives.too_many_lost` if too few drives took it: nothing is in force then.
    pub(crate) fn change<T>(&self, edit: impl FnOnce(&mut Superblock) -> Result<T>) -> Result<T> {
        let mut table = self.lock();
        let mut next = table.superblock.clone();
        let result = edit(&mut next)?;
        loop {
            next.epoch = next.epoch.max(table.tried).next();
            table.tried = next.epoch;
            next.written_unix_ns = self.seams.clock.unix_ns();
            let writable = table.writable(&next);
            for row in next.members.iter_mut().filter(|row| writable.contains(&row.id)) {
                row.epoch = next.epoch;
            }
            let failed = self.write(&mut table, &next, &writable);
            let written = writable.len() - failed.len();
            let needed = (self.tolerance + 1).min(writable.len()).max(1);
            if written < needed {
                self.roster.store(table.roster());
                return Err(too_few(written, needed, failed.into_values().next()));
            }
            table.superblock = next.clone();
            if failed.is_empty() {
                break;
            }
            for id in failed.into_keys() {
                mark(&mut next, id, MemberState::Failed);
                table.suspect.insert(id, State::Failed);
            }
        }
        self.roster.store(table.roster());
        Ok(result)
    }

    /// Writes `next` to the drives and returns those that failed.
    fn write(
        &self,
        table: &mut Table,
        next: &Superblock,
        drives: &[DriveId],
    ) -> BTreeMap<DriveId, Error> {
        let mut tickets = Vec::new();
        for id in drives {
            let Some(present) = table.present.get(id) else { continue };
            let (superblock, mut slots) =
                (Superblock { drive: *id, ..next.clone() }, present.slots);
            let ticket = present
                .drive
                .submit_log(move |drive| superblock.store(drive, &mut slots).map(|()| slots));
            tickets.push((*id, ticket));
        }
        let mut failed = BTreeMap::new();
        for (id, ticket) in tickets {
            let late =
                || Err(Error::new(&codes::DRIVE_TIMEOUT, "a superblock was not written in time"));
            match ticket.wait_for(self.drive_timeout).unwrap_or_else(late) {
                Ok(slots) => {
                    if let Some(present) = table.present.get_mut(&id) {
                        present.slots = slots;
                    }
                }
                Err(error) => {
                    failed.insert(id, error);
                }
            }
        }
        failed
    }

    /// The epoch in force.
    pub(crate) fn epoch(&self) -> Epoch {
        self.lock().superblock.epoch
    }

    /// Marks a drive in this opening only, until it is scrubbed or the pool is opened again.
    pub(crate) fn note(&self, id: DriveId, state: State) {
        let mut table = self.lock();
        table.suspect.insert(id, state);
        self.roster.store(table.roster());
    }

    /// Takes the mark off.
    pub(crate) fn clear(&self, id: DriveId) {
        let mut table = self.lock();
        if table.suspect.remove(&id).is_some() {
            self.roster.store(table.roster());
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

/// Sets a member's state. Who was removed stays so: a late report about it does not bring it back.
pub(crate) fn mark(superblock: &mut Superblock, id: DriveId, state: MemberState) {
    let mut rows = superblock.members.iter_mut();
    let row = rows.find(|row| row.id == id && row.state != MemberState::Removed);
    if let Some(row) = row {
        row.state = state;
    }
}

impl Table {
    /// Members whose superblock is to be kept up to date.
    fn writable(&self, next: &Superblock) -> Vec<DriveId> {
        let rows = next.members.iter();
        let kept =
            rows.filter(|row| !matches!(row.state, MemberState::Failed | MemberState::Removed));
        let here = kept.filter(|row| self.present.contains_key(&row.id));
        let well = here.filter(|row| self.suspect.get(&row.id) != Some(&State::Failed));
        well.map(|row| row.id).collect()
    }

    /// The roster that this table adds up to.
    pub(crate) fn roster(&self) -> Roster {
        let rows = self.superblock.members.iter();
        let seats = rows.filter(|row| row.state != MemberState::Removed).map(|row| self.seat(row));
        Roster { epoch: self.superblock.epoch, seats: seats.map(Arc::new).collect() }
    }

    fn seat(&self, row: &MemberRow) -> Seat {
        let drive = self.present.get(&row.id).map(|present| Arc::clone(&present.drive));
        let described = drive.as_ref().map(|drive| drive.drive().describe());
        let state = self.state(row, drive.is_some());
        // One that failed may never answer, and who asks here holds up every change.
        let asked = drive.as_ref().filter(|_| state != State::Failed);
        let capacity = asked.and_then(|drive| drive.drive().capacity().ok());
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
            free_bytes: AtomicU64::new(capacity.map_or(0, |room| room.free_bytes)),
            drive,
        }
    }

    fn state(&self, row: &MemberRow, here: bool) -> State {
        match (row.state, self.suspect.get(&row.id)) {
            (MemberState::Failed, _) | (_, Some(State::Failed)) => State::Failed,
            _ if !here && self.remarks.get(&row.id).is_some_and(|remark| remark.is_foreign) => {
                State::Foreign
            }
            _ if !here => State::Missing,
            (MemberState::Draining, _) => State::Draining,
            (MemberState::Stale, _) => State::Stale,
            (_, Some(state)) => *state,
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
