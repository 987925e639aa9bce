//! Watches over handlers that have a time limit.
//!
//! A thread cannot be stopped from outside, but what it does to others can: who waits for the message is told,
//! and so is whoever asked to be. One thread watches for the whole bus, while there is somebody to watch.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, Weak};
use std::time::Duration;

use dwk_base::{Clock, Error, codes};

use crate::Envelope;
use crate::core::Core;
use crate::receipt::Place;
use crate::subscription::Delivery;
use crate::sync::{guard, wait};

/// The watchdog looks no more often than this.
const LOOK_MIN: Duration = Duration::from_millis(1);

/// Something that went wrong in a handler.
#[derive(Clone, Debug)]
pub enum Event {
    /// It failed or panicked.
    Failed {
        /// The message that it had.
        envelope: Envelope,
        /// `bus.handler`, or what it failed with.
        error: Error,
    },
    /// It is over its time limit, and still runs.
    Overdue {
        /// The message that it has.
        envelope: Envelope,
        /// For how long it has it.
        elapsed: Duration,
    },
}

/// Who is told of events; called on the worker's or the watchdog's thread, so it must not wait.
pub type OnEvent = Arc<dyn Fn(&Event) + Send + Sync>;

/// Tells of an event. A panic there ends there.
pub(crate) fn tell(on_event: Option<&OnEvent>, event: &Event) {
    if let Some(on_event) = on_event {
        let _ = catch_unwind(AssertUnwindSafe(|| on_event(event)));
    }
}

/// A worker with a time limit.
pub(crate) struct Watched {
    pub core: Arc<Core>,
    pub limit: Duration,
    pub on_event: Option<OnEvent>,
    busy: Mutex<Option<Busy>>,
}

/// What a worker does.
struct Busy {
    since: Duration,
    envelope: Envelope,
    place: Option<Place>,
    reported: bool,
}

impl Watched {
    pub(crate) fn new(core: Arc<Core>, limit: Duration, on_event: Option<OnEvent>) -> Self {
        Self { core, limit, on_event, busy: Mutex::new(None) }
    }

    /// The worker begins with a message, at `now`.
    pub(crate) fn begin(&self, delivery: &Delivery, now: Duration) {
        let place = delivery.ticket().map(crate::receipt::Ticket::place);
        let envelope = delivery.envelope().clone();
        *guard(&self.busy) = Some(Busy { since: now, envelope, place, reported: false });
    }

    /// The worker is done with it.
    pub(crate) fn end(&self) {
        drop(guard(&self.busy).take());
    }

    /// Reports what is overdue at `now`; returns how long nothing can become overdue.
    fn look(&self, now: Duration) -> Duration {
        let mut busy = guard(&self.busy);
        let Some(busy_now) = busy.as_mut().filter(|busy| !busy.reported) else { return self.limit };
        let elapsed = now.saturating_sub(busy_now.since);
        if elapsed < self.limit {
            return self.limit.saturating_sub(elapsed);
        }
        busy_now.reported = true;
        let (envelope, place) = (busy_now.envelope.clone(), busy_now.place.take());
        drop(busy);
        self.core.overdue.fetch_add(1, Ordering::Relaxed);
        if let Some(place) = place {
            let text = format!("the handler of {} is over its time limit", self.core.name);
            let error = Error::new(&codes::BUS_TIMEOUT, text);
            place.settle(Err(error.with("elapsed_ms", elapsed.as_millis())));
        }
        tell(self.on_event.as_ref(), &Event::Overdue { envelope, elapsed });
        self.limit
    }
}

/// The thread that watches, and whom.
pub(crate) struct Watchdog {
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    watched: Vec<Weak<Watched>>,
    /// Raised when somebody comes.
    version: u64,
    runs: bool,
}

impl Watchdog {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, state: Mutex::default(), changed: Condvar::new() }
    }

    /// Watches until `watched` is dropped.
    ///
    /// # Errors
    /// `queue.capacity` if there can be no thread
    pub(crate) fn watch(self: &Arc<Self>, watched: &Arc<Watched>) -> Result<(), Error> {
        let mut state = guard(&self.state);
        state.watched.push(Arc::downgrade(watched));
        state.version += 1;
        if !state.runs {
            let dog = Arc::clone(self);
            let thread = std::thread::Builder::new().name("dwk-bus-watch".to_owned());
            thread.spawn(move || dog.run()).map_err(|error| no_thread("the watchdog", error))?;
            state.runs = true;
        }
        self.changed.notify_all();
        Ok(())
    }

    fn run(&self) {
        let mut state = guard(&self.state);
        loop {
            state.watched.retain(|watched| watched.strong_count() > 0);
            let all: Vec<Arc<Watched>> = state.watched.iter().filter_map(Weak::upgrade).collect();
            if all.is_empty() {
                state.runs = false;
                return;
            }
            let version = state.version;
            drop(state);
            let now = self.clock.monotonic();
            let quiet = all.iter().map(|watched| watched.look(now)).min();
            drop(all);
            state = guard(&self.state);
            if state.version == version {
                state = wait(&self.changed, state, quiet.unwrap_or(LOOK_MIN).max(LOOK_MIN));
            }
        }
    }

    /// Has the thread see that somebody is gone.
    pub(crate) fn look_again(&self) {
        let _state = guard(&self.state);
        self.changed.notify_all();
    }
}

pub(crate) fn no_thread(whose: &str, error: std::io::Error) -> Error {
    let text = format!("there can be no thread for {whose}");
    Error::new(&codes::QUEUE_CAPACITY, text).caused_by(error)
}
