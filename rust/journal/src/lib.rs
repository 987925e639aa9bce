//! The ordered log of commits, on drives.
//!
//! # Overview
//! A log of *records*, kept in equal copies on several *members*. Records are written in *batches*, batches
//! lie in *segments*, and a chain of hashes runs through all of them. `docs/format/journal.md` draws the
//! bytes.
//!
//! # How to use
//! Make a log with [`Journal::create`] or find it with [`Journal::open`]; [`Journal::replay`] what is
//! retained; [`Journal::set_apply`]; then [`Journal::commit`] from any number of threads. When what the
//! log adds up to is safe elsewhere, [`Journal::release`] the records that are not needed any more.
//!
//! # Consistency
//! A commit returns when every member has its batch durably; a member that fails or is late is evicted
//! first, under a new epoch. Opening chooses the longest valid chain of the highest epoch and makes all
//! copies equal before it serves. Damage in the middle is repaired from another copy or refused; it is
//! never cut. A record that was not acknowledged may be there after a crash, but never after one that is
//! missing.
//!
//! # Full drives
//! Each member keeps preallocated segments for records that give room back ([`Journal::commit_reserved`]),
//! and openings need no new room. A refusal says which drive is full.
//!
//! # Retries
//! Nothing is tried again on a drive that failed. What the process could not do, for want of descriptors say, is no
//! drive's failure: before anything is written it is told to the committer, later it is tried again.
//!
//! # Cancellation
//! Commits wait at most about `member_timeout` per batch. A read waits `late_read` for a
//! member and then asks the next one; only when there is no other it waits up to `member_timeout`.

mod chain;
mod engine;
mod format;
mod journal;
mod mend;
mod open;
mod queue;
mod reader;
mod recent;
mod replica;
mod segment;
mod shelf;
mod sync;
mod types;
mod view;
mod writer;

pub use journal::{Journal, Pending};
pub use reader::Reader;
pub use types::{
    Apply, Identity, Member, Membership, Options, Position, Recovery, ScrubReport, Status,
};

/// The sync after each batch.
pub(crate) const SYNC_BATCH: &str = "journal.batch";
/// The sync after opening repaired a copy.
pub(crate) const SYNC_MEND: &str = "journal.mend";
/// The sync after a scrub repaired a copy.
pub(crate) const SYNC_SCRUB: &str = "journal.scrub";
/// The sync after segments were copied to a new member while commits go on.
pub(crate) const SYNC_COPY: &str = "journal.copy";
/// The sync after the rest was copied to it, between two commits.
pub(crate) const SYNC_JOIN: &str = "journal.join";

/// Every sync that the journal makes. Leaving out any of them loses data.
pub const SYNC_TAGS: &[&str] = &[SYNC_BATCH, SYNC_MEND, SYNC_SCRUB, SYNC_COPY, SYNC_JOIN];
