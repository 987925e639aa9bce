//! A new drive takes an old one's place.
//!
//! The old seat keeps its number until nothing is left on it, so that a kill in the middle leaves a pool
//! in which `rebuild` goes on.

use std::sync::Arc;

use dwk_base::{DriveId, Epoch, Error, Result, codes};
use dwk_drive::{Attached, Drive, Holder, LockMode, MemberRow, MemberState, Superblock};

use crate::Ledger;
use crate::create::{check_empty, clear_unborn};
use crate::membership::Present;
use crate::pool::Pool;
use crate::roster::Seat;
use crate::space::{Control, RebuildReport};

/// The label of a seat whose place another drive took.
pub(crate) const REPLACED: &str = "replaced";

impl Pool {
    /// Puts `new`, an empty drive, in the place of `old` and rebuilds onto it.
    ///
    /// # Errors
    /// `drive.unknown`, `drive.not_empty`, `drive.duplicate`, `store.locked`, and those of a rebuild. Once the
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
        let location = new.describe().location;
        let here = |other: &&Arc<Seat>| other.readable().is_some() && other.location == location;
        if let Some(other) = roster.seats.iter().find(here) {
            let text = format!("{location} is {} of this pool", other.name);
            return Err(Error::new(&codes::DRIVE_DUPLICATE, text).with("drive", location));
        }
        let lock = new.lock(holder, LockMode::Exclusive)?;
        check_empty(&**new)?;
        clear_unborn(&**new)?;
        let id = DriveId::draw(&*self.seams.random);
        self.lock_locks().insert(id, lock);
        self.seat_new(&seat, id, Arc::clone(new)).inspect_err(|_| self.leave_out(id))?;
        self.rebuild_alone(ledger, None, control)
    }

    fn seat_new(&self, old: &Seat, id: DriveId, new: Arc<dyn Drive>) -> Result<()> {
        let capacity_bytes = new.capacity()?.total_bytes;
        let location = new.describe().location;
        {
            let mut table = self.membership.lock();
            // Only the next change makes it a member; until then it counts as empty.
            let blank = Superblock {
                drive: id,
                clean: false,
                in_force: false,
                took_part: Epoch(0),
                follows: Vec::new(),
                ..table.superblock.clone()
            };
            let slots = blank.create(&*new)?;
            let (drive, took_part) = (Attached::new(new), Epoch(0));
            table.present.insert(id, Present { drive, slots, took_part });
        }
        self.membership.change(|superblock| {
            let index =
                superblock.members.iter().map(|row| row.index).max().map_or(0, |max| max + 1);
            let mut labels = old.labels.clone();
            labels.remove(REPLACED);
            for row in superblock.members.iter_mut().filter(|row| row.id == old.id) {
                row.labels.insert(REPLACED.to_owned(), index.to_string());
                row.name = format!("{}.old", old.name);
                if row.state == MemberState::Ok {
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
            self.lock_locks().remove(&id);
        }
    }
}
