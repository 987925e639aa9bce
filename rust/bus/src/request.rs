//! Questions that wait for an answer.
//!
//! An answer is published to the subject that the question names, `_inbox.` and a random number. It goes to
//! whoever asked, past all routes: nobody else can hear it, and a question costs no subscription.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use dwk_base::{Deadline, Error, Result, codes};

use crate::receipt::{Asked, Receipt};
use crate::sync::guard;
use crate::tally::Published;
use crate::{Envelope, Space, Subject};

/// The first token of the subjects of answers.
pub(crate) const INBOX: &str = "_inbox";

/// Who waits for an answer, by the number in its subject.
pub(crate) struct Inboxes {
    open: Mutex<HashMap<u64, Arc<Receipt>>>,
    max: usize,
}

impl Inboxes {
    pub(crate) fn new(max: usize) -> Self {
        Self { open: Mutex::default(), max }
    }

    /// Gives an answer to who asked for it.
    pub(crate) fn deliver(&self, inbox: &str, envelope: &Envelope) -> Published {
        let number = u64::from_str_radix(inbox, 16).ok();
        let receipt = number.and_then(|number| guard(&self.open).get(&number).cloned());
        match receipt {
            Some(receipt) if receipt.answer(envelope.clone()) => {
                Published { matched: 1, queued: 1, dropped: 0 }
            }
            _ => Published::default(),
        }
    }

    /// Tells everyone who waits that no answer will come.
    pub(crate) fn close(&self) {
        let open = std::mem::take(&mut *guard(&self.open));
        for receipt in open.values() {
            receipt.close();
        }
    }
}

/// A question that was asked. Dropped, its answer is not waited for any more.
///
/// As a future it ends with the answer, or as soon as none can come; it has no deadline of its own.
pub struct Request {
    space: Space,
    number: u64,
    subject: Subject,
    receipt: Arc<Receipt>,
}

impl Request {
    pub(crate) fn open(space: &Space, receipt: Arc<Receipt>, subject: Subject) -> Result<Self> {
        let inboxes = &space.0.inboxes;
        let mut open = guard(&inboxes.open);
        if open.len() >= inboxes.max {
            let text = format!("{} requests wait for answers, and no more may", inboxes.max);
            return Err(Error::new(&codes::BUS_FULL, text));
        }
        let mut number = space.0.shared.random.next_u64();
        while open.contains_key(&number) {
            number = number.wrapping_add(1);
        }
        open.insert(number, Arc::clone(&receipt));
        drop(open);
        Ok(Self { space: space.clone(), number, subject, receipt })
    }

    /// What was asked about.
    pub fn subject(&self) -> &Subject {
        &self.subject
    }

    pub(crate) fn inbox(&self) -> Result<Subject> {
        Subject::new(format!("{INBOX}.{:016x}", self.number))
    }

    /// Waits for the answer.
    ///
    /// # Errors
    /// `bus.timeout`; what a handler failed with if all failed that got the question (`bus.handler`,
    /// `bus.full`); `bus.closed`
    pub fn wait(&self, deadline: &Deadline) -> Result<Envelope> {
        self.outcome(self.receipt.wait_for_answer(deadline))
    }

    fn outcome(&self, asked: Asked) -> Result<Envelope> {
        let subject = &self.subject;
        match asked {
            Asked::Answer(answer) => Ok(answer),
            Asked::Failed(failure) => Err(failure.error.with("subscription", failure.subscription)),
            Asked::Closed => {
                let text = format!("the bus was closed before {subject} was answered");
                Err(Error::new(&codes::BUS_CLOSED, text))
            }
            Asked::Open => {
                let text = format!("no answer from {subject} in time");
                Err(Error::new(&codes::BUS_TIMEOUT, text))
            }
        }
    }
}

impl Future for Request {
    type Output = Result<Envelope>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.receipt.poll_answer(context).map(|asked| self.outcome(asked))
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        guard(&self.space.0.inboxes.open).remove(&self.number);
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request").field("subject", &self.subject).finish_non_exhaustive()
    }
}
