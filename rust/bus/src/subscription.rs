//! The consumer's end of a subscription.

use std::collections::VecDeque;
use std::fmt;
use std::ops::Deref;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use dwk_base::{Deadline, Error, Result, codes};

use crate::core::{Core, Stats};
use crate::mailbox::{Item, Took};
use crate::receipt::Ticket;
use crate::sync::guard;
use crate::{Envelope, Pattern};

/// A message in the consumer's hands.
///
/// Who waits for what becomes of it is told when this is dropped that it was handled; or that it failed, by
/// [`fail`](Self::fail) or by a panic.
#[derive(Debug)]
pub struct Delivery {
    envelope: Envelope,
    duty: Duty,
}

impl Delivery {
    pub(crate) fn new(item: Item) -> Self {
        Self { envelope: item.envelope, duty: Duty(item.ticket) }
    }

    /// The message.
    pub fn envelope(&self) -> &Envelope {
        &self.envelope
    }

    /// The message, which counts as handled then.
    pub fn into_envelope(self) -> Envelope {
        self.envelope
    }

    /// Says that the message was not handled.
    pub fn fail(mut self, error: Error) {
        if let Some(ticket) = self.duty.0.take() {
            ticket.settle(Err(error));
        }
    }

    pub(crate) fn ticket(&self) -> Option<&Ticket> {
        self.duty.0.as_ref()
    }
}

impl Deref for Delivery {
    type Target = Envelope;

    fn deref(&self) -> &Envelope {
        &self.envelope
    }
}

/// Says that a message was handled, in the end.
#[derive(Debug)]
struct Duty(Option<Ticket>);

impl Drop for Duty {
    fn drop(&mut self) {
        let Some(ticket) = self.0.take() else { return };
        if std::thread::panicking() {
            let text = "the subscriber panicked while it had the message";
            ticket.settle(Err(Error::new(&codes::BUS_HANDLER, text)));
        } else {
            ticket.settle(Ok(()));
        }
    }
}

/// Messages that match a pattern, to be pulled, from any number of threads.
///
/// A consumer takes up to 64 messages, and an eighth of the limit, ahead: the limit counts what waits behind
/// those. Dropped, it is [closed](Self::close) and what waits is dropped with it.
pub struct Subscription {
    core: Arc<Core>,
    /// What was taken ahead, by worker; number 0 is for who takes from every lane.
    ahead: Box<[Mutex<VecDeque<Item>>]>,
    /// Threads handle the messages from now on.
    handed_over: bool,
}

impl Subscription {
    pub(crate) fn new(core: Arc<Core>) -> Self {
        let count = if core.workers > 1 { 1 + core.workers } else { 1 };
        Self { core, ahead: (0..count).map(|_| Mutex::default()).collect(), handed_over: false }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.core.name
    }

    /// Its pattern.
    pub fn pattern(&self) -> &Pattern {
        &self.core.pattern
    }

    /// How many workers it has lanes for.
    pub fn workers(&self) -> usize {
        self.core.workers
    }

    /// What it did and holds.
    pub fn stats(&self) -> Stats {
        let mut stats = self.core.stats();
        stats.depth += self.ahead.iter().map(|ahead| guard(ahead).len()).sum::<usize>();
        stats
    }

    /// The next message, in the order in which they were published; `None` if there is none until the
    /// deadline. A deadline that has passed does not wait.
    ///
    /// # Errors
    /// `bus.closed` once it is closed and empty
    pub fn next(&self, deadline: &Deadline) -> Result<Option<Delivery>> {
        self.next_of(None, deadline)
    }

    /// The next message for a worker, from 0: with a key that is this worker's, or with none. Messages with
    /// the same key go to the same worker.
    ///
    /// # Errors
    /// `bus.closed` once it is closed and nothing is left for this worker; `queue.capacity` if there is no
    /// such worker
    pub fn next_for(&self, worker: usize, deadline: &Deadline) -> Result<Option<Delivery>> {
        if worker >= self.core.workers {
            let text = format!("no worker {worker} of {}", self.core.workers);
            return Err(Error::new(&codes::QUEUE_CAPACITY, text));
        }
        self.next_of(Some(worker), deadline)
    }

    /// Adds up to `limit` messages to `into` as soon as there is one, and returns how many; 0 if there is none
    /// until the deadline, or if `limit` is 0.
    ///
    /// # Errors
    /// As [`next`](Self::next).
    pub fn next_many(
        &self,
        into: &mut Vec<Delivery>,
        limit: usize,
        deadline: &Deadline,
    ) -> Result<usize> {
        if limit == 0 {
            return Ok(0);
        }
        self.wait_for(None, deadline, |ahead| {
            if ahead.len() < limit {
                let took = self.core.mailbox.take(None, limit - ahead.len(), false, ahead);
                if ahead.is_empty() {
                    return Err(took);
                }
            }
            let count = limit.min(ahead.len());
            into.extend(ahead.drain(..count).map(Delivery::new));
            Ok(count)
        })
        .map(Option::unwrap_or_default)
    }

    /// The next message, for a task: it is woken when it is worth asking again.
    ///
    /// # Errors
    /// As [`next`](Self::next).
    pub fn poll_next(&self, context: &mut Context<'_>) -> Poll<Result<Delivery>> {
        loop {
            // No lock is held while others are woken.
            let popped = self.pop(None, &mut guard(&self.ahead[0]));
            match popped {
                Ok(delivery) => return Poll::Ready(Ok(delivery)),
                Err(Took::Closed) => return Poll::Ready(Err(self.closed())),
                Err(_) if self.core.mailbox.wake_later(context) => return Poll::Pending,
                Err(_) => {}
            }
        }
    }

    /// The next message, when there is one. Dropping the future loses none.
    ///
    /// # Errors
    /// As [`next`](Self::next).
    pub async fn next_async(&self) -> Result<Delivery> {
        std::future::poll_fn(|context| self.poll_next(context)).await
    }

    /// Says that a message was not handled, and counts that.
    pub fn fail(&self, delivery: Delivery, error: Error) {
        self.core.failed.fetch_add(1, Ordering::Relaxed);
        delivery.fail(error);
    }

    /// Takes in no more messages. Those that wait can still be pulled.
    pub fn close(&self) {
        self.core.close();
    }

    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.core
    }

    /// What was taken ahead from every lane.
    pub(crate) fn take_ahead(&self) -> VecDeque<Item> {
        std::mem::take(&mut *guard(&self.ahead[0]))
    }

    /// Leaves the messages to others, who share the core.
    pub(crate) fn hand_over(mut self) {
        self.handed_over = true;
    }

    fn next_of(&self, worker: Option<usize>, deadline: &Deadline) -> Result<Option<Delivery>> {
        self.wait_for(worker, deadline, |ahead| self.pop(worker, ahead))
    }

    /// The first of what was taken ahead, or of what can be taken now.
    fn pop(&self, worker: Option<usize>, ahead: &mut VecDeque<Item>) -> Result<Delivery, Took> {
        if ahead.is_empty() {
            match self.core.mailbox.take(worker, self.core.ahead, true, ahead) {
                Took::Some(_) => {}
                took => return Err(took),
            }
        }
        ahead.pop_front().map(Delivery::new).ok_or(Took::Nothing)
    }

    /// Tries until it succeeds or the deadline passed, and holds no lock while it waits.
    fn wait_for<T>(
        &self,
        worker: Option<usize>,
        deadline: &Deadline,
        mut attempt: impl FnMut(&mut VecDeque<Item>) -> Result<T, Took>,
    ) -> Result<Option<T>> {
        let number = if self.ahead.len() == 1 { 0 } else { worker.map_or(0, |worker| worker + 1) };
        let mut step = 0;
        loop {
            let tried = attempt(&mut guard(&self.ahead[number]));
            match tried {
                Ok(done) => return Ok(Some(done)),
                Err(Took::Closed) => return Err(self.closed()),
                Err(_) if !self.core.mailbox.pause(worker, deadline, &mut step) => return Ok(None),
                Err(_) => {}
            }
        }
    }

    fn closed(&self) -> Error {
        Error::new(&codes::BUS_CLOSED, format!("the subscription {} is closed", self.name()))
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        if !self.handed_over {
            self.core.close();
            self.core.mailbox.shut();
        }
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription").field("name", &self.core.name).finish_non_exhaustive()
    }
}
