//! A batch: messages that become one frame, and those who wait for it, as threads or as futures.

use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::task::Waker;

use dwk_base::{Deadline, Error, Result};

use super::BATCH_MESSAGES_MAX;
use crate::core::Sent;
use crate::sync::{guard, wait};
use crate::tail::{Item, Published};

pub(super) type Outcomes = Vec<Result<Published>>;

#[derive(Debug, Default)]
pub(super) struct Batch {
    state: Mutex<State>,
    /// It is done, or somebody is wanted to lead.
    told: Condvar,
}

#[derive(Debug, Default)]
pub(super) struct State {
    /// Nothing where a member gave up before the batch was sent.
    pub(super) items: Vec<Option<Item>>,
    bytes: usize,
    /// Those that did not give up.
    pub(super) members: usize,
    pub(super) led: bool,
    pub(super) stage: Stage,
    /// Threads that wait in `told`.
    sleeping: usize,
    /// Of futures, each in its place.
    wakers: Vec<Option<Waker>>,
}

#[derive(Debug, Default)]
pub(super) enum Stage {
    #[default]
    Open,
    Sending,
    Sent(Arc<Sent>),
    Done(Result<Arc<Outcomes>>),
}

/// How a member waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// It sleeps, and can lead.
    Thread,
    /// It is woken by its waker.
    Future,
}

/// A place in a batch.
#[derive(Debug)]
pub(super) struct Ticket {
    pub(super) batch: Arc<Batch>,
    range: Range<usize>,
    /// Where a future's waker is.
    waker: Option<usize>,
}

impl Batch {
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        guard(&self.state)
    }

    /// Takes the items out to send them.
    pub(super) fn begin(&self) -> Vec<Option<Item>> {
        let mut state = self.lock();
        state.stage = Stage::Sending;
        std::mem::take(&mut state.items)
    }

    pub(super) fn set(&self, stage: Stage) {
        self.lock().stage = stage;
    }

    /// Nobody leads it any more: tells those who can.
    pub(super) fn leave(&self) {
        self.lock().led = false;
        self.told.notify_all();
    }

    pub(super) fn finish(&self, done: Result<Outcomes>) {
        let mut state = self.lock();
        if !matches!(state.stage, Stage::Done(_)) {
            state.stage = Stage::Done(done.map(Arc::new));
        }
        let (sleeping, wakers) = (state.sleeping > 0, std::mem::take(&mut state.wakers));
        drop(state);
        if sleeping {
            self.told.notify_all();
        }
        wakers.into_iter().flatten().for_each(Waker::wake);
    }

    /// Waits to be told something; what it holds comes back as an error if the time is over.
    pub(super) fn wait<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        deadline: &Deadline,
    ) -> Result<MutexGuard<'a, State>, MutexGuard<'a, State>> {
        let remaining = deadline.remaining();
        if remaining.is_zero() {
            return Err(state);
        }
        state.sleeping += 1;
        let mut state = wait(&self.told, state, remaining);
        state.sleeping -= 1;
        Ok(state)
    }
}

impl State {
    /// True if so much more has room in it.
    pub(super) fn has_room(&self, messages: usize, bytes: usize, bytes_max: usize) -> bool {
        matches!(self.stage, Stage::Open)
            && self.items.len() + messages <= BATCH_MESSAGES_MAX
            && self.bytes + bytes <= bytes_max
    }

    /// Takes in a member of `batch`, which this is the state of.
    pub(super) fn join(
        &mut self,
        batch: &Arc<Batch>,
        items: Vec<Option<Item>>,
        bytes: usize,
        kind: Kind,
    ) -> Ticket {
        let start = self.items.len();
        self.items.extend(items);
        self.bytes += bytes;
        self.members += 1;
        let waker = (kind == Kind::Future).then(|| {
            self.wakers.push(None);
            self.wakers.len() - 1
        });
        Ticket { batch: Arc::clone(batch), range: start..self.items.len(), waker }
    }

    /// True if futures wait for it.
    pub(super) fn has_futures(&self) -> bool {
        !self.wakers.is_empty()
    }
}

impl Ticket {
    /// What became of the items, once that is known.
    pub(super) fn outcome(&self, state: &State) -> Option<Result<Outcomes>> {
        match &state.stage {
            Stage::Done(Ok(outcomes)) => Some(Ok(outcomes[self.range.clone()].to_vec())),
            Stage::Done(Err(error)) => Some(Err(error.clone())),
            _ => None,
        }
    }

    /// [`outcome`](Self::outcome) of a future; until then `waker` is told of it.
    pub(super) fn poll(&self, waker: &Waker) -> Option<Result<Outcomes>> {
        let mut state = self.batch.lock();
        let outcome = self.outcome(&state);
        if outcome.is_none() {
            self.tell(&mut state, Some(waker));
        }
        outcome
    }

    /// Who is told from now on.
    fn tell(&self, state: &mut State, waker: Option<&Waker>) {
        // Those of a batch that is done were told, and are gone.
        let place = self.waker.and_then(|place| state.wakers.get_mut(place));
        if let Some(place) = place {
            match (&mut *place, waker) {
                (Some(known), Some(waker)) => known.clone_from(waker),
                (_, waker) => *place = waker.cloned(),
            }
        }
    }

    /// The member waits no longer: what it published is not sent, if it was not.
    pub(super) fn give_up(&self, state: &mut State) -> Error {
        self.tell(state, None);
        if !matches!(state.stage, Stage::Open) {
            let text = "the time was over while the messages were on their way: they may be there or not, so look before you repeat it, or give them a message_id";
            return Deadline::passed(text).with("outcome", "unknown");
        }
        state.members -= 1;
        state.items[self.range.clone()].fill_with(|| None);
        Deadline::passed("the time was over before the messages were sent")
    }
}
