//! Writes batches on every member, one after the other, and evicts who cannot keep up.
//!
//! # Consistency
//! A batch is begun on a member only when the one before is durable on every member. A batch counts when
//! every member has it; a member that fails is first evicted, durably, under a new epoch.
//!
//! # Limits of the process
//! What a batch is written to is held beforehand, so that writing needs no descriptor. Where the process cannot go
//! on all the same, the batch is written again there after a while; no member is evicted for it.
//! `docs/decisions/0019-limits-of-the-process.md` says why.
//!
//! # Retries
//! No others. What failed on a member is not tried again there; after a failed eviction, or without a member,
//! the journal has stopped for good.

use std::sync::Arc;

use bytes::Bytes;
use dwk_base::{Clock, DriveId, Error, Pauses, PoolId, Result, codes};
use dwk_drive::Drive;

use crate::format::{
    BATCH_HEADER_BYTES, BLOCK, Batch, BatchHeader, FIRST_OFFSET, Hash, RECORD_HEADER_BYTES, Stamp,
    batch_bytes,
};
use crate::replica::Replica;
use crate::segment::{Mark, Segment};
use crate::shelf::{Append, Shelf};
use crate::sync::Join;
use crate::view::View;
use crate::{Membership, Options, Position, SYNC_BATCH};

/// Of a segment, the part at its end that only openings use while no free segment is there: each of them
/// writes a batch, also on drives that are full.
const OPENINGS_SHARE: u32 = 16;

/// What room a batch may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Room {
    /// What leaves the reserved segments alone.
    Ordinary,
    /// All but what the openings need.
    Reserved,
    /// All that is there.
    Opening,
}

/// Where a batch will lie.
struct Place {
    segment: u64,
    segment_bytes: u32,
    offset: u32,
    bytes: u32,
    /// True if the segment is begun with it.
    first: bool,
}

impl Place {
    /// How many segments must be free on each member before a batch is written here.
    fn free_segments(&self, room: Room, reserved: usize) -> usize {
        let rest = self.segment_bytes.saturating_sub(self.offset.saturating_add(self.bytes));
        let openings = (self.segment_bytes / OPENINGS_SHARE).max(BLOCK as u32);
        let follower = usize::from(rest < openings);
        let kept = match room {
            Room::Ordinary => follower.max(reserved),
            Room::Reserved => follower,
            Room::Opening => 0,
        };
        kept + usize::from(self.first)
    }
}

/// The end of the log, and the only one who moves it.
pub(crate) struct Writer {
    pub pool: PoolId,
    pub stamp: Stamp,
    pub options: Options,
    pub membership: Arc<dyn Membership>,
    pub clock: Arc<dyn Clock>,
    pub view: Arc<View>,
    pub tip: Tip,
    /// Segments below are not needed any more; durable with the next batch.
    pub floor: u64,
    /// Out of the log, but perhaps still being read.
    pub retired: Vec<Arc<Segment>>,
    /// Members that failed in this opening: they are not trusted again in it.
    pub evicted: Vec<DriveId>,
}

/// What the next batch goes on from.
pub(crate) struct Tip {
    pub number: u64,
    pub hash: Hash,
    pub next_sequence: u64,
    /// The current segment; `None` before the first batch of all.
    pub segment: Option<Arc<Segment>>,
    /// Where in it the next batch begins.
    pub offset: u32,
}

impl Writer {
    /// Writes a batch of these records (or none, to make epoch and floor durable) and returns their places.
    ///
    /// # Errors
    /// `drive.full` (detail `drive`: a member without room): nothing was written. `journal.members`: the journal has stopped, and whether the batch
    /// survives is not known.
    pub(crate) fn write(&mut self, records: &[Bytes], room: Room) -> Result<Vec<Position>> {
        if let Some(error) = self.view.stopped() {
            return Err(error.clone());
        }
        let place = self.place(records.len(), records.iter().map(Bytes::len).sum());
        self.make_room(&place, room)?;
        // Only now: who has no room may have been evicted, under a new epoch.
        let batch = self.build(&place, records);
        let header = &batch.header;
        let segment = match &self.tip.segment {
            Some(segment) if !place.first => Arc::clone(segment),
            _ => Arc::new(Segment::begin(header)),
        };
        self.spread(&segment, &batch)?;
        segment.push(Mark::of(header));
        self.view.recent.push(header.segment, header.offset, batch.bytes.clone());
        if Segment::begins_with(header) {
            self.view.insert(Arc::clone(&segment));
        }
        let positions = positions(header, records);
        self.tip = Tip {
            number: header.number,
            hash: header.hash,
            next_sequence: header.next_sequence(),
            offset: header.end(),
            segment: Some(segment),
        };
        self.recycle(header.floor);
        if Segment::begins_with(header) {
            self.prepare_spares();
        }
        Ok(positions)
    }

    /// Makes sure that an ordinary record of `record_bytes` could be written now.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub(crate) fn try_room(&mut self, record_bytes: usize) -> Result<()> {
        match self.view.stopped() {
            Some(error) => Err(error.clone()),
            None => self.require_free(&self.place(1, record_bytes), Room::Ordinary),
        }
    }

    /// Where a batch of `count` records goes.
    fn place(&self, count: usize, record_bytes: usize) -> Place {
        let bytes = batch_bytes(count, record_bytes) as u32;
        let fits = |segment: &&Arc<Segment>| bytes <= segment.bytes.saturating_sub(self.tip.offset);
        let last = self.tip.segment.as_ref();
        let (segment, segment_bytes, offset) = match last.filter(fits) {
            Some(segment) => (segment.number, segment.bytes, self.tip.offset),
            None => (last.map_or(1, |s| s.number + 1), self.options.segment_bytes, FIRST_OFFSET),
        };
        Place { segment, segment_bytes, offset, bytes, first: offset == FIRST_OFFSET }
    }

    fn build(&self, place: &Place, records: &[Bytes]) -> Batch {
        let Place { segment, segment_bytes, offset, bytes, .. } = *place;
        let header = BatchHeader {
            hash: [0; 32],
            bytes,
            stamp: self.stamp,
            pool: self.pool,
            epoch: self.view.epoch(),
            number: self.tip.number + 1,
            segment,
            segment_bytes,
            offset,
            count: records.len() as u32,
            first_sequence: self.tip.next_sequence,
            floor: self.floor.max(1),
            previous: self.tip.hash,
        };
        Batch::build(header, records)
    }

    /// Has every member take room for a batch; evicts those that fail.
    ///
    /// # Errors
    /// `drive.full`: a member has no room; nothing was written, and the journal goes on when there is.
    fn make_room(&mut self, place: &Place, room: Room) -> Result<()> {
        self.require_free(place, room)?;
        if place.first {
            let segment = place.segment;
            let failed = self.on_each(|_| move |shelf, drive| shelf.reserve(drive, segment));
            self.evict_but_full(failed)?;
        }
        Ok(())
    }

    /// Has every member make free segments until it has as many as a batch must find.
    fn require_free(&mut self, place: &Place, room: Room) -> Result<()> {
        let count = place.free_segments(room, self.options.reserved_segments);
        if count == 0 || self.view.all(|replica| replica.shelf().free_segments() >= count) {
            return Ok(());
        }
        let failed = self.on_each(|_| move |shelf, drive| shelf.make_spares(drive, count));
        self.evict_but_full(failed)
    }

    /// Evicts those that failed, unless one of them is full, or it is the process that cannot go on: that is
    /// told to the caller.
    pub(crate) fn evict_but_full(&mut self, failed: Vec<(DriveId, Error)>) -> Result<()> {
        if let Some(error) = of_process(&failed) {
            return Err(error.clone());
        }
        if let Some((drive, full)) = failed.iter().find(|(_, error)| error.is(&codes::DRIVE_FULL)) {
            let message =
                format!("drive {drive} has no room for the journal to go on: {}", full.message());
            let error = Error::new(&codes::DRIVE_FULL, message).with("drive", drive);
            return Err(error.caused_by(full.clone()));
        }
        self.evict_all(failed)
    }

    /// Has every member get ready for the next batch of the current segment; evicts those that fail.
    ///
    /// # Errors
    /// `process.exhausted`, `process.file_size`: nothing was written.
    pub(crate) fn hold(&mut self) -> Result<()> {
        let Some(segment) = self.tip.segment.as_ref().map(|segment| segment.number) else {
            return Ok(());
        };
        let failed = self.on_each(|_| move |shelf, drive| shelf.reserve(drive, segment));
        self.evict_but_full(failed)
    }

    /// Has every member write and sync the batch; evicts those that do not. Where the process cannot, it is tried
    /// again as long as a member may take: some may have the batch, so that it cannot be taken back.
    fn spread(&mut self, segment: &Segment, batch: &Batch) -> Result<()> {
        let first = Segment::begins_with(&batch.header);
        let append = |replica: &Replica, again: bool| {
            let append = Append {
                segment: segment.number,
                offset: batch.header.offset,
                batch: batch.bytes.clone(),
                header: first.then(|| segment.header(replica.id).encode()),
                again,
            };
            move |shelf: &dyn Shelf, drive: &dyn Drive| shelf.append(drive, &append, SYNC_BATCH)
        };
        let mut failed = self.on_each(|replica| append(replica, false));
        let mut pauses = Pauses::new(&self.clock, self.options.member_timeout);
        while let Some(error) = of_process(&failed) {
            if !pauses.pause() {
                return Err(self.stop(error, "the process could not write to every drive"));
            }
            let waiting: Vec<DriveId> = of_process_all(&failed).map(|(drive, _)| *drive).collect();
            let mut replicas = self.view.replicas();
            replicas.retain(|replica| waiting.contains(&replica.id));
            failed.retain(|(_, error)| !error.is_of_process());
            failed.extend(self.on_these(&replicas, |replica| append(replica, true)));
        }
        self.evict_all(failed)
    }

    /// Has every member do a job, all at the same time; returns those that failed or were late, and why.
    fn on_each<J>(&self, job: impl Fn(&Replica) -> J) -> Vec<(DriveId, Error)>
    where
        J: FnOnce(&dyn Shelf, &dyn Drive) -> Result<()> + Send + 'static,
    {
        self.on_these(&self.view.replicas(), job)
    }

    fn on_these<J>(
        &self,
        replicas: &[Arc<Replica>],
        job: impl Fn(&Replica) -> J,
    ) -> Vec<(DriveId, Error)>
    where
        J: FnOnce(&dyn Shelf, &dyn Drive) -> Result<()> + Send + 'static,
    {
        let join = Arc::new(Join::new(replicas.len()));
        for (index, replica) in replicas.iter().enumerate() {
            let (job, answer) = (job(replica), Arc::clone(&join));
            // The answer comes by the join, which wakes this thread once.
            let ticket = replica.start(move |shelf, drive| {
                answer.answer(index, job(shelf, drive));
                Ok(())
            });
            // Unless the job was never begun, for want of a thread.
            if let Some(Err(error)) = ticket.try_take().filter(is_of_process) {
                join.answer(index, Err(error));
            }
        }
        let answers = join.wait(self.options.member_timeout);
        let failed = replicas.iter().zip(answers).filter_map(|(replica, answer)| {
            let answer = answer.unwrap_or_else(|| Err(replica.late()));
            answer.err().map(|error| (replica.id, error))
        });
        failed.collect()
    }

    /// True if a member that could not take its copy of a segment stays: it is full, and nothing more will be
    /// written there.
    pub(crate) fn can_lack(&self, segment: u64, why: &Error) -> bool {
        why.is(&codes::DRIVE_FULL) && !self.is_current(segment)
    }

    /// True for the segment to which the next batch goes, if that has room for it.
    pub(crate) fn is_current(&self, segment: u64) -> bool {
        self.tip.segment.as_ref().is_some_and(|last| last.number == segment)
    }

    /// Evicts members one by one.
    ///
    /// # Errors
    /// `journal.members`: the journal has stopped.
    pub(crate) fn evict_all(&mut self, failed: Vec<(DriveId, Error)>) -> Result<()> {
        let left = self.view.replicas().len().saturating_sub(failed.len());
        for (drive, why) in failed {
            if left == 0 {
                return Err(self.stop(&why, "no drive is left that holds the journal"));
            }
            match self.membership.evict(drive, &why) {
                Ok(epoch) => self.view.raise_epoch(epoch),
                Err(error) => {
                    return Err(self.stop(&error, "a failing drive could not be evicted"));
                }
            }
            self.evicted.push(drive);
            self.view.leave(drive);
        }
        Ok(())
    }

    /// Ends the journal: every later commit fails.
    pub(crate) fn stop(&self, why: &Error, what: &str) -> Error {
        let message = format!("the journal has stopped, because {what}: {}", why.message());
        let error = Error::new(&codes::JOURNAL_MEMBERS, message).caused_by(why.clone());
        self.view.stop(error).clone()
    }

    /// Gives back the room of segments below a floor that is durable, when nobody reads them.
    fn recycle(&mut self, floor: u64) {
        self.retired.extend(self.view.split_before(floor));
        if !self.retired.is_empty() {
            let (free, read): (Vec<_>, Vec<_>) =
                self.retired.drain(..).partition(|segment| Arc::strong_count(segment) == 1);
            self.retired = read;
            for replica in self.view.replicas() {
                retire(&replica, free.iter().map(|segment| segment.number).collect());
            }
        }
    }

    /// Has free segments made ahead of time where there are too few.
    pub(crate) fn prepare_spares(&self) {
        for replica in self.view.replicas() {
            replica.prepare_spares(self.options.free_segments());
        }
    }
}

fn is_of_process(result: &Result<()>) -> bool {
    result.as_ref().is_err_and(Error::is_of_process)
}

/// Those that the process could not have done what they should.
fn of_process_all(failed: &[(DriveId, Error)]) -> impl Iterator<Item = &(DriveId, Error)> {
    failed.iter().filter(|(_, error)| error.is_of_process())
}

fn of_process(failed: &[(DriveId, Error)]) -> Option<&Error> {
    of_process_all(failed).next().map(|(_, error)| error)
}

/// Gives a member's room of segments back.
pub(crate) fn retire(replica: &Replica, segments: Vec<u64>) {
    if segments.is_empty() {
        return;
    }
    // What could not be given back is found when the log is opened next time.
    drop(replica.start(move |shelf, drive| {
        segments.into_iter().try_for_each(|segment| shelf.retire(drive, segment))
    }));
}

/// Where each record of a batch lies.
fn positions(header: &BatchHeader, records: &[Bytes]) -> Vec<Position> {
    let mut offset = header.offset + BATCH_HEADER_BYTES as u32;
    let place = |(index, record): (usize, &Bytes)| {
        offset += RECORD_HEADER_BYTES as u32;
        let position = Position {
            sequence: header.first_sequence + index as u64,
            segment: header.segment,
            offset,
            bytes: record.len() as u32,
        };
        offset += record.len() as u32;
        position
    };
    records.iter().enumerate().map(place).collect()
}
