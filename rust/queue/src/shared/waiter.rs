//! Waiting, in steps, so that a caller can look at signals in between.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use dwk_base::{Deadline, Error, Result, codes};

use super::layout::{Bell, Side};
use super::participants;
use super::queue::SharedQueue;
use super::ring::Ring;

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// A message to take.
    Item,
    /// Room for a message of so many bytes.
    Room(usize),
}

/// One wait. When it is dropped and what it waited for is there (still, or in excess), the next sleeper is
/// woken: a wake that this one had must not end with it.
pub struct Waiter<'a> {
    queue: &'a SharedQueue,
    need: Need,
    deadline: Deadline,
    slept: bool,
}

impl<'a> Waiter<'a> {
    /// Begins to wait; for ever without a `timeout`.
    pub fn new(queue: &'a SharedQueue, need: Need, timeout: Option<Duration>) -> Self {
        let after = |timeout| Deadline::after(Arc::clone(&queue.clock), timeout);
        let deadline = timeout.map_or_else(Deadline::never, after);
        let waiter = Self { queue, need, deadline, slept: false };
        waiter.bell().waits.fetch_add(1, Relaxed);
        waiter
    }

    /// Waits for a moment, 100 ms at most, or until a signal comes; then try again.
    ///
    /// # Errors
    /// `queue.timeout` when the time is over; `queue.abandoned`; `queue.closed` if this process has left.
    pub fn step(&mut self) -> Result<()> {
        let me = self.queue.me()?;
        let limit = self.deadline.remaining();
        if limit.is_zero() {
            return Err(self.timed_out());
        }
        if self.is_ready() {
            self.wait_for_lock(limit);
            return Ok(());
        }
        for _ in 0..self.queue.spins {
            std::hint::spin_loop();
            if self.is_ready() {
                return Ok(());
            }
        }
        let sequence = self.bell().event.announce();
        if self.is_ready() {
            return Ok(());
        }
        self.slept = true;
        self.bell().event.sleep(sequence, limit);
        if !self.is_ready() && participants::is_abandoned(self.queue.header(), me) {
            let name = &self.queue.name;
            let message = format!("every other process that used queue {name:?} is dead");
            return Err(Error::new(&codes::QUEUE_ABANDONED, message).with("name", name));
        }
        Ok(())
    }

    /// Goes on to wait for room for another message; the time that is left stays.
    pub fn go_on_for(&mut self, message_bytes: usize) {
        self.need = Need::Room(message_bytes);
    }

    /// Waits for a moment for the put or get of another one, and not for what is needed.
    ///
    /// # Errors
    /// `queue.timeout` when the time is over.
    pub fn step_for_lock(&mut self) -> Result<()> {
        let limit = self.deadline.remaining();
        if limit.is_zero() {
            return Err(self.timed_out());
        }
        self.wait_for_lock(limit);
        Ok(())
    }

    /// True if there is something to try, also if that is an error.
    pub fn is_ready(&self) -> bool {
        let (head, tail) = (self.queue.load_head(), self.queue.load_tail());
        if tail.is_closed() {
            return true;
        }
        match self.need {
            Need::Item => !head.meets(tail),
            Need::Room(bytes) => self.queue.ring.between(head, tail).is_none_or(|depth| {
                bytes > self.queue.message_bytes_max()
                    || self.queue.ring.has_room(depth, Ring::units_of(bytes))
            }),
        }
    }

    /// Waits for who is at it, if somebody is.
    fn wait_for_lock(&self, limit: Duration) {
        let lock = &self.side().lock;
        if lock.is_held() && lock.wait(limit) {
            self.queue.header().constants.0.recoveries.fetch_add(1, Relaxed);
        }
    }

    fn bell(&self) -> &Bell {
        let header = self.queue.header();
        match self.need {
            Need::Item => &header.not_empty.0,
            Need::Room(_) => &header.not_full.0,
        }
    }

    fn side(&self) -> &Side {
        let header = self.queue.header();
        match self.need {
            Need::Item => &header.consumers.0,
            Need::Room(_) => &header.producers.0,
        }
    }

    fn timed_out(&self) -> Error {
        let what = match self.need {
            Need::Item => "nothing came",
            Need::Room(_) => "no room came free",
        };
        let message = format!("{what} in queue {:?} in the time given", self.queue.name);
        Error::new(&codes::QUEUE_TIMEOUT, message)
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        if self.slept && self.is_ready() {
            self.bell().event.wake_one();
        }
    }
}
