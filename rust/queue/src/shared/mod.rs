//! A bounded queue of bytes between processes, in POSIX shared memory.
//!
//! # Overview
//! Any number of processes put and get messages, by value, through a [ring](ring) with one lock for those
//! that put and one for those that get. The two sides meet only in two words: the tail, stored after a
//! message is whole, and the head, stored after a copy of it is out. Each word has a position, a count and
//! (the tail) whether the queue is closed, so every change is one step and none can be half done.
//!
//! # How to use
//! [`SharedQueue::make`] gives the queue a name, [`SharedQueue::attach`] finds it by that name in another process;
//! a forked child goes on with what it inherited. [`SharedQueue::put`] and [`SharedQueue::get`] wait;
//! [`SharedQueue::try_put`] and [`SharedQueue::try_take`] do not, and a [`Waiter`] is the step in between, for
//! callers that have something to do now and then while they wait.
//!
//! # Consistency
//! Messages of one producer arrive in its order; with one consumer all arrive in the order of the tail. Each
//! message is taken by one consumer. After closing nothing more is taken in, also by puts that were under
//! way, and what was in can still be taken out.
//!
//! # Crashes
//! A process may be killed at any instruction. In the middle of a put it leaves nothing behind, in the middle of a
//! get the message stays for the next; with a lock it is [found out](lock) by who waits for that; a wake that
//! died with it is made up for within [100 ms](event). Who waits while every other process that used the queue is
//! dead and has not left fails with `queue.abandoned`. Processes are told apart by id *and* start. One that
//! replaces its program (`execve`) in another thread's put or get keeps id and start, and so the lock: such
//! a program leaves the queue first.
//!
//! # Trust
//! The name is for one user only, but its processes may have bugs. What is read from shared memory is
//! checked before it is used: nonsense there is `queue.damaged`, never a panic, an access outside the mapping
//! or an allocation larger than the ring. Two things a peer of the same user can do that cannot be seen
//! coming: to hold a lock for ever while it lives, and to cut the file short, which ends whoever touches the
//! memory with SIGBUS.
//!
//! # Cancellation
//! A [`Waiter`] can be dropped between steps; a wake that it has had is passed on.

mod event;
mod layout;
mod lock;
mod making;
mod memory;
mod message;
mod participants;
mod queue;
mod ring;
mod status;
mod system;
mod taking;
mod waiter;

pub use making::{CAPACITY_BYTES_DEFAULT, Options};
pub use message::Message;
pub use participants::Participant;
pub use queue::{SharedQueue, Try};
pub use status::Counters;
pub use taking::Taking;
pub use waiter::{Need, Waiter};
