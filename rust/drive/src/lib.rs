//! Where bytes rest: the [`Drive`] port, its bodies, its conformance suite.
//!
//! - [`Drive`], [`Log`]: the port;
//! - [`MemoryDrive`]: a drive in memory;
//! - [`Attached`]: a drive with threads of its own.

mod attached;
mod checks;
mod memory;
mod port;
mod superblock;

pub use attached::{Attached, Ticket};
pub use memory::{Entry, MemoryDrive};
pub use port::{
    ALIGNMENT, BlobInfo, BlobName, Capacity, Description, Drive, Holder, Lock, LockMode, Log,
    SUPERBLOCK_BYTES_MAX, Slot,
};
pub use superblock::{
    FORMAT_VERSION, Features, Loaded, MemberRow, MemberState, SlotState, Superblock,
};
