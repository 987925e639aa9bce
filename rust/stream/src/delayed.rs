//! Messages that are published now and are in the stream when their time came.
//!
//! Each waits in a row of its own, by its time. One commit puts what is due into the stream and deletes the
//! rows: nothing is lost, and nothing comes twice.

use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use dwk_base::{Deadline, Error, Result, codes};
use dwk_meta::{Change, Meta, Require, Row};

use crate::core::Core;
use crate::entry;
use crate::keys::{delayed_row, numbers_of};
use crate::read::is_unreadable;
use crate::tail::{Item, Published};
use crate::upkeep::Upkeep;
use crate::window::id_of;

const VERSION: u8 = 0;

/// How many messages one commit moves.
const MOVE_MAX: usize = 256;

/// A message whose time came.
struct Due {
    key: Vec<u8>,
    item: Item,
}

impl Core {
    /// Keeps a message until it is due; durable on return.
    ///
    /// # Errors
    /// `stream.full` if too many wait, `stream.not_found`, those of an upload and of a commit
    pub(crate) fn delay(&self, body: &[u8], due_unix_ns: u64, deadline: &Deadline) -> Result<()> {
        let max = self.shared.options.delayed_max;
        if self.delayed.fetch_add(1, Ordering::Relaxed) >= max {
            self.delayed.fetch_sub(1, Ordering::Relaxed);
            let text = format!("{max} messages of stream {} wait to be due", self.name);
            return Err(Error::new(&codes::STREAM_FULL, text).with("stream", &self.name));
        }
        let done = self.keep(body, due_unix_ns, deadline);
        match &done {
            // It may be there: it counts until it was looked for.
            Err(error) if error.detail("outcome").is_none() => {
                self.delayed.fetch_sub(1, Ordering::Relaxed);
            }
            _ => self.shared.bell.ring_at(self.id, due_unix_ns),
        }
        done
    }

    fn keep(&self, body: &[u8], due_unix_ns: u64, deadline: &Deadline) -> Result<()> {
        let inline_max = self.shared.options.inline_bytes_max;
        let mut upload = self.shared.meta.upload_until(deadline).with_inline_max(inline_max);
        upload.append(body)?;
        let staged = upload.finish()?;
        let row = delayed_row(self.id, due_unix_ns, self.shared.seams.random.next_u64());
        let change = Change::new()
            .put(row.clone(), vec![VERSION], Some(staged))
            .require(row, Require::Absent);
        // Not behind a deletion of the stream.
        let tail = self.tail();
        tail.check()?;
        let submitted = self.shared.meta.submit(change, deadline)?;
        drop(tail);
        submitted.wait(deadline).map(drop)
    }

    /// Publishes what is due.
    ///
    /// # Errors
    /// Those of reading, of uploads and of commits.
    pub(crate) fn move_due(&self, upkeep: &mut Upkeep) -> Result<()> {
        if self.delayed.load(Ordering::Relaxed) == 0 {
            return Ok(());
        }
        loop {
            let due = self.due(upkeep)?;
            if due.is_empty() {
                return Ok(());
            }
            let moved = self.move_some(due)?;
            if moved == 0 {
                // The stream is full: they wait.
                return Ok(());
            }
        }
    }

    /// Some of the messages whose time came, oldest first.
    fn due(&self, upkeep: &mut Upkeep) -> Result<Vec<Due>> {
        let now = self.clock().unix_ns();
        let (from, to) =
            (delayed_row(self.id, 0, 0), delayed_row(self.id, now.saturating_add(1), 0));
        let (mut due, mut bytes) = (Vec::new(), 0);
        let limit = MOVE_MAX + upkeep.unreadable.len();
        let rows = self.shared.meta.range(Bound::Included(&from), Bound::Excluded(&to), limit)?;
        for (key, _) in rows {
            if upkeep.unreadable.contains(&key) {
                continue;
            }
            match load(&self.shared.meta, &key) {
                Ok(Some(item)) => {
                    bytes += item.body.len();
                    due.push(Due { key, item });
                }
                Ok(None) => {}
                Err(error) if is_unreadable(&error) => {
                    upkeep.unreadable.insert(key);
                }
                Err(error) => return Err(error),
            }
            if bytes >= self.shared.options.batch_bytes_max / 2 || due.len() >= MOVE_MAX {
                break;
            }
        }
        Ok(due)
    }

    /// Publishes messages and deletes their rows in one commit; returns how many.
    fn move_some(&self, due: Vec<Due>) -> Result<u64> {
        let (keys, items): (Vec<_>, Vec<_>) =
            due.into_iter().map(|due| (due.key, Some(due.item))).unzip();
        let deadline = Deadline::never();
        let mut tail = self.tail();
        let plan = self.plan(&mut tail, &items)?;
        let taken = |outcome: &Result<Published>| outcome.is_ok();
        let taken = plan.outcomes.iter().map(taken).zip(keys);
        let keys: Vec<_> = taken.filter_map(|(taken, key)| taken.then_some(key)).collect();
        let moved = keys.len() as u64;
        if moved == 0 {
            return Ok(0);
        }
        let change = keys.into_iter().fold(Change::new(), |change, key| {
            change.delete(key.clone()).require(key, Require::Present)
        });
        let submitted = self
            .stage(change, &plan, &deadline)
            .and_then(|change| self.shared.meta.submit(change, &deadline));
        let submitted = match submitted {
            Ok(submitted) => Arc::new(submitted),
            Err(error) => {
                tail.undo(&plan);
                return Err(error);
            }
        };
        drop(tail.submitted(&plan, Arc::clone(&submitted)));
        drop(tail);
        let done = submitted.wait(&deadline);
        self.settle(&mut self.tail());
        done?;
        self.delayed.fetch_sub(moved, Ordering::Relaxed);
        Ok(moved)
    }

    /// When the next message is due.
    ///
    /// # Errors
    /// `format.damaged`
    pub(crate) fn next_due(&self) -> Result<Option<u64>> {
        if self.delayed.load(Ordering::Relaxed) == 0 {
            return Ok(None);
        }
        let rows = rows(&self.shared.meta, self.id, 1)?;
        rows.first().map(|(key, _)| Ok(numbers_of(key)?.1)).transpose()
    }
}

/// How many messages of a stream are not due yet.
///
/// # Errors
/// Those of reading the map.
pub(crate) fn count(meta: &Meta, id: u64) -> Result<u64> {
    Ok(rows(meta, id, usize::MAX)?.len() as u64)
}

fn rows(meta: &Meta, id: u64, limit: usize) -> Result<Vec<(Vec<u8>, Row)>> {
    let (from, to) = (delayed_row(id, 0, 0), delayed_row(id, u64::MAX, u64::MAX));
    meta.range(Bound::Included(&from), Bound::Included(&to), limit)
}

/// A message that waits.
///
/// # Errors
/// `format.damaged`, `format.newer`, `data.corrupt` and others of reading content
fn load(meta: &Arc<Meta>, key: &[u8]) -> Result<Option<Item>> {
    let Some((row, mut reader)) = meta.read(key)? else { return Ok(None) };
    if row.body != [VERSION].as_slice() {
        let text = "a message that is not due yet is of another version";
        return Err(Error::new(&codes::FORMAT_NEWER, text));
    }
    let mut body = vec![0; reader.bytes() as usize];
    reader.read_at(0, &mut body)?;
    let body = Bytes::from(body);
    let (message_id, _) = entry::open(&body)?;
    Ok(Some(Item { id: message_id.map(|id| id_of(&id)), body: body.into(), together: 1 }))
}
