//! The journal itself: commits, reads, and everything that changes who holds it.

use std::fmt;
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use dwk_base::{Deadline, DriveId, Epoch, Error, PoolId, Result, Seams, codes};

use crate::engine::{Engine, read_only};
use crate::format::{self, BATCH_HEADER_BYTES, BLOCK, BatchHeader};
use crate::open::Opening;
use crate::queue::{Queue, Round};
use crate::sync::guard;
use crate::view::View;
use crate::writer::{Room, Writer};
use crate::{
    Apply, Identity, Member, Membership, Options, Position, Recovery, ScrubReport, Status,
};

/// The ordered log of commits. Shared by any number of threads.
pub struct Journal {
    engine: Arc<Engine>,
}

impl Journal {
    /// Makes a new, empty log on `members`, durable on return.
    ///
    /// # Errors
    /// `journal.members`, `drive.duplicate`, `store.option`, `drive.not_empty`, those of the drives
    pub fn create(
        identity: Identity,
        members: Vec<Member>,
        options: Options,
        membership: Arc<dyn Membership>,
        seams: Seams,
    ) -> Result<Self> {
        let opening = Opening::new(identity, members, options.clone(), membership, seams.clone())?;
        let writer = opening.create()?;
        Ok(Self::serve(identity, options, seams, writer))
    }

    /// Finds the log on those members that are present, replicates it to each of them, and begins the epoch
    /// of `identity`, which must be durable already and higher than any before.
    ///
    /// # Errors
    /// `journal.damaged`, `journal.epoch`, `journal.members`, `drive.duplicate`, `store.option`
    pub fn open(
        identity: Identity,
        members: Vec<Member>,
        options: Options,
        membership: Arc<dyn Membership>,
        seams: Seams,
    ) -> Result<(Self, Recovery)> {
        let (begin, until) = (&|| Ok(identity.epoch), &Deadline::never());
        Self::open_then(identity.pool, members, options, membership, seams, begin, until)
    }

    /// [`open`](Self::open) for a caller who makes the new epoch durable only when the log is found: `begin` does
    /// so and returns it. If the log is not found among these members, those that are away must not have lost
    /// their place by that. Until then it may also end with `until`, and nothing was written.
    ///
    /// # Errors
    /// As `open`, `context.deadline`, `context.cancelled`, and those of `begin`.
    pub fn open_then(
        pool: PoolId,
        members: Vec<Member>,
        options: Options,
        membership: Arc<dyn Membership>,
        seams: Seams,
        begin: &dyn Fn() -> Result<Epoch>,
        until: &Deadline,
    ) -> Result<(Self, Recovery)> {
        let none_yet = Identity { pool, epoch: Epoch(0) };
        let opening = Opening::new(none_yet, members, options.clone(), membership, seams.clone())?;
        let (writer, recovery) = opening.open(begin, until)?;
        let identity = Identity { pool, epoch: writer.view.epoch() };
        Ok((Self::serve(identity, options, seams, writer), recovery))
    }

    /// Finds the log and writes nothing, on any drive. Commits fail with `pool.read_only`.
    ///
    /// # Errors
    /// As [`open`](Self::open), but for `journal.epoch`; `context.deadline`, `context.cancelled`
    pub fn open_read_only(
        identity: Identity,
        members: Vec<Member>,
        options: Options,
        membership: Arc<dyn Membership>,
        seams: Seams,
        until: &Deadline,
    ) -> Result<(Self, Recovery)> {
        let opening = Opening::new(identity, members, options.clone(), membership, seams.clone())?;
        let (view, recovery) = opening.open_read_only(until)?;
        let last_sequence = recovery.last_sequence;
        Ok((Self::build(identity, options, seams, view, None, last_sequence), recovery))
    }

    pub(crate) fn view(&self) -> &View {
        &self.engine.view
    }

    fn serve(identity: Identity, options: Options, seams: Seams, writer: Writer) -> Self {
        let view = Arc::clone(&writer.view);
        let last_sequence = writer.tip.next_sequence - 1;
        Self::build(identity, options, seams, view, Some(writer), last_sequence)
    }

    fn build(
        identity: Identity,
        options: Options,
        seams: Seams,
        view: Arc<View>,
        writer: Option<Writer>,
        last_sequence: u64,
    ) -> Self {
        let room = options.segment_bytes as usize - 2 * BLOCK - BATCH_HEADER_BYTES;
        let queue = Queue::new(room.min(options.batch_bytes_max as usize), options.queue_bytes_max);
        let engine = Engine {
            identity,
            options,
            seams,
            view,
            queue,
            read_only: writer.is_none(),
            writer: Mutex::new(writer),
            apply: Mutex::default(),
            last_sequence: AtomicU64::new(last_sequence),
            short: AtomicBool::new(false),
        };
        Self { engine: Arc::new(engine) }
    }

    /// From now on each record is handed to `apply` as it becomes durable. Replay first.
    pub fn set_apply(&self, apply: Arc<dyn Apply>) {
        *guard(&self.engine.apply) = Some(apply);
    }

    /// Writes a record; when this returns it is durable on every member, and applied.
    ///
    /// # Errors
    /// `journal.record_size`, `drive.full` (nothing was written; try again when there is room; the detail
    /// `drive` names a member that has none, and [`remove_member`](Self::remove_member) helps as well),
    /// `process.exhausted`, `process.file_size` (nothing was written, and no member is to blame),
    /// `journal.members` (whether the record survives is not known), `pool.read_only`, `store.closed`
    pub fn commit(&self, record: Bytes) -> Result<Position> {
        let deadline = Deadline::never();
        self.submit(record, &deadline)?.wait(&deadline)
    }

    /// Takes a record's place in the order; it is written when somebody waits, for this record or a later
    /// one, or when the journal is closed. Waits until the deadline if too many bytes wait already.
    ///
    /// # Errors
    /// As [`commit`](Self::commit); `context.deadline`: nothing will be written.
    pub fn submit(&self, record: Bytes, deadline: &Deadline) -> Result<Pending> {
        self.submit_with(record, Room::Ordinary, deadline)
    }

    /// Like [`commit`](Self::commit), for a record that gives room back: it may use the segments that are
    /// kept for such records (`Options::reserved_segments`) when the drives are full.
    ///
    /// # Errors
    /// As [`commit`](Self::commit); `drive.full` also if an ordinary record before it found no room: then
    /// try again, because this one was not judged.
    pub fn commit_reserved(&self, record: Bytes) -> Result<Position> {
        let deadline = Deadline::never();
        self.submit_reserved(record, &deadline)?.wait(&deadline)
    }

    /// Like [`submit`](Self::submit), for a record that gives room back.
    ///
    /// # Errors
    /// As [`commit_reserved`](Self::commit_reserved), and `context.deadline`.
    pub fn submit_reserved(&self, record: Bytes, deadline: &Deadline) -> Result<Pending> {
        self.submit_with(record, Room::Reserved, deadline)
    }

    fn submit_with(&self, record: Bytes, room: Room, deadline: &Deadline) -> Result<Pending> {
        let (round, index) = self.engine.submit(record, room, deadline)?;
        Ok(Pending { engine: Arc::clone(&self.engine), round, index })
    }

    /// [`replay_until`](Self::replay_until), however long it takes.
    ///
    /// # Errors
    /// As there.
    pub fn replay(
        &self,
        from_sequence: u64,
        visit: &mut dyn FnMut(Position, &[u8]) -> Result<()>,
    ) -> Result<()> {
        self.replay_until(from_sequence, visit, &Deadline::never())
    }

    /// Visits every retained record from `from_sequence` on that was durable when the call began, in order.
    /// Each is verified; where a copy is damaged another one is read, and the damaged one is repaired.
    ///
    /// # Errors
    /// `journal.damaged`, `drive.timeout` (no member has a good copy and one did not answer), those of
    /// `visit`, those of [`scrub`](Self::scrub); `context.deadline`, `context.cancelled`
    pub fn replay_until(
        &self,
        from_sequence: u64,
        visit: &mut dyn FnMut(Position, &[u8]) -> Result<()>,
        until: &Deadline,
    ) -> Result<()> {
        let wanted = from_sequence..=self.last_sequence();
        for segment in self.engine.view.segments() {
            for mark in segment.marks() {
                if mark.next_sequence() > *wanted.start() && mark.first_sequence <= *wanted.end() {
                    until.check()?;
                    let batch = self.engine.view.batch(&segment, &mark)?;
                    visit_batch(&batch, &wanted, visit)?;
                    until.tell(batch.len() as u64);
                }
            }
        }
        self.engine.mend_noted()
    }

    /// Visits every retained record that was durable when the call began, from the last one back to the
    /// first, until `visit` returns false: for what stands near the end. Verified and repaired as in
    /// [`replay`](Self::replay).
    ///
    /// # Errors
    /// As [`replay`](Self::replay).
    pub fn replay_back(
        &self,
        visit: &mut dyn FnMut(Position, &[u8]) -> Result<bool>,
    ) -> Result<()> {
        let wanted = 0..=self.last_sequence();
        for segment in self.engine.view.segments().iter().rev() {
            for mark in segment.marks().iter().rev() {
                if mark.count == 0 || mark.first_sequence > *wanted.end() {
                    continue;
                }
                let batch = self.engine.view.batch(segment, mark)?;
                let mut records = Vec::with_capacity(mark.count as usize);
                visit_batch(&batch, &wanted, &mut |position, _| {
                    records.push(position);
                    Ok(())
                })?;
                for position in records.into_iter().rev() {
                    let from = (position.offset - mark.offset) as usize;
                    if !visit(position, &batch[from..from + position.bytes as usize])? {
                        return self.engine.mend_noted();
                    }
                }
            }
        }
        self.engine.mend_noted()
    }

    /// Reads part of a record into `into`, from memory or the first member whose bytes `check` accepts. A
    /// copy that is not accepted is remembered for repair; a member that does not answer is asked last
    /// until it does.
    ///
    /// # Errors
    /// `journal.damaged`, `drive.timeout` as in [`replay`](Self::replay) (`into` is zeroes then),
    /// `context.deadline` (as well), `blob.not_found` (released), `buffer.length`
    pub fn read(
        &self,
        position: Position,
        offset: u32,
        into: &mut [u8],
        check: &dyn Fn(&[u8]) -> bool,
        deadline: &Deadline,
    ) -> Result<()> {
        self.engine.view.read(position, offset, into, check, deadline)
    }

    /// Sizes and limits.
    pub fn options(&self) -> &Options {
        &self.engine.options
    }

    /// Says that records before `before_sequence` are not needed any more. Their segments are used again
    /// once a later batch has made that durable; returns whether there are such segments.
    ///
    /// # Errors
    /// `pool.read_only`
    pub fn release(&self, before_sequence: u64) -> Result<bool> {
        let first = self.engine.view.floor_for(0);
        let floor = self.engine.view.floor_for(before_sequence);
        let mut writer = self.engine.writer();
        let writer = writer.as_mut().ok_or_else(read_only)?;
        writer.floor = writer.floor.max(floor);
        Ok(writer.floor > first)
    }

    /// The first record that is retained, or the next one if there is none.
    pub fn first_sequence(&self) -> u64 {
        self.engine.view.first_sequence().unwrap_or(1)
    }

    /// The last durable record, 0 if there never was one.
    pub fn last_sequence(&self) -> u64 {
        self.engine.last_sequence.load(Ordering::Acquire)
    }

    /// Bytes of log from the batch that holds `sequence` on: what a replay would read.
    pub fn bytes_since(&self, sequence: u64) -> u64 {
        self.engine.view.bytes_since(sequence)
    }

    /// How it is doing.
    pub fn status(&self) -> Status {
        let view = &self.engine.view;
        let replicas = view.replicas();
        let segments = view.segments();
        Status {
            members: replicas.iter().map(|replica| replica.id).collect(),
            epoch: view.epoch(),
            segments: segments.len() as u64,
            live_bytes: segments.iter().map(|segment| segment.live_bytes()).sum(),
            preallocated_bytes: replicas.first().map_or(0, |first| first.shelf().taken_bytes()),
            damaged_copies: view.bad().len() as u64,
            stopped: view.stopped().cloned(),
        }
    }

    /// Copies what is retained to a new member while commits go on; then, between two batches, calls
    /// `joined`, which makes the new membership durable, and from then on writes to it too. Whatever
    /// journal lay on the drive is given up.
    ///
    /// # Errors
    /// `drive.duplicate`, `drive.failed` (it was evicted in this opening), `journal.damaged`, those of the drive (nothing has changed then), those of
    /// `joined`: the journal stops, because the list of members is not known any more
    pub fn add_member(&self, member: Member, joined: &dyn Fn() -> Result<()>) -> Result<()> {
        self.engine.add_member(member, joined)
    }

    /// Between two batches calls `left`, which makes it durable that the drive is no member any more, and
    /// from then on does not write to it.
    ///
    /// # Errors
    /// `drive.unknown`, `journal.members` (it is the last one), those of `left` (the drive stays a member)
    pub fn remove_member(&self, drive: DriveId, left: &dyn Fn() -> Result<()>) -> Result<()> {
        let mut writer = self.engine.writer();
        let writer = writer.as_mut().ok_or_else(read_only)?;
        let members = writer.view.replicas();
        if !members.iter().any(|replica| replica.id == drive) {
            let message = format!("drive {drive} is no member of the journal");
            return Err(Error::new(&codes::DRIVE_UNKNOWN, message).with("drive", drive));
        }
        if members.len() == 1 {
            let message = format!("drive {drive} is the journal's last member");
            return Err(Error::new(&codes::JOURNAL_MEMBERS, message).with("drive", drive));
        }
        left()?;
        writer.view.leave(drive);
        Ok(())
    }

    /// Reads and verifies every copy of every retained segment and repairs the damaged ones from good ones.
    /// A member that fails while it is repaired, or does not answer, is evicted. Read-only: only looks.
    ///
    /// # Errors
    /// `journal.members`: the journal has stopped; `drive.timeout`: the last member does not answer;
    /// `process.exhausted`, `process.file_size`: not all of it was looked at or repaired
    pub fn scrub(&self) -> Result<ScrubReport> {
        let mut report = ScrubReport::default();
        for segment in self.engine.view.segments() {
            report.segments += 1;
            for replica in self.engine.view.replicas() {
                self.engine.scrub(&segment, &replica, &mut report)?;
            }
        }
        Ok(report)
    }

    /// Writes what still waits, then refuses everything but reads.
    ///
    /// # Errors
    /// Why the journal had stopped before.
    pub fn close(&self) -> Result<()> {
        let closed = Error::new(&codes::STORE_CLOSED, "the journal is closed");
        self.engine.queue.close(&closed);
        let mut state = self.engine.queue.lock();
        while let Some(front) = state.front() {
            state = self.engine.step(state, &front, &Deadline::never());
        }
        drop(state);
        let writer = self.engine.writer();
        drop(guard(&self.engine.apply)); // the last round is applied
        let why = self.engine.view.stop(closed).clone();
        drop(writer);
        for replica in self.engine.view.replicas() {
            replica.drain();
            replica.dismiss();
        }
        if why.is(&codes::STORE_CLOSED) { Ok(()) } else { Err(why) }
    }
}

impl fmt::Debug for Journal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Journal").field("last_sequence", &self.last_sequence()).finish()
    }
}

/// A record that has its place in the order and is on its way.
#[must_use = "a record is written when somebody waits"]
pub struct Pending {
    engine: Arc<Engine>,
    round: Arc<Round>,
    index: usize,
}

impl Pending {
    /// Waits until the record is durable on every member, and applied.
    ///
    /// After an error every record that was submitted later has failed with it, because it may rest on this
    /// one; and so does what is submitted before this is dropped. So undo first what others see of it.
    ///
    /// # Errors
    /// As [`Journal::commit`]. `context.deadline` (detail `outcome`: `unknown`): the record is on its way, and
    /// is written or refused later; [`outcome`](Self::outcome) tells.
    pub fn wait(&self, deadline: &Deadline) -> Result<Position> {
        if let Some(outcome) = self.outcome() {
            return outcome;
        }
        let mut state = self.engine.queue.lock();
        loop {
            if let Some(outcome) = self.outcome() {
                return outcome;
            }
            self.engine.check_time(&mut state, &self.round, deadline).map_err(|_| unknown())?;
            state = self.engine.step(state, &self.round, deadline);
        }
    }

    /// What became of the record; `None` while that is open.
    pub fn outcome(&self) -> Option<Result<Position>> {
        self.round.outcome(self.index)
    }
}

fn unknown() -> Error {
    let text = "the time was over while the change was on its way to the drives: it may be there or not, so look before you repeat it";
    Deadline::passed(text).with("outcome", "unknown")
}

impl fmt::Debug for Pending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pending")
    }
}

/// Visits the wanted records of a verified batch.
fn visit_batch(
    batch: &[u8],
    wanted: &RangeInclusive<u64>,
    visit: &mut dyn FnMut(Position, &[u8]) -> Result<()>,
) -> Result<()> {
    let header = BatchHeader::peek(batch)
        .ok_or_else(|| format::damaged("a verified batch of the journal has no header"))?;
    let records = format::records(batch, &header)?;
    for (sequence, (offset, bytes)) in (header.first_sequence..).zip(records) {
        if wanted.contains(&sequence) {
            let place = header.offset + offset;
            let position = Position { sequence, segment: header.segment, offset: place, bytes };
            visit(position, &batch[offset as usize..(offset + bytes) as usize])?;
        }
    }
    Ok(())
}
