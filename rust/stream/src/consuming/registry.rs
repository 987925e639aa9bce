//! The consumers of all streams.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard};

use dwk_base::{Deadline, Error, Result, codes};
use dwk_meta::{Change, ContentReader, Require};

use super::state::Inner;
use super::{Consumer, not_found};
use crate::config::Retention;
use crate::consumer::{ConsumerConfig, Engine};
use crate::core::Core;
use crate::keys::{CONSUMER_ROW, consumer_row, letter_rows, rows_of};
use crate::read::{From, is_unreadable};
use crate::stream::Stream;
use crate::sync::guard;

/// A snapshot has at most so many bytes; more is damage.
const SNAPSHOT_BYTES_MAX: u64 = 64 << 20;
/// How many rows one commit removes.
const REMOVE_MAX: usize = 128;

/// The consumers that were loaded: all of a stream, or none.
#[derive(Default)]
pub(crate) struct Registry {
    by_stream: Mutex<BTreeMap<u64, BTreeMap<String, Consumer>>>,
}

impl Registry {
    /// Makes a consumer.
    pub(crate) fn create(
        self: &Arc<Self>,
        stream: &Stream,
        config: ConsumerConfig,
        deadline: &Deadline,
    ) -> Result<Consumer> {
        config.check()?;
        let core = &stream.0;
        let mut all = guard(&self.by_stream);
        let known = self.load(&mut all, core, deadline)?;
        if known.contains_key(&config.name) {
            let text = format!("consumer {} is there", config.name);
            let error = Error::new(&codes::STREAM_CONSUMER_EXISTS, text);
            return Err(error.with("consumer", &config.name));
        }
        let first = start_of(stream, config.start, deadline)?;
        let engine = Engine::new(config.clone(), first, core.clock().unix_ns())?;
        let (row, snapshot) = (consumer_row(core.id, &config.name), engine.snapshot());
        let name = config.name.clone();
        let inner = Inner::new(core, config, engine, self);
        // What a cut left of an earlier one of that name.
        remove_letters(core, &inner.config.name, deadline)?;
        let change = Change::new().require(row.clone(), Require::Absent);
        inner.commit(change, row, &snapshot.bytes, deadline)?;
        inner.state().engine.saved(snapshot.version);
        let consumer = Consumer(Arc::new(inner));
        known.insert(name, consumer.clone());
        drop(all);
        self.watch_over(core);
        // It may begin behind what is there.
        self.release(core)?;
        Ok(consumer)
    }

    /// A stream's consumers, by name.
    pub(crate) fn all(
        self: &Arc<Self>,
        stream: &Stream,
        deadline: &Deadline,
    ) -> Result<Vec<Consumer>> {
        let mut all = guard(&self.by_stream);
        Ok(self.load(&mut all, &stream.0, deadline)?.values().cloned().collect())
    }

    /// A consumer that is there.
    pub(crate) fn get(
        self: &Arc<Self>,
        stream: &Stream,
        name: &str,
        deadline: &Deadline,
    ) -> Result<Consumer> {
        let mut all = guard(&self.by_stream);
        let known = self.load(&mut all, &stream.0, deadline)?;
        known.get(name).cloned().ok_or_else(|| not_found(name))
    }

    /// Deletes a consumer, and its dead letters.
    pub(crate) fn delete(
        self: &Arc<Self>,
        stream: &Stream,
        name: &str,
        deadline: &Deadline,
    ) -> Result<()> {
        let core = &stream.0;
        let mut all = guard(&self.by_stream);
        let known = self.load(&mut all, core, deadline)?;
        let consumer = known.get(name).cloned().ok_or_else(|| not_found(name))?;
        let row = consumer_row(core.id, name);
        let change = Change::new().delete(row.clone()).require(row, Require::Present);
        // Who saves now would do so into the row of the next consumer of that name.
        let unsaving = consumer.0.unsaving();
        core.shared.meta.commit_until(change, deadline)?;
        consumer.0.end();
        drop(unsaving);
        known.remove(name);
        drop(all);
        self.release(core)?;
        // What a cut leaves of them is removed with the stream, or by the next one of that name.
        remove_letters(core, name, deadline)
    }

    /// Forgets the consumers of a stream that is gone.
    pub(crate) fn forget(&self, id: u64) {
        let gone = guard(&self.by_stream).remove(&id).unwrap_or_default();
        for consumer in gone.values() {
            consumer.0.end();
        }
    }

    /// Lets go all consumers: they hold the store.
    pub(crate) fn clear(&self) {
        drop(std::mem::take(&mut *guard(&self.by_stream)));
    }

    /// Saves what is not saved of all consumers: the first failure.
    pub(crate) fn flush(&self, deadline: &Deadline) -> Result<()> {
        let all: Vec<Consumer> =
            guard(&self.by_stream).values().flat_map(|of| of.values().cloned()).collect();
        let saved: Vec<_> = all.iter().map(|consumer| consumer.0.save(deadline)).collect();
        saved.into_iter().collect()
    }

    /// While it is held no stream lets go what its consumers have done.
    pub(super) fn still(&self) -> MutexGuard<'_, impl Sized> {
        guard(&self.by_stream)
    }

    /// The stream may let go what all of its consumers have done, if that is durable.
    pub(super) fn release(&self, core: &Arc<Core>) -> Result<()> {
        // What is closed lets nothing go any more; the next opening does.
        if core.config().retention == Retention::Limits || core.check().is_err() {
            return Ok(());
        }
        // Who makes a consumer meanwhile holds this and does not save.
        let Ok(all) = self.by_stream.try_lock() else { return Ok(()) };
        let done = all.get(&core.id).into_iter().flatten().map(|(_, one)| one.0.done_to());
        let lowest = done.min().unwrap_or(0);
        if lowest == 0 {
            return Ok(());
        }
        Stream(Arc::clone(core)).release(lowest)
    }

    fn load<'a>(
        self: &Arc<Self>,
        all: &'a mut BTreeMap<u64, BTreeMap<String, Consumer>>,
        core: &Arc<Core>,
        deadline: &Deadline,
    ) -> Result<&'a mut BTreeMap<String, Consumer>> {
        core.check()?;
        match all.entry(core.id) {
            Entry::Occupied(known) => Ok(known.into_mut()),
            Entry::Vacant(place) => Ok(place.insert(self.read(core, deadline)?)),
        }
    }

    /// The consumers of a stream as the map has them.
    fn read(
        self: &Arc<Self>,
        core: &Arc<Core>,
        deadline: &Deadline,
    ) -> Result<BTreeMap<String, Consumer>> {
        let meta = &core.shared.meta;
        let (low, high) = rows_of(CONSUMER_ROW, core.id);
        let rows = meta.range(Bound::Included(&low), Bound::Excluded(&high), usize::MAX)?;
        let mut known = BTreeMap::new();
        for (key, row) in rows {
            let config = ConsumerConfig::decode(&row.body)?;
            let Some((_, reader)) = meta.read_until(&key, deadline)? else { continue };
            let now = core.clock().unix_ns();
            let engine = Engine::restore(config.clone(), &read_all(reader)?, now)?;
            let name = config.name.clone();
            known.insert(name, Consumer(Arc::new(Inner::new(core, config, engine, self))));
        }
        Ok(known)
    }
}

/// Removes the dead letters of a consumer.
fn remove_letters(core: &Core, name: &str, deadline: &Deadline) -> Result<()> {
    let (meta, (low, high)) = (&core.shared.meta, letter_rows(core.id, name));
    loop {
        let rows = meta.range(Bound::Included(&low), Bound::Excluded(&high), REMOVE_MAX)?;
        if rows.is_empty() {
            return Ok(());
        }
        let delete = |change: Change, (key, _): (Vec<u8>, _)| change.delete(key);
        meta.commit_until(rows.into_iter().fold(Change::new(), delete), deadline)?;
    }
}

/// The number from which on a new consumer gets messages.
fn start_of(stream: &Stream, start: From, deadline: &Deadline) -> Result<u64> {
    if let From::Sequence(sequence) = start {
        return Ok(sequence.max(1));
    }
    let mut cursor = stream.cursor(start)?;
    let position = cursor.position().max(1);
    if !matches!(start, From::Time(_)) {
        return Ok(position);
    }
    // A time is looked up by what was committed or merged together: earlier messages may come before it.
    let end = stream.0.ledger().next;
    match cursor.next_many(1, 1, deadline) {
        Ok(read) => Ok(read.first().map_or(end.max(position), |stored| stored.sequence)),
        // The consumer meets it when it gets there.
        Err(error) if is_unreadable(&error) => Ok(position),
        Err(error) => Err(error),
    }
}

fn read_all(mut reader: ContentReader) -> Result<Vec<u8>> {
    let length = reader.bytes();
    if length > SNAPSHOT_BYTES_MAX {
        return Err(Error::new(&codes::FORMAT_DAMAGED, "a consumer's state is too long"));
    }
    let mut bytes = vec![0; length as usize];
    let read = reader.read_at(0, &mut bytes)?;
    bytes.truncate(read);
    Ok(bytes)
}
