//! A mailbox against a slow twin, for every policy; what threads do to it is in tests/.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dwk_base::{Deadline, ManualClock, SystemClock};
use proptest::prelude::*;

use super::*;
use crate::envelope::Stamped;
use crate::spill::Spill;
use crate::{Message, MessageId, Subject};

const OVERHEAD: usize = 256;

fn envelope(number: u32, key: Option<u8>, bytes: usize) -> Envelope {
    let mut data = vec![0; bytes.max(4)];
    data[..4].copy_from_slice(&number.to_le_bytes());
    let mut message = Message::new(Subject::new("s").unwrap(), Bytes::from(data));
    message.key = key.map(|key| key.to_string().into());
    let id = MessageId::from_bytes([0; 16]);
    Envelope::new(Stamped {
        id,
        unix_ns: number.into(),
        tenant: None,
        message,
        is_announcement: false,
    })
}

fn number(item: &Item) -> u32 {
    item.envelope.unix_ns() as u32
}

fn mailbox(policy: Policy, messages_max: usize, bytes_max: usize, workers: usize) -> Mailbox {
    Mailbox::new(&mut Options { policy, messages_max, bytes_max, workers, ..Options::default() })
}

fn offer(mailbox: &Mailbox, envelope: Envelope) -> Offer {
    mailbox.offer(mailbox.item(envelope, None))
}

fn take(mailbox: &Mailbox, worker: Option<usize>, limit: usize) -> (Took, Vec<u32>) {
    let mut into = VecDeque::new();
    let took = mailbox.take(worker, limit, false, &mut into);
    (took, into.iter().map(number).collect())
}

/// A deadline that does not wait.
fn now() -> Deadline {
    Deadline::after(Arc::new(ManualClock::default()), Duration::ZERO)
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Block,
    DropOldest,
    DropNewest,
    Spill,
}

impl Kind {
    fn policy(self) -> Policy {
        match self {
            Self::Block => Policy::Block,
            Self::DropOldest => Policy::DropOldest,
            Self::DropNewest => Policy::DropNewest,
            Self::Spill => Policy::Spill(Spill::in_memory(1 << 20)),
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Offer { key: Option<u8>, bytes: usize },
    Take { worker: Option<usize>, limit: usize },
    Close,
}

fn step() -> impl Strategy<Value = Step> {
    let key = prop::option::of(0u8..4);
    prop_oneof![
        6 => (key, 4usize..100).prop_map(|(key, bytes)| Step::Offer { key, bytes }),
        4 => (prop::option::of(0usize..3), 1usize..5)
            .prop_map(|(worker, limit)| Step::Take { worker, limit }),
        1 => Just(Step::Close),
    ]
}

/// The slow twin: one list, and the rules in words.
struct Twin {
    kind: Kind,
    messages_max: usize,
    bytes_max: usize,
    workers: usize,
    waiting: Vec<(u32, usize, Option<usize>)>,
    closed: bool,
    dropped: u64,
}

impl Twin {
    fn room(&self, cost: usize) -> bool {
        let bytes: usize = self.waiting.iter().map(|(_, cost, _)| cost).sum();
        let few = self.waiting.len() < self.messages_max && bytes + cost <= self.bytes_max;
        self.waiting.is_empty() || few
    }

    /// `queued`, or why not.
    fn offer(&mut self, number: u32, cost: usize, lane: Option<usize>) -> &'static str {
        if self.closed {
            return "closed";
        }
        // How much of what waits is in memory does not show, if nothing is refused.
        if !self.room(cost) && self.kind != Kind::Spill {
            match self.kind {
                Kind::Block => return "full",
                Kind::DropNewest => {
                    self.dropped += 1;
                    return "dropped";
                }
                _ => {
                    while !self.room(cost) {
                        self.waiting.remove(0);
                        self.dropped += 1;
                    }
                }
            }
        }
        self.waiting.push((number, cost, lane));
        "queued"
    }

    fn take(&mut self, worker: Option<usize>, limit: usize) -> Vec<u32> {
        let mine = |lane: Option<usize>| {
            self.workers == 1 || worker.is_none() || lane.is_none() || lane == worker
        };
        let all = self.waiting.iter().filter(|(_, _, lane)| mine(*lane));
        let taken: Vec<u32> = all.take(limit).map(|(number, _, _)| *number).collect();
        self.waiting.retain(|(number, _, _)| !taken.contains(number));
        taken
    }
}

fn name(offer: &Offer) -> &'static str {
    match offer {
        Offer::Queued(_) => "queued",
        Offer::Dropped => "dropped",
        Offer::Full(_) => "full",
        Offer::Closed(_) => "closed",
        Offer::Refused(_) => "refused",
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn a_mailbox_does_what_the_slow_twin_does(
        kind in prop::sample::select(
            vec![Kind::Block, Kind::DropOldest, Kind::DropNewest, Kind::Spill]),
        messages_max in 1usize..12,
        slack in 0usize..12,
        workers in prop::sample::select(vec![1usize, 3]),
        steps in prop::collection::vec(step(), 1..80),
    ) {
        let bytes_max = OVERHEAD + slack * 300;
        let mailbox = mailbox(kind.policy(), messages_max, bytes_max, workers);
        let (waiting, closed, dropped) = (vec![], false, 0);
        let mut twin = Twin { kind, messages_max, bytes_max, workers, waiting, closed, dropped };
        for (number, step) in (0u32..).zip(steps) {
            match step {
                Step::Offer { key, bytes } => {
                    let item = mailbox.item(envelope(number, key, bytes), None);
                    // Which worker a key belongs to is the mailbox's to say.
                    let lane = key.filter(|_| workers > 1).map(|key| {
                        ((key_hash(&key.to_string()) >> 32) % workers as u64) as usize
                    });
                    let expected = twin.offer(number, bytes.max(4) + OVERHEAD, lane);
                    prop_assert_eq!(name(&mailbox.offer(item)), expected);
                }
                // Of what is spilled, a worker sees only what has come back into memory.
                Step::Take { worker: Some(_), .. } if kind == Kind::Spill && workers > 1 => {}
                Step::Take { worker, limit } => {
                    let worker = worker.filter(|_| workers > 1);
                    let (took, taken) = take(&mailbox, worker, limit);
                    if twin.closed && twin.waiting.is_empty() {
                        prop_assert_eq!(&took, &Took::Closed);
                    }
                    // What is spilled comes back in pieces, of at least one.
                    let most = if kind == Kind::Spill { taken.len().max(1) } else { limit };
                    prop_assert_eq!(taken, twin.take(worker, most));
                }
                Step::Close => {
                    mailbox.close();
                    twin.closed = true;
                }
            }
            let counts = mailbox.counts();
            prop_assert_eq!(counts.depth, twin.waiting.len());
            prop_assert_eq!(counts.dropped, twin.dropped);
        }
        mailbox.close();
        let mut rest = vec![];
        while let (Took::Some(_), taken) = take(&mailbox, None, 3) {
            rest.extend(taken);
        }
        prop_assert_eq!(rest, twin.take(None, usize::MAX));
        prop_assert_eq!(take(&mailbox, None, 1).0, Took::Closed);
        prop_assert_eq!(mailbox.counts().depth_bytes, 0);
    }

    #[test]
    fn many_at_once_are_what_one_by_one_are(
        kind in prop::sample::select(
            vec![Kind::Block, Kind::DropOldest, Kind::DropNewest, Kind::Spill]),
        messages_max in 1usize..12,
        workers in prop::sample::select(vec![1usize, 3]),
        keys in prop::collection::vec(prop::option::of(0u8..4), 1..40),
    ) {
        let [one, all] = [(); 2].map(|()| mailbox(kind.policy(), messages_max, 8000, workers));
        let make = |number: usize| envelope(number as u32, keys[number], 40);
        let (mut queued, mut full) = (0, false);
        for number in 0..keys.len() {
            match offer(&one, make(number)) {
                Offer::Queued(_) => queued += 1,
                Offer::Full(_) => full = true,
                _ => {}
            }
        }
        let mut items = (0..keys.len()).map(|number| all.item(make(number), None)).collect();
        let run = all.offer_many(&mut items);
        prop_assert_eq!(run.queued, queued);
        prop_assert_eq!(run.dropped as u64, one.counts().dropped);
        prop_assert_eq!(!items.is_empty(), full);
        loop {
            let (took, taken) = take(&one, None, 7);
            prop_assert_eq!(take(&all, None, 7), (took, taken.clone()));
            if taken.is_empty() {
                break;
            }
        }
    }
}

#[test]
fn one_message_always_has_room_however_long_it_is() {
    let mailbox = mailbox(Policy::Block, 10, 300, 1);
    assert!(matches!(offer(&mailbox, envelope(0, None, 9000)), Offer::Queued(0)));
    assert!(matches!(offer(&mailbox, envelope(1, None, 4)), Offer::Full(_)));
    assert_eq!(take(&mailbox, None, 9).1, [0]);
    assert!(matches!(offer(&mailbox, envelope(1, None, 4)), Offer::Queued(0)));
}

#[test]
fn a_deadline_that_has_passed_does_not_wait() {
    let mailbox = mailbox(Policy::Block, 1, 9999, 1);
    let item = |number| mailbox.item(envelope(number, None, 4), None);
    assert!(matches!(mailbox.offer_within(item(0), &now(), Duration::MAX), Offer::Queued(0)));
    assert!(matches!(mailbox.offer_within(item(1), &now(), Duration::MAX), Offer::Full(_)));
    assert!(!mailbox.pause(None, &now(), &mut 0));
}

#[test]
fn a_worker_whose_messages_are_behind_those_of_others_in_the_file_sleeps_and_gets_them_later() {
    let mailbox = mailbox(Policy::Spill(Spill::in_memory(1 << 20)), 2, 9999, 2);
    let keys: Vec<u8> = (0..50).collect();
    let of = |worker: usize| {
        let mine = |key: &&u8| mailbox.item(envelope(0, Some(**key), 4), None).worker() == worker;
        *keys.iter().find(mine).unwrap()
    };
    let (first, second) = (of(0), of(1));
    for (number, key) in [first, first, first, second].into_iter().enumerate() {
        let offered = offer(&mailbox, envelope(number as u32, Some(key), 4));
        assert!(matches!(offered, Offer::Queued(0)));
    }
    assert_eq!(mailbox.counts().spilled, 2);
    assert_eq!(take(&mailbox, Some(1), 9), (Took::Nothing, vec![]));
    assert!(guard(&mailbox.state).is_idle(Some(1)), "it would turn in circles");
    assert_eq!(take(&mailbox, Some(0), 9).1, [0, 1]);
    assert_eq!(take(&mailbox, Some(1), 9).1, [3]);
    mailbox.close();
    assert_eq!(take(&mailbox, Some(1), 9).0, Took::Closed);
    assert_eq!(take(&mailbox, Some(0), 9).1, [2]);
    assert_eq!(take(&mailbox, Some(0), 9).0, Took::Closed);
}

#[test]
fn nobody_counts_as_asleep_after_waiting_in_vain() {
    let mailbox = mailbox(Policy::Block, 1, 9999, 1);
    let soon = || Deadline::after(Arc::new(SystemClock::default()), Duration::from_millis(5));
    let mut step = 0;
    let until = soon();
    while mailbox.pause(None, &until, &mut step) {}
    assert!(!guard(&mailbox.state).others_wait());
    drop(offer(&mailbox, envelope(0, None, 4)));
    let item = mailbox.item(envelope(1, None, 4), None);
    assert!(matches!(mailbox.offer_within(item, &soon(), Duration::MAX), Offer::Full(_)));
    assert!(!guard(&mailbox.state).publishers.tell_all());
}
