//! A bounded queue of bytes between processes, in POSIX shared memory.
//!
//! # Overview
//! Any number of processes put and get messages, by value, through a ring (`ring.rs`) with one lock for those
//! that put and one for those that get (`lock.rs`, where it says why it is not the C library's robust mutex).
//! The two sides meet only in two words: the tail, stored after a message is whole, and the head, stored
//! after a copy of it is out. Each word has a position, a count and (the tail) whether the queue is closed,
//! so every change is one step and none can be half done: a lock that is taken from the dead needs no
//! repair of what it protects.
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
//! A process may be killed at any instruction. In the middle of a put it leaves nothing behind, in the middle
//! of a get the message stays for the next. Its lock is broken by who waits for it; a wake that died with it
//! is made up for within 100 ms (`event.rs`). Who waits while every other process that used the queue is dead
//! and has not left fails with `queue.abandoned`. Processes are told apart by id *and* start. One that replaces
//! its program (`execve`) while another of its threads is in a put or get keeps id and start, and so the
//! lock: such a program leaves the queue first.
//!
//! # Names
//! A name is a file in `/dev/shm`, `dwkernel-<uid>-<name>`, that appears when the queue in it is complete, and
//! goes when its maker leaves. Closing does not take it away: a process that was started a moment before and
//! has not attached yet would find nothing, and what is in the queue may be for it. But the name of a closed
//! queue is free for a new one. What a killed maker left is swept by the next that makes a queue, once no
//! living process uses it.
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
