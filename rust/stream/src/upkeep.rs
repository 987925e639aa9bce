//! What is done for a stream while nobody waits: hiding what is old, removing what is hidden, merging.
//!
//! All of it is idempotent: a crash in the middle leaves things as they were, or done.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};

use dwk_base::{Deadline, Error, Result, codes};
use dwk_meta::Change;

use crate::config::Retention;
use crate::core::Core;
use crate::entry::Entry;
use crate::frame::Header;
use crate::frames::Known;
use crate::keys::{frame_row, mark_row};
use crate::mark::Mark;
use crate::merge::Eager;
use crate::read::read_all;
use crate::sync::guard;

/// How many rows one commit removes.
const REMOVE_MAX: usize = 256;
/// After a failure it is tried again so much later.
const AGAIN_NS: u64 = 5_000_000_000;

/// What the upkeep of a stream remembers; who holds it is alone.
#[derive(Debug, Default)]
pub(crate) struct Upkeep {
    /// Frames that begin before it are merged, or cannot be.
    pub(crate) merged_to: u64,
    /// Frames that cannot be read.
    pub(crate) damaged: BTreeSet<u64>,
    /// Messages before it were looked at for those that are superseded.
    pub(crate) keyed_to: u64,
    /// Rows of messages that are due and cannot be read.
    pub(crate) unreadable: BTreeSet<Vec<u8>>,
    /// Frames were merged since then.
    pub(crate) has_merged: bool,
}

impl Core {
    /// Does what is due, and remembers if that failed.
    ///
    /// # Errors
    /// Those of reading frames, of uploads and of commits; `data.corrupt` if something cannot be merged.
    pub(crate) fn look_after(&self, eager: Eager) -> Result<()> {
        let work = || {
            let mut upkeep = guard(&self.upkeep);
            let mut tail = self.tail();
            self.settle(&mut tail);
            if tail.under_way().0 > 0 {
                self.look_later();
            }
            drop(tail);
            self.age();
            let worked = self.work(&mut upkeep, eager);
            self.ledger().looked_after(&self.shared.options);
            worked?;
            match upkeep.damaged.len() + upkeep.unreadable.len() {
                0 => Ok(()),
                count => {
                    let text =
                        format!("{count} rows of messages of stream {} cannot be read", self.name);
                    Err(Error::new(&codes::DATA_CORRUPT, text).with("stream", &self.name))
                }
            }
        };
        let done = catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
            Err(Error::new(&codes::INTERNAL_BUG, "the upkeep of a stream panicked"))
        });
        *guard(&self.failed) = done.as_ref().err().cloned();
        if done.is_err() {
            self.shared.bell.ring_at(self.id, self.clock().unix_ns().saturating_add(AGAIN_NS));
        }
        self.watch_over();
        done
    }

    fn work(&self, upkeep: &mut Upkeep, eager: Eager) -> Result<()> {
        self.move_due(upkeep)?;
        self.remove(upkeep, &Deadline::never())?;
        self.merge(upkeep, eager)?;
        self.keep_last(upkeep, eager == Eager::Yes)
    }

    /// Frames whose senders were told of them, in their order, from the first one on that is shown.
    ///
    /// # Errors
    /// Those of reading rows.
    pub(crate) fn settled(&self) -> Result<Vec<Known>> {
        let (first, next) = (self.first(), self.ledger().next);
        let (from, mut all) = (self.frames.first_of(first)?.unwrap_or(first), Vec::new());
        self.frames.visit(from, &mut |known| {
            let is_settled = known.header.last < next;
            if is_settled {
                all.push(known);
            }
            Ok(is_settled)
        })?;
        Ok(all)
    }

    /// Visits every message of a frame.
    ///
    /// # Errors
    /// Those of reading frames, and of `visit`.
    pub(crate) fn read_entries(
        &self,
        first: u64,
        visit: &mut dyn FnMut(&Entry<'_>) -> Result<()>,
    ) -> Result<()> {
        read_all(&self.frames, first, &Deadline::never(), &mut |entry| visit(&entry))
    }

    /// Removes frames that are hidden as a whole, and makes it durable from where on the stream is shown.
    ///
    /// # Errors
    /// Those of reading rows and of a commit.
    pub(crate) fn remove(&self, upkeep: &mut Upkeep, deadline: &Deadline) -> Result<()> {
        loop {
            let first = self.first();
            let (rows, headers) = self.hidden(first)?;
            if rows.is_empty() && first <= self.ledger().marked {
                return Ok(());
            }
            let all = rows.len();
            let mark = Mark { first, unix_ns: self.tail().unix_ns() };
            let delete = |change: Change, first: &u64| change.delete(frame_row(self.id, *first));
            let change = Change::new().put(mark_row(self.id), mark.encode(), None);
            let done = self.shared.meta.commit_until(rows.iter().fold(change, delete), deadline);
            match done {
                Ok(_) => self.ledger().marked = first,
                // Deleting alone needs no room. While a frame stays the next number is known from it.
                Err(error) if is_full(&error) && first < self.ledger().next && all > 0 => {
                    self.shared
                        .meta
                        .commit_until(rows.iter().fold(Change::new(), delete), deadline)?;
                }
                Err(error) => return Err(error),
            }
            upkeep.damaged.retain(|first| !rows.contains(first));
            self.ledger().replaced(&self.frames, &headers, None)?;
            // Without the mark the rest is shown again at the next opening.
            if all < REMOVE_MAX && first <= self.ledger().marked {
                return Ok(());
            }
        }
    }

    /// Frames that end before `first`: their first numbers, and what is known of them. Those whose
    /// identities are still needed stay.
    fn hidden(&self, first: u64) -> Result<(Vec<u64>, Vec<Header>)> {
        let config = self.config();
        let begin = self.limits().begin(self.clock().unix_ns());
        // Work that is done soon after it was published must not be taken again.
        let keeps_ids = config.retention != Retention::Limits && !config.duplicate_window.is_zero();
        let page = self.frames.page(0, REMOVE_MAX + 1)?;
        let (mut rows, mut headers) = (Vec::new(), Vec::new());
        for (index, (begins, known)) in page.iter().enumerate().take(REMOVE_MAX) {
            match known {
                Ok(known) if known.header.last >= first => break,
                Ok(known)
                    if keeps_ids && known.header.ids > 0 && known.header.last_unix_ns >= begin =>
                {
                    break;
                }
                Ok(known) => headers.push(known.header.clone()),
                // It ends where the next one begins.
                Err(_) if page.get(index + 1).is_none_or(|(next, _)| *next > first) => break,
                Err(_) => {}
            }
            rows.push(*begins);
        }
        Ok((rows, headers))
    }
}

fn is_full(error: &Error) -> bool {
    error.is(&codes::POOL_FULL) || error.is(&codes::DRIVE_FULL)
}
