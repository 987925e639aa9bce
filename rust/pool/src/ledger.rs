//! The port through which the pool reads and changes the table of stripes, which a floor above keeps.

use dwk_base::{Result, StripeId};

use crate::Stripe;

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
}
