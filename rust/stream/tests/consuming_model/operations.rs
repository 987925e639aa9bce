//! What happens in a life: publishing, fetching, answering, and everything else that a program does.

use std::sync::Arc;
use std::time::Duration;

use dwk_base::{Clock, Deadline, codes};
use dwk_bus::{Envelope, Pattern};
use dwk_drive::faulty::{Effect, Fault, Operation};
use dwk_meta::Change;
use dwk_stream::consumer::Token;
use dwk_stream::{Consumer, From};

use crate::chance::{SUBJECTS, name_of};
use crate::history::{CONSUMERS, History, Key, NAMES};
use crate::promise::Promise;
use crate::told::Gone;
use crate::world::never;

impl History {
    // --- Publishing -------------------------------------------------------------------------------

    pub(crate) fn message(&mut self) -> (String, Envelope) {
        self.sent += 1;
        let envelope = self.chance.message(&self.world, &format!("m{}", self.sent));
        (name_of(&envelope), envelope)
    }

    pub(crate) fn any_stream(&self) -> usize {
        self.chance.below(self.told.len() as u64) as usize
    }

    pub(crate) fn publish(&mut self) {
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
    pub(crate) fn is_there(&mut self, index: usize, name: &str, sequence: u64) {
        if self.told[index].number_of(name).is_none() {
            self.look(index);
        }
        assert_eq!(self.told[index].number_of(name), Some(sequence), "{name}");
    }

    pub(crate) fn publish_many(&mut self) {
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

    pub(crate) fn publish_together(&mut self) {
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

    pub(crate) fn publish_later(&mut self) {
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

    pub(crate) fn any_consumer(&self) -> Option<(Key, Consumer)> {
        let all: Vec<_> = self.life().consumers.iter().collect();
        if all.is_empty() {
            return None;
        }
        let (key, consumer) = self.chance.pick(&all);
        Some((*key, consumer.clone()))
    }

    pub(crate) fn make_consumer(&mut self) {
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

    pub(crate) fn delete_consumer(&mut self) {
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

    pub(crate) fn patience(&self) -> Deadline {
        Deadline::after(Arc::clone(&self.world.clock) as Arc<dyn Clock>, Duration::ZERO)
    }

    pub(crate) fn fetch(&mut self) {
        let Some((key, consumer)) = self.any_consumer() else { return };
        let limit = 1 + self.chance.below(6) as usize;
        self.fetch_from(key, &consumer, limit);
    }

    pub(crate) fn fetch_from(&mut self, key: Key, consumer: &Consumer, limit: usize) -> Vec<Token> {
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
    pub(crate) fn answer(&mut self) {
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

    pub(crate) fn flush(&mut self) {
        let Some((key, consumer)) = self.any_consumer() else { return };
        self.flush_of(key, &consumer);
        self.letters_of(key, &consumer);
    }

    pub(crate) fn flush_of(&mut self, key: Key, consumer: &Consumer) {
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

    pub(crate) fn letters_of(&mut self, key: Key, consumer: &Consumer) -> Vec<u64> {
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

    pub(crate) fn pause_or_resume(&mut self) {
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

    pub(crate) fn redrive(&mut self) {
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
                    promise.replaced(sequence, now);
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

    pub(crate) fn pass_time(&mut self) {
        let millis = self.chance.pick(&[20, 150, 1_000, 1_000, 4_000, 12_000, 35_000]);
        self.world.clock.advance(Duration::from_millis(millis));
    }

    pub(crate) fn purge(&mut self) {
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

    pub(crate) fn purge_subject(&mut self) {
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

    pub(crate) fn look_after(&mut self) {
        let done = self.life().streams.upkeep();
        self.say(|| format!("upkeep: {done:?}"));
        match done {
            Ok(()) => {
                for (index, name) in NAMES.iter().enumerate().take(self.told.len()) {
                    if !self.look(index) {
                        continue;
                    }
                    let now = self.now();
                    let late = self.told[index].delayed.values().find(|due| **due <= now);
                    assert!(late.is_none(), "{name}: something is late");
                }
            }
            Err(error) => {
                self.failed("upkeep", &error);
                (0..self.told.len()).for_each(|index| _ = self.look(index));
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

    pub(crate) fn fold(&mut self) {
        let meta = Arc::clone(&self.life().meta);
        let done = meta.checkpoint().and_then(|()| meta.collect().map(drop));
        if let Err(error) = done {
            self.failed("checkpoint", &error);
        }
    }

    /// Compares a stream with what was told, and what is missing with what consumers have done.
    ///
    /// False if that cannot be done now.
    pub(crate) fn look(&mut self, index: usize) -> bool {
        if self.is_cut() {
            return false;
        }
        let (stream, now) = (self.stream(index), self.now());
        let missing = match self.told[index].look(&stream, now) {
            Ok(missing) => missing,
            Err(error) => {
                self.failed("reading", &error);
                return false;
            }
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
        true
    }

    pub(crate) fn fail_drives(&mut self) {
        self.faults = true;
        let drive = &self.world.drives[self.sick];
        match self.chance.below(5) {
            0 => {
                let fault = Fault::new(Effect::Error(&codes::DRIVE_IO));
                drive.inject(fault.after(self.chance.below(40)).times(1 + self.chance.below(20)));
            }
            1 => {
                let fault = Fault::new(Effect::Error(&codes::DRIVE_IO)).chance(0.02);
                drive.inject(fault.on(Operation::SyncLog).on(Operation::Sync).on(Operation::Put));
            }
            2 => self.world.drives.iter().for_each(|drive| drive.set_full(true)),
            // More than the pool tolerates, for a moment: what cannot be read is not handed out.
            3 => {
                let fault = Fault::new(Effect::Error(&codes::DRIVE_IO)).chance(0.3);
                let fault = fault.on(Operation::Read).times(6);
                self.world.drives.iter().for_each(|drive| drive.inject(fault.clone()));
            }
            _ => {
                let full = Fault::new(Effect::Error(&codes::DRIVE_FULL)).chance(0.3);
                let full = full.on(Operation::Put).on(Operation::CreateLog);
                self.world.drives.iter().for_each(|drive| drive.inject(full.clone()));
            }
        }
        self.say(|| "drives fail from here on".to_owned());
    }
}
