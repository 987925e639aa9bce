//! `dwkernel.queue`, inside one process.

mod bounded;
mod fast;
mod forks;
mod held;
mod turn;
mod waiting;

pub(crate) use bounded::BoundedQueue;
pub(crate) use fast::install;
pub(crate) use forks::queue_forked;
#[cfg(unix)]
pub(crate) use turn::Bell;
pub(crate) use turn::QueueTurn;
