//! The journal itself: commits, reads, and everything that changes who holds it.

use std::collections::HashMap;
use std::fmt;
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use dwk_base::{DriveId, Error, Result, Seams, codes};

use crate::format::{self, BATCH_HEADER_BYTES, BLOCK, BatchHeader};
use crate::mend::{self, Failure};
use crate::open::{Opening, clear, survey};
use crate::queue::{Queue, Round, State};
use crate::replica::Replica;
use crate::segment::{Mark, Segment};
use crate::sync::guard;
use crate::view::View;
use crate::writer::Writer;
use crate::{
    Apply, Identity, Member, Membership, Options, Position, Recovery, SYNC_COPY, SYNC_MEND,
    ScrubReport, Status,
};

/// The ordered log of commits. Shared by any number of threads.
pub struct Journal {
    inner: Arc<Inner>,
}

struct Inner {
    identity: Identity,
    options: Options,
    seams: Seams,
    view: Arc<View>,
    queue: Queue,
    /// `None` if the log was opened read-only.
    writer: Mutex<Option<Writer>>,
    /// Held from before a leader steps down until its round is applied: this keeps the order.
    apply: Mutex<Option<Arc<dyn Apply>>>,
    last_sequence: AtomicU64,
    read_only: bool,
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
        let opening = Opening::new(identity, members, options.clone(), membership)?;
        let writer = opening.create(&*seams.random)?;
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
        let opening = Opening::new(identity, members, options.clone(), membership)?;
        let (writer, recovery) = opening.open()?;
        Ok((Self::serve(identity, options, seams, writer), recovery))
    }

    /// Finds the log and writes nothing, on any drive. Commits fail with `pool.read_only`.
    ///
    /// # Errors
    /// As [`open`](Self::open), but for `journal.epoch`.
    pub fn open_read_only(
        identity: Identity,
        members: Vec<Member>,
        options: Options,
        membership: Arc<dyn Membership>,
        seams: Seams,
    ) -> Result<(Self, Recovery)> {
        let opening = Opening::new(identity, members, options.clone(), membership)?;
        let (view, recovery) = opening.open_read_only()?;
        let last_sequence = recovery.last_sequence;
        Ok((Self::build(identity, options, seams, view, None, last_sequence), recovery))
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
        let inner = Inner {
            identity,
            options,
            seams,
            view,
            queue,
            read_only: writer.is_none(),
            writer: Mutex::new(writer),
            apply: Mutex::default(),
            last_sequence: AtomicU64::new(last_sequence),
        };
        Self { inner: Arc::new(inner) }
    }

    /// From now on each record is handed to `apply` as it becomes durable. Replay first.
    pub fn set_apply(&self, apply: Arc<dyn Apply>) {
        *guard(&self.inner.apply) = Some(apply);
    }

    /// Writes a record; when this returns it is durable on every member, and applied.
    ///
    /// # Errors
    /// `journal.record_size`, `journal.members` (whether the record survives is not known),
    /// `pool.read_only`, `store.closed`
    pub fn commit(&self, record: Bytes) -> Result<Position> {
        self.submit(record)?.wait()
    }

    /// Takes a record's place in the order; it is written when somebody waits, for this record or a later
    /// one, or when the journal is closed.
    ///
    /// # Errors
    /// As [`commit`](Self::commit).
    pub fn submit(&self, record: Bytes) -> Result<Pending> {
        let (round, index) = self.inner.submit(record)?;
        Ok(Pending { inner: Arc::clone(&self.inner), round, index })
    }

    /// Visits every retained record from `from_sequence` on that was durable when the call began, in order.
    /// Each is verified; where a copy is damaged another one is read, and the damaged one is repaired.
    ///
    /// # Errors
    /// `journal.damaged`, those of `visit`, those of [`scrub`](Self::scrub)
    pub fn replay(
        &self,
        from_sequence: u64,
        visit: &mut dyn FnMut(Position, &[u8]) -> Result<()>,
    ) -> Result<()> {
        let wanted = from_sequence..=self.last_sequence();
        for segment in self.inner.view.segments() {
            for mark in segment.marks() {
                if mark.next_sequence() > *wanted.start() && mark.first_sequence <= *wanted.end() {
                    let batch = self.inner.view.batch(&segment, &mark)?;
                    visit_batch(&batch, &wanted, visit)?;
                }
            }
        }
        self.inner.mend_noted()
    }

    /// Reads part of a record into `into`, from the first member whose bytes `check` accepts. A copy that is
    /// not accepted is remembered for repair.
    ///
    /// # Errors
    /// `journal.damaged` (`into` is zeroes then), `blob.not_found` (released), `buffer.length`
    pub fn read(
        &self,
        position: Position,
        offset: u32,
        into: &mut [u8],
        check: &dyn Fn(&[u8]) -> bool,
    ) -> Result<()> {
        self.inner.view.read(position, offset, into, check)
    }

    /// Says that records before `before_sequence` are not needed any more. Their segments are used again
    /// once a later batch has made that durable.
    ///
    /// # Errors
    /// `pool.read_only`
    pub fn release(&self, before_sequence: u64) -> Result<()> {
        let floor = self.inner.view.floor_for(before_sequence);
        let mut writer = self.inner.writer();
        let writer = writer.as_mut().ok_or_else(read_only)?;
        writer.floor = writer.floor.max(floor);
        Ok(())
    }

    /// The first record that is retained, or the next one if there is none.
    pub fn first_sequence(&self) -> u64 {
        self.inner.view.first_sequence().unwrap_or(1)
    }

    /// The last durable record, 0 if there never was one.
    pub fn last_sequence(&self) -> u64 {
        self.inner.last_sequence.load(Ordering::Acquire)
    }

    /// Bytes of log from the batch that holds `sequence` on: what a replay would read.
    pub fn bytes_since(&self, sequence: u64) -> u64 {
        self.inner.view.bytes_since(sequence)
    }

    /// How it is doing.
    pub fn status(&self) -> Status {
        let view = &self.inner.view;
        let replicas = view.replicas();
        let segments = view.segments();
        let writer = self.inner.writer();
        let epoch = writer.as_ref().map_or(self.inner.identity.epoch, |writer| writer.epoch);
        Status {
            members: replicas.iter().map(|replica| replica.id).collect(),
            epoch,
            segments: segments.len() as u64,
            live_bytes: segments.iter().map(|segment| segment.live_bytes()).sum(),
            preallocated_bytes: replicas.first().map_or(0, |first| first.shelf().taken_bytes()),
            damaged_copies: view.bad().len() as u64,
            stopped: writer.as_ref().and_then(|writer| writer.stopped.clone()),
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
        self.inner.add_member(member, joined)
    }

    /// Between two batches calls `left`, which makes it durable that the drive is no member any more, and
    /// from then on does not write to it.
    ///
    /// # Errors
    /// `drive.unknown`, `journal.members` (it is the last one), those of `left` (the drive stays a member)
    pub fn remove_member(&self, drive: DriveId, left: &dyn Fn() -> Result<()>) -> Result<()> {
        let mut writer = self.inner.writer();
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
    /// A member that fails while it is repaired is evicted. Read-only: only looks.
    ///
    /// # Errors
    /// `journal.members`: the journal has stopped
    pub fn scrub(&self) -> Result<ScrubReport> {
        let mut report = ScrubReport::default();
        for segment in self.inner.view.segments() {
            report.segments += 1;
            for replica in self.inner.view.replicas() {
                self.inner.scrub(&segment, &replica, &mut report)?;
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
        self.inner.queue.close(&closed);
        let mut state = self.inner.queue.lock();
        while let Some(front) = state.front() {
            state = self.inner.step(state, &front);
        }
        drop(state);
        let mut writer = self.inner.writer();
        drop(guard(&self.inner.apply)); // the last round is applied
        self.inner.view.replicas().iter().for_each(|replica| replica.drain());
        match writer.as_mut() {
            None => Ok(()),
            Some(writer) => match writer.stopped.replace(closed) {
                Some(error) if !error.is(&codes::STORE_CLOSED) => Err(error),
                _ => Ok(()),
            },
        }
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
    inner: Arc<Inner>,
    round: Arc<Round>,
    index: usize,
}

impl Pending {
    /// Waits until the record is durable on every member, and applied.
    ///
    /// # Errors
    /// As [`Journal::commit`].
    pub fn wait(self) -> Result<Position> {
        if let Some(outcome) = self.round.outcome(self.index) {
            return outcome;
        }
        let mut state = self.inner.queue.lock();
        loop {
            if let Some(outcome) = self.round.outcome(self.index) {
                return outcome;
            }
            state = self.inner.step(state, &self.round);
        }
    }
}

impl fmt::Debug for Pending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pending")
    }
}

impl Inner {
    fn writer(&self) -> MutexGuard<'_, Option<Writer>> {
        guard(&self.writer)
    }

    fn submit(&self, record: Bytes) -> Result<(Arc<Round>, usize)> {
        if self.read_only {
            return Err(read_only());
        }
        if record.len() > self.options.record_bytes_max as usize {
            let message = format!(
                "a record of {} bytes is longer than {}",
                record.len(),
                self.options.record_bytes_max
            );
            return Err(Error::new(&codes::JOURNAL_RECORD_SIZE, message));
        }
        let mut state = self.queue.lock();
        while !self.queue.has_room(&state, record.len()) {
            let Some(front) = state.front() else { break };
            state = self.step(state, &front);
        }
        self.queue.push(&mut state, record)
    }

    /// Leads, or waits until `round` is done or a leader is wanted.
    fn step<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        round: &Round,
    ) -> MutexGuard<'a, State> {
        if !Queue::try_lead(&mut state) {
            return Queue::wait(state, round);
        }
        drop(state);
        self.lead();
        self.queue.lock()
    }

    /// Writes the front round as one batch, steps down, applies it, and tells its waiters.
    fn lead(&self) {
        let mut lead = Lead { inner: self, round: None, leading: true };
        if !self.options.batch_delay.is_zero() {
            self.seams.clock.sleep(self.options.batch_delay);
        }
        let mut writer = self.writer();
        let Some(waiting) = self.queue.take() else { return };
        lead.round = Some(Arc::clone(&waiting.round));
        let outcome = match writer.as_mut() {
            Some(writer) => writer.write(&waiting.records),
            None => Err(read_only()),
        };
        if let Some(last) = outcome.as_ref().ok().and_then(|positions| positions.last()) {
            self.last_sequence.store(last.sequence, Ordering::Release);
        }
        let apply = guard(&self.apply);
        drop(writer);
        lead.step_down();
        if let (Ok(positions), Some(apply)) = (&outcome, &*apply) {
            for (position, record) in positions.iter().zip(&waiting.records) {
                apply.apply(*position, record);
            }
        }
        drop(apply);
        lead.round = None;
        self.queue.settle(&waiting.round, outcome);
    }

    fn add_member(&self, member: Member, joined: &dyn Fn() -> Result<()>) -> Result<()> {
        if self.read_only {
            return Err(read_only());
        }
        if self.view.replicas().iter().any(|replica| replica.id == member.id) {
            let message = format!("drive {} is a member of the journal already", member.id);
            return Err(Error::new(&codes::DRIVE_DUPLICATE, message).with("drive", member.id));
        }
        if self.writer().as_ref().is_some_and(|writer| writer.evicted.contains(&member.id)) {
            let message = format!("drive {} failed the journal since it was opened", member.id);
            return Err(Error::new(&codes::DRIVE_FAILED, message).with("drive", member.id));
        }
        let replica = Arc::new(Replica::new(member, &self.options));
        let found = survey(std::slice::from_ref(&replica), &self.identity).remove(0)?;
        clear(&replica, found)?;
        // Most of it while commits go on, the rest between two of them.
        self.copy_to(&replica)?;
        let mut writer = self.writer();
        let writer = writer.as_mut().ok_or_else(read_only)?;
        if let Some(error) = &writer.stopped {
            return Err(error.clone());
        }
        self.copy_to(&replica)?;
        if let Err(error) = joined() {
            writer.stop(&error, "the new list of members may or may not be durable");
            return Err(error);
        }
        self.view.join(replica);
        Ok(())
    }

    fn copy_to(&self, replica: &Replica) -> Result<()> {
        for segment in self.view.segments() {
            match mend::copy(&self.view, replica, &segment, SYNC_COPY) {
                Ok(_) => {}
                Err(Failure::Member(error) | Failure::Lost(error)) => return Err(error),
            }
        }
        Ok(())
    }

    /// Verifies one member's copy of a segment and repairs it.
    fn scrub(
        &self,
        segment: &Segment,
        replica: &Arc<Replica>,
        report: &mut ScrubReport,
    ) -> Result<()> {
        let lack = mend::inspect(replica, segment);
        report.verified_bytes += segment.live_bytes();
        if lack.is_nothing() {
            self.view.note_good(replica.id, segment.number);
            return Ok(());
        }
        self.view.note_bad(replica.id, segment.number);
        let mut writer = self.writer();
        let Some(writer) = writer.as_mut() else { return Ok(()) };
        let member = self.view.replicas().iter().any(|member| Arc::ptr_eq(member, replica));
        if !member || writer.stopped.is_some() {
            return Ok(()); // evicted or removed meanwhile
        }
        // Again, with all that was written since: nothing is written as long as this thread is here.
        let mut lack = mend::inspect(replica, segment);
        let mut good = HashMap::new();
        for mark in &lack.batches {
            match self.view.batch(segment, mark) {
                Ok(batch) => drop(good.insert(mark.offset, batch)),
                Err(_) => report.lost_batches += 1,
            }
        }
        let whole = lack.batches.len() == good.len();
        lack.batches.retain(|mark| good.contains_key(&mark.offset));
        let fetch = |mark: &Mark| {
            good.get(&mark.offset).cloned().ok_or_else(|| format::damaged("a batch went away"))
        };
        match mend::mend(replica, segment, &lack, &fetch, SYNC_MEND) {
            Ok(count) => report.repaired_batches += count,
            Err(Failure::Member(error)) => writer.evict_all(vec![(replica.id, error)])?,
            Err(Failure::Lost(error)) => return Err(error),
        }
        if whole {
            self.view.note_good(replica.id, segment.number);
            // A slot that was of no use is given back only now.
            drop(replica.start(|shelf, drive| shelf.tidy(drive)));
        }
        Ok(())
    }

    /// Repairs the copies that readers found damaged.
    fn mend_noted(&self) -> Result<()> {
        if self.read_only {
            return Ok(());
        }
        let mut report = ScrubReport::default();
        for (drive, number) in self.view.bad() {
            let replica = self.view.replicas().into_iter().find(|replica| replica.id == drive);
            if let (Some(segment), Some(replica)) = (self.view.segment(number), replica) {
                self.scrub(&segment, &replica, &mut report)?;
            }
        }
        Ok(())
    }
}

/// A thread's turn to lead. If it panics (in `apply`), nothing that waits may wait for ever.
struct Lead<'a> {
    inner: &'a Inner,
    round: Option<Arc<Round>>,
    leading: bool,
}

impl Lead<'_> {
    fn step_down(&mut self) {
        if std::mem::take(&mut self.leading) {
            self.inner.queue.hand_over();
        }
    }
}

impl Drop for Lead<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let why = Error::new(&codes::INTERNAL_BUG, "the journal's leader panicked");
            if let Some(round) = &self.round {
                self.inner.queue.settle(round, Err(why.clone()));
            }
            self.inner.queue.fail_all(&why);
        }
        self.step_down();
    }
}

fn read_only() -> Error {
    Error::new(&codes::POOL_READ_ONLY, "the journal was opened to be read only")
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
