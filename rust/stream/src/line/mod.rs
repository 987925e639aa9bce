//! Group commit: who publishes stands in line, and one of a batch commits for all.
//!
//! A batch takes messages until its turn comes. Who began it *leads* it: waits for its turn, submits it as
//! one frame, waits until that is durable, and tells the others, who sleep. Few batches are under way at
//! once, so that messages gather while the drives sync. A leader whose time is over hands the lead to one of
//! the others, or, when the batch is on its way, leaves them to wait for themselves. Futures cannot lead: a
//! batch that one of them began is led by a [`carrier`].

mod batch;
mod carrier;
mod publishing;

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, Weak};

use dwk_base::{Deadline, Error, Result, codes};

use self::batch::{Batch, Kind, Outcomes, Stage, State, Ticket};
pub use self::publishing::Publishing;
use crate::core::Core;
use crate::sync::{guard, wait};
use crate::tail::Item;

/// How many messages one frame takes at most.
pub(crate) const BATCH_MESSAGES_MAX: usize = 1024;
/// How many batches are under way at once: one syncs, one waits to be written behind it.
const UNDER_WAY_MAX: usize = 2;

/// How many bytes of messages one frame takes at most, if it takes more than one message.
pub(crate) const BATCH_BYTES_MAX: usize = 16 << 20;

/// Fails if so much cannot be committed together: a reader holds it in memory.
///
/// # Errors
/// `stream.option`
pub(crate) fn check_batch(items: &[Option<Item>]) -> Result<()> {
    let bytes: usize = items.iter().flatten().map(|item| item.body.len()).sum();
    let count = items.len();
    if count <= 1 || (count <= BATCH_MESSAGES_MAX && bytes <= BATCH_BYTES_MAX) {
        return Ok(());
    }
    let text = format!("{count} messages of {bytes} bytes: at most 1,024 and 16 MiB at once");
    Err(Error::new(&codes::STREAM_OPTION, text).with("option", "messages"))
}

/// The line in front of one stream.
#[derive(Debug)]
pub(crate) struct Line {
    core: Weak<Core>,
    state: Mutex<Queue>,
    /// A batch may be on its turn, or the line empty.
    turn: Condvar,
    /// A carrier may have work.
    wanted: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    batches: VecDeque<Arc<Batch>>,
    under_way: usize,
    /// A batch was taken and is not submitted yet: the next one waits, so that they keep their order.
    sending: bool,
    /// On their way and left by their leaders, with futures that wait.
    left: Vec<Arc<Batch>>,
    carriers: usize,
    /// Carriers that wait for work.
    idle: usize,
    /// Carriers are not to wait for more.
    ended: bool,
}

/// How a leader's turn ended.
enum Led {
    Done,
    /// The leader's time was over before, and the batch is the first one again.
    NotSent,
    /// The leader's time was over on the way: it is not known what became of it.
    Left(Error),
}

impl Line {
    /// The line of a stream that is being made.
    pub(crate) fn new(core: &Weak<Core>) -> Arc<Self> {
        let (state, turn, wanted) = (Mutex::default(), Condvar::new(), Condvar::new());
        Arc::new(Self { core: Weak::clone(core), state, turn, wanted })
    }

    /// Publishes `items`, next to each other and in one frame, and says what became of each.
    ///
    /// # Errors
    /// As [`Core::send`]; `context.deadline`, with the detail `outcome` (`unknown`) if they are on their way.
    pub(crate) fn publish(
        self: &Arc<Self>,
        core: &Core,
        items: Vec<Option<Item>>,
        bytes_max: usize,
        deadline: &Deadline,
    ) -> Result<Outcomes> {
        let mut queue = guard(&self.state);
        let (ticket, is_led) = queue.join(items, bytes_max, Kind::Thread);
        drop(queue);
        if !is_led {
            self.lead(core, &ticket, deadline)?;
        }
        let mut state = ticket.batch.lock();
        loop {
            if let Some(outcome) = ticket.outcome(&state) {
                return outcome;
            }
            match &state.stage {
                Stage::Open if !state.led => {
                    state.led = true;
                    drop(state);
                    self.lead(core, &ticket, deadline)?;
                    state = ticket.batch.lock();
                    continue;
                }
                Stage::Sent(sent) if !state.led => {
                    let sent = Arc::clone(sent);
                    drop(state);
                    let done = core.arrive(&sent, deadline);
                    if done.as_ref().is_err_and(is_unknown) {
                        return done.map(|()| Vec::new());
                    }
                    ticket.batch.finish(done.map(|()| sent.outcomes.clone()));
                    state = ticket.batch.lock();
                    continue;
                }
                _ => {}
            }
            state = match ticket.batch.wait(state, deadline) {
                Ok(state) => state,
                Err(mut state) => return Err(ticket.give_up(&mut state)),
            }
        }
    }

    /// Puts `items` in line, next to each other, for a future.
    pub(crate) fn publish_async(
        self: &Arc<Self>,
        core: &Arc<Core>,
        items: Vec<Option<Item>>,
        bytes_max: usize,
    ) -> Publishing {
        let mut queue = guard(&self.state);
        let (ticket, is_led) = queue.join(items, bytes_max, Kind::Future);
        let has_leader = is_led || self.call(&mut queue);
        drop(queue);
        if !has_leader && !std::mem::replace(&mut ticket.batch.lock().led, true) {
            // Without threads there is nobody else. What it returns the batch knows as well.
            let _ = self.lead(core, &ticket, &Deadline::never());
        }
        Publishing::new(Arc::clone(core), ticket)
    }

    /// Brings a batch on its way and waits for it. When it returns, the batch is done or has no leader.
    ///
    /// # Errors
    /// `context.deadline`: the caller is no member any more.
    fn lead(self: &Arc<Self>, core: &Core, ticket: &Ticket, deadline: &Deadline) -> Result<()> {
        if !self.await_turn(&ticket.batch, deadline) {
            return Err(self.resign(ticket));
        }
        match Lead::of(self, &ticket.batch).carry(core, deadline) {
            Led::Done => Ok(()),
            Led::NotSent => Err(self.resign(ticket)),
            Led::Left(error) => Err(error),
        }
    }

    /// Waits until the batch is the first one and may go; false if the time is over.
    fn await_turn(self: &Arc<Self>, batch: &Arc<Batch>, deadline: &Deadline) -> bool {
        let mut queue = guard(&self.state);
        loop {
            let is_first = queue.batches.front().is_some_and(|first| Arc::ptr_eq(first, batch));
            if is_first && queue.may_go() {
                queue.take();
                return true;
            }
            let remaining = deadline.remaining();
            if remaining.is_zero() {
                return false;
            }
            queue = wait(&self.turn, queue, remaining);
        }
    }

    /// Tells whoever leads the first batch, if it may go.
    fn go_on(self: &Arc<Self>, queue: &mut Queue) {
        let Some(first) = queue.batches.front() else { return };
        if queue.may_go() {
            if first.lock().led {
                self.turn.notify_all();
            } else {
                self.call(queue);
            }
        }
    }

    /// The batch that was taken is submitted, or will not be.
    fn sent(self: &Arc<Self>) {
        let mut queue = guard(&self.state);
        queue.sending = false;
        self.go_on(&mut queue);
    }

    /// A batch is not under way any more.
    fn step_down(self: &Arc<Self>) {
        let mut queue = guard(&self.state);
        queue.under_way -= 1;
        self.go_on(&mut queue);
        if queue.is_empty() {
            self.turn.notify_all();
        }
    }

    /// A leader's time is over before its batch was sent: another member leads, if there is one.
    fn resign(self: &Arc<Self>, ticket: &Ticket) -> Error {
        let mut queue = guard(&self.state);
        let mut state = ticket.batch.lock();
        let error = ticket.give_up(&mut state);
        if state.members == 0 {
            queue.batches.retain(|batch| !Arc::ptr_eq(batch, &ticket.batch));
        }
        drop(state);
        ticket.batch.leave();
        self.go_on(&mut queue);
        error
    }

    /// Waits until the line is empty, but no longer than the deadline; carriers end then.
    pub(crate) fn drain(&self, deadline: &Deadline) {
        let mut queue = guard(&self.state);
        while !queue.is_empty() && !deadline.remaining().is_zero() {
            queue = wait(&self.turn, queue, deadline.remaining());
        }
        queue.ended = true;
        self.wanted.notify_all();
    }
}

impl Queue {
    /// Puts `items` into the last batch or a new one, and says whether it had a leader; a thread that comes
    /// first is to lead.
    fn join(&mut self, items: Vec<Option<Item>>, bytes_max: usize, kind: Kind) -> (Ticket, bool) {
        let bytes = items.iter().flatten().map(|item| item.body.len()).sum();
        let fits = |state: &State| state.has_room(items.len(), bytes, bytes_max);
        if !self.batches.back().is_some_and(|last| fits(&last.lock())) {
            self.batches.push_back(Arc::default());
        }
        let Some(batch) = self.batches.back() else { unreachable!("a batch was just pushed") };
        let mut state = batch.lock();
        let is_led = state.led;
        state.led |= kind == Kind::Thread;
        (state.join(batch, items, bytes, kind), is_led)
    }

    /// True if the first batch may be taken.
    fn may_go(&self) -> bool {
        self.under_way < UNDER_WAY_MAX && !self.sending
    }

    /// Takes the first batch, to send it.
    fn take(&mut self) -> Option<Arc<Batch>> {
        let first = self.batches.pop_front()?;
        self.under_way += 1;
        self.sending = true;
        Some(first)
    }

    fn is_empty(&self) -> bool {
        self.batches.is_empty() && self.left.is_empty() && self.under_way == 0
    }
}

/// The lead of a batch whose turn came; when it ends, the next batch may go.
struct Lead<'a> {
    line: &'a Arc<Line>,
    batch: &'a Arc<Batch>,
    is_sending: bool,
    done: Option<Result<Outcomes>>,
}

impl<'a> Lead<'a> {
    /// Of a batch that was taken.
    fn of(line: &'a Arc<Line>, batch: &'a Arc<Batch>) -> Self {
        Self { line, batch, is_sending: true, done: None }
    }

    /// Of one that is on its way.
    fn of_left(line: &'a Arc<Line>, batch: &'a Arc<Batch>) -> Self {
        Self { line, batch, is_sending: false, done: None }
    }

    /// Others may send.
    fn sent(&mut self) {
        if std::mem::take(&mut self.is_sending) {
            self.line.sent();
        }
    }

    /// Sends the batch and waits until it arrived.
    fn carry(mut self, core: &Core, deadline: &Deadline) -> Led {
        let items = self.batch.begin();
        let mut again = true;
        let done = loop {
            let sent = match core.send(&items, deadline) {
                Ok(sent) => Arc::new(sent),
                Err(error) if is_late(&error) && deadline.check().is_err() => {
                    self.put_back(items);
                    return Led::NotSent;
                }
                Err(error) => break Err(error),
            };
            self.sent();
            self.batch.set(Stage::Sent(Arc::clone(&sent)));
            match core.arrive(&sent, deadline) {
                Err(error) if is_unknown(&error) && deadline.check().is_err() => {
                    self.leave();
                    return Led::Left(error);
                }
                // Nothing was written: there may be room once what can be given back is.
                Err(error) if again && error.is(&codes::DRIVE_FULL) => {
                    again = false;
                    self.batch.set(Stage::Sending);
                }
                done => break done.map(|()| sent.outcomes.clone()),
            }
        };
        self.end(done);
        Led::Done
    }

    /// Waits until a batch arrived that was left.
    fn arrive(self, core: &Core) {
        let sent = match &self.batch.lock().stage {
            Stage::Sent(sent) => Some(Arc::clone(sent)),
            // Another member waited for it.
            _ => None,
        };
        match sent {
            Some(sent) => {
                let done = core.arrive(&sent, &Deadline::never());
                self.end(done.map(|()| sent.outcomes.clone()));
            }
            None => self.step_down(),
        }
    }

    fn end(mut self, done: Result<Outcomes>) {
        self.done = Some(done);
    }

    /// The batch was not sent, and is the first one again.
    fn put_back(self, items: Vec<Option<Item>>) {
        let mut queue = guard(&self.line.state);
        let mut state = self.batch.lock();
        (state.items, state.stage) = (items, Stage::Open);
        drop(state);
        queue.batches.push_front(Arc::clone(self.batch));
        drop(queue);
        self.step_down();
    }

    /// The batch is on its way: whoever waits, waits for it himself, or a carrier does.
    fn leave(self) {
        if self.batch.lock().has_futures() {
            let mut queue = guard(&self.line.state);
            queue.left.push(Arc::clone(self.batch));
            self.line.call(&mut queue);
        }
        self.batch.leave();
        self.step_down();
    }

    /// Without telling the batch anything.
    fn step_down(mut self) {
        self.sent();
        self.line.step_down();
        std::mem::forget(self);
    }
}

impl Drop for Lead<'_> {
    fn drop(&mut self) {
        self.sent();
        self.line.step_down();
        // Without an outcome the leader panicked: nobody is to wait for ever.
        let bug = || Err(Error::new(&codes::INTERNAL_BUG, "publishing a batch panicked"));
        self.batch.finish(self.done.take().unwrap_or_else(bug));
    }
}

/// The time was over, and nothing was sent.
fn is_late(error: &Error) -> bool {
    error.is(&codes::CONTEXT_DEADLINE) && error.detail("outcome").is_none()
}

fn is_unknown(error: &Error) -> bool {
    error.is(&codes::CONTEXT_DEADLINE) && error.detail("outcome").is_some()
}
