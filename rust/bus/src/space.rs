//! A tenant's namespace: publishing, subscribing, asking.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};

use bytes::Bytes;
use dwk_base::{Clock, Deadline, Error, Random, Result, codes};

use crate::core::Core;
use crate::envelope::Stamped;
use crate::ids::IdSource;
use crate::policy::Options;
use crate::receipt::{Failure, Receipt};
use crate::request::{INBOX, Inboxes, Request};
use crate::rest::Rest;
use crate::route::Route;
use crate::routes::Routes;
use crate::sync::guard;
use crate::tally::{Published, Tally};
use crate::watch::Watchdog;
use crate::{Envelope, Limits, Message, Pattern, Subject, Subscription};

/// What all namespaces of a bus share.
pub(crate) struct Shared {
    pub clock: Arc<dyn Clock>,
    pub random: Arc<dyn Random>,
    pub limits: Limits,
    pub ids: IdSource,
    /// Nothing is published any more.
    pub closed: AtomicBool,
    pub watchdog: Arc<Watchdog>,
    /// Subscriptions whose threads may run, also those that were closed and drain.
    served: Mutex<Vec<Weak<Core>>>,
}

impl Shared {
    pub(crate) fn new(clock: Arc<dyn Clock>, random: Arc<dyn Random>, limits: Limits) -> Self {
        let ids = IdSource::new(&*random);
        let watchdog = Arc::new(Watchdog::new(Arc::clone(&clock)));
        let (closed, served) = (AtomicBool::new(false), Mutex::default());
        Self { clock, random, limits, ids, closed, watchdog, served }
    }

    /// Remembers that threads handle a subscription's messages.
    pub(crate) fn serve(&self, core: &Arc<Core>) {
        let mut served = guard(&self.served);
        served.retain(|core| core.strong_count() > 0);
        served.push(Arc::downgrade(core));
    }

    /// Waits until no threads run any more, or until the deadline; returns those that still do.
    pub(crate) fn wait_for_served(&self, deadline: &Deadline) -> Vec<Arc<Core>> {
        let served: Vec<_> = guard(&self.served).iter().filter_map(Weak::upgrade).collect();
        let runs = |core: &Arc<Core>| core.running.wait(deadline) > 0;
        served.into_iter().filter(runs).collect()
    }
}

/// A namespace.
pub(crate) struct Inner {
    /// `None` for nobody in particular.
    tenant: Option<Arc<str>>,
    pub shared: Arc<Shared>,
    routes: Routes<Arc<Core>, Route>,
    members: Mutex<HashMap<u64, Arc<Core>>>,
    next_id: AtomicU64,
    pub inboxes: Inboxes,
}

impl Inner {
    pub(crate) fn new(tenant: Option<Arc<str>>, shared: Arc<Shared>) -> Self {
        Self {
            tenant,
            routes: Routes::new(shared.limits.routes_cached),
            members: Mutex::default(),
            next_id: AtomicU64::new(0),
            inboxes: Inboxes::new(shared.limits.requests_max),
            shared,
        }
    }

    pub(crate) fn unix_ns(&self) -> u64 {
        self.shared.clock.unix_ns()
    }

    /// Takes a subscription out of the routes, once.
    pub(crate) fn leave(&self, core: &Core) {
        if guard(&self.members).remove(&core.id).is_some() {
            drop(self.routes.remove(&core.pattern, |known| known.id == core.id));
        }
    }

    /// Every subscription that is open.
    pub(crate) fn cores(&self) -> Vec<Arc<Core>> {
        guard(&self.members).values().cloned().collect()
    }

    /// True if nobody subscribes.
    pub(crate) fn is_empty(&self) -> bool {
        guard(&self.members).is_empty()
    }
}

impl Drop for Inner {
    /// Nobody can publish here any more: who waits for messages is told.
    fn drop(&mut self) {
        self.cores().iter().for_each(|core| core.mailbox.close());
        self.inboxes.close();
    }
}

/// What became of a message whose sender waited for its handlers. A group counts as one subscription.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// What became of it at first.
    pub published: Published,
    /// How many subscriptions handled it.
    pub handled: usize,
    /// Those that did not, and why.
    pub failures: Vec<Failure>,
}

/// A tenant's namespace. Cheap to clone; tenants never see each other's subjects.
#[derive(Clone)]
pub struct Space(pub(crate) Arc<Inner>);

impl Space {
    /// Whose it is; empty for the one that has no tenant.
    pub fn tenant(&self) -> &str {
        self.0.tenant.as_deref().unwrap_or_default()
    }

    /// Subscribes to what matches `pattern`: every message whose publishing begins after this.
    ///
    /// # Errors
    /// `bus.closed`; `bus.pattern` for the inboxes of requests; `queue.capacity` for options out of range or
    /// more subscriptions than the limit
    pub fn subscribe(&self, pattern: Pattern, options: Options) -> Result<Subscription> {
        options.check()?;
        if pattern.as_str().split('.').next() == Some(INBOX) {
            let text = format!("{pattern}: answers go to who asked and to nobody else");
            return Err(Error::new(&codes::BUS_PATTERN, text));
        }
        let inner = &self.0;
        let id = inner.next_id.fetch_add(1, Ordering::Relaxed);
        let core = Arc::new(Core::new(id, pattern, options, Arc::downgrade(inner)));
        let mut members = guard(&inner.members);
        // Under the lock, so that a bus that closes finds every member.
        self.check_open()?;
        let max = inner.shared.limits.subscriptions_max;
        if members.len() >= max {
            let text = format!("the tenant has {max} subscriptions, and may have no more");
            return Err(Error::new(&codes::QUEUE_CAPACITY, text));
        }
        members.insert(id, Arc::clone(&core));
        inner.routes.insert(&core.pattern, Arc::clone(&core));
        drop(members);
        Ok(Subscription::new(core))
    }

    /// Gives `message` to everyone who subscribes to its subject. Waits, until the deadline, for those that
    /// have no room and hold the publisher back; the others have it by then.
    ///
    /// Messages that one thread publishes come to each subscriber in that order.
    ///
    /// # Errors
    /// `bus.full` if somebody did not take it: the detail `subscribers` names them, and `matched`, `queued`,
    /// `dropped` are as in [`Published`]. `bus.message_size`, `bus.closed`: nobody has it.
    pub fn publish(&self, message: Message, deadline: &Deadline) -> Result<Published> {
        self.send(self.stamp(message)?, deadline)
    }

    /// Publishes many messages, each subscriber gets them in this order. Cheaper than one by one, most of
    /// all where neighbours have the same subject. They have the same time.
    ///
    /// # Errors
    /// As [`publish`](Self::publish): `bus.full` if somebody did not take some of them, with `missed` for how
    /// many; with `bus.message_size` nobody has any.
    pub fn publish_many(&self, messages: Vec<Message>, deadline: &Deadline) -> Result<Published> {
        self.check_open()?;
        let unix_ns = self.0.unix_ns();
        let limits = &self.0.shared.limits;
        messages.iter().try_for_each(|message| message.check(limits).map(drop))?;
        let stamped = messages.into_iter().map(|message| self.stamped(message, unix_ns));
        let mut rest: VecDeque<Envelope> = stamped.collect();
        let mut tally = Tally::default();
        while let Some(subject) = rest.front().map(|first| first.subject().clone()) {
            let run = rest.iter().take_while(|envelope| *envelope.subject() == subject).count();
            let run: Vec<Envelope> = rest.drain(..run).collect();
            match inbox_of(&subject) {
                Some(inbox) => {
                    for envelope in &run {
                        let answered = self.0.inboxes.deliver(inbox, envelope);
                        tally.published.matched += answered.matched;
                        tally.published.queued += answered.queued;
                    }
                }
                None => self.route(&subject).send_many(run, deadline, &mut tally),
            }
        }
        tally.outcome()
    }

    /// As [`publish`](Self::publish), but whoever has to be waited for is left to `wait`, which is called only
    /// if there is anybody, and when all others have the message.
    ///
    /// # Errors
    /// As `publish`.
    pub fn publish_with(&self, message: Message, wait: impl FnOnce(Rest<'_>)) -> Result<Published> {
        let envelope = self.stamp(message)?;
        if let Some(inbox) = inbox_of(envelope.subject()) {
            return Ok(self.0.inboxes.deliver(inbox, &envelope));
        }
        let mut tally = Tally::default();
        let route = self.route(envelope.subject());
        let held = route.offer(envelope, None, &mut tally);
        if !held.is_empty() {
            wait(Rest { held, tally: &mut tally });
        }
        tally.outcome()
    }

    /// Makes an envelope of `message` without publishing it: now, in this namespace, with a new identity.
    ///
    /// # Errors
    /// `bus.message_size`, `bus.closed`
    pub fn stamp(&self, message: Message) -> Result<Envelope> {
        self.check_open()?;
        message.check(&self.0.shared.limits)?;
        Ok(self.stamped(message, self.0.unix_ns()))
    }

    /// Stamps a message that nobody asked for, such as the store's own: it goes to those only whose patterns
    /// [name](Pattern::names) what it is about, so that `>` means what programs say. (MQTT 3.1.1, section 4.7.2,
    /// has the same rule for its servers' own topics.)
    ///
    /// # Errors
    /// `bus.message_size`, `bus.closed`
    pub fn stamp_announcement(&self, message: Message) -> Result<Envelope> {
        self.check_open()?;
        message.check(&self.0.shared.limits)?;
        let unix_ns = self.0.unix_ns();
        let (id, tenant) = (self.0.shared.ids.next(unix_ns), self.0.tenant.clone());
        Ok(Envelope::new(Stamped { id, unix_ns, tenant, message, is_announcement: true }))
    }

    /// True if somebody subscribes to `subject`. Cheap: whoever has something to say that takes work asks first.
    pub fn is_heard(&self, subject: &Subject) -> bool {
        !self.route(subject).is_empty()
    }

    /// Publishes an envelope as it is, such as one that was kept.
    ///
    /// # Errors
    /// `bus.full`, as [`publish`](Self::publish); `bus.closed`; `context.invalid` if it is another tenant's
    pub fn deliver(&self, envelope: Envelope, deadline: &Deadline) -> Result<Published> {
        if envelope.tenant() != self.tenant() {
            let text = format!("the envelope {} belongs to another tenant", envelope.id());
            return Err(Error::new(&codes::CONTEXT_INVALID, text));
        }
        self.check_open()?;
        self.send(envelope, deadline)
    }

    /// Publishes `message` and waits until every subscription that matches has handled it, failed to, or
    /// is over its time limit.
    ///
    /// # Errors
    /// `bus.timeout` if some have not at the deadline: the detail `subscribers` names them. `bus.message_size`,
    /// `bus.closed`. Failures of handlers are no error of this call; nor is a subscriber that is full: both
    /// are listed.
    pub fn publish_and_wait(&self, message: Message, deadline: &Deadline) -> Result<Outcome> {
        let envelope = self.stamp(message)?;
        if let Some(inbox) = inbox_of(envelope.subject()) {
            let published = self.0.inboxes.deliver(inbox, &envelope);
            return Ok(Outcome { published, handled: published.queued, failures: Vec::new() });
        }
        let receipt = Arc::new(Receipt::default());
        let published = self.send_with(envelope, &receipt, deadline);
        let (handled, failures, late) = receipt.wait_for_all(deadline);
        if late.is_empty() {
            return Ok(Outcome { published, handled, failures });
        }
        let text = format!("{} subscriptions have not handled the message in time", late.len());
        let error = Error::new(&codes::BUS_TIMEOUT, text).with("subscribers", late.join(","));
        Err(error.with("handled", handled).with("failed", failures.len()))
    }

    /// Publishes `message` as a question and waits for the first answer. Where the answer goes is filled in.
    ///
    /// # Errors
    /// `bus.no_responder` at once if nobody subscribes to the subject; `bus.timeout`; what a handler failed
    /// with if all failed that got the question (`bus.handler`), `bus.full` if nobody had room;
    /// `bus.message_size`, `bus.closed`
    pub fn request(&self, message: Message, deadline: &Deadline) -> Result<Envelope> {
        self.ask(message, deadline)?.wait(deadline)
    }

    /// Publishes `message` as a question; the answer is in the result, sooner or later. The deadline is for
    /// publishing only.
    ///
    /// # Errors
    /// As [`request`](Self::request), but `bus.timeout`.
    pub fn ask(&self, mut message: Message, deadline: &Deadline) -> Result<Request> {
        self.check_open()?;
        let receipt = Arc::new(Receipt::default());
        let request = Request::open(self, Arc::clone(&receipt), message.subject.clone())?;
        message.reply_to = Some(request.inbox()?);
        let envelope = self.stamp(message)?;
        let published = self.send_with(envelope, &receipt, deadline);
        if published.matched == 0 {
            let text = format!("nobody subscribes to {}", request.subject());
            return Err(Error::new(&codes::BUS_NO_RESPONDER, text));
        }
        Ok(request)
    }

    /// Answers a question; false if it was none, or whoever asked is gone or has an answer.
    ///
    /// # Errors
    /// `bus.message_size`, `bus.full`
    pub fn reply(&self, question: &Envelope, data: impl Into<Bytes>) -> Result<bool> {
        let Some(to) = question.message().reply_to.clone() else { return Ok(false) };
        let mut message = Message::new(to, data);
        message.correlation = question.message().correlation;
        // Also on a bus that closes: it drains first.
        message.check(&self.0.shared.limits)?;
        let envelope = self.stamped(message, self.0.unix_ns());
        Ok(self.send(envelope, &passed(&self.0.shared.clock))?.matched > 0)
    }

    fn send(&self, envelope: Envelope, deadline: &Deadline) -> Result<Published> {
        if let Some(inbox) = inbox_of(envelope.subject()) {
            return Ok(self.0.inboxes.deliver(inbox, &envelope));
        }
        let mut tally = Tally::default();
        let route = self.route(envelope.subject());
        route.send(envelope, None, deadline, &mut tally);
        tally.outcome()
    }

    fn send_with(
        &self,
        envelope: Envelope,
        receipt: &Arc<Receipt>,
        deadline: &Deadline,
    ) -> Published {
        let mut tally = Tally::default();
        let route = self.route(envelope.subject());
        route.send(envelope, Some(receipt), deadline, &mut tally);
        // Who did not take it says so in the receipt.
        tally.published
    }

    fn stamped(&self, message: Message, unix_ns: u64) -> Envelope {
        let id = self.0.shared.ids.next(unix_ns);
        let tenant = self.0.tenant.clone();
        Envelope::new(Stamped { id, unix_ns, tenant, message, is_announcement: false })
    }

    fn route(&self, subject: &Subject) -> Arc<Route> {
        self.0.routes.find(subject, Route::new)
    }

    fn check_open(&self) -> Result<()> {
        if self.0.shared.closed.load(Ordering::Acquire) {
            return Err(Error::new(&codes::BUS_CLOSED, "the bus is closed"));
        }
        Ok(())
    }
}

impl fmt::Debug for Space {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Space").field("tenant", &self.0.tenant).finish_non_exhaustive()
    }
}

/// A deadline that does not wait.
fn passed(clock: &Arc<dyn Clock>) -> Deadline {
    Deadline::after(Arc::clone(clock), std::time::Duration::ZERO)
}

/// What follows `_inbox.` in a subject.
fn inbox_of(subject: &Subject) -> Option<&str> {
    subject.as_str().strip_prefix(INBOX)?.strip_prefix('.')
}
