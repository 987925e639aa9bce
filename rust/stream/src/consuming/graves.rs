//! Dead letters: what is delivered no more, with its message, until somebody looks.

use std::ops::Bound;

use dwk_base::{Deadline, Result};
use dwk_bus::Envelope;
use dwk_meta::{Change, Require};

use super::Consumer;
use super::state::Inner;
use crate::consumer::DeadLetter;
use crate::keys::{letter_row, letter_rows};
use crate::read::is_unreadable;

/// So many are looked at in one go.
const AT_ONCE: usize = 64;

/// A dead letter.
#[derive(Clone, Debug)]
pub struct Buried {
    /// Why, and how often it was delivered.
    pub letter: DeadLetter,
    /// The message; none if the stream had let it go before.
    pub envelope: Option<Envelope>,
}

impl Inner {
    /// Puts dead letters into rows of their own, those that are saved; returns how many.
    pub(super) fn bury(&self, deadline: &Deadline) -> Result<usize> {
        if self.state().engine.dead().next().is_none() {
            return Ok(0);
        }
        let _alone = self.at_the_graves();
        let mut count = 0;
        loop {
            let letters = self.dead(deadline)?;
            if letters.is_empty() {
                if count > 0 {
                    // They made room.
                    self.core.news.nudge();
                }
                return Ok(count);
            }
            for letter in letters {
                let staged = match self.find(letter.sequence, deadline) {
                    Ok(Some(stored)) => Some(self.upload(deadline, &stored.envelope.encode())?),
                    Ok(None) => None,
                    // A letter without its message, rather than none for ever.
                    Err(error) if is_unreadable(&error) => None,
                    Err(error) => return Err(error),
                };
                // The same row the second time, if a crash comes before the next save.
                let row = letter_row(self.core.id, &self.config.name, letter.sequence);
                let change = Change::new().put(row, letter.encode(), staged);
                let change = change.require(self.row(), Require::Present);
                let buried = self.core.shared.meta.commit_until(change, deadline);
                buried.map_err(|error| self.or_not_found(error))?;
                self.state().engine.buried(letter.sequence);
                count += 1;
            }
        }
    }

    /// Some of those that are not buried. What was saved without one may deliver its message again, so all are
    /// saved first.
    fn dead(&self, deadline: &Deadline) -> Result<Vec<DeadLetter>> {
        loop {
            let state = self.state();
            let letters: Vec<DeadLetter> = state.engine.dead().take(AT_ONCE).cloned().collect();
            if letters.is_empty() || !state.engine.must_save() {
                return Ok(letters);
            }
            drop(state);
            self.save(deadline)?;
        }
    }
}

impl Consumer {
    /// Dead letters of messages behind `after`, in their order, at most `limit`.
    ///
    /// # Errors
    /// `format.damaged`, and those of reading content
    pub fn dead_letters(
        &self,
        after: u64,
        limit: usize,
        deadline: &Deadline,
    ) -> Result<Vec<Buried>> {
        let inner = &self.0;
        let meta = &inner.core.shared.meta;
        let low = letter_row(inner.core.id, self.name(), after);
        let (_, high) = letter_rows(inner.core.id, self.name());
        let rows = meta.range(Bound::Excluded(&low), Bound::Excluded(&high), limit)?;
        let mut found = Vec::with_capacity(rows.len());
        for (key, row) in rows {
            let letter = DeadLetter::decode(&row.body)?;
            let content = meta.read_until(&key, deadline)?;
            let envelope = match content.filter(|(row, _)| row.content.is_some()) {
                Some((_, mut reader)) => {
                    let mut bytes = vec![0; usize::try_from(reader.bytes()).unwrap_or(0)];
                    reader.read_at(0, &mut bytes)?;
                    Some(Envelope::decode(&bytes.into())?)
                }
                None => None,
            };
            found.push(Buried { letter, envelope });
        }
        Ok(found)
    }

    /// Delivers the message of a dead letter again, its count from the beginning; if the stream has let it go,
    /// its copy is published again. False if there is no such letter.
    ///
    /// # Errors
    /// `stream.full` if as many messages are out as may be; those of a commit
    pub fn redrive(&self, sequence: u64, deadline: &Deadline) -> Result<bool> {
        let _alone = self.0.at_the_graves();
        let found = self.dead_letters(sequence.saturating_sub(1), 1, deadline)?;
        let found = found.into_iter().find(|found| found.letter.sequence == sequence);
        let Some(Buried { letter, envelope }) = found else { return Ok(false) };
        let inner = &self.0;
        let is_there = {
            let _still = inner.registry.still();
            let is_there = inner.find(sequence, deadline)?.is_some();
            if is_there {
                inner.alive()?.engine.redrive(&letter, inner.now())?;
            }
            is_there
        };
        if let (false, Some(envelope)) = (is_there, envelope) {
            let id = format!("{} {} {sequence}", self.name(), envelope.id());
            inner.stream().publish(&envelope, Some(&id), deadline)?;
        }
        if !is_there {
            // An opening may have offered it again.
            inner.alive()?.engine.buried(sequence);
        }
        // What was saved before may have the letter, and offer it again.
        inner.save(deadline)?;
        inner.core.news.nudge();
        let row = letter_row(inner.core.id, self.name(), sequence);
        inner.core.shared.meta.commit_until(Change::new().delete(row), deadline)?;
        Ok(true)
    }
}
