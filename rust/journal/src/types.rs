//! What the journal is given and what it tells.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dwk_base::{DriveId, Epoch, Error, PoolId, Result, codes};
use dwk_drive::Attached;

use crate::format::{BATCH_HEADER_BYTES, BLOCK, RECORD_HEADER_BYTES};

/// Sizes and limits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Size of a segment: a multiple of 4096, at least 16 KiB.
    pub segment_bytes: u32,
    /// The longest record; less than half a segment.
    pub record_bytes_max: u32,
    /// About how many bytes of records go into one batch; at least one record does.
    pub batch_bytes_max: u32,
    /// How many bytes of records may wait. Who submits more helps to write first.
    pub queue_bytes_max: u64,
    /// How long a batch waits for company before it is written.
    pub batch_delay: Duration,
    /// A member that takes longer for one batch is evicted.
    pub member_timeout: Duration,
    /// A read that takes longer is tried on the next member.
    pub late_read: Duration,
    /// About how many bytes of the last batches are kept in memory, to be read without asking a drive.
    pub recent_bytes_max: u64,
    /// Segments kept preallocated beside the current one.
    pub spare_segments: usize,
    /// Segments kept preallocated beside those, for records that give room back: others are refused before
    /// the last of these is touched.
    pub reserved_segments: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            segment_bytes: 16 << 20,
            record_bytes_max: 4 << 20,
            batch_bytes_max: 4 << 20,
            queue_bytes_max: 32 << 20,
            batch_delay: Duration::ZERO,
            member_timeout: Duration::from_secs(30),
            late_read: Duration::from_secs(2),
            recent_bytes_max: 16 << 20,
            spare_segments: 1,
            reserved_segments: 1,
        }
    }
}

impl Options {
    /// How many free segments a member should have.
    pub(crate) fn free_segments(&self) -> usize {
        self.spare_segments.saturating_add(self.reserved_segments)
    }

    /// `store.option` unless the sizes fit each other.
    pub(crate) fn check(&self) -> Result<()> {
        let block = BLOCK as u32;
        let overhead = (BATCH_HEADER_BYTES + RECORD_HEADER_BYTES) as u32 + block;
        let fits = self.segment_bytes.is_multiple_of(block)
            && (4 * block..=1 << 30).contains(&self.segment_bytes)
            && self.record_bytes_max.saturating_add(overhead) <= self.segment_bytes / 2
            && !self.member_timeout.is_zero();
        if fits {
            return Ok(());
        }
        let message = format!(
            "the journal's segments of {} bytes and records of {} do not fit each other",
            self.segment_bytes, self.record_bytes_max
        );
        Err(Error::new(&codes::STORE_OPTION, message))
    }
}

/// A drive that holds a copy of the log.
#[derive(Clone, Debug)]
pub struct Member {
    /// Its identity in the pool.
    pub id: DriveId,
    /// The drive.
    pub drive: Arc<Attached>,
}

/// Whose log it is, and under which epoch it is written now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The pool.
    pub pool: PoolId,
    /// Membership's version: durable, and higher than every one before, when the log is opened to write.
    pub epoch: Epoch,
}

/// Where a record lies; the same on every member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Position {
    /// The record's number, from 1, dense.
    pub sequence: u64,
    /// The segment's number, from 1; never used again.
    pub segment: u64,
    /// Where in the segment the record's bytes begin.
    pub offset: u32,
    /// The record's length.
    pub bytes: u32,
}

/// Who keeps the list of members, on every drive's superblock.
pub trait Membership: Send + Sync {
    /// Makes it durable that `drive` is no member of the journal any more, under a new epoch, and returns
    /// that epoch. Must not commit to this journal.
    ///
    /// # Errors
    /// Any: the journal stops then.
    fn evict(&self, drive: DriveId, why: &Error) -> Result<Epoch>;
}

/// What the log adds up to.
pub trait Apply: Send + Sync {
    /// Takes a durable record: once each, in the order of sequence, before its committer is told. Must not
    /// commit to this journal.
    fn apply(&self, position: Position, record: &Bytes);
}

/// What opening found and did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// The first record that is there, or would be the next.
    pub first_sequence: u64,
    /// The last record, 0 if there never was one.
    pub last_sequence: u64,
    /// The epoch of the last batch that was found.
    pub epoch: Epoch,
    /// Batches that were missing, damaged or of a discarded branch on some copy and were written again.
    pub repaired_batches: u64,
    /// Members that could not be read or repaired and were evicted (or, read-only, left aside).
    pub evicted: Vec<DriveId>,
}

/// The journal now.
#[derive(Clone, Debug)]
pub struct Status {
    /// Its members.
    pub members: Vec<DriveId>,
    /// The epoch under which the next batch is written.
    pub epoch: Epoch,
    /// Segments that are retained.
    pub segments: u64,
    /// Bytes of retained batches, on each member.
    pub live_bytes: u64,
    /// Bytes taken on the first member, free segments included.
    pub preallocated_bytes: u64,
    /// Segments of which a member's copy is known to be damaged, and scrub has not been there yet.
    pub damaged_copies: u64,
    /// Why it stopped, if it did.
    pub stopped: Option<Error>,
}

/// What scrub found and did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScrubReport {
    /// Segments looked at.
    pub segments: u64,
    /// Bytes read and verified, over all members.
    pub verified_bytes: u64,
    /// Copies of batches and headers that were damaged and written again.
    pub repaired_batches: u64,
    /// Batches of which no member has a good copy.
    pub lost_batches: u64,
    /// Copies of batches that could not be written again because their drive is full. Others are good.
    pub unrepaired_batches: u64,
}
