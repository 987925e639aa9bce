//! Bounded queues: lock-free between threads, over shared memory between processes.
//!
//! - [`Ring`]: many producers, many consumers, nothing ever waits; singly and in batches;
//! - [`Queue`]: rings as priority lanes, with waiting: blocked threads, deadlines, futures; closing in order;
//! - [`spsc`]: one producer, one consumer;
//! - [`Turn`]: a place in the line of those who wait, for those who bring a loop of their own.

mod future;
mod outcome;
mod parker;
mod patience;
mod queue;
mod ring;
pub mod spsc;
mod sync;
mod waiters;

pub use future::{Pop, Push};
pub use outcome::{PopError, PushError};
pub use queue::{CAPACITY_MAX, LANES_MAX, Options, Queue, Stats};
pub use ring::Ring;
pub use waiters::{Turn, Waited};
