//! `dwkernel.queue`, inside one process.

mod bounded;
mod fast;
mod held;
mod turn;
mod waiting;

pub(crate) use bounded::BoundedQueue;
pub(crate) use fast::install;
#[cfg(unix)]
pub(crate) use turn::Bell;
pub(crate) use turn::QueueTurn;
