//! The port through which the pool reads and changes the table of stripes, which a floor above keeps.

use std::collections::{BTreeMap, BTreeSet};

use dwk_base::{Result, StripeId};

use crate::{Stripe, StripeCode};

/// Stripes looked at under one read of the table.
const PAGE: usize = 1024;

/// What lies on one seat.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Shards.
    pub shards: u64,
    /// Their payload.
    pub bytes: u64,
}

/// The table of stripes. What it returns is committed; what it is told is durable on return.
pub trait Ledger: Send + Sync {
    /// The stripe, if it is still there.
    ///
    /// # Errors
    /// Those of reading the table.
    fn stripe(&self, id: StripeId) -> Result<Option<Stripe>>;

    /// Up to `limit` stripes after `after`, in the order of id.
    ///
    /// # Errors
    /// Those of reading the table.
    fn stripes(&self, after: Option<StripeId>, limit: usize) -> Result<Vec<Stripe>>;

    /// Replaces the placement of a stripe if it is still as `old` says; false if it changed or went.
    ///
    /// # Errors
    /// Those of a commit.
    fn moved(&self, old: &Stripe, new: &Stripe) -> Result<bool>;

    /// Writes what lies in `stripes` into new ones, as new content is written, and drops those that nothing
    /// refers to any more. Returns in how many of `stripes` nothing lies now. What it was is there all the
    /// time, also after a crash.
    ///
    /// # Errors
    /// Those of reading and writing stripes, and of a commit; what was done stays done.
    fn rewrite(&self, stripes: &BTreeSet<StripeId>) -> Result<u64>;

    /// Keeps what is [known](crate::Space::damage) of damage, so that it is known after the next opening too.
    ///
    /// # Errors
    /// Those of a commit.
    fn keep_damage(&self) -> Result<()> {
        Ok(())
    }

    /// How many stripes that something lies in there are of each code, with those that the next commits may name.
    ///
    /// # Errors
    /// Those of reading the table.
    fn codes(&self) -> Result<BTreeMap<StripeCode, u64>> {
        let (mut codes, mut after) = (BTreeMap::new(), None);
        loop {
            let page = self.stripes(after, PAGE)?;
            let Some(last) = page.last() else { return Ok(codes) };
            after = Some(last.id);
            for stripe in &page {
                *codes.entry(stripe.code).or_default() += 1;
            }
        }
    }

    /// What lies on a seat: of the stripes in the table, and of those that are written and that the next commits
    /// may name. While there is any of it the seat stays.
    ///
    /// # Errors
    /// Those of reading the table.
    fn usage(&self, seat: u16) -> Result<Usage> {
        let (mut usage, mut after) = (Usage::default(), None);
        loop {
            let page = self.stripes(after, PAGE)?;
            for stripe in &page {
                let here = stripe.placement.iter().filter(|index| **index == seat).count() as u64;
                usage.shards += here;
                usage.bytes += here * u64::from(stripe.shard_bytes);
            }
            match page.last() {
                Some(last) => after = Some(last.id),
                None => return Ok(usage),
            }
        }
    }
}
