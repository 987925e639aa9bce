//! Drives made one space: membership, stripes, placement, repair.

mod ledger;
mod roster;
mod space;
mod stripe;

pub use ledger::Ledger;
pub use roster::{Roster, RosterCell, Seat, State, Watch};
pub use space::{Filling, Reading, SYNC_TAGS, Space, SpaceOptions, Writing};
pub use stripe::{Stripe, StripeCode};
