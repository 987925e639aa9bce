//! Ground floor of dwkernel: what every other crate speaks.
//!
//! - [`Error`] with a stable [`Code`] from one [registry](codes::REGISTRY);
//! - [`PoolId`], [`DriveId`], [`StripeId`], [`Epoch`], [`CorrelationId`];
//! - [`Deadline`]: until when an operation may take, and the [`Waiter`] that may want it no more;
//! - [`units`]: `"10 GiB"`, `"30s"`;
//! - [`Clock`] and [`Random`]: the only two ways to time and to chance, so that a simulator owns them;
//! - [`Pauses`] between tries;
//! - [`Pour`]: bytes in pieces, into one slice;
//! - [`codec`]: the little-endian byte codec of every on-disk record.

pub mod codec;
pub mod codes;
mod deadline;
mod error;
mod ids;
mod pauses;
mod pour;
mod seams;
pub mod units;

pub use codes::Code;
pub use deadline::{Deadline, Waiter};
pub use error::{Error, Kind, Result};
pub use ids::{CorrelationId, DriveId, Epoch, PoolId, StripeId};
pub use pauses::Pauses;
pub use pour::Pour;
pub use seams::{Clock, ManualClock, Random, Seams, SeededRandom, SystemClock, SystemRandom};
