//! One random history: lives of a store, each ended by a close or a cut, and what happens in them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use dwk_base::{Clock, Error, Result, codes};
use dwk_meta::Meta;
use dwk_stream::consumer::Token;
use dwk_stream::{Consumer, Retention, Stream, Streams};

use crate::chance::Chance;
use crate::promise::Promise;
use crate::told::Told;
use crate::world::{TENANT, World, never};

pub(crate) const NAMES: [&str; 3] = ["one", "two", "three"];
pub(crate) const CONSUMERS: [&str; 3] = ["c", "d", "e"];

/// A stream's index, and the name of a consumer of it.
pub(crate) type Key = (usize, &'static str);

/// A store that is open.
pub(crate) struct Life {
    pub(crate) meta: Arc<Meta>,
    pub(crate) streams: Streams,
    pub(crate) consumers: BTreeMap<Key, Consumer>,
}

/// A history under way.
pub(crate) struct History {
    pub(crate) world: World,
    pub(crate) chance: Chance,
    pub(crate) life: Option<Life>,
    pub(crate) told: Vec<Told>,
    pub(crate) promises: BTreeMap<Key, Promise>,
    /// Consumers that may be there or not, with what they promise if they are.
    pub(crate) unsure: BTreeMap<Key, Promise>,
    /// Consumers that may have been deleted.
    pub(crate) may_be_deleted: Vec<Key>,
    /// What was handed out, newest last.
    pub(crate) tokens: Vec<(Key, Token)>,
    /// Messages for two streams, together.
    pub(crate) together: Vec<[(usize, String); 2]>,
    /// Something is or was wrong with drives in this life.
    pub(crate) faults: bool,
    pub(crate) sick: usize,
    pub(crate) sent: usize,
    pub(crate) trace: bool,
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
        for _ in 0..=history.chance.below(4) {
            history.live();
        }
        history.end();
        history.counts
    }

    pub(crate) fn say(&self, what: impl FnOnce() -> String) {
        if self.trace {
            eprintln!("{:>6.1} s: {}", (self.now() as f64) / 1e9 - 86_400.0, what());
        }
    }

    pub(crate) fn now(&self) -> u64 {
        self.world.clock.unix_ns()
    }

    pub(crate) fn is_cut(&self) -> bool {
        self.world.power.is_cut()
    }

    pub(crate) fn life(&self) -> &Life {
        self.life.as_ref().unwrap()
    }

    pub(crate) fn stream(&self, index: usize) -> Stream {
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
        for _ in 0..=self.chance.below(4) {
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
    pub(crate) fn failed(&mut self, what: &str, error: &Error) {
        self.say(|| format!("{what}: {error}"));
        self.counts.failures += 1;
        assert!(!error.is(&codes::INTERNAL_BUG), "{what}: {error}");
        let may = self.faults || self.is_cut();
        assert!(may, "{what}: {error:?}");
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
            self.counts.closes += 1;
        } else {
            self.counts.cuts += 1;
        }
        self.world.drives.iter().for_each(dwk_drive::FaultyDrive::heal);
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
            self.world.clock.advance(Duration::from_mins(1));
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
    fn handle_all(&mut self, all: &BTreeMap<Key, Consumer>) -> usize {
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
    fn check_released(&mut self, all: &BTreeMap<Key, Consumer>) {
        for (index, name) in NAMES.iter().enumerate().take(self.told.len()) {
            let is_kept = self.told[index].retention == Retention::Limits;
            if is_kept || !all.keys().any(|key| key.0 == index) {
                continue;
            }
            self.look(index);
            let left = crate::world::all(&self.stream(index)).len();
            assert_eq!(left, 0, "{name}: messages are kept that nobody needs");
        }
    }
}
