//! Commits: a change is checked, takes its place in the order, and is waited for.
//!
//! Between the two ends the keys that it will change are *staged*, so that requirements of later changes see
//! them.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use dwk_base::{Clock, Deadline, Error, Result, codes};
use dwk_journal::Pending;

use crate::change::{Change, Require, Source, Verb};
use crate::meta::{BODY_BYTES_MAX, KEY_BYTES_MAX, Meta};
use crate::record::{NewContent, Operation, RecordWriter};

/// Keys that commits under way will change, so that requirements see them.
#[derive(Default)]
pub(crate) struct Staging {
    next: u64,
    keys: HashMap<Vec<u8>, (u64, bool)>,
    /// Commits whose callers' time was over while they were on their way.
    left: Vec<Left>,
}

/// A commit that nobody waits for.
struct Left {
    ticket: u64,
    keys: Vec<Vec<u8>>,
    pending: Arc<Pending>,
}

impl Staging {
    fn add(&mut self, change: &Change) -> u64 {
        self.next += 1;
        for (key, verb) in &change.verbs {
            let there = matches!(verb, Verb::Put { .. });
            self.keys.insert(key.clone(), (self.next, there));
        }
        self.next
    }

    /// Forgets commits that nobody waited for and that are done, or refused.
    fn settle_left(&mut self) {
        let done = |left: &mut Left| left.pending.outcome().is_some();
        let done: Vec<Left> = self.left.extract_if(.., done).collect();
        for left in done {
            self.remove(left.ticket, &left.keys);
        }
    }

    /// A later commit's entry for the same key stays.
    fn remove(&mut self, ticket: u64, keys: &[Vec<u8>]) {
        for key in keys {
            if self.keys.get(key).is_some_and(|(owner, _)| *owner == ticket) {
                self.keys.remove(key);
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A record on its way, and the keys that it will change.
struct Flight {
    staging: Arc<Mutex<Staging>>,
    clock: Arc<dyn Clock>,
    ticket: u64,
    keys: Vec<Vec<u8>>,
    /// Dropped after the keys are no longer staged: until then the journal refuses what may rest on it.
    pending: Arc<Pending>,
}

impl Flight {
    fn wait(&self, deadline: &Deadline) -> Result<u64> {
        Ok(self.pending.wait(deadline)?.sequence)
    }

    fn outcome(&self) -> Option<Result<u64>> {
        Some(self.pending.outcome()?.map(|position| position.sequence))
    }

    /// Its outcome is known: its keys are as the map has them.
    fn settle(&self) {
        lock(&self.staging).remove(self.ticket, &self.keys);
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        if self.pending.outcome().is_some() {
            return self.settle();
        }
        // It is to be written all the same, by somebody else.
        let _ = self.pending.wait(&Deadline::after(Arc::clone(&self.clock), Duration::ZERO));
        // Whoever comes next must see what it will have changed.
        let (keys, pending) = (std::mem::take(&mut self.keys), Arc::clone(&self.pending));
        lock(&self.staging).left.push(Left { ticket: self.ticket, keys, pending });
    }
}

/// A change that has its place in the order of commits and is on its way. It happens or fails even if nobody
/// waits for it; one that is dropped unwaited is written by somebody else.
#[must_use = "whether it is durable tells `wait`"]
pub struct Submitted {
    /// Until its outcome is known.
    change: Mutex<Option<Change>>,
    flight: Flight,
}

impl Submitted {
    /// Waits until the change is durable and visible, and returns its version. Any number of threads may wait,
    /// also again.
    ///
    /// After an error every change that was submitted later has failed with it, and so does what is submitted
    /// before this is dropped: so undo first what others see of it. Nothing is tried again here.
    ///
    /// # Errors
    /// As [`Meta::commit`]. `context.deadline` (detail `outcome`: `unknown`): the change is on its way, and
    /// may be there at any time from now on; [`outcome`](Self::outcome) tells.
    pub fn wait(&self, deadline: &Deadline) -> Result<u64> {
        let done = self.flight.pending.wait(deadline);
        self.outcome().unwrap_or_else(|| done.map(|position| position.sequence))
    }

    /// The change's version, or why it failed; `None` while that is open. Requirements of other changes see
    /// the row as it is then.
    pub fn outcome(&self) -> Option<Result<u64>> {
        let outcome = self.flight.outcome()?;
        let mut change = lock(&self.change);
        if let Some(change) = change.take() {
            self.flight.settle();
            settle(change, &outcome);
        }
        Some(outcome)
    }
}

impl Drop for Submitted {
    fn drop(&mut self) {
        if self.outcome().is_none()
            && let Some(change) = lock(&self.change).take()
        {
            change.keep();
        }
    }
}

impl fmt::Debug for Submitted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Submitted").field("outcome", &self.outcome()).finish_non_exhaustive()
    }
}

impl Meta {
    /// Makes a change durable and visible, all of it or nothing, and returns its version.
    ///
    /// # Errors
    /// `object.conflict` (detail `key`) if a requirement fails, `pool.full` if it adds something, `journal.*`,
    /// `pool.read_only`. After `journal.members` it is not known whether the change will be there at the
    /// next opening; after any other error it will not, and the content that was staged for it is gone.
    pub fn commit(&self, change: Change) -> Result<u64> {
        self.commit_until(change, &Deadline::never())
    }

    /// [`commit`](Self::commit), waiting no longer than to the deadline. When that passes while the change is on
    /// its way it may become durable and visible later, or not.
    ///
    /// # Errors
    /// As `commit`, and `context.deadline`: with the detail `outcome` (`unknown`) the change may be there at
    /// any time from now on, without it nothing of it will.
    pub fn commit_until(&self, change: Change, deadline: &Deadline) -> Result<u64> {
        let record = self.admit(&change, deadline)?;
        let done = self.try_twice(&change, &record, deadline, &|flight| flight.wait(deadline));
        settle(change, &done);
        done
    }

    /// Gives a change its place in the order of commits, and does not wait until it is durable: of two
    /// changes that one thread submits the second happens only if the first one does. Requirements are
    /// checked now. Waits until the deadline for room, and if too much is on its way already.
    ///
    /// # Errors
    /// As [`commit_until`](Self::commit_until): nothing of it will be there, except perhaps after
    /// `journal.members`.
    pub fn submit(&self, change: Change, deadline: &Deadline) -> Result<Submitted> {
        let record = self.admit(&change, deadline)?;
        match self.try_twice(&change, &record, deadline, &Ok) {
            Ok(flight) => Ok(Submitted { change: Mutex::new(Some(change)), flight }),
            Err(error) => {
                settle(change, &Err(error.clone()));
                Err(error)
            }
        }
    }

    /// The record of a change that may go on its way.
    fn admit(&self, change: &Change, deadline: &Deadline) -> Result<Bytes> {
        check_sizes(change)?;
        self.check_writable()?;
        let record = encode(change);
        self.keeper.hold_back(self, record.len() as u64, deadline)?;
        if change.adds() {
            self.keeper.room.admit_record(self, record.len() as u64, deadline)?;
        }
        Ok(record)
    }

    /// Submits, goes on with `then`, and does it all once more if the journal had no room.
    fn try_twice<T>(
        &self,
        change: &Change,
        record: &Bytes,
        deadline: &Deadline,
        then: &dyn Fn(Flight) -> Result<T>,
    ) -> Result<T> {
        let done = self.try_submit(change, record, false, deadline).and_then(then);
        if done.as_ref().is_err_and(|error| error.is(&codes::DRIVE_FULL)) {
            // The journal has no room for a segment. Nothing was written.
            self.relieve(record.len() as u64, deadline);
            let reserved = self.gives_back(change);
            return self.try_submit(change, record, reserved, deadline).and_then(then);
        }
        done
    }

    /// True if the change only deletes, and something is there to be deleted.
    fn gives_back(&self, change: &Change) -> bool {
        let state = self.state();
        !change.adds() && change.verbs.iter().any(|(key, _)| state.row(key).is_some())
    }

    fn try_submit(
        &self,
        change: &Change,
        record: &Bytes,
        reserved: bool,
        deadline: &Deadline,
    ) -> Result<Flight> {
        let mut staging = lock(&self.staging);
        staging.settle_left();
        self.check(&staging, change)?;
        let journal = self.journal();
        let pending = if reserved {
            journal.submit_reserved(record.clone(), deadline)?
        } else {
            journal.submit(record.clone(), deadline)?
        };
        let ticket = staging.add(change);
        drop(staging);
        Ok(Flight {
            staging: Arc::clone(&self.staging),
            clock: Arc::clone(&self.pool().seams().clock),
            ticket,
            keys: change.verbs.iter().map(|(key, _)| key.clone()).collect(),
            pending: Arc::new(pending),
        })
    }

    fn check(&self, staging: &Staging, change: &Change) -> Result<()> {
        let state = self.state();
        for (key, require) in &change.requires {
            let row = state.row(key).map(|row| row.version);
            let holds = match (require, staging.keys.get(key)) {
                (Require::Absent, Some((_, there))) => !there,
                (Require::Present, Some((_, there))) => *there,
                (Require::Version(_), Some(_)) => false,
                (Require::Absent, None) => row.is_none(),
                (Require::Present, None) => row.is_some(),
                (Require::Version(version), None) => row == Some(*version),
            };
            if !holds {
                let text = format!("a requirement does not hold: {require:?}");
                let key = String::from_utf8_lossy(key).into_owned();
                return Err(Error::new(&codes::OBJECT_CONFLICT, text).with("key", key));
            }
        }
        Ok(())
    }

    /// Waits for commits that were on their way when their callers' time was over: what they change is seen
    /// then, or never will be.
    ///
    /// # Errors
    /// `context.deadline`
    pub fn await_left(&self, deadline: &Deadline) -> Result<()> {
        let left: Vec<Arc<Pending>> = {
            let staging = lock(&self.staging);
            staging.left.iter().map(|left| Arc::clone(&left.pending)).collect()
        };
        for pending in left {
            // How it ends is not this caller's concern.
            let _ = pending.wait(deadline);
            if pending.outcome().is_none() {
                return Err(Deadline::passed("an earlier change is still on its way"));
            }
        }
        Ok(())
    }
}

/// Keeps the stripes that a change brought if it may be there, and else gives them up.
fn settle(change: Change, done: &Result<u64>) {
    if done.as_ref().err().is_none_or(|error| !is_known_to_have_failed(error)) {
        change.keep();
    }
}

/// False if the change may be durable all the same.
fn is_known_to_have_failed(error: &Error) -> bool {
    if error.is(&codes::CONTEXT_DEADLINE) {
        return error.detail("outcome").is_none();
    }
    [
        &codes::DRIVE_FULL,
        &codes::JOURNAL_RECORD_SIZE,
        &codes::OBJECT_CONFLICT,
        &codes::POOL_READ_ONLY,
        &codes::STORE_CLOSED,
    ]
    .iter()
    .any(|code| error.is(code))
}

fn check_sizes(change: &Change) -> Result<()> {
    for (key, verb) in &change.verbs {
        let body_bytes = if let Verb::Put { body, .. } = verb { body.len() } else { 0 };
        if key.len() > KEY_BYTES_MAX || body_bytes > BODY_BYTES_MAX {
            let text = format!("a key of {} with a body of {body_bytes} bytes", key.len());
            return Err(Error::new(&codes::JOURNAL_RECORD_SIZE, text));
        }
    }
    Ok(())
}

fn encode(change: &Change) -> Bytes {
    let mut record = RecordWriter::new();
    for (key, verb) in &change.verbs {
        match verb {
            Verb::Delete => record.push(&Operation::Delete { key }),
            Verb::Put { body, content } => put(&mut record, key, body, content),
        }
    }
    record.finish()
}

fn put(record: &mut RecordWriter, key: &[u8], body: &[u8], content: &Source) {
    let content = match content {
        Source::None => NewContent::None,
        Source::Keep => NewContent::Keep,
        Source::Staged(staged) => {
            staged.stripes().for_each(|stripe| {
                record.push(&Operation::AddStripe(stripe.clone()));
            });
            if staged.stripes().next().is_none() {
                NewContent::Inline { bytes: &staged.inline, check: staged.check() }
            } else {
                NewContent::Pieces(staged.content())
            }
        }
    };
    record.push(&Operation::Put { key, body, content });
}
