//! Several streams, and whatever else a change says, in one commit.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, MutexGuard};

use dwk_base::{Deadline, Error, Result};
use dwk_bus::Envelope;
use dwk_meta::Change;

use crate::core::Core;
use crate::line::check_batch;
use crate::stream::Stream;
use crate::streams::{Known, nobody_takes};
use crate::tail::{Item, Plan, Published, Tail};

/// What became of a message in one of the streams that took it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Routed {
    /// The stream's name.
    pub stream: Arc<str>,
    /// What became of it there.
    pub published: Published,
}

/// Messages for any streams, committed together or not at all.
pub struct Outbox {
    known: Arc<Known>,
    parts: BTreeMap<u64, Part>,
    count: usize,
}

/// The messages for one stream, and which of all they are.
struct Part {
    core: Arc<Core>,
    items: Vec<Option<Item>>,
    positions: Vec<usize>,
}

impl Outbox {
    pub(crate) fn new(known: Arc<Known>) -> Self {
        Self { known, parts: BTreeMap::new(), count: 0 }
    }

    /// Adds a message for a stream.
    ///
    /// # Errors
    /// As [`Stream::publish`], of those that the message itself is the reason for.
    pub fn add(
        &mut self,
        stream: &Stream,
        envelope: &Envelope,
        message_id: Option<&str>,
    ) -> Result<()> {
        let item = stream.item(envelope, message_id)?;
        let core = Arc::clone(&stream.0);
        let new = || Part { core, items: Vec::new(), positions: Vec::new() };
        let part = self.parts.entry(stream.id()).or_insert_with(new);
        part.items.push(Some(item));
        part.positions.push(self.count);
        self.count += 1;
        Ok(())
    }

    /// Adds a message for every stream of its tenant that takes its subject, and says how many these are.
    ///
    /// # Errors
    /// `stream.subject` if there is none; as [`add`](Self::add).
    pub fn route(&mut self, envelope: &Envelope, message_id: Option<&str>) -> Result<usize> {
        match self.offer(envelope, message_id)? {
            0 => Err(nobody_takes(envelope)),
            count => Ok(count),
        }
    }

    /// As [`route`](Self::route), but it may be that no stream takes it.
    ///
    /// # Errors
    /// As [`add`](Self::add).
    pub fn offer(&mut self, envelope: &Envelope, message_id: Option<&str>) -> Result<usize> {
        let takers = self.known.takers(envelope);
        let count = takers.len();
        takers.into_iter().try_for_each(|core| self.add(&Stream(core), envelope, message_id))?;
        Ok(count)
    }

    /// True if nothing was added.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Commits the messages and `change` together: all durable and visible on return, or nothing of it. Of each
    /// message it says what became of it, in the order in which they were added. Messages for one stream are
    /// next to each other. What is a duplicate is not written again, and hinders nothing.
    ///
    /// # Errors
    /// `object.conflict` if a requirement of `change` fails, `stream.full` if a stream refuses a message,
    /// `stream.not_found`, `stream.option` if it is too much for one stream, `journal.record_size` if it is too
    /// much for one commit, and as [`Stream::publish`].
    pub fn commit(self, change: Change, deadline: &Deadline) -> Result<Vec<Routed>> {
        self.commit_versioned(change, deadline).map(|(_, routed)| routed)
    }

    /// [`commit`](Self::commit), and the version that it gave to what `change` wrote.
    ///
    /// # Errors
    /// As `commit`.
    pub fn commit_versioned(
        self,
        change: Change,
        deadline: &Deadline,
    ) -> Result<(u64, Vec<Routed>)> {
        for part in self.parts.values() {
            check_batch(&part.items)?;
        }
        let mut open: Vec<Open<'_>> = Vec::with_capacity(self.parts.len());
        // In the order of their numbers, so that nobody waits for somebody who waits for him.
        for part in self.parts.values() {
            match Open::new(part) {
                Ok(one) => open.push(one),
                Err(error) => return Err(undo(open, error)),
            }
        }
        let staged =
            open.iter().try_fold(change, |change, one| one.core.stage(change, &one.plan, deadline));
        let meta = self.known.meta();
        let submitted = match staged.and_then(|change| meta.submit(change, deadline)) {
            Ok(submitted) => Arc::new(submitted),
            Err(error) => return Err(undo(open, error)),
        };
        for one in &mut open {
            drop(one.tail.submitted(&one.plan, Arc::clone(&submitted)));
        }
        let plans: Vec<Plan> = open.into_iter().map(|one| one.plan).collect();
        let done = submitted.wait(deadline);
        for part in self.parts.values() {
            part.core.settle(&mut part.core.tail());
            if done.is_err() {
                part.core.look_later();
            }
        }
        Ok((done?, self.told(plans)?))
    }

    fn told(&self, plans: Vec<Plan>) -> Result<Vec<Routed>> {
        let mut told: Vec<Option<Routed>> = vec![None; self.count];
        for (part, plan) in self.parts.values().zip(plans) {
            for (position, published) in part.positions.iter().zip(plan.outcomes) {
                let stream = Arc::clone(&part.core.name);
                told[*position] = Some(Routed { stream, published: published? });
            }
        }
        Ok(told.into_iter().flatten().collect())
    }
}

/// A stream whose next numbers are given, and nobody else's before it is closed.
struct Open<'a> {
    core: &'a Arc<Core>,
    tail: MutexGuard<'a, Tail>,
    plan: Plan,
}

impl<'a> Open<'a> {
    fn new(part: &'a Part) -> Result<Self> {
        let mut tail = part.core.tail();
        let plan = part.core.plan(&mut tail, &part.items)?;
        if let Some(Err(error)) = plan.outcomes.iter().find(|outcome| outcome.is_err()) {
            let error = error.clone().with("stream", &part.core.name);
            tail.undo(&plan);
            return Err(error);
        }
        Ok(Self { core: &part.core, tail, plan })
    }
}

fn undo(open: Vec<Open<'_>>, error: Error) -> Error {
    for mut one in open {
        one.tail.undo(&one.plan);
    }
    error
}

impl fmt::Debug for Outbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outbox").field("messages", &self.count).finish_non_exhaustive()
    }
}
