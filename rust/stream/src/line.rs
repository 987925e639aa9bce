//! Group commit: who publishes stands in line, and one of a batch commits for all.
//!
//! A batch takes messages until its turn comes. Who began it *leads* it: waits for its turn, submits it as
//! one frame, waits until that is durable, and tells the others, who sleep. Few batches are under way at
//! once, so that messages gather while the drives sync. A leader whose time is over hands the lead to one of
//! the others, or, when the batch is on its way, leaves them to wait for themselves.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex};

use dwk_base::{Deadline, Error, Result, codes};

use crate::core::{Core, Sent};
use crate::sync::{guard, wait};
use crate::tail::{Item, Published};

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

type Outcomes = Vec<Result<Published>>;

/// The line in front of one stream.
#[derive(Debug, Default)]
pub(crate) struct Line {
    state: Mutex<Queue>,
    turn: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    batches: VecDeque<Arc<Batch>>,
    under_way: usize,
}

#[derive(Debug, Default)]
struct Batch {
    state: Mutex<State>,
    /// It is done, or somebody is wanted to lead.
    told: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Nothing where a member gave up before the batch was sent.
    items: Vec<Option<Item>>,
    bytes: usize,
    /// Those that did not give up.
    members: usize,
    led: bool,
    stage: Stage,
}

#[derive(Debug, Default)]
enum Stage {
    #[default]
    Open,
    Sending,
    Sent(Arc<Sent>),
    Done(Result<Arc<Outcomes>>),
}

/// A place in a batch.
struct Ticket {
    batch: Arc<Batch>,
    range: Range<usize>,
}

impl Line {
    /// Publishes `items`, next to each other and in one frame, and says what became of each.
    ///
    /// # Errors
    /// As [`Core::send`]; `context.deadline`, with the detail `outcome` (`unknown`) if they are on their way.
    pub(crate) fn publish(
        &self,
        core: &Core,
        items: Vec<Option<Item>>,
        bytes_max: usize,
        deadline: &Deadline,
    ) -> Result<Outcomes> {
        let (ticket, leads) = self.join(items, bytes_max);
        if leads {
            self.lead(core, &ticket, deadline)?;
        }
        let mut state = guard(&ticket.batch.state);
        loop {
            match &state.stage {
                Stage::Done(Ok(outcomes)) => return Ok(outcomes[ticket.range].to_vec()),
                Stage::Done(Err(error)) => return Err(error.clone()),
                Stage::Open if !state.led => {
                    state.led = true;
                    drop(state);
                    self.lead(core, &ticket, deadline)?;
                    state = guard(&ticket.batch.state);
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
                    state = guard(&ticket.batch.state);
                    continue;
                }
                _ => {}
            }
            let remaining = deadline.remaining();
            if remaining.is_zero() {
                return Err(give_up(&mut state, ticket.range));
            }
            state = wait(&ticket.batch.told, state, remaining);
        }
    }

    /// Puts `items` into the last batch or a new one; true if the caller is to lead it.
    fn join(&self, items: Vec<Option<Item>>, bytes_max: usize) -> (Ticket, bool) {
        let bytes: usize = items.iter().flatten().map(|item| item.body.len()).sum();
        let mut queue = guard(&self.state);
        let fits = |state: &State| {
            matches!(state.stage, Stage::Open)
                && state.items.len() + items.len() <= BATCH_MESSAGES_MAX
                && state.bytes + bytes <= bytes_max
        };
        let batch = match queue.batches.back() {
            Some(last) if fits(&guard(&last.state)) => Arc::clone(last),
            _ => {
                let batch = Arc::<Batch>::default();
                queue.batches.push_back(Arc::clone(&batch));
                batch
            }
        };
        let mut state = guard(&batch.state);
        let start = state.items.len();
        state.items.extend(items);
        state.bytes += bytes;
        state.members += 1;
        let range = start..state.items.len();
        let leads = !std::mem::replace(&mut state.led, true);
        drop(state);
        (Ticket { batch, range }, leads)
    }

    /// Brings a batch on its way and waits for it. When it returns, the batch is done or has no leader.
    ///
    /// # Errors
    /// `context.deadline`: the caller is no member any more.
    fn lead(&self, core: &Core, ticket: &Ticket, deadline: &Deadline) -> Result<()> {
        if !self.await_turn(&ticket.batch, deadline) {
            return Err(self.resign(ticket));
        }
        let mut lead = Lead { line: self, batch: &ticket.batch, done: None };
        let items = ticket.batch.begin();
        let mut again = true;
        let done = loop {
            let sent = match core.send(&items, deadline) {
                Ok(sent) => Arc::new(sent),
                Err(error) if is_late(&error) => {
                    lead.put_back(items);
                    return Err(self.resign(ticket));
                }
                Err(error) => break Err(error),
            };
            ticket.batch.set(Stage::Sent(Arc::clone(&sent)));
            match core.arrive(&sent, deadline) {
                Err(error) if is_unknown(&error) => {
                    lead.leave();
                    return Err(error);
                }
                // Nothing was written: there may be room once what can be given back is.
                Err(error) if again && error.is(&codes::DRIVE_FULL) => {
                    again = false;
                    ticket.batch.set(Stage::Sending);
                }
                done => break done.map(|()| sent.outcomes.clone()),
            }
        };
        lead.done = Some(done);
        Ok(())
    }

    /// Waits until the batch is the first one and may go; false if the time is over.
    fn await_turn(&self, batch: &Arc<Batch>, deadline: &Deadline) -> bool {
        let mut queue = guard(&self.state);
        loop {
            let is_first = queue.batches.front().is_some_and(|first| Arc::ptr_eq(first, batch));
            if is_first && queue.under_way < UNDER_WAY_MAX {
                queue.batches.pop_front();
                queue.under_way += 1;
                return true;
            }
            let remaining = deadline.remaining();
            if remaining.is_zero() {
                return false;
            }
            queue = wait(&self.turn, queue, remaining);
        }
    }

    /// The next batch may go.
    fn step_down(&self) {
        guard(&self.state).under_way -= 1;
        self.turn.notify_all();
    }

    /// A leader's time is over before its batch was sent: another member leads, if there is one.
    fn resign(&self, ticket: &Ticket) -> Error {
        let mut queue = guard(&self.state);
        let mut state = guard(&ticket.batch.state);
        let error = give_up(&mut state, ticket.range.clone());
        if state.members == 0 {
            queue.batches.retain(|batch| !Arc::ptr_eq(batch, &ticket.batch));
        }
        state.led = false;
        drop(state);
        drop(queue);
        ticket.batch.told.notify_all();
        self.turn.notify_all();
        error
    }
}

/// The lead of a batch whose turn came; when it ends, the next batch may go.
struct Lead<'a> {
    line: &'a Line,
    batch: &'a Arc<Batch>,
    done: Option<Result<Outcomes>>,
}

impl Lead<'_> {
    /// The batch was not sent, and is the first one again.
    fn put_back(self, items: Vec<Option<Item>>) {
        let mut queue = guard(&self.line.state);
        let mut state = guard(&self.batch.state);
        (state.items, state.stage) = (items, Stage::Open);
        drop(state);
        queue.batches.push_front(Arc::clone(self.batch));
        drop(queue);
        self.end();
    }

    /// The batch is on its way: whoever waits, waits for it himself.
    fn leave(self) {
        guard(&self.batch.state).led = false;
        self.batch.told.notify_all();
        self.end();
    }

    /// Without telling the batch anything.
    fn end(self) {
        self.line.step_down();
        std::mem::forget(self);
    }
}

impl Drop for Lead<'_> {
    fn drop(&mut self) {
        self.line.step_down();
        // Without an outcome the leader panicked: nobody is to wait for ever.
        let bug = || Err(Error::new(&codes::INTERNAL_BUG, "publishing a batch panicked"));
        self.batch.finish(self.done.take().unwrap_or_else(bug));
    }
}

impl Batch {
    /// Takes the items out to send them.
    fn begin(&self) -> Vec<Option<Item>> {
        let mut state = guard(&self.state);
        state.stage = Stage::Sending;
        std::mem::take(&mut state.items)
    }

    fn set(&self, stage: Stage) {
        guard(&self.state).stage = stage;
    }

    fn finish(&self, done: Result<Outcomes>) {
        let mut state = guard(&self.state);
        if !matches!(state.stage, Stage::Done(_)) {
            state.stage = Stage::Done(done.map(Arc::new));
        }
        drop(state);
        self.told.notify_all();
    }
}

/// A member's time is over: what it published is not sent, if it was not.
fn give_up(state: &mut State, range: Range<usize>) -> Error {
    if !matches!(state.stage, Stage::Open) {
        let text = "the time was over while the messages were on their way: they may be there or not, so look before you repeat it, or give them a message_id";
        return Deadline::passed(text).with("outcome", "unknown");
    }
    state.members -= 1;
    state.items[range].fill_with(|| None);
    Deadline::passed("the time was over before the messages were sent")
}

/// The time was over, and nothing was sent.
fn is_late(error: &Error) -> bool {
    error.is(&codes::CONTEXT_DEADLINE) && error.detail("outcome").is_none()
}

fn is_unknown(error: &Error) -> bool {
    error.is(&codes::CONTEXT_DEADLINE) && error.detail("outcome").is_some()
}
