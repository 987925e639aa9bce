//! Where bytes rest: the [`Drive`] port, its bodies, its conformance suite.
//!
//! - [`Drive`], [`Log`]: the port;
//! - [`MemoryDrive`]: a drive in memory;
//! - [`LocalDrive`]: a drive that is a directory;
//! - [`faulty`]: a drive on which things go wrong, by a seed;
//! - [`Attached`]: a drive with threads of its own, [`Bell`]: rings when it answers; [`Room`]: how much of it is free;
//! - [`conformance`]: the suite that every drive must pass;
//! - [`Superblock`]: what each drive of a pool carries.

mod attached;
mod bell;
mod checks;
pub mod conformance;
pub mod faulty;
mod lease;
#[cfg(unix)]
pub mod local;
mod memory;
mod port;
mod room;
mod superblock;

pub use attached::{Answer, Attached, PARTS_OF_PATIENCE, Ticket};
pub use bell::Bell;
pub use faulty::{FaultyDrive, Power};
#[cfg(unix)]
pub use lease::{InPassing, Lease, lock_in_passing};
pub use local::LocalDrive;
pub use memory::{Entry, MemoryDrive};
pub use port::{
    ALIGNMENT, BlobInfo, BlobName, Capacity, Description, Drive, Holder, Lock, LockMode, Log,
    SUPERBLOCK_BYTES_MAX, Slot,
};
pub use room::{Claim, Question, Room};
pub use superblock::{
    Edition, FORMAT_VERSION, Features, Loaded, MemberRow, MemberState, Placed, SlotState,
    Superblock,
};
