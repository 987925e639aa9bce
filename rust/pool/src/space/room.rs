//! Which drives could take how much, what a new stripe looks like on them, and room that is given back.

use std::collections::BTreeMap;
use std::sync::Arc;

use dwk_base::{Epoch, Error, Result, codes};
use dwk_drive::{ALIGNMENT, BlobName, Claim, Drive, Room};
use dwk_erasure::{Code, CodeSpec};

use super::encode::Shape;
use super::placement::{self, Candidate};
use super::write::{SYNC_REMOVE, late};
use super::{Shared, Space, header};
use crate::replace::REPLACED;
use crate::roster::{Roster, Seat, State};
use crate::{Stripe, asking};

/// Who may fill the reserve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// New data.
    Store,
    /// What is needed to free room or to be safe again.
    Keep,
}

/// Drives that refused a stripe.
#[derive(Clone, Debug, Default)]
pub(crate) struct Refused {
    /// They failed, or were late.
    pub(crate) failed: Vec<u16>,
    /// They have no room.
    pub(crate) full: Vec<u16>,
}

impl Refused {
    fn has(&self, seat: u16) -> bool {
        self.failed.contains(&seat) || self.full.contains(&seat)
    }
}

/// A stripe to be: what it is encoded with, and where it goes.
pub(crate) struct Plan {
    pub(crate) code: Code,
    pub(crate) shape: Shape,
    pub(crate) placement: Vec<u16>,
    pub(crate) epoch: Epoch,
}

impl Space {
    /// Fails unless `bytes` more of new content have room beside the reserve and `each_bytes` on every drive.
    ///
    /// # Errors
    /// `pool.full`, `drives.too_many_lost`
    pub fn check_room(&self, bytes: u64, each_bytes: u64) -> Result<()> {
        let full = self.shared.full_shape();
        // Whatever is longer than a stripe has a header for each of them.
        let bytes = bytes * full.file_bytes() as u64 / full.shard_bytes as u64;
        let bytes = bytes + full.data as u64 * each_bytes;
        self.shared.plan(bytes as usize, Purpose::Store, &Refused::default()).map(drop)
    }

    /// Asks every drive how much room it has: others than the space take some, too. True if all of them said.
    pub fn ask_room(&self) -> bool {
        let roster = self.shared.roster.load();
        let drives = roster.writable().map(|seat| seat.writable());
        asking::rooms(drives, &self.shared.seams.clock).iter().all(Option::is_some)
    }

    /// Removes the shards of stripes: each drive deletes all of its own and syncs once. What cannot be removed
    /// now is found as an orphan later.
    pub fn remove(&self, stripes: &[Stripe]) {
        let mut shards: BTreeMap<u16, Vec<(BlobName, u64)>> = BTreeMap::new();
        for stripe in stripes {
            for (index, seat) in stripe.placement.iter().enumerate() {
                self.shared.headers.forget(stripe.id, index);
                let bytes = self.shared.file_bytes(stripe);
                let name = header::name(stripe.id, index).map(|name| (name, bytes));
                shards.entry(*seat).or_default().extend(name);
            }
        }
        let roster = self.shared.roster.load();
        let tickets: Vec<_> = shards
            .into_iter()
            .filter_map(|(seat, shards)| {
                let seat = roster.seat(seat)?;
                let drive = seat.readable()?;
                let room = Arc::clone(drive.room());
                Some((seat, drive.submit(move |drive| delete_all(drive, &room, &shards))))
            })
            .collect();
        for (seat, ticket) in tickets {
            match ticket.wait_for(self.shared.options.drive_timeout) {
                Some(Ok(())) => {}
                Some(Err(error)) => self.shared.blame(seat.index, &error),
                None => self.shared.blame(seat.index, &late()),
            }
        }
    }
}

fn delete_all(drive: &dyn Drive, room: &Room, shards: &[(BlobName, u64)]) -> Result<()> {
    for (name, bytes) in shards {
        match room.delete(*bytes, || drive.delete(name)) {
            Err(error) if !error.is(&codes::BLOB_NOT_FOUND) => return Err(error),
            _ => {}
        }
    }
    drive.sync(SYNC_REMOVE)
}

impl Shared {
    /// The largest payload of a shard in a stripe of `shards`.
    pub(crate) fn shard_bytes_max(&self, shards: usize) -> usize {
        // A quarter of the memory: two on their way, one that fills, one for whoever comes next.
        let share = (self.memory_bytes / 4).saturating_sub(ALIGNMENT) / shards.max(1);
        let header = Shape::new(share, 1, shards, self.options.block_bytes).header_bytes;
        let most = share.saturating_sub(header).min(self.options.shard_bytes_max as usize);
        // Whatever a stripe is made of, 32 bits say how long its parts are.
        let most = most.min((u32::MAX / 2) as usize / shards.max(1));
        (most / ALIGNMENT * ALIGNMENT).max(ALIGNMENT)
    }

    /// What a full stripe on the drives of now looks like. Room is not looked at.
    pub(crate) fn full_shape(&self) -> Shape {
        let (k, m) = self.spec_now().map_or((1, 0), |spec| (spec.k(), spec.m()));
        Shape::new(k * self.shard_bytes_max(k + m), k, m, self.options.block_bytes)
    }

    /// The code of a new stripe on the drives of now, if there can be one. Room is not looked at.
    pub(crate) fn spec_now(&self) -> Option<CodeSpec> {
        let roster = self.roster.load();
        let (drives, lost) = (roster.writable().count(), lost(&roster, &Refused::default()));
        (0..=drives).rev().find_map(|drives| self.coding.on(drives, lost))
    }

    /// A stripe for `bytes` of content on the drives of now, none of them in `refused`.
    ///
    /// # Errors
    /// `pool.full`, `drives.too_many_lost`
    pub(crate) fn plan(&self, bytes: usize, purpose: Purpose, refused: &Refused) -> Result<Plan> {
        let roster = self.roster.load();
        let lost = lost(&roster, refused);
        let here = |seat: &&Arc<Seat>| !refused.has(seat.index);
        let drives = roster.writable().filter(here).count();
        let mut possible = false;
        for drives in (1..=drives.min(self.coding.shards())).rev() {
            let Some(spec) = self.coding.on(drives, lost) else { break };
            possible = true;
            let shape = Shape::new(bytes, spec.k(), spec.m(), self.options.block_bytes);
            let candidates = self.candidates(&roster, shape.file_bytes(), purpose, refused);
            let (shards, width) = (shape.shards(), self.options.scatter_width);
            let chosen = placement::choose(&candidates, shards, width, &*self.seams.random);
            if let Some(placement) = chosen {
                let code = self.coding.code(&spec)?;
                return Ok(Plan { code, shape, placement, epoch: roster.epoch });
            }
        }
        // Who is only full is not lost.
        if possible || !refused.full.is_empty() {
            let text = format!("no room for {bytes} bytes on enough drives");
            return Err(Error::new(&codes::POOL_FULL, text).with("drives", drives));
        }
        let text =
            format!("{drives} drives are too few for a stripe that is as safe as the others");
        Err(Error::new(&codes::DRIVES_TOO_MANY_LOST, text).with("drives", drives))
    }

    /// As [`plan`](Self::plan), with room taken for each shard: what others plan meanwhile goes beside it.
    ///
    /// # Errors
    /// `pool.full`, `drives.too_many_lost`
    pub(crate) fn reserve(
        &self,
        bytes: usize,
        purpose: Purpose,
        refused: &Refused,
    ) -> Result<(Plan, Vec<Claim>)> {
        loop {
            let plan = self.plan(bytes, purpose, refused)?;
            let (roster, bytes) = (self.roster.load(), plan.shape.file_bytes() as u64);
            let claim = |seat: &u16| self.claim(roster.seat(*seat)?, bytes, purpose);
            if let Some(claims) = plan.placement.iter().map(claim).collect() {
                return Ok((plan, claims));
            }
            // Somebody else was faster, or a drive left.
        }
    }

    /// One more drive for a shard of a stripe that has shards on `taken`, none of `refused`, with room taken.
    pub(crate) fn another(
        &self,
        taken: &[u16],
        refused: &Refused,
        file_bytes: usize,
        purpose: Purpose,
    ) -> Option<(u16, Claim)> {
        loop {
            let roster = self.roster.load();
            let candidates = self.candidates(&roster, file_bytes, purpose, refused);
            let (shards, width) = (taken.len(), self.options.scatter_width);
            let random = &*self.seams.random;
            let seat = placement::choose_another(&candidates, taken, shards, width, random)?;
            let claim = self.claim(roster.seat(seat)?, file_bytes as u64, purpose);
            if let Some(claim) = claim {
                return Some((seat, claim));
            }
        }
    }

    /// Every drive that stays in the pool with what it has room for: 0 where a shard of `bytes` does not fit, and on
    /// those that take none now. They are there so that the others' groups do not change with them.
    fn candidates(
        &self,
        roster: &Roster,
        bytes: usize,
        purpose: Purpose,
        refused: &Refused,
    ) -> Vec<Candidate> {
        let takes = |seat: &Seat| seat.writable().is_some() && !refused.has(seat.index);
        let fits = |seat: &Seat| {
            let free_bytes = seat.free_bytes().saturating_sub(self.reserve_bytes(seat, purpose));
            Some(free_bytes).filter(|free_bytes| *free_bytes >= bytes as u64)
        };
        let short = roster.seats.iter().filter(|seat| takes(seat) && fits(seat).is_none());
        asking::rooms(short.map(|seat| seat.writable()), &self.seams.clock);
        let candidate = |seat: &Arc<Seat>| {
            let free_bytes = if takes(seat) { fits(seat).unwrap_or(0) } else { 0 };
            let counts = seat.readable().is_some() && !refused.has(seat.index);
            let domain = seat.failure_domain.clone();
            Candidate { seat: seat.index, free_bytes, counts, domain }
        };
        let stays = |seat: &&Arc<Seat>| {
            seat.state != State::Draining && !seat.labels.contains_key(REPLACED)
        };
        roster.seats.iter().filter(stays).map(candidate).collect()
    }

    /// Takes room on a drive, if it has that much beside the reserve.
    pub(crate) fn claim(&self, seat: &Seat, bytes: u64, purpose: Purpose) -> Option<Claim> {
        seat.writable()?.room().try_claim(bytes, self.reserve_bytes(seat, purpose))
    }

    fn reserve_bytes(&self, seat: &Seat, purpose: Purpose) -> u64 {
        match purpose {
            Purpose::Store => (seat.capacity_bytes as f64 * self.options.reserve_fraction) as u64,
            Purpose::Keep => 0,
        }
    }
}

/// Drives that cannot be read, those that just refused, and those that lack what was written while they were
/// away: as long as they do, that is not safer than what is written without them.
fn lost(roster: &Roster, refused: &Refused) -> usize {
    let lacks = |seat: &Seat| seat.state == State::Stale || refused.failed.contains(&seat.index);
    roster.seats.iter().filter(|seat| seat.readable().is_none() || lacks(seat)).count()
}
