//! Waiting apart from publishing, for those who hold something that must not be held while they wait.

use dwk_base::Deadline;

use crate::held::{Held, wait_on};
use crate::tally::Tally;

/// Subscriptions that hold the publisher of a message back, when everybody else has it. Dropped, they do not
/// get it.
#[must_use]
pub struct Rest<'a> {
    pub(crate) held: Vec<Held<'a>>,
    pub(crate) tally: &'a mut Tally,
}

impl Rest<'_> {
    /// Waits for them, until the deadline; true once all have it. May be called again.
    pub fn wait(&mut self, deadline: &Deadline) -> bool {
        wait_on(&mut self.held, deadline, self.tally);
        self.held.is_empty()
    }
}

impl Drop for Rest<'_> {
    fn drop(&mut self) {
        for held in std::mem::take(&mut self.held) {
            held.give_up(self.tally);
        }
    }
}

impl std::fmt::Debug for Rest<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rest").field("subscriptions", &self.held.len()).finish_non_exhaustive()
    }
}
