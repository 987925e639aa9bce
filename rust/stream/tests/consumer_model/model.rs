//! A consumer that is slow and obviously right: a list of messages, walked from its start each time.

use dwk_stream::consumer::{
    Ack, Brief, ConsumerConfig, DeadLetter, Delivered, Ending, Event, HISTORY_MAX, Reason, Token,
};

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum State {
    Waits,
    Out { until: u64 },
    Due { at: u64, returned: bool },
    Dead,
    Done,
}

#[derive(Clone, Debug)]
pub(crate) struct Message {
    pub(crate) sequence: u64,
    priority: u8,
    matches: bool,
    /// It was read since the consumer was opened.
    read: bool,
    pub(crate) state: State,
    pub(crate) total: u32,
    before: u32,
    history: Vec<Event>,
    reason: Reason,
    /// It was redriven when everything up to it was done.
    below: bool,
}

impl Message {
    const fn deliveries(&self) -> u32 {
        self.total - self.before
    }

    const fn is_held(&self) -> bool {
        matches!(self.state, State::Out { .. } | State::Due { .. })
    }

    fn remember(&mut self, at: u64, ending: Ending) {
        self.history.push(Event { unix_ms: at / 1_000_000, ending });
        if self.history.len() > HISTORY_MAX {
            self.history.remove(0);
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Model {
    config: ConsumerConfig,
    pub(crate) now: u64,
    pub(crate) paused: bool,
    /// Those that were ever read.
    pub(crate) messages: Vec<Message>,
    top: u64,
}

impl Model {
    pub(crate) fn new(config: ConsumerConfig, now: u64) -> Self {
        Self { config, now, paused: false, messages: Vec::new(), top: 0 }
    }

    fn at(&mut self, sequence: u64) -> Option<&mut Message> {
        self.messages.iter_mut().find(|message| message.sequence == sequence)
    }

    /// The messages before the first one that is not done.
    pub(crate) fn done(&self) -> impl Iterator<Item = &Message> {
        let is_done = |message: &&Message| message.state == State::Done || message.below;
        self.messages.iter().take_while(is_done)
    }

    /// The first one that is not done.
    pub(crate) fn open(&self) -> Option<&Message> {
        self.messages.get(self.done().count())
    }

    pub(crate) fn count(&self, is: impl Fn(&State) -> bool) -> u64 {
        self.messages.iter().filter(|message| is(&message.state)).count() as u64
    }

    pub(crate) fn offered(&mut self, briefs: &[Brief]) {
        for brief in briefs {
            let Brief { sequence, priority, matches } = *brief;
            // What was to be read again and is not there.
            for message in &mut self.messages {
                if message.sequence < sequence && message.state == State::Waits && !message.read {
                    message.state = State::Done;
                }
            }
            if let Some(message) = self.at(sequence) {
                message.read = true;
                continue;
            }
            let state = if matches { State::Waits } else { State::Done };
            self.messages.push(Message {
                sequence,
                priority,
                matches,
                read: true,
                state,
                total: 0,
                before: 0,
                history: Vec::new(),
                reason: Reason::Exhausted,
                below: false,
            });
        }
    }

    pub(crate) fn gone(&mut self, sequence: u64) {
        if let Some(message) = self.at(sequence)
            && message.state != State::Dead
        {
            message.state = State::Done;
        }
    }

    pub(crate) fn tick(&mut self, now: u64) -> Vec<u64> {
        self.now = self.now.max(now);
        let mut over: Vec<(u64, u64)> = Vec::new();
        for message in &self.messages {
            if let State::Out { until } = message.state
                && until <= self.now
            {
                over.push((until, message.sequence));
            }
        }
        over.sort_unstable();
        for (until, sequence) in &over {
            self.end(*sequence, *until, Ending::Expired, None);
        }
        over.into_iter().map(|(_, sequence)| sequence).collect()
    }

    fn end(&mut self, sequence: u64, at: u64, ending: Ending, delay: Option<u64>) {
        let config = self.config.clone();
        let message = self.at(sequence).unwrap();
        message.remember(at, ending);
        let index = (message.deliveries() as usize).min(config.backoff.len());
        let backoff = if index == 0 { 0 } else { config.backoff[index - 1].as_nanos() as u64 };
        let at = at + delay.unwrap_or(backoff);
        message.state = State::Due { at, returned: ending == Ending::Returned };
        if config.max_deliver.is_some_and(|max| message.deliveries() >= max) {
            self.die(sequence, Reason::Exhausted);
        }
    }

    fn die(&mut self, sequence: u64, reason: Reason) {
        let keeps = self.config.dead_letter;
        let message = self.at(sequence).unwrap();
        message.state = if keeps { State::Dead } else { State::Done };
        message.below &= keeps;
        message.reason = reason;
    }

    pub(crate) fn fetch(&mut self, now: u64, limit: usize) -> Vec<Delivered> {
        self.tick(now);
        let mut fetched = Vec::new();
        while fetched.len() < limit && !self.paused {
            let Some(sequence) = self.due().or_else(|| self.urgent()) else { break };
            let until = self.now + self.config.ack_wait.as_nanos() as u64;
            let is_done = self.config.ack == Ack::None;
            self.top = self.top.max(sequence);
            let message = self.at(sequence).unwrap();
            message.total += 1;
            message.state = if is_done { State::Done } else { State::Out { until } };
            let token = Token { sequence, delivery: message.total };
            fetched.push(Delivered { sequence, deliveries: message.deliveries(), token });
        }
        fetched
    }

    /// What was due first.
    fn due(&self) -> Option<u64> {
        let due = self.messages.iter().filter_map(|message| match message.state {
            State::Due { at, .. } if at <= self.now => Some((at, message.sequence)),
            _ => None,
        });
        due.min().map(|(_, sequence)| sequence)
    }

    /// What is new, as the priority window says, if there is room.
    fn urgent(&self) -> Option<u64> {
        let busy = |message: &&Message| message.is_held() || message.state == State::Dead;
        if self.messages.iter().filter(busy).count() >= self.config.max_ack_pending as usize {
            return None;
        }
        let waits = |message: &Message| message.state == State::Waits && message.read;
        let front = self.messages.iter().position(waits)?;
        let window = self.config.priority_window.max(1) as usize;
        let places = self.messages[front..].iter().filter(|m| m.matches && m.read).take(window);
        let mut near: Vec<&Message> = places.filter(|message| waits(message)).collect();
        near.sort_by_key(|message| std::cmp::Reverse(message.priority));
        Some(near[0].sequence)
    }

    pub(crate) fn is_ready(&mut self, now: u64) -> bool {
        self.tick(now);
        !self.paused && (self.due().is_some() || self.urgent().is_some())
    }

    pub(crate) fn next_due(&self) -> Option<u64> {
        let times = self.messages.iter().filter_map(|message| match message.state {
            State::Out { until } => Some(until),
            State::Due { at, .. } => Some(at),
            _ => None,
        });
        times.min()
    }

    pub(crate) fn is_live(&self, token: Token) -> bool {
        self.messages.iter().any(|message| {
            message.sequence == token.sequence
                && message.total == token.delivery
                && matches!(message.state, State::Out { .. } | State::Due { returned: false, .. })
        })
    }

    /// The numbers of what is done by it.
    pub(crate) fn ack(&mut self, token: Token) -> Vec<u64> {
        let all = self.config.ack == Ack::All;
        let mut done = Vec::new();
        for message in &mut self.messages {
            let left_over = matches!(message.state, State::Due { .. })
                && message.history.last().is_some_and(|event| {
                    matches!(event.ending, Ending::Restarted | Ending::Withdrawn)
                });
            let covered =
                all && message.sequence < token.sequence && message.deliveries() > 0 && !left_over;
            if message.is_held() && (covered || message.sequence == token.sequence) {
                message.state = State::Done;
                done.push(message.sequence);
            }
        }
        done
    }

    pub(crate) fn nak(&mut self, token: Token, delay: Option<u64>) {
        self.end(token.sequence, self.now, Ending::Returned, delay);
    }

    pub(crate) fn withdraw(&mut self, token: Token) {
        self.end(token.sequence, self.now, Ending::Withdrawn, Some(0));
    }

    pub(crate) fn term(&mut self, token: Token, reason: &str) {
        let now = self.now;
        self.at(token.sequence).unwrap().remember(now, Ending::Terminated);
        self.die(token.sequence, Reason::Terminated(reason.into()));
    }

    pub(crate) fn in_progress(&mut self, token: Token) {
        let until = self.now + self.config.ack_wait.as_nanos() as u64;
        self.at(token.sequence).unwrap().state = State::Out { until };
    }

    pub(crate) fn letters(&self) -> Vec<DeadLetter> {
        let dead = self.messages.iter().filter(|message| message.state == State::Dead);
        dead.map(|message| DeadLetter {
            sequence: message.sequence,
            reason: message.reason.clone(),
            deliveries: message.total,
            history: message.history.clone(),
        })
        .collect()
    }

    pub(crate) fn buried(&mut self, sequence: u64) {
        self.at(sequence).unwrap().state = State::Done;
    }

    /// Whether the message may be put back, and is then.
    pub(crate) fn redrive(&mut self, letter: &DeadLetter, room: bool) -> Option<bool> {
        let below = self.done().any(|message| message.sequence == letter.sequence);
        let now = self.now;
        let message = self.at(letter.sequence).unwrap();
        if message.is_held() || message.state == State::Waits {
            return Some(false);
        }
        if message.state != State::Dead && !room {
            return None;
        }
        (message.total, message.before) = (letter.deliveries, letter.deliveries);
        message.history.clone_from(&letter.history);
        message.state = State::Due { at: now, returned: true };
        message.below = below;
        Some(true)
    }

    /// The process ended, and this is the state that was saved last.
    pub(crate) fn reopened(&self, now: u64) -> Self {
        let mut model = self.clone();
        let known = model.done().last().map_or(0, |message| message.sequence).max(model.top);
        // What was never handed out is read again.
        model.messages.retain(|message| message.sequence <= known);
        model.messages.iter_mut().for_each(|message| message.read = false);
        // Nobody waits longer because the clock was set back.
        for message in &mut model.messages {
            if let State::Due { at, .. } = &mut message.state {
                *at = (*at).min(now + at.saturating_sub(self.now));
            }
        }
        model.now = now;
        let out = model.messages.iter().filter(|m| matches!(m.state, State::Out { .. }));
        let out: Vec<u64> = out.map(|message| message.sequence).collect();
        for sequence in out {
            model.end(sequence, now, Ending::Restarted, Some(0));
        }
        model
    }
}
