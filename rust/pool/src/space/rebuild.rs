//! Restores what is missing without rereading what is well, and brings back drives that were away.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dwk_base::{Error, Result, StripeId, codes};
use dwk_drive::Drive;

use super::control::Stage;
use super::presence::{Found, Present};
use super::recover::Recovery;
use super::restore::Wanted;
use super::scrub::check_stripe;
use super::sweep::{Done, Sweep, Tally, Work};
use super::{Control, RebuildReport, Shared, Space, header};
use crate::roster::Seat;
use crate::{Ledger, State, Stripe};

impl Space {
    /// Restores what is missing: of the drive `which`, or everywhere. Reads only what that needs. New shards
    /// go where there is room, those that are missing on a drive that is well go back to it. Stripes that
    /// reads found damaged are repaired as well, and what was written while too few drives were here is written
    /// anew if there are enough now. Can be repeated after a kill or an early end.
    ///
    /// # Errors
    /// `pool.repairing` while another scrub, rebuild or refresh runs; those of the ledger. What could not be
    /// restored is in the report.
    pub fn rebuild(
        &self,
        ledger: &dyn Ledger,
        which: Option<u16>,
        control: &Control,
    ) -> Result<RebuildReport> {
        let stage = Stage::first(1).and_then(self.widenings(ledger)?);
        self.rebuild_stage(ledger, which, control, stage)
    }

    pub(crate) fn rebuild_stage(
        &self,
        ledger: &dyn Ledger,
        which: Option<u16>,
        control: &Control,
        stage: Stage,
    ) -> Result<RebuildReport> {
        let _alone = self.sweep_alone()?;
        let roster = self.shared.roster.load();
        let seats = roster.seats.iter().filter(|seat| {
            seat.readable().is_some()
                && seat.state != State::Stale
                && which.is_none_or(|which| which == seat.index)
        });
        let seats: Vec<_> = seats.cloned().collect();
        let walked = seats.iter().map(|seat| seat.index).collect();
        // Each is forgotten when it is repaired.
        let damaged = self.noted(ledger)?.into_iter().map(|stripe| stripe.id).collect();
        let shared = &self.shared;
        let work = Rebuild { shared, ledger, control, which, walked, damaged };
        let (last, after) = (stage.last(), control.after());
        let mut tally = Sweep { shared, ledger, control, seats, stage, after }.run(&work)?;
        if !tally.finished {
            return Ok(report(tally));
        }
        let widened_stripes = self.widen_weak(ledger, control, &last, &mut tally.progress)?;
        let finished = !control.is_over();
        let weak_stripes = self.weak_stripes(ledger)?;
        Ok(RebuildReport { widened_stripes, weak_stripes, finished, ..report(tally) })
    }

    /// Brings a drive that was away up to date: what should be there and is not is written to it, what should
    /// not be there is removed. Of what is there only the headers are read. It always begins at the beginning: what
    /// an earlier run did says nothing about a drive that was away since.
    ///
    /// # Errors
    /// `drive.unknown`, `pool.repairing` while another scrub, rebuild or refresh runs, and those of the ledger.
    pub fn refresh(
        &self,
        ledger: &dyn Ledger,
        seat: u16,
        control: &Control,
    ) -> Result<RebuildReport> {
        self.refresh_stage(ledger, seat, control, Stage::first(1)).map(|refreshed| refreshed.report)
    }

    pub(crate) fn refresh_stage(
        &self,
        ledger: &dyn Ledger,
        seat: u16,
        control: &Control,
        stage: Stage,
    ) -> Result<Refreshed> {
        let _alone = self.sweep_alone()?;
        let roster = self.shared.roster.load();
        let Some(seat) = roster.seat(seat).filter(|seat| seat.readable().is_some()).cloned() else {
            let text = format!("there is no drive on seat {seat}");
            return Err(Error::new(&codes::DRIVE_UNKNOWN, text));
        };
        let shared = &self.shared;
        let (removed, awaited) = (AtomicU64::new(0), AtomicU64::new(0));
        let work = Refresh { shared, ledger, seat: Arc::clone(&seat), removed, awaited };
        let (seats, after) = (vec![seat], None);
        let tally = Sweep { shared, ledger, control, seats, stage, after }.run(&work)?;
        let mut report = report(tally);
        report.removed_files = work.removed.into_inner();
        let has_all = report.unrestored_shards == 0 && work.awaited.into_inner() == 0;
        let is_current = report.finished && has_all && report.unlisted_drives == 0;
        Ok(Refreshed { report, is_current })
    }
}

/// What bringing a drive up to date did.
pub(crate) struct Refreshed {
    pub(crate) report: RebuildReport,
    /// The drive has all that can be had: what it lacks is of stripes that are lost for good, and is noted.
    pub(crate) is_current: bool,
}

fn report(tally: Tally) -> RebuildReport {
    RebuildReport {
        stripes: tally.progress.stripes,
        missing_shards: tally.done.missing_shards,
        restored_shards: tally.done.restored_shards,
        unrestored_shards: tally.done.unrestored_shards,
        lost_stripes: tally.lost_stripes,
        lost: tally.lost,
        read_bytes: tally.done.read_bytes,
        written_bytes: tally.done.written_bytes,
        removed_files: 0,
        widened_stripes: 0,
        weak_stripes: 0,
        unlisted_drives: tally.unlisted.len() as u64,
        finished: tally.finished,
        after: tally.progress.after,
    }
}

struct Rebuild<'a> {
    shared: &'a Arc<Shared>,
    ledger: &'a dyn Ledger,
    control: &'a Control,
    which: Option<u16>,
    /// Drives of which it is known what lies on them.
    walked: BTreeSet<u16>,
    damaged: BTreeSet<StripeId>,
}

impl Rebuild<'_> {
    /// What of a stripe is not where it should be.
    fn wanted(&self, stripe: &Stripe, found: &Found) -> Wanted {
        let roster = self.shared.roster.load();
        let mut wanted = Wanted::default();
        for (index, seat) in stripe.placement.iter().enumerate() {
            if self.which.is_some_and(|which| which != *seat) {
                continue;
            }
            let here = roster.seat(*seat).filter(|seat| seat.readable().is_some());
            let Some(here) = here else {
                wanted.elsewhere.push(index);
                continue;
            };
            let bytes = found.shards.get(&(*seat, stripe.id, index));
            // One that is shorter is looked at: its blocks may be others than those of now.
            let there = bytes.is_some_and(|bytes| *bytes >= self.shared.file_bytes(stripe));
            let known = self.walked.contains(seat) && !found.unlisted.contains(seat);
            match here.state {
                State::Draining if there || !known => wanted.moving.push(index),
                State::Draining => wanted.elsewhere.push(index),
                // The list may be older than the stripe: look again.
                _ if known && !there && !self.shared.is_there(here, stripe, index) => {
                    wanted.in_place.push(index);
                }
                _ => {}
            }
        }
        wanted
    }

    fn restore(&self, stripe: &Arc<Stripe>, found: &Found) -> Result<Done> {
        let wanted = self.wanted(stripe, found);
        if wanted.is_empty() {
            return Ok(Done::default());
        }
        restore(self.shared, self.ledger, stripe, &wanted, self.control.preferred())
    }
}

impl Work for Rebuild<'_> {
    fn stripe(&self, stripe: &Arc<Stripe>, found: &Found) -> Result<Done> {
        if !self.damaged.contains(&stripe.id) {
            return self.restore(stripe, found);
        }
        let mut done = check_stripe(self.shared, self.ledger, stripe)?;
        // It may lie elsewhere now.
        let now = self.ledger.stripe(stripe.id)?.filter(|_| done.unrestored_shards == 0);
        if let Some(now) = now {
            done.add(self.restore(&Arc::new(now), found)?);
        }
        Ok(done)
    }
}

fn restore(
    shared: &Arc<Shared>,
    ledger: &dyn Ledger,
    stripe: &Arc<Stripe>,
    wanted: &Wanted,
    preferred: Option<u16>,
) -> Result<Done> {
    // It may have moved or gone since the page was read.
    match ledger.stripe(stripe.id)? {
        Some(now) if now == **stripe => {}
        _ => return Ok(Done::default()),
    }
    let mut recovery = Recovery::new(shared, stripe, 0..stripe.shard_bytes as usize)?;
    restore_from(&mut recovery, ledger, stripe, wanted, preferred)
}

fn restore_from(
    recovery: &mut Recovery<'_>,
    ledger: &dyn Ledger,
    stripe: &Arc<Stripe>,
    wanted: &Wanted,
    preferred: Option<u16>,
) -> Result<Done> {
    let restored = recovery.shared().restore(ledger, recovery, stripe, wanted, preferred)?;
    Ok(Done {
        missing_shards: wanted.all().len() as u64,
        restored_shards: restored.shards,
        unrestored_shards: restored.refused,
        read_bytes: recovery.read_bytes,
        written_bytes: restored.written_bytes,
        ..Done::default()
    })
}

struct Refresh<'a> {
    shared: &'a Arc<Shared>,
    ledger: &'a dyn Ledger,
    seat: Arc<Seat>,
    removed: AtomicU64,
    /// Stripes that cannot be read as long as other drives are away.
    awaited: AtomicU64,
}

impl Refresh<'_> {
    /// Restores the shard `index`. If its stripe is lost for good, that is noted, and no reason to wait.
    fn restore(&self, stripe: &Arc<Stripe>, index: usize) -> Result<Done> {
        let wanted = Wanted { in_place: vec![index], ..Wanted::default() };
        let mut recovery = Recovery::new(self.shared, stripe, 0..stripe.shard_bytes as usize)?;
        let done = restore_from(&mut recovery, self.ledger, stripe, &wanted, None);
        let is_lost = done.as_ref().is_err_and(|error| error.is(&codes::DATA_CORRUPT));
        if is_lost && self.ledger.stripe(stripe.id)?.is_some() {
            if recovery.is_final(index) {
                self.shared.note_repair(stripe.id, index, self.seat.index);
            } else {
                self.awaited.fetch_add(1, Ordering::SeqCst);
            }
        }
        done
    }
}

impl Shared {
    /// True if a shard is there by its length and header.
    fn is_there(self: &Arc<Self>, seat: &Seat, stripe: &Stripe, index: usize) -> bool {
        let Some(drive) = seat.readable() else { return false };
        let (shared, stripe) = (Arc::clone(self), stripe.clone());
        let check = move |drive: &dyn Drive| {
            let name = header::name(stripe.id, index)?;
            let mut begin = vec![0; shared.header_bytes(&stripe)];
            let got = drive.read(&name, 0, &mut begin)?;
            let header = shared.take_header(drive, &stripe, index, &begin[..got])?;
            let whole = header.bytes() as u64 + u64::from(stripe.shard_bytes);
            Ok(drive.stat(&name)?.bytes >= whole)
        };
        matches!(drive.submit(check).wait_for(self.options.drive_timeout), Some(Ok(true)))
    }
}

impl Work for Refresh<'_> {
    fn stripe(&self, stripe: &Arc<Stripe>, _found: &Found) -> Result<Done> {
        let seat = self.seat.index;
        let Some(index) = stripe.placement.iter().position(|other| *other == seat) else {
            return Ok(Done::default());
        };
        self.shared.headers.forget(stripe.id, index);
        if self.shared.is_there(&self.seat, stripe, index) {
            return Ok(Done { good_shards: 1, ..Done::default() });
        }
        match self.ledger.stripe(stripe.id)? {
            Some(now) if now == **stripe => self.restore(stripe, index),
            // It moved or went since the page was read.
            _ => Ok(Done::default()),
        }
    }

    fn files(&self, files: &Present) -> Result<()> {
        for (seat, id, index) in files.keys() {
            let removed = self.shared.remove_if_older(self.ledger, *seat, *id, *index)?;
            self.removed.fetch_add(u64::from(removed), Ordering::SeqCst);
        }
        Ok(())
    }
}
