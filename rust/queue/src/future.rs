//! Puts and gets as futures, for any executor.
//!
//! Dropping a future gives its place in the line up. An item that a put still holds is dropped with it; no
//! item is lost from the queue, and a wake-up that came too late goes to the next in the line.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use crate::outcome::{PopError, PushError};
use crate::queue::Queue;
use crate::waiters::Turn;

/// A put under way; from [`Queue::push_async`].
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
pub struct Push<'q, T> {
    queue: &'q Queue<T>,
    lane: usize,
    item: Option<T>,
    turn: Option<Turn>,
}

/// A get under way; from [`Queue::pop_async`].
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
pub struct Pop<'q, T> {
    queue: &'q Queue<T>,
    turn: Option<Turn>,
}

impl<T> Queue<T> {
    /// Puts an item into a lane, when there is room. Resolves to [`PushError::Closed`] if it was closed.
    ///
    /// # Panics
    /// if there is no such lane
    pub fn push_async(&self, lane: usize, item: T) -> Push<'_, T> {
        let turn = Some(self.turn_to_put(lane, 1));
        Push { queue: self, lane, item: Some(item), turn }
    }

    /// Takes an item out, when there is one. Resolves to [`PopError::Closed`] once a closed queue is empty.
    pub fn pop_async(&self) -> Pop<'_, T> {
        Pop { queue: self, turn: Some(self.turn_to_get(1)) }
    }
}

// The item is moved in and out, never pinned.
impl<T> Unpin for Push<'_, T> {}

impl<T> Future for Push<'_, T> {
    type Output = Result<(), PushError<T>>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let (queue, lane, item) = (this.queue, this.lane, &mut this.item);
        poll(&mut this.turn, context, || match queue.try_push_to(lane, item.take()?) {
            Err(PushError::Full(back)) => {
                *item = Some(back);
                None
            }
            outcome => Some(outcome),
        })
    }
}

impl<T> Future for Pop<'_, T> {
    type Output = Result<T, PopError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let queue = this.queue;
        poll(&mut this.turn, context, || match queue.try_pop() {
            Err(PopError::Empty) => None,
            outcome => Some(outcome),
        })
    }
}

fn poll<R>(
    turn: &mut Option<Turn>,
    context: &Context<'_>,
    mut attempt: impl FnMut() -> Option<R>,
) -> Poll<R> {
    // A future that has resolved stays pending: there is nothing left to wait for.
    let Some(waiting) = turn else { return Poll::Pending };
    let mut outcome = attempt();
    if outcome.is_none() {
        waiting.enroll_with(context.waker().clone());
        outcome = attempt();
    }
    let Some(done) = outcome else { return Poll::Pending };
    if let Some(turn) = turn.take() {
        turn.served();
    }
    Poll::Ready(done)
}
