//! A subscription's bounded queue.
//!
//! One lock, held while a few words are moved: room is counted in messages and bytes, the oldest may have
//! to go, what is spilled must stay in order, and all of that is one step. Who takes, takes many at once, so
//! publishers meet the lock free almost always. Memory grows with what waits and not with the limit.
//!
//! # Locks
//! The spill log's lock comes before the state's. File I/O happens under the former only.

mod state;

use std::collections::VecDeque;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard};
use std::task::{Context, Waker};
use std::time::Duration;

use dwk_base::{Deadline, Error};

use crate::Envelope;
use crate::policy::{Options, Policy};
use crate::receipt::Ticket;
use crate::spill::Log;
use crate::sync::{guard, wait};

use state::{Admitted, Rule, State};
pub(crate) use state::{Counts, Item};

/// Turns of spinning double from 1 to `2^SPIN_STEPS`, before the processor is given away for so many times;
/// after that it is better to sleep.
const SPIN_STEPS: u32 = 6;
const YIELDS: u32 = 4;

/// More tasks than this that wait on one subscription are all woken, to ask again or to be forgotten.
const WAKERS_MAX: usize = 64;

/// So many messages at most go in under one lock.
const RUN_MESSAGES: usize = 256;

/// So many messages at most come out of the spill file at a time.
const REFILL_MESSAGES: usize = 256;

/// What became of a message that was offered.
#[derive(Debug)]
pub(crate) enum Offer {
    /// It waits to be taken; so many older ones were dropped for it.
    Queued(usize),
    /// It was dropped.
    Dropped,
    /// There is no room, and the publisher may wait for some.
    Full(Item),
    /// Nothing is taken in any more.
    Closed(Item),
    /// It could not be spilled.
    Refused(Error),
}

/// What became of messages that were offered together.
#[derive(Debug, Default)]
pub(crate) struct Run {
    /// So many wait to be taken.
    pub queued: usize,
    /// So many were dropped, of these or of older ones.
    pub dropped: usize,
    /// Why one could not be spilled.
    pub refused: Option<Error>,
}

/// What came out.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Took {
    /// So many, at least one.
    Some(usize),
    /// Nothing is there for this taker now.
    Nothing,
    /// Nothing will ever be there.
    Closed,
}

/// A bounded queue in lanes: lane 0 for messages without a key, one for each worker if there are several.
pub(crate) struct Mailbox {
    rule: Rule,
    state: Mutex<State>,
    spill: Option<Mutex<Log>>,
    /// How many messages are in memory, for those who spin.
    ready: AtomicUsize,
    /// Whom to wake: number 0 takes from every lane, number `n + 1` is worker `n`.
    arrived: Box<[Condvar]>,
    /// Publishers wait here.
    room: Condvar,
}

impl Mailbox {
    /// An empty queue; takes the spill file out of the options.
    pub(crate) fn new(options: &mut Options) -> Self {
        let rule = Rule::new(options);
        let spill = match std::mem::take(&mut options.policy) {
            Policy::Spill(spill) => Some(Mutex::new(Log::new(spill))),
            _ => None,
        };
        let lanes = if options.workers > 1 { 1 + options.workers } else { 1 };
        Self {
            rule,
            state: Mutex::new(State::new(lanes)),
            spill,
            ready: AtomicUsize::new(0),
            arrived: (0..lanes).map(|_| Condvar::new()).collect(),
            room: Condvar::new(),
        }
    }

    /// Wraps a message for this queue.
    pub(crate) fn item(&self, envelope: Envelope, ticket: Option<Ticket>) -> Item {
        let lane = match (self.arrived.len(), envelope.key()) {
            (1, _) | (_, None) => 0,
            // The high half: groups choose by the low one.
            (lanes, Some(key)) => 1 + ((key_hash(key) >> 32) % (lanes as u64 - 1)) as usize,
        };
        Item::new(envelope, ticket, lane)
    }

    /// Takes a message in, or says why not. Never waits for room.
    pub(crate) fn offer(&self, item: Item) -> Offer {
        let state = guard(&self.state);
        self.admit(state, item)
    }

    /// As [`offer`](Self::offer), but not unless there is room, whatever the policy.
    pub(crate) fn offer_room(&self, item: Item) -> Offer {
        let state = guard(&self.state);
        if state.closed || state.is_open(&self.rule, item.cost) {
            return self.admit(state, item);
        }
        Offer::Full(item)
    }

    /// As [`offer`](Self::offer), but waits for room if the policy is to block: until the deadline, but if
    /// `slice` is over, only once.
    pub(crate) fn offer_within(&self, item: Item, deadline: &Deadline, slice: Duration) -> Offer {
        let mut waited = false;
        let mut state = guard(&self.state);
        // Nobody comes between the look and the wait: both are under the lock.
        while state.must_wait(&self.rule, item.cost) {
            let left = deadline.remaining();
            if left.is_zero() || (waited && left > slice) {
                return Offer::Full(item);
            }
            state.counts.waits += u64::from(!waited);
            waited = true;
            state.publishers.enter();
            state = wait(&self.room, state, left.min(slice));
            state.publishers.leave();
        }
        self.admit(state, item)
    }

    /// Takes as many of `items` in as it can, from the front, without waiting. Those that find no room stay,
    /// and those behind one that could not be spilled.
    pub(crate) fn offer_many(&self, items: &mut VecDeque<Item>) -> Run {
        let mut run = Run::default();
        while let Some(item) = items.pop_front() {
            let (count, offer) = self.admit_run(guard(&self.state), item, items);
            run.queued += count;
            match offer {
                None => {}
                Some(Offer::Queued(victims)) => {
                    run.queued += 1;
                    run.dropped += victims;
                }
                Some(Offer::Dropped) => run.dropped += 1,
                Some(Offer::Full(item)) => {
                    items.push_front(item);
                    break;
                }
                Some(Offer::Closed(_)) => items.clear(),
                Some(Offer::Refused(error)) => {
                    run.refused = Some(error);
                    break;
                }
            }
        }
        run
    }

    /// Takes up to `limit` messages out for `worker`, or from every lane, in the order in which they came in;
    /// only one if `fair` and others wait.
    pub(crate) fn take(
        &self,
        worker: Option<usize>,
        limit: usize,
        fair: bool,
        into: &mut VecDeque<Item>,
    ) -> Took {
        loop {
            let mut state = guard(&self.state);
            let limit = if fair && state.others_wait() { 1 } else { limit };
            let count = state.take(worker, limit, into);
            let thirsty = state.spilling && state.len <= self.rule.messages_max / 4;
            let over = state.is_over(worker);
            if count > 0 {
                self.after_take(state);
            } else {
                drop(state);
            }
            let more = thirsty && self.refill();
            match count {
                0 if more => {}
                0 => return if over { Took::Closed } else { Took::Nothing },
                count => return Took::Some(count),
            }
        }
    }

    /// Waits until it is worth to [`take`](Self::take) again; false once the deadline passed. `step` counts the
    /// turns of one wait, from 0: the first ones do not sleep.
    pub(crate) fn pause(&self, worker: Option<usize>, deadline: &Deadline, step: &mut u32) -> bool {
        let left = deadline.remaining();
        if left.is_zero() {
            return false;
        }
        if !self.spin(step) {
            let number = self.number(worker);
            let mut state = guard(&self.state);
            if state.is_idle(worker) {
                state.takers[number].enter();
                state = wait(&self.arrived[number], state, left);
                state.takers[number].leave();
            }
        }
        true
    }

    /// Has `context` woken when it is worth to [`take`](Self::take) again; false if it is now.
    pub(crate) fn wake_later(&self, context: &Context<'_>) -> bool {
        let mut state = guard(&self.state);
        if !state.is_idle(None) {
            return false;
        }
        let waker = context.waker();
        let known = state.wakers.iter().any(|known| known.will_wake(waker));
        let full = state.wakers.len() >= WAKERS_MAX;
        let crowd = if full { std::mem::take(&mut state.wakers) } else { Vec::new() };
        if !known {
            state.wakers.push(waker.clone());
        }
        drop(state);
        crowd.into_iter().for_each(Waker::wake);
        true
    }

    /// Takes nothing more in; what waits can be taken out.
    pub(crate) fn close(&self) {
        let mut state = guard(&self.state);
        state.closed = true;
        self.wake_all(state);
    }

    /// Closes it and drops what waits.
    pub(crate) fn shut(&self) {
        let log = self.spill.as_ref().map(guard);
        let mut state = guard(&self.state);
        state.closed = true;
        state.spilling = false;
        let items = state.clear();
        self.ready.store(0, Ordering::Relaxed);
        self.wake_all(state);
        let spilled = log.map(|mut log| log.clear());
        drop((items, spilled));
    }

    /// What it did and holds.
    pub(crate) fn counts(&self) -> Counts {
        let log = self.spill.as_ref().map(guard);
        let state = guard(&self.state);
        let (spilled, spilled_bytes) = log.map_or((0, 0), |log| (log.len(), log.bytes()));
        Counts {
            depth: state.len + spilled,
            depth_bytes: state.bytes,
            spilled,
            spilled_bytes,
            oldest_unix_ns: state.oldest().map(|item| item.envelope.unix_ns()),
            ..state.counts.clone()
        }
    }

    fn number(&self, worker: Option<usize>) -> usize {
        if self.arrived.len() == 1 { 0 } else { worker.map_or(0, |worker| worker + 1) }
    }

    /// Lets some time pass, more with each step; false when it is better to sleep.
    fn spin(&self, step: &mut u32) -> bool {
        *step += 1;
        if *step > SPIN_STEPS + YIELDS {
            return false;
        }
        if *step > SPIN_STEPS {
            std::thread::yield_now();
            return true;
        }
        for _ in 0..1_u32 << *step {
            if self.ready.load(Ordering::Relaxed) > 0 {
                break;
            }
            std::hint::spin_loop();
        }
        true
    }

    /// Puts one message where the rule says. Gives the lock back before anybody is told.
    fn admit(&self, mut state: MutexGuard<'_, State>, item: Item) -> Offer {
        match state.admit(&self.rule, item) {
            Admitted::Queued { lane, victims } => {
                self.arrive(state, lane);
                let count = victims.len();
                victims.into_iter().for_each(Item::drop_for_room);
                Offer::Queued(count)
            }
            Admitted::Dropped(item) => {
                drop(state);
                item.drop_for_room();
                Offer::Dropped
            }
            Admitted::Full(item) => Offer::Full(item),
            Admitted::Closed(item) => Offer::Closed(item),
            Admitted::Spill(item) => {
                drop(state);
                self.spill(item)
            }
        }
    }

    /// As [`admit`](Self::admit), but first as many as just go in, under the same lock. Returns how many did,
    /// and what became of the next one, which is back among `more` if that was not asked.
    fn admit_run(
        &self,
        mut state: MutexGuard<'_, State>,
        mut item: Item,
        more: &mut VecDeque<Item>,
    ) -> (usize, Option<Offer>) {
        let mut count = 0;
        // With several lanes each arrival wakes a worker of its own.
        while self.arrived.len() == 1
            && count < RUN_MESSAGES
            && state.is_open(&self.rule, item.cost)
        {
            let Some(next) = more.pop_front() else { break };
            state.push(item);
            item = next;
            count += 1;
        }
        if count == 0 || state.is_open(&self.rule, item.cost) {
            return (count, Some(self.admit(state, item)));
        }
        more.push_front(item);
        self.arrive(state, 0);
        (count, None)
    }

    /// Tells one taker that something is in `lane`.
    fn arrive(&self, mut state: MutexGuard<'_, State>, lane: usize) {
        self.ready.store(state.len, Ordering::Relaxed);
        let number = state.taker_for(lane);
        let wakers = std::mem::take(&mut state.wakers);
        drop(state);
        if let Some(number) = number {
            self.arrived[number].notify_one();
        }
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Tells publishers that there is room, and another taker if something is left for one: who was told of
    /// it may have taken something else.
    fn after_take(&self, mut state: MutexGuard<'_, State>) {
        self.ready.store(state.len, Ordering::Relaxed);
        let room = state.publishers.tell_all();
        let number = state.taker_for_any();
        drop(state);
        if room {
            self.room.notify_all();
        }
        if let Some(number) = number {
            self.arrived[number].notify_one();
        }
    }

    fn wake_all(&self, mut state: MutexGuard<'_, State>) {
        let wakers = std::mem::take(&mut state.wakers);
        drop(state);
        self.room.notify_all();
        self.arrived.iter().for_each(Condvar::notify_all);
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Puts a message behind what is spilled, or into memory if room came meanwhile.
    fn spill(&self, item: Item) -> Offer {
        let Some(spill) = &self.spill else { return Offer::Full(item) };
        let mut log = guard(spill);
        let mut state = guard(&self.state);
        if state.closed || state.is_open(&self.rule, item.cost) {
            return self.admit(state, item);
        }
        // From here on everybody comes this way, and waits for the log.
        state.spilling = true;
        drop(state);
        let (envelope, ticket) = item.into_parts();
        match log.append(&envelope, ticket) {
            Ok(()) => {
                // Nobody has to be told: memory is not empty, and whoever takes from it looks here.
                guard(&self.state).counts.queued += 1;
                Offer::Queued(0)
            }
            Err((error, ticket)) => {
                if log.is_empty() {
                    let mut state = guard(&self.state);
                    state.spilling = false;
                    self.wake_all(state);
                }
                drop(log);
                if let Some(ticket) = ticket {
                    ticket.settle(Err(error.clone()));
                }
                Offer::Refused(error)
            }
        }
    }

    /// Brings spilled messages back into memory, as many as there is room for; false if none was moved.
    fn refill(&self) -> bool {
        let Some(spill) = &self.spill else { return false };
        let mut log = guard(spill);
        let state = guard(&self.state);
        let mut messages =
            (self.rule.messages_max - state.len.min(self.rule.messages_max)).min(REFILL_MESSAGES);
        let mut bytes = self.rule.bytes_max.saturating_sub(state.bytes);
        let mut first = state.len == 0;
        drop(state);
        let (mut read, mut lost) = (Vec::new(), Vec::new());
        while messages > 0 && log.peek_bytes().is_some_and(|next| first || next <= bytes) {
            let Some(next) = log.pop() else { break };
            match next.envelope {
                Ok(envelope) => {
                    let item = self.item(envelope, next.ticket);
                    bytes = bytes.saturating_sub(item.cost);
                    read.push(item);
                    first = false;
                }
                Err(error) => lost.push((error, next.ticket)),
            }
            messages -= 1;
        }
        let mut state = guard(&self.state);
        state.counts.lost += lost.len() as u64;
        if let Some((error, _)) = lost.last() {
            state.counts.spill_error = Some(error.clone());
        }
        let moved = read.len() + lost.len() > 0;
        for item in read {
            state.restore(item);
        }
        state.spilling &= !log.is_empty();
        self.ready.store(state.len, Ordering::Relaxed);
        self.wake_all(state);
        drop(log);
        for (error, ticket) in lost {
            if let Some(ticket) = ticket {
                ticket.settle(Err(error));
            }
        }
        moved
    }
}

/// Where a key belongs; the same in every process.
pub(crate) fn key_hash(key: &str) -> u64 {
    BuildHasherDefault::<DefaultHasher>::default().hash_one(key)
}

#[cfg(test)]
mod tests;
