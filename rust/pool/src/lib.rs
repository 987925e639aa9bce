//! Drives made one space: membership, stripes, placement, repair.

mod ledger;
mod roster;
mod stripe;

pub use ledger::Ledger;
pub use roster::{Roster, RosterCell, Seat, State, Watch};
pub use stripe::{Stripe, StripeCode};
