//! What is published for later comes then: once, in order, also after opening again.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod world;

use std::time::{Duration, Instant};

use dwk_base::{Clock, Seams, codes};
use dwk_stream::{Discard, From, Options, Retention, Stream, StreamConfig, Streams};
use world::{TENANT, World, all, config, never, rest, texts};

fn later(world: &World, stream: &Stream, seconds: u64, text: &str) {
    let message = world.message("a.b", text);
    stream.publish_after(&message, None, Duration::from_secs(seconds), &never()).unwrap();
}

#[test]
fn delayed_messages_come_when_they_are_due_in_the_order_of_their_times() {
    let world = World::new(1);
    let meta = world.create().unwrap();
    let streams = world.streams(&meta).unwrap();
    let stream = streams.create(TENANT, "s", config(), &never()).unwrap();
    let rows = meta.status().rows;
    for (seconds, text) in [(30, "c"), (10, "a"), (20, "b"), (3600, "late")] {
        later(&world, &stream, seconds, text);
    }
    let status = stream.status();
    let now = world.clock.unix_ns();
    assert_eq!((status.delayed, status.next_due_unix_ns), (4, Some(now + 10_000_000_000)));
    streams.upkeep().unwrap();
    assert!(all(&stream).is_empty());
    world.clock.advance(Duration::from_secs(10));
    streams.upkeep().unwrap();
    assert_eq!(texts(&all(&stream)), ["a"]);
    stream.publish(&world.message("a.b", "now"), None, &never()).unwrap();
    world.clock.advance(Duration::from_secs(100));
    streams.upkeep().unwrap();
    assert_eq!(texts(&all(&stream)), ["a", "now", "b", "c"]);
    assert_eq!(stream.status().delayed, 1);
    drop(stream);
    let (meta, streams) = world.again(meta, streams);
    let stream = streams.get(TENANT, "s").unwrap();
    assert_eq!(stream.status().delayed, 1);
    world.clock.advance(Duration::from_hours(1));
    streams.upkeep().unwrap();
    assert_eq!(texts(&all(&stream)), ["a", "now", "b", "c", "late"]);
    let status = stream.status();
    assert_eq!((status.delayed, status.next_due_unix_ns), (0, None));
    stream.compact_frames().unwrap();
    assert_eq!(meta.status().rows, rows + 1, "no row of a delayed message is left");
}

#[test]
fn the_thread_publishes_what_is_due_and_who_waits_is_woken() {
    let mut world = World::usual(2);
    world.options = Options { background: true, ..Options::default() };
    let meta = world.create().unwrap();
    let streams = Streams::open(meta, Seams::system(), world.options.clone()).unwrap();
    let stream = streams.create(TENANT, "s", config(), &never()).unwrap();
    let (mut watch, begin) = (stream.watch(), Instant::now());
    let message = world.message("a.b", "x");
    stream.publish_after(&message, None, Duration::from_millis(100), &never()).unwrap();
    assert!(all(&stream).is_empty());
    assert!(watch.wait(&never()));
    assert!(begin.elapsed() >= Duration::from_millis(100));
    assert_eq!(texts(&all(&stream)), ["x"]);
    streams.close();
}

#[test]
fn many_due_messages_come_each_once_and_an_id_counts_once() {
    let world = World::new(3);
    let meta = world.create().unwrap();
    let streams = world.streams(&meta).unwrap();
    let stream = streams.create(TENANT, "s", config(), &never()).unwrap();
    for n in 0..700 {
        later(&world, &stream, 1, &format!("{n}"));
    }
    for _ in 0..3 {
        let message = world.message("a.b", "same");
        stream.publish_after(&message, Some("id"), Duration::from_secs(1), &never()).unwrap();
    }
    world.clock.advance(Duration::from_secs(1));
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| streams.upkeep().unwrap());
        }
    });
    let mut there = texts(&rest(&mut stream.cursor(From::First).unwrap()));
    there.sort_unstable();
    let mut expected: Vec<_> = (0..700).map(|n| n.to_string()).chain(["same".into()]).collect();
    expected.sort_unstable();
    assert_eq!(there, expected);
    assert_eq!(stream.status().delayed, 0);
}

#[test]
fn due_messages_wait_while_the_stream_is_full_and_too_many_are_refused() {
    let mut world = World::new(4);
    world.options.delayed_max = 5;
    let world = world;
    let meta = world.create().unwrap();
    let streams = world.streams(&meta).unwrap();
    let full = StreamConfig {
        max_messages: Some(2),
        discard: Discard::New,
        retention: Retention::WorkQueue,
        ..config()
    };
    let stream = streams.create(TENANT, "s", full, &never()).unwrap();
    for n in 0..5 {
        later(&world, &stream, n, &format!("{n}"));
    }
    let message = world.message("a.b", "x");
    let error = stream.publish_after(&message, None, Duration::ZERO, &never()).unwrap_err();
    assert!(error.is(&codes::STREAM_FULL), "{error}");
    world.clock.advance(Duration::from_secs(10));
    streams.upkeep().unwrap();
    assert_eq!(texts(&all(&stream)), ["0", "1"]);
    assert_eq!(stream.status().delayed, 3);
    stream.release(1).unwrap();
    streams.upkeep().unwrap();
    assert_eq!(texts(&all(&stream)), ["1", "2"]);
    stream.publish_after(&message, None, Duration::ZERO, &never()).unwrap();
}

#[test]
fn a_delayed_message_that_is_damaged_holds_up_no_other() {
    let world = World::new(5);
    let meta = world.create().unwrap();
    let streams = world.streams(&meta).unwrap();
    let stream = streams.create(TENANT, "s", config(), &never()).unwrap();
    later(&world, &stream, 1, "bad");
    later(&world, &stream, 2, "good");
    let (from, to): (&[u8], &[u8]) = (&[0x13], &[0x14]);
    let bounds = (std::ops::Bound::Included(from), std::ops::Bound::Excluded(to));
    let key = meta.range(bounds.0, bounds.1, 1).unwrap().remove(0).0;
    let mut upload = meta.upload();
    upload.append(b"\0\x05junk!").unwrap();
    let staged = upload.finish().unwrap();
    meta.commit(dwk_meta::Change::new().put(key, vec![0], Some(staged))).unwrap();
    world.clock.advance(Duration::from_secs(10));
    for _ in 0..2 {
        let error = streams.upkeep().unwrap_err();
        assert!(error.is(&codes::DATA_CORRUPT), "{error}");
    }
    assert_eq!(texts(&all(&stream)), ["good"]);
    assert_eq!(stream.status().delayed, 1);
    streams.delete(TENANT, "s", &never()).unwrap();
    assert_eq!(meta.status().rows, 0);
}
