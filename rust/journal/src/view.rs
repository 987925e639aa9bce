//! What readers need: who the members are, which segments there are, whose copy is known to be bad.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, RwLock};

use bytes::Bytes;
use dwk_base::{DriveId, Epoch, Error, Result, codes};
use dwk_chunk::blake3;

use crate::Position;
use crate::format::{Aligned, damaged};
use crate::replica::Replica;
use crate::segment::{Mark, Segment};
use crate::sync::{exclusive, guard, shared};

/// The bytes before a batch's hash ends; the hash covers what follows.
const HASHED_FROM: usize = 32;

/// Shared by the writer, who changes it, and the readers. Its locks are held for moments only.
#[derive(Debug, Default)]
pub(crate) struct View {
    replicas: RwLock<Vec<Arc<Replica>>>,
    segments: RwLock<BTreeMap<u64, Arc<Segment>>>,
    bad: Mutex<BTreeSet<(DriveId, u64)>>,
    epoch: AtomicU64,
    stopped: OnceLock<Error>,
}

impl View {
    pub(crate) fn new(replicas: Vec<Arc<Replica>>, segments: BTreeMap<u64, Arc<Segment>>) -> Self {
        Self { replicas: RwLock::new(replicas), segments: RwLock::new(segments), ..Self::default() }
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
        exclusive(&self.replicas).retain(|replica| replica.id != id);
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

    /// Members in the order in which a segment should be read from them: known bad copies last.
    fn readers(&self, segment: u64) -> Vec<Arc<Replica>> {
        let mut replicas = self.replicas();
        let bad = guard(&self.bad);
        if !bad.is_empty() {
            replicas.sort_by_key(|replica| bad.contains(&(replica.id, segment)));
        }
        replicas
    }

    /// A batch from the first member whose copy is good.
    ///
    /// # Errors
    /// `journal.damaged`
    pub(crate) fn batch(&self, segment: &Segment, mark: &Mark) -> Result<Bytes> {
        let mut buffer = Aligned::zeroed(mark.bytes as usize);
        for replica in self.readers(segment.number) {
            if has_batch(&replica, segment, mark, buffer.as_mut()) {
                return Ok(buffer.finish());
            }
            self.note_bad(replica.id, segment.number);
        }
        Err(damaged("a batch of the journal is damaged on every present drive")
            .with("segment", segment.number)
            .with("offset", mark.offset))
    }

    /// Part of a record, from the first member whose copy `check` accepts.
    pub(crate) fn read(
        &self,
        position: Position,
        offset: u32,
        into: &mut [u8],
        check: &dyn Fn(&[u8]) -> bool,
    ) -> Result<()> {
        let gone = || {
            let message = format!("record {} is not in the journal any more", position.sequence);
            Error::new(&codes::BLOB_NOT_FOUND, message).with("segment", position.segment)
        };
        let segment = self.segment(position.segment).ok_or_else(gone)?;
        let batch = segment.batch_at(position.offset).ok_or_else(gone)?;
        let from = part(position, offset, into.len(), &batch)?;
        for replica in self.readers(segment.number) {
            let read =
                replica.shelf().read(replica.drive(), segment.number, batch.offset, from, into);
            if read.is_ok() && check(into) {
                return Ok(());
            }
            self.note_bad(replica.id, segment.number);
        }
        into.fill(0);
        Err(damaged(format!("record {} is damaged on every present drive", position.sequence))
            .with("segment", position.segment))
    }
}

/// Where in the segment a part of a record begins.
fn part(position: Position, offset: u32, length: usize, batch: &Mark) -> Result<u32> {
    let end = u64::from(offset) + length as u64;
    let record_end = u64::from(position.offset) + u64::from(position.bytes);
    if end <= u64::from(position.bytes) && record_end <= u64::from(batch.offset + batch.bytes) {
        return Ok(position.offset + offset);
    }
    let message = format!("{length} bytes at {offset} are not within record {}", position.sequence);
    Err(Error::new(&codes::BUFFER_LENGTH, message).with("segment", position.segment))
}

/// Reads a member's copy of a batch; true if it is good.
pub(crate) fn has_batch(
    replica: &Replica,
    segment: &Segment,
    mark: &Mark,
    into: &mut [u8],
) -> bool {
    let (number, at) = (segment.number, mark.offset);
    replica.shelf().read(replica.drive(), number, at, at, into).is_ok() && is_batch(mark, into)
}

/// True if these bytes are that batch.
pub(crate) fn is_batch(mark: &Mark, bytes: &[u8]) -> bool {
    bytes.len() == mark.bytes as usize
        && bytes[..HASHED_FROM] == mark.hash
        && blake3(&bytes[HASHED_FROM..]) == mark.hash
}
