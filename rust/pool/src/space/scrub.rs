//! Reads everything, verifies it, and repairs what is wrong.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dwk_base::Result;

use super::control::Stage;
use super::presence::{Found, Present};
use super::recover::Recovery;
use super::restore::Wanted;
use super::sweep::{Done, Sweep, Work};
use super::{Control, ScrubReport, Shared, Space};
use crate::{Ledger, State, Stripe};

impl Space {
    /// Reads every shard of every stripe, verifies header, blocks and parity, and writes anew what is wrong on
    /// drives that are here. Shards that no stripe names go through quarantine: noted by one scrub, they are
    /// removed by another one after the pool was opened again. Can be repeated, or continued where the progress of
    /// an earlier run says, after a kill or an early end.
    ///
    /// # Errors
    /// `pool.repairing` while another scrub, rebuild or refresh runs; those of the ledger. What could not be
    /// repaired is in the report.
    pub fn scrub(&self, ledger: &dyn Ledger, control: &Control) -> Result<ScrubReport> {
        let _alone = self.sweep_alone()?;
        let shared = &self.shared;
        let roster = shared.roster.load();
        let here = roster.seats.iter().filter(|seat| seat.readable().is_some());
        let seats: Vec<_> = here.cloned().collect();
        let removed_orphans = match control.after() {
            None => shared.end_quarantine(ledger, &seats, control)?,
            Some(_) => 0,
        };
        let work = Scrub { shared, ledger, orphans: AtomicU64::new(0), foreign: AtomicU64::new(0) };
        let (stage, after) = (Stage::first(1), control.after());
        let tally = Sweep { shared, ledger, control, seats, stage, after }.run(&work)?;
        Ok(ScrubReport {
            stripes: tally.progress.stripes,
            good_shards: tally.done.good_shards,
            damaged_shards: tally.done.missing_shards,
            absent_shards: tally.done.absent_shards,
            unread_shards: tally.done.unread_shards,
            restored_shards: tally.done.restored_shards,
            unrestored_shards: tally.done.unrestored_shards,
            lost_stripes: tally.lost_stripes,
            lost: tally.lost,
            inconsistent_stripes: tally.done.inconsistent,
            orphans: work.orphans.into_inner(),
            removed_orphans,
            foreign_files: tally.foreign + work.foreign.into_inner(),
            read_bytes: tally.done.read_bytes,
            written_bytes: tally.done.written_bytes,
            journal_repairs: 0,
            lost_batches: 0,
            unrepaired_batches: 0,
            finished: tally.finished,
            after: tally.progress.after,
        })
    }
}

struct Scrub<'a> {
    shared: &'a Arc<Shared>,
    ledger: &'a dyn Ledger,
    orphans: AtomicU64,
    foreign: AtomicU64,
}

impl Work for Scrub<'_> {
    fn stripe(&self, stripe: &Arc<Stripe>, _found: &Found) -> Result<Done> {
        check_stripe(self.shared, self.ledger, stripe)
    }

    fn files(&self, files: &Present) -> Result<()> {
        for (seat, id, index) in files.keys() {
            match self.shared.quarantine(self.ledger, *seat, *id, *index)? {
                Standing::Wanted | Standing::Gone => {}
                Standing::Orphan => drop(self.orphans.fetch_add(1, Ordering::SeqCst)),
                Standing::Foreign => drop(self.foreign.fetch_add(1, Ordering::SeqCst)),
            }
        }
        Ok(())
    }
}

/// What a file among the shards is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// A stripe names it.
    Wanted,
    /// No stripe names it.
    Orphan,
    /// Another pool's.
    Foreign,
    /// It is not there any more.
    Gone,
}

/// Reads and verifies a whole stripe and restores what is damaged on drives that are here.
pub(crate) fn check_stripe(
    shared: &Arc<Shared>,
    ledger: &dyn Ledger,
    stripe: &Arc<Stripe>,
) -> Result<Done> {
    let all: Vec<usize> = (0..stripe.placement.len()).collect();
    // What lies on the drives counts, not what is remembered of it.
    for index in &all {
        shared.headers.forget(stripe.id, *index);
    }
    let noted = shared.notes.of(stripe.id);
    let mut recovery = Recovery::new(shared, stripe, 0..stripe.shard_bytes as usize)?;
    recovery.read(&all)?;
    while !recovery.agree() {}
    // What was met since may have come after its shard was read here.
    let well = |(index, seat): &(usize, u16)| {
        recovery.have.contains_key(index) && stripe.placement[*index] == *seat
    };
    shared.notes.forget(stripe.id, &noted.into_iter().filter(well).collect());
    let mut done = Done { good_shards: recovery.have.len() as u64, ..Done::default() };
    if recovery.have.len() == all.len() {
        done.read_bytes = recovery.read_bytes;
        done.inconsistent = u64::from(!recovery.verify()?);
        return Ok(done);
    }
    match ledger.stripe(stripe.id)? {
        Some(now) if now == **stripe => {}
        // It moved or went while it was read.
        _ => return Ok(Done::default()),
    }
    let roster = shared.roster.load();
    let mut wanted = Wanted::default();
    for (index, error) in &recovery.lost {
        let seat = roster.seat(stripe.placement[*index]);
        match seat.filter(|seat| seat.readable().is_some()) {
            // A late drive says nothing about its shard.
            Some(_) if error.is_none() => done.unread_shards += 1,
            Some(seat) if seat.state == State::Draining => wanted.elsewhere.push(*index),
            Some(_) => wanted.in_place.push(*index),
            None => done.absent_shards += 1,
        }
    }
    done.missing_shards = wanted.all().len() as u64;
    if wanted.is_empty() {
        recovery.gather(&(0..usize::from(stripe.code.data)).collect::<Vec<_>>())?;
    } else {
        let restored = shared.restore(ledger, &mut recovery, stripe, &wanted, None)?;
        done.restored_shards = restored.shards;
        done.unrestored_shards = restored.refused;
        done.written_bytes = restored.written_bytes;
    }
    done.read_bytes = recovery.read_bytes;
    Ok(done)
}

impl Recovery<'_> {
    /// True if the parity is that of the data. Every shard is here.
    fn verify(&self) -> Result<bool> {
        let range = self.range();
        let shards: Vec<&[u8]> = self.have.values().map(|piece| piece.bytes(&range)).collect();
        self.code().verify(&shards)
    }
}
