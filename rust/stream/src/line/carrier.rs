//! Carriers: threads that lead batches whose members cannot, because they are futures.
//!
//! There are as many as batches may be under way, and only while there is work: one that had none for a
//! moment ends. A carrier that waits keeps no stream, and with that no store, alive.

use std::sync::{Arc, PoisonError};
use std::thread;
use std::time::Duration;

use dwk_base::{Deadline, Error, codes};

use super::batch::Batch;
use super::{Lead, Line, Queue, UNDER_WAY_MAX};
use crate::sync::guard;

/// How long a carrier waits for work.
const IDLE: Duration = Duration::from_secs(1);

/// What a carrier does next.
enum Job {
    /// A batch whose turn it is.
    Lead(Arc<Batch>),
    /// A batch on its way that was left by its leader.
    Arrive(Arc<Batch>),
}

/// One of those that a line counts.
struct Carrier(Arc<Line>);

impl Line {
    /// Has a carrier look for work; false if there is none and none can be started.
    pub(super) fn call(self: &Arc<Self>, queue: &mut Queue) -> bool {
        if queue.idle > 0 {
            self.wanted.notify_one();
        } else if queue.carriers < UNDER_WAY_MAX {
            let line = Arc::clone(self);
            let carry = move || Carrier(line).carry();
            if thread::Builder::new().name("dwk-carrier".to_owned()).spawn(carry).is_ok() {
                queue.carriers += 1;
            }
        }
        queue.carriers > 0
    }

    /// The next job, or nothing if there was none for a while.
    fn next_job(&self) -> Option<Job> {
        let mut queue = guard(&self.state);
        let mut is_late = false;
        loop {
            let job = Self::take_job(&mut queue);
            if job.is_some() || queue.ended || is_late {
                return job;
            }
            queue.idle += 1;
            let waited = self.wanted.wait_timeout(queue, IDLE);
            let (held, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
            (queue, is_late) = (held, timeout.timed_out());
            queue.idle -= 1;
        }
    }

    fn take_job(queue: &mut Queue) -> Option<Job> {
        if let Some(batch) = queue.left.pop() {
            queue.under_way += 1;
            return Some(Job::Arrive(batch));
        }
        let first = queue.batches.front()?;
        if !queue.may_go() || std::mem::replace(&mut first.lock().led, true) {
            return None;
        }
        queue.take().map(Job::Lead)
    }
}

impl Carrier {
    fn carry(self) {
        let Self(line) = &self;
        while let Some(job) = line.next_job() {
            let (Job::Lead(batch) | Job::Arrive(batch)) = &job;
            // If this ends early it tells the batch all the same.
            let lead = match &job {
                Job::Lead(_) => Lead::of(line, batch),
                Job::Arrive(_) => Lead::of_left(line, batch),
            };
            let Some(core) = line.core.upgrade() else {
                // Nobody waits for it: a future keeps its stream.
                return lead.end(Err(Error::new(&codes::STORE_CLOSED, "the stream was closed")));
            };
            match &job {
                Job::Lead(_) => drop(lead.carry(&core, &Deadline::never())),
                Job::Arrive(_) => lead.arrive(&core),
            }
        }
    }
}

impl Drop for Carrier {
    fn drop(&mut self) {
        guard(&self.0.state).carriers -= 1;
    }
}
