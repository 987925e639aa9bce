//! Drives made one space: membership, stripes, placement, repair.
//!
//! # Overview
//! [`Pool::create`] and [`Pool::open`] turn drives into a pool: a [`Roster`] of seats, a [`Space`] in which
//! stripes are written, read and repaired, and the journal. The table of stripes is kept by a floor above
//! and reached through the [`Ledger`] port.
//!
//! # Consistency
//! A stripe counts when all its shards are durable. Membership changes by epochs, each durable on more
//! drives than the geometry can lose.
//!
//! # Retries
//! A drive that failed is not tried again in this opening; its data goes elsewhere.
//!
//! # Cancellation
//! Long work takes a [`Control`]; what was done stays done, and the next run goes on.

mod advice;
mod asking;
mod away;
mod create;
mod ledger;
mod marks;
mod membership;
mod open;
mod pool;
mod replace;
mod roster;
mod space;
mod status;
mod stripe;
mod verdict;
mod warden;

pub use create::{carries_pool, is_unfinished};
pub use ledger::{Ledger, Usage};
pub use open::OpenOptions;
pub use pool::{NewDrive, Pool, PoolOptions};
pub use roster::{Roster, RosterCell, Seat, State, Watch};
pub use space::{
    Answers, Control, Damage, Filling, Hedges, Landed, Progress, Reading, RebuildReport, SYNC_TAGS,
    ScrubReport, Space, SpaceOptions, Writing,
};
pub use status::{DriveStatus, PoolStatus, Redundancy};
pub use stripe::{Stripe, StripeCode};
