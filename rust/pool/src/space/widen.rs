//! Weak stripes: written while too few drives were here, they survive fewer losses than the geometry
//! promises. As soon as there are drives for a better code, their content is written anew.
//!
//! A stripe never changes, so that the content goes into another one: which rows it belongs to, and that it
//! is there all the time, is the ledger's business.

use std::collections::BTreeSet;
use std::sync::Arc;

use dwk_base::{Result, StripeId, codes};

use super::coding::Coding;
use super::control::Stage;
use super::{Control, Progress, Shared, Space};
use crate::{Ledger, Stripe};

/// Stripes looked at under one read of the table.
const PAGE: usize = 1024;
/// Content that is written anew at once: the ledger looks for all of it in one pass.
const BATCH_BYTES: u64 = 256 << 20;
/// Stripes that are written anew at once.
const BATCH_MAX: usize = 4096;
/// A row may change while its content moves; then its stripe is tried once more.
const TRIES: usize = 2;

impl Space {
    /// How many stripes survive fewer losses than the geometry promises: written while too few drives were
    /// here, and not written anew since.
    ///
    /// # Errors
    /// Those of reading the table.
    pub fn weak_stripes(&self, ledger: &dyn Ledger) -> Result<u64> {
        let codes = ledger.codes()?;
        let weak = codes.iter().filter(|(code, _)| self.shared.coding.is_weak(**code));
        Ok(weak.map(|(_, stripes)| stripes).sum())
    }

    /// 1 if there are weak stripes, else 0: of so many stages is writing them anew.
    pub(crate) fn widenings(&self, ledger: &dyn Ledger) -> Result<u32> {
        Ok(u32::from(self.weak_stripes(ledger)? > 0))
    }

    /// Writes the content of weak stripes anew, as far as there are drives for a better code. A rebuild does
    /// so at its end. Returns how many stripes it emptied.
    ///
    /// # Errors
    /// `pool.repairing` while a scrub, rebuild or refresh runs; those of the ledger.
    pub(crate) fn widen(
        &self,
        ledger: &dyn Ledger,
        control: &Control,
        stage: &Stage,
    ) -> Result<u64> {
        let _alone = self.sweep_alone()?;
        self.widen_weak(ledger, control, stage, &mut Progress::default())
    }

    /// As [`widen`](Self::widen), for a caller that is alone already.
    pub(crate) fn widen_weak(
        &self,
        ledger: &dyn Ledger,
        control: &Control,
        stage: &Stage,
        progress: &mut Progress,
    ) -> Result<u64> {
        let weak = self.weak_stripes(ledger)?;
        if weak == 0 {
            progress.fraction = 1.0;
            control.tell(&stage.shown(progress));
            return Ok(0);
        }
        let shared = &self.shared;
        let start = shared.seams.clock.monotonic();
        let (mut emptied, mut bytes, mut after) = (0, 0, None);
        progress.fraction = 0.0;
        while !control.is_over() {
            let Some(batch) = shared.weak_batch(ledger, &mut after)? else {
                progress.fraction = 1.0;
                control.tell(&stage.shown(progress));
                break;
            };
            match empty(ledger, &batch.stripes) {
                Ok(stripes) => emptied += stripes,
                // What is lost stays as it is, and is counted as lost.
                Err(error) if error.is(&codes::DATA_CORRUPT) => {}
                Err(error) => return Err(error),
            }
            bytes += 2 * batch.bytes;
            progress.read_bytes += batch.bytes;
            progress.written_bytes += batch.bytes;
            let left = self.weak_stripes(ledger)?.min(weak);
            progress.fraction = progress.fraction.max(1.0 - left as f64 / weak as f64);
            control.tell(&stage.shown(progress));
            control.throttle(&*shared.seams.clock, start, bytes);
        }
        Ok(emptied)
    }
}

/// Writes anew what lies in `stripes`, and says how many are empty then.
fn empty(ledger: &dyn Ledger, stripes: &BTreeSet<StripeId>) -> Result<u64> {
    let mut emptied = 0;
    for _ in 0..TRIES {
        emptied = ledger.rewrite(stripes)?;
        if emptied == stripes.len() as u64 {
            break;
        }
    }
    Ok(emptied)
}

/// Stripes that are written anew together.
#[derive(Debug, Default)]
struct Batch {
    stripes: BTreeSet<StripeId>,
    bytes: u64,
}

impl Shared {
    /// The next weak stripes after `after` that can become better now; `None` if there are no more.
    fn weak_batch(
        self: &Arc<Self>,
        ledger: &dyn Ledger,
        after: &mut Option<StripeId>,
    ) -> Result<Option<Batch>> {
        let mut batch = Batch::default();
        loop {
            let page = ledger.stripes(*after, PAGE)?;
            for stripe in &page {
                if self.can_widen(stripe) {
                    batch.bytes += u64::from(stripe.payload_bytes);
                    batch.stripes.insert(stripe.id);
                }
                *after = Some(stripe.id);
                if batch.bytes >= BATCH_BYTES || batch.stripes.len() == BATCH_MAX {
                    return Ok(Some(batch));
                }
            }
            if page.is_empty() {
                return Ok((!batch.stripes.is_empty()).then_some(batch));
            }
        }
    }

    /// True if a stripe is weak, can be read, and would survive more losses if it were written now.
    fn can_widen(&self, stripe: &Stripe) -> bool {
        if !self.coding.is_weak(stripe.code) {
            return false;
        }
        let roster = self.roster.load();
        let gone = |seat: &u16| roster.seat(*seat).is_none_or(|seat| seat.readable().is_none());
        let shards = stripe.placement.iter().enumerate();
        let missing: Vec<usize> =
            shards.filter(|(_, seat)| gone(seat)).map(|(index, _)| index).collect();
        self.spec_now().map(|spec| spec.tolerance()) > Coding::tolerance(stripe.code)
            && self.coding.stored(stripe.code).is_ok_and(|code| code.tolerates(&missing))
    }
}
