//! Goes over all stripes, page by page, several at once.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dwk_base::{Error, Result, StripeId, codes};

use super::control::{Control, Progress, Stage};
use super::presence::{Found, Presence, Present};
use super::report::NAMED_MAX;
use super::{Shared, lock};
use crate::roster::Seat;
use crate::{Ledger, Stripe};

/// Stripes of a page: what a resumed run repeats at most.
const PAGE: usize = 128;

/// What work on one stripe did.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Done {
    pub(crate) restored_shards: u64,
    pub(crate) unrestored_shards: u64,
    pub(crate) missing_shards: u64,
    pub(crate) good_shards: u64,
    pub(crate) absent_shards: u64,
    pub(crate) unread_shards: u64,
    pub(crate) inconsistent: u64,
    pub(crate) read_bytes: u64,
    pub(crate) written_bytes: u64,
}

/// What all of it did.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) progress: Progress,
    pub(crate) done: Done,
    pub(crate) lost_stripes: u64,
    pub(crate) lost: Vec<StripeId>,
    pub(crate) finished: bool,
    pub(crate) foreign: u64,
    /// Drives that did not say all that lies on them.
    pub(crate) unlisted: BTreeSet<u16>,
    failure: Option<Error>,
}

/// What is done with each stripe, and with each page of files.
pub(crate) trait Work: Sync {
    /// Looks after one stripe. `found`: what lies on the drives that are walked along.
    fn stripe(&self, stripe: &Arc<Stripe>, found: &Found) -> Result<Done>;

    /// Looks at files that lie on the drives.
    fn files(&self, files: &Present) -> Result<()> {
        let _ = files;
        Ok(())
    }
}

/// One going over all stripes.
pub(crate) struct Sweep<'a> {
    pub(crate) shared: &'a Arc<Shared>,
    pub(crate) ledger: &'a dyn Ledger,
    pub(crate) control: &'a Control,
    pub(crate) seats: Vec<Arc<Seat>>,
    pub(crate) stage: Stage,
    /// It begins after this stripe.
    pub(crate) after: Option<StripeId>,
}

impl Sweep<'_> {
    /// Does the work on every stripe.
    ///
    /// # Errors
    /// Those of the ledger; what is wrong with single stripes is in the tally.
    pub(crate) fn run(self, work: &dyn Work) -> Result<Tally> {
        let patience = self.shared.options.drive_timeout;
        let mut presence = Presence::new(self.seats.clone(), self.after, patience)?;
        let start = self.shared.seams.clock.monotonic();
        let tally = Mutex::new(Tally::default());
        let mut after = self.after;
        lock(&tally).progress.after = after;
        loop {
            let page = self.ledger.stripes(after, PAGE)?;
            let last = page.last().map(|stripe| stripe.id);
            let found = self.find(&mut presence, &page, work)?;
            lock(&tally).foreign += found.foreign;
            lock(&tally).unlisted.extend(&found.unlisted);
            let page: Vec<Arc<Stripe>> = page.into_iter().map(Arc::new).collect();
            self.work_on(&page, &found, work, &tally, start);
            if let Some(failure) = lock(&tally).failure.take() {
                return Err(failure);
            }
            if self.control.is_over() {
                break;
            }
            work.files(&found.shards)?;
            let mut tally = lock(&tally);
            if last.is_none() {
                (tally.finished, tally.progress.fraction) = (true, 1.0);
                self.control.tell(&self.stage.shown(&tally.progress));
                break;
            }
            after = last.or(after);
            tally.progress.after = after;
        }
        Ok(tally.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    /// What lies on the drives up to the end of a page. What belongs to no stripe of it is worked on at once.
    fn find(&self, presence: &mut Presence, page: &[Stripe], work: &dyn Work) -> Result<Found> {
        let ids = page.iter().map(|stripe| stripe.id).collect();
        let (last, mut found) = (page.last().map(|stripe| stripe.id), Found::default());
        loop {
            let more = presence.up_to(last, &ids, &mut found);
            work.files(&std::mem::take(&mut found.strangers))?;
            if !more || self.control.is_over() {
                return Ok(found);
            }
        }
    }

    /// A stripe that was dropped after its page was read is missed by nobody: the table forgets it before its
    /// shards go.
    fn unless_dropped(&self, stripe: &Stripe, result: Result<Done>) -> Result<Done> {
        let misses = match &result {
            Ok(done) => {
                done.missing_shards
                    + done.absent_shards
                    + done.unread_shards
                    + done.unrestored_shards
                    > 0
            }
            Err(error) => error.is(&codes::DATA_CORRUPT),
        };
        if misses && self.ledger.stripe(stripe.id)?.is_none() {
            let read_bytes = result.map_or(0, |done| done.read_bytes);
            return Ok(Done { read_bytes, ..Done::default() });
        }
        result
    }

    fn work_on(
        &self,
        page: &[Arc<Stripe>],
        found: &Found,
        work: &dyn Work,
        tally: &Mutex<Tally>,
        start: Duration,
    ) {
        let next = AtomicUsize::new(0);
        let work = || {
            while let Some(stripe) = page.get(next.fetch_add(1, Ordering::SeqCst)) {
                if self.control.is_over() || lock(tally).failure.is_some() {
                    return;
                }
                let result = self.unless_dropped(stripe, work.stripe(stripe, found));
                let bytes = {
                    let mut tally = lock(tally);
                    tally.add(stripe.id, result);
                    self.control.tell(&self.stage.shown(&tally.progress));
                    tally.progress.read_bytes + tally.progress.written_bytes
                };
                self.control.throttle(&*self.shared.seams.clock, start, bytes);
            }
        };
        let workers = self.shared.options.repair_width.clamp(1, page.len().max(1));
        std::thread::scope(|scope| {
            for _ in 1..workers {
                // If there are no more threads, this one does it alone.
                let _ = std::thread::Builder::new()
                    .name("dwk-repair".to_owned())
                    .spawn_scoped(scope, work);
            }
            work();
        });
    }
}

impl Done {
    pub(crate) const fn add(&mut self, other: Self) {
        self.restored_shards += other.restored_shards;
        self.unrestored_shards += other.unrestored_shards;
        self.missing_shards += other.missing_shards;
        self.good_shards += other.good_shards;
        self.absent_shards += other.absent_shards;
        self.unread_shards += other.unread_shards;
        self.inconsistent += other.inconsistent;
        self.read_bytes += other.read_bytes;
        self.written_bytes += other.written_bytes;
    }
}

impl Tally {
    fn add(&mut self, stripe: StripeId, result: Result<Done>) {
        let done = match result {
            Ok(done) => done,
            Err(error) if error.is(&codes::DATA_CORRUPT) => {
                self.lost_stripes += 1;
                if self.lost.len() < NAMED_MAX {
                    self.lost.push(stripe);
                }
                Done::default()
            }
            Err(error) => {
                self.failure.get_or_insert(error);
                return;
            }
        };
        self.done.add(done);
        let progress = &mut self.progress;
        progress.stripes += 1;
        progress.restored_shards += done.restored_shards;
        progress.read_bytes += done.read_bytes;
        progress.written_bytes += done.written_bytes;
        let [a, b, c, d, ..] = *stripe.as_bytes();
        let fraction = f64::from(u32::from_be_bytes([a, b, c, d])) / 2f64.powi(32);
        progress.fraction = progress.fraction.max(fraction);
    }
}
