//! What a user does with one stream.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use dwk_base::{Deadline, Error, Result, codes};
use dwk_bus::{Envelope, Pattern};

use crate::config::StreamConfig;
use crate::core::Core;
use crate::entry;
use crate::line::{Publishing, check_batch};
use crate::merge::Eager;
use crate::news::Watch;
use crate::read::{Cursor, From, Stored};
use crate::tail::{Item, Published};
use crate::window;

/// A stream. Cheap to clone; shared by any number of threads.
#[derive(Clone)]
pub struct Stream(pub(crate) Arc<Core>);

/// What a stream holds now.
#[derive(Clone, Debug, Default)]
pub struct StreamStatus {
    /// The first message that is shown, or the next one if there is none.
    pub first_sequence: u64,
    /// The last message that was committed, 0 if there never was one.
    pub last_sequence: u64,
    /// Messages that are shown. Where messages are left out (by key or subject) of the block that the first one
    /// is in, those before it may count as far as its chunk begins.
    pub messages: u64,
    /// About their bytes.
    pub bytes: u64,
    /// Rows with what was committed together and is not merged yet.
    pub frames: u64,
    /// Rows with merged messages.
    pub blocks: u64,
    /// How many identities of messages are remembered.
    pub window_ids: u64,
    /// True if identities were forgotten within the window, because there were too many or they cannot be
    /// read: a message may be taken twice.
    pub window_is_short: bool,
    /// Messages that are not due yet.
    pub delayed: u64,
    /// When the first of them is due, in nanoseconds since 1970.
    pub next_due_unix_ns: Option<u64>,
    /// Why the last upkeep failed, if it did: merging, removing.
    pub failure: Option<Error>,
}

impl Stream {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Whose it is.
    pub fn tenant(&self) -> &str {
        &self.0.tenant
    }

    /// Its number in the store, which no other stream has, also when it was deleted: for rows of consumers.
    pub fn id(&self) -> u64 {
        self.0.id
    }

    /// What it takes and how long it keeps it.
    pub fn config(&self) -> Arc<StreamConfig> {
        self.0.config()
    }

    /// Publishes a message; durable and visible on return. Messages of several threads are committed
    /// together, those of one thread are in its order. With a `message_id`, of 1 to 255 bytes, that the stream
    /// has seen within its window nothing is written, and the first one's number is returned, when that one is
    /// durable.
    ///
    /// # Errors
    /// `stream.subject` if the stream does not take its subject, `context.invalid` if the envelope is another
    /// tenant's, `stream.option` for a bad `message_id`, `stream.full`, `stream.not_found`, `pool.full`,
    /// `drive.full`, `journal.*`, `pool.read_only`, `store.closed`; `context.deadline`: with the detail `outcome`
    /// (`unknown`) the message may be there at any time from now on, without it never. After `journal.members`
    /// it is not known whether the message is there at the next opening.
    pub fn publish(
        &self,
        envelope: &Envelope,
        message_id: Option<&str>,
        deadline: &Deadline,
    ) -> Result<Published> {
        let item = self.item(envelope, message_id)?;
        let outcomes = self.0.publish(vec![Some(item)], deadline)?;
        outcomes.into_iter().next().unwrap_or_else(|| Err(bug()))
    }

    /// Publishes messages next to each other and in one commit, all of them or none, except that each may be a
    /// duplicate of its own: returns what became of each. Where there is no room for all that are none, all of
    /// those are refused. At most 1,024, of 16 MiB together.
    ///
    /// # Errors
    /// As [`publish`](Self::publish), for all of them; `stream.option` if there are too many.
    pub fn publish_many(
        &self,
        messages: &[(Envelope, Option<String>)],
        deadline: &Deadline,
    ) -> Result<Vec<Result<Published>>> {
        let items = self.items(messages)?;
        if items.is_empty() { Ok(Vec::new()) } else { self.0.publish(items, deadline) }
    }

    /// [`publish_many`](Self::publish_many) as a future, for any executor: messages of any number of calls are
    /// committed together. They are in line when this returns, and are numbered in the order of the calls, except
    /// that what a full drive refused is sent once more. A thread that comes with the work waits for the drives.
    ///
    /// # Errors
    /// Here, what can be told at once: `stream.subject`, `context.invalid`, `stream.option`. From the future, the
    /// rest of what `publish_many` fails with.
    pub fn publish_async(&self, messages: &[(Envelope, Option<String>)]) -> Result<Publishing> {
        Ok(self.0.publish_async(self.items(messages)?))
    }

    /// Publishes a message that is in the stream once it is due, in nanoseconds since 1970; what is due already
    /// is soon. Durable on return; until then nobody sees it. Messages come in the order of their times, and
    /// about then: when the thread that looks after streams, or [`upkeep`](crate::Streams::upkeep), gets to it. A
    /// `message_id` is looked at then: of several that are there under the same one, the first comes. While a
    /// stream that discards what is new is full, it waits.
    ///
    /// # Errors
    /// `stream.full` if too many wait, and as [`publish`](Self::publish).
    pub fn publish_at(
        &self,
        envelope: &Envelope,
        message_id: Option<&str>,
        due_unix_ns: u64,
        deadline: &Deadline,
    ) -> Result<()> {
        let item = self.item(envelope, message_id)?;
        self.0.delay(&item.body, due_unix_ns, deadline)
    }

    /// [`publish_at`](Self::publish_at), so much later than now.
    ///
    /// # Errors
    /// As `publish_at`.
    pub fn publish_after(
        &self,
        envelope: &Envelope,
        message_id: Option<&str>,
        delay: Duration,
        deadline: &Deadline,
    ) -> Result<()> {
        let delay_ns = u64::try_from(delay.as_nanos()).unwrap_or(u64::MAX);
        let due_unix_ns = self.0.clock().unix_ns().saturating_add(delay_ns);
        self.publish_at(envelope, message_id, due_unix_ns, deadline)
    }

    /// Messages that are taken together.
    fn items(&self, messages: &[(Envelope, Option<String>)]) -> Result<Vec<Option<Item>>> {
        let item = |(envelope, id): &(Envelope, Option<String>)| self.item(envelope, id.as_deref());
        let items = messages.iter().map(item).map(|item| item.map(Some));
        let mut items = items.collect::<Result<Vec<_>>>()?;
        let together = items.len();
        if let Some(Some(first)) = items.first_mut() {
            first.together = together;
        }
        check_batch(&items)?;
        Ok(items)
    }

    pub(crate) fn item(&self, envelope: &Envelope, message_id: Option<&str>) -> Result<Item> {
        if envelope.tenant() != self.tenant() {
            let text = format!("the envelope {} belongs to another tenant", envelope.id());
            return Err(Error::new(&codes::CONTEXT_INVALID, text));
        }
        if !self.config().takes_envelope(envelope) {
            let text = format!("stream {} does not take {}", self.name(), envelope.subject());
            let error = Error::new(&codes::STREAM_SUBJECT, text);
            return Err(error.with("stream", self.name()).with("subject", envelope.subject()));
        }
        let body = entry::body(envelope, message_id)?;
        Ok(Item { body, id: message_id.map(|id| window::id_of(id.as_bytes())), together: 1 })
    }

    /// A reader that begins there.
    ///
    /// # Errors
    /// `stream.not_found`, `store.closed`
    pub fn cursor(&self, from: From) -> Result<Cursor> {
        Cursor::new(&self.0, from)
    }

    /// Messages from a number on: what [`Cursor::next_many`] of a new cursor returns.
    ///
    /// # Errors
    /// As [`cursor`](Self::cursor) and [`Cursor::next_many`].
    pub fn read(
        &self,
        from_sequence: u64,
        limit_messages: usize,
        limit_bytes: usize,
        deadline: &Deadline,
    ) -> Result<Vec<Stored>> {
        let mut cursor = self.cursor(From::Sequence(from_sequence))?;
        cursor.next_many(limit_messages, limit_bytes, deadline)
    }

    /// Tells from now on when something is committed.
    pub fn watch(&self) -> Watch {
        Watch::new(Arc::clone(&self.0.news))
    }

    /// Consumers do not need the messages up to `up_to_sequence` any more: they go. They are hidden at once,
    /// and that is durable about a second later: at an opening before, they are there again.
    ///
    /// # Errors
    /// `stream.option` if the stream's retention is [`Limits`](crate::Retention::Limits), `stream.not_found`,
    /// `store.closed`
    pub fn release(&self, up_to_sequence: u64) -> Result<()> {
        self.0.check()?;
        self.0.release(up_to_sequence)
    }

    /// Messages up to `up_to_sequence` go; durable on return. Returns how many these are (about, if messages are
    /// left out in the middle). No number is given again.
    ///
    /// # Errors
    /// `stream.not_found`, and those of a commit
    pub fn purge(&self, up_to_sequence: u64, deadline: &Deadline) -> Result<u64> {
        self.0.check()?;
        self.0.purge_to(up_to_sequence, deadline)
    }

    /// Messages whose subject `pattern` stands for, and that were committed before this was called, go; durable
    /// on return. Returns how many these are. It reads everything and writes anew what it changes.
    ///
    /// # Errors
    /// `stream.not_found`, `data.corrupt` and others of reading messages, those of uploads and of commits,
    /// `context.deadline`: some are gone then, and some not.
    pub fn purge_subjects(&self, pattern: &Pattern, deadline: &Deadline) -> Result<u64> {
        self.0.check()?;
        self.0.purge_subjects(pattern, deadline)
    }

    /// Merges what was committed a little at a time, also what is not worth it yet, and removes what is hidden.
    ///
    /// # Errors
    /// Those of reading frames, of uploads and of commits; `data.corrupt` if something cannot be merged.
    pub fn compact_frames(&self) -> Result<()> {
        self.0.check()?;
        self.0.look_after(Eager::Yes)
    }

    /// What it holds now.
    pub fn status(&self) -> StreamStatus {
        let mut tail = self.0.tail();
        self.0.settle(&mut tail);
        self.0.age();
        let now = self.0.clock().unix_ns();
        let limits = self.0.limits();
        tail.window.trim(limits, now);
        let (window_ids, window_is_short) =
            (tail.window.len() as u64, tail.window.is_short(limits, now));
        drop(tail);
        let ledger = self.0.ledger();
        let shown = ledger.shown();
        StreamStatus {
            first_sequence: ledger.first,
            last_sequence: ledger.next - 1,
            messages: shown.messages,
            bytes: shown.bytes,
            frames: ledger.loose_frames,
            blocks: ledger.blocks,
            window_ids,
            window_is_short,
            delayed: self.0.delayed.load(Ordering::Relaxed),
            next_due_unix_ns: self.0.next_due().ok().flatten(),
            failure: crate::sync::guard(&self.0.failed).clone(),
        }
    }
}

fn bug() -> Error {
    Error::new(&codes::INTERNAL_BUG, "a batch forgot a message")
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
