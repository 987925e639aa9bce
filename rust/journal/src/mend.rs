//! Makes a member's copy of a segment right again, from the copies of others.

use bytes::Bytes;
use dwk_base::{Error, Result};

use crate::replica::Replica;
use crate::segment::{Mark, Segment};
use crate::view::{View, has_batch};

/// Why a copy could not be made right.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The member failed: it is to be evicted.
    Member(Error),
    /// No member has a good copy of a batch.
    Lost(Error),
}

/// What a copy of a segment lacks.
#[derive(Debug, Default)]
pub(crate) struct Lack {
    pub header: bool,
    pub batches: Vec<Mark>,
}

impl Lack {
    pub(crate) fn is_nothing(&self) -> bool {
        !self.header && self.batches.is_empty()
    }
}

/// Reads a member's copy of a segment, as far as `marks` go, and says what is wrong with it.
pub(crate) fn inspect(replica: &Replica, segment: &Segment, marks: &[Mark]) -> Lack {
    let header = segment.header(replica.id);
    let good_header = replica.shelf().header_is(replica.drive(), &header).unwrap_or(false);
    let longest = marks.iter().map(|mark| mark.bytes).max().unwrap_or(0);
    let mut buffer = vec![0; longest as usize];
    let bad = |mark: &&Mark| !has_batch(replica, segment, mark, &mut buffer[..mark.bytes as usize]);
    let batches = marks.iter().filter(bad).copied().collect();
    Lack { header: !good_header, batches }
}

/// Writes what a copy lacks and makes it durable. Returns how many batches and headers were written.
pub(crate) fn mend(
    replica: &Replica,
    segment: &Segment,
    lack: &[Mark],
    fetch: &dyn Fn(&Mark) -> Result<Bytes>,
    tag: &'static str,
) -> Result<u64, Failure> {
    let header = segment.header(replica.id);
    let number = segment.number;
    let begun = replica.run(move |shelf, drive| shelf.begin(drive, &header));
    let mut written = u64::from(begun.map_err(Failure::Member)?);
    for mark in lack {
        let batch = fetch(mark).map_err(Failure::Lost)?;
        let offset = mark.offset;
        replica
            .run(move |shelf, drive| shelf.restore(drive, number, offset, &batch))
            .map_err(Failure::Member)?;
        written += 1;
    }
    if written > 0 {
        replica
            .run(move |shelf, drive| shelf.settle(drive, number, tag))
            .map_err(Failure::Member)?;
    }
    Ok(written)
}

/// Copies to a new member what its copy of a segment lacks, as far as the log goes now.
pub(crate) fn copy(
    view: &View,
    replica: &Replica,
    segment: &Segment,
    tag: &'static str,
) -> Result<u64, Failure> {
    let marks = segment.marks();
    let lack = inspect(replica, segment, &marks);
    mend(replica, segment, &lack.batches, &|mark| view.batch(segment, mark), tag)
}
