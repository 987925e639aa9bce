//! Durable streams.
