//! Shards that no stripe names: left by a crash between a write and its commit.
//!
//! They go only when an earlier opening of the pool wrote them, after the journal was replayed without gaps
//! (otherwise the pool is not open), and through quarantine: a scrub leaves a mark `q/NAME` beside the
//! shard, with the epoch of that time; a scrub of a later opening that finds the mark and still no stripe
//! removes both.
//!
//! [`Space::reclaim`] does without quarantine, for a pool that is full: cut by cut they would take the room
//! without which nothing can be deleted.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use dwk_base::codec::{Reader, Writer};
use dwk_base::{Epoch, Result, StripeId, codes};
use dwk_chunk::crc64nvme;
use dwk_drive::{Attached, BlobName, Drive};

use super::control::Stage;
use super::header::{self, Header};
use super::presence::{Found, Present};
use super::scrub::Standing;
use super::sweep::{Done, Sweep, Work};
use super::write::{SYNC_REMOVE, late};
use super::{Control, Shared, Space, lock};
use crate::asking::ROOM_TIME;
use crate::roster::Seat;
use crate::{Ledger, Stripe};

/// The folder of marks.
const QUARANTINE: &str = "q";
const MARK_BYTES: usize = 16;
const PAGE: usize = 1024;
/// Makes a mark durable.
pub(crate) const SYNC_QUARANTINE: &str = "stripe.quarantine";

impl Space {
    /// Removes shards that no stripe names and that an earlier opening wrote, durably and without quarantine:
    /// for a pool that has no room left. What cannot be read is left to the scrub.
    ///
    /// # Errors
    /// `pool.repairing` while a scrub, rebuild or refresh runs; those of the ledger
    pub fn reclaim(&self, ledger: &dyn Ledger) -> Result<()> {
        let _alone = self.sweep_alone()?;
        let (shared, control) = (&self.shared, &Control::default());
        let roster = shared.roster.load();
        let here = roster.seats.iter().filter(|seat| seat.readable().is_some());
        let seats: Vec<_> = here.cloned().collect();
        let work = Reclaim { shared, ledger, removed: Mutex::default() };
        let (stage, after) = (Stage::first(1), None);
        Sweep { shared, ledger, control, seats, stage, after }.run(&work)?;
        let removed = work.removed.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        for seat in removed.into_iter().filter_map(|seat| roster.seat(seat)) {
            let Some(drive) = seat.readable() else { continue };
            let synced = drive.submit(|drive| drive.sync(SYNC_REMOVE));
            match synced.wait_for(shared.options.drive_timeout) {
                Some(Ok(())) => {}
                Some(Err(error)) => shared.blame(seat.index, &error),
                None => shared.blame(seat.index, &late()),
            }
        }
        self.ask_room();
        Ok(())
    }
}

struct Reclaim<'a> {
    shared: &'a Arc<Shared>,
    ledger: &'a dyn Ledger,
    /// Seats on whose drives something was removed.
    removed: Mutex<BTreeSet<u16>>,
}

impl Work for Reclaim<'_> {
    fn stripe(&self, _stripe: &Arc<Stripe>, _found: &Found) -> Result<Done> {
        Ok(Done::default())
    }

    fn files(&self, files: &Present) -> Result<()> {
        for (seat, id, index) in files.keys() {
            if self.shared.remove_if_older(self.ledger, *seat, *id, *index)? {
                lock(&self.removed).insert(*seat);
            }
        }
        Ok(())
    }
}

impl Shared {
    /// Marks a file if no stripe names it.
    pub(crate) fn quarantine(
        &self,
        ledger: &dyn Ledger,
        seat: u16,
        id: StripeId,
        index: usize,
    ) -> Result<Standing> {
        let standing = self.standing(ledger, seat, id, index)?;
        let Some(drive) = self.drive(seat).filter(|_| standing == Standing::Orphan) else {
            return Ok(standing);
        };
        let mut writer = Writer::new();
        writer.u64(self.opened.0);
        let check = crc64nvme(writer.as_slice());
        writer.u64(check);
        let (mark, name) = (Bytes::from(writer.finish()), mark_name(id, index)?);
        // An older mark stays. Without one it takes one scrub longer.
        let write = move |drive: &dyn Drive| {
            drive.put(&name, &[mark])?;
            drive.sync(SYNC_QUARANTINE)
        };
        let _ = drive.submit(write).wait_for(self.options.drive_timeout);
        Ok(standing)
    }

    /// What a file among the shards of a seat is.
    fn standing(
        &self,
        ledger: &dyn Ledger,
        seat: u16,
        id: StripeId,
        index: usize,
    ) -> Result<Standing> {
        let stripe = ledger.stripe(id)?;
        if stripe.is_some_and(|stripe| stripe.placement.get(index) == Some(&seat)) {
            return Ok(Standing::Wanted);
        }
        let Some(drive) = self.drive(seat) else { return Ok(Standing::Gone) };
        Ok(match self.peek(&drive, id, index) {
            Ok(header) if header.pool != self.pool => Standing::Foreign,
            Err(error) if error.is(&codes::BLOB_NOT_FOUND) => Standing::Gone,
            Err(error) if error.is_of_process() => return Err(error),
            _ => Standing::Orphan,
        })
    }

    fn drive(&self, seat: u16) -> Option<Arc<Attached>> {
        self.roster.load().seat(seat).and_then(|seat| seat.readable().cloned())
    }

    /// The header of a file.
    fn peek(&self, drive: &Attached, id: StripeId, index: usize) -> Result<Header> {
        let name = header::name(id, index)?;
        let read = move |drive: &dyn Drive| {
            let mut bytes = vec![0; 4096];
            let got = drive.read(&name, 0, &mut bytes)?;
            bytes.truncate(got);
            let length = header::length(&bytes)?;
            if length > bytes.len() {
                bytes.resize(length.min(1 << 20), 0);
                let got = drive.read(&name, 0, &mut bytes)?;
                bytes.truncate(got);
            }
            Header::decode(&bytes)
        };
        drive.submit(read).wait_for(self.options.drive_timeout).unwrap_or_else(|| Err(late()))
    }

    /// Removes marked files that still no stripe names. Returns how many.
    pub(crate) fn end_quarantine(
        &self,
        ledger: &dyn Ledger,
        seats: &[Arc<Seat>],
        control: &Control,
    ) -> Result<u64> {
        let mut removed = 0;
        for seat in seats {
            let mut after = None;
            loop {
                let page = self.marks(seat, after.take());
                for (name, epoch) in &page {
                    if control.is_over() {
                        return Ok(removed);
                    }
                    match epoch {
                        Some(epoch) if *epoch < self.opened => {
                            removed += u64::from(self.end_mark(ledger, seat, name)?);
                        }
                        Some(_) => {}
                        // As long as it lies there, no other one can be left.
                        None => self.delete_mark(seat, name.clone()),
                    }
                }
                match page.last() {
                    Some((name, _)) => after = Some(name.clone()),
                    None => break,
                }
            }
        }
        Ok(removed)
    }

    /// A page of the marks on a drive with their epochs; a damaged one counts as new.
    fn marks(&self, seat: &Seat, after: Option<BlobName>) -> Vec<(BlobName, Option<Epoch>)> {
        let Some(drive) = seat.readable() else { return Vec::new() };
        let list = move |drive: &dyn Drive| {
            let page = drive.list(Some(QUARANTINE), after.as_ref(), PAGE)?;
            let mark = |name: BlobName| {
                let epoch = read_mark(drive, &name);
                (name, epoch)
            };
            Ok(page.into_iter().map(|info| mark(info.name)).collect())
        };
        let patience = self.options.drive_timeout.max(ROOM_TIME);
        drive.submit(list).wait_for(patience).and_then(Result::ok).unwrap_or_default()
    }

    fn delete_mark(&self, seat: &Seat, mark: BlobName) {
        let Some(drive) = seat.readable() else { return };
        let delete = drive.submit(move |drive: &dyn Drive| drive.delete(&mark));
        let _ = delete.wait_for(self.options.drive_timeout);
    }

    /// Ends one quarantine: true if the file was removed.
    fn end_mark(&self, ledger: &dyn Ledger, seat: &Seat, mark: &BlobName) -> Result<bool> {
        let shard = BlobName::new(format!("{}/{}", header::FOLDER, mark.leaf()))?;
        let Some((id, index)) = header::parse_name(&shard) else { return Ok(false) };
        let orphan = self.standing(ledger, seat.index, id, index)? == Standing::Orphan;
        let young = self.drive(seat.index).and_then(|drive| self.peek(&drive, id, index).ok());
        let orphan = orphan && young.is_none_or(|header| header.epoch < self.opened);
        let (Some(drive), mark) = (seat.readable(), mark.clone()) else { return Ok(false) };
        let remove = move |drive: &dyn Drive| {
            let removed = orphan && drive.delete(&shard).is_ok();
            drive.delete(&mark)?;
            drive.sync(SYNC_REMOVE)?;
            Ok(removed)
        };
        let removed = drive.submit(remove).wait_for(self.options.drive_timeout);
        Ok(matches!(removed, Some(Ok(true))))
    }

    /// Removes a file without quarantine, if no stripe names it and it was written before this opening: from a
    /// drive that was away, or when the pool is full.
    pub(crate) fn remove_if_older(
        &self,
        ledger: &dyn Ledger,
        seat: u16,
        id: StripeId,
        index: usize,
    ) -> Result<bool> {
        if self.standing(ledger, seat, id, index)? != Standing::Orphan {
            return Ok(false);
        }
        let Some(drive) = self.drive(seat) else { return Ok(false) };
        let header = self.peek(&drive, id, index);
        if !header.is_ok_and(|header| header.epoch < self.opened) {
            // What cannot be read is the scrub's.
            return Ok(false);
        }
        let name = header::name(id, index)?;
        // Without a sync: what comes back with the power is an orphan as before, and goes through quarantine.
        let remove = move |drive: &dyn Drive| drive.delete(&name);
        let removed = drive.submit(remove).wait_for(self.options.drive_timeout);
        Ok(matches!(removed, Some(Ok(()))))
    }
}

fn mark_name(id: StripeId, index: usize) -> Result<BlobName> {
    BlobName::new(format!("{QUARANTINE}/{id}.{index:02x}"))
}

fn read_mark(drive: &dyn Drive, name: &BlobName) -> Option<Epoch> {
    let mut bytes = [0; MARK_BYTES];
    let got = drive.read(name, 0, &mut bytes).ok()?;
    let mut reader = Reader::new(&bytes[..got], "a mark");
    let (epoch, check) = (reader.u64().ok()?, reader.u64().ok()?);
    (check == crc64nvme(&bytes[..8])).then_some(Epoch(epoch))
}
