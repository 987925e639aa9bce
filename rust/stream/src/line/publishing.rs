//! Publishing as a future, for any executor.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use dwk_base::{Error, Result, codes};

use super::batch::Ticket;
use crate::core::Core;
use crate::tail::Published;

/// Messages in line or on their way; from [`Stream::publish_async`](crate::Stream::publish_async). Resolves to
/// what became of each, when they are durable.
///
/// They go their way whether this is polled or not. Dropping it takes them back if they are not on their way
/// yet; else they may be there at any time from then on.
#[must_use = "dropped, messages that are not on their way yet are taken back"]
pub struct Publishing {
    core: Arc<Core>,
    /// Nothing once it has resolved.
    ticket: Option<Ticket>,
}

impl Publishing {
    pub(super) fn new(core: Arc<Core>, ticket: Ticket) -> Self {
        Self { core, ticket: Some(ticket) }
    }

    /// Waits no longer, and says why: for those whose time is over.
    ///
    /// # Errors
    /// `context.deadline`: with the detail `outcome` (`unknown`) they may be there at any time from now on,
    /// without it never. What they came to, if that is known.
    pub fn give_up(mut self) -> Result<Vec<Result<Published>>> {
        let Some(ticket) = self.ticket.take() else { return Err(resolved()) };
        let mut state = ticket.batch.lock();
        ticket.outcome(&state).unwrap_or_else(|| Err(ticket.give_up(&mut state)))
    }
}

impl Future for Publishing {
    type Output = Result<Vec<Result<Published>>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(ticket) = &self.ticket else { return Poll::Ready(Err(resolved())) };
        match ticket.poll(context.waker()) {
            Some(outcome) => {
                self.ticket = None;
                Poll::Ready(outcome)
            }
            None => Poll::Pending,
        }
    }
}

impl Drop for Publishing {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            let mut state = ticket.batch.lock();
            if ticket.outcome(&state).is_none() {
                let _ = ticket.give_up(&mut state);
                self.core.look_later();
            }
        }
    }
}

fn resolved() -> Error {
    Error::new(&codes::INTERNAL_BUG, "what was published was asked for after it was told")
}

impl fmt::Debug for Publishing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publishing").field("stream", &self.core.name).finish_non_exhaustive()
    }
}
