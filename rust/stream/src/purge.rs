//! Messages that go because somebody says so.

use std::collections::BTreeSet;

use dwk_base::{Deadline, Error, Result, codes};
use dwk_bus::{Envelope, Pattern};

use crate::config::Retention;
use crate::core::Core;
use crate::entry::Entry;
use crate::frames::Known;
use crate::merge::Eager;
use crate::sync::guard;
use crate::upkeep::Upkeep;

impl Core {
    /// Hides the messages up to a number, and removes what can be removed; durable on return.
    ///
    /// # Errors
    /// Those of reading rows and of a commit.
    pub(crate) fn purge_to(&self, sequence: u64, deadline: &Deadline) -> Result<u64> {
        let mut upkeep = guard(&self.upkeep);
        self.settle(&mut self.tail());
        let before = self.ledger().shown().messages;
        self.hide(sequence.saturating_add(1))?;
        let purged = before.saturating_sub(self.ledger().shown().messages);
        self.remove(&mut upkeep, deadline)?;
        Ok(purged)
    }

    /// Removes the messages whose subject `pattern` stands for; durable on return.
    ///
    /// # Errors
    /// Those of reading frames, of uploads and of commits: some are removed then, and some not.
    pub(crate) fn purge_subjects(&self, pattern: &Pattern, deadline: &Deadline) -> Result<u64> {
        let mut upkeep = guard(&self.upkeep);
        self.settle(&mut self.tail());
        // What is hidden is passed over below, and must not be there again at the next opening.
        self.remove(&mut upkeep, deadline)?;
        self.merge(&mut upkeep, Eager::Yes)?;
        let (first, mut purged) = (self.first(), 0);
        for known in self.settled()? {
            deadline.check()?;
            let header = &known.header;
            let mut goes = BTreeSet::new();
            self.read_entries(header.first, &mut |entry| {
                // What is hidden goes anyway.
                let is_shown = entry.sequence >= first;
                if is_shown && pattern.matches(envelope_of(entry)?.subject()) {
                    goes.insert(entry.sequence);
                }
                Ok(())
            })?;
            purged += self.rewrite(&mut upkeep, known, &goes)?;
        }
        Ok(purged)
    }

    /// Writes a frame anew without some of its messages; returns how many these are.
    ///
    /// # Errors
    /// Those of reading frames, of uploads and of commits.
    pub(crate) fn rewrite(
        &self,
        upkeep: &mut Upkeep,
        known: Known,
        goes: &BTreeSet<u64>,
    ) -> Result<u64> {
        if goes.is_empty() {
            return Ok(0);
        }
        upkeep.merged_to = 0;
        let keeps = |entry: &Entry<'_>| Ok(!goes.contains(&entry.sequence));
        self.merge_frames(&[known], &mut { keeps }).map_err(|(_, error)| error)?;
        Ok(goes.len() as u64)
    }

    /// What consumers do not need any more goes.
    ///
    /// # Errors
    /// `stream.option` if consumers have no say; those of reading rows.
    pub(crate) fn release(&self, sequence: u64) -> Result<()> {
        if self.config().retention == Retention::Limits {
            let text = format!("retention: stream {} keeps messages by its limits", self.name);
            return Err(Error::new(&codes::STREAM_OPTION, text).with("option", "retention"));
        }
        self.hide(sequence.saturating_add(1))?;
        self.watch_over();
        Ok(())
    }
}

/// A message that was read.
///
/// # Errors
/// `format.damaged`, `format.newer`
pub(crate) fn envelope_of(entry: &Entry<'_>) -> Result<Envelope> {
    Envelope::decode(&bytes::Bytes::copy_from_slice(entry.envelope))
}
