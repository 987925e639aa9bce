//! Bounded queues.
