//! The queue: rings as lanes, and those who wait on them.

#![allow(unsafe_code, reason = "a look at the items while the caller keeps everybody else away")]

use std::num::NonZero;
use std::sync::Arc;
use std::vec;

use dwk_base::{Deadline, Error, Result, codes};

use crate::outcome::{PopError, PushError};
use crate::patience::{linger, settle};
use crate::ring::Ring;
use crate::sync::AtomicUsize;
use crate::sync::Ordering::Relaxed;
use crate::waiters::{Turn, Waited, Waiters};

/// How many items a lane can be made for.
pub const CAPACITY_MAX: usize = 1 << 30;
/// How many lanes a queue can have.
pub const LANES_MAX: usize = 64;

/// What a queue is made with.
#[derive(Clone, Debug)]
pub struct Options {
    /// Items that each lane holds at most: 1 to [`CAPACITY_MAX`]. Room for all of them is taken at once.
    pub capacity: usize,
    /// Lanes, 1 to [`LANES_MAX`]. Lane 0 is the most urgent: what is in it comes out first.
    pub lanes: usize,
    /// Every so many gets the least urgent lanes are looked at first, so that they do not starve.
    /// `None`: a lane waits for as long as more urgent ones have items.
    pub relief: Option<NonZero<usize>>,
}

/// A bounded, lock-free queue of many producers and many consumers.
///
/// Operations that start with `try_` return at once; the others wait until they can go on, until the
/// deadline, or until the queue is closed. Who waits is told in the order in which they came, but an item
/// goes to whoever asks first. No item and no wake-up is lost when a wait is given up.
///
/// [`close`](Self::close) ends it in order: nothing more goes in, what is in it comes out.
#[derive(Debug)]
pub struct Queue<T> {
    /// Lane 0, where most queues have everything: in place, one pointer less to follow.
    pub(crate) first: Lane<T>,
    /// The less urgent ones.
    pub(crate) others: Box<[Lane<T>]>,
    pub(crate) getters: Arc<Waiters>,
    relief: Option<NonZero<usize>>,
    /// Counts gets where there is relief.
    gets: AtomicUsize,
}

#[derive(Debug)]
pub(crate) struct Lane<T> {
    pub(crate) ring: Ring<T>,
    pub(crate) putters: Arc<Waiters>,
}

/// What a queue has done, each figure as of some moment during the call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stats {
    /// Items in it now, by lane.
    pub depth: Vec<usize>,
    /// Items that went in since it was made.
    pub puts: usize,
    /// Items that came out.
    pub gets: usize,
    /// How often somebody had to sleep for room.
    pub put_waits: usize,
    /// How often somebody had to sleep for an item.
    pub get_waits: usize,
    /// How many wait for room now.
    pub putters: usize,
    /// How many wait for items now.
    pub getters: usize,
}

impl<T> Queue<T> {
    /// A queue of one lane.
    ///
    /// # Errors
    /// `queue.capacity`
    pub fn new(capacity: usize) -> Result<Self> {
        Self::with(&Options { capacity, lanes: 1, relief: None })
    }

    /// A queue as `options` say.
    ///
    /// # Errors
    /// `queue.capacity`, also where there is no memory for it
    pub fn with(options: &Options) -> Result<Self> {
        let Options { capacity, lanes, relief } = *options;
        if !(1..=CAPACITY_MAX).contains(&capacity) || !(1..=LANES_MAX).contains(&lanes) {
            let text = format!(
                "a queue has 1 to {LANES_MAX} lanes of 1 to {CAPACITY_MAX} items each, not {lanes} of {capacity}"
            );
            return Err(Error::new(&codes::QUEUE_CAPACITY, text));
        }
        let lane = || Some(Lane { ring: Ring::new(capacity)?, putters: Arc::default() });
        let made = || Some((lane()?, (1..lanes).map(|_| lane()).collect::<Option<_>>()?));
        let (first, others) = made().ok_or_else(|| {
            let text = format!("there is no memory for a queue of {capacity} items");
            Error::new(&codes::QUEUE_CAPACITY, text)
        })?;
        Ok(Self { first, others, getters: Arc::default(), relief, gets: AtomicUsize::new(0) })
    }

    /// Puts an item into lane 0.
    ///
    /// # Errors
    /// [`PushError::Full`] or [`PushError::Closed`], with the item
    #[inline]
    pub fn try_push(&self, item: T) -> Result<(), PushError<T>> {
        self.try_push_to(0, item)
    }

    /// Puts an item into a lane.
    ///
    /// # Errors
    /// as [`try_push`](Self::try_push)
    ///
    /// # Panics
    /// if there is no such lane
    #[inline(always)]
    #[allow(clippy::inline_always, reason = "a call costs a fifth of what it does")]
    pub fn try_push_to(&self, lane: usize, item: T) -> Result<(), PushError<T>> {
        self.lane(lane).ring.try_push(item)?;
        self.getters.tell(1);
        Ok(())
    }

    /// Puts an item into lane 0, when there is room.
    ///
    /// # Errors
    /// [`PushError::Closed`] or [`PushError::TimedOut`], with the item
    #[inline]
    pub fn push(&self, item: T, deadline: &Deadline) -> Result<(), PushError<T>> {
        self.push_to(0, item, deadline)
    }

    /// Puts an item into a lane, when there is room.
    ///
    /// # Errors
    /// as [`push`](Self::push)
    ///
    /// # Panics
    /// if there is no such lane
    #[inline]
    pub fn push_to(&self, lane: usize, item: T, deadline: &Deadline) -> Result<(), PushError<T>> {
        match self.try_push_to(lane, item) {
            Err(PushError::Full(item)) => self.push_patiently(lane, item, deadline),
            outcome => outcome,
        }
    }

    #[cold]
    fn push_patiently(
        &self,
        lane: usize,
        item: T,
        deadline: &Deadline,
    ) -> Result<(), PushError<T>> {
        let mut held = Some(item);
        let outcome = until(self.turn_to_put(lane, 1), deadline, || {
            match self.try_push_to(lane, held.take()?) {
                Err(PushError::Full(item)) => {
                    held = Some(item);
                    None
                }
                outcome => Some(outcome),
            }
        });
        outcome.unwrap_or_else(|| held.map_or(Ok(()), |item| Err(PushError::TimedOut(item))))
    }

    /// Puts as many of `items` into a lane as there is room for, and returns how many; the rest stays in
    /// `items`.
    ///
    /// # Errors
    /// [`PushError::Closed`]
    ///
    /// # Panics
    /// if there is no such lane
    pub fn try_push_many(
        &self,
        lane: usize,
        items: &mut vec::IntoIter<T>,
    ) -> Result<usize, PushError<()>> {
        let ring = &self.lane(lane).ring;
        self.push_with(Waiters::tell, || ring.try_push_many(items))
    }

    pub(crate) fn push_with(
        &self,
        tell: impl Fn(&Waiters, usize),
        mut push: impl FnMut() -> Result<usize, PopError>,
    ) -> Result<usize, PushError<()>> {
        let mut count = 0;
        loop {
            match push() {
                // A claim ends at the first slot that is taken: there may be room behind it by now.
                Ok(more) if more > 0 => count += more,
                Err(_) if count == 0 => return Err(PushError::Closed(())),
                _ => break,
            }
        }
        if count > 0 {
            tell(&self.getters, count);
        }
        Ok(count)
    }

    /// Puts all of `items` into a lane, as room comes. What was not put in stays in `items`.
    ///
    /// # Errors
    /// [`PushError::Closed`] or [`PushError::TimedOut`]
    ///
    /// # Panics
    /// if there is no such lane
    pub fn push_many(
        &self,
        lane: usize,
        items: &mut vec::IntoIter<T>,
        deadline: &Deadline,
    ) -> Result<(), PushError<()>> {
        let mut attempt = || match self.try_push_many(lane, items) {
            Ok(_) if items.len() == 0 => Some(Ok(())),
            Ok(_) => None,
            Err(error) => Some(Err(error)),
        };
        if let Some(done) = attempt() {
            return done;
        }
        until(self.turn_to_put(lane, 1), deadline, attempt).unwrap_or(Err(PushError::TimedOut(())))
    }

    /// Takes out the oldest item of the most urgent lane that has one.
    ///
    /// # Errors
    /// [`PopError::Empty`], or [`PopError::Closed`] once a closed queue is empty
    #[inline(always)]
    #[allow(clippy::inline_always, reason = "a call costs a fifth of what it does")]
    pub fn try_pop(&self) -> Result<T, PopError> {
        if !self.others.is_empty() {
            return self.try_pop_lanes(Waiters::tell);
        }
        let item = self.first.ring.try_pop()?;
        self.first.putters.tell(1);
        Ok(item)
    }

    pub(crate) fn try_pop_lanes(&self, tell: impl Fn(&Waiters, usize)) -> Result<T, PopError> {
        let mut outcome = PopError::Closed;
        for lane in self.lanes_in_turn() {
            match lane.ring.try_pop() {
                Ok(item) => {
                    tell(&lane.putters, 1);
                    return Ok(item);
                }
                Err(PopError::Closed) => {}
                Err(other) => outcome = other,
            }
        }
        Err(outcome)
    }

    /// Takes out the oldest item of the most urgent lane that has one, when there is one.
    ///
    /// # Errors
    /// [`PopError::Closed`] or [`PopError::TimedOut`]
    #[inline]
    pub fn pop(&self, deadline: &Deadline) -> Result<T, PopError> {
        match self.try_pop() {
            Err(PopError::Empty) => self.pop_patiently(deadline),
            outcome => outcome,
        }
    }

    #[cold]
    fn pop_patiently(&self, deadline: &Deadline) -> Result<T, PopError> {
        let attempt = || match self.try_pop() {
            Err(PopError::Empty) => None,
            outcome => Some(outcome),
        };
        until(self.turn_to_get(1), deadline, attempt).unwrap_or(Err(PopError::TimedOut))
    }

    /// Takes up to `limit` items out, to the end of `into`, and returns how many, zero if there are none.
    ///
    /// # Errors
    /// [`PopError::Closed`] once a closed queue is empty
    pub fn try_pop_many(&self, into: &mut Vec<T>, limit: usize) -> Result<usize, PopError> {
        self.pop_with(limit, Waiters::tell, |ring, limit| ring.try_pop_many(into, limit))
    }

    pub(crate) fn pop_with(
        &self,
        limit: usize,
        tell: impl Fn(&Waiters, usize),
        mut pop: impl FnMut(&Ring<T>, usize) -> Result<usize, PopError>,
    ) -> Result<usize, PopError> {
        let mut count = 0;
        let mut open = limit == 0;
        for lane in self.lanes_in_turn() {
            let mut from_lane = 0;
            while count + from_lane < limit {
                match pop(&lane.ring, limit - count - from_lane) {
                    Ok(0) => {
                        open = true;
                        break;
                    }
                    Ok(more) => from_lane += more,
                    Err(_) => break,
                }
            }
            if from_lane > 0 {
                tell(&lane.putters, from_lane);
                count += from_lane;
            }
        }
        if count > 0 || open { Ok(count) } else { Err(PopError::Closed) }
    }

    /// Takes 1 to `limit` items out, to the end of `into`, as soon as there is one; returns how many.
    ///
    /// # Errors
    /// [`PopError::Closed`] or [`PopError::TimedOut`]
    pub fn pop_many(
        &self,
        into: &mut Vec<T>,
        limit: usize,
        deadline: &Deadline,
    ) -> Result<usize, PopError> {
        let mut attempt = || match self.try_pop_many(into, limit) {
            Ok(0) if limit > 0 => None,
            outcome => Some(outcome),
        };
        if let Some(done) = attempt() {
            return done;
        }
        until(self.turn_to_get(limit), deadline, attempt).unwrap_or(Err(PopError::TimedOut))
    }

    /// Takes nothing more in, and tells everybody who waits. Returns false if it was closed before.
    pub fn close(&self) -> bool {
        let mut first = false;
        for lane in self.all() {
            first |= lane.ring.close();
        }
        for lane in self.all() {
            lane.putters.tell_all();
        }
        self.getters.tell_all();
        first
    }

    /// True once [`close`](Self::close) was called.
    pub fn is_closed(&self) -> bool {
        self.all().all(|lane| lane.ring.is_closed())
    }

    /// How many items each lane holds at most.
    pub fn capacity(&self) -> usize {
        self.first.ring.capacity()
    }

    /// How many lanes there are.
    pub fn lanes(&self) -> usize {
        1 + self.others.len()
    }

    /// How many items are in it.
    pub fn len(&self) -> usize {
        self.all().map(|lane| lane.ring.len()).sum()
    }

    /// True if nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What it has done.
    pub fn stats(&self) -> Stats {
        let sum = |figure: fn(&Lane<T>) -> usize| self.all().map(figure).sum();
        Stats {
            depth: self.all().map(|lane| lane.ring.len()).collect(),
            puts: sum(|lane| lane.ring.puts()),
            gets: sum(|lane| lane.ring.gets()),
            put_waits: sum(|lane| lane.putters.waits()),
            get_waits: self.getters.waits(),
            putters: sum(|lane| lane.putters.waiting()),
            getters: self.getters.waiting(),
        }
    }

    /// Looks for items until no more are added, or the queue is full; false if none come for as long as a
    /// sleep would take. For those who share a lock with the producers and do not hold it now.
    pub fn settle_for_items(&self) -> bool {
        let capacity = self.capacity();
        settle(capacity, || if self.is_closed() { capacity } else { self.len() })
    }

    /// Looks for room in a lane until it grows no more, or the lane is empty; false if none comes for as
    /// long as a sleep would take. For those who share a lock with the consumers and do not hold it now.
    ///
    /// # Panics
    /// if there is no such lane
    pub fn settle_for_room(&self, lane: usize) -> bool {
        let ring = &self.lane(lane).ring;
        let capacity = ring.capacity();
        settle(capacity, || if ring.is_closed() { capacity } else { capacity - ring.len() })
    }

    /// A place in the line of those who wait for `wants` items; for waits that the methods here do not
    /// cover, such as an event loop's.
    pub fn turn_to_get(&self, wants: usize) -> Turn {
        Turn::new(&self.getters, wants)
    }

    /// A place in the line of those who wait for room for `wants` items in a lane.
    ///
    /// # Panics
    /// if there is no such lane
    pub fn turn_to_put(&self, lane: usize, wants: usize) -> Turn {
        Turn::new(&self.lane(lane).putters, wants)
    }

    /// Looks at every item, lane by lane, oldest first.
    ///
    /// # Safety
    /// Nobody puts in or takes out meanwhile.
    pub unsafe fn for_each(&self, mut look: impl FnMut(&T)) {
        for lane in self.all() {
            // SAFETY: the caller's word.
            unsafe { lane.ring.for_each(&mut look) };
        }
    }

    #[inline]
    pub(crate) fn lane(&self, index: usize) -> &Lane<T> {
        if index == 0 { &self.first } else { &self.others[index - 1] }
    }

    fn all(&self) -> impl Iterator<Item = &Lane<T>> {
        std::iter::once(&self.first).chain(&self.others)
    }

    /// The lanes in the order in which this get looks at them.
    fn lanes_in_turn(&self) -> impl Iterator<Item = &Lane<T>> {
        let relieved = self
            .relief
            .is_some_and(|every| self.gets.fetch_add(1, Relaxed) % every == every.get() - 1);
        let last = self.others.len();
        (0..=last).map(move |index| self.lane(if relieved { last - index } else { index }))
    }
}

/// Tries until something comes of it, with sleep between the tries; `None` when the deadline passed.
fn until<R>(
    mut turn: Turn,
    deadline: &Deadline,
    mut attempt: impl FnMut() -> Option<R>,
) -> Option<R> {
    let mut outcome = None;
    linger(|| {
        outcome = attempt();
        outcome.is_some()
    });
    if outcome.is_some() {
        return outcome;
    }
    loop {
        turn.enroll();
        if let Some(done) = attempt() {
            turn.served();
            return Some(done);
        }
        loop {
            match turn.wait(deadline) {
                Waited::Told => break,
                Waited::TimedOut => return None,
                // Signals are the business of whoever brought this thread.
                Waited::Interrupted => {}
            }
        }
        if let Some(done) = attempt() {
            turn.served();
            return Some(done);
        }
    }
}
