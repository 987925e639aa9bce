//! Bounded queues: lock-free between threads, over shared memory between processes.
//!
//! - [`Ring`]: many producers, many consumers, nothing ever waits; singly and in batches;
//! - [`Queue`]: rings as priority lanes, with waiting: blocked threads, deadlines, futures; closing in order;
//! - [`spsc`]: one producer, one consumer;
//! - [`Turn`]: a place in the line of those who wait, for those who bring a loop of their own;
//! - [`Bell`]: an event loop's wake-ups as a readable file;
//! - [`shared`]: bytes between processes, over shared memory.

mod alone;
#[cfg(unix)]
mod bell;
mod future;
mod outcome;
mod parker;
mod patience;
mod queue;
mod ring;
pub mod shared;
pub mod spsc;
mod sync;
mod waiters;

#[cfg(unix)]
pub use bell::Bell;
pub use future::{Pop, Push};
pub use outcome::{PopError, PushError};
#[cfg(target_os = "linux")]
pub use parker::is_main_thread;
pub use queue::{CAPACITY_MAX, LANES_MAX, Options, Queue, Stats};
pub use ring::Ring;
pub use waiters::{Turn, Waited};
