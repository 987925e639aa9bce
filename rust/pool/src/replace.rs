//! A new drive takes an old one's place.
//!
//! The old seat keeps its number until nothing is left on it, so that a kill in the middle leaves a pool
//! in which `rebuild` goes on.

use std::sync::Arc;

use dwk_base::{DriveId, Epoch, Error, Result, codes};
use dwk_drive::{Attached, Drive, Holder, Lease, LockMode, MemberRow, MemberState, Superblock};

use crate::Ledger;
use crate::create::{check_empty, clear_unborn};
use crate::membership::Present;
use crate::pool::Pool;
use crate::roster::Seat;
use crate::space::{Control, RebuildReport};

/// A drive that is about to become a member.
struct New {
    present: Present,
    location: String,
    capacity_bytes: u64,
}

/// The label of a seat whose place another drive took.
pub(crate) const REPLACED: &str = "replaced";

impl Pool {
    /// Puts `new`, an empty drive, in the place of `old` and rebuilds onto it.
    ///
    /// # Errors
    /// `drive.unknown`, `drive.not_empty`, `drive.duplicate`, `drive.timeout`, `store.locked`, and those of a rebuild. Once the
    /// new drive is a member, an error leaves it one: `rebuild` goes on.
    pub fn replace(
        &self,
        ledger: &dyn Ledger,
        old: &str,
        new: &Arc<dyn Drive>,
        holder: &Holder,
        control: &Control,
    ) -> Result<RebuildReport> {
        self.check_writable()?;
        let _alone = self.begin_repair()?;
        let roster = self.roster();
        let seat = Arc::clone(roster.named(old)?);
        if seat.labels.contains_key(REPLACED) {
            let text = format!("another drive took the place of {old} already: run `rebuild`");
            return Err(Error::new(&codes::DRIVE_UNKNOWN, text).with("drive", old));
        }
        let location = new.describe().location;
        let here = |other: &&Arc<Seat>| other.readable().is_some() && other.location == location;
        if let Some(other) = roster.seats.iter().find(here) {
            let text = format!("{location} is {} of this pool", other.name);
            return Err(Error::new(&codes::DRIVE_DUPLICATE, text).with("drive", location));
        }
        let id = DriveId::draw(&*self.seams.random);
        let (lease, new) = self.prepare(new, id, holder)?;
        self.leases().insert(id, lease);
        self.seat_new(&seat, id, new).inspect_err(|_| self.leave_out(id))?;
        self.rebuild_alone(ledger, None, control)
    }

    /// Locks an empty drive and gives it its first superblock: on its own thread, for one that hangs must not hold
    /// up anybody else.
    fn prepare(&self, new: &Arc<dyn Drive>, id: DriveId, holder: &Holder) -> Result<(Lease, New)> {
        // Only the next change makes it a member; until then it counts as empty.
        let blank = Superblock {
            drive: id,
            clean: false,
            in_force: false,
            took_part: Epoch(0),
            follows: Vec::new(),
            ..self.membership.lock().superblock.clone()
        };
        let attached = Attached::new(Arc::clone(new));
        let (itself, holder) = (Arc::clone(&attached), holder.clone());
        let location = new.describe().location;
        let ticket = attached.submit_log(move |drive| {
            let lease = Lease::new(itself, drive.lock(&holder, LockMode::Exclusive)?);
            check_empty(drive)?;
            clear_unborn(drive)?;
            let capacity_bytes = drive.capacity()?.total_bytes;
            Ok((lease, capacity_bytes, blank.create(drive)?))
        });
        let answer = ticket.wait_for(self.membership.drive_timeout());
        let (lease, capacity_bytes, slots) = answer.unwrap_or_else(|| {
            let text = format!("{location} does not answer: nothing was changed");
            Err(Error::new(&codes::DRIVE_TIMEOUT, text).with("drive", &location))
        })?;
        let present = Present { drive: attached, slots, took_part: Epoch(0), has: Epoch(0) };
        Ok((lease, New { present, location, capacity_bytes }))
    }

    fn seat_new(&self, old: &Seat, id: DriveId, new: New) -> Result<()> {
        let New { present, location, capacity_bytes } = new;
        self.membership.lock().present.insert(id, present);
        self.membership.change(|superblock| {
            let index =
                superblock.members.iter().map(|row| row.index).max().map_or(0, |max| max + 1);
            let mut labels = old.labels.clone();
            labels.remove(REPLACED);
            for row in superblock.members.iter_mut().filter(|row| row.id == old.id) {
                row.labels.insert(REPLACED.to_owned(), index.to_string());
                row.name = format!("{}.old", old.name);
                if matches!(row.state, MemberState::Ok | MemberState::Stale) {
                    row.state = MemberState::Draining;
                }
            }
            let (name, epoch) = (old.name.clone(), superblock.epoch);
            superblock.members.push(MemberRow {
                index,
                id,
                name,
                state: MemberState::Ok,
                location,
                labels,
                capacity_bytes,
                epoch,
            });
            Ok(())
        })
    }

    /// A new drive that did not become a member is let go.
    fn leave_out(&self, id: DriveId) {
        let mut table = self.membership.lock();
        if table.superblock.member(id).is_none() {
            table.present.remove(&id);
            drop(table);
            let lease = self.leases().remove(&id);
            drop(lease);
        }
    }
}
