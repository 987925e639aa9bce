//! All streams of a store: which there are, who takes what, and who looks after them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use dwk_base::codec::{Reader, Writer};
use dwk_base::{Deadline, Error, Result, Seams, codes};
use dwk_bus::{Envelope, Subject};
use dwk_meta::{Change, Meta, Require};

use crate::bell::Bell;
use crate::config::StreamConfig;
use crate::consumer::ConsumerConfig;
use crate::consuming::{Consumer, Registry};
use crate::core::{Core, Shared, not_found};
use crate::keys::{self, check_name, check_tenant, mark_row, stream_of, stream_row};
use crate::mark::Mark;
use crate::merge::Eager;
use crate::options::Options;
use crate::outbox::{Outbox, Routed};
use crate::stream::Stream;
use crate::sweep::{remove_rows, sweep};
use crate::sync::guard;

/// How long closing tries to make durable what was published, and acknowledgements.
const CLOSE_TIME: Duration = Duration::from_secs(10);
/// A larger block would have more marks than a row holds.
const MERGE_BYTES_MAX: u64 = 64 << 20;

/// Tenant and name.
type Name = (Arc<str>, Arc<str>);

/// The streams of a store, of all tenants. It ends with [`close`](Self::close), or when it is dropped.
pub struct Streams {
    shared: Shared,
    known: Arc<Known>,
    consumers: Arc<Registry>,
    /// Held by who makes, changes or deletes streams.
    admin: Mutex<()>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// The streams that are open.
pub(crate) struct Known {
    meta: Arc<Meta>,
    by_name: RwLock<BTreeMap<Name, Arc<Core>>>,
}

impl Known {
    fn new(meta: &Arc<Meta>) -> Self {
        Self { meta: Arc::clone(meta), by_name: RwLock::default() }
    }

    pub(crate) fn meta(&self) -> &Arc<Meta> {
        &self.meta
    }

    /// The streams of its tenant that take a message.
    pub(crate) fn takers(&self, envelope: &Envelope) -> Vec<Arc<Core>> {
        let mut takers = self.of(envelope.tenant());
        takers.retain(|core| core.config().takes_envelope(envelope));
        takers
    }

    /// True if a stream of the tenant takes what is announced about `subject`.
    fn is_taken(&self, tenant: &str, subject: &Subject) -> bool {
        let by_name = self.by_name.read().unwrap_or_else(PoisonError::into_inner);
        let from: Name = (tenant.into(), "".into());
        let mut range = by_name.range(from..).take_while(|((of, _), _)| **of == *tenant);
        range.any(|(_, core)| core.config().takes_announcements(subject))
    }

    fn all(&self) -> Vec<Arc<Core>> {
        self.by_name.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    pub(crate) fn find(&self, tenant: &str, name: &str) -> Option<Arc<Core>> {
        let by_name = self.by_name.read().unwrap_or_else(PoisonError::into_inner);
        by_name.get(&(Arc::from(tenant), Arc::from(name))).cloned()
    }

    fn of(&self, tenant: &str) -> Vec<Arc<Core>> {
        let by_name = self.by_name.read().unwrap_or_else(PoisonError::into_inner);
        let from: Name = (tenant.into(), "".into());
        let range = by_name.range(from..).take_while(|((of, _), _)| **of == *tenant);
        range.map(|(_, core)| Arc::clone(core)).collect()
    }

    fn by_id(&self, id: u64) -> Option<Arc<Core>> {
        let by_name = self.by_name.read().unwrap_or_else(PoisonError::into_inner);
        by_name.values().find(|core| core.id == id).cloned()
    }

    fn remove(&self, core: &Core) {
        let name = (Arc::clone(&core.tenant), Arc::clone(&core.name));
        self.by_name.write().unwrap_or_else(PoisonError::into_inner).remove(&name);
    }

    fn insert(&self, core: Arc<Core>) {
        let name = (Arc::clone(&core.tenant), Arc::clone(&core.name));
        self.by_name.write().unwrap_or_else(PoisonError::into_inner).insert(name, core);
    }
}

impl Streams {
    /// The streams that are in the map. Their rows are counted, and the messages of their windows read.
    ///
    /// # Errors
    /// `format.damaged`, `format.newer` of a stream's own row, and those of reading the map
    pub fn open(meta: Arc<Meta>, seams: Seams, mut options: Options) -> Result<Self> {
        let bell = Arc::new(Bell::new(Arc::clone(&seams.clock)));
        let record_bytes_max = meta.pool().journal().options().record_bytes_max as usize;
        options.inline_bytes_max = options.inline_bytes_max.min(record_bytes_max / 2);
        options.merge_bytes = options.merge_bytes.min(MERGE_BYTES_MAX);
        options.batch_bytes_max = options.batch_bytes_max.min(options.inline_bytes_max);
        let shared = Shared { meta, seams, options, bell };
        let (known, mut ids) = (Known::new(&shared.meta), BTreeSet::new());
        for (key, row) in rows(&shared.meta)? {
            let (tenant, name) = stream_of(&key)?;
            let (id, config) = decode(&row)?;
            ids.insert(id);
            known.insert(Core::load(shared.clone(), id, (tenant, name), config)?);
        }
        if shared.meta.pool().check_writable().is_ok() {
            // What fails is tried again at the next opening; nobody sees these rows.
            let _ = sweep(&shared.meta, &ids);
        }
        let (admin, thread) = (Mutex::default(), Mutex::default());
        let consumers = Arc::default();
        let streams = Self { shared, known: Arc::new(known), consumers, admin, thread };
        for core in streams.known.all() {
            streams.consumers.watch_over(&core);
        }
        if !streams.known.all().is_empty() {
            streams.start()?;
        }
        Ok(streams)
    }

    /// Starts the thread that looks after streams, if there is to be one.
    fn start(&self) -> Result<()> {
        let mut thread = guard(&self.thread);
        if !self.shared.options.background || thread.is_some() {
            return Ok(());
        }
        let (bell, known) = (Arc::clone(&self.shared.bell), Arc::clone(&self.known));
        let consumers = Arc::clone(&self.consumers);
        let run = move || {
            while let Some(wanted) = bell.wait() {
                for core in wanted.into_iter().filter_map(|id| known.by_id(id)) {
                    // Its status tells of a failure, and it is tried again later.
                    let _ = core.look_after(Eager::No);
                    let _ = consumers.retire(&core);
                }
            }
        };
        let spawned = thread::Builder::new().name("dwk-streams".to_owned()).spawn(run);
        *thread = Some(spawned.map_err(|error| {
            Error::new(&codes::INTERNAL_BUG, "no thread can be started").caused_by(error)
        })?);
        Ok(())
    }

    /// Does now what is due for all streams: what the thread does that looks after them.
    ///
    /// # Errors
    /// The first failure, after everything else was done: those of reading frames, of uploads and of commits.
    pub fn upkeep(&self) -> Result<()> {
        let work = |core: Arc<Core>| {
            let looked = core.look_after(Eager::No);
            looked.and(self.consumers.retire(&core))
        };
        let done: Vec<Result<()>> = self.known.all().into_iter().map(work).collect();
        done.into_iter().collect()
    }

    /// Makes a stream.
    ///
    /// # Errors
    /// `stream.name`, `context.invalid` (the tenant), `stream.option`, `stream.exists`, and those of a commit
    pub fn create(
        &self,
        tenant: &str,
        name: &str,
        config: StreamConfig,
        deadline: &Deadline,
    ) -> Result<Stream> {
        check_tenant(tenant)?;
        check_name(name)?;
        config.check()?;
        let _alone = guard(&self.admin);
        if self.known.find(tenant, name).is_some() {
            let error = Error::new(&codes::STREAM_EXISTS, format!("stream {name} is there"));
            return Err(error.with("stream", name));
        }
        // 64 random bits: no other stream has them, and a row that is in the way is found.
        let id = self.shared.seams.random.next_u64();
        let mark = Mark { first: 1, unix_ns: 0 };
        let (row, mark_row) = (stream_row(tenant, name), mark_row(id));
        let change = Change::new()
            .put(row.clone(), encode(id, &config), None)
            .put(mark_row.clone(), mark.encode(), None)
            .require(row, Require::Absent)
            .require(mark_row, Require::Absent);
        self.shared.meta.commit_until(change, deadline)?;
        let core = Core::load(self.shared.clone(), id, (tenant, name), config)?;
        self.known.insert(Arc::clone(&core));
        self.start()?;
        Ok(Stream(core))
    }

    /// A stream that is there.
    ///
    /// # Errors
    /// `stream.not_found`
    pub fn get(&self, tenant: &str, name: &str) -> Result<Stream> {
        self.known.find(tenant, name).map(Stream).ok_or_else(|| not_found(name))
    }

    /// A tenant's streams, in the order of their names.
    pub fn list(&self, tenant: &str) -> Vec<Stream> {
        self.known.of(tenant).into_iter().map(Stream).collect()
    }

    /// Gives a stream another configuration, which counts from then on.
    ///
    /// # Errors
    /// `stream.not_found`, `stream.option`, and those of a commit
    pub fn update(
        &self,
        tenant: &str,
        name: &str,
        config: StreamConfig,
        deadline: &Deadline,
    ) -> Result<()> {
        config.check()?;
        let _alone = guard(&self.admin);
        let core = self.get(tenant, name)?.0;
        let _still = guard(&core.upkeep);
        // What the old limits hid stays hidden.
        let mark = Mark { first: core.first(), unix_ns: core.tail().unix_ns() };
        let row = stream_row(tenant, name);
        let change = Change::new()
            .put(row.clone(), encode(core.id, &config), None)
            .put(mark_row(core.id), mark.encode(), None)
            .require(row, Require::Present);
        self.shared.meta.commit_until(change, deadline)?;
        core.ledger().marked = mark.first;
        core.set_config(config);
        core.age();
        core.watch_over();
        Ok(())
    }

    /// Deletes a stream and its messages; it is gone for good on return. Who reads or publishes is told
    /// `stream.not_found`.
    ///
    /// # Errors
    /// `stream.not_found`, `context.deadline` (detail `outcome`: `unknown`; the stream takes nothing any more),
    /// and those of a commit. Once the stream is gone, what of its messages could not be removed in time
    /// is removed at the next opening.
    pub fn delete(&self, tenant: &str, name: &str, deadline: &Deadline) -> Result<()> {
        let _alone = guard(&self.admin);
        let core = self.get(tenant, name)?.0;
        let _still = guard(&core.upkeep);
        let mut tail = core.tail();
        tail.check()?;
        let (row, mark) = (stream_row(tenant, name), mark_row(core.id));
        let change = Change::new().delete(row.clone()).delete(mark).require(row, Require::Present);
        // Behind everything that is on its way to the stream, and nothing comes behind it.
        let submitted = self.shared.meta.submit(change, deadline)?;
        tail.ended = Some(core.not_found());
        drop(tail);
        if let Err(error) = submitted.wait(deadline) {
            if submitted.outcome().is_some() {
                core.tail().ended = None;
            }
            return Err(error);
        }
        core.news.end();
        self.known.remove(&core);
        self.consumers.forget(core.id);
        let _ = remove_rows(&self.shared.meta, core.id, deadline);
        Ok(())
    }

    /// Publishes a message in every stream of its tenant that takes its subject, all of them in one commit.
    ///
    /// # Errors
    /// `stream.subject` if there is none, and as [`Stream::publish`]: then no stream has it.
    pub fn publish(
        &self,
        envelope: &Envelope,
        message_id: Option<&str>,
        deadline: &Deadline,
    ) -> Result<Vec<Routed>> {
        let mut takers = self.known.takers(envelope);
        let core = match (takers.pop(), takers.is_empty()) {
            (None, _) => return Err(nobody_takes(envelope)),
            (Some(core), true) => core,
            (Some(_), false) => {
                let mut outbox = self.outbox();
                outbox.route(envelope, message_id)?;
                return outbox.commit(Change::new(), deadline);
            }
        };
        let stream = Arc::clone(&core.name);
        let published = Stream(core).publish(envelope, message_id, deadline)?;
        Ok(vec![Routed { stream, published }])
    }

    /// Makes a consumer of a stream.
    ///
    /// # Errors
    /// `stream.option`, `stream.consumer_exists`, `stream.not_found`, those of a commit
    pub fn create_consumer(
        &self,
        stream: &Stream,
        config: ConsumerConfig,
        deadline: &Deadline,
    ) -> Result<Consumer> {
        self.consumers.create(stream, config, deadline)
    }

    /// A consumer that is there.
    ///
    /// # Errors
    /// `stream.consumer_not_found`, `stream.not_found`, those of reading its state
    pub fn consumer(&self, stream: &Stream, name: &str, deadline: &Deadline) -> Result<Consumer> {
        self.consumers.get(stream, name, deadline)
    }

    /// A stream's consumers, by name.
    ///
    /// # Errors
    /// `stream.not_found`, those of reading their states
    pub fn consumers(&self, stream: &Stream, deadline: &Deadline) -> Result<Vec<Consumer>> {
        self.consumers.all(stream, deadline)
    }

    /// Deletes a consumer and its dead letters.
    ///
    /// # Errors
    /// `stream.consumer_not_found`, `stream.not_found`, those of a commit
    pub fn delete_consumer(&self, stream: &Stream, name: &str, deadline: &Deadline) -> Result<()> {
        self.consumers.delete(stream, name, deadline)
    }

    /// True if a stream of `tenant` takes what is announced about `subject`. Cheap: whoever has something to say that takes
    /// work asks first.
    pub fn is_taken(&self, tenant: &str, subject: &Subject) -> bool {
        self.known.is_taken(tenant, subject)
    }

    /// Begins to gather messages that are committed together.
    pub fn outbox(&self) -> Outbox {
        Outbox::new(Arc::clone(&self.known))
    }

    /// Takes nothing more. What is under way is still written: by who waits for it, or, where futures do, before
    /// this returns.
    pub fn close(&self) {
        self.shared.bell.stop();
        let clock = Arc::clone(&self.shared.seams.clock);
        let deadline = Deadline::after(clock, CLOSE_TIME);
        self.known.all().iter().for_each(|core| core.drain(&deadline));
        let closed = Error::new(&codes::STORE_CLOSED, "the streams are closed");
        self.known.all().iter().for_each(|core| core.end(&closed));
        // Behind every answer that was taken. What fails here is delivered once more.
        let _ = self.consumers.flush(&deadline);
        self.consumers.clear();
        let thread = guard(&self.thread).take();
        if let Some(thread) = thread.filter(|thread| thread.thread().id() != thread::current().id())
        {
            let _ = thread.join();
        }
    }
}

pub(crate) fn nobody_takes(envelope: &Envelope) -> Error {
    let text = format!("no stream takes {}", envelope.subject());
    Error::new(&codes::STREAM_SUBJECT, text).with("subject", envelope.subject())
}

/// The rows of all streams.
fn rows(meta: &Meta) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
    use std::ops::Bound::{Excluded, Included};
    let (from, to) = keys::STREAM_ROWS;
    let rows = meta.range(Included(from), Excluded(to), usize::MAX)?;
    Ok(rows.into_iter().map(|(key, row)| (key, row.body.to_vec())).collect())
}

fn encode(id: u64, config: &StreamConfig) -> Vec<u8> {
    let mut writer = Writer::new();
    writer.u64(id);
    config.encode(&mut writer);
    writer.finish()
}

fn decode(body: &[u8]) -> Result<(u64, StreamConfig)> {
    let mut reader = Reader::new(body, "a stream's row");
    let found = (reader.u64()?, StreamConfig::decode(&mut reader)?);
    reader.end()?;
    Ok(found)
}

impl Drop for Streams {
    fn drop(&mut self) {
        self.close();
    }
}

impl fmt::Debug for Streams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.known.all().iter().map(|core| core.name.to_string()).collect::<Vec<_>>();
        f.debug_struct("Streams").field("known", &names).finish_non_exhaustive()
    }
}
