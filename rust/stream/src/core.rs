//! One stream, as everybody shares it: how messages get in, and what is known of those that are there.
//!
//! Locks are taken in this order: the upkeep's, tails (in the order of streams' numbers), the ledger's.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use dwk_base::{Clock, Deadline, Error, Result, Seams, codes};
use dwk_meta::{Change, Meta};

use crate::bell::Bell;
use crate::config::{Discard, StreamConfig};
use crate::delayed;
use crate::frames::Frames;
use crate::keys::frame_row;
use crate::ledger::{Ledger, Urgency};
use crate::line::{Line, Publishing};
use crate::mark::Mark;
use crate::news::News;
use crate::options::Options;
use crate::read::read_all;
use crate::sync::guard;
use crate::tail::{Flight, Item, Plan, Published, Room, Tail};
use crate::upkeep::Upkeep;
use crate::window::{self, Limits, Window};

/// What is not urgent is done after a second.
const LATER_NS: u64 = 1_000_000_000;

/// What all streams of a store share.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) meta: Arc<Meta>,
    pub(crate) seams: Seams,
    pub(crate) options: Options,
    pub(crate) bell: Arc<Bell>,
}

/// One stream.
pub(crate) struct Core {
    pub(crate) id: u64,
    pub(crate) tenant: Arc<str>,
    pub(crate) name: Arc<str>,
    pub(crate) shared: Shared,
    pub(crate) frames: Frames,
    config: RwLock<Arc<StreamConfig>>,
    tail: Mutex<Tail>,
    ledger: Mutex<Ledger>,
    /// As the ledger has it; for readers.
    first: AtomicU64,
    line: Arc<Line>,
    pub(crate) news: Arc<News>,
    /// Held by whoever replaces rows of messages.
    pub(crate) upkeep: Mutex<Upkeep>,
    /// Why the last upkeep failed, if it did.
    pub(crate) failed: Mutex<Option<Error>>,
    /// Messages that are not due yet; one that may be there or not counts.
    pub(crate) delayed: AtomicU64,
}

/// Messages that were submitted.
#[derive(Debug)]
pub(crate) struct Sent {
    pub(crate) outcomes: Vec<Result<Published>>,
    flight: Option<Arc<Flight>>,
}

impl Core {
    /// A stream as the map has it: what lies there is counted, and what is in the window is read.
    ///
    /// # Errors
    /// Those of reading rows and frames.
    pub(crate) fn load(
        shared: Shared,
        id: u64,
        (tenant, name): (&str, &str),
        config: StreamConfig,
    ) -> Result<Arc<Self>> {
        let frames = Frames { meta: Arc::clone(&shared.meta), id };
        let mark = Mark::load(&shared.meta, id)?;
        let ledger = Ledger::load(&frames, mark.first)?;
        let unix_ns = ledger.last_unix_ns.max(mark.unix_ns);
        let limits = limits(&config);
        let now = unix_ns.max(shared.seams.clock.unix_ns());
        let window = load_window(&frames, limits, now)?;
        let delayed = delayed::count(&shared.meta, id)?;
        let news = Arc::new(News::default());
        news.ring(ledger.next);
        let core = Arc::new_cyclic(|core| Self {
            id,
            tenant: tenant.into(),
            name: name.into(),
            shared,
            frames,
            config: RwLock::new(Arc::new(config)),
            tail: Mutex::new(Tail::new(ledger.next, unix_ns, window)),
            first: AtomicU64::new(ledger.first),
            ledger: Mutex::new(ledger),
            line: Line::new(core),
            news,
            upkeep: Mutex::default(),
            failed: Mutex::default(),
            delayed: AtomicU64::new(delayed),
        });
        core.enforce(&mut core.ledger());
        core.watch_over();
        Ok(core)
    }

    pub(crate) fn config(&self) -> Arc<StreamConfig> {
        Arc::clone(&self.config.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn set_config(&self, config: StreamConfig) {
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(config);
    }

    pub(crate) fn tail(&self) -> MutexGuard<'_, Tail> {
        guard(&self.tail)
    }

    pub(crate) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        guard(&self.ledger)
    }

    /// The first message that is shown, or would be.
    pub(crate) fn first(&self) -> u64 {
        self.first.load(Ordering::Acquire)
    }

    pub(crate) fn clock(&self) -> &Arc<dyn Clock> {
        &self.shared.seams.clock
    }

    pub(crate) fn limits(&self) -> Limits {
        limits(&self.config())
    }

    /// Publishes in one batch with others.
    ///
    /// # Errors
    /// As [`Line::publish`].
    pub(crate) fn publish(
        &self,
        items: Vec<Option<Item>>,
        deadline: &Deadline,
    ) -> Result<Vec<Result<Published>>> {
        self.line.publish(self, items, self.shared.options.batch_bytes_max, deadline)
    }

    /// [`publish`](Self::publish) as a future.
    pub(crate) fn publish_async(self: &Arc<Self>, items: Vec<Option<Item>>) -> Publishing {
        self.line.publish_async(self, items, self.shared.options.batch_bytes_max)
    }

    /// Waits until what stands in line is written, but no longer than the deadline.
    pub(crate) fn drain(&self, deadline: &Deadline) {
        self.line.drain(deadline);
    }

    /// Submits a batch.
    ///
    /// # Errors
    /// Those of [`Meta::submit`]; `stream.not_found` if it was deleted. Nothing was written then.
    pub(crate) fn send(&self, items: &[Option<Item>], deadline: &Deadline) -> Result<Sent> {
        let mut tail = self.tail();
        let plan = self.plan(&mut tail, items)?;
        if plan.frame.is_none() {
            return Ok(Sent { outcomes: plan.outcomes, flight: plan.waits_for });
        }
        let submitted = self
            .stage(Change::new(), &plan, deadline)
            .and_then(|change| self.shared.meta.submit(change, deadline));
        match submitted {
            Ok(submitted) => {
                let flight = tail.submitted(&plan, Arc::new(submitted));
                Ok(Sent { outcomes: plan.outcomes, flight })
            }
            Err(error) => {
                tail.undo(&plan);
                Err(error)
            }
        }
    }

    /// Gives numbers to `items`.
    ///
    /// # Errors
    /// `stream.not_found` if it was deleted, `store.closed`
    pub(crate) fn plan(&self, tail: &mut Tail, items: &[Option<Item>]) -> Result<Plan> {
        self.settle(tail);
        tail.check()?;
        let config = self.config();
        let room = self.room(tail, &config);
        Ok(tail.plan(items, self.clock().unix_ns(), limits(&config), room))
    }

    /// What has room in a stream that refuses what is new.
    fn room(&self, tail: &Tail, config: &StreamConfig) -> Room {
        if config.discard == Discard::Old {
            return Room { messages: u64::MAX, bytes: u64::MAX };
        }
        let shown = self.ledger().shown();
        let (messages, bytes) = tail.under_way();
        let left =
            |max: Option<u64>, taken: u64| max.map_or(u64::MAX, |max| max.saturating_sub(taken));
        Room {
            messages: left(config.max_messages, shown.messages + messages),
            bytes: left(config.max_bytes, shown.bytes + bytes),
        }
    }

    /// Adds the frame of a plan to a change.
    ///
    /// # Errors
    /// Those of an upload.
    pub(crate) fn stage(&self, change: Change, plan: &Plan, deadline: &Deadline) -> Result<Change> {
        let Some((header, content)) = &plan.frame else { return Ok(change) };
        let inline_max = self.shared.options.inline_bytes_max;
        let mut upload = self.shared.meta.upload_until(deadline).with_inline_max(inline_max);
        upload.append(content)?;
        let row = frame_row(self.id, header.first);
        Ok(change.put(row, header.encode(), Some(upload.finish()?)))
    }

    /// Waits until what was sent is durable.
    ///
    /// # Errors
    /// Those of [`Submitted::wait`](dwk_meta::Submitted::wait)
    pub(crate) fn arrive(&self, sent: &Sent, deadline: &Deadline) -> Result<()> {
        let Some(flight) = &sent.flight else { return Ok(()) };
        let done = flight.submitted.wait(deadline);
        self.settle(&mut self.tail());
        done.map(drop).inspect_err(|_| self.look_later())
    }

    /// Somebody may have left what is on its way: in a while it is looked what became of it.
    pub(crate) fn look_later(&self) {
        let later = self.clock().unix_ns().saturating_add(LATER_NS);
        self.shared.bell.ring_at(self.id, later);
    }

    /// Takes into account what arrived, and what failed.
    pub(crate) fn settle(&self, tail: &mut Tail) {
        let arrived = tail.settle();
        if arrived.frames == 0 {
            return;
        }
        let mut ledger = self.ledger();
        ledger.arrived(arrived);
        self.enforce(&mut ledger);
        drop(ledger);
        self.news.ring(arrived.next);
        self.watch_over();
    }

    /// Hides what the limits let go. What cannot be looked at stays, and is tried again with the next
    /// message; the upkeep tells of it.
    fn enforce(&self, ledger: &mut Ledger) {
        let config = self.config();
        let now = self.clock().unix_ns();
        if let Ok(to) = ledger.due(&self.frames, &config, now) {
            let _ = ledger.hide(&self.frames, to);
        }
        self.first.store(ledger.first, Ordering::Release);
    }

    /// Hides what is old now.
    pub(crate) fn age(&self) {
        self.enforce(&mut self.ledger());
    }

    /// Hides what is before `to`.
    ///
    /// # Errors
    /// Those of reading rows.
    pub(crate) fn hide(&self, to: u64) -> Result<()> {
        let mut ledger = self.ledger();
        let hidden = ledger.hide(&self.frames, to);
        self.first.store(ledger.first, Ordering::Release);
        hidden
    }

    /// Rings for what has to be done, now or later.
    pub(crate) fn watch_over(&self) {
        let bell = &self.shared.bell;
        // What is overdue was tried, or is being tried, and is tried again in a while.
        let now = self.clock().unix_ns();
        let later = now.saturating_add(LATER_NS);
        match self.ledger().urgency(&self.shared.options) {
            Urgency::Now => bell.ring(self.id),
            Urgency::Later => bell.ring_at(self.id, later),
            Urgency::Never => {}
        }
        let not_before = |unix_ns: u64| if unix_ns > now { unix_ns } else { later };
        if let Ok(Some(due)) = self.next_due() {
            bell.ring_at(self.id, not_before(due));
        }
        if let Some(age) = self.config().max_age
            && let Ok(Some(oldest)) = self.frames.around(self.first())
        {
            let age = u64::try_from(age.as_nanos()).unwrap_or(u64::MAX);
            let old = oldest.last_unix_ns.saturating_add(age).saturating_add(1);
            bell.ring_at(self.id, not_before(old));
        }
    }

    /// Nothing is taken any more, because of `why`.
    pub(crate) fn end(&self, why: &Error) {
        self.tail().ended.get_or_insert_with(|| why.clone());
        self.news.end();
    }

    /// Fails if the stream was deleted or closed.
    ///
    /// # Errors
    /// `stream.not_found`, `store.closed`
    pub(crate) fn check(&self) -> Result<()> {
        self.tail().check()
    }

    pub(crate) fn not_found(&self) -> Error {
        not_found(&self.name)
    }
}

pub(crate) fn not_found(name: &str) -> Error {
    Error::new(&codes::STREAM_NOT_FOUND, format!("no stream {name}")).with("stream", name)
}

fn limits(config: &StreamConfig) -> Limits {
    Limits { window: config.duplicate_window, ids_max: config.duplicate_ids_max as usize }
}

/// The identities of messages in the window. Those of a frame that cannot be read are not known: the window
/// is short then.
fn load_window(frames: &Frames, limits: Limits, now_unix_ns: u64) -> Result<Window> {
    let (mut window, begin) = (Window::default(), limits.begin(now_unix_ns));
    frames.visit(0, &mut |known| {
        let header = known.header;
        if header.ids > 0 && header.last_unix_ns >= begin && !limits.window.is_zero() {
            let loaded = read_all(frames, header.first, &Deadline::never(), &mut |entry| {
                if let Some(id) = entry.message_id.filter(|_| entry.unix_ns >= begin) {
                    window.add(window::id_of(id), entry.sequence, entry.unix_ns);
                }
                Ok(())
            });
            if loaded.is_err() {
                window.lost(header.last_unix_ns);
            }
            window.trim(limits, now_unix_ns);
        }
        Ok(true)
    })?;
    Ok(window)
}

impl fmt::Debug for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Core").field("name", &self.name).finish_non_exhaustive()
    }
}
