//! One consumer, as all who use it share it: reading ahead and saving.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use dwk_base::{Deadline, Error, Result, codes};
use dwk_meta::{Change, Require, Staged};

use super::registry::Registry;
use super::{LAZY, LOOK, not_found};
use crate::consumer::{ConsumerConfig, Delivered, Engine};
use crate::core::Core;
use crate::keys::consumer_row;
use crate::read::{Cursor, From, Stored};
use crate::stream::Stream;
use crate::sync::guard;

/// So many bytes of messages are read at a time.
const READ_BYTES: usize = 1 << 20;
/// While a message is out it is not asked more often whether nobody uses the consumer.
const OUT_LOOK: Duration = Duration::from_millis(100);
/// What is longer goes into stripes.
const INLINE_BYTES_MAX: usize = 64 << 10;

/// One consumer.
pub(crate) struct Inner {
    pub(super) core: Arc<Core>,
    pub(super) config: ConsumerConfig,
    state: Mutex<State>,
    /// Held by who saves, so that saves come in the order of their versions.
    saver: Mutex<()>,
    /// Held by who buries and by who redrives.
    gravedigger: Mutex<()>,
    pub(super) registry: Arc<Registry>,
}

/// What changes.
pub(super) struct State {
    pub(super) engine: Engine,
    /// What was read ahead and is wanted, by number.
    pub(super) ahead: BTreeMap<u64, Stored>,
    cursor: Option<Cursor>,
    /// The stream's first message, as the engine knows it.
    first: u64,
    saved_ns: u64,
    /// Nobody here needs the messages up to it any more, and that is durable.
    done_to: u64,
    /// Why it is over.
    ended: Option<Error>,
}

impl Inner {
    pub(super) fn new(
        core: &Arc<Core>,
        config: ConsumerConfig,
        engine: Engine,
        registry: &Arc<Registry>,
    ) -> Self {
        let (ahead, saved_ns) = (BTreeMap::new(), core.clock().unix_ns());
        let done_to = engine.done_to();
        let state = State { engine, ahead, cursor: None, first: 1, saved_ns, done_to, ended: None };
        let (core, registry) = (Arc::clone(core), Arc::clone(registry));
        let (saver, gravedigger) = (Mutex::default(), Mutex::default());
        Self { core, config, state: Mutex::new(state), saver, gravedigger, registry }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        guard(&self.state)
    }

    /// While it is held nobody saves.
    pub(super) fn unsaving(&self) -> MutexGuard<'_, ()> {
        guard(&self.saver)
    }

    /// While it is held nobody else buries or redrives.
    pub(super) fn at_the_graves(&self) -> MutexGuard<'_, ()> {
        guard(&self.gravedigger)
    }

    /// The state, if an answer that is taken now can still be saved.
    ///
    /// # Errors
    /// `stream.consumer_not_found` if it was deleted, `stream.not_found`, `store.closed`
    pub(super) fn alive(&self) -> Result<MutexGuard<'_, State>> {
        let state = self.state();
        state.check(self)?;
        Ok(state)
    }

    pub(super) fn stream(&self) -> Stream {
        Stream(Arc::clone(&self.core))
    }

    pub(super) fn now(&self) -> u64 {
        self.core.clock().unix_ns()
    }

    /// Up to where the stream may let go what it has, as far as this consumer goes.
    pub(super) fn done_to(&self) -> u64 {
        let state = self.state();
        // What was redriven since the last save is needed again.
        state.done_to.min(state.engine.done_to())
    }

    /// Says that it is over: nothing is handed out or saved any more.
    pub(super) fn end(&self) {
        self.state().ended = Some(not_found(&self.config.name));
        self.core.news.nudge();
    }

    /// Ends it if nobody used it for as long as it may be so: nobody begins to from here on.
    pub(super) fn end_if_inactive(&self) -> bool {
        let (mut state, now) = (self.state(), self.now());
        let is_over = state.engine.inactive_at().is_some_and(|at| at <= now);
        if is_over && state.ended.is_none() {
            state.ended = Some(not_found(&self.config.name));
            return true;
        }
        false
    }

    /// It could not be removed, and goes on.
    pub(super) fn go_on(&self) {
        self.state().ended = None;
    }

    /// When to look whether nobody uses it any more.
    pub(super) fn look_at(&self) -> u64 {
        let after = self.config.inactive_after.unwrap_or_default().max(OUT_LOOK);
        // While a message of it is out it stays; nobody says when that one comes back.
        let later =
            || self.now().saturating_add(u64::try_from(after.as_nanos()).unwrap_or(u64::MAX));
        self.state().engine.inactive_at().unwrap_or_else(later)
    }

    /// How long a fetch that found nothing waits for news.
    pub(super) fn until(&self, deadline: &Deadline, due_ns: Option<u64>) -> Deadline {
        let mut wait = deadline.remaining();
        if let Some(due_ns) = due_ns {
            // It may be in the past, of a consumer that is paused.
            let due = Duration::from_nanos(due_ns.saturating_sub(self.now()));
            wait = wait.min(due.max(LOOK));
        }
        if let Some(after) = self.config.inactive_after {
            // Who waits uses it, and says so in time.
            wait = wait.min((after / 2).max(Duration::from_millis(1)));
        }
        if self.state().engine.status(0).out > 0 {
            wait = wait.min(LOOK);
        }
        Deadline::after(Arc::clone(self.core.clock()), wait)
    }

    /// The message of that number, if the stream has it.
    pub(super) fn find(&self, sequence: u64, deadline: &Deadline) -> Result<Option<Stored>> {
        let found = self.stream().read(sequence, 1, 1, deadline)?;
        Ok(found.into_iter().find(|stored| stored.sequence == sequence))
    }

    /// Saves if something waits for it.
    pub(super) fn save_if_it_must(&self, deadline: &Deadline) -> Result<()> {
        if self.state().engine.must_save() { self.save(deadline) } else { Ok(()) }
    }

    /// What was `delivered` does not leave: it comes again.
    pub(super) fn withdraw(&self, delivered: &[Delivered]) {
        let (mut state, now) = (self.state(), self.now());
        for one in delivered {
            // Its time may be over by now: then it comes again by itself.
            let _ = state.engine.withdraw(one.token, now);
        }
    }

    /// What is to be a row's content; short enough for a record if it is not in stripes.
    pub(super) fn upload(&self, deadline: &Deadline, content: &[u8]) -> Result<Staged> {
        let shared = &self.core.shared;
        let mut upload = shared.meta.upload_until(deadline);
        upload = upload.with_inline_max(shared.options.inline_bytes_max.min(INLINE_BYTES_MAX));
        upload.append(content)?;
        upload.finish()
    }

    /// Saves if the last save was a while ago.
    pub(super) fn save_lazily(&self, deadline: &Deadline) -> Result<()> {
        let lazy_ns = LAZY.as_nanos() as u64;
        let saved_ns = self.state().saved_ns;
        if self.now().saturating_sub(saved_ns) < lazy_ns { Ok(()) } else { self.save(deadline) }
    }

    /// Makes the state durable; who comes while another one saves finds it saved, or saves for all others.
    pub(super) fn save(&self, deadline: &Deadline) -> Result<()> {
        self.save_and_delete(&self.unsaving(), None, deadline)
    }

    /// [`save`](Self::save), and a row goes in the same commit.
    pub(super) fn save_and_delete(
        &self,
        _alone: &MutexGuard<'_, ()>,
        goes: Option<Vec<u8>>,
        deadline: &Deadline,
    ) -> Result<()> {
        let (snapshot, done_to) = {
            let state = self.state();
            if let Some(ended) = &state.ended {
                return Err(ended.clone());
            }
            if goes.is_none() && !state.engine.is_unsaved() {
                return Ok(());
            }
            (state.engine.snapshot(), state.engine.done_to())
        };
        let row = self.row();
        let change = Change::new().require(row.clone(), Require::Present);
        let change = goes.into_iter().fold(change, Change::delete);
        let saved = self.commit(change, row, &snapshot.bytes, deadline);
        saved.map_err(|error| self.or_not_found(error))?;
        let mut state = self.state();
        state.engine.saved(snapshot.version);
        (state.saved_ns, state.done_to) = (self.now(), done_to);
        drop(state);
        self.registry.release(&self.core)
    }

    pub(super) fn row(&self) -> Vec<u8> {
        consumer_row(self.core.id, &self.config.name)
    }

    /// What a commit that requires the consumer's row says.
    pub(super) fn or_not_found(&self, error: Error) -> Error {
        if error.is(&codes::OBJECT_CONFLICT) { not_found(&self.config.name) } else { error }
    }

    /// Writes the consumer's row.
    pub(super) fn commit(
        &self,
        change: Change,
        row: Vec<u8>,
        snapshot: &[u8],
        deadline: &Deadline,
    ) -> Result<()> {
        let staged = self.upload(deadline, snapshot)?;
        let change = change.put(row, self.config.encode(), Some(staged));
        self.core.shared.meta.commit_until(change, deadline).map(drop)
    }
}

impl State {
    /// Reads ahead what the engine wants.
    pub(super) fn feed(&mut self, inner: &Inner, deadline: &Deadline) -> Result<()> {
        self.check(inner)?;
        self.let_go(inner);
        while let Some(wanted) = self.engine.wants() {
            let end = inner.core.ledger().next;
            let cursor = self.cursor_at(inner, wanted.sequence)?;
            let read = cursor.next_many(wanted.count, READ_BYTES, deadline)?;
            if read.is_empty() {
                // What was committed up to here, and is not read, went.
                if wanted.sequence < end {
                    self.engine.gone(wanted.sequence..=end - 1);
                }
                break;
            }
            let brief = |stored: &Stored| inner.config.brief(stored.sequence, &stored.envelope);
            let briefs: Vec<_> = read.iter().map(brief).collect();
            self.engine.offered(wanted.sequence, &briefs);
            let wanted = read.into_iter().zip(briefs).filter(|(_, brief)| brief.matches);
            self.ahead.extend(wanted.map(|(stored, _)| (stored.sequence, stored)));
        }
        Ok(())
    }

    /// Passes over what cannot be read.
    pub(super) fn skip(&mut self, inner: &Inner, deadline: &Deadline) -> Result<u64> {
        self.check(inner)?;
        self.let_go(inner);
        let Some(wanted) = self.engine.wants() else { return Ok(self.engine.floor() + 1) };
        let cursor = self.cursor_at(inner, wanted.sequence)?;
        let read = cursor.next_many(1, 1, deadline);
        match read {
            Err(error) if crate::read::is_unreadable(&error) => {
                let next = cursor.skip();
                self.engine.gone(wanted.sequence..=next.saturating_sub(1));
                Ok(next)
            }
            Err(error) => Err(error),
            Ok(_) => {
                // What was read is read again.
                self.cursor = None;
                Ok(wanted.sequence)
            }
        }
    }

    /// Fails if it is over.
    fn check(&self, inner: &Inner) -> Result<()> {
        self.ended.as_ref().map_or_else(|| inner.core.check(), |ended| Err(ended.clone()))
    }

    /// What the stream let go is done.
    fn let_go(&mut self, inner: &Inner) {
        let first = inner.core.first();
        if first > self.first {
            self.engine.gone(self.first..=first - 1);
            self.ahead = self.ahead.split_off(&first);
            self.first = first;
        }
    }

    fn cursor_at(&mut self, inner: &Inner, sequence: u64) -> Result<&mut Cursor> {
        let fits = self.cursor.as_ref().is_some_and(|cursor| cursor.position() == sequence);
        let cursor = match self.cursor.take().filter(|_| fits) {
            Some(cursor) => cursor,
            None => inner.stream().cursor(From::Sequence(sequence))?,
        };
        Ok(self.cursor.insert(cursor))
    }
}
