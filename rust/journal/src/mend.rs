//! Makes a member's copy of a segment right again, from the copies of others.

use bytes::Bytes;
use dwk_base::{Error, Result};

use crate::replica::Replica;
use crate::segment::{Mark, Segment};
use crate::shelf::Place;
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
#[derive(Debug)]
pub(crate) struct Lack {
    pub place: Place,
    pub batches: Vec<Mark>,
}

impl Lack {
    pub(crate) fn is_nothing(&self) -> bool {
        self.place == Place::Good && self.batches.is_empty()
    }
}

/// Reads a member's copy of a segment, as far as the log goes now, and says what is wrong with it.
///
/// # Errors
/// `drive.timeout`, and those of the process
pub(crate) fn inspect(replica: &Replica, segment: &Segment) -> Result<Lack> {
    let header = segment.header(replica.id);
    let place = replica.ask(move |shelf, drive| shelf.place(drive, &header))?;
    let mut batches = Vec::new();
    for mark in segment.marks() {
        if place == Place::Unusable || !has_batch(replica, segment, &mark)? {
            batches.push(mark);
        }
    }
    Ok(Lack { place, batches })
}

/// Writes what a copy lacks and makes it durable. Returns how many batches and headers were written.
pub(crate) fn mend(
    replica: &Replica,
    segment: &Segment,
    lack: &Lack,
    fetch: &dyn Fn(&Mark) -> Result<Bytes>,
    tag: &'static str,
) -> Result<u64, Failure> {
    let header = segment.header(replica.id);
    let number = segment.number;
    let anew = lack.place == Place::Unusable;
    let begun = replica.run(move |shelf, drive| shelf.begin(drive, &header, anew));
    let mut written = u64::from(begun.map_err(Failure::Member)?);
    for mark in &lack.batches {
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

/// Copies a segment, as far as the log goes now, to a new member that has its first `from` batches, or
/// nothing of it. Returns how many it has then.
pub(crate) fn copy(
    view: &View,
    replica: &Replica,
    segment: &Segment,
    from: Option<usize>,
    tag: &'static str,
) -> Result<usize, Failure> {
    let marks = segment.marks();
    let batches = marks.get(from.unwrap_or(0)..).unwrap_or_default().to_vec();
    if from.is_none() || !batches.is_empty() {
        let place = if from.is_some() { Place::Good } else { Place::Unusable };
        let lack = Lack { place, batches };
        mend(replica, segment, &lack, &|mark| view.batch(segment, mark), tag)?;
    }
    Ok(marks.len())
}
