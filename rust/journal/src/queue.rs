//! Group commit: records wait in rounds; one waiting thread leads, and writes a whole round as one batch.
//!
//! Who waits for a round that nobody writes yet, writes the front round itself, and then wakes the next
//! leader before it applies its own round: so the members are never idle while there is work, and no
//! thread belongs to the journal. A round's waiters are woken all at once. Who cannot wait long does not
//! lead: a thread that ends with the work does it instead, also for rounds that were left.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use dwk_base::{Error, Result};

use crate::Position;
use crate::format::RECORD_HEADER_BYTES;
use crate::sync::guard;

/// Records that become one batch.
#[derive(Debug, Default)]
pub(crate) struct Round {
    wake: Condvar,
    /// Threads in `wake`; changed under the queue's lock.
    waiting: AtomicUsize,
    /// Somebody's time was over before it was written; changed under the queue's lock.
    left: AtomicBool,
    outcome: OnceLock<Result<Vec<Position>>>,
}

impl Round {
    /// Notes, under the queue's lock, that somebody's time was over: it is to be written all the same.
    pub(crate) fn leave(&self) {
        self.left.store(true, Ordering::Relaxed);
    }

    /// What became of the record at `index`; `None` while that is open.
    pub(crate) fn outcome(&self, index: usize) -> Option<Result<Position>> {
        self.outcome.get().map(|outcome| match outcome {
            Ok(positions) => Ok(positions[index]),
            Err(error) => Err(error.clone()),
        })
    }
}

/// A round and what is in it.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    pub round: Arc<Round>,
    pub records: Vec<Bytes>,
    /// True if one of the records may not use the room that is kept for those that give room back.
    pub ordinary: bool,
    bytes: usize,
}

/// What waits.
#[derive(Debug, Default)]
pub(crate) struct State {
    rounds: VecDeque<Waiting>,
    bytes: u64,
    /// True while a thread leads.
    leading: bool,
    closed: Option<Error>,
    refused: Option<Refused>,
}

/// Rounds that were not written.
#[derive(Debug)]
struct Refused {
    why: Error,
    rounds: Vec<Weak<Round>>,
}

impl Refused {
    /// True while somebody holds on to one of the records.
    fn is_held(&self) -> bool {
        self.rounds.iter().any(|round| round.strong_count() > 0)
    }
}

impl State {
    pub(crate) fn front(&self) -> Option<Arc<Round>> {
        self.rounds.front().map(|waiting| Arc::clone(&waiting.round))
    }

    /// True if a round waits to be written that somebody left.
    pub(crate) fn has_left(&self) -> bool {
        self.rounds.iter().any(|waiting| waiting.round.left.load(Ordering::Relaxed))
    }
}

/// The queue. Its lock is held for moments only.
#[derive(Debug)]
pub(crate) struct Queue {
    state: Mutex<State>,
    round_bytes_max: usize,
    bytes_max: u64,
}

impl Queue {
    pub(crate) fn new(round_bytes_max: usize, bytes_max: u64) -> Self {
        Self { state: Mutex::default(), round_bytes_max, bytes_max }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        guard(&self.state)
    }

    /// True if a record of `bytes` may wait.
    pub(crate) fn has_room(&self, state: &State, bytes: usize) -> bool {
        state.rounds.is_empty() || state.bytes + bytes as u64 <= self.bytes_max
    }

    /// Adds a record to the last round, or a new one; returns its round and place.
    ///
    /// # Errors
    /// Why the queue was closed; why rounds were [refused](Self::refuse) that somebody still holds.
    pub(crate) fn push(
        &self,
        state: &mut State,
        record: Bytes,
        ordinary: bool,
    ) -> Result<(Arc<Round>, usize)> {
        if let Some(error) = &state.closed {
            return Err(error.clone());
        }
        if let Some(refused) = &state.refused {
            if refused.is_held() {
                return Err(refused.why.clone());
            }
            state.refused = None;
        }
        let bytes = record.len() + RECORD_HEADER_BYTES;
        state.bytes += record.len() as u64;
        if state.rounds.back().is_none_or(|last| last.bytes + bytes > self.round_bytes_max) {
            state.rounds.push_back(Waiting::default());
        }
        let Some(last) = state.rounds.back_mut() else { unreachable!("a round was just pushed") };
        last.bytes += bytes;
        last.ordinary |= ordinary;
        last.records.push(record);
        Ok((Arc::clone(&last.round), last.records.len() - 1))
    }

    /// Makes this thread the leader if there is none.
    pub(crate) fn try_lead(state: &mut State) -> bool {
        !std::mem::replace(&mut state.leading, true)
    }

    /// Waits until `round` may have an outcome or there may be no leader, but at most `limit`.
    pub(crate) fn wait<'a>(
        state: MutexGuard<'a, State>,
        round: &Round,
        limit: Duration,
    ) -> MutexGuard<'a, State> {
        round.waiting.fetch_add(1, Ordering::Relaxed);
        let waited = round.wake.wait_timeout(state, limit);
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        round.waiting.fetch_sub(1, Ordering::Relaxed);
        state
    }

    /// Takes the front round; for the leader.
    pub(crate) fn take(&self) -> Option<Waiting> {
        let mut state = self.lock();
        let waiting = state.rounds.pop_front()?;
        state.bytes -= waiting.records.iter().map(|record| record.len() as u64).sum::<u64>();
        Some(waiting)
    }

    /// Ends this thread's lead and wakes who can go on.
    pub(crate) fn hand_over(&self) {
        Self::pass_on(&mut self.lock());
    }

    /// Ends the lead and wakes who can go on.
    pub(crate) fn pass_on(state: &mut State) {
        state.leading = false;
        let waits = |waiting: &&Waiting| waiting.round.waiting.load(Ordering::Relaxed) > 0;
        if let Some(next) = state.rounds.iter().find(waits) {
            next.round.wake.notify_one();
        }
    }

    /// Tells a round's waiters what became of it.
    pub(crate) fn settle(&self, round: &Round, outcome: Result<Vec<Position>>) {
        let _ = round.outcome.set(outcome);
        // Who saw no outcome under the lock is waiting by the time that it can be taken here.
        drop(self.lock());
        round.wake.notify_all();
    }

    /// Ends a round that was not written, and all that wait behind it: their records may rest on it. The
    /// same goes for records that come before everyone has let go of the ones that ended now, because who
    /// holds one may not have undone yet what others see of it.
    pub(crate) fn refuse(&self, failed: &Arc<Round>, why: &Error) {
        let mut state = self.lock();
        let mut rounds = vec![Arc::clone(failed)];
        rounds.extend(state.rounds.drain(..).map(|waiting| waiting.round));
        state.bytes = 0;
        let before = state.refused.take().into_iter().flat_map(|refused| refused.rounds);
        let weak = before.chain(rounds.iter().map(Arc::downgrade)).collect();
        state.refused = Some(Refused { why: why.clone(), rounds: weak });
        drop(state);
        for round in rounds {
            self.settle(&round, Err(why.clone()));
        }
    }

    /// Refuses records from now on; what waits is still written.
    pub(crate) fn close(&self, why: &Error) {
        self.lock().closed.get_or_insert_with(|| why.clone());
    }

    /// Ends everything that waits with an error.
    pub(crate) fn fail_all(&self, why: &Error) {
        self.close(why);
        while let Some(waiting) = self.take() {
            self.settle(&waiting.round, Err(why.clone()));
        }
    }
}
