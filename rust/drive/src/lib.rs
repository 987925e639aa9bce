//! Where bytes rest: the [`Drive`] port, its bodies, its conformance suite.

mod attached;
mod port;

pub use attached::{Attached, Ticket};
pub use port::{
    ALIGNMENT, BlobInfo, BlobName, Capacity, Description, Drive, Holder, Lock, LockMode, Log,
    SUPERBLOCK_BYTES_MAX, Slot,
};
