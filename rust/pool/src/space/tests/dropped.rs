//! Stripes that are dropped while something goes over all of them.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};

use dwk_base::{Result, StripeId};
use dwk_drive::Drive;

use super::super::{Control, header};
use super::world::{RS42, World, bytes};
use crate::{Ledger, Stripe};

/// A table from which a stripe is dropped once it was looked at, while its page is older still.
pub(super) struct Dropped<'a>(pub(super) &'a World, pub(super) Stripe, pub(super) AtomicBool);

impl Ledger for Dropped<'_> {
    fn stripe(&self, id: StripeId) -> Result<Option<Stripe>> {
        if id == self.1.id && !self.2.swap(true, Ordering::SeqCst) {
            return Ok(Some(self.1.clone()));
        }
        self.0.table.stripe(id)
    }

    fn stripes(&self, after: Option<StripeId>, limit: usize) -> Result<Vec<Stripe>> {
        let mut page = self.0.table.stripes(after, limit)?;
        if after.is_none_or(|after| self.1.id > after) {
            page.push(self.1.clone());
            page.sort_unstable_by_key(|stripe| stripe.id);
        }
        Ok(page)
    }

    fn rewrite(&self, stripes: &BTreeSet<StripeId>) -> Result<u64> {
        self.0.table.rewrite(stripes)
    }

    fn moved(&self, old: &Stripe, new: &Stripe) -> Result<bool> {
        self.0.table.moved(old, new)
    }
}

#[test]
fn a_stripe_that_is_dropped_in_the_middle_is_not_called_lost() {
    for some in [false, true] {
        let world = World::new(6, RS42, 70);
        (0..3).for_each(|n| drop(world.put(&bytes(n, 30_000)).unwrap()));
        let stripe = world.write(&bytes(9, 30_000)).unwrap();
        // Its shards are going: some of them are there yet, or none.
        for (index, seat) in stripe.placement.iter().enumerate().skip(usize::from(some)) {
            let name = header::name(stripe.id, index).unwrap();
            world.drives[usize::from(*seat)].delete(&name).unwrap();
        }
        let ledger = || Dropped(&world, stripe.clone(), AtomicBool::new(false));
        let control = Control::default();
        let report = world.space.rebuild(&ledger(), None, &control).unwrap();
        assert!(report.is_complete() && report.missing_shards == 0, "{report:?}");
        let report = world.space.scrub(&ledger(), &control).unwrap();
        assert!(report.is_clean(), "{report:?}");
        let report = world.space.refresh(&ledger(), 0, &control).unwrap();
        assert!(report.is_complete(), "{report:?}");
    }
}
