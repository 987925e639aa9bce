//! What readers need: who the members are, which segments there are, whose copy is known to be bad.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, RwLock};

use bytes::Bytes;
use dwk_base::{Deadline, DriveId, Epoch, Error, Result, codes};
use dwk_chunk::blake3;

use crate::format::damaged;
use crate::recent::Recent;
use crate::replica::{Replica, Stretch};
use crate::segment::{Mark, Segment};
use crate::sync::{exclusive, guard, shared};
use crate::{Options, Position};

/// The bytes before a batch's hash ends; the hash covers what follows.
const HASHED_FROM: usize = 32;

/// Shared by the writer, who changes it, and the readers. Its locks are held for moments only.
#[derive(Debug)]
pub(crate) struct View {
    replicas: RwLock<Vec<Arc<Replica>>>,
    segments: RwLock<BTreeMap<u64, Arc<Segment>>>,
    pub recent: Recent,
    bad: Mutex<BTreeSet<(DriveId, u64)>>,
    epoch: AtomicU64,
    stopped: OnceLock<Error>,
}

impl View {
    pub(crate) fn new(
        replicas: Vec<Arc<Replica>>,
        segments: BTreeMap<u64, Arc<Segment>>,
        options: &Options,
    ) -> Self {
        Self {
            replicas: RwLock::new(replicas),
            segments: RwLock::new(segments),
            recent: Recent::new(options.recent_bytes_max),
            bad: Mutex::default(),
            epoch: AtomicU64::default(),
            stopped: OnceLock::new(),
        }
    }

    /// The epoch under which the next batch is written.
    pub(crate) fn epoch(&self) -> Epoch {
        Epoch(self.epoch.load(Ordering::Acquire))
    }

    /// Epochs never go back.
    pub(crate) fn raise_epoch(&self, epoch: Epoch) {
        self.epoch.fetch_max(epoch.0, Ordering::AcqRel);
    }

    /// Why nothing is written any more.
    pub(crate) fn stopped(&self) -> Option<&Error> {
        self.stopped.get()
    }

    /// Ends all writing; the first reason stays.
    pub(crate) fn stop(&self, why: Error) -> &Error {
        self.stopped.get_or_init(|| why)
    }

    pub(crate) fn replicas(&self) -> Vec<Arc<Replica>> {
        shared(&self.replicas).clone()
    }

    /// True if it holds for all members.
    pub(crate) fn all(&self, holds: impl Fn(&Replica) -> bool) -> bool {
        shared(&self.replicas).iter().all(|replica| holds(replica))
    }

    pub(crate) fn join(&self, replica: Arc<Replica>) {
        exclusive(&self.replicas).push(replica);
    }

    pub(crate) fn leave(&self, id: DriveId) {
        exclusive(&self.replicas).retain(|replica| {
            let stays = replica.id != id;
            if !stays {
                replica.dismiss();
            }
            stays
        });
        guard(&self.bad).retain(|(drive, _)| *drive != id);
    }

    pub(crate) fn segments(&self) -> Vec<Arc<Segment>> {
        shared(&self.segments).values().cloned().collect()
    }

    pub(crate) fn segment(&self, number: u64) -> Option<Arc<Segment>> {
        shared(&self.segments).get(&number).cloned()
    }

    pub(crate) fn insert(&self, segment: Arc<Segment>) {
        exclusive(&self.segments).insert(segment.number, segment);
    }

    /// Takes out the segments below `floor`.
    pub(crate) fn split_before(&self, floor: u64) -> Vec<Arc<Segment>> {
        let mut segments = exclusive(&self.segments);
        let kept = segments.split_off(&floor);
        std::mem::replace(&mut *segments, kept).into_values().collect()
    }

    pub(crate) fn first_sequence(&self) -> Option<u64> {
        shared(&self.segments).values().next().map(|segment| segment.first_sequence)
    }

    /// The greatest floor at which every record from `sequence` on is retained.
    pub(crate) fn floor_for(&self, sequence: u64) -> u64 {
        let segments = shared(&self.segments);
        let needed = segments.values().rev().find(|segment| segment.first_sequence <= sequence);
        let first = segments.values().next();
        needed.or(first).map_or(0, |segment| segment.number)
    }

    pub(crate) fn bytes_since(&self, sequence: u64) -> u64 {
        let segments = shared(&self.segments);
        segments.values().map(|segment| segment.bytes_since(sequence)).sum()
    }

    pub(crate) fn note_bad(&self, drive: DriveId, segment: u64) {
        guard(&self.bad).insert((drive, segment));
    }

    pub(crate) fn note_good(&self, drive: DriveId, segment: u64) {
        guard(&self.bad).remove(&(drive, segment));
    }

    pub(crate) fn bad(&self) -> Vec<(DriveId, u64)> {
        guard(&self.bad).iter().copied().collect()
    }

    /// Members in the order in which a segment should be read from them: known bad copies last but for
    /// drives that do not answer.
    fn readers(&self, segment: u64) -> Vec<Arc<Replica>> {
        let mut replicas = self.replicas();
        let bad = guard(&self.bad);
        if !bad.is_empty() || replicas.iter().any(|replica| replica.is_late()) {
            replicas
                .sort_by_key(|replica| (replica.is_late(), bad.contains(&(replica.id, segment))));
        }
        replicas
    }

    /// Fills `into` without waiting for a device, if it can.
    fn read_now(&self, stretch: Stretch, into: &mut [u8]) -> bool {
        let Stretch { segment, batch, offset, .. } = stretch;
        self.recent.read(segment, batch, offset - batch, into)
            || self.readers(segment).first().is_some_and(|first| first.read_now(stretch, into))
    }

    /// A stretch from the first member whose copy `check` accepts, and whose drive answers in time.
    ///
    /// # Errors
    /// `journal.damaged`; `drive.timeout` if a copy could not be looked at, `process.exhausted` if that was for want
    /// of descriptors; `context.deadline`
    fn find(
        &self,
        stretch: Stretch,
        check: &dyn Fn(&[u8]) -> bool,
        deadline: &Deadline,
    ) -> Result<Bytes> {
        let mut late = Vec::new();
        let (mut unanswered, mut process) = (None, None);
        for replica in self.readers(stretch.segment) {
            let Some(ticket) = replica.try_read(stretch) else {
                unanswered = Some(replica.late());
                continue;
            };
            match replica.land(&ticket, replica.late_read, deadline)? {
                Some(Ok(bytes)) if check(&bytes) => return Ok(bytes),
                Some(Err(error)) if error.is_of_process() => process = Some(error),
                Some(_) => self.note_bad(replica.id, stretch.segment),
                None => late.push((replica, ticket)),
            }
        }
        // The last hope: who is late gets the time that a member may take.
        for (replica, ticket) in late {
            match replica.land(&ticket, replica.timeout, deadline)? {
                Some(Ok(bytes)) if check(&bytes) => return Ok(bytes),
                Some(Err(error)) if error.is_of_process() => process = Some(error),
                Some(_) => self.note_bad(replica.id, stretch.segment),
                None => unanswered = Some(replica.late()),
            }
        }
        let all_bad = || damaged("part of the journal is damaged on every present drive");
        let error = process.or(unanswered).unwrap_or_else(all_bad);
        Err(error.with("segment", stretch.segment).with("offset", stretch.offset))
    }

    /// A batch from the first member whose copy is good.
    ///
    /// # Errors
    /// `journal.damaged`, `drive.timeout`
    pub(crate) fn batch(&self, segment: &Segment, mark: &Mark) -> Result<Bytes> {
        let is_whole = |bytes: &[u8]| is_batch(mark, bytes);
        self.find(mark.stretch(segment.number), &is_whole, &Deadline::never())
    }

    /// The segment and batch of a record.
    ///
    /// # Errors
    /// `blob.not_found`
    pub(crate) fn place(&self, position: Position) -> Result<(Arc<Segment>, Mark)> {
        let found = self.segment(position.segment).and_then(|segment| {
            let mark = segment.batch_at(position.offset)?;
            Some((segment, mark))
        });
        found.ok_or_else(|| {
            let message = format!("record {} is not in the journal any more", position.sequence);
            Error::new(&codes::BLOB_NOT_FOUND, message).with("segment", position.segment)
        })
    }

    /// Part of a record, from the first member whose copy `check` accepts.
    pub(crate) fn read(
        &self,
        position: Position,
        offset: u32,
        into: &mut [u8],
        check: &dyn Fn(&[u8]) -> bool,
        deadline: &Deadline,
    ) -> Result<()> {
        let (segment, batch) = self.place(position)?;
        let from = part(position, offset, into.len(), &batch)?;
        let stretch = Stretch {
            segment: segment.number,
            batch: batch.offset,
            offset: from,
            bytes: into.len(),
        };
        if self.read_now(stretch, into) && check(into) {
            return Ok(());
        }
        match self.find(stretch, check, deadline) {
            Ok(bytes) => into.copy_from_slice(&bytes),
            Err(error) => {
                into.fill(0);
                return Err(error.with("sequence", position.sequence));
            }
        }
        Ok(())
    }
}

/// Where in the segment a part of a record begins.
pub(crate) fn part(position: Position, offset: u32, length: usize, batch: &Mark) -> Result<u32> {
    let end = u64::from(offset) + length as u64;
    let record_end = u64::from(position.offset) + u64::from(position.bytes);
    if end <= u64::from(position.bytes) && record_end <= u64::from(batch.offset + batch.bytes) {
        return Ok(position.offset + offset);
    }
    let message = format!("{length} bytes at {offset} are not within record {}", position.sequence);
    Err(Error::new(&codes::BUFFER_LENGTH, message).with("segment", position.segment))
}

/// Reads a member's copy of a batch; true if it is good.
///
/// # Errors
/// `drive.timeout`, and those of the process
pub(crate) fn has_batch(replica: &Replica, segment: &Segment, mark: &Mark) -> Result<bool> {
    let ticket = replica.start_read(mark.stretch(segment.number));
    let answer = replica.land(&ticket, replica.timeout, &Deadline::never())?;
    match answer.ok_or_else(|| replica.late())? {
        Err(error) if error.is_of_process() => Err(error),
        read => Ok(read.is_ok_and(|bytes| is_batch(mark, &bytes))),
    }
}

/// True if these bytes are that batch.
pub(crate) fn is_batch(mark: &Mark, bytes: &[u8]) -> bool {
    bytes.len() == mark.bytes as usize
        && bytes[..HASHED_FROM] == mark.hash
        && blake3(&bytes[HASHED_FROM..]) == mark.hash
}
