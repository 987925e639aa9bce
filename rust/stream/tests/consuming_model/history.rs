//! One random history: lives of a store, each ended by a close or a cut, and what happens in them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use dwk_base::{Clock, Deadline, Error, Result, codes};
use dwk_bus::Pattern;
use dwk_drive::faulty::{Effect, Fault, Operation};
use dwk_meta::{Change, Meta};
use dwk_stream::consumer::Token;
use dwk_stream::{Consumer, From, Retention, Stream, Streams};

use crate::chance::{Chance, SUBJECTS, name_of};
use crate::promise::Promise;
use crate::told::{Gone, Told};
use crate::world::{TENANT, World, never};

const NAMES: [&str; 3] = ["one", "two", "three"];
const CONSUMERS: [&str; 3] = ["c", "d", "e"];

/// A store that is open.
struct Life {
    meta: Arc<Meta>,
    streams: Streams,
    consumers: BTreeMap<(usize, &'static str), Consumer>,
}

/// A history under way.
pub(crate) struct History {
    world: World,
    chance: Chance,
    life: Option<Life>,
    told: Vec<Told>,
    promises: BTreeMap<(usize, &'static str), Promise>,
    /// Consumers that may be there or not, with what they promise if they are.
    unsure: BTreeMap<(usize, &'static str), Promise>,
    /// Consumers that may have been deleted.
    may_be_deleted: Vec<(usize, &'static str)>,
    /// What was handed out, newest last.
    tokens: Vec<((usize, &'static str), Token)>,
    /// Messages for two streams, together.
    together: Vec<[(usize, String); 2]>,
    /// Something is or was wrong with drives in this life.
    faults: bool,
    sick: usize,
    sent: usize,
    trace: bool,
    pub(crate) counts: Counts,
}

/// What happened, so that a test can say that enough did.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) cuts: u64,
    pub(crate) closes: u64,
    pub(crate) deliveries: u64,
    pub(crate) repeated: u64,
    pub(crate) letters: u64,
    pub(crate) redriven: u64,
    pub(crate) failures: u64,
}

impl Counts {
    pub(crate) fn add(&mut self, other: Self) {
        self.cuts += other.cuts;
        self.closes += other.closes;
        self.deliveries += other.deliveries;
        self.repeated += other.repeated;
        self.letters += other.letters;
        self.redriven += other.redriven;
        self.failures += other.failures;
    }
}

impl History {
    /// Runs the history of a seed; panics where a promise is broken.
    pub(crate) fn run(seed: u64, trace: bool) -> Counts {
        let world = World::new(seed);
        let mut history = Self {
            chance: Chance::new(seed ^ 0x5eed),
            life: None,
            told: Vec::new(),
            promises: BTreeMap::new(),
            unsure: BTreeMap::new(),
            may_be_deleted: Vec::new(),
            tokens: Vec::new(),
            together: Vec::new(),
            faults: false,
            sick: 0,
            sent: 0,
            trace,
            counts: Counts::default(),
            world,
        };
        history.world.options.merge_frames = 8;
        history.sick = history.chance.below(3) as usize;
        history.begin();
        for _ in 0..1 + history.chance.below(4) {
            history.live();
        }
        history.end();
        history.counts
    }

    fn say(&self, what: impl FnOnce() -> String) {
        if self.trace {
            eprintln!("{:>6.1} s: {}", (self.now() as f64) / 1e9 - 86_400.0, what());
        }
    }

    fn now(&self) -> u64 {
        self.world.clock.unix_ns()
    }

    fn is_cut(&self) -> bool {
        self.world.power.is_cut()
    }

    fn life(&self) -> &Life {
        self.life.as_ref().unwrap()
    }

    fn stream(&self, index: usize) -> Stream {
        self.life().streams.get(TENANT, NAMES[index]).unwrap()
    }

    fn begin(&mut self) {
        let meta = self.world.create().unwrap();
        let streams = self.world.streams(&meta).unwrap();
        for name in NAMES.iter().take(1 + self.chance.below(3) as usize) {
            let config = self.chance.stream();
            self.told.push(Told::new(name, config.retention));
            streams.create(TENANT, name, config, &never()).unwrap();
        }
        self.life = Some(Life { meta, streams, consumers: BTreeMap::new() });
        for _ in 0..self.chance.below(8) {
            self.publish();
        }
        for _ in 0..1 + self.chance.below(4) {
            self.make_consumer();
        }
    }

    /// One life: operations until it is closed or cut.
    fn live(&mut self) {
        if self.chance.one_in(3) {
            self.fail_drives();
        }
        let cut_after = self.chance.one_in(2).then(|| self.chance.below(12));
        for n in 0..10 + self.chance.below(40) {
            if cut_after == Some(n) {
                let steps = 1 + self.chance.below(80);
                self.say(|| format!("the power goes in {steps} steps"));
                self.world.power.cut_in(steps);
            }
            self.operate();
            if self.is_cut() {
                break;
            }
        }
        let closes = self.chance.one_in(2);
        self.reopen(closes);
    }

    fn operate(&mut self) {
        match self.chance.below(64) {
            0..10 => self.publish(),
            10..12 => self.publish_many(),
            12..14 => self.publish_together(),
            14..16 => self.publish_later(),
            16..32 => self.fetch(),
            32..48 => self.answer(),
            48..50 => self.flush(),
            50..54 => self.pass_time(),
            54 => self.purge(),
            55 => self.purge_subject(),
            56 | 57 => self.look_after(),
            58 => self.fold(),
            59 => self.make_consumer(),
            60 => self.delete_consumer(),
            61 => self.pause_or_resume(),
            _ => self.redrive(),
        }
    }

    /// Something failed: it may, if there is a reason, and it says what.
    fn failed(&mut self, what: &str, error: &Error) {
        self.say(|| format!("{what}: {error}"));
        self.counts.failures += 1;
        assert!(!error.is(&codes::INTERNAL_BUG), "{what}: {error}");
        let may = self.faults || self.is_cut();
        assert!(may, "{what}: {error:?}");
    }

    // --- Publishing -------------------------------------------------------------------------------

    fn message(&mut self) -> (String, dwk_bus::Envelope) {
        self.sent += 1;
        let envelope = self.chance.message(&self.world, &format!("m{}", self.sent));
        (name_of(&envelope), envelope)
    }

    fn any_stream(&self) -> usize {
        self.chance.below(self.told.len() as u64) as usize
    }

    fn publish(&mut self) {
        let (index, (name, envelope)) = (self.any_stream(), self.message());
        let (id, now) = (self.chance.one_in(2).then(|| name.clone()), self.now());
        for _ in 0..2 {
            let done = self.stream(index).publish(&envelope, id.as_deref(), &never());
            self.say(|| format!("{} takes {name}: {done:?}", NAMES[index]));
            match done {
                Ok(published) if !published.duplicate => {
                    self.told[index].unsure.remove(&name);
                    self.told[index].published(published.sequence, &envelope, now);
                }
                Ok(published) => self.is_there(index, &name, published.sequence),
                Err(error) => {
                    self.failed("publish", &error);
                    self.told[index].unsure.insert(name.clone());
                }
            }
            // Under its own id a message can be sent again, whatever became of it.
            if id.is_none() || !self.chance.one_in(4) {
                return;
            }
        }
    }

    /// A message is there already, under that number.
    fn is_there(&mut self, index: usize, name: &str, sequence: u64) {
        if self.told[index].number_of(name).is_none() {
            self.look(index);
        }
        assert_eq!(self.told[index].number_of(name), Some(sequence), "{name}");
    }

    fn publish_many(&mut self) {
        let index = self.any_stream();
        let count = 1 + self.chance.below(8);
        let messages: Vec<_> = (0..count).map(|_| (self.message().1, None)).collect();
        let done = self.stream(index).publish_many(&messages, &never());
        self.say(|| format!("{} takes {count}: {done:?}", NAMES[index]));
        match done {
            Ok(outcomes) => {
                let now = self.now();
                for ((envelope, _), published) in messages.iter().zip(outcomes) {
                    self.told[index].published(published.unwrap().sequence, envelope, now);
                }
            }
            Err(error) => {
                self.failed("publish many", &error);
                let names = messages.iter().map(|(envelope, _)| name_of(envelope));
                self.told[index].unsure.extend(names);
            }
        }
    }

    fn publish_together(&mut self) {
        let (one, two) = (self.any_stream(), self.any_stream());
        let messages = [(one, self.message().1), (two, self.message().1)];
        let mut outbox = self.life().streams.outbox();
        for (index, envelope) in &messages {
            outbox.add(&self.stream(*index), envelope, None).unwrap();
        }
        let done = outbox.commit(Change::new(), &never());
        self.say(|| format!("{one} and {two} take: {done:?}"));
        match done {
            Ok(routed) => {
                for ((index, envelope), routed) in messages.iter().zip(routed) {
                    let now = self.now();
                    self.told[*index].published(routed.published.sequence, envelope, now);
                }
            }
            Err(error) => {
                self.failed("outbox", &error);
                let names = messages.map(|(index, envelope)| (index, name_of(&envelope)));
                for (index, name) in &names {
                    self.told[*index].unsure.insert(name.clone());
                }
                self.together.push(names);
            }
        }
    }

    fn publish_later(&mut self) {
        let (index, (name, envelope)) = (self.any_stream(), self.message());
        let due = self.now() + self.chance.below(40) * 1_000_000_000;
        let done = self.stream(index).publish_at(&envelope, None, due, &never());
        self.say(|| format!("{} takes {name} for later: {done:?}", NAMES[index]));
        match done {
            Ok(()) => drop(self.told[index].delayed.insert(name, due)),
            Err(error) => {
                self.failed("publish later", &error);
                self.told[index].unsure_delayed.insert(name);
            }
        }
    }

    // --- Consumers --------------------------------------------------------------------------------

    fn any_consumer(&self) -> Option<((usize, &'static str), Consumer)> {
        let all: Vec<_> = self.life().consumers.iter().collect();
        if all.is_empty() {
            return None;
        }
        let (key, consumer) = self.chance.pick(&all);
        Some((*key, consumer.clone()))
    }

    fn make_consumer(&mut self) {
        let index = self.any_stream();
        let name = self.chance.pick(&CONSUMERS);
        if self.life().consumers.contains_key(&(index, name)) {
            return;
        }
        let stream = self.stream(index);
        let (now, last) = (self.now(), stream.status().last_sequence);
        let first = stream.status().first_sequence;
        let config = self.chance.consumer(name, last, now);
        // All of them, or what was published after an unknown outcome would be at issue.
        let at = |unix_ns| {
            let there = self.told[index].there.iter().filter(|(sequence, _)| **sequence >= first);
            let mut there = there.filter(|(_, known)| known.unix_ns >= unix_ns);
            there.next().map_or(last + 1, |(sequence, _)| *sequence)
        };
        let start = match config.start {
            From::First => first,
            From::Last => last.max(first),
            From::Next => last + 1,
            From::Sequence(sequence) => sequence,
            From::Time(unix_ns) => at(unix_ns),
        };
        let mut promise = Promise::new(config.clone(), start, now);
        let hidden = self.told[index].there.range(start.min(first)..first);
        promise.may_miss(hidden.map(|(sequence, _)| *sequence));
        let done = self.life().streams.create_consumer(&stream, config, &never());
        self.say(|| format!("make {}/{name}: {done:?}, {:?}", NAMES[index], promise.config));
        match done {
            Ok(consumer) => {
                self.unsure.remove(&(index, name));
                let letters = consumer.dead_letters(0, 99, &never());
                assert!(letters.is_ok_and(|all| all.is_empty()) || self.is_cut(), "it is new");
                self.promises.insert((index, name), promise);
                self.life.as_mut().unwrap().consumers.insert((index, name), consumer);
            }
            Err(error) => {
                self.failed("make a consumer", &error);
                self.unsure.insert((index, name), promise);
            }
        }
    }

    fn delete_consumer(&mut self) {
        let Some((key, consumer)) = self.any_consumer() else { return };
        let stream = self.stream(key.0);
        let done = self.life().streams.delete_consumer(&stream, key.1, &never());
        self.say(|| format!("delete {key:?}: {done:?}"));
        let is_gone = match done {
            Ok(()) => true,
            Err(error) => {
                self.failed("delete a consumer", &error);
                let still = self.life().streams.consumers(&stream, &never());
                still.is_ok_and(|all| all.iter().all(|one| one.name() != key.1))
            }
        };
        if is_gone {
            let error = consumer.fetch(1, &self.patience(), &never()).unwrap_err();
            assert!(error.is(&codes::STREAM_CONSUMER_NOT_FOUND), "{error}");
            let token = self.tokens.iter().rev().find(|(of, _)| *of == key);
            let taken = token.is_some_and(|(_, token)| consumer.ack(*token, &never()).is_ok());
            assert!(!taken, "{key:?} took an answer after its end");
            self.promises.remove(&key);
            self.tokens.retain(|(of, _)| *of != key);
            self.life.as_mut().unwrap().consumers.remove(&key);
        } else {
            self.may_be_deleted.push(key);
        }
    }

    fn patience(&self) -> Deadline {
        Deadline::after(Arc::clone(&self.world.clock) as Arc<dyn Clock>, Duration::ZERO)
    }

    fn fetch(&mut self) {
        let Some((key, consumer)) = self.any_consumer() else { return };
        let limit = 1 + self.chance.below(6) as usize;
        self.fetch_from(key, &consumer, limit);
    }

    fn fetch_from(
        &mut self,
        key: (usize, &'static str),
        consumer: &Consumer,
        limit: usize,
    ) -> Vec<Token> {
        let now = self.now();
        match consumer.fetch(limit, &self.patience(), &never()) {
            Ok(out) => {
                self.say(|| {
                    let out = out.iter().map(|one| (one.stored.sequence, one.deliveries));
                    format!("{key:?} hands out {:?}", out.collect::<Vec<_>>())
                });
                let told = &self.told[key.0];
                if out.iter().any(|one| !told.there.contains_key(&one.stored.sequence)) {
                    self.look(key.0);
                }
                let promise = self.promises.get_mut(&key).unwrap();
                promise.fetched(&self.told[key.0], &out, limit, now);
                self.counts.deliveries += out.len() as u64;
                let again = out.iter().filter(|one| one.deliveries > 1);
                self.counts.repeated += again.count() as u64;
                let tokens: Vec<Token> = out.iter().map(|one| one.token).collect();
                self.tokens.extend(tokens.iter().map(|token| (key, *token)));
                tokens
            }
            Err(error) => {
                self.promises.get_mut(&key).unwrap().failed(&self.told[key.0], now);
                self.failed("fetch", &error);
                Vec::new()
            }
        }
    }

    /// Somebody answers, mostly for one of the last deliveries.
    fn answer(&mut self) {
        if self.tokens.is_empty() {
            return;
        }
        let near = if self.chance.one_in(5) { self.tokens.len() as u64 } else { 6 };
        let back = self.chance.below(near.min(self.tokens.len() as u64)) as usize;
        let (key, token) = self.tokens[self.tokens.len() - 1 - back];
        let Some(consumer) = self.life().consumers.get(&key).cloned() else { return };
        let now = self.now();
        let promise = &self.promises[&key];
        let must = promise.must_take(token, &self.told[key.0]);
        let what = self.chance.below(16);
        let reason = format!("reason {}", self.sent);
        let delay = self.chance.pick(&[None, None, Some(Duration::from_secs(3))]);
        let done = match what {
            0..9 => consumer.ack(token, &never()).map(drop),
            9..12 => consumer.nak(token, delay),
            12..14 => consumer.term(token, &reason, &never()),
            _ => consumer.in_progress(token),
        };
        self.say(|| format!("{key:?} {token:?} is answered by {what}, {delay:?}: {done:?}"));
        let is_refused = done.as_ref().is_err_and(|error| error.is(&codes::STREAM_ACK));
        assert!(must != Some(true) || !is_refused, "{key:?}: {token:?}: refused");
        assert!(must != Some(false) || is_refused, "{key:?}: {token:?}: taken ({done:?})");
        if is_refused {
            return;
        }
        let promise = self.promises.get_mut(&key).unwrap();
        match what {
            0..9 => promise.acknowledged(token, done.is_ok(), now),
            9..12 => promise.returned(token, delay, now),
            12..14 => promise.terminated(token, &reason, done.is_ok(), now),
            _ => promise.prolonged(token, now),
        }
        if let Err(error) = done {
            self.failed("an answer", &error);
        } else if what < 3 {
            self.flush_of(key, &consumer);
        }
    }

    fn flush(&mut self) {
        let Some((key, consumer)) = self.any_consumer() else { return };
        self.flush_of(key, &consumer);
        self.letters_of(key, &consumer);
    }

    fn flush_of(&mut self, key: (usize, &'static str), consumer: &Consumer) {
        let (now, done) = (self.now(), consumer.flush(&never()));
        self.say(|| format!("{key:?} is flushed: {done:?}"));
        let promise = self.promises.get_mut(&key).unwrap();
        match done {
            Ok(()) => promise.flushed(&self.told[key.0], now),
            Err(error) => {
                promise.may_be_saved(now);
                self.failed("flush", &error);
            }
        }
    }

    fn letters_of(&mut self, key: (usize, &'static str), consumer: &Consumer) -> Vec<u64> {
        match consumer.dead_letters(0, 999, &never()) {
            Ok(letters) => {
                let numbers: Vec<u64> = letters.iter().map(|one| one.letter.sequence).collect();
                self.say(|| format!("{key:?} has letters {numbers:?}"));
                self.counts.letters += numbers.len() as u64;
                self.promises.get_mut(&key).unwrap().buried(&self.told[key.0], &letters);
                numbers
            }
            Err(error) => {
                self.failed("letters", &error);
                Vec::new()
            }
        }
    }

    fn pause_or_resume(&mut self) {
        let Some((key, consumer)) = self.any_consumer() else { return };
        let now = self.now();
        let pauses = self.promises[&key].paused == Some(false);
        let done = if pauses { consumer.pause(&never()) } else { consumer.resume(&never()) };
        self.say(|| format!("{key:?}: paused: {pauses}: {done:?}"));
        let promise = self.promises.get_mut(&key).unwrap();
        promise.paused = done.is_ok().then_some(pauses);
        match done {
            Ok(()) => promise.saved(now),
            Err(error) => {
                promise.may_be_saved(now);
                self.failed("pause", &error);
            }
        }
    }

    fn redrive(&mut self) {
        let Some((key, consumer)) = self.any_consumer() else { return };
        let letters = self.letters_of(key, &consumer);
        if letters.is_empty() {
            return;
        }
        let (now, sequence) = (self.now(), self.chance.pick(&letters));
        let Ok(found) = self.stream(key.0).read(sequence, 1, 1, &never()) else { return };
        let is_there = found.first().is_some_and(|stored| stored.sequence == sequence);
        let done = consumer.redrive(sequence, &never());
        self.say(|| format!("{key:?} drives {sequence} again (there: {is_there}): {done:?}"));
        let promise = self.promises.get_mut(&key).unwrap();
        let name = self.told[key.0].there[&sequence].name.clone();
        match done {
            Ok(driven) => {
                assert!(driven, "{key:?}: no letter {sequence}");
                self.counts.redriven += 1;
                if is_there {
                    promise.redriven(sequence, now);
                } else {
                    promise.replaced(sequence);
                    self.told[key.0].unsure.insert(name);
                    self.look(key.0);
                }
            }
            Err(error) if error.is(&codes::STREAM_FULL) => {}
            Err(error) => {
                promise.may_be_redriven(sequence, now);
                self.told[key.0].unsure.insert(name);
                self.failed("redrive", &error);
            }
        }
    }

    // --- The rest of the world --------------------------------------------------------------------

    fn pass_time(&mut self) {
        let millis = self.chance.pick(&[20, 150, 1_000, 1_000, 4_000, 12_000, 35_000]);
        self.world.clock.advance(Duration::from_millis(millis));
    }

    fn purge(&mut self) {
        let index = self.any_stream();
        self.look(index);
        let last = self.stream(index).status().last_sequence;
        let to = self.chance.below(last + 2);
        let done = self.stream(index).purge(to, &never());
        self.say(|| format!("{} is purged to {to}: {done:?}", NAMES[index]));
        self.told[index].purged(to, if done.is_ok() { Gone::Yes } else { Gone::Maybe });
        if let Err(error) = done {
            self.failed("purge", &error);
        }
    }

    fn purge_subject(&mut self) {
        let (index, subject) = (self.any_stream(), self.chance.pick(&SUBJECTS));
        let pattern = Pattern::new(subject).unwrap();
        self.look(index);
        let done = self.stream(index).purge_subjects(&pattern, &never());
        self.say(|| format!("{} is purged of {subject}: {done:?}", NAMES[index]));
        let gone = if done.is_ok() { Gone::Soon } else { Gone::Maybe };
        for known in self.told[index].there.values_mut() {
            if known.envelope.subject().as_str() == subject {
                known.gone = known.gone.max(gone);
            }
        }
        if let Err(error) = done {
            self.failed("purge of a subject", &error);
        }
    }

    fn look_after(&mut self) {
        let done = self.life().streams.upkeep();
        self.say(|| format!("upkeep: {done:?}"));
        match done {
            Ok(()) => {
                for index in 0..self.told.len() {
                    self.look(index);
                    let now = self.now();
                    let late = self.told[index].delayed.values().find(|due| **due <= now);
                    assert!(late.is_none(), "{}: something is late", NAMES[index]);
                }
            }
            Err(error) => {
                self.failed("upkeep", &error);
                (0..self.told.len()).for_each(|index| self.look(index));
            }
        }
        if self.chance.one_in(2) && !self.is_cut() {
            let index = self.any_stream();
            if let Err(error) = self.stream(index).compact_frames() {
                self.failed("merge", &error);
            }
            self.look(index);
        }
    }

    fn fold(&mut self) {
        let meta = Arc::clone(&self.life().meta);
        let done = meta.checkpoint().and_then(|()| meta.collect().map(drop));
        if let Err(error) = done {
            self.failed("checkpoint", &error);
        }
    }

    /// Compares a stream with what was told, and what is missing with what consumers have done.
    fn look(&mut self, index: usize) {
        if self.is_cut() {
            return;
        }
        let (stream, now) = (self.stream(index), self.now());
        let missing = match self.told[index].look(&stream, now) {
            Ok(missing) => missing,
            Err(error) => return self.failed("reading", &error),
        };
        for sequence in missing {
            let known = &self.told[index].there[&sequence];
            if known.released {
                continue;
            }
            for (_, promise) in self.promises.iter().filter(|(key, _)| key.0 == index) {
                let who = format!("{}/{}", NAMES[index], promise.config.name);
                assert!(promise.may_let_go(sequence, known), "{who}: {sequence} went too early");
            }
            self.told[index].there.get_mut(&sequence).unwrap().released = true;
        }
    }

    fn fail_drives(&mut self) {
        self.faults = true;
        let drive = &self.world.drives[self.sick];
        match self.chance.below(4) {
            0 => {
                let fault = Fault::new(Effect::Error(&codes::DRIVE_IO));
                drive.inject(fault.after(self.chance.below(40)).times(1 + self.chance.below(20)));
            }
            1 => {
                let fault = Fault::new(Effect::Error(&codes::DRIVE_IO)).chance(0.02);
                drive.inject(fault.on(Operation::SyncLog).on(Operation::Sync).on(Operation::Put));
            }
            2 => self.world.drives.iter().for_each(|drive| drive.set_full(true)),
            _ => {
                let full = Fault::new(Effect::Error(&codes::DRIVE_FULL)).chance(0.3);
                let full = full.on(Operation::Put).on(Operation::CreateLog);
                self.world.drives.iter().for_each(|drive| drive.inject(full.clone()));
            }
        }
        self.say(|| "drives fail from here on".to_owned());
    }

    // --- Openings ---------------------------------------------------------------------------------

    /// Ends a life, by a close if that is wanted and possible, and begins the next.
    fn reopen(&mut self, closes: bool) {
        let Life { meta, streams, consumers } = self.life.take().unwrap();
        let closes = closes && !self.is_cut();
        self.say(|| format!("the end of a life, closed: {closes}"));
        if closes {
            streams.close();
            let taken = consumers.iter().next().map(|((index, name), consumer)| {
                let of = self.tokens.iter().rev().find(|(key, _)| *key == (*index, *name));
                of.map(|(_, token)| consumer.ack(*token, &never()))
            });
            let is_taken = taken.flatten().is_some_and(|done| done.is_ok());
            assert!(!is_taken, "an answer was taken after the end");
            let closed = meta.close();
            assert!(closed.is_ok() || self.faults || self.is_cut(), "{closed:?}");
        } else {
            self.world.power.cut_now();
        }
        let clean = closes && !self.is_cut() && !self.faults;
        drop((consumers, streams, meta));
        if closes {
            self.counts.closes += 1
        } else {
            self.counts.cuts += 1
        }
        self.world.drives.iter().for_each(|drive| drive.heal());
        self.world.restart();
        self.faults = false;
        if self.chance.one_in(4) {
            self.world.power.cut_in(1 + self.chance.below(60));
        }
        let (meta, streams) = match self.open() {
            Ok(open) if !self.is_cut() => open,
            done => {
                assert!(self.is_cut(), "{:?}", done.err());
                self.say(|| "cut while opening".to_owned());
                drop(done);
                self.world.restart();
                self.open().unwrap()
            }
        };
        self.world.power.cut_at(u64::MAX);
        self.life = Some(Life { meta, streams, consumers: BTreeMap::new() });
        self.opened(clean);
    }

    fn open(&self) -> Result<(Arc<Meta>, Streams)> {
        let meta = self.world.open()?;
        let streams = self.world.streams(&meta)?;
        Ok((meta, streams))
    }

    /// What is there after an opening.
    fn opened(&mut self, clean: bool) {
        let now = self.now();
        for index in 0..self.told.len() {
            self.look(index);
        }
        for [one, two] in std::mem::take(&mut self.together) {
            let is_there =
                |(index, name): &(usize, String)| self.told[*index].number_of(name).is_some();
            assert_eq!(is_there(&one), is_there(&two), "{one:?} came without {two:?}");
        }
        for told in &mut self.told {
            told.unsure.clear();
        }
        for index in 0..self.told.len() {
            let stream = self.stream(index);
            let there = self.life().streams.consumers(&stream, &never()).unwrap();
            for name in CONSUMERS {
                let key = (index, name);
                let found = there.iter().find(|consumer| consumer.name() == name);
                let unsure = self.unsure.remove(&key);
                match (found, self.promises.contains_key(&key)) {
                    (Some(consumer), true) => {
                        assert_eq!(consumer.config(), &self.promises[&key].config);
                        self.promises.get_mut(&key).unwrap().reopened(now, clean);
                    }
                    (Some(_), false) => {
                        let unsure = unsure.unwrap_or_else(|| panic!("{key:?} came back"));
                        self.promises.insert(key, unsure);
                    }
                    (None, true) => {
                        assert!(self.may_be_deleted.contains(&key), "{key:?} is lost");
                        self.promises.remove(&key);
                        self.tokens.retain(|(of, _)| *of != key);
                    }
                    (None, false) => {}
                }
                if let Some(consumer) = found {
                    let life = self.life.as_mut().unwrap();
                    life.consumers.insert(key, consumer.clone());
                }
            }
        }
        self.may_be_deleted.clear();
        for (key, consumer) in self.life().consumers.clone() {
            self.letters_of(key, &consumer);
        }
    }

    // --- The end ----------------------------------------------------------------------------------

    /// Time runs on, nothing fails any more, and everything is handled.
    fn end(&mut self) {
        self.say(|| "from here on nothing fails".to_owned());
        let all = self.life().consumers.clone();
        for consumer in all.values() {
            consumer.resume(&never()).unwrap();
        }
        for (key, promise) in &mut self.promises {
            assert!(all.contains_key(key));
            promise.paused = Some(false);
            promise.saved(self.world.clock.unix_ns());
        }
        let mut quiet = 0;
        for round in 0.. {
            assert!(round < 500, "it never ends");
            let taken = self.handle_all(&all);
            self.world.clock.advance(Duration::from_secs(60));
            self.look_after();
            let waits = self.told.iter().any(|told| !told.delayed.is_empty());
            quiet = if taken == 0 && !waits { quiet + 1 } else { 0 };
            if quiet > 2 {
                break;
            }
        }
        for (key, consumer) in &all {
            self.flush_of(*key, consumer);
            self.flush_of(*key, consumer);
            self.letters_of(*key, consumer);
            let lost = self.promises[key].unhandled(&self.told[key.0]);
            let states = &self.promises[key].states;
            let first = lost.first().map(|sequence| states.get(sequence));
            assert!(lost.is_empty(), "{key:?}: {lost:?} are lost: {first:?}");
        }
        self.check_released(&all);
        drop(all);
        self.reopen(true);
        self.world.clock.advance(Duration::from_mins(10));
        for (key, consumer) in self.life().consumers.clone() {
            let again = self.fetch_from(key, &consumer, 9);
            assert!(again.is_empty(), "{key:?}: everything was done");
            self.letters_of(key, &consumer);
        }
    }

    /// Fetches from everybody and acknowledges; returns how many came.
    fn handle_all(&mut self, all: &BTreeMap<(usize, &'static str), Consumer>) -> usize {
        let mut taken = 0;
        for (key, consumer) in all {
            loop {
                let tokens = self.fetch_from(*key, consumer, 7);
                if tokens.is_empty() {
                    break;
                }
                taken += tokens.len();
                assert!(taken < 10_000, "{key:?}: it never ends");
                let takes = self.promises[key].config.ack != dwk_stream::Ack::None;
                for token in tokens.into_iter().filter(|_| takes) {
                    let now = self.now();
                    let must = self.promises[key].must_take(token, &self.told[key.0]);
                    let done = consumer.ack(token, &never());
                    assert!(must != Some(true) || done.is_ok(), "{key:?}: {token:?}: {done:?}");
                    if done.is_ok() {
                        self.promises.get_mut(key).unwrap().acknowledged(token, true, now);
                    }
                }
            }
        }
        taken
    }

    /// What everybody has done is not kept.
    fn check_released(&mut self, all: &BTreeMap<(usize, &'static str), Consumer>) {
        for index in 0..self.told.len() {
            let is_kept = self.told[index].retention == Retention::Limits;
            if is_kept || !all.keys().any(|key| key.0 == index) {
                continue;
            }
            self.look(index);
            let left = crate::world::all(&self.stream(index)).len();
            assert_eq!(left, 0, "{}: messages are kept that nobody needs", NAMES[index]);
        }
    }
}
