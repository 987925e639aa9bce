//! Bounded queues.

pub mod shared;
