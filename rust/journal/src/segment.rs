//! What is known in memory of the retained log: where each batch lies and what its hash must be.

use std::sync::RwLock;

use dwk_base::{DriveId, Epoch, PoolId};

use crate::format::{BatchHeader, FIRST_OFFSET, Hash, SegmentHeader, Stamp};
use crate::replica::Stretch;
use crate::sync::{exclusive, shared};

/// A batch that is known to be part of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    pub offset: u32,
    pub bytes: u32,
    pub first_sequence: u64,
    pub count: u32,
    pub hash: Hash,
}

impl Mark {
    pub(crate) fn of(batch: &BatchHeader) -> Self {
        Self {
            offset: batch.offset,
            bytes: batch.bytes,
            first_sequence: batch.first_sequence,
            count: batch.count,
            hash: batch.hash,
        }
    }

    pub(crate) fn next_sequence(&self) -> u64 {
        self.first_sequence.saturating_add(u64::from(self.count))
    }

    /// All of it, in its segment.
    pub(crate) fn stretch(&self, segment: u64) -> Stretch {
        let (batch, bytes) = (self.offset, self.bytes as usize);
        Stretch { segment, batch, offset: batch, bytes }
    }
}

/// A retained segment. Who holds it keeps its room from being used again.
#[derive(Debug)]
pub(crate) struct Segment {
    pub number: u64,
    pub bytes: u32,
    pub epoch: Epoch,
    pub stamp: Stamp,
    pub pool: PoolId,
    pub first_sequence: u64,
    pub first_batch: u64,
    pub previous: Hash,
    marks: RwLock<Vec<Mark>>,
}

impl Segment {
    /// The segment that `first` begins, still without any batch.
    pub(crate) fn begin(first: &BatchHeader) -> Self {
        Self {
            number: first.segment,
            bytes: first.segment_bytes,
            epoch: first.epoch,
            stamp: first.stamp,
            pool: first.pool,
            first_sequence: first.first_sequence,
            first_batch: first.number,
            previous: first.previous,
            marks: RwLock::default(),
        }
    }

    pub(crate) fn push(&self, mark: Mark) {
        exclusive(&self.marks).push(mark);
    }

    pub(crate) fn marks(&self) -> Vec<Mark> {
        shared(&self.marks).clone()
    }

    /// Bytes of batches from the one that holds `sequence` on.
    pub(crate) fn bytes_since(&self, sequence: u64) -> u64 {
        let marks = shared(&self.marks);
        let from = marks.partition_point(|mark| mark.next_sequence() <= sequence);
        let (Some(first), Some(last)) = (marks.get(from), marks.last()) else { return 0 };
        u64::from(last.offset + last.bytes - first.offset)
    }

    pub(crate) fn live_bytes(&self) -> u64 {
        shared(&self.marks).last().map_or(0, |last| u64::from(last.offset + last.bytes))
    }

    /// The batch in which `offset` lies.
    pub(crate) fn batch_at(&self, offset: u32) -> Option<Mark> {
        let marks = shared(&self.marks);
        let after = marks.partition_point(|mark| mark.offset <= offset);
        let mark = *marks.get(after.checked_sub(1)?)?;
        (offset < mark.offset + mark.bytes).then_some(mark)
    }

    /// The header that a member's copy must have.
    pub(crate) fn header(&self, drive: DriveId) -> SegmentHeader {
        SegmentHeader {
            stamp: self.stamp,
            pool: self.pool,
            drive,
            segment: self.number,
            segment_bytes: self.bytes,
            epoch: self.epoch,
            first_sequence: self.first_sequence,
            first_batch: self.first_batch,
            previous: self.previous,
        }
    }

    /// True for a batch that can only be a segment's first.
    pub(crate) fn begins_with(batch: &BatchHeader) -> bool {
        batch.offset == FIRST_OFFSET
    }
}
