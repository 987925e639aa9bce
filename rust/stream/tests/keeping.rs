//! What a consumer keeps its stream from letting go, where it begins, and what becomes of answers at its end.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod world;

use std::sync::{Arc, mpsc};
use std::time::Duration;

use dwk_base::{Clock, Deadline, codes};
use dwk_bus::Pattern;
use dwk_drive::faulty::{Effect, Fault, Operation};
use dwk_stream::{
    Consumer, ConsumerConfig, Delivery, From, Retention, Stream, StreamConfig, Streams,
};
use world::{TENANT, World, all, config, never, sequences};

fn named(name: &str) -> ConsumerConfig {
    ConsumerConfig::new(name)
}

fn stream(streams: &Streams, retention: Retention) -> Stream {
    streams.create(TENANT, "s", StreamConfig { retention, ..config() }, &never()).unwrap()
}

fn publish(world: &World, stream: &Stream, subjects: &[&str]) {
    for subject in subjects {
        stream.publish(&world.message(subject, "text"), None, &never()).unwrap();
    }
}

fn fetch(world: &World, consumer: &Consumer, limit: usize) -> Vec<Delivery> {
    let now = Deadline::after(Arc::clone(&world.clock) as Arc<dyn Clock>, Duration::ZERO);
    consumer.fetch(limit, &now, &never()).unwrap()
}

fn numbers(world: &World, consumer: &Consumer) -> Vec<(u64, u32)> {
    let all = fetch(world, consumer, 99);
    all.iter().map(|one| (one.stored.sequence, one.deliveries)).collect()
}

/// Acknowledges everything there is.
fn handle(world: &World, consumer: &Consumer) {
    for one in fetch(world, consumer, 99) {
        consumer.ack(one.token, &never()).unwrap();
    }
}

#[test]
fn an_answer_after_a_consumers_end_is_refused() {
    let world = World::new(1);
    let meta = world.create().unwrap();
    let streams = world.streams(&meta).unwrap();
    let stream = stream(&streams, Retention::Limits);
    publish(&world, &stream, &["a.b", "a.b"]);
    let one = streams.create_consumer(&stream, named("one"), &never()).unwrap();
    let two = streams.create_consumer(&stream, named("two"), &never()).unwrap();
    let (of_one, of_two) = (fetch(&world, &one, 2), fetch(&world, &two, 2));
    streams.delete_consumer(&stream, "one", &never()).unwrap();
    let token = of_one[0].token;
    for error in [
        one.ack(token, &never()).unwrap_err(),
        one.nak(token, None).unwrap_err(),
        one.term(token, "why", &never()).unwrap_err(),
        one.in_progress(token).unwrap_err(),
        one.pause(&never()).unwrap_err(),
    ] {
        assert!(error.is(&codes::STREAM_CONSUMER_NOT_FOUND), "{error}");
    }
    two.ack(of_two[0].token, &never()).unwrap();
    streams.close();
    let error = two.ack(of_two[1].token, &never()).unwrap_err();
    assert!(error.is(&codes::STORE_CLOSED), "{error}");
    // What was answered before is durable.
    let (_meta, streams) = world.again(meta, streams);
    let stream = streams.get(TENANT, "s").unwrap();
    let two = streams.consumer(&stream, "two", &never()).unwrap();
    assert_eq!(numbers(&world, &two), [(2, 2)]);
}

#[test]
fn closed_streams_let_the_store_go() {
    let world = World::new(2);
    let meta = world.create().unwrap();
    let streams = world.streams(&meta).unwrap();
    let stream = stream(&streams, Retention::Limits);
    drop(streams.create_consumer(&stream, named("c"), &never()).unwrap());
    streams.close();
    meta.close().unwrap();
    let left = Arc::downgrade(&meta);
    drop((stream, streams, meta));
    assert!(left.upgrade().is_none());
}

#[test]
fn a_consumer_that_begins_at_a_time_gets_nothing_from_before() {
    let world = World::new(3);
    let meta = world.create().unwrap();
    let streams = world.streams(&meta).unwrap();
    let stream = stream(&streams, Retention::Limits);
    publish(&world, &stream, &["a.b", "a.b"]);
    world.clock.advance(Duration::from_secs(5));
    let start = From::Time(world.clock.unix_ns());
    publish(&world, &stream, &["a.b", "a.b"]);
    stream.compact_frames().unwrap();
    let config = ConsumerConfig { start, ..named("c") };
    let consumer = streams.create_consumer(&stream, config, &never()).unwrap();
    assert_eq!(numbers(&world, &consumer), [(3, 1), (4, 1)]);
    let start = From::Time(world.clock.unix_ns() + 1);
    let config = ConsumerConfig { start, ..named("later") };
    let later = streams.create_consumer(&stream, config, &never()).unwrap();
    assert!(numbers(&world, &later).is_empty());
}

#[test]
fn a_message_is_kept_while_a_cut_can_still_take_back_its_acknowledgement() {
    let mut world = World::new(4);
    let meta = world.create().unwrap();
    let streams = world.streams(&meta).unwrap();
    let stream = stream(&streams, Retention::Interest);
    let one = streams.create_consumer(&stream, named("one"), &never()).unwrap();
    let two = streams.create_consumer(&stream, named("two"), &never()).unwrap();
    publish(&world, &stream, &["a.b"]);
    // Not durable, while everything of the other one is.
    handle(&world, &one);
    handle(&world, &two);
    two.flush(&never()).unwrap();
    streams.upkeep().unwrap();
    world.power.cut_now();
    drop((one, two, stream, streams, meta));
    world.restart();
    let meta = world.open().unwrap();
    let streams = world.streams(&meta).unwrap();
    let stream = streams.get(TENANT, "s").unwrap();
    let one = streams.consumer(&stream, "one", &never()).unwrap();
    assert_eq!(numbers(&world, &one), [(1, 2)]);
}

#[test]
fn what_its_only_consumer_does_not_want_leaves_a_stream_that_is_kept_for_it() {
    let world = World::new(5);
    let meta = world.create().unwrap();
    let streams = world.streams(&meta).unwrap();
    let stream = stream(&streams, Retention::Interest);
    publish(&world, &stream, &["a.b", "a.b"]);
    let config = ConsumerConfig { start: From::Sequence(4), ..named("c") };
    let consumer = streams.create_consumer(&stream, config, &never()).unwrap();
    assert_eq!(stream.status().first_sequence, 3);
    publish(&world, &stream, &["a.b", "a.b"]);
    consumer.flush(&never()).unwrap();
    assert_eq!(sequences(&all(&stream)), [4]);
}

#[test]
fn what_is_purged_by_subject_stays_away_also_if_it_was_let_go_before() {
    let mut world = World::new(6);
    let meta = world.create().unwrap();
    let streams = world.streams(&meta).unwrap();
    let stream = stream(&streams, Retention::WorkQueue);
    let consumer = streams.create_consumer(&stream, named("c"), &never()).unwrap();
    publish(&world, &stream, &["a.x", "a.y"]);
    handle(&world, &consumer);
    consumer.flush(&never()).unwrap();
    stream.purge_subjects(&Pattern::new("a.x").unwrap(), &never()).unwrap();
    world.power.cut_now();
    drop((consumer, stream, streams, meta));
    world.restart();
    let meta = world.open().unwrap();
    let streams = world.streams(&meta).unwrap();
    let stream = streams.get(TENANT, "s").unwrap();
    let subject = |stored: &dwk_stream::Stored| stored.envelope.subject().as_str() == "a.x";
    assert!(!all(&stream).iter().any(subject));
}

#[test]
fn messages_that_were_purged_at_the_end_do_not_hold_the_floor() {
    let world = World::new(7);
    let meta = world.create().unwrap();
    let streams = world.streams(&meta).unwrap();
    let stream = stream(&streams, Retention::Interest);
    let consumer = streams.create_consumer(&stream, named("c"), &never()).unwrap();
    publish(&world, &stream, &["a.y", "a.x", "a.x"]);
    stream.purge_subjects(&Pattern::new("a.x").unwrap(), &never()).unwrap();
    handle(&world, &consumer);
    assert!(numbers(&world, &consumer).is_empty());
    assert_eq!(consumer.status().0.floor_sequence, 3);
    consumer.flush(&never()).unwrap();
    assert_eq!(stream.status().first_sequence, 4);
    publish(&world, &stream, &["a.x"]);
    assert_eq!(numbers(&world, &consumer), [(4, 1)]);
}

#[test]
fn a_message_that_could_not_be_read_comes_again_at_once_and_the_others_with_it() {
    let world = World::new(8);
    let meta = world.create().unwrap();
    let streams = world.streams(&meta).unwrap();
    let stream = stream(&streams, Retention::Limits);
    let long = world.message("a.b", vec![b'x'; 30_000]);
    stream.publish(&long, None, &never()).unwrap();
    publish(&world, &stream, &["a.b"]);
    let consumer = streams.create_consumer(&stream, named("c"), &never()).unwrap();
    for one in fetch(&world, &consumer, 9) {
        consumer.nak(one.token, None).unwrap();
    }
    for drive in &world.drives {
        drive.inject(Fault::new(Effect::Flip).on(Operation::Read));
    }
    let now = Deadline::after(Arc::clone(&world.clock) as Arc<dyn Clock>, Duration::ZERO);
    let error = consumer.fetch(9, &now, &never()).unwrap_err();
    assert!(error.is(&codes::DATA_CORRUPT), "{error}");
    world.drives.iter().for_each(dwk_drive::FaultyDrive::heal);
    assert_eq!(numbers(&world, &consumer), [(1, 3), (2, 3)]);
}

fn inactive(after: Duration) -> ConsumerConfig {
    ConsumerConfig { inactive_after: Some(after), ..named("c") }
}

#[test]
fn a_consumer_that_nobody_uses_is_removed_after_its_time_and_stays_away() {
    let world = World::new(12);
    let meta = world.create().unwrap();
    let streams = world.streams(&meta).unwrap();
    let stream = stream(&streams, Retention::Interest);
    let minute = Duration::from_mins(1);
    let consumer = streams.create_consumer(&stream, inactive(minute), &never()).unwrap();
    let other = streams.create_consumer(&stream, named("other"), &never()).unwrap();
    publish(&world, &stream, &["a.b", "a.b", "a.b"]);
    handle(&world, &other);
    other.flush(&never()).unwrap();
    let is_there = || streams.consumer(&stream, "c", &never()).is_ok();
    let pass = |seconds| {
        world.clock.advance(Duration::from_secs(seconds));
        streams.upkeep().unwrap();
    };
    pass(59);
    // Who fetches uses it, and while a message is out it stays.
    let out = fetch(&world, &consumer, 2);
    consumer.term(out[0].token, "why", &never()).unwrap();
    pass(61);
    assert!(is_there());
    consumer.ack(out[1].token, &never()).unwrap();
    pass(59);
    assert!(is_there());
    let rows = meta.status().rows;
    pass(1);
    assert!(!is_there());
    assert_eq!(meta.status().rows, rows - 2, "its state and its letter");
    assert_eq!(stream.status().first_sequence, 4, "the others have done them");
    let now = Deadline::after(Arc::clone(&world.clock) as Arc<dyn Clock>, Duration::ZERO);
    let error = consumer.fetch(1, &now, &never()).unwrap_err();
    assert!(error.is(&codes::STREAM_CONSUMER_NOT_FOUND), "{error}");
    pass(3600);
    let (_meta, streams) = world.again(meta, streams);
    let stream = streams.get(TENANT, "s").unwrap();
    let names = streams.consumers(&stream, &never()).unwrap();
    assert_eq!(names.iter().map(Consumer::name).collect::<Vec<_>>(), ["other"]);
    // The name is free again.
    streams.create_consumer(&stream, inactive(minute), &never()).unwrap();
}

#[test]
fn an_opening_counts_as_use_and_a_removal_that_fails_leaves_the_consumer() {
    let world = World::new(13);
    let meta = world.create().unwrap();
    let streams = world.streams(&meta).unwrap();
    let stream = stream(&streams, Retention::Limits);
    streams.create_consumer(&stream, inactive(Duration::from_mins(1)), &never()).unwrap();
    drop(stream);
    world.clock.advance(Duration::from_mins(5));
    let (meta, streams) = world.again(meta, streams);
    world.clock.advance(Duration::from_secs(59));
    streams.upkeep().unwrap();
    let stream = streams.get(TENANT, "s").unwrap();
    let consumer = streams.consumer(&stream, "c", &never()).unwrap();
    world.clock.advance(Duration::from_secs(2));
    world.drives.iter().for_each(|drive| drive.set_read_only(true));
    assert!(streams.upkeep().is_err());
    assert!(numbers(&world, &consumer).is_empty(), "it is used again");
    drop((consumer, stream, streams, meta));
}

#[test]
fn the_thread_removes_a_consumer_that_nobody_uses_and_none_that_somebody_waits_at() {
    let mut world = World::new(14);
    world.options.background = true;
    let meta = world.create().unwrap();
    let open = || {
        let system = dwk_base::Seams::system();
        Streams::open(Arc::clone(&meta), system, world.options.clone()).unwrap()
    };
    let streams = open();
    let stream = stream(&streams, Retention::Limits);
    let soon = Duration::from_millis(200);
    let used = ConsumerConfig { name: "used".to_owned(), ..inactive(soon) };
    let used = streams.create_consumer(&stream, used, &never()).unwrap();
    drop(streams.create_consumer(&stream, inactive(soon), &never()).unwrap());
    streams.close();
    drop((used, stream, streams));
    // Also when nobody has asked for it since the opening.
    let streams = open();
    let stream = streams.get(TENANT, "s").unwrap();
    let used = streams.consumer(&stream, "used", &never()).unwrap();
    let begin = std::time::Instant::now();
    let system = Arc::new(dwk_base::SystemClock::default());
    while streams.consumer(&stream, "c", &never()).is_ok() {
        assert!(begin.elapsed() < Duration::from_secs(20), "nobody removed it");
        let patience = Deadline::after(Arc::clone(&system) as Arc<dyn Clock>, 3 * soon);
        assert!(used.fetch(1, &patience, &never()).unwrap().is_empty());
    }
    assert!(streams.consumer(&stream, "used", &never()).is_ok());
    streams.close();
}

/// What wakes a fetch that waits.
fn wakes(seed: u64, wake: impl FnOnce(&Streams, &Stream, &Consumer)) {
    let world = World::new(seed);
    let meta = world.create().unwrap();
    let streams = world.streams(&meta).unwrap();
    let stream = stream(&streams, Retention::Limits);
    let consumer = streams.create_consumer(&stream, named("c"), &never()).unwrap();
    publish(&world, &stream, &["a.b"]);
    consumer.term(fetch(&world, &consumer, 1)[0].token, "why", &never()).unwrap();
    consumer.pause(&never()).unwrap();
    let (tell, told) = mpsc::channel();
    let waiting = consumer.clone();
    std::thread::spawn(move || {
        let _ = tell.send(waiting.fetch(1, &never(), &never()).map(|out| out.len()));
    });
    // It waits, most likely.
    assert!(told.recv_timeout(Duration::from_millis(50)).is_err());
    wake(&streams, &stream, &consumer);
    let woken = told.recv_timeout(Duration::from_secs(20));
    assert!(woken.is_ok(), "it still waits");
}

#[test]
fn a_fetch_that_waits_is_woken_by_a_resumption() {
    wakes(9, |_, _, consumer| {
        consumer.redrive(1, &never()).unwrap();
        consumer.resume(&never()).unwrap();
    });
}

#[test]
fn a_fetch_that_waits_is_woken_by_a_letter_that_is_redriven() {
    wakes(10, |_, _, consumer| {
        consumer.resume(&never()).unwrap();
        // It waits again.
        std::thread::sleep(Duration::from_millis(50));
        consumer.redrive(1, &never()).unwrap();
    });
}

#[test]
fn a_fetch_that_waits_ends_with_its_consumer() {
    wakes(11, |streams, stream, _| streams.delete_consumer(stream, "c", &never()).unwrap());
}
