//! Those who wait for room or for items, in the order in which they came.
//!
//! Nothing is ever handed to a waiter: it is told to try again. So a waiter that is cancelled holds no
//! item, and one that was told and does not try passes the word on. Whoever tried in vain goes back to
//! its old place in the line.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::task::Waker;

use dwk_base::Deadline;

use crate::parker::{FOR_EVER, Parker, Slept};
use crate::sync::Ordering::{Relaxed, SeqCst};
use crate::sync::{AtomicUsize, Mutex, Padded, lock, seq_cst_for_loom};

/// The line of those who wait.
pub(crate) struct Waiters {
    /// How long the line is: read by everyone who adds what is waited for.
    waiting: Padded<AtomicUsize>,
    line: Mutex<Line>,
    /// How often somebody went to sleep.
    waits: AtomicUsize,
    /// The ticket, plus one, of a thread that was told by itself and has not tried yet; zero if there is none.
    underway: AtomicUsize,
}

#[derive(Default)]
struct Line {
    /// By ticket: who came first is told first.
    waiting: BTreeMap<u64, Waiting>,
    next_ticket: u64,
}

struct Waiting {
    /// How much it would take: who takes a batch is told once for all of it.
    wants: usize,
    waker: Waker,
    /// It is a thread that sleeps, and comes as soon as it can.
    is_thread: bool,
}

impl Default for Waiters {
    fn default() -> Self {
        let (waiting, waits) = (Padded(AtomicUsize::new(0)), AtomicUsize::new(0));
        Self { waiting, line: Mutex::new(Line::default()), waits, underway: AtomicUsize::new(0) }
    }
}

impl Waiters {
    /// Tells as many that `amount` more is there as would take it.
    #[inline]
    pub(crate) fn tell(&self, amount: usize) {
        seq_cst_for_loom();
        if self.waiting.load(SeqCst) > 0 {
            self.tell_first(amount);
        }
    }

    /// As [`tell`](Self::tell), for those who share a lock with all that wait: a thread that was told needs that
    /// lock as well, so a second one would only stand in its way. It is told once the first has tried, by
    /// whoever calls this then for what is left.
    #[inline]
    pub(crate) fn tell_one_at_a_time(&self, amount: usize) {
        if self.waiting.load(Relaxed) > 0 && self.underway.load(Relaxed) == 0 {
            self.tell_until_a_thread(amount);
        }
    }

    #[cold]
    fn tell_until_a_thread(&self, amount: usize) {
        let mut left = amount;
        while left > 0 {
            let mut line = lock(&self.line);
            let Some((ticket, first)) = line.waiting.pop_first() else { break };
            self.waiting.store(line.waiting.len(), SeqCst);
            if first.is_thread {
                self.underway.store(ticket as usize + 1, Relaxed);
            }
            drop(line);
            left = left.saturating_sub(first.wants);
            first.waker.wake();
            if first.is_thread {
                break;
            }
        }
    }

    /// The thread with this ticket has tried, or tries no more.
    fn arrived(&self, ticket: u64) {
        let _ = self.underway.compare_exchange(ticket as usize + 1, 0, Relaxed, Relaxed);
    }

    /// Tells everybody.
    pub(crate) fn tell_all(&self) {
        self.tell(usize::MAX);
    }

    /// How many wait.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(SeqCst)
    }

    /// How often somebody had to wait.
    pub(crate) fn waits(&self) -> usize {
        self.waits.load(Relaxed)
    }

    #[cold]
    fn tell_first(&self, amount: usize) {
        let mut told = Vec::new();
        let mut line = lock(&self.line);
        let mut left = amount;
        while left > 0 {
            let Some((_, first)) = line.waiting.pop_first() else { break };
            // "Everybody" is more than all of them want together.
            left = if amount == usize::MAX { amount } else { left.saturating_sub(first.wants) };
            told.push(first.waker);
        }
        self.waiting.store(line.waiting.len(), SeqCst);
        drop(line);
        for waker in told {
            waker.wake();
        }
    }

    /// Takes a place in the line, or gives the one that `ticket` has another waker. Returns the ticket and
    /// whether it was in the line before.
    fn enter(&self, ticket: Option<u64>, waiting: Waiting) -> (u64, bool) {
        let mut line = lock(&self.line);
        let ticket = ticket.unwrap_or(line.next_ticket);
        line.next_ticket = line.next_ticket.max(ticket + 1);
        self.arrived(ticket);
        let before = line.waiting.insert(ticket, waiting);
        self.waiting.store(line.waiting.len(), SeqCst);
        drop(line);
        seq_cst_for_loom();
        (ticket, before.is_some())
    }

    /// True if `ticket` is in the line.
    fn holds(&self, ticket: u64) -> bool {
        lock(&self.line).waiting.contains_key(&ticket)
    }

    /// Gives the place up. Returns false if it was told before.
    fn leave(&self, ticket: u64) -> bool {
        let mut line = lock(&self.line);
        let place = line.waiting.remove(&ticket);
        self.waiting.store(line.waiting.len(), SeqCst);
        drop(line);
        place.is_some()
    }
}

impl fmt::Debug for Waiters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Waiters").field("waiting", &self.waiting()).finish_non_exhaustive()
    }
}

/// One waiter's place: [`enroll`](Self::enroll), try, and only if that was in vain [`wait`](Self::wait).
///
/// Dropping it gives the place up, and passes on what it was told and did not use.
pub struct Turn {
    waiters: Arc<Waiters>,
    wants: usize,
    ticket: Option<u64>,
    /// It is in the line, or was told since it entered.
    enrolled: bool,
    /// It was told and has not said what came of it.
    told: bool,
    parker: Option<Arc<Parker>>,
}

/// How a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waited {
    /// It is worth another try.
    Told,
    /// The deadline passed.
    TimedOut,
    /// A signal came; who has nothing to do about it waits again.
    Interrupted,
}

impl Turn {
    pub(crate) fn new(waiters: &Arc<Waiters>, wants: usize) -> Self {
        let waiters = Arc::clone(waiters);
        Self {
            waiters,
            wants: wants.max(1),
            ticket: None,
            enrolled: false,
            told: false,
            parker: None,
        }
    }

    /// Enters the line with this thread as the one to be woken. What is tried after this misses nothing.
    pub fn enroll(&mut self) {
        let parker = Arc::clone(self.parker.get_or_insert_default());
        self.enter(parker.into(), true);
    }

    /// Enters the line with `waker`, or leaves the old waker for it.
    pub fn enroll_with(&mut self, waker: Waker) {
        self.enter(waker, false);
    }

    fn enter(&mut self, waker: Waker, is_thread: bool) {
        let waiting = Waiting { wants: self.wants, waker, is_thread };
        let (ticket, was_there) = self.waiters.enter(self.ticket, waiting);
        self.told |= self.enrolled && !was_there;
        self.ticket = Some(ticket);
        self.enrolled = true;
    }

    /// Sleeps until told, after [`enroll`](Self::enroll) and a try in vain.
    pub fn wait(&mut self, deadline: &Deadline) -> Waited {
        self.told = false;
        let (Some(ticket), Some(parker)) = (self.ticket, self.parker.clone()) else {
            return Waited::Told;
        };
        self.waiters.waits.fetch_add(1, Relaxed);
        loop {
            let slept = parker.sleep(deadline.remaining().min(FOR_EVER));
            if !self.waiters.holds(ticket) {
                self.enrolled = false;
                self.told = true;
                return Waited::Told;
            }
            match slept {
                Slept::Interrupted => return Waited::Interrupted,
                Slept::TimedOut if deadline.has_passed() => return Waited::TimedOut,
                // Rung by an earlier turn's teller, or a little early.
                Slept::Woken | Slept::TimedOut => {}
            }
        }
    }

    /// Ends the turn with what was waited for; what it was told was used for that.
    pub fn served(mut self) {
        self.told = false;
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let left = match self.ticket {
            Some(ticket) if self.enrolled => self.waiters.leave(ticket),
            _ => true,
        };
        if let Some(ticket) = self.ticket {
            self.waiters.arrived(ticket);
        }
        if self.told || !left {
            self.waiters.tell(self.wants);
        }
    }
}

impl fmt::Debug for Turn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Turn").field("ticket", &self.ticket).finish_non_exhaustive()
    }
}
