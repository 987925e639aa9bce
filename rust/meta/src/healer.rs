//! The healer: brings drives that were away up to date, and makes weak stripes safer, while others work.
//!
//! An opening heals for a moment itself, which is enough for most; what takes longer goes on here, on a
//! thread that ends with the work. Whoever repairs by hand comes first: healing pauses for it. All of it is
//! idempotent and can end at any stripe.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use dwk_base::{Deadline, Result};
use dwk_pool::{Control, State as DriveState};

use crate::meta::Meta;

/// The thread and who keeps it from working.
#[derive(Debug, Default)]
pub(crate) struct Healer {
    state: Mutex<State>,
    ended: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Of the work that goes on.
    working: Option<Arc<Work>>,
    thread: Option<JoinHandle<()>>,
    /// How many repairs it gives way to.
    paused: usize,
    /// It was interrupted and goes on when nobody repairs any more.
    wanted: bool,
    closed: bool,
}

/// One run.
struct Work {
    control: Control,
    /// Millionths that are done.
    done: Arc<AtomicU64>,
}

const WHOLE: f64 = 1e6;

/// Healing waits until this is dropped.
#[derive(Debug)]
#[must_use = "healing goes on when it is dropped"]
pub struct Paused<'a>(&'a Meta);

impl Healer {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Goes on with what an opening began, on a thread.
    pub(crate) fn start(&self, meta: &Meta) {
        let mut state = self.lock();
        if state.closed || state.working.is_some() {
            return;
        }
        if state.paused > 0 {
            state.wanted = true;
            return;
        }
        let (me, work) = (meta.downgrade(), Arc::new(Work::new()));
        let mine = Arc::clone(&work);
        let heal = move || {
            let Some(meta) = me.upgrade() else { return };
            meta.heal(&mine.control);
            meta.healer.end();
        };
        // Without a thread the next opening goes on, or whoever rebuilds.
        if let Ok(thread) = thread::Builder::new().name("dwk-healer".to_owned()).spawn(heal) {
            state.thread = Some(thread);
            state.working = Some(work);
        }
    }

    fn end(&self) {
        let mut state = self.lock();
        state.wanted |= state.paused > 0;
        state.working = None;
        drop(state);
        self.ended.notify_all();
    }

    /// The part that is done, 0 to 1, while it works.
    pub(crate) fn fraction(&self) -> Option<f64> {
        let state = self.lock();
        let work = state.working.as_ref()?;
        Some(work.done.load(Ordering::Relaxed) as f64 / WHOLE)
    }

    /// Ends it for good.
    pub(crate) fn halt(&self) {
        let mut state = self.lock();
        state.closed = true;
        if let Some(work) = &state.working {
            work.control.cancel();
        }
        let thread = state.thread.take();
        drop(state);
        if let Some(thread) = thread.filter(|thread| thread.thread().id() != thread::current().id())
        {
            let _ = thread.join();
        }
    }
}

impl Work {
    fn new() -> Self {
        let done = Arc::new(AtomicU64::new(0));
        let told = Arc::clone(&done);
        let control = Control::new().on_progress(move |progress| {
            // Who goes on begins at the beginning.
            told.fetch_max((progress.fraction * WHOLE) as u64, Ordering::Relaxed);
        });
        Self { control, done }
    }
}

impl fmt::Debug for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Work({} millionths)", self.done.load(Ordering::Relaxed))
    }
}

impl Meta {
    /// Brings drives that were away up to date and makes weak stripes safer, as far as that is possible now:
    /// status says what is left.
    pub(crate) fn heal(&self, control: &Control) {
        let _ = self.pool().heal(self, control);
    }

    /// Heals until then, and leaves the rest to the healer.
    pub(crate) fn heal_until(&self, deadline: &Deadline) {
        let (told, waiting) = (AtomicU64::new(0), deadline.clone());
        let control = Control::new().until(deadline.clone()).on_progress(move |progress| {
            let bytes = progress.read_bytes + progress.written_bytes;
            waiting.tell(bytes.saturating_sub(told.fetch_max(bytes, Ordering::Relaxed)));
        });
        self.heal(&control);
        if deadline.is_unwanted() {
            return;
        }
        let stale = |seat: &Arc<dwk_pool::Seat>| seat.state == DriveState::Stale;
        let is_stale = self.pool().roster().seats.iter().any(stale);
        let is_weak = || self.pool().space().weak_stripes(self).is_ok_and(|weak| weak > 0);
        if deadline.has_passed() && (is_stale || is_weak()) {
            self.healer.start(self);
        }
    }

    /// How far healing is, 0 to 1; `None` while nothing heals.
    pub fn healing(&self) -> Option<f64> {
        self.healer.fraction()
    }

    /// Has healing pause, for a repair that somebody wants now.
    ///
    /// # Errors
    /// `context.deadline`
    pub fn pause_healing(&self, deadline: &Deadline) -> Result<Paused<'_>> {
        let mut state = self.healer.lock();
        state.paused += 1;
        let paused = Paused(self);
        if let Some(work) = &state.working {
            work.control.cancel();
        }
        while state.working.is_some() {
            if deadline.has_passed() {
                // Before what was announced is taken back.
                drop(state);
                return Err(Deadline::passed("a repair that goes on by itself has not ended yet"));
            }
            let waited = self.healer.ended.wait_timeout(state, deadline.remaining());
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        Ok(paused)
    }
}

impl Drop for Paused<'_> {
    fn drop(&mut self) {
        let healer = &self.0.healer;
        let mut state = healer.lock();
        state.paused -= 1;
        let goes_on = state.paused == 0 && std::mem::take(&mut state.wanted);
        drop(state);
        if goes_on {
            healer.start(self.0);
        }
    }
}
