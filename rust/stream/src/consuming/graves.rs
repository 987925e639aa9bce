//! Dead letters: what is delivered no more, with its message, until somebody looks.

use std::collections::BTreeMap;
use std::ops::Bound;

use dwk_base::{Deadline, Error, Result};
use dwk_bus::Envelope;
use dwk_meta::{Change, Require, Staged};

use super::Consumer;
use super::state::Inner;
use crate::config::Retention;
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
    /// The message; none if the stream had let it go before, or could not read it.
    pub envelope: Option<Envelope>,
}

impl Inner {
    /// Puts dead letters into rows of their own, those that are saved; returns how many.
    ///
    /// # Errors
    /// Those of a commit; of reading a message without which its letter is not buried, after all others were.
    pub(super) fn bury(&self, deadline: &Deadline) -> Result<usize> {
        if self.state().engine.dead().next().is_none() {
            return Ok(0);
        }
        let _alone = self.at_the_graves();
        let (mut count, mut waits) = (0, BTreeMap::new());
        let done = loop {
            let letters = self.dead(deadline, &waits)?;
            if letters.is_empty() {
                break waits.into_values().next().map_or(Ok(count), Err);
            }
            for letter in letters {
                match self.copy_of(&letter, deadline) {
                    Ok(copy) => self.bury_one(&letter, copy, deadline)?,
                    Err(error) if is_unreadable(&error) => {
                        waits.insert(letter.sequence, error);
                        continue;
                    }
                    Err(error) => return Err(error),
                }
                count += 1;
            }
        };
        if count > 0 {
            // They made room.
            self.core.news.nudge();
        }
        done
    }

    /// What goes with a letter: its message, if the stream has it. Where that cannot be read it may be later, if the
    /// stream keeps it: then the letter goes without. A stream that keeps it for this consumer would let it go.
    fn copy_of(&self, letter: &DeadLetter, deadline: &Deadline) -> Result<Option<Staged>> {
        match self.find(letter.sequence, deadline) {
            Ok(Some(stored)) => self.upload(deadline, &stored.envelope.encode()).map(Some),
            Ok(None) => Ok(None),
            Err(error) => {
                let is_kept = self.core.config().retention == Retention::Limits;
                if is_kept && is_unreadable(&error) { Ok(None) } else { Err(error) }
            }
        }
    }

    fn bury_one(
        &self,
        letter: &DeadLetter,
        copy: Option<Staged>,
        deadline: &Deadline,
    ) -> Result<()> {
        // The same row the second time, if a crash comes before the next save.
        let row = letter_row(self.core.id, &self.config.name, letter.sequence);
        let change = Change::new().put(row, letter.encode(), copy);
        let change = change.require(self.row(), Require::Present);
        let buried = self.core.shared.meta.commit_until(change, deadline);
        buried.map_err(|error| self.or_not_found(error))?;
        self.state().engine.buried(letter.sequence);
        Ok(())
    }

    /// Some of those that are not buried, but none that `waits`. What was saved without one may deliver its message
    /// again, so all are saved first.
    fn dead(&self, deadline: &Deadline, waits: &BTreeMap<u64, Error>) -> Result<Vec<DeadLetter>> {
        loop {
            let state = self.state();
            let letters = state.engine.dead().filter(|one| !waits.contains_key(&one.sequence));
            let letters: Vec<DeadLetter> = letters.take(AT_ONCE).cloned().collect();
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
        let (saver, is_there, is_back) = {
            let _still = inner.registry.still();
            let is_there = inner.find(sequence, deadline)?.is_some();
            let saver = inner.unsaving();
            let is_back = is_there && inner.alive()?.engine.redrive(&letter, inner.now())?;
            (saver, is_there, is_back)
        };
        if !is_there {
            if let Some(envelope) = envelope {
                let id = format!("{} {} {sequence}", self.name(), envelope.id());
                inner.stream().publish(&envelope, Some(&id), deadline)?;
            }
            // An opening may have offered it again.
            inner.alive()?.engine.buried(sequence);
        }
        // In one commit: a letter that stayed would know of fewer deliveries than there were by then.
        let row = letter_row(inner.core.id, self.name(), sequence);
        let done = inner.save_and_delete(&saver, Some(row), deadline);
        if done.as_ref().is_err_and(|error| is_back && error.detail("outcome").is_none()) {
            // It stays dead.
            inner.state().engine.gone(sequence..=sequence);
        }
        drop(saver);
        done?;
        inner.core.news.nudge();
        Ok(true)
    }
}
