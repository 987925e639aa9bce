//! Consumers with their state in the map: at least once, never after a durable acknowledgement.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod world;

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use dwk_base::{Clock, Deadline, Result, codes};
use dwk_bus::{Filter, Pattern};
use dwk_meta::Meta;
use dwk_stream::consumer::Reason;
use dwk_stream::{
    Ack, Consumer, ConsumerConfig, Delivery, From, Retention, Stream, StreamConfig, Streams,
};
use world::{TENANT, World, config, never};

fn now(world: &World) -> Deadline {
    Deadline::after(Arc::clone(&world.clock) as Arc<dyn Clock>, Duration::ZERO)
}

fn named(name: &str) -> ConsumerConfig {
    ConsumerConfig::new(name)
}

fn stream(world: &World, streams: &Streams, count: usize) -> Stream {
    let stream = streams.create(TENANT, "s", config(), &never()).unwrap();
    publish(world, &stream, count);
    stream
}

fn publish(world: &World, stream: &Stream, count: usize) {
    for n in 0..count {
        stream.publish(&world.message("a.b", n.to_string()), None, &never()).unwrap();
    }
}

fn numbers(deliveries: &[Delivery]) -> Vec<(u64, u32)> {
    deliveries.iter().map(|one| (one.stored.sequence, one.deliveries)).collect()
}

fn fetch(world: &World, consumer: &Consumer, limit: usize) -> Vec<Delivery> {
    consumer.fetch(limit, &now(world), &never()).unwrap()
}

#[test]
fn nothing_is_before_a_consumer_that_begins_behind_everything() {
    let world = World::usual(1);
    let meta = world.create().unwrap();
    let streams = world.streams(&meta).unwrap();
    let stream = stream(&world, &streams, 4);
    let begins = [(From::First, 4), (From::Sequence(3), 2), (From::Last, 1), (From::Next, 0)];
    for (index, (start, before)) in begins.into_iter().enumerate() {
        let config = ConsumerConfig { start, ..named(&format!("c{index}")) };
        let consumer = streams.create_consumer(&stream, config, &never()).unwrap();
        assert_eq!(consumer.status().1, before, "{start:?}");
        assert_eq!(fetch(&world, &consumer, 9).len() as u64, before);
        assert_eq!(consumer.status().1, 0);
    }
}

#[test]
fn what_is_acknowledged_is_done_and_the_rest_comes_again_after_its_time() {
    let world = World::usual(1);
    let meta = world.create().unwrap();
    let streams = world.streams(&meta).unwrap();
    let stream = stream(&world, &streams, 4);
    let consumer = streams.create_consumer(&stream, named("c"), &never()).unwrap();
    let first = fetch(&world, &consumer, 3);
    assert_eq!(numbers(&first), [(1, 1), (2, 1), (3, 1)]);
    assert_eq!(first[1].stored.envelope.data().as_ref(), b"1");
    consumer.ack(first[0].token, &never()).unwrap();
    consumer.ack(first[2].token, &never()).unwrap();
    assert_eq!(numbers(&fetch(&world, &consumer, 9)), [(4, 1)]);
    assert!(fetch(&world, &consumer, 9).is_empty());
    world.clock.advance(Duration::from_secs(31));
    let again = fetch(&world, &consumer, 9);
    assert_eq!(numbers(&again), [(2, 2), (4, 2)]);
    let error = consumer.ack(first[1].token, &never()).unwrap_err();
    assert!(error.is(&codes::STREAM_ACK), "an older delivery: {error}");
    consumer.ack(again[0].token, &never()).unwrap();
    let error = consumer.ack(again[0].token, &never()).unwrap_err();
    assert!(error.is(&codes::STREAM_ACK), "a second time: {error}");
    consumer.in_progress(again[1].token).unwrap();
    consumer.nak(again[1].token, Some(Duration::from_secs(5))).unwrap();
    assert!(fetch(&world, &consumer, 9).is_empty());
    world.clock.advance(Duration::from_secs(5));
    assert_eq!(numbers(&fetch(&world, &consumer, 9)), [(4, 3)]);
    let (status, before) = consumer.status();
    assert_eq!((status.floor_sequence, status.out, before), (3, 1, 0));
}

#[test]
fn counts_and_acknowledgements_survive_a_reopening() {
    let world = World::usual(2);
    let meta = world.create().unwrap();
    let streams = world.streams(&meta).unwrap();
    let stream = stream(&world, &streams, 5);
    let consumer = streams.create_consumer(&stream, named("c"), &never()).unwrap();
    let out = fetch(&world, &consumer, 4);
    consumer.ack(out[1].token, &never()).unwrap();
    let (_meta, streams) = world.again(meta, streams);
    let stream = streams.get(TENANT, "s").unwrap();
    let consumer = streams.consumer(&stream, "c", &never()).unwrap();
    assert_eq!(numbers(&fetch(&world, &consumer, 9)), [(1, 2), (3, 2), (4, 2), (5, 1)]);
    assert_eq!(streams.consumers(&stream, &never()).unwrap().len(), 1);
    let error = streams.create_consumer(&stream, named("c"), &never()).unwrap_err();
    assert!(error.is(&codes::STREAM_CONSUMER_EXISTS));
}

#[test]
fn a_message_that_fails_too_often_is_a_dead_letter_and_can_be_driven_again() {
    let world = World::usual(3);
    let meta = world.create().unwrap();
    let streams = world.streams(&meta).unwrap();
    let stream = stream(&world, &streams, 3);
    let config = ConsumerConfig { max_deliver: Some(2), ..named("c") };
    let consumer = streams.create_consumer(&stream, config, &never()).unwrap();
    let mut out = fetch(&world, &consumer, 3);
    consumer.ack(out[1].token, &never()).unwrap();
    consumer.term(out[2].token, "no such customer", &never()).unwrap();
    consumer.nak(out[0].token, None).unwrap();
    out = fetch(&world, &consumer, 3);
    assert_eq!(numbers(&out), [(1, 2)]);
    consumer.nak(out[0].token, None).unwrap();
    assert!(fetch(&world, &consumer, 3).is_empty());
    let (_meta, streams) = world.again(meta, streams);
    let stream = streams.get(TENANT, "s").unwrap();
    let consumer = streams.consumer(&stream, "c", &never()).unwrap();
    assert!(fetch(&world, &consumer, 3).is_empty());
    let dead = consumer.dead_letters(0, 9, &never()).unwrap();
    let told: Vec<_> = dead.iter().map(|one| (one.letter.sequence, &one.letter.reason)).collect();
    assert_eq!(
        told,
        [(1, &Reason::Exhausted), (3, &Reason::Terminated("no such customer".into()))]
    );
    assert_eq!(dead[1].envelope.as_ref().unwrap().data().as_ref(), b"2");
    assert_eq!(dead[0].letter.deliveries, 2);
    assert!(consumer.redrive(1, &never()).unwrap());
    assert!(!consumer.redrive(1, &never()).unwrap());
    let again = fetch(&world, &consumer, 3);
    assert_eq!(numbers(&again), [(1, 1)]);
    consumer.ack(again[0].token, &never()).unwrap();
    assert_eq!(consumer.dead_letters(0, 9, &never()).unwrap().len(), 1);
}

#[test]
fn a_letter_whose_message_is_gone_is_published_again() {
    let world = World::usual(4);
    let meta = world.create().unwrap();
    let streams = world.streams(&meta).unwrap();
    let stream = stream(&world, &streams, 2);
    let consumer = streams.create_consumer(&stream, named("c"), &never()).unwrap();
    let out = fetch(&world, &consumer, 1);
    consumer.term(out[0].token, "later", &never()).unwrap();
    stream.purge(1, &never()).unwrap();
    assert!(consumer.redrive(1, &never()).unwrap());
    let rest = fetch(&world, &consumer, 9);
    assert_eq!(numbers(&rest), [(2, 1), (3, 1)]);
    assert_eq!(rest[1].stored.envelope.data().as_ref(), b"0");
}

#[test]
fn only_what_is_wanted_comes_from_where_it_begins() {
    let world = World::usual(5);
    let meta = world.create().unwrap();
    let streams = world.streams(&meta).unwrap();
    let stream = stream(&world, &streams, 2);
    for subject in ["a.x", "a.y", "a.x"] {
        stream.publish(&world.message(subject, "long enough"), None, &never()).unwrap();
    }
    let config = ConsumerConfig {
        subjects: vec![Pattern::new("a.x").unwrap(), Pattern::new("a.b").unwrap()],
        filter: Some(Filter::new("size > 5").unwrap()),
        start: dwk_stream::From::Sequence(2),
        ..named("some")
    };
    let consumer = streams.create_consumer(&stream, config, &never()).unwrap();
    assert_eq!(numbers(&fetch(&world, &consumer, 9)), [(3, 1), (5, 1)]);
    let config = ConsumerConfig { start: dwk_stream::From::Next, ack: Ack::None, ..named("new") };
    let consumer = streams.create_consumer(&stream, config, &never()).unwrap();
    assert!(fetch(&world, &consumer, 9).is_empty());
    publish(&world, &stream, 1);
    assert_eq!(numbers(&fetch(&world, &consumer, 9)), [(6, 1)]);
    world.clock.advance(Duration::from_hours(1));
    assert!(fetch(&world, &consumer, 9).is_empty());
}

#[test]
fn what_everybody_has_done_leaves_a_stream_that_is_kept_for_them() {
    let world = World::usual(6);
    let meta = world.create().unwrap();
    let streams = world.streams(&meta).unwrap();
    let kept = StreamConfig { retention: Retention::Interest, ..config() };
    let stream = streams.create(TENANT, "s", kept, &never()).unwrap();
    let one = streams.create_consumer(&stream, named("one"), &never()).unwrap();
    let two = streams.create_consumer(&stream, named("two"), &never()).unwrap();
    publish(&world, &stream, 4);
    for delivery in fetch(&world, &one, 9) {
        one.ack(delivery.token, &never()).unwrap();
    }
    one.flush(&never()).unwrap();
    assert_eq!(stream.status().first_sequence, 1);
    for delivery in &fetch(&world, &two, 9)[..2] {
        two.ack(delivery.token, &never()).unwrap();
    }
    two.flush(&never()).unwrap();
    assert_eq!(stream.status().first_sequence, 3);
    streams.delete_consumer(&stream, "two", &never()).unwrap();
    assert_eq!(stream.status().first_sequence, 5);
    let error = two.fetch(1, &now(&world), &never()).unwrap_err();
    assert!(error.is(&codes::STREAM_CONSUMER_NOT_FOUND), "{error}");
    assert!(streams.consumer(&stream, "two", &never()).is_err());
}

#[test]
fn what_the_stream_lets_go_is_done() {
    let world = World::usual(9);
    let meta = world.create().unwrap();
    let streams = world.streams(&meta).unwrap();
    let stream = stream(&world, &streams, 4);
    let consumer = streams.create_consumer(&stream, named("c"), &never()).unwrap();
    let out = fetch(&world, &consumer, 2);
    stream.purge(1, &never()).unwrap();
    assert_eq!(numbers(&fetch(&world, &consumer, 1)), [(3, 1)]);
    assert_eq!(consumer.status().0.floor_sequence, 1);
    assert!(consumer.ack(out[0].token, &never()).is_err());
    // One in the middle goes while it waits to be delivered again.
    stream.publish(&world.message("a.other", "4"), None, &never()).unwrap();
    consumer.nak(out[1].token, None).unwrap();
    stream.purge_subjects(&Pattern::new("a.b").unwrap(), &never()).unwrap();
    assert_eq!(numbers(&fetch(&world, &consumer, 1)), [(4, 1)], "it was read ahead");
    assert_eq!(numbers(&fetch(&world, &consumer, 9)), [(5, 1)]);
    assert_eq!(consumer.status().0.floor_sequence, 2);
}

#[test]
fn a_stream_takes_its_consumers_along() {
    let world = World::usual(7);
    let meta = world.create().unwrap();
    let streams = world.streams(&meta).unwrap();
    let before = meta.status().rows;
    let stream = stream(&world, &streams, 2);
    let consumer = streams.create_consumer(&stream, named("c"), &never()).unwrap();
    let out = fetch(&world, &consumer, 2);
    consumer.term(out[0].token, "", &never()).unwrap();
    streams.delete(TENANT, "s", &never()).unwrap();
    assert!(consumer.fetch(1, &now(&world), &never()).is_err());
    assert_eq!(meta.status().rows, before);
}

#[test]
fn fetchers_share_the_messages_and_wait_for_more() {
    let world = World::usual(8);
    let meta = world.create().unwrap();
    let streams = world.streams(&meta).unwrap();
    let stream = stream(&world, &streams, 0);
    let consumer = streams.create_consumer(&stream, named("c"), &never()).unwrap();
    let taken: Vec<u64> = std::thread::scope(|scope| {
        let fetchers: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(|| {
                    let mut taken = Vec::new();
                    loop {
                        for one in consumer.fetch(5, &never(), &never()).unwrap() {
                            consumer.ack(one.token, &never()).unwrap();
                            if one.stored.envelope.data().is_empty() {
                                return taken;
                            }
                            taken.push(one.stored.sequence);
                        }
                    }
                })
            })
            .collect();
        publish(&world, &stream, 100);
        for _ in 0..3 {
            // One for each, and it takes no more after that.
            let last = stream.publish(&world.message("a.end", ""), None, &never()).unwrap();
            while consumer.status().0.floor_sequence < last.sequence {
                std::thread::yield_now();
            }
        }
        fetchers.into_iter().flat_map(|fetcher| fetcher.join().unwrap()).collect()
    });
    let once: BTreeSet<u64> = taken.iter().copied().collect();
    assert_eq!((once.len(), taken.len()), (100, 100));
}

/// What happened before the cut.
#[derive(Default)]
struct Seen {
    published: u64,
    /// Acknowledged, and that was durable.
    done: BTreeSet<u64>,
    /// Acknowledged.
    acknowledged: BTreeSet<u64>,
    dead: BTreeSet<u64>,
    /// How often each was handed out.
    deliveries: std::collections::BTreeMap<u64, u32>,
}

fn script(world: &World, meta: &Arc<Meta>, seen: &mut Seen) -> Result<()> {
    let streams = world.streams(meta)?;
    let stream = streams.create(TENANT, "s", config(), &never())?;
    let consumer = streams.create_consumer(&stream, named("c"), &never())?;
    for round in 0..4 {
        for n in 0..3 {
            stream.publish(&world.message("a.b", n.to_string()), None, &never())?;
            seen.published += 1;
        }
        let out = consumer.fetch(4, &now(world), &never())?;
        for one in &out {
            seen.deliveries.insert(one.stored.sequence, one.deliveries);
        }
        for (index, one) in out.iter().enumerate() {
            match (index + round) % 4 {
                0 => consumer.nak(one.token, None)?,
                1 if round == 2 => {
                    seen.dead.insert(one.stored.sequence);
                    consumer.term(one.token, "why", &never())?;
                }
                _ => {
                    seen.acknowledged.insert(one.stored.sequence);
                    consumer.ack(one.token, &never())?;
                }
            }
        }
        if round % 2 == 1 {
            consumer.flush(&never())?;
            seen.done.extend(&seen.acknowledged);
        }
    }
    Ok(())
}

#[test]
fn after_a_cut_at_any_step_what_was_done_stays_done_and_all_else_comes_again() {
    let mut steps = 0;
    for step in (1..).step_by(if std::env::var_os("DWK_LONG").is_some() { 1 } else { 7 }) {
        let mut world = World::new(90 + step);
        let meta = world.create().unwrap();
        world.power.cut_in(step);
        let mut seen = Seen::default();
        let ran = catch_unwind(AssertUnwindSafe(|| script(&world, &meta, &mut seen)));
        let finished = matches!(ran, Ok(Ok(())));
        drop(meta);
        world.restart();
        check(&world, &seen);
        steps += 1;
        if finished {
            break;
        }
    }
    assert!(steps > 5, "{steps} cuts");
}

fn check(world: &World, seen: &Seen) {
    let meta = world.open().unwrap();
    let streams = world.streams(&meta).unwrap();
    let Ok(stream) = streams.get(TENANT, "s") else {
        return assert_eq!(seen.published, 0);
    };
    let Ok(consumer) = streams.consumer(&stream, "c", &never()) else {
        return assert_eq!(seen.published, 0);
    };
    let mut again = BTreeSet::new();
    loop {
        let out = fetch(world, &consumer, 5);
        if out.is_empty() {
            break;
        }
        for one in out {
            let sequence = one.stored.sequence;
            assert!(!seen.done.contains(&sequence), "{sequence} was done");
            let before = seen.deliveries.get(&sequence).copied().unwrap_or(0);
            assert!(one.deliveries > before, "{sequence}: {} after {before}", one.deliveries);
            consumer.ack(one.token, &never()).unwrap();
            again.insert(sequence);
        }
    }
    let dead = consumer.dead_letters(0, 99, &never()).unwrap();
    let dead: BTreeSet<u64> = dead.iter().map(|one| one.letter.sequence).collect();
    for sequence in 1..=seen.published {
        let told = [&again, &dead, &seen.acknowledged];
        assert!(told.iter().any(|some| some.contains(&sequence)), "{sequence} is lost");
    }
    assert!(dead.is_subset(&seen.dead) && again.is_disjoint(&dead));
}
