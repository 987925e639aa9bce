//! What one consumer has promised for each message, as somebody outside can know it.
//!
//! It never looks into the consumer: it knows what was handed out, what was answered, and which answers a cut may
//! have taken back. Where that leaves several things possible all of them are allowed, and nothing else is.

use std::collections::BTreeMap;
use std::time::Duration;

use dwk_stream::consumer::{Ending, HISTORY_MAX, Reason, Token};
use dwk_stream::{Ack, Buried, ConsumerConfig, Delivery, Retention};

use crate::told::{Gone, Known, Told};

/// What is to become of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It is delivered, again and again, until something else becomes of it.
    Open,
    /// It is done, which a power cut may take back.
    Soft,
    /// It is done or open, since a cut or a failure.
    Maybe,
    /// It is done for good.
    Done,
    /// It is a dead letter, which is durable.
    Dead,
}

/// Whether a message was out at the last opening and was not handed out since.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LeftOver {
    No,
    Unsure,
    Yes,
}

#[derive(Clone, Debug)]
#[allow(clippy::struct_excessive_bools, reason = "each is one thing that is known")]
pub(crate) struct State {
    pub(crate) fate: Fate,
    /// How often it was delivered since it was redriven, if ever.
    told: u32,
    /// How many fetches of this consumer had failed by then: each may have counted once more.
    failures: usize,
    /// Its count is not known at all.
    vague: bool,
    /// The last delivery, over all lives.
    pub(crate) token: Option<Token>,
    /// Until when somebody has it, in this life.
    pub(crate) out_until: Option<u64>,
    /// It is not delivered before, and if nothing else happens it is not later than the other.
    due: (u64, u64),
    /// A cut does not change when it is due.
    due_durable: bool,
    left_over: LeftOver,
    /// Who had it gave it back, in this life.
    settled: bool,
    handed_out_in: u64,
    pub(crate) redriven: bool,
    /// Messages behind it that came before it.
    overtaken: Vec<u64>,
    /// Its letter has to be there.
    pub(crate) letter: bool,
    /// Its letter may be there without saying anything.
    pub(crate) lingering: bool,
    /// It was given up, and who did was not told that this is durable.
    pending: bool,
    /// Why it was given up, as far as anybody said.
    pub(crate) reasons: Vec<String>,
    /// How its deliveries ended, if that is known for certain.
    pub(crate) history: Option<Vec<Ending>>,
}

impl Default for State {
    fn default() -> Self {
        Self {
            fate: Fate::Open,
            told: 0,
            failures: 0,
            vague: false,
            token: None,
            out_until: None,
            due: (0, 0),
            due_durable: true,
            left_over: LeftOver::No,
            settled: false,
            handed_out_in: 0,
            redriven: false,
            overtaken: Vec::new(),
            letter: false,
            lingering: false,
            pending: false,
            reasons: Vec::new(),
            history: Some(Vec::new()),
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Promise {
    pub(crate) config: ConsumerConfig,
    /// The first message that it is for.
    pub(crate) start: u64,
    pub(crate) states: BTreeMap<u64, State>,
    life: u64,
    /// The last message that was there at each fetch that failed.
    pub(crate) failures: Vec<u64>,
    pub(crate) paused: Option<bool>,
    /// The last message that was delivered for the first time: of all, and of each priority.
    top: u64,
    top_of: BTreeMap<u8, u64>,
    /// Before then something may have been saved last.
    saved_ns: u64,
}

fn ns(duration: Duration) -> u64 {
    duration.as_nanos() as u64
}

fn backoff(config: &ConsumerConfig, told: u32) -> u64 {
    let index = (told.max(1) as usize).min(config.backoff.len());
    if index == 0 { 0 } else { ns(config.backoff[index - 1]) }
}

impl Promise {
    pub(crate) fn new(config: ConsumerConfig, start: u64, now: u64) -> Self {
        let (states, top_of) = (BTreeMap::new(), BTreeMap::new());
        Self {
            config,
            start,
            states,
            life: 0,
            failures: Vec::new(),
            paused: Some(false),
            top: 0,
            top_of,
            saved_ns: now,
        }
    }

    /// What the stream does not show comes only if a cut brings it back.
    pub(crate) fn may_miss(&mut self, sequences: impl Iterator<Item = u64>) {
        for sequence in sequences {
            self.states.entry(sequence).or_default().fate = Fate::Maybe;
        }
    }

    pub(crate) fn wants(&self, sequence: u64, known: &Known) -> bool {
        sequence >= self.start && self.config.wants(&known.envelope)
    }

    /// How often a message may have been counted without anybody seeing it.
    fn unseen(&self, sequence: u64, state: &State) -> u64 {
        let since = &self.failures[state.failures..];
        since.iter().filter(|last| **last >= sequence).count() as u64
    }

    fn may_be_exhausted(&self, sequence: u64, state: &State) -> bool {
        let most = u64::from(state.told) + self.unseen(sequence, state);
        self.config.max_deliver.is_some_and(|max| state.vague || most >= u64::from(max))
    }

    fn is_exhausted(&self, state: &State) -> bool {
        self.config.max_deliver.is_some_and(|max| state.told >= max)
    }

    /// Everything up to now is durable.
    pub(crate) fn saved(&mut self, now: u64) {
        self.saved_ns = now;
        for state in self.states.values_mut() {
            if state.fate == Fate::Soft {
                state.fate = if state.pending { Fate::Dead } else { Fate::Done };
            }
            if state.out_until.is_none() {
                state.due_durable = true;
            }
        }
    }

    /// Something may have been saved.
    pub(crate) fn may_be_saved(&mut self, now: u64) {
        self.saved_ns = now;
    }

    /// An answer was taken: if the last save was a while ago, all of them are durable.
    fn answered(&mut self, now: u64) {
        if now - self.saved_ns >= ns(dwk_stream::LAZY) {
            self.saved(now);
        }
    }

    /// Deliveries whose time is over end when somebody fetches.
    fn expire(&mut self, now: u64) {
        let config = self.config.clone();
        for state in self.states.values_mut() {
            if let Some(until) = state.out_until.filter(|until| *until <= now) {
                let due = until + backoff(&config, state.told);
                state.out_until = None;
                (state.due, state.due_durable) = ((due, due), false);
                state.ended(Ending::Expired);
            }
        }
    }

    /// A fetch failed: what it would have delivered may have been counted.
    pub(crate) fn failed(&mut self, told: &Told, now: u64) {
        let last = told.there.keys().next_back().copied().unwrap_or(0);
        self.failures.push(last + told.unsure.len() as u64);
        self.saved_ns = now;
        // What it took out is due again at once.
        let config = self.config.clone();
        for state in self.states.values_mut() {
            if let Some(until) = state.out_until.filter(|until| *until <= now) {
                state.due = (0, until + backoff(&config, state.told));
                state.out_until = None;
            }
            if state.out_until.is_none() {
                state.due.1 = state.due.1.max(now);
                (state.due_durable, state.history) = (false, None);
            }
        }
    }

    /// These were handed out.
    pub(crate) fn fetched(&mut self, told: &Told, out: &[Delivery], limit: usize, now: u64) {
        self.expire(now);
        let who = format!("{}/{}", told.name, self.config.name);
        assert!(out.len() <= limit, "{who}: more than was asked for");
        assert!(self.paused != Some(true) || out.is_empty(), "{who}: it is paused");
        for one in out {
            self.delivered(&who, told, one, now);
        }
        if out.is_empty() {
            self.may_be_saved(now);
        } else {
            self.saved(now);
        }
        self.check_room(&who, told);
        // Those that were to come and were purged meanwhile took their places.
        let purged = told.there.iter().filter(|(_, known)| known.gone != Gone::No);
        let purged = purged.filter(|(sequence, known)| self.wants(**sequence, known));
        let places = out.len() + purged.count();
        if places < limit && self.paused == Some(false) {
            self.check_withheld(&who, told, out.is_empty(), now);
        }
    }

    fn delivered(&mut self, who: &str, told: &Told, one: &Delivery, now: u64) {
        let (sequence, count) = (one.stored.sequence, one.deliveries);
        let who = format!("{who}: {sequence}, {count}");
        let known = told.there.get(&sequence).unwrap_or_else(|| panic!("{who}: nobody sent it"));
        assert_eq!(known.envelope.data(), one.stored.envelope.data(), "{who}: another message");
        assert!(self.wants(sequence, known), "{who}: nobody asked for it");
        assert!(known.gone < Gone::Yes, "{who}: it was purged");
        self.check_order(&who, told, sequence, count);
        let (until, failures) = (now + ns(self.config.ack_wait), self.failures.len());
        let (delay, life) = (backoff(&self.config, count), self.life);
        let unseen = self.unseen(sequence, &self.states[&sequence]);
        let max = self.config.max_deliver;
        let is_done = self.config.ack == Ack::None;
        let state = self.states.entry(sequence).or_default();
        assert!(matches!(state.fate, Fate::Open | Fate::Maybe), "{who}: it is {:?}", state.fate);
        assert!(state.out_until.is_none(), "{who}: somebody has it");
        assert!(state.due.0 <= now, "{who}: {} ns early", state.due.0 - now);
        let (least, most) = (state.told + 1, u64::from(state.told) + 1 + unseen);
        let fits = (u64::from(least)..=most).contains(&u64::from(count));
        assert!(fits || state.vague, "{who}: not {least} to {most}");
        assert!(max.is_none_or(|max| count <= max), "{who}: too often");
        let is_new = state.token.is_none_or(|last| last.delivery < one.token.delivery);
        assert!(is_new && one.token.sequence == sequence, "{who}: an old token");
        if is_done {
            assert!(count == 1, "{who}: twice");
        }
        if u64::from(count) != u64::from(least) {
            state.history = None;
        }
        state.fate = if is_done { Fate::Done } else { Fate::Open };
        (state.told, state.failures, state.vague) = (count, failures, false);
        state.token = Some(one.token);
        state.out_until = Some(until).filter(|_| !is_done);
        (state.due, state.due_durable) = ((until + delay, until + delay), true);
        (state.left_over, state.settled, state.handed_out_in) = (LeftOver::No, false, life);
        state.pending = false;
    }

    /// First deliveries come in the stream's order, or as the priority window says.
    fn check_order(&mut self, who: &str, told: &Told, sequence: u64, count: u32) {
        let state = self.states.entry(sequence).or_default();
        if count > 1 || state.told > 0 || state.redriven {
            return;
        }
        let priority = told.there[&sequence].envelope.message().priority;
        let window = self.config.priority_window.max(1);
        if window == 1 {
            assert!(sequence > self.top, "{who}: after {}", self.top);
        }
        let last = self.top_of.insert(priority, sequence).unwrap_or(0);
        assert!(sequence > last, "{who}: after {last}, which is as urgent");
        self.top = self.top.max(sequence);
        for (before, known) in told.there.range(self.start..sequence) {
            if known.gone != Gone::No || !self.wants(*before, known) {
                continue;
            }
            let unseen = self.states.get(before).map(|state| self.unseen(*before, state));
            let unseen = unseen.unwrap_or_else(|| self.unseen(*before, &State::default()));
            let state = self.states.entry(*before).or_default();
            let is_new = state.told == 0 && !state.redriven && unseen == 0;
            if is_new && state.fate == Fate::Open {
                // Those that went have no place any more.
                state.overtaken.retain(|other| told.there[other].gone == Gone::No);
                state.overtaken.push(sequence);
                let count = state.overtaken.len();
                assert!(count < window as usize, "{who}: {before} was overtaken too often");
            }
        }
    }

    /// Messages that are out or will be delivered again, for certain.
    fn check_room(&self, who: &str, told: &Told) {
        let is_held = |(sequence, state): &(&u64, &State)| {
            state.fate == Fate::Open
                && state.told > 0
                && !self.may_be_exhausted(**sequence, state)
                && told.there[sequence].gone == Gone::No
        };
        let held = self.states.iter().filter(is_held).count();
        assert!(held <= self.config.max_ack_pending as usize, "{who}: {held} are out");
    }

    /// What is due is handed out by who asks for more than there was.
    fn check_withheld(&self, who: &str, told: &Told, is_empty: bool, now: u64) {
        let there =
            told.there.iter().filter(|(_, known)| known.gone == Gone::No && !known.released);
        let there: Vec<_> = there.filter(|(n, known)| self.wants(**n, known)).collect();
        let fresh = State::default();
        let state = |sequence: &u64| self.states.get(sequence).unwrap_or(&fresh);
        let may_hold = |sequence: &u64| {
            let state = state(sequence);
            let is_unseen = self.unseen(*sequence, state) > 0;
            match state.fate {
                Fate::Open | Fate::Maybe => state.told > 0 || state.redriven || is_unseen,
                // Who is buried makes room, for the next fetch if this one had something to hand out.
                Fate::Soft => !is_empty && !state.reasons.is_empty(),
                Fate::Dead => !is_empty,
                Fate::Done => false,
            }
        };
        let held = told.there.keys().filter(|sequence| may_hold(sequence)).count();
        let has_room = held < self.config.max_ack_pending as usize;
        for (sequence, _) in there {
            let state = state(sequence);
            if state.fate != Fate::Open || state.vague || state.out_until.is_some() {
                continue;
            }
            if state.told > 0 || state.redriven {
                let is_late = state.due.1 <= now && !self.may_be_exhausted(*sequence, state);
                assert!(!is_late, "{who}: {sequence} is due and does not come: {state:?}");
            } else if has_room && self.unseen(*sequence, state) == 0 {
                panic!("{who}: {sequence} is new and does not come");
            }
        }
    }

    /// Whether an answer has to be taken, or refused; neither if it is not known.
    pub(crate) fn must_take(&self, token: Token, told: &Told) -> Option<bool> {
        let state = self.states.get(&token.sequence)?;
        let is_over = state.token != Some(token)
            || (state.settled && state.handed_out_in == self.life)
            || matches!(state.fate, Fate::Done | Fate::Dead | Fate::Soft);
        if is_over {
            return Some(false);
        }
        let is_there = told.there[&token.sequence].gone == Gone::No;
        (is_there && state.out_until.is_some()).then_some(true)
    }

    fn at(&mut self, token: Token) -> &mut State {
        self.states.entry(token.sequence).or_default()
    }

    /// An acknowledgement was taken; `told` if that was all right.
    pub(crate) fn acknowledged(&mut self, token: Token, told: bool, now: u64) {
        let (all, life, failures) = (self.config.ack == Ack::All, self.life, self.failures.len());
        let max = self.config.max_deliver.filter(|_| self.config.ack == Ack::All);
        for (sequence, state) in self.states.range_mut(..=token.sequence) {
            let is_it = *sequence == token.sequence;
            let is_dead = state.out_until.is_none() && max.is_some_and(|max| state.told >= max);
            if !is_it && (!all || state.told == 0 || state.fate != Fate::Open || is_dead) {
                continue;
            }
            if is_it || (state.handed_out_in == life && state.failures == failures) {
                state.fate = Fate::Soft;
            } else if state.left_over == LeftOver::Yes {
                continue;
            } else {
                state.fate = Fate::Maybe;
            }
            (state.out_until, state.settled, state.due) = (None, true, (0, u64::MAX));
            state.pending = false;
        }
        if told {
            self.answered(now);
        } else {
            self.may_be_saved(now);
        }
    }

    pub(crate) fn returned(&mut self, token: Token, delay: Option<Duration>, now: u64) {
        let told = self.at(token).told;
        let delay = delay.map_or_else(|| backoff(&self.config, told), ns);
        let state = self.at(token);
        (state.out_until, state.settled) = (None, true);
        (state.due, state.due_durable) = ((now + delay, now + delay), false);
        (state.fate, state.left_over, state.pending) = (Fate::Open, LeftOver::Unsure, false);
        state.ended(Ending::Returned);
    }

    pub(crate) fn prolonged(&mut self, token: Token, now: u64) {
        let told = self.at(token).told;
        let (wait, delay) = (ns(self.config.ack_wait), backoff(&self.config, told));
        let state = self.at(token);
        (state.fate, state.left_over, state.pending) = (Fate::Open, LeftOver::Unsure, false);
        state.out_until = Some(now + wait);
        (state.due, state.due_durable) = ((now + wait + delay, now + wait + delay), false);
    }

    /// A message was given up; `done` if that is durable.
    pub(crate) fn terminated(&mut self, token: Token, reason: &str, done: bool, now: u64) {
        let keeps = self.config.dead_letter;
        let state = self.at(token);
        (state.out_until, state.settled) = (None, true);
        state.ended(Ending::Terminated);
        state.reasons.push(reason.to_owned());
        (state.letter, state.pending) = (keeps && done, keeps && !done);
        state.fate = if keeps && done { Fate::Dead } else { Fate::Soft };
        self.may_be_saved(now);
        if keeps && done {
            self.saved(now);
        }
    }

    /// Everything is durable, and the dead are buried.
    pub(crate) fn flushed(&mut self, told: &Told, now: u64) {
        self.saved(now);
        if !self.config.dead_letter {
            return;
        }
        let is_dead = |this: &Self, state: &State| {
            let is_open = state.fate == Fate::Open && state.out_until.is_none() && !state.vague;
            (is_open && this.is_exhausted(state)) || (state.fate == Fate::Dead && state.pending)
        };
        let dead: Vec<u64> =
            self.states.iter().filter(|(_, state)| is_dead(self, state)).map(|(n, _)| *n).collect();
        for sequence in dead {
            if told.there[&sequence].gone == Gone::No
                && let Some(state) = self.states.get_mut(&sequence)
            {
                (state.fate, state.letter, state.pending) = (Fate::Dead, true, false);
            }
        }
    }

    pub(crate) fn redriven(&mut self, sequence: u64, now: u64) {
        let failures = self.failures.len();
        let state = self.states.entry(sequence).or_default();
        state.vague = state.lingering || state.fate != Fate::Dead;
        (state.fate, state.told, state.failures) = (Fate::Open, 0, failures);
        (state.out_until, state.due, state.due_durable) = (None, (0, now), true);
        (state.redriven, state.letter, state.lingering) = (true, false, false);
        state.reasons.clear();
        self.saved(now);
    }

    /// Its letter went, and a copy of its message was published.
    pub(crate) fn replaced(&mut self, sequence: u64, now: u64) {
        let state = self.states.entry(sequence).or_default();
        (state.fate, state.letter, state.lingering) = (Fate::Done, false, false);
        self.saved(now);
    }

    /// Somebody tried to redrive it.
    pub(crate) fn may_be_redriven(&mut self, sequence: u64, now: u64) {
        let state = self.states.entry(sequence).or_default();
        (state.fate, state.vague, state.letter, state.lingering) = (Fate::Maybe, true, false, true);
        (state.due, state.history, state.redriven) = ((0, u64::MAX), None, true);
        (state.out_until, state.left_over) = (None, LeftOver::Unsure);
        self.may_be_saved(now);
    }

    /// The consumer was opened again; `clean` if everything had been saved before.
    pub(crate) fn reopened(&mut self, now: u64, clean: bool) {
        if clean {
            self.saved(now);
        }
        self.life += 1;
        self.saved_ns = now;
        let longest = self.config.backoff.iter().map(|delay| ns(*delay)).max().unwrap_or(0);
        for state in self.states.values_mut() {
            let was_out = state.out_until.take();
            match state.fate {
                Fate::Soft => {
                    (state.fate, state.history) = (Fate::Maybe, None);
                    (state.due, state.left_over) = ((0, u64::MAX), LeftOver::Unsure);
                }
                Fate::Open | Fate::Maybe if was_out.is_some() => {
                    state.due = (0, now);
                    let is_certain = clean || was_out.is_some_and(|until| until > now);
                    state.left_over = if is_certain { LeftOver::Yes } else { LeftOver::Unsure };
                    if !clean && !state.due_durable {
                        // It may wait as it did before somebody asked for more time.
                        (state.due.1, state.history) = (now + longest, None);
                    }
                    state.ended(Ending::Restarted);
                }
                Fate::Open | Fate::Maybe => {
                    if !clean {
                        state.history = None;
                    }
                    if !clean && !state.due_durable {
                        // What was durable before may be later.
                        state.due = (0, state.due.1.max(now + ns(self.config.ack_wait) + longest));
                        state.left_over = LeftOver::Unsure;
                    }
                }
                Fate::Done | Fate::Dead => {}
            }
        }
    }

    /// These are all the dead letters there are.
    pub(crate) fn buried(&mut self, told: &Told, letters: &[Buried]) {
        let who = format!("{}/{}", told.name, self.config.name);
        for Buried { letter, envelope } in letters {
            let who = format!("{who}: letter {}", letter.sequence);
            assert!(
                self.may_be_dead(letter.sequence),
                "{who}: {letter:?} {:?}",
                self.states.get(&letter.sequence)
            );
            let ran_out = self.may_run_out(letter.sequence);
            let fresh = State::default();
            let state = self.states.get(&letter.sequence).unwrap_or(&fresh);
            let is_certain = self.unseen(letter.sequence, state) == 0;
            let most = u64::from(self.config.max_deliver.unwrap_or(0)) + self.failures.len() as u64;
            let state = self.states.entry(letter.sequence).or_default();
            if !is_certain {
                state.history = None;
            }
            match &letter.reason {
                Reason::Exhausted => assert!(ran_out || state.lingering, "{who}: not exhausted"),
                Reason::Terminated(why) => assert!(state.reasons.contains(why), "{who}: {why}"),
            }
            let last = state.token.map_or(0, |token| token.delivery);
            let is_less = letter.deliveries < last && !state.lingering;
            assert!(!is_less, "{who}: {} deliveries of {last}", letter.deliveries);
            let is_more = u64::from(letter.deliveries) > u64::from(last) + most;
            assert!(!is_more, "{who}: {} deliveries of {last}", letter.deliveries);
            if let Some(history) = state.history.as_ref().filter(|_| !state.lingering) {
                let endings: Vec<Ending> = letter.history.iter().map(|one| one.ending).collect();
                let from = history.len().saturating_sub(HISTORY_MAX);
                assert_eq!(endings, history[from..], "{who}: its history");
            }
            let known = &told.there[&letter.sequence];
            if let Some(envelope) = envelope {
                assert_eq!(envelope.data(), known.envelope.data(), "{who}: another message");
            } else {
                // Where the stream keeps it anyway, it need not be readable at the moment.
                let is_kept = told.retention == Retention::Limits;
                assert!(known.gone != Gone::No || is_kept, "{who}: without its message");
            }
            if !state.lingering {
                (state.fate, state.letter, state.pending) = (Fate::Dead, true, false);
            }
        }
        for (sequence, state) in self.states.iter().filter(|(_, state)| state.letter) {
            let is_there = letters.iter().any(|one| one.letter.sequence == *sequence);
            assert!(is_there, "{who}: the letter of {sequence} is not there: {state:?}");
        }
    }

    fn may_run_out(&self, sequence: u64) -> bool {
        let fresh = State::default();
        self.may_be_exhausted(sequence, self.states.get(&sequence).unwrap_or(&fresh))
    }

    /// Whether the letter of a message may be there.
    pub(crate) fn may_be_dead(&self, sequence: u64) -> bool {
        let fresh = State::default();
        let state = self.states.get(&sequence).unwrap_or(&fresh);
        let is_given_up = !state.reasons.is_empty() || self.may_be_exhausted(sequence, state);
        let is_letter = state.letter || state.lingering || state.pending;
        let is_open = matches!(state.fate, Fate::Open | Fate::Soft | Fate::Maybe);
        is_letter || (self.config.dead_letter && is_given_up && is_open)
    }

    /// Who has done with this message needs it no more; false for certain only.
    pub(crate) fn may_let_go(&self, sequence: u64, known: &Known) -> bool {
        if !self.wants(sequence, known) {
            return true;
        }
        let fresh = State::default();
        let state = self.states.get(&sequence).unwrap_or(&fresh);
        let is_lost = self.config.ack == Ack::None && self.unseen(sequence, state) > 0;
        state.fate != Fate::Open || self.may_be_exhausted(sequence, state) || is_lost
    }

    /// Messages that nobody handled.
    pub(crate) fn unhandled(&self, told: &Told) -> Vec<u64> {
        let there = told.there.iter().filter(|(_, known)| known.gone == Gone::No);
        let open = there.filter(|(sequence, known)| {
            let fresh = State::default();
            let state = self.states.get(sequence).unwrap_or(&fresh);
            let is_dropped = !self.config.dead_letter && self.may_be_exhausted(**sequence, state);
            let is_lost = self.config.ack == Ack::None && self.unseen(**sequence, state) > 0;
            self.wants(**sequence, known) && state.fate == Fate::Open && !is_dropped && !is_lost
        });
        open.map(|(sequence, _)| *sequence).collect()
    }
}

impl State {
    fn ended(&mut self, ending: Ending) {
        if let Some(history) = &mut self.history {
            history.push(ending);
        }
    }
}
