//! What stands behind the journal: threads that lead, and what changes between two batches.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;

use bytes::Bytes;
use dwk_base::{Deadline, Error, Result, Seams, codes};

use crate::format;
use crate::mend::{self, Failure, Lack};
use crate::open::{clear, survey};
use crate::queue::{Queue, Round, State};
use crate::replica::Replica;
use crate::segment::{Mark, Segment};
use crate::sync::guard;
use crate::view::View;
use crate::writer::{self, Room, Writer};
use crate::{Apply, Identity, Member, Options, SYNC_COPY, SYNC_JOIN, SYNC_SCRUB, ScrubReport};

/// Who leads may wait so many times for as long as a member may take: once for a member that hangs, and
/// once for the drives that are told of it.
const LEAD_WAITS: u32 = 2;

/// The journal, shared by its handle and everything that is pending.
pub(crate) struct Engine {
    pub identity: Identity,
    pub options: Options,
    pub seams: Seams,
    pub view: Arc<View>,
    pub queue: Queue,
    /// `None` if the log was opened read-only.
    pub writer: Mutex<Option<Writer>>,
    /// Held from before a leader steps down until its round is applied: this keeps the order.
    pub apply: Mutex<Option<Arc<dyn Apply>>>,
    pub last_sequence: AtomicU64,
    pub read_only: bool,
    /// True since ordinary records found no room: they are refused before they wait, so that those that may
    /// use what is kept for them do not fail with them.
    pub short: AtomicBool,
}

impl Engine {
    pub(crate) fn writer(&self) -> MutexGuard<'_, Option<Writer>> {
        guard(&self.writer)
    }

    pub(crate) fn submit(
        self: &Arc<Self>,
        record: Bytes,
        room: Room,
        deadline: &Deadline,
    ) -> Result<(Arc<Round>, usize)> {
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
        let ordinary = room == Room::Ordinary;
        if ordinary && self.short.load(Ordering::Acquire) {
            self.find_room(record.len())?;
        }
        let mut state = self.queue.lock();
        while !self.queue.has_room(&state, record.len()) {
            let Some(front) = state.front() else { break };
            self.check_time(&mut state, &front, deadline)?;
            state = self.step(state, &front, deadline);
        }
        self.queue.push(&mut state, record, ordinary)
    }

    /// Looks whether there is room for ordinary records again.
    fn find_room(&self, record_bytes: usize) -> Result<()> {
        let mut writer = self.writer();
        writer.as_mut().ok_or_else(read_only)?.try_room(record_bytes)?;
        self.short.store(false, Ordering::Release);
        Ok(())
    }

    /// Leads, or waits until `round` is done, a leader is wanted, or the time is over.
    pub(crate) fn step<'a>(
        self: &'a Arc<Self>,
        mut state: MutexGuard<'a, State>,
        round: &Round,
        deadline: &Deadline,
    ) -> MutexGuard<'a, State> {
        if !Queue::try_lead(&mut state) {
            return Queue::wait(state, round, deadline.remaining());
        }
        if deadline.remaining() < self.options.member_timeout * LEAD_WAITS {
            self.lead_aside(&mut state);
            return state;
        }
        drop(state);
        self.lead();
        let mut state = self.queue.lock();
        self.lead_left(&mut state);
        state
    }

    /// Fails if the time is over of who waits for `round`. It may have been chosen to lead just now, so the
    /// round is written by somebody else.
    pub(crate) fn check_time(
        self: &Arc<Self>,
        state: &mut State,
        round: &Round,
        deadline: &Deadline,
    ) -> Result<()> {
        let checked = deadline.check();
        if checked.is_err() {
            round.leave();
            self.lead_left(state);
        }
        checked
    }

    /// Has rounds written that somebody left.
    fn lead_left(self: &Arc<Self>, state: &mut State) {
        if state.has_left() && Queue::try_lead(state) {
            self.lead_aside(state);
        }
    }

    /// Passes the lead, which the caller has, to a thread; it goes on as long as there are rounds that
    /// somebody left.
    fn lead_aside(self: &Arc<Self>, state: &mut State) {
        let engine = Arc::clone(self);
        let lead = move || {
            engine.lead();
            let mut state = engine.queue.lock();
            while state.has_left() && Queue::try_lead(&mut state) {
                drop(state);
                engine.lead();
                state = engine.queue.lock();
            }
        };
        // Without a thread the next one who waits leads.
        if thread::Builder::new().name("dwk-leader".to_owned()).spawn(lead).is_err() {
            Queue::pass_on(state);
        }
    }

    /// Writes the front round as one batch, steps down, applies it, and tells its waiters.
    fn lead(&self) {
        let mut lead = Lead { engine: self, round: None, leading: true };
        if !self.options.batch_delay.is_zero() {
            self.seams.clock.sleep(self.options.batch_delay);
        }
        let mut writer = self.writer();
        let Some(waiting) = self.queue.take() else { return };
        lead.round = Some(Arc::clone(&waiting.round));
        let outcome = match writer.as_mut() {
            Some(writer) if waiting.ordinary => writer.write(&waiting.records, Room::Ordinary),
            Some(writer) => writer.write(&waiting.records, Room::Reserved),
            None => Err(read_only()),
        };
        let positions = match outcome {
            Ok(positions) => positions,
            Err(error) => {
                if waiting.ordinary && error.is(&codes::DRIVE_FULL) {
                    self.short.store(true, Ordering::Release);
                }
                // Before anybody else may lead: what waits behind is not to be written.
                lead.round = None;
                return self.queue.refuse(&waiting.round, &error);
            }
        };
        if let Some(last) = positions.last() {
            self.last_sequence.store(last.sequence, Ordering::Release);
        }
        let apply = guard(&self.apply);
        drop(writer);
        lead.step_down();
        if let Some(apply) = &*apply {
            for (position, record) in positions.iter().zip(&waiting.records) {
                apply.apply(*position, record);
            }
        }
        drop(apply);
        lead.round = None;
        self.queue.settle(&waiting.round, Ok(positions));
    }

    pub(crate) fn add_member(&self, member: Member, joined: &dyn Fn() -> Result<()>) -> Result<()> {
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
        let found =
            survey(std::slice::from_ref(&replica), &self.identity, &Deadline::never()).remove(0)?;
        clear(&replica, found)?;
        // Most of it while commits go on, the rest between two of them.
        let prepared = self.prepare(&replica);
        let joined = prepared.and_then(|copied| self.join(&replica, &copied, joined));
        // If the journal has stopped, the drive may be a member now: it keeps what it has.
        if joined.is_err() && self.view.stopped().is_none() {
            self.give_up(&replica);
        }
        joined
    }

    /// Between two commits: copies the rest to a new member and takes it in.
    fn join(
        &self,
        replica: &Arc<Replica>,
        copied: &BTreeMap<u64, usize>,
        joined: &dyn Fn() -> Result<()>,
    ) -> Result<()> {
        let mut writer = self.writer();
        let writer = writer.as_mut().ok_or_else(read_only)?;
        if let Some(error) = writer.view.stopped() {
            return Err(error.clone());
        }
        let whole = self.copy_to(replica, copied, SYNC_JOIN)?;
        if let Some(segment) = writer.tip.segment.as_ref().map(|segment| segment.number) {
            replica.run(move |shelf, drive| shelf.reserve(drive, segment))?;
        }
        let gone = copied.keys().filter(|segment| !whole.contains_key(segment));
        writer::retire(replica, gone.copied().collect());
        if let Err(error) = joined() {
            writer.stop(&error, "the new list of members may or may not be durable");
            return Err(error);
        }
        self.view.join(Arc::clone(replica));
        Ok(())
    }

    /// Has a drive that did not become a member forget the journal. If it fails to, or not in time, it is not
    /// tried again in this opening: it might remove then what it holds as a member.
    fn give_up(&self, replica: &Replica) {
        let given_up = replica.run(|shelf, drive| shelf.give_up(drive));
        if given_up.is_err_and(|error| !error.is_of_process())
            && let Some(writer) = self.writer().as_mut()
        {
            writer.evicted.push(replica.id);
        }
    }

    /// Copies to a new member what is retained now, and makes sure that it has room to go on: a full drive
    /// is of no help, because it would keep the others from going on.
    fn prepare(&self, replica: &Replica) -> Result<BTreeMap<u64, usize>> {
        let copied = self.copy_to(replica, &BTreeMap::new(), SYNC_COPY)?;
        let count = self.options.free_segments();
        replica.run(move |shelf, drive| shelf.make_spares(drive, count))?;
        Ok(copied)
    }

    /// Copies every retained segment to a new member, but for the batches that it has: `copied` says how
    /// many of each segment. Returns how many it has then.
    fn copy_to(
        &self,
        replica: &Replica,
        copied: &BTreeMap<u64, usize>,
        tag: &'static str,
    ) -> Result<BTreeMap<u64, usize>> {
        let copy = |segment: Arc<Segment>| {
            let from = copied.get(&segment.number).copied();
            match mend::copy(&self.view, replica, &segment, from, tag) {
                Ok(count) => Ok((segment.number, count)),
                Err(Failure::Member(error) | Failure::Lost(error)) => Err(error),
            }
        };
        self.view.segments().into_iter().map(copy).collect()
    }

    /// Verifies one member's copy of a segment and repairs it.
    pub(crate) fn scrub(
        &self,
        segment: &Segment,
        replica: &Arc<Replica>,
        report: &mut ScrubReport,
    ) -> Result<()> {
        let looked = mend::inspect(replica, segment);
        if let Err(error) = &looked
            && error.is_of_process()
        {
            return Err(error.clone());
        }
        report.verified_bytes += segment.live_bytes();
        if looked.as_ref().is_ok_and(Lack::is_nothing) {
            self.view.note_good(replica.id, segment.number);
            return Ok(());
        }
        self.view.note_bad(replica.id, segment.number);
        let mut writer = self.writer();
        let Some(writer) = writer.as_mut() else { return Ok(()) };
        let member = self.view.replicas().iter().any(|member| Arc::ptr_eq(member, replica));
        if !member || self.view.stopped().is_some() {
            return Ok(()); // evicted or removed meanwhile
        }
        // Again, with all that was written since: nothing is written as long as this thread is here.
        let looked = looked.and_then(|_| mend::inspect(replica, segment));
        let mut lack = match looked {
            Ok(lack) => lack,
            Err(error) if error.is_of_process() => return Err(error),
            Err(error) if self.view.replicas().len() == 1 => return Err(error),
            Err(error) => return writer.evict_all(vec![(replica.id, error)]),
        };
        let mut good = HashMap::new();
        for mark in &lack.batches {
            match self.view.batch(segment, mark) {
                Ok(batch) => drop(good.insert(mark.offset, batch)),
                Err(error) if error.is_of_process() => return Err(error),
                Err(_) => report.lost_batches += 1,
            }
        }
        let whole = lack.batches.len() == good.len();
        lack.batches.retain(|mark| good.contains_key(&mark.offset));
        let fetch = |mark: &Mark| {
            good.get(&mark.offset).cloned().ok_or_else(|| format::damaged("a batch went away"))
        };
        match mend::mend(replica, segment, &lack, &fetch, SYNC_SCRUB) {
            Ok(count) => report.repaired_batches += count,
            Err(Failure::Member(error)) if error.is_of_process() => return Err(error),
            // Everything else on it is good, and of use; but where it goes on it must have room.
            Err(Failure::Member(error)) if writer.can_lack(segment.number, &error) => {
                report.unrepaired_batches += lack.batches.len() as u64;
                return Ok(());
            }
            Err(Failure::Member(error)) => writer.evict_all(vec![(replica.id, error)])?,
            Err(Failure::Lost(error)) => return Err(error),
        }
        // It may lie in another slot now.
        if writer.is_current(segment.number) {
            writer.hold()?;
        }
        if whole {
            self.view.note_good(replica.id, segment.number);
            // A slot that was of no use is given back only now.
            drop(replica.start(|shelf, drive| shelf.tidy(drive)));
        }
        Ok(())
    }

    /// Repairs the copies that readers found damaged.
    pub(crate) fn mend_noted(&self) -> Result<()> {
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
    engine: &'a Engine,
    round: Option<Arc<Round>>,
    leading: bool,
}

impl Lead<'_> {
    fn step_down(&mut self) {
        if std::mem::take(&mut self.leading) {
            self.engine.queue.hand_over();
        }
    }
}

impl Drop for Lead<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let why = Error::new(&codes::INTERNAL_BUG, "the journal's leader panicked");
            if let Some(round) = &self.round {
                self.engine.queue.settle(round, Err(why.clone()));
            }
            self.engine.queue.fail_all(&why);
        }
        self.step_down();
    }
}

pub(crate) fn read_only() -> Error {
    Error::new(&codes::POOL_READ_ONLY, "the journal was opened to be read only")
}
