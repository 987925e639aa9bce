//! What became of one message: who handled it, who failed, and the answer, for a sender who waits for that.

use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};

use dwk_base::{Deadline, Error, codes};

use crate::Envelope;
use crate::sync::{guard, wait};

/// A subscription that did not handle a message, and why.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The subscription's name.
    pub subscription: Arc<str>,
    /// `bus.handler`: its handler failed. `bus.full`: it did not take the message, or dropped it.
    /// `bus.timeout`: the handler is over its time limit. `bus.closed`: it was closed before.
    pub error: Error,
}

/// Shared by the sender and everyone who got the message.
#[derive(Debug, Default)]
pub(crate) struct Receipt {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// By ticket: who has not said anything yet.
    open: Vec<Option<Arc<str>>>,
    /// How many of them there are.
    missing: usize,
    handled: usize,
    failures: Vec<Failure>,
    answer: Option<Envelope>,
    closed: bool,
    waker: Option<Waker>,
}

/// How a request stands.
pub(crate) enum Asked {
    /// The answer.
    Answer(Envelope),
    /// Everyone who could have answered failed.
    Failed(Failure),
    /// The bus was closed.
    Closed,
    /// Neither.
    Open,
}

impl Receipt {
    /// One more subscription is to say what became of the message.
    pub(crate) fn ticket(self: &Arc<Self>, subscription: &Arc<str>) -> Ticket {
        let mut state = guard(&self.state);
        state.open.push(Some(Arc::clone(subscription)));
        state.missing += 1;
        Ticket(Place { receipt: Arc::clone(self), index: state.open.len() - 1 })
    }

    /// Takes the answer; false if there is one already.
    pub(crate) fn answer(&self, envelope: Envelope) -> bool {
        let mut state = guard(&self.state);
        if state.answer.is_some() {
            return false;
        }
        state.answer = Some(envelope);
        self.wake(state);
        true
    }

    /// Waits until everyone has said something, or until the deadline; returns how many handled the
    /// message, who failed, and the names of those who are late.
    pub(crate) fn wait_for_all(&self, deadline: &Deadline) -> (usize, Vec<Failure>, Vec<Arc<str>>) {
        let mut state = guard(&self.state);
        while state.missing > 0 {
            let left = deadline.remaining();
            if left.is_zero() {
                break;
            }
            state = wait(&self.changed, state, left);
        }
        let late = state.open.iter().flatten().cloned().collect();
        (state.handled, state.failures.clone(), late)
    }

    /// Waits until the answer is there or cannot come, or until the deadline.
    pub(crate) fn wait_for_answer(&self, deadline: &Deadline) -> Asked {
        let mut state = guard(&self.state);
        loop {
            let left = deadline.remaining();
            match state.asked() {
                Asked::Open if !left.is_zero() => state = wait(&self.changed, state, left),
                asked => return asked,
            }
        }
    }

    /// As [`wait_for_answer`](Self::wait_for_answer), for a task.
    pub(crate) fn poll_answer(&self, context: &Context<'_>) -> Poll<Asked> {
        let mut state = guard(&self.state);
        match state.asked() {
            Asked::Open => {
                state.waker = Some(context.waker().clone());
                Poll::Pending
            }
            asked => Poll::Ready(asked),
        }
    }

    /// The first word counts: a handler may come back after it was given up.
    fn settle(&self, index: usize, outcome: impl FnOnce() -> Result<(), Error>) {
        let mut state = guard(&self.state);
        let Some(subscription) = state.open.get_mut(index).and_then(Option::take) else { return };
        state.missing -= 1;
        match outcome() {
            Ok(()) => state.handled += 1,
            Err(error) => state.failures.push(Failure { subscription, error }),
        }
        if state.missing == 0 {
            self.wake(state);
        }
    }

    fn waive(&self, index: usize) {
        let mut state = guard(&self.state);
        if state.open.get_mut(index).and_then(Option::take).is_some() {
            state.missing -= 1;
            self.wake(state);
        }
    }

    /// Says that no answer will come any more.
    pub(crate) fn close(&self) {
        let mut state = guard(&self.state);
        state.closed = true;
        self.wake(state);
    }

    fn wake(&self, mut state: MutexGuard<'_, State>) {
        let waker = state.waker.take();
        drop(state);
        self.changed.notify_all();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl State {
    fn asked(&self) -> Asked {
        match (&self.answer, self.failures.first()) {
            (Some(answer), _) => Asked::Answer(answer.clone()),
            (None, Some(failure)) if self.missing == 0 && self.handled == 0 => {
                Asked::Failed(failure.clone())
            }
            _ if self.closed => Asked::Closed,
            _ => Asked::Open,
        }
    }
}

/// A place in a receipt where one subscription's word is missing, for whoever may say it.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    receipt: Arc<Receipt>,
    index: usize,
}

impl Place {
    /// Says what became of the message. Only the first word counts.
    pub(crate) fn settle(&self, outcome: Result<(), Error>) {
        self.receipt.settle(self.index, || outcome);
    }
}

/// One subscription's duty to say what became of a message. Dropped, it says that nobody handled it.
#[derive(Debug)]
pub(crate) struct Ticket(Place);

impl Ticket {
    /// Says what became of the message. Only the first word counts.
    pub(crate) fn settle(&self, outcome: Result<(), Error>) {
        self.0.settle(outcome);
    }

    /// Says that nothing is to be said: the subscription never got the message.
    pub(crate) fn waive(&self) {
        self.0.receipt.waive(self.0.index);
    }

    /// Where this ticket's word goes, for somebody who watches over it.
    pub(crate) fn place(&self) -> Place {
        self.0.clone()
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.0.receipt.settle(self.0.index, || {
            let text = "the subscription was closed before it handled the message";
            Err(Error::new(&codes::BUS_CLOSED, text))
        });
    }
}
