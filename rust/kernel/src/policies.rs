//! Policies: somebody is asked before an operation, and told after it.
//!
//! They live elsewhere, perhaps in an interpreter, and cost more than most operations. So questions are put on a
//! desk, and whoever serves it takes all that lie there at a time; who asks waits, but no longer than policies may
//! take. While nobody serves the desk, nobody is asked.

use std::cell::Cell;
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dwk_base::{Clock, CorrelationId, Error, Result, codes};

use crate::door::{Access, Pass, Place, Resource, Stage};

/// How many outcomes wait to be told at most; those that come then are counted only.
const TOLD_MAX: usize = 65_536;

/// An operation that wants to begin.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Stable name, such as `object.put`.
    pub operation: &'static str,
    /// What it does.
    pub access: Access,
    /// What it touches.
    pub resource: Resource,
    /// Who asks.
    pub principal: String,
    /// For whom.
    pub tenant: Option<String>,
    /// What ties everything about it together.
    pub correlation: CorrelationId,
}

/// An operation that ended.
#[derive(Clone, Debug)]
pub struct Told {
    /// What it was.
    pub asked: Arc<Asked>,
    /// The code of its error; `None` if it went well.
    pub code: Option<&'static str>,
    /// How long it took, without the question.
    pub elapsed: Duration,
    /// What was noted when it was asked about.
    pub notes: Notes,
}

/// What policies note of an operation, by name.
pub type Notes = BTreeMap<String, String>;

/// What is said of an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It may go on.
    Allow(Notes),
    /// It may not, and why.
    Refuse(String),
}

/// A question on the desk. Dropped unanswered, the operation is refused.
#[derive(Debug)]
pub struct Question {
    asked: Arc<Asked>,
    answer: Arc<Answer>,
}

impl Question {
    /// About what.
    pub fn asked(&self) -> &Arc<Asked> {
        &self.asked
    }

    /// Answers it.
    pub fn answer(self, verdict: Verdict) {
        self.answer.give(verdict);
    }
}

impl Drop for Question {
    fn drop(&mut self) {
        self.answer.give(Verdict::Refuse("the policies gave no answer".to_owned()));
    }
}

#[derive(Debug, Default)]
struct Answer {
    verdict: Mutex<Option<Verdict>>,
    given: Condvar,
}

impl Answer {
    /// The first one counts.
    fn give(&self, verdict: Verdict) {
        lock(&self.verdict).get_or_insert(verdict);
        self.given.notify_one();
    }

    fn wait(&self, limit: Duration) -> Option<Verdict> {
        let waiting = |verdict: &mut Option<Verdict>| verdict.is_none();
        let waited = self.given.wait_timeout_while(lock(&self.verdict), limit, waiting);
        waited.unwrap_or_else(PoisonError::into_inner).0.clone()
    }
}

/// Where questions lie until somebody takes them.
#[derive(Debug, Default)]
pub struct Desk {
    /// As in the state; read by everybody who passes.
    is_served: AtomicBool,
    state: Mutex<State>,
    work: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// How long an answer may take; `None` while nobody serves.
    limit: Option<Duration>,
    questions: VecDeque<Question>,
    told: VecDeque<Told>,
    dropped: u64,
    ended: bool,
}

/// What was taken from the desk.
#[derive(Debug, Default)]
pub struct Batch {
    /// To be answered.
    pub questions: Vec<Question>,
    /// To be heard.
    pub told: Vec<Told>,
    /// How many outcomes were not told since the last time, because too many waited.
    pub dropped: u64,
}

thread_local! {
    /// This thread answers: what it does itself meanwhile is not asked about.
    static ANSWERS: Cell<bool> = const { Cell::new(false) };
}

impl Desk {
    /// From now on operations are asked about, and wait for an answer as long as `limit`.
    pub fn serve(&self, limit: Duration) {
        lock(&self.state).limit = Some(limit);
        self.is_served.store(true, Ordering::Release);
    }

    /// From now on nobody is asked. What lies on the desk may go on.
    pub fn leave(&self) {
        self.is_served.store(false, Ordering::Release);
        let mut state = lock(&self.state);
        state.limit = None;
        let questions = std::mem::take(&mut state.questions);
        state.told.clear();
        drop(state);
        for question in questions {
            question.answer(Verdict::Allow(Notes::new()));
        }
    }

    /// Takes what lies there, up to `limit` of each, as soon as there is something; empty if nothing comes in time,
    /// `None` once the store is closed. The calling thread's own operations are not asked about from then on.
    pub fn take(&self, limit: usize, patience: Duration) -> Option<Batch> {
        ANSWERS.set(true);
        let idle =
            |state: &mut State| !state.ended && state.questions.is_empty() && state.told.is_empty();
        let waited = self.work.wait_timeout_while(lock(&self.state), patience, idle);
        let mut state = waited.unwrap_or_else(PoisonError::into_inner).0;
        if state.ended && state.questions.is_empty() && state.told.is_empty() {
            return None;
        }
        let (questions, told) = (limit.min(state.questions.len()), limit.min(state.told.len()));
        Some(Batch {
            questions: state.questions.drain(..questions).collect(),
            told: state.told.drain(..told).collect(),
            dropped: std::mem::take(&mut state.dropped),
        })
    }

    /// The store is closed: whoever serves is told, after what lies there.
    pub(crate) fn end(&self) {
        lock(&self.state).ended = true;
        self.work.notify_all();
    }

    fn put(&self, asked: &Arc<Asked>) -> Option<(Arc<Answer>, Duration)> {
        let mut state = lock(&self.state);
        let limit = state.limit?;
        let answer = Arc::<Answer>::default();
        let question = Question { asked: Arc::clone(asked), answer: Arc::clone(&answer) };
        state.questions.push_back(question);
        drop(state);
        self.work.notify_one();
        Some((answer, limit))
    }

    fn tell(&self, told: Told) {
        let mut state = lock(&self.state);
        if state.limit.is_none() {
            return;
        }
        if state.told.len() >= TOLD_MAX {
            state.dropped += 1;
            return;
        }
        state.told.push_back(told);
        drop(state);
        self.work.notify_one();
    }
}

/// What the stage remembers of an operation that it asked about.
#[derive(Debug)]
pub(crate) struct Visit {
    asked: Arc<Asked>,
    notes: Notes,
    since: Duration,
}

/// Asks the desk about everything that passes.
pub(crate) struct Asking {
    desk: Arc<Desk>,
    clock: Arc<dyn Clock>,
}

impl Asking {
    pub(crate) fn new(desk: &Arc<Desk>, clock: &Arc<dyn Clock>) -> Self {
        Self { desk: Arc::clone(desk), clock: Arc::clone(clock) }
    }
}

impl Stage for Asking {
    fn place(&self) -> Place {
        Place::Policy
    }

    fn enter(&self, pass: &Pass<'_>) -> Result<()> {
        let (context, request) = (pass.context(), pass.request());
        // What sets the store up is not asked about: so it is possible to get rid of a policy.
        let is_setting_up = request.operation.starts_with("store.");
        if !self.desk.is_served.load(Ordering::Acquire) || ANSWERS.get() || is_setting_up {
            return Ok(());
        }
        let asked = Arc::new(Asked {
            operation: request.operation,
            access: request.access,
            resource: request.resource.clone(),
            principal: context.principal().to_string(),
            tenant: context.tenant().map(str::to_owned),
            correlation: context.correlation(),
        });
        let Some((answer, limit)) = self.desk.put(&asked) else { return Ok(()) };
        let notes = match answer.wait(limit.min(context.deadline().remaining())) {
            Some(Verdict::Allow(notes)) => notes,
            Some(Verdict::Refuse(reason)) => {
                return Err(Error::new(&codes::POLICY_REFUSED, reason));
            }
            None => {
                // Nobody is to answer it any more.
                answer.give(Verdict::Refuse(String::new()));
                context.deadline().check()?;
                let text = format!("no policy answered within {limit:?}");
                return Err(Error::new(&codes::PLUGIN_TIMEOUT, text));
            }
        };
        let since = self.clock.monotonic();
        pass.remember(Visit { asked, notes, since });
        Ok(())
    }

    fn leave(&self, pass: &Pass<'_>, outcome: Result<(), &Error>) {
        let Some(Visit { asked, notes, since }) = pass.recall() else { return };
        let elapsed = self.clock.monotonic().saturating_sub(since);
        let code = outcome.err().map(|error| error.code().name);
        self.desk.tell(Told { asked, code, elapsed, notes });
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
