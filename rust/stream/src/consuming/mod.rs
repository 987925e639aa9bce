//! Consumers of a stream, with their state in the map: the engine's driver.
//!
//! # Consistency
//! What the engine demands (see [`consumer`](crate::consumer)): deliveries and dead letters leave when a
//! snapshot that has them is durable, each consumer's in a row of its own, in place of the one before. Saves
//! of several fetchers are one. Acknowledgements are saved with the next delivery, at closing, by
//! [`Consumer::flush`], or by an acknowledgement that comes [`LAZY`] or more after the last save: until then a
//! crash delivers their messages once more.
//!
//! # Consumers that nobody uses
//! The upkeep removes a consumer whose `inactive_after` is over since somebody fetched from it or answered, with
//! its dead letters; never while somebody has a message of it. An opening counts as use.
//!
//! # Retention
//! A stream that keeps messages for its consumers ([`Interest`](crate::Retention::Interest),
//! [`WorkQueue`](crate::Retention::WorkQueue)) lets go what all of its consumers have done, after each save.

mod graves;
mod inactive;
mod registry;
mod state;

use std::sync::Arc;
use std::time::Duration;

use dwk_base::{Deadline, Error, Result, codes};

pub use graves::Buried;
pub(crate) use registry::Registry;

use self::state::Inner;
use crate::consumer::{ConsumerConfig, ConsumerStatus, Delivered, Token};
use crate::read::Stored;

/// Acknowledgements are made durable after so long at the latest, if more of them come.
pub const LAZY: Duration = Duration::from_millis(100);
/// While messages are out, a fetch that waits looks again so often whether one came back.
const LOOK: Duration = Duration::from_millis(10);

/// A message that is handed out, until it is acknowledged, given back or given up.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// The message.
    pub stored: Stored,
    /// How often it was delivered, this time included.
    pub deliveries: u32,
    /// Names this delivery.
    pub token: Token,
}

/// A durable reader of a stream: each message goes to one of those who fetch from it, and until it is
/// acknowledged it is delivered again. Cheap to clone.
#[derive(Clone)]
pub struct Consumer(pub(crate) Arc<Inner>);

impl Consumer {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.0.config.name
    }

    /// The name of its stream.
    pub fn stream(&self) -> &str {
        &self.0.core.name
    }

    /// What it wants.
    pub fn config(&self) -> &ConsumerConfig {
        &self.0.config
    }

    /// Up to `limit` messages, as soon as there is one; none if there is none until `patience` is over. That they
    /// are handed out is durable before they are: reading and saving may take until the deadline.
    ///
    /// # Errors
    /// `stream.not_found`, `stream.consumer_not_found` if it was deleted, `store.closed`; `data.corrupt` and others
    /// of reading what comes next, which [`skip`](Self::skip) passes over; those of a commit: the messages are
    /// delivered again then, except where none is delivered twice ([`Ack::None`](crate::Ack::None))
    pub fn fetch(
        &self,
        limit: usize,
        patience: &Deadline,
        deadline: &Deadline,
    ) -> Result<Vec<Delivery>> {
        let inner = &self.0;
        let mut watch = inner.stream().watch();
        if limit == 0 {
            return Ok(Vec::new());
        }
        loop {
            let (delivered, due) = {
                let mut state = inner.state();
                state.feed(inner, deadline)?;
                (state.engine.fetch(inner.now(), limit), state.engine.next_due())
            };
            // What went is noted before the save, or an opening would know of a delivery that never was.
            let loaded = self.load(&delivered, deadline).and_then(|loaded| {
                inner.save_if_it_must(deadline)?;
                Ok(loaded)
            });
            let loaded = loaded.inspect_err(|_| inner.withdraw(&delivered))?;
            let buried = inner.bury(deadline);
            if !loaded.is_empty() {
                // What could not be buried holds nobody up: the next fetch tries it again.
                return Ok(loaded);
            }
            // Who was buried made room.
            if buried? > 0 || !delivered.is_empty() {
                continue;
            }
            if patience.has_passed() {
                return Ok(Vec::new());
            }
            watch.wait_or_nudge(&inner.until(patience, due));
        }
    }

    /// The messages behind deliveries; what the stream does not have any more is done.
    fn load(&self, delivered: &[Delivered], deadline: &Deadline) -> Result<Vec<Delivery>> {
        let inner = &self.0;
        let mut loaded = Vec::with_capacity(delivered.len());
        for one in delivered {
            let ahead = inner.state().ahead.remove(&one.sequence);
            let stored = match ahead {
                Some(stored) => Some(stored),
                None => inner.find(one.sequence, deadline)?,
            };
            match stored {
                Some(stored) => {
                    let (deliveries, token) = (one.deliveries, one.token);
                    loaded.push(Delivery { stored, deliveries, token });
                }
                None => inner.state().engine.gone(one.sequence..=one.sequence),
            }
        }
        Ok(loaded)
    }

    /// The message is done. Returns how many are by that.
    ///
    /// # Errors
    /// `stream.ack`: the delivery is over; those of a commit, after [`LAZY`]: it counts all the same
    pub fn ack(&self, token: Token, deadline: &Deadline) -> Result<usize> {
        let count = self.0.alive()?.engine.ack(token, self.0.now())?;
        self.0.save_lazily(deadline)?;
        Ok(count)
    }

    /// Gives the message back, to be delivered again after `delay`, or after the backoff's.
    ///
    /// # Errors
    /// `stream.ack`; `stream.option` for a longer delay than 30 days
    pub fn nak(&self, token: Token, delay: Option<Duration>) -> Result<()> {
        self.0.alive()?.engine.nak(token, delay, self.0.now())
    }

    /// Gives the message up: it is a dead letter, durable on return, or dropped.
    ///
    /// # Errors
    /// `stream.ack`; those of a commit
    pub fn term(&self, token: Token, reason: &str, deadline: &Deadline) -> Result<()> {
        self.0.alive()?.engine.term(token, reason, self.0.now())?;
        self.0.save_if_it_must(deadline)?;
        self.0.bury(deadline).map(drop)
    }

    /// The time for the acknowledgement starts anew.
    ///
    /// # Errors
    /// `stream.ack`
    pub fn in_progress(&self, token: Token) -> Result<()> {
        self.0.alive()?.engine.in_progress(token, self.0.now())
    }

    /// Makes every acknowledgement durable.
    ///
    /// # Errors
    /// Those of a commit
    pub fn flush(&self, deadline: &Deadline) -> Result<()> {
        let inner = &self.0;
        inner.save(deadline)?;
        if inner.bury(deadline)? > 0 {
            inner.save(deadline)?;
        }
        inner.registry.release(&inner.core)
    }

    /// Passes over what cannot be read next, and returns the number behind it. Those messages are not
    /// delivered.
    ///
    /// # Errors
    /// As [`fetch`](Self::fetch), if something else is in the way.
    pub fn skip(&self, deadline: &Deadline) -> Result<u64> {
        self.0.state().skip(&self.0, deadline)
    }

    /// Hands nothing out until [`resume`](Self::resume); durable on return.
    ///
    /// # Errors
    /// Those of a commit
    pub fn pause(&self, deadline: &Deadline) -> Result<()> {
        self.0.alive()?.engine.pause();
        self.0.save(deadline)
    }

    /// Hands out again; durable on return.
    ///
    /// # Errors
    /// Those of a commit
    pub fn resume(&self, deadline: &Deadline) -> Result<()> {
        self.0.alive()?.engine.resume();
        let saved = self.0.save(deadline);
        self.0.core.news.nudge();
        saved
    }

    /// Fails if it is over.
    ///
    /// # Errors
    /// `stream.consumer_not_found` if it was deleted, `stream.not_found`, `store.closed`
    pub fn check(&self) -> Result<()> {
        self.0.alive().map(drop)
    }

    /// How it stands, and how many messages of the stream are before it.
    pub fn status(&self) -> (ConsumerStatus, u64) {
        let status = self.0.state().engine.status(self.0.now());
        let last = self.0.stream().status().last_sequence;
        // Before the first delivery it stands where it was told to begin.
        let reached = status.delivered_sequence.max(status.floor_sequence);
        (status, last.saturating_sub(reached))
    }
}

impl std::fmt::Debug for Consumer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Consumer").field("name", &self.name()).finish_non_exhaustive()
    }
}

pub(crate) fn not_found(name: &str) -> Error {
    let text = format!("consumer {name} is not there");
    Error::new(&codes::STREAM_CONSUMER_NOT_FOUND, text).with("consumer", name)
}
