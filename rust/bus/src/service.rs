//! Handlers on threads of their own.

use std::any::Any;
use std::collections::VecDeque;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use dwk_base::{Clock, Deadline, Error, Result, codes};

use crate::core::{Core, Stats};
use crate::mailbox::{Item, Took};
use crate::watch::{Event, OnEvent, Watchdog, Watched, no_thread, tell};
use crate::{Delivery, Envelope, Space, Subscription};

/// How handlers are run.
#[derive(Clone, Default)]
pub struct ServeOptions {
    /// A handler that has a message for longer is reported: to whoever waits for the message, to `on_event`
    /// and in the statistics. It is not stopped, and its worker handles nothing else meanwhile.
    pub time_limit: Option<Duration>,
    /// Is told when a handler fails, panics or is over its time limit.
    pub on_event: Option<OnEvent>,
}

impl fmt::Debug for ServeOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServeOptions").field("time_limit", &self.time_limit).finish_non_exhaustive()
    }
}

/// A subscription whose messages are handled by threads. Dropped, it takes in nothing more, and its threads end
/// when they have handled what waits.
pub struct Service {
    core: Arc<Core>,
}

impl Subscription {
    /// Handles every message with `handler`, on as many threads as the subscription has workers. `Ok(Some)`
    /// answers whoever asked; an error or a panic counts as failed and hurts nobody else. Messages with the
    /// same key are handled in order, one at a time. A handler that closes its own subscription must not wait
    /// for that without a deadline: it would wait for itself.
    ///
    /// # Errors
    /// `queue.capacity` if there can be no threads; the subscription is gone then
    pub fn serve<F>(self, handler: F, options: &ServeOptions) -> Result<Service>
    where
        F: Fn(&Envelope) -> Result<Option<Bytes>> + Send + Sync + 'static,
    {
        let core = Arc::clone(self.core());
        if let Some(space) = core.space.upgrade() {
            space.shared.serve(&core);
        }
        let handler = Arc::new(handler);
        for number in 0..core.workers {
            let worker = Worker::new(&core, number, options)?;
            let (handler, running) = (Arc::clone(&handler), core.running.enter());
            // Only where there is one worker something can have been taken ahead.
            let taken = self.take_ahead();
            let run = move || {
                worker.run(&*handler, taken);
                drop((worker, running));
            };
            let thread = std::thread::Builder::new().name(format!("dwk-bus-{number}"));
            thread.spawn(run).map_err(|error| no_thread("a worker", error))?;
        }
        self.hand_over();
        Ok(Service { core })
    }
}

impl Service {
    /// What the subscription did and holds.
    pub fn stats(&self) -> Stats {
        self.core.stats()
    }

    /// The subscription's name.
    pub fn name(&self) -> &str {
        &self.core.name
    }

    /// Takes in nothing more, and waits until what waits is handled.
    ///
    /// # Errors
    /// `bus.timeout` if handlers still run at the deadline; they go on
    pub fn close(&self, deadline: &Deadline) -> Result<()> {
        self.core.close();
        let left = self.core.running.wait(deadline);
        if left == 0 {
            return Ok(());
        }
        let text = format!("{left} workers of {} still run", self.core.name);
        Err(Error::new(&codes::BUS_TIMEOUT, text))
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.core.close();
    }
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service").field("name", &self.core.name).finish_non_exhaustive()
    }
}

/// One thread's part.
struct Worker {
    core: Arc<Core>,
    number: usize,
    on_event: Option<OnEvent>,
    watch: Option<Watch>,
}

/// Who watches over a worker, and by which clock.
struct Watch {
    watched: Arc<Watched>,
    watchdog: Arc<Watchdog>,
    clock: Arc<dyn Clock>,
}

impl Worker {
    fn new(core: &Arc<Core>, number: usize, options: &ServeOptions) -> Result<Self> {
        let on_event = options.on_event.clone();
        let mut watch = None;
        if let (Some(limit), Some(space)) = (options.time_limit, core.space.upgrade()) {
            let watched = Arc::new(Watched::new(Arc::clone(core), limit, on_event.clone()));
            let watchdog = Arc::clone(&space.shared.watchdog);
            watchdog.watch(&watched)?;
            watch = Some(Watch { watched, watchdog, clock: Arc::clone(&space.shared.clock) });
        }
        Ok(Self { core: Arc::clone(core), number, on_event, watch })
    }

    /// `taken` is what was taken ahead of it.
    fn run(
        &self,
        handler: &(impl Fn(&Envelope) -> Result<Option<Bytes>> + ?Sized),
        mut taken: VecDeque<Item>,
    ) {
        let mut step = 0;
        loop {
            for item in taken.drain(..) {
                self.handle(handler, Delivery::new(item));
            }
            match self.core.mailbox.take(Some(self.number), self.core.ahead, true, &mut taken) {
                Took::Some(_) => step = 0,
                Took::Closed => return,
                Took::Nothing => {
                    self.core.mailbox.pause(Some(self.number), &Deadline::never(), &mut step);
                }
            }
        }
    }

    fn handle(
        &self,
        handler: &(impl Fn(&Envelope) -> Result<Option<Bytes>> + ?Sized),
        delivery: Delivery,
    ) {
        if let Some(watch) = &self.watch {
            watch.watched.begin(&delivery, watch.clock.monotonic());
        }
        let handled = catch_unwind(AssertUnwindSafe(|| handler(&delivery)));
        if let Some(watch) = &self.watch {
            watch.watched.end();
        }
        let outcome = handled.unwrap_or_else(|panic| Err(panicked(&self.core.name, &*panic)));
        match outcome.and_then(|answer| self.answer(&delivery, answer)) {
            Ok(()) => drop(delivery),
            Err(error) => {
                self.core.failed.fetch_add(1, Ordering::Relaxed);
                let envelope = delivery.envelope().clone();
                delivery.fail(error.clone());
                tell(self.on_event.as_ref(), &Event::Failed { envelope, error });
            }
        }
    }

    /// Sends the answer. That nobody waits for it any more is no failure.
    fn answer(&self, question: &Delivery, answer: Option<Bytes>) -> Result<()> {
        let (Some(answer), Some(space)) = (answer, self.core.space.upgrade()) else {
            return Ok(());
        };
        Space(space).reply(question, answer).map(drop)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if let Some(Watch { watched, watchdog, .. }) = self.watch.take() {
            drop(watched);
            watchdog.look_again();
        }
    }
}

fn panicked(name: &str, panic: &(dyn Any + Send)) -> Error {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    let text = text.unwrap_or("something that is no text");
    Error::new(&codes::BUS_HANDLER, format!("the handler of {name} panicked: {text}"))
}
