//! What is handed out, in which order, and what is done.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::time::Duration;

use dwk_base::Result;

use super::config::{Ack, ConsumerConfig, nanoseconds};
use super::letter::{DeadLetter, Ending, Event, Reason, remember};
use super::letters::Letters;
use super::outstanding::{Held, Outstanding, State};
use super::status::{ConsumerCounters, ConsumerStatus};
use super::waiting::Waiting;

/// How many messages are read ahead, beside those of the priority window.
const READ_AHEAD: usize = 256;

/// What the engine has to know of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Brief {
    /// Its number, from 1.
    pub sequence: u64,
    /// Higher is more urgent.
    pub priority: u8,
    /// True if the consumer wants it; what it does not want is passed over.
    pub matches: bool,
}

/// What the engine wants to know next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadFrom {
    /// The number from which to read.
    pub sequence: u64,
    /// How many messages, about.
    pub count: usize,
}

/// One delivery of one message; no other has the same token, also after a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Token {
    /// The message's number.
    pub sequence: u64,
    /// Which of all its deliveries this is, from 1; also counting those before it was redriven.
    pub delivery: u32,
}

/// A message that is handed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivered {
    /// Its number.
    pub sequence: u64,
    /// How often it was delivered with this time, from 1; since it was redriven, if it was.
    pub deliveries: u32,
    /// What its acknowledgement has to name.
    pub token: Token,
}

/// One consumer. See the [module](super).
#[derive(Clone, Debug)]
pub struct Engine {
    pub(super) config: ConsumerConfig,
    /// The latest time that was told.
    pub(super) now_ns: u64,
    /// When somebody used it last.
    pub(super) active_ns: u64,
    pub(super) is_paused: bool,
    /// Everything up to here is done; what is behind it is not, unless nothing is behind it.
    pub(super) floor: u64,
    /// The highest number that was handed out. What is between the floor and here and is neither held nor
    /// dead nor waiting nor unread is done: so done messages take no room.
    pub(super) top: u64,
    /// Everything up to here was offered.
    pub(super) read_to: u64,
    /// Numbers up to `top` that wait but have to be read again, after a restart.
    pub(super) unread: BTreeSet<u64>,
    pub(super) waiting: Waiting,
    pub(super) held: Outstanding,
    pub(super) letters: Letters,
    pub(super) counters: ConsumerCounters,
    pub(super) versions: Versions,
}

/// Numbers of states: the present one, the last one before which nothing may leave, the last one saved.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Versions {
    pub now: u64,
    pub urgent: u64,
    pub saved: u64,
}

impl Engine {
    /// A new consumer that begins at the message `first`, from 1: the number that `config.start` stands for.
    /// `now` is in nanoseconds since 1970, here and everywhere; a time before the last one counts as the last.
    ///
    /// # Errors
    /// `stream.option`
    pub fn new(config: ConsumerConfig, first: u64, now: u64) -> Result<Self> {
        config.check()?;
        let floor = first.saturating_sub(1);
        Ok(Self {
            config,
            now_ns: now,
            active_ns: now,
            is_paused: false,
            floor,
            top: 0,
            read_to: floor,
            unread: BTreeSet::new(),
            waiting: Waiting::default(),
            held: Outstanding::default(),
            letters: Letters::default(),
            counters: ConsumerCounters::default(),
            versions: Versions { now: 1, urgent: 1, saved: 0 },
        })
    }

    /// What it was made with.
    pub const fn config(&self) -> &ConsumerConfig {
        &self.config
    }

    // --- What the stream has ----------------------------------------------------------------------

    /// What is to be read and [offered](Self::offered) next, if enough is not read ahead already.
    pub fn wants(&self) -> Option<ReadFrom> {
        let window = self.config.priority_window as usize;
        let count = (window + READ_AHEAD).saturating_sub(self.waiting.len());
        let sequence = self.read_to.saturating_add(1);
        (count >= READ_AHEAD / 2).then_some(ReadFrom { sequence, count })
    }

    /// Takes messages that were read from the number `from` on, in order and without leaving one out: a
    /// number between that is not among them is of no message. What is known already is passed over; from
    /// beyond what is [wanted](Self::wants) nothing is taken. That nothing is behind the last one, up to the
    /// stream's end, only [`gone`](Self::gone) can tell.
    pub fn offered(&mut self, from: u64, briefs: &[Brief]) {
        if from > self.read_to.saturating_add(1) {
            return;
        }
        for brief in briefs {
            if brief.sequence > self.read_to && brief.sequence < u64::MAX {
                self.offer(*brief);
            }
        }
        self.raise_floor();
    }

    fn offer(&mut self, brief: Brief) {
        self.lose_unread(self.read_to + 1..=brief.sequence - 1);
        self.read_to = brief.sequence;
        let waits = brief.sequence > self.top || self.unread.remove(&brief.sequence);
        match (brief.matches, waits) {
            (true, true) => self.waiting.push(brief.sequence, brief.priority),
            (true, false) => self.waiting.pass(),
            // Nobody wants it any more, if anybody did: it is done.
            (false, _) => {}
        }
    }

    /// The stream does not have the messages of these numbers any more: what was not done of them counts as
    /// done. Dead letters stay. To be told after a restart, too: up to the stream's first message, and behind
    /// the last one that was read if the stream's last number is higher.
    pub fn gone(&mut self, range: RangeInclusive<u64>) {
        let held: Vec<u64> = self.held.within(range.clone()).collect();
        for sequence in &held {
            self.held.remove(*sequence);
        }
        let waited = self.waiting.drop_within(&range);
        self.lose_unread(range.clone());
        self.counters.gone += (held.len() + waited) as u64;
        let end = (*range.end()).min(u64::MAX - 1);
        if *range.start() <= self.read_to.saturating_add(1) && end > self.read_to {
            self.read_to = end;
        }
        if held.len() + waited > 0 {
            self.changed();
        }
        self.raise_floor();
    }

    fn lose_unread(&mut self, range: RangeInclusive<u64>) {
        if range.is_empty() {
            return;
        }
        while let Some(sequence) = self.unread.range(range.clone()).next().copied() {
            self.unread.remove(&sequence);
            self.counters.gone += 1;
            self.changed();
        }
    }

    // --- Deliveries -------------------------------------------------------------------------------

    /// Hands out up to `limit` messages: first those that are due again, longest due first, then new ones.
    /// Nothing of it may leave before it is [saved](Self::must_save).
    pub fn fetch(&mut self, now: u64, limit: usize) -> Vec<Delivered> {
        let now = self.used(now);
        self.expire(now);
        let mut fetched = Vec::new();
        while fetched.len() < limit && !self.is_paused {
            let Some(next) = self.redeliver(now).or_else(|| self.deliver_new(now)) else { break };
            fetched.push(next);
        }
        if !fetched.is_empty() {
            self.counters.delivered += fetched.len() as u64;
            self.changed_before_leaving();
        }
        fetched
    }

    /// True if [`fetch`](Self::fetch) would hand something out. Ends deliveries as [`tick`](Self::tick) does.
    pub fn is_ready(&mut self, now: u64) -> bool {
        let now = self.at(now);
        self.expire(now);
        let is_due = self.held.first_redelivery().is_some_and(|(at_ns, _)| at_ns <= now);
        !self.is_paused && (is_due || (self.has_room() && self.waiting.len() > 0))
    }

    fn redeliver(&mut self, now: u64) -> Option<Delivered> {
        let (at_ns, sequence) = self.held.first_redelivery()?;
        if at_ns > now {
            return None;
        }
        let until_ns = now.saturating_add(self.config.ack_wait_ns());
        let delivered = self.held.change(sequence, |held| {
            held.total += 1;
            held.state = State::Out { until_ns };
            let token = Token { sequence, delivery: held.total };
            Delivered { sequence, deliveries: held.deliveries(), token }
        })?;
        self.counters.redelivered += 1;
        Some(delivered)
    }

    fn deliver_new(&mut self, now: u64) -> Option<Delivered> {
        if !self.has_room() {
            return None;
        }
        let sequence = self.waiting.take(self.config.priority_window)?;
        self.top = self.top.max(sequence);
        if self.config.ack == Ack::None {
            self.counters.acknowledged += 1;
            self.done(sequence);
        } else {
            let until_ns = now.saturating_add(self.config.ack_wait_ns());
            let state = State::Out { until_ns };
            let first_ms = milliseconds(now);
            let held = Held { total: 1, before: 0, first_ms, state, history: Vec::new() };
            self.held.insert(sequence, held);
        }
        let token = Token { sequence, delivery: 1 };
        Some(Delivered { sequence, deliveries: 1, token })
    }

    /// True if something new may be handed out.
    pub(super) fn has_room(&self) -> bool {
        self.held.len() + self.letters.len() < self.config.max_ack_pending as usize
    }

    /// Ends the deliveries whose time is over, and returns the numbers of their messages. [`fetch`](Self::fetch)
    /// does the same; this is for when nobody fetches.
    pub fn tick(&mut self, now: u64) -> Vec<u64> {
        let now = self.at(now);
        self.expire(now)
    }

    /// When there is something to do next: a delivery's time is over, a message is due again, or the consumer
    /// counts as [inactive](Self::inactive_at). It may be in the past.
    pub fn next_due(&self) -> Option<u64> {
        let expiry = self.held.first_expiry().map(|(at, _)| at);
        let redelivery = self.held.first_redelivery().map(|(at, _)| at);
        [expiry, redelivery, self.inactive_at()].into_iter().flatten().min()
    }

    fn expire(&mut self, now: u64) -> Vec<u64> {
        let mut expired = Vec::new();
        while let Some((until_ns, sequence)) = self.held.first_expiry() {
            if until_ns > now {
                break;
            }
            self.counters.expired += 1;
            self.end(sequence, until_ns, Ending::Expired, None);
            expired.push(sequence);
        }
        expired
    }

    /// A delivery ended at `at_ns` and its message is not done: it is due again after `delay_ns`, or after
    /// the backoff's, or it is dead.
    pub(super) fn end(&mut self, sequence: u64, at_ns: u64, ending: Ending, delay_ns: Option<u64>) {
        let config = &self.config;
        let exhausted = self.held.change(sequence, |held| {
            remember(&mut held.history, Event { unix_ms: milliseconds(at_ns), ending });
            let delay_ns = delay_ns.unwrap_or_else(|| config.backoff_ns(held.deliveries()));
            let at_ns = at_ns.saturating_add(delay_ns);
            held.state = State::Due { at_ns, returned: ending == Ending::Returned };
            config.is_exhausted(held.deliveries()) || held.total == u32::MAX
        });
        self.changed();
        if exhausted == Some(true) {
            self.counters.exhausted += 1;
            self.die(sequence, Reason::Exhausted);
        }
    }

    // --- What is done -----------------------------------------------------------------------------

    /// Every message up to this number is done, and never delivered again while that is saved; it never goes
    /// down, except to what was saved by a restart.
    pub const fn floor(&self) -> u64 {
        self.floor
    }

    /// Nobody here needs the messages up to this number any more: the floor, or less where one below it was
    /// redriven and is not done again.
    pub fn done_to(&self) -> u64 {
        let open = [self.held.within(..).next(), self.letters.within(..).next()];
        open.into_iter().flatten().map(|sequence| sequence - 1).fold(self.floor, u64::min)
    }

    pub(super) fn die(&mut self, sequence: u64, reason: Reason) {
        let Some(held) = self.held.remove(sequence) else { return };
        if self.config.dead_letter {
            let (deliveries, history) = (held.total, held.history);
            self.letters.insert(DeadLetter { sequence, reason, deliveries, history });
            self.changed_before_leaving();
        } else {
            self.counters.dropped += 1;
            self.done(sequence);
        }
    }

    /// Notes that a message is neither held nor dead nor waiting any more.
    pub(super) fn done(&mut self, sequence: u64) {
        self.changed();
        if sequence == self.floor + 1 {
            self.raise_floor();
        }
    }

    pub(super) fn raise_floor(&mut self) {
        let from = self.floor + 1;
        let open = [
            self.held.within(from..).next(),
            self.letters.within(from..).next(),
            self.waiting.first(),
            self.unread.first().copied(),
        ];
        let behind = self.read_to.max(self.top);
        let floor = open.into_iter().flatten().min().map_or(behind, |sequence| sequence - 1);
        if floor > self.floor {
            self.floor = floor;
            self.changed();
        }
    }

    // --- State ------------------------------------------------------------------------------------

    /// Hands nothing out until [`resume`](Self::resume); acknowledgements are taken, and times run.
    pub fn pause(&mut self) {
        self.is_paused = true;
        self.changed();
    }

    /// Hands out again.
    pub fn resume(&mut self) {
        self.is_paused = false;
        self.changed();
    }

    /// When the consumer counts as inactive if nobody fetches, acknowledges or [uses](Self::used) it; never
    /// while somebody has a message. A restart counts as use.
    pub fn inactive_at(&self) -> Option<u64> {
        let after = self.config.inactive_after.filter(|_| self.held.out() == 0)?;
        Some(self.active_ns.saturating_add(nanoseconds(after)))
    }

    /// Notes that somebody uses the consumer, for example waits for a message. Returns the time that counts.
    pub fn used(&mut self, now: u64) -> u64 {
        self.active_ns = self.at(now);
        self.now_ns
    }

    fn at(&mut self, now: u64) -> u64 {
        self.now_ns = self.now_ns.max(now);
        self.now_ns
    }

    /// How it stands. Looks at each message that is out.
    pub fn status(&self, now: u64) -> ConsumerStatus {
        let now_ms = milliseconds(now.max(self.now_ns));
        let oldest_ms = self.held.iter().map(|(_, held)| held.first_ms).min();
        let repeated = self.held.iter().filter(|(_, held)| held.deliveries() > 1).count();
        ConsumerStatus {
            floor_sequence: self.floor,
            delivered_sequence: self.top,
            waiting: (self.waiting.len() + self.unread.len()) as u64,
            out: self.held.out() as u64,
            scheduled: (self.held.len() - self.held.out()) as u64,
            repeated: repeated as u64,
            dead: self.letters.len() as u64,
            oldest_age: oldest_ms.map(|ms| Duration::from_millis(now_ms.saturating_sub(ms))),
            is_paused: self.is_paused,
            counters: self.counters,
        }
    }

    /// The number of this state: it rises with every change that a restart has to know of.
    pub const fn version(&self) -> u64 {
        self.versions.now
    }

    /// True if something that may not leave before it is saved was not saved: deliveries, dead letters.
    pub const fn must_save(&self) -> bool {
        self.versions.urgent > self.versions.saved
    }

    /// True if anything was not saved, acknowledgements for example.
    pub const fn is_unsaved(&self) -> bool {
        self.versions.now > self.versions.saved
    }

    /// The state of this version is durable, and with it every one before.
    pub fn saved(&mut self, version: u64) {
        self.versions.saved = self.versions.saved.max(version.min(self.versions.now));
    }

    pub(super) fn changed(&mut self) {
        self.versions.now += 1;
    }

    pub(super) fn changed_before_leaving(&mut self) {
        self.changed();
        self.versions.urgent = self.versions.now;
    }
}

pub(super) const fn milliseconds(unix_ns: u64) -> u64 {
    unix_ns / 1_000_000
}
