//! What is in a mailbox, and the steps that change it. Nothing here waits or wakes.

use std::collections::VecDeque;
use std::task::Waker;

use dwk_base::{Error, codes};

use crate::Envelope;
use crate::policy::{Options, Policy};
use crate::receipt::Ticket;

/// A message that waits.
#[derive(Debug)]
pub(crate) struct Item {
    pub envelope: Envelope,
    pub ticket: Option<Ticket>,
    /// About how many bytes it takes in memory.
    pub cost: usize,
    lane: u32,
    /// Counts up: who came first is older.
    age: u64,
}

impl Item {
    pub(super) fn new(envelope: Envelope, ticket: Option<Ticket>, lane: usize) -> Self {
        let cost = envelope.cost_bytes();
        Self { envelope, ticket, cost, lane: lane as u32, age: 0 }
    }

    /// The worker of its key.
    #[cfg(test)]
    pub(super) fn worker(&self) -> usize {
        self.lane as usize - 1
    }

    pub(super) fn into_parts(self) -> (Envelope, Option<Ticket>) {
        (self.envelope, self.ticket)
    }

    /// Ends a message that there was no room for.
    pub(super) fn drop_for_room(self) {
        if let Some(ticket) = self.ticket {
            let text = "the subscription dropped the message: it had no room";
            ticket.settle(Err(Error::new(&codes::BUS_FULL, text)));
        }
    }
}

/// What is to be done without room.
#[derive(Clone, Copy, Debug)]
enum Without {
    Block,
    DropOldest,
    DropNewest,
    Spill,
}

/// The limits, and what they mean.
#[derive(Debug)]
pub(super) struct Rule {
    pub messages_max: usize,
    pub bytes_max: usize,
    without: Without,
}

impl Rule {
    pub(super) fn new(options: &Options) -> Self {
        let without = match options.policy {
            Policy::Block => Without::Block,
            Policy::DropOldest => Without::DropOldest,
            Policy::DropNewest => Without::DropNewest,
            Policy::Spill(_) => Without::Spill,
        };
        Self { messages_max: options.messages_max, bytes_max: options.bytes_max, without }
    }
}

/// What a mailbox did and holds.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counts {
    /// Messages that were taken in.
    pub queued: u64,
    /// Messages that were taken out.
    pub delivered: u64,
    /// Messages that the policy dropped.
    pub dropped: u64,
    /// Spilled messages that could not be read again.
    pub lost: u64,
    /// How often a publisher waited.
    pub waits: u64,
    /// Why a message was lost last.
    pub spill_error: Option<Error>,
    /// Messages that wait, spilled ones too.
    pub depth: usize,
    /// About the bytes of those in memory.
    pub depth_bytes: usize,
    pub spilled: usize,
    pub spilled_bytes: u64,
    /// When the oldest of those in memory was published.
    pub oldest_unix_ns: Option<u64>,
}

/// Where a message went.
pub(super) enum Admitted {
    Queued {
        lane: usize,
        victims: Vec<Item>,
    },
    Dropped(Item),
    Full(Item),
    Closed(Item),
    /// It belongs into the spill file.
    Spill(Item),
}

/// Threads in a condition variable, so that each is told once and not with every message until it runs.
#[derive(Debug, Default)]
pub(super) struct Sleepers {
    untold: usize,
    told: usize,
}

impl Sleepers {
    pub(super) fn enter(&mut self) {
        self.untold += 1;
    }

    /// After waking, for whatever reason: whoever wakes first takes the word, and looks.
    pub(super) fn leave(&mut self) {
        if self.told > 0 {
            self.told -= 1;
        } else {
            self.untold -= 1;
        }
    }

    fn is_some(&self) -> bool {
        self.untold + self.told > 0
    }

    /// True if somebody is to be woken who was not told yet.
    fn tell_one(&mut self) -> bool {
        let anybody = self.untold > 0;
        self.untold -= usize::from(anybody);
        self.told += usize::from(anybody);
        anybody
    }

    /// As `tell_one`, for everybody.
    pub(super) fn tell_all(&mut self) -> bool {
        let anybody = self.untold > 0;
        self.told += std::mem::take(&mut self.untold);
        anybody
    }
}

#[derive(Debug)]
pub(super) struct State {
    lanes: Box<[VecDeque<Item>]>,
    pub len: usize,
    pub bytes: usize,
    next_age: u64,
    /// Something is in the spill file, or on its way into it.
    pub spilling: bool,
    pub closed: bool,
    /// Who sleeps, by number: 0 takes from every lane, `n + 1` is worker `n`.
    pub takers: Box<[Sleepers]>,
    /// Publishers that sleep.
    pub publishers: Sleepers,
    /// Tasks that wait.
    pub wakers: Vec<Waker>,
    pub counts: Counts,
}

impl State {
    pub(super) fn new(lanes: usize) -> Self {
        Self {
            lanes: (0..lanes).map(|_| VecDeque::new()).collect(),
            len: 0,
            bytes: 0,
            next_age: 0,
            spilling: false,
            closed: false,
            takers: (0..lanes).map(|_| Sleepers::default()).collect(),
            publishers: Sleepers::default(),
            wakers: Vec::new(),
            counts: Counts::default(),
        }
    }

    /// One message always has room.
    pub(super) fn has_room(&self, rule: &Rule, cost: usize) -> bool {
        self.len == 0 || (self.len < rule.messages_max && self.bytes + cost <= rule.bytes_max)
    }

    /// True if a publisher that may wait has to.
    pub(super) fn must_wait(&self, rule: &Rule, cost: usize) -> bool {
        !self.closed && matches!(rule.without, Without::Block) && !self.has_room(rule, cost)
    }

    pub(super) fn admit(&mut self, rule: &Rule, item: Item) -> Admitted {
        if self.closed {
            return Admitted::Closed(item);
        }
        if self.spilling {
            return Admitted::Spill(item);
        }
        let mut victims = Vec::new();
        if !self.has_room(rule, item.cost) {
            match rule.without {
                Without::Block => return Admitted::Full(item),
                Without::Spill => return Admitted::Spill(item),
                Without::DropNewest => {
                    self.counts.dropped += 1;
                    return Admitted::Dropped(item);
                }
                Without::DropOldest => victims = self.make_room(rule, item.cost),
            }
        }
        Admitted::Queued { lane: self.push(item), victims }
    }

    fn make_room(&mut self, rule: &Rule, cost: usize) -> Vec<Item> {
        let mut victims = Vec::new();
        while !self.has_room(rule, cost)
            && let Some(victim) = self.oldest_lane(None).and_then(|lane| self.pop(lane))
        {
            victims.push(victim);
        }
        self.counts.dropped += victims.len() as u64;
        victims
    }

    /// Adds a message, whatever the limits; returns its lane.
    pub(super) fn push(&mut self, item: Item) -> usize {
        self.counts.queued += 1;
        let lane = item.lane as usize;
        self.restore(item);
        lane
    }

    /// Adds a message that was counted before.
    pub(super) fn restore(&mut self, mut item: Item) {
        item.age = self.next_age;
        self.next_age += 1;
        self.len += 1;
        self.bytes += item.cost;
        self.lanes[item.lane as usize].push_back(item);
    }

    /// Takes up to `limit` messages out for `worker`, or from every lane.
    pub(super) fn take(
        &mut self,
        worker: Option<usize>,
        limit: usize,
        into: &mut VecDeque<Item>,
    ) -> usize {
        let before = into.len();
        if let [only] = &mut *self.lanes {
            into.extend(only.drain(..limit.min(only.len())));
            self.len = only.len();
            self.bytes -= into.range(before..).map(|item| item.cost).sum::<usize>();
        } else {
            while into.len() - before < limit
                && let Some(item) = self.oldest_lane(worker).and_then(|lane| self.pop(lane))
            {
                into.push_back(item);
            }
        }
        let count = into.len() - before;
        self.counts.delivered += count as u64;
        count
    }

    fn pop(&mut self, lane: usize) -> Option<Item> {
        let item = self.lanes[lane].pop_front()?;
        self.len -= 1;
        self.bytes -= item.cost;
        Some(item)
    }

    /// Which of the lanes that `worker` may take from has the oldest message; of all lanes if it is `None`.
    fn oldest_lane(&self, worker: Option<usize>) -> Option<usize> {
        let age = |lane: usize| self.lanes[lane].front().map(|item| (item.age, lane));
        let found = match worker {
            Some(worker) if self.lanes.len() > 1 => {
                [0, worker + 1].into_iter().filter_map(age).min()
            }
            _ => (0..self.lanes.len()).filter_map(age).min(),
        };
        found.map(|(_, lane)| lane)
    }

    /// The message that waits longest.
    pub(super) fn oldest(&self) -> Option<&Item> {
        self.oldest_lane(None).and_then(|lane| self.lanes[lane].front())
    }

    /// True if a message just goes in.
    pub(super) fn is_open(&self, rule: &Rule, cost: usize) -> bool {
        !self.closed && !self.spilling && self.has_room(rule, cost)
    }

    /// True if somebody sleeps who takes from here too.
    pub(super) fn others_wait(&self) -> bool {
        !self.wakers.is_empty() || self.takers.iter().any(Sleepers::is_some)
    }

    /// True if nothing is there for `worker`, and something may come.
    pub(super) fn is_idle(&self, worker: Option<usize>) -> bool {
        let may_come = if self.spilling { self.len > 0 } else { !self.closed };
        may_come && self.oldest_lane(worker).is_none()
    }

    /// True if nothing will ever be there for `worker`.
    pub(super) fn is_over(&self, worker: Option<usize>) -> bool {
        self.closed && !self.spilling && self.oldest_lane(worker).is_none()
    }

    /// Tells one of those who sleep that something is in `lane`; returns whom to wake.
    pub(super) fn taker_for(&mut self, lane: usize) -> Option<usize> {
        let mut tell = |number: usize| self.takers[number].tell_one().then_some(number);
        tell(0).or_else(|| match lane {
            0 => (1..self.takers.len()).find(|number| self.takers[*number].tell_one()),
            lane => self.takers[lane].tell_one().then_some(lane),
        })
    }

    /// Tells one of those who sleep that something is left; returns whom to wake.
    pub(super) fn taker_for_any(&mut self) -> Option<usize> {
        if self.len == 0 {
            return None;
        }
        (0..self.lanes.len())
            .find_map(|lane| if self.lanes[lane].is_empty() { None } else { self.taker_for(lane) })
    }

    /// Takes everything out.
    pub(super) fn clear(&mut self) -> Vec<Item> {
        self.len = 0;
        self.bytes = 0;
        self.lanes.iter_mut().flat_map(std::mem::take).collect()
    }
}
