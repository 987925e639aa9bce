//! Long random histories: the engine does what the slow model does, and what was promised holds, also over
//! crashes that lose what was not saved.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

#[path = "consumer_model/model.rs"]
mod model;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use dwk_base::codes;
use dwk_stream::consumer::{Ack, Brief, ConsumerConfig, DeadLetter, Delivered, Engine, Token};
use model::{Model, State};
use proptest::prelude::*;

const SECOND: u64 = 1_000_000_000;
const NOW: u64 = 1_780_000_000 * SECOND;

#[derive(Clone, Debug)]
enum Step {
    /// So many messages come; gaps between their numbers, priorities and whether they match are drawn.
    Publish(Vec<(u8, u8, bool)>),
    /// So many are read; some that are known already, too.
    Read {
        count: usize,
        again: u64,
    },
    /// Some are read from too far on.
    ReadBeyond,
    Fetch {
        limit: usize,
    },
    /// The process ends between saving and handing out.
    FetchAndCrash {
        limit: usize,
        saves: bool,
    },
    /// What was handed out does not leave, because it cannot be saved or read.
    FetchAndWithdraw {
        limit: usize,
        saves: bool,
    },
    Ack(prop::sample::Index),
    Nak(prop::sample::Index, Option<u64>),
    Term(prop::sample::Index),
    InProgress(prop::sample::Index),
    Pass {
        seconds: u64,
    },
    Tick,
    /// The stream drops the oldest messages.
    Expire {
        count: usize,
    },
    /// The stream drops one message.
    Drop(prop::sample::Index),
    Bury {
        skips: bool,
    },
    Redrive(prop::sample::Index),
    Save,
    Crash,
    /// It is closed in order, and opened again.
    Reopen,
    /// The process ends, and until it starts again the clock is set back.
    SetBack {
        seconds: u64,
    },
    Pause(bool),
}

fn steps() -> impl Strategy<Value = Step> {
    let index = any::<prop::sample::Index>;
    let message = (1u8..4, 0u8..3, prop::bool::weighted(0.8));
    prop_oneof![
        3 => prop::collection::vec(message, 1..8).prop_map(Step::Publish),
        5 => (1usize..8, 0u64..5).prop_map(|(count, again)| Step::Read { count, again }),
        1 => Just(Step::ReadBeyond),
        8 => (1usize..5).prop_map(|limit| Step::Fetch { limit }),
        1 => (1usize..5, any::<bool>()).prop_map(|(limit, saves)| Step::FetchAndCrash { limit, saves }),
        1 => (1usize..5, any::<bool>())
            .prop_map(|(limit, saves)| Step::FetchAndWithdraw { limit, saves }),
        8 => index().prop_map(Step::Ack),
        4 => (index(), prop::option::of(0u64..20)).prop_map(|(at, delay)| Step::Nak(at, delay)),
        1 => index().prop_map(Step::Term),
        2 => index().prop_map(Step::InProgress),
        5 => (0u64..15).prop_map(|seconds| Step::Pass { seconds }),
        1 => Just(Step::Tick),
        1 => (1usize..4).prop_map(|count| Step::Expire { count }),
        1 => index().prop_map(Step::Drop),
        2 => prop::bool::weighted(0.2).prop_map(|skips| Step::Bury { skips }),
        1 => index().prop_map(Step::Redrive),
        3 => Just(Step::Save),
        1 => Just(Step::Crash),
        1 => Just(Step::Reopen),
        1 => (1u64..100).prop_map(|seconds| Step::SetBack { seconds }),
        1 => prop::bool::weighted(0.3).prop_map(Step::Pause),
    ]
}

prop_compose! {
    fn configs()(
        ack in prop_oneof![4 => Just(Ack::Explicit), 1 => Just(Ack::None), 2 => Just(Ack::All)],
        max_deliver in prop::option::of(1u32..4),
        backoff in prop::collection::vec((0u64..10).prop_map(Duration::from_secs), 0..3),
        (max_ack_pending, window) in (1u32..7, 0u32..5),
        dead_letter in prop::bool::weighted(0.8),
    ) -> ConsumerConfig {
        ConsumerConfig {
            ack,
            ack_wait: Duration::from_secs(10),
            max_deliver,
            backoff,
            max_ack_pending,
            priority_window: if ack == Ack::All { 0 } else { window },
            dead_letter,
            ..ConsumerConfig::new("billing")
        }
    }
}

/// What was seen outside, which no crash takes back.
#[derive(Default)]
struct Seen {
    /// Every token that left.
    left: Vec<Token>,
    /// The last delivery of each message that left.
    last: BTreeMap<u64, u32>,
    /// Acknowledged and saved; and not saved yet.
    durable: BTreeSet<u64>,
    acked: BTreeSet<u64>,
    /// Letters that are durable elsewhere; those of them that may go when the next state is saved.
    buried: BTreeMap<u64, DeadLetter>,
    redriven: BTreeSet<u64>,
    /// Saved as handed out, and never left, where deliveries are counted or nothing is delivered again.
    lost: BTreeSet<u64>,
    /// The last first delivery, by priority.
    newest: BTreeMap<u8, u64>,
}

struct World {
    config: ConsumerConfig,
    engine: Engine,
    model: Model,
    saved: (Vec<u8>, Model, u64),
    now: u64,
    log: Vec<Brief>,
    gone: BTreeSet<u64>,
    seen: Seen,
    floor: u64,
}

impl World {
    fn new(config: ConsumerConfig) -> Self {
        let engine = Engine::new(config.clone(), 1, NOW).unwrap();
        let model = Model::new(config.clone(), NOW);
        let saved = (engine.snapshot().bytes, model.clone(), 0);
        let (log, gone, seen) = (Vec::new(), BTreeSet::new(), Seen::default());
        Self { config, engine, model, saved, now: NOW, log, gone, seen, floor: 0 }
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Publish(messages) => self.publish(messages),
            Step::Read { count, again } => self.read(*count, *again),
            Step::ReadBeyond => {
                let from = self.engine.wants().unwrap().sequence + 1;
                self.engine.offered(from, &self.log_from(from));
            }
            Step::Fetch { limit } => {
                let fetched = self.fetch(*limit);
                self.save_if_it_must();
                self.leave(&fetched);
            }
            Step::FetchAndCrash { limit, saves } => {
                let fetched = self.fetch(*limit);
                if *saves {
                    self.save();
                    // These count as deliveries.
                    if self.config.ack == Ack::None || self.config.max_deliver.is_some() {
                        self.seen.lost.extend(fetched.iter().map(|delivered| delivered.sequence));
                    }
                }
                self.crash();
            }
            Step::FetchAndWithdraw { limit, saves } => self.fetch_and_withdraw(*limit, *saves),
            Step::Ack(at) => self.with_token(*at, Self::ack),
            Step::Nak(at, delay) => self.with_token(*at, |world, token| world.nak(token, *delay)),
            Step::Term(at) => self.with_token(*at, Self::term),
            Step::InProgress(at) => self.with_token(*at, Self::in_progress),
            Step::Pass { seconds } => self.now += seconds * SECOND,
            Step::Tick => assert_eq!(self.engine.tick(self.now), self.model.tick(self.now)),
            Step::Expire { count } => self.expire(*count),
            Step::Drop(at) => {
                if !self.log.is_empty() {
                    self.drop_message(at.get(&self.log).sequence);
                }
            }
            Step::Bury { skips } => self.bury(*skips),
            Step::Redrive(at) => self.redrive(*at),
            Step::Save => self.save(),
            Step::Crash => self.crash(),
            Step::Reopen => {
                self.save();
                self.crash();
            }
            Step::SetBack { seconds } => {
                self.now -= seconds * SECOND;
                self.crash();
            }
            Step::Pause(paused) => {
                if *paused {
                    self.engine.pause();
                } else {
                    self.engine.resume();
                }
                self.model.paused = *paused;
            }
        }
        self.check();
    }

    fn publish(&mut self, messages: &[(u8, u8, bool)]) {
        let mut sequence = self.log.last().map_or(0, |brief| brief.sequence);
        for (gap, priority, matches) in messages {
            sequence += u64::from(*gap);
            self.log.push(Brief { sequence, priority: *priority, matches: *matches });
        }
    }

    fn log_from(&self, from: u64) -> Vec<Brief> {
        let there = |brief: &&Brief| brief.sequence >= from && !self.gone.contains(&brief.sequence);
        self.log.iter().filter(there).copied().collect()
    }

    fn read(&mut self, count: usize, again: u64) {
        let wanted = self.engine.wants().unwrap();
        let from = wanted.sequence.saturating_sub(again).max(1);
        let known = self.log_from(from).iter().filter(|b| b.sequence < wanted.sequence).count();
        let briefs: Vec<_> = self.log_from(from).into_iter().take(known + count).collect();
        self.engine.offered(from, &briefs);
        // What lies before is known to both.
        let new = briefs.into_iter().filter(|brief| brief.sequence >= wanted.sequence);
        self.model.offered(&new.collect::<Vec<_>>());
    }

    fn fetch(&mut self, limit: usize) -> Vec<Delivered> {
        assert_eq!(self.engine.is_ready(self.now), self.model.is_ready(self.now));
        let fetched = self.engine.fetch(self.now, limit);
        assert_eq!(fetched, self.model.fetch(self.now, limit));
        fetched
    }

    fn fetch_and_withdraw(&mut self, limit: usize, saves: bool) {
        let fetched = self.fetch(limit);
        if saves {
            self.save();
        }
        for Delivered { sequence, token, .. } in fetched {
            let outcome = self.engine.withdraw(token, self.now);
            assert_eq!(outcome.is_ok(), self.model.is_live(token));
            if outcome.is_ok() {
                self.model.withdraw(token);
            }
            // It counts as a delivery.
            if self.config.ack == Ack::None || self.config.max_deliver.is_some() {
                self.seen.lost.insert(sequence);
            }
        }
    }

    /// Deliveries reach somebody. Each check is a promise of the module's page.
    fn leave(&mut self, fetched: &[Delivered]) {
        assert!(!self.engine.must_save(), "nothing leaves before it is saved");
        let seen = &mut self.seen;
        for Delivered { sequence, deliveries, token } in fetched {
            let last = seen.last.insert(*sequence, token.delivery).unwrap_or(0);
            assert!(token.delivery > last, "counts never go down, and no token is used twice");
            assert!(
                !seen.durable.contains(sequence),
                "{sequence}: acknowledged, and delivered again"
            );
            assert!(!seen.buried.contains_key(sequence), "{sequence}: buried, and delivered again");
            assert!(self.config.max_deliver.is_none_or(|max| *deliveries <= max), "too often");
            if token.delivery == 1 {
                let brief = self.log.iter().find(|brief| brief.sequence == *sequence).unwrap();
                assert!(brief.matches, "{sequence} is not wanted");
                let lane = if self.config.priority_window < 2 { 0 } else { brief.priority };
                let newest = seen.newest.insert(lane, *sequence);
                assert!(newest.is_none_or(|newest| newest < *sequence), "out of order");
            }
            seen.left.push(*token);
        }
    }

    fn with_token(&mut self, at: prop::sample::Index, act: impl FnOnce(&mut Self, Token)) {
        if !self.seen.left.is_empty() {
            let token = *at.get(&self.seen.left);
            self.model.now = self.model.now.max(self.now);
            act(self, token);
        }
    }

    fn ack(&mut self, token: Token) {
        let outcome = self.engine.ack(token, self.now);
        if self.model.is_live(token) {
            let done = self.model.ack(token);
            assert_eq!(outcome.unwrap(), done.len());
            self.seen.acked.extend(done);
        } else {
            assert!(outcome.unwrap_err().is(&codes::STREAM_ACK));
        }
    }

    fn nak(&mut self, token: Token, delay: Option<u64>) {
        let outcome = self.engine.nak(token, delay.map(Duration::from_secs), self.now);
        assert_eq!(outcome.is_ok(), self.model.is_live(token));
        if outcome.is_ok() {
            self.model.nak(token, delay.map(|delay| delay * SECOND));
        }
    }

    fn term(&mut self, token: Token) {
        let outcome = self.engine.term(token, "unreadable", self.now);
        assert_eq!(outcome.is_ok(), self.model.is_live(token));
        if outcome.is_ok() {
            self.model.term(token, "unreadable");
        }
    }

    fn in_progress(&mut self, token: Token) {
        let outcome = self.engine.in_progress(token, self.now);
        assert_eq!(outcome.is_ok(), self.model.is_live(token));
        if outcome.is_ok() {
            self.model.in_progress(token);
        }
    }

    fn expire(&mut self, count: usize) {
        let Some(brief) = self.log_from(0).into_iter().take(count).next_back() else { return };
        let to = brief.sequence;
        self.engine.gone(0..=to);
        let old = self.log.iter().map(|brief| brief.sequence).filter(|sequence| *sequence <= to);
        self.gone.extend(old.clone());
        old.for_each(|sequence| self.model.gone(sequence));
    }

    fn drop_message(&mut self, sequence: u64) {
        self.gone.insert(sequence);
        self.engine.gone(sequence..=sequence);
        self.model.gone(sequence);
    }

    fn bury(&mut self, skips: bool) {
        self.save_if_it_must();
        let Some(letter) = self.engine.dead().next().cloned() else { return };
        self.model.buried(letter.sequence);
        if skips {
            // As an acknowledgement: it may be lost with the process.
            assert!(self.engine.skip(letter.sequence));
            if !self.seen.buried.contains_key(&letter.sequence) {
                self.seen.acked.insert(letter.sequence);
            }
            return;
        }
        assert!(self.engine.buried(letter.sequence));
        let before = self.seen.buried.insert(letter.sequence, letter.clone());
        assert!(before.is_none_or(|before| before == letter), "it was buried as another one");
    }

    fn redrive(&mut self, at: prop::sample::Index) {
        let buried = self.seen.buried.values().cloned();
        let letters: Vec<_> = buried.chain(self.engine.dead().cloned()).collect();
        if letters.is_empty() {
            return;
        }
        let letter = at.get(&letters);
        self.model.now = self.model.now.max(self.now);
        let busy = |state: &State| !matches!(state, State::Waits | State::Done);
        let room = self.model.count(busy) < u64::from(self.config.max_ack_pending);
        let outcome = self.engine.redrive(letter, self.now);
        match self.model.redrive(letter, room) {
            Some(is_back) => assert_eq!(outcome.unwrap(), is_back),
            None => assert!(outcome.unwrap_err().is(&codes::STREAM_FULL)),
        }
        let is_due = |state: &State| matches!(state, State::Due { .. });
        if self.model.messages.iter().any(|m| m.sequence == letter.sequence && is_due(&m.state)) {
            self.seen.redriven.insert(letter.sequence);
        }
    }

    fn save_if_it_must(&mut self) {
        if self.engine.must_save() {
            self.save();
        }
    }

    fn save(&mut self) {
        let snapshot = self.engine.snapshot();
        self.engine.saved(snapshot.version);
        assert!(!self.engine.is_unsaved());
        self.saved = (snapshot.bytes, self.model.clone(), self.engine.floor());
        self.seen.durable.append(&mut self.seen.acked);
        for sequence in std::mem::take(&mut self.seen.redriven) {
            self.seen.buried.remove(&sequence);
        }
    }

    /// What was not saved is lost.
    fn crash(&mut self) {
        let (bytes, model, floor) = &self.saved;
        self.engine = Engine::restore(self.config.clone(), bytes, self.now).unwrap();
        self.model = model.reopened(self.now);
        assert_eq!(
            self.engine.floor().max(*floor),
            self.engine.floor(),
            "the floor that was saved"
        );
        self.floor = *floor;
        self.seen.acked.clear();
        self.seen.redriven.clear();
        // The driver finds the stream shorter, and misses messages when it reads them to deliver them again.
        // Those that were waiting are missed by themselves.
        let held: Vec<u64> =
            self.gone.iter().copied().filter(|sequence| self.holds(*sequence)).collect();
        for sequence in held {
            self.engine.gone(sequence..=sequence);
            self.model.gone(sequence);
        }
    }

    fn holds(&self, sequence: u64) -> bool {
        let is = |state: &State| matches!(state, State::Out { .. } | State::Due { .. });
        self.model.messages.iter().any(|m| m.sequence == sequence && is(&m.state))
    }

    /// What holds after each step.
    fn check(&mut self) {
        let (engine, model) = (&self.engine, &self.model);
        assert!(engine.floor() >= self.floor, "the floor went back");
        self.floor = engine.floor();
        assert!(
            model.done().last().is_none_or(|last| last.sequence <= self.floor),
            "done, not below"
        );
        assert!(model.open().is_none_or(|open| open.sequence > self.floor), "open, and below");
        let status = engine.status(self.now);
        let out = model.count(|state| matches!(state, State::Out { .. }));
        let scheduled = model.count(|state| matches!(state, State::Due { .. }));
        assert_eq!((status.out, status.scheduled), (out, scheduled));
        assert_eq!(status.waiting, model.count(|state| *state == State::Waits));
        assert_eq!(engine.dead().cloned().collect::<Vec<_>>(), model.letters());
        assert_eq!(engine.next_due(), model.next_due());
        let open = status.out + status.scheduled + status.dead;
        assert!(open <= u64::from(self.config.max_ack_pending), "too many out");
        // A state is read as it was written, when there is nothing in it that a restart changes.
        let reopened =
            |bytes: &[u8]| Engine::restore(self.config.clone(), bytes, self.now).unwrap();
        let bytes = reopened(&engine.snapshot().bytes).snapshot().bytes;
        assert_eq!(reopened(&bytes).snapshot().bytes, bytes);
    }

    /// Everything was read: what is missing up to the last number is not there.
    fn reach_the_end(&mut self) {
        let from = self.engine.wants().unwrap().sequence;
        let Some(last) = self.log.last().map(|brief| brief.sequence) else { return };
        if from <= last {
            self.engine.gone(from..=last);
            (from..=last).for_each(|sequence| self.model.gone(sequence));
        }
    }

    /// From now on everything goes well: then everything ends, and soon.
    fn finish(&mut self) {
        self.step(&Step::Pause(false));
        self.step(&Step::Tick);
        let mut rounds = 0;
        loop {
            self.step(&Step::Read { count: usize::MAX / 2, again: 0 });
            self.reach_the_end();
            let fetched = self.fetch(usize::MAX);
            self.save_if_it_must();
            self.leave(&fetched);
            for delivered in &fetched {
                self.model.now = self.model.now.max(self.now);
                if self.model.is_live(delivered.token) {
                    self.ack(delivered.token);
                }
            }
            while self.engine.dead().next().is_some() {
                self.bury(false);
            }
            self.check();
            assert_eq!(self.engine.is_ready(self.now), self.model.is_ready(self.now));
            if !self.engine.is_ready(self.now) {
                let Some(due) = self.engine.next_due() else { break };
                self.now = self.now.max(due);
            }
            rounds += 1;
            assert!(rounds < 1_000, "it does not end: {:?}", self.engine.status(self.now));
        }
        self.save();
        let open = self.model.messages.iter().filter(|message| message.state != State::Done);
        assert_eq!(open.count(), 0);
        for brief in &self.log {
            let Brief { sequence, matches, .. } = brief;
            let was_seen = self.seen.last.contains_key(sequence)
                || self.seen.lost.contains(sequence)
                || self.gone.contains(sequence);
            assert!(was_seen || !matches, "{sequence} was never delivered");
            let is_buried = self.seen.buried.contains_key(sequence);
            let is_settled = is_buried || self.seen.durable.contains(sequence);
            let needs_no_ack = self.config.ack == Ack::None || !self.config.dead_letter;
            let is_gone = self.gone.contains(sequence);
            assert!(is_settled || needs_no_ack || is_gone || !matches, "{sequence}: no end");
        }
        let last = self.log_from(0).last().map_or(0, |brief| brief.sequence);
        assert!(self.engine.floor() >= last, "everything is done");
    }
}

fn cases() -> u32 {
    if std::env::var_os("DWK_LONG").is_some() { 50_000 } else { 1_500 }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: cases(),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn in_any_history_the_engine_does_what_the_model_does_and_keeps_its_promises(
        config in configs(), steps in prop::collection::vec(steps(), 1..250),
    ) {
        let mut world = World::new(config);
        for step in &steps {
            world.step(step);
        }
        world.finish();
    }

    #[test]
    fn a_damaged_state_is_an_error_or_an_engine_that_works(
        config in configs(),
        steps in prop::collection::vec(steps(), 1..60),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut world = World::new(config.clone());
        for step in &steps {
            world.step(step);
        }
        let mut bytes = world.engine.snapshot().bytes;
        let piece = &bytes[..cut.index(bytes.len())];
        let error = Engine::restore(config.clone(), piece, NOW).unwrap_err();
        prop_assert!(error.is(&codes::FORMAT_DAMAGED));
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        match Engine::restore(config.clone(), &bytes, world.now) {
            Ok(engine) => use_it(engine, world.now),
            Err(error) => {
                let is_newer = error.is(&codes::FORMAT_NEWER) && bytes[0] != 0;
                prop_assert!(is_newer || error.is(&codes::FORMAT_DAMAGED));
            }
        }
    }

    #[test]
    fn any_bytes_are_an_error_or_an_engine_that_works(bytes: Vec<u8>) {
        let bytes = [&[0, 0], &bytes[..]].concat();
        match Engine::restore(ConsumerConfig::new("billing"), &bytes, NOW) {
            Ok(engine) => use_it(engine, NOW),
            Err(error) => prop_assert!(error.is(&codes::FORMAT_DAMAGED)),
        }
    }
}

/// Nothing in it panics, and it can be read again.
fn use_it(mut engine: Engine, now: u64) {
    engine.resume();
    engine.status(now);
    for now in [now, now + SECOND, u64::MAX] {
        if let Some(wanted) = engine.wants() {
            let brief = Brief { sequence: wanted.sequence, priority: 0, matches: true };
            engine.offered(wanted.sequence, &[brief]);
        }
        for delivered in engine.fetch(now, 20) {
            let _ = engine.ack(delivered.token, now);
        }
        let letters: Vec<_> = engine.dead().cloned().collect();
        for letter in letters {
            let _ = engine.redrive(&letter, now);
            engine.buried(letter.sequence);
        }
        engine.next_due();
        let floor = engine.floor();
        let bytes = engine.snapshot().bytes;
        engine = Engine::restore(engine.config().clone(), &bytes, now).unwrap();
        assert!(engine.floor() >= floor);
    }
    engine.gone(0..=u64::MAX);
}
