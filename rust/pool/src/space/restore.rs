//! Shards written anew: computed from the others, written to a drive, then committed if they moved.

use std::sync::Arc;

use bytes::Bytes;
use dwk_base::{Error, Result, codes};
use dwk_chunk::{crc64_join_blocks, crc64nvme};
use dwk_drive::{BlobName, Claim, Drive};

use super::Shared;
use super::encode::{Parts, of};
use super::header;
use super::recover::Recovery;
use super::room::{Purpose, Refused};
use super::write::late;
use crate::{Ledger, Stripe};

/// Makes a restored shard durable.
pub(crate) const SYNC_REPAIR: &str = "stripe.repair";
/// What is compared at once.
const STEP_BYTES: usize = 256 << 10;

/// What is to be restored of a stripe.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wanted {
    /// On the drives where they belong: nothing right is there.
    pub(crate) in_place: Vec<usize>,
    /// On another drive, since theirs is not to be used; gone.
    pub(crate) elsewhere: Vec<usize>,
    /// On another drive; what is there can still be read.
    pub(crate) moving: Vec<usize>,
}

impl Wanted {
    pub(crate) fn all(&self) -> Vec<usize> {
        let all = self.in_place.iter().chain(&self.elsewhere).chain(&self.moving);
        all.copied().collect()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.in_place.is_empty() && self.elsewhere.is_empty() && self.moving.is_empty()
    }
}

/// What was done.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Restored {
    pub(crate) shards: u64,
    /// No drive could take them.
    pub(crate) refused: u64,
    pub(crate) written_bytes: u64,
}

impl Shared {
    /// Restores the wanted shards of a stripe.
    ///
    /// # Errors
    /// `data.corrupt` if too much is lost; those of the ledger.
    pub(crate) fn restore(
        self: &Arc<Self>,
        ledger: &dyn Ledger,
        recovery: &mut Recovery<'_>,
        stripe: &Arc<Stripe>,
        wanted: &Wanted,
        preferred: Option<u16>,
    ) -> Result<Restored> {
        for index in wanted.in_place.iter().chain(&wanted.elsewhere) {
            recovery.have.remove(index);
            recovery.lost.entry(*index).or_insert(None);
        }
        let indexes = wanted.all();
        recovery.gather(&indexes)?;
        let shards = self.compute_shards(recovery, stripe, &indexes)?;
        let (mut restored, mut moved) = (Restored::default(), (**stripe).clone());
        for (index, parts) in indexes.into_iter().zip(shards) {
            let own = wanted.in_place.contains(&index).then(|| stripe.placement[index]);
            let Some(seat) = self.place(&moved, index, &parts, own, preferred) else {
                restored.refused += 1;
                if let Some(seat) = own {
                    self.note_repair(stripe.id, index, seat);
                }
                continue;
            };
            moved.placement[index] = seat;
            self.forget_shard(stripe.id, index, stripe.placement[index]);
            restored.shards += 1;
            restored.written_bytes += parts.iter().map(|part| part.len() as u64).sum::<u64>();
        }
        if moved != **stripe {
            self.commit(ledger, stripe, &moved)?;
        }
        if !wanted.in_place.is_empty() && ledger.stripe(stripe.id)?.is_none() {
            // Who dropped it meanwhile had its shards deleted before these were written.
            wanted.in_place.iter().for_each(|index| self.remove_one(stripe, *index));
        }
        Ok(restored)
    }

    /// Says where the shards are now; what the ledger does not name then goes.
    fn commit(&self, ledger: &dyn Ledger, old: &Stripe, new: &Stripe) -> Result<()> {
        // After an error nobody knows which of the two counts: both stay, one of them is an orphan.
        ledger.moved(old, new)?;
        // Whoever else moved it may have put a shard where this one did: only the ledger knows what counts.
        let now = ledger.stripe(old.id)?;
        for index in 0..old.placement.len() {
            if old.placement[index] == new.placement[index] {
                continue;
            }
            self.headers.forget(old.id, index);
            let named = now.as_ref().and_then(|now| now.placement.get(index));
            for stripe in [old, new] {
                if named != stripe.placement.get(index) {
                    self.remove_one(stripe, index);
                }
            }
        }
        Ok(())
    }

    /// Deletes one shard if its drive is here, without waiting and without a sync: the table names another one in
    /// its place, so that if it comes back with the power it is an orphan and goes through quarantine.
    fn remove_one(&self, stripe: &Stripe, index: usize) {
        let roster = self.roster.load();
        let seat = stripe.placement.get(index).and_then(|seat| roster.seat(*seat)).cloned();
        let (Some(seat), Ok(name)) = (seat, header::name(stripe.id, index)) else { return };
        let Some(drive) = seat.readable().cloned() else { return };
        let (bytes, room) = (self.file_bytes(stripe), Arc::clone(drive.room()));
        drop(drive.submit(move |drive| room.delete(bytes, || drive.delete(&name))));
    }

    /// The wanted shards with their headers, each equal to the check that the others have of it.
    fn compute_shards(
        &self,
        recovery: &Recovery<'_>,
        stripe: &Stripe,
        indexes: &[usize],
    ) -> Result<Vec<Parts>> {
        let length = stripe.shard_bytes as usize;
        let lost = indexes.iter().filter(|index| !recovery.have.contains_key(index));
        let mut buffers: Vec<_> =
            lost.map(|index| (*index, self.read_memory.take_anyway(length))).collect();
        let targets = buffers.iter_mut().map(|(index, buffer)| (*index, buffer.as_mut()));
        recovery.compute(targets.collect())?;
        let mut computed: std::collections::BTreeMap<usize, _> = buffers.into_iter().collect();
        let Some(header) = recovery.have.values().next().map(|piece| Arc::clone(&piece.header))
        else {
            return Err(Error::new(&codes::INTERNAL_BUG, "a stripe was restored from nothing"));
        };
        let parts = |index: &usize| {
            let payload = if let Some(buffer) = computed.remove(index) {
                Bytes::from_owner(buffer)
            } else {
                let mut copy = self.read_memory.take_anyway(length);
                copy.as_mut().copy_from_slice(recovery.have[index].bytes(&(0..length)));
                Bytes::from_owner(copy)
            };
            let blocks: Vec<u64> =
                payload.chunks(header.block_bytes as usize).map(crc64nvme).collect();
            let check =
                crc64_join_blocks(&blocks, stripe.shard_bytes.into(), header.block_bytes.into());
            if check != header.shard_checks[*index] {
                let text = format!("shard {index} of stripe {} comes out wrong", stripe.id);
                return Err(Error::new(&codes::DATA_CORRUPT, text).with("stripe", stripe.id));
            }
            let checks = header.shard_checks.clone();
            let own = of(self.pool, stripe, *index, header.block_bytes, checks, blocks).encode();
            let mut aligned = self.read_memory.take_anyway(own.len());
            aligned.as_mut().copy_from_slice(&own);
            Ok([Bytes::from_owner(aligned), payload])
        };
        indexes.iter().map(parts).collect()
    }

    /// Writes a shard to its own drive, to the preferred one, or to any that has none of this stripe.
    fn place(
        &self,
        stripe: &Stripe,
        index: usize,
        parts: &Parts,
        own: Option<u16>,
        preferred: Option<u16>,
    ) -> Option<u16> {
        let bytes = parts.iter().map(Bytes::len).sum();
        let preferred = preferred.filter(|seat| !stripe.placement.contains(seat));
        let mut refused = Refused::default();
        for seat in own.into_iter().chain(preferred) {
            if self.put_shard(stripe, index, (seat, None), parts, &mut refused) {
                return Some(seat);
            }
        }
        loop {
            let (seat, claim) = self.another(&stripe.placement, &refused, bytes, Purpose::Keep)?;
            if self.put_shard(stripe, index, (seat, Some(claim)), parts, &mut refused) {
                return Some(seat);
            }
        }
    }

    /// Puts a shard on a drive, where room may be taken for it, in the place of whatever is there by its name
    /// unless that is this shard: it may be the one that counts, and a cut or an error after deleting it would
    /// lose it.
    fn put_shard(
        &self,
        stripe: &Stripe,
        index: usize,
        (seat, claim): (u16, Option<Claim>),
        parts: &Parts,
        refused: &mut Refused,
    ) -> bool {
        let roster = self.roster.load();
        let here = roster.seat(seat).and_then(|seat| Some((seat, seat.readable()?)));
        let (Some((seat, drive)), Ok(name)) = (here, header::name(stripe.id, index)) else {
            refused.failed.push(seat);
            return false;
        };
        let (shard, room) = (parts.clone(), Arc::clone(drive.room()));
        let claim = claim.filter(|claim| claim.is_of(&room));
        let mut claim = claim.unwrap_or_else(|| room.claim(self.file_bytes(stripe)));
        let write = move |drive: &dyn Drive| {
            if !holds(drive, &name, &shard)? {
                let bytes = drive.stat(&name).map_or(0, |blob| blob.bytes);
                match room.delete(bytes, || drive.delete(&name)) {
                    Err(error) if !error.is(&codes::BLOB_NOT_FOUND) => return Err(error),
                    _ => {}
                }
                drive.put(&name, &shard)?;
                claim.land();
            }
            // Whoever put what was there may not have synced it yet.
            drive.sync(SYNC_REPAIR)
        };
        let answer = drive.submit(write).wait_for(self.options.drive_timeout);
        let error = match answer {
            Some(Ok(())) => return true,
            Some(Err(error)) => error,
            None => late(),
        };
        if error.is(&codes::DRIVE_FULL) {
            refused.full.push(seat.index);
        } else {
            refused.failed.push(seat.index);
            self.blame(seat.index, &error);
        }
        false
    }
}

/// True if a file begins with these parts. What cannot be read is not there.
///
/// # Errors
/// Those of the process: then it may be there all the same.
fn holds(drive: &dyn Drive, name: &BlobName, parts: &Parts) -> Result<bool> {
    let mut step = vec![0; STEP_BYTES];
    let mut at = 0;
    for part in parts {
        for expected in part.chunks(STEP_BYTES) {
            let into = &mut step[..expected.len()];
            match drive.read(name, at, into) {
                Err(error) if error.is_of_process() => return Err(error),
                Ok(got) if got == expected.len() && into == expected => {}
                _ => return Ok(false),
            }
            at += expected.len() as u64;
        }
    }
    Ok(true)
}
