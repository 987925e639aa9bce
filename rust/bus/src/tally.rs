//! What became of what was published.

use std::sync::Arc;

use dwk_base::{Error, Result, codes};

use crate::mailbox::{Offer, Run};

/// What became of what was published. A group counts as one subscription.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Published {
    /// Subscriptions whose pattern and filter a message matched, added up over all messages.
    pub matched: usize,
    /// How often a message was taken in.
    pub queued: usize,
    /// Messages that slow-consumer policies dropped meanwhile, these or older ones.
    pub dropped: usize,
}

/// Counts, and who did not take something.
#[derive(Default)]
pub(crate) struct Tally {
    pub published: Published,
    missed: Vec<(Arc<str>, Option<Error>)>,
}

impl Tally {
    /// Counts a message that is dealt with; those that are not, and are still to be, are not counted.
    pub(crate) fn count(&mut self, name: &Arc<str>, offer: Offer) {
        match offer {
            Offer::Queued(victims) => {
                self.published.queued += 1;
                self.published.dropped += victims;
            }
            Offer::Dropped => self.published.dropped += 1,
            Offer::Refused(error) => self.missed.push((Arc::clone(name), Some(error))),
            Offer::Full(_) | Offer::Closed(_) => {}
        }
    }

    /// Counts a run; true if there is more to offer.
    pub(crate) fn count_run(&mut self, name: &Arc<str>, run: Run) -> bool {
        self.published.queued += run.queued;
        self.published.dropped += run.dropped;
        let refused = run.refused.map(|error| self.missed.push((Arc::clone(name), Some(error))));
        refused.is_some()
    }

    /// Counts a message that `name` did not take in time.
    pub(crate) fn miss(&mut self, name: &Arc<str>) {
        self.missed.push((Arc::clone(name), None));
    }

    /// What the publisher is told.
    ///
    /// # Errors
    /// `bus.full` if somebody did not take something
    pub(crate) fn outcome(self) -> Result<Published> {
        if self.missed.is_empty() { Ok(self.published) } else { Err(self.full()) }
    }

    #[cold]
    fn full(self) -> Error {
        let mut names: Vec<&str> = self.missed.iter().map(|(name, _)| &**name).collect();
        names.sort_unstable();
        names.dedup();
        let text = format!("no room in {}; everybody else has the message", names.join(", "));
        let error = Error::new(&codes::BUS_FULL, text)
            .with("subscribers", names.join(","))
            .with("missed", self.missed.len())
            .with("matched", self.published.matched)
            .with("queued", self.published.queued)
            .with("dropped", self.published.dropped);
        match self.missed.into_iter().find_map(|(_, source)| source) {
            Some(source) => error.caused_by(source),
            None => error,
        }
    }
}
