//! The herald: says what became of drives and of repairs, once, also over a crash.
//!
//! What was said last is in a row of the map. When the pool's roster changes, and when a store is opened, the
//! herald compares, and commits the events together with the row. Its thread exists while there is something to
//! say.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::thread;
use std::time::Duration;

use dwk_base::{Deadline, Result};
use dwk_meta::{Change, Meta};
use dwk_pool::Roster;

use super::known::{KEY, Known};
use super::{Audience, Event};
use crate::Context;
use crate::kernel::Opened;

/// How long one commit may take.
const COMMIT_TIME: Duration = Duration::from_secs(30);
/// After the first failure; twice as long after each further one.
const PATIENCE: Duration = Duration::from_secs(1);
/// No longer than this.
const PATIENCE_MAX: Duration = Duration::from_mins(1);
/// So many events of repairs wait for a stream to take them; more are forgotten, the oldest first.
const WAITING_MAX: usize = 100;

/// What is to be said, and who says it.
pub(crate) struct Herald {
    /// Whom it speaks for; none in a store that is only read.
    store: OnceLock<Weak<Opened>>,
    state: Mutex<State>,
    changed: Condvar,
    /// Held by who speaks, so that everything is said in its order.
    speaking: Mutex<Known>,
}

#[derive(Default)]
struct State {
    /// The drives may be others than was said.
    wanted: bool,
    running: bool,
    closing: bool,
    /// Events of repairs that no stream has taken yet.
    waiting: Vec<(Event, Option<Context>)>,
}

impl Herald {
    /// Goes on from what was said last.
    pub(crate) fn new(meta: &Meta, roster: &Roster) -> Self {
        // A row that cannot be read is as good as none.
        let said = meta.get(KEY).ok().flatten().and_then(|row| Known::decode(&row.body).ok());
        let known = said.unwrap_or_else(|| Known::well(roster));
        let (store, state, changed) = (OnceLock::new(), Mutex::default(), Condvar::new());
        Self { store, state, changed, speaking: Mutex::new(known) }
    }

    /// Speaks from now on, unless the store is only read.
    pub(crate) fn begin(store: &Arc<Opened>) {
        if store.pool.check_writable().is_err() {
            return;
        }
        let weak = Arc::downgrade(store);
        let _ = store.herald.store.set(Weak::clone(&weak));
        store.pool.on_change(move || {
            if let Some(store) = weak.upgrade() {
                store.herald.stir();
            }
        });
        if !guard(&store.herald.speaking).news(&store.pool.roster()).is_empty() {
            store.herald.stir();
        }
    }

    /// Makes it durable which drives there are, so that a further one is noticed as such after any crash.
    ///
    /// # Errors
    /// Those of a commit.
    pub(crate) fn note(&self, store: &Opened, deadline: &Deadline) -> Result<()> {
        let known = guard(&self.speaking);
        if store.meta.get(KEY)?.is_none() {
            store
                .meta
                .commit_until(Change::new().put(KEY.to_vec(), known.encode(), None), deadline)?;
        }
        Ok(())
    }

    /// Says soon, on a thread of its own, what there is to say. Called under the pool's locks.
    fn stir(&self) {
        let Some(store) = self.store.get().and_then(Weak::upgrade) else { return };
        let mut state = guard(&self.state);
        state.wanted = true;
        if state.running || state.closing {
            return;
        }
        let speak = move || store.herald.speak(&store);
        state.running = thread::Builder::new().name("dwk-herald".to_owned()).spawn(speak).is_ok();
    }

    /// Says that a repair ended: committed on return, or soon, if no stream takes it now.
    pub(crate) fn tell(&self, store: &Opened, event: Event, context: &Context) {
        let mut state = guard(&self.state);
        if state.waiting.len() >= WAITING_MAX {
            state.waiting.remove(0);
        }
        state.waiting.push((event, Some(context.clone())));
        drop(state);
        if self.say(store).is_err() {
            self.stir();
        }
    }

    /// Says nothing more; what is not said yet about drives is said at the next opening.
    pub(crate) fn close(&self) {
        let mut state = guard(&self.state);
        state.closing = true;
        self.changed.notify_all();
        while state.running {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Until everything is said.
    fn speak(&self, store: &Opened) {
        let mut patience = PATIENCE;
        loop {
            let mut state = guard(&self.state);
            if state.closing || !state.wanted {
                state.running = false;
                self.changed.notify_all();
                return;
            }
            state.wanted = false;
            drop(state);
            if crate::door::caught(|| self.say(store)).is_ok() {
                patience = PATIENCE;
                continue;
            }
            let mut state = guard(&self.state);
            state.wanted = true;
            let idle = |state: &mut State| !state.closing;
            drop(self.changed.wait_timeout_while(state, patience, idle));
            patience = (patience * 2).min(PATIENCE_MAX);
        }
    }

    /// Says what there is to say, in one commit.
    fn say(&self, store: &Opened) -> Result<()> {
        let mut known = guard(&self.speaking);
        let roster = store.pool.roster();
        let drives = known.news(&roster).into_iter().map(|event| (event, None));
        let repairs = guard(&self.state).waiting.clone();
        let (repaired, is_new) = (repairs.len(), drives.len() > 0);
        let mut outbox = store.streams.outbox();
        let mut told = Vec::new();
        for (event, context) in drives.chain(repairs) {
            if let Some(audience) = Audience::of(store, "", &event.subject) {
                told.push(audience.add(&mut outbox, event, context.as_ref())?);
            }
        }
        let now = Known::now(&roster);
        let mut change = Change::new();
        if is_new {
            change = change.put(KEY.to_vec(), now.encode(), None);
        }
        if is_new || !outbox.is_empty() {
            let clock = Arc::clone(&store.pool.seams().clock);
            outbox.commit(change, &Deadline::after(clock, COMMIT_TIME))?;
        }
        *known = now;
        guard(&self.state).waiting.drain(..repaired);
        for (audience, envelope) in told {
            audience.hear(envelope);
        }
        Ok(())
    }
}

fn guard<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
