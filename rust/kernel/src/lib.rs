//! The one door, and what stands behind it.
//!
//! # Overview
//! A [`Kernel`] is an open store. Whoever wants something of it, be it Python, a command or one day a
//! protocol, makes a [`Context`] (who, until when, which operation) and calls
//! [`Kernel::execute`] with an [`Operation`]. There is no other way in.
//!
//! # Consistency
//! An operation that changes something is durable and visible when it returns `Ok`; one that returns an
//! error changed nothing, except for long work (scrub, rebuild, replace), whose finished parts stay, and
//! for `context.deadline` with the detail `outcome` (`unknown`): the change was on its way to the drives, and
//! may become durable and visible, whole, at any time from then on.
//!
//! # Cancellation
//! The context's deadline holds everywhere: before the operation, between pieces of a stream, in queues,
//! while drives are waited for, and between steps of long work. [`Kernel::close`] waits for what is under
//! way.

mod context;
mod disk;
mod door;
mod events;
mod flights;
mod foreign;
mod forks;
mod holder;
mod kernel;
mod leaving;
mod limits;
mod locate;
mod making;
mod open;
pub mod operations;
mod pointers;
pub mod policies;

pub use context::{Context, Principal};
pub use door::{Access, Door, Pass, Place, Request, Resource, Stage};
pub use foreign::{DriveSource, register_drives, unregister_drives};
pub use forks::Guarded;
pub use kernel::{Kernel, Operation};
pub use limits::{Live, Settings, Snapshot};
pub use locate::{Drives, forget_memory_drives};
pub use open::{Create, OpenSpec, Tuning};

pub use dwk_base::{Deadline, Waiter};
