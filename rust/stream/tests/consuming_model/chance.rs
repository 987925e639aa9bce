//! What a history is drawn from: the same seed draws the same.

use std::time::Duration;

use dwk_base::{Random, SeededRandom};
use dwk_bus::{Envelope, Filter, Message, Pattern, Subject};
use dwk_stream::{Ack, ConsumerConfig, From, Retention, StreamConfig};

use crate::world::{World, config};

pub(crate) const SUBJECTS: [&str; 3] = ["a.x", "a.y", "a.z"];

pub(crate) struct Chance(SeededRandom);

impl Chance {
    pub(crate) fn new(seed: u64) -> Self {
        Self(SeededRandom::new(seed))
    }

    pub(crate) fn below(&self, bound: u64) -> u64 {
        self.0.below(bound.max(1))
    }

    pub(crate) fn one_in(&self, n: u64) -> bool {
        self.below(n) == 0
    }

    pub(crate) fn pick<T: Clone>(&self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize].clone()
    }

    pub(crate) fn seconds(&self, from: &[u64]) -> Duration {
        Duration::from_secs(self.pick(from))
    }

    pub(crate) fn stream(&self) -> StreamConfig {
        let retention = [Retention::Limits, Retention::Interest, Retention::WorkQueue];
        StreamConfig { retention: self.pick(&retention), ..config() }
    }

    /// A consumer of a stream whose last message is `last`, of a time before `now_ns`.
    pub(crate) fn consumer(&self, name: &str, last: u64, now_ns: u64) -> ConsumerConfig {
        let ack = self.pick(&[Ack::Explicit, Ack::Explicit, Ack::Explicit, Ack::All, Ack::None]);
        let ago = self.below(90) * 1_000_000_000;
        let starts = [
            From::First,
            From::First,
            From::First,
            From::Last,
            From::Next,
            From::Sequence(self.below(last + 4)),
            From::Time(now_ns.saturating_sub(ago)),
        ];
        let subjects: &[&[&str]] = &[&[], &[], &["a.x"], &["a.x", "a.y"]];
        let subjects = self.pick(subjects).iter().map(|text| Pattern::new(*text).unwrap());
        let window = if ack == Ack::All { 0 } else { self.pick(&[0, 0, 1, 2, 4]) };
        ConsumerConfig {
            ack,
            ack_wait: self.seconds(&[1, 5, 30]),
            max_deliver: self.pick(&[None, None, Some(1), Some(2), Some(4)]),
            backoff: self
                .pick(&[vec![], vec![], vec![2], vec![1, 10]])
                .into_iter()
                .map(Duration::from_secs)
                .collect(),
            max_ack_pending: self.pick(&[1, 2, 3, 8, 1000]),
            filter: self.one_in(4).then(|| Filter::new("size > 40").unwrap()),
            subjects: subjects.collect(),
            start: self.pick(&starts),
            priority_window: window,
            dead_letter: !self.one_in(4),
            ..ConsumerConfig::new(name)
        }
    }

    /// A message that nobody else sends.
    pub(crate) fn message(&self, world: &World, text: &str) -> Envelope {
        let long = if self.one_in(12) { 30_000 } else { self.below(200) as usize };
        let text = format!("{text}:{}", "x".repeat(long));
        let subject = Subject::new(self.pick(&SUBJECTS)).unwrap();
        let priority = self.below(3) as u8;
        let message = Message { priority, ..Message::new(subject, text.into_bytes()) };
        world.space.stamp(message).unwrap()
    }
}

/// What tells a message from all others.
pub(crate) fn name_of(envelope: &Envelope) -> String {
    let text = String::from_utf8_lossy(envelope.data());
    text.split(':').next().unwrap_or_default().to_owned()
}
