//! A message with the same `message_id` is taken once within the window.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod world;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use dwk_base::{Deadline, SystemClock, codes};
use dwk_drive::faulty::{Effect, Fault, Operation};
use dwk_stream::{Published, Retention, Stream, StreamConfig};
use world::{TENANT, World, all, config, never, texts};

fn publish(world: &World, stream: &Stream, id: &str) -> (u64, bool) {
    let message = world.message("a.b", id.as_bytes());
    let Published { sequence, duplicate } = stream.publish(&message, Some(id), &never()).unwrap();
    (sequence, duplicate)
}

#[test]
fn a_second_message_with_the_same_id_returns_the_first_ones_number_and_writes_nothing() {
    let world = World::new(1);
    let meta = world.create().unwrap();
    let streams = world.streams(&meta).unwrap();
    let stream = streams.create(TENANT, "s", config(), &never()).unwrap();
    assert_eq!(publish(&world, &stream, "one"), (1, false));
    assert_eq!(publish(&world, &stream, "two"), (2, false));
    let applied = meta.status().applied;
    assert_eq!(publish(&world, &stream, "one"), (1, true));
    assert_eq!(meta.status().applied, applied);
    let stored = all(&stream);
    assert_eq!(texts(&stored), ["one", "two"]);
    assert_eq!(stored[1].message_id.as_deref(), Some("two"));
    assert_eq!(stream.status().window_ids, 2);
    for bad in ["", &"x".repeat(256)] {
        let message = world.message("a.b", "x");
        let error = stream.publish(&message, Some(bad), &never()).unwrap_err();
        assert!(error.is(&codes::STREAM_OPTION), "{error}");
    }
}

#[test]
fn an_id_is_new_again_when_its_window_is_over() {
    let world = World::new(2);
    let meta = world.create().unwrap();
    let streams = world.streams(&meta).unwrap();
    let stream = streams.create(TENANT, "s", config(), &never()).unwrap();
    assert_eq!(publish(&world, &stream, "one"), (1, false));
    world.clock.advance(Duration::from_mins(2));
    assert_eq!(publish(&world, &stream, "one"), (1, true));
    world.clock.advance(Duration::from_nanos(1));
    assert_eq!(publish(&world, &stream, "one"), (2, false));
    assert_eq!(publish(&world, &stream, "one"), (2, true));
    let none = StreamConfig { duplicate_window: Duration::ZERO, ..config() };
    let stream = streams.create(TENANT, "none", none, &never()).unwrap();
    assert_eq!(publish(&world, &stream, "one"), (1, false));
    assert_eq!(publish(&world, &stream, "one"), (2, false));
}

#[test]
fn ids_are_known_after_opening_again_from_frames_and_from_blocks() {
    let world = World::new(3);
    let meta = world.create().unwrap();
    let streams = world.streams(&meta).unwrap();
    let stream = streams.create(TENANT, "s", config(), &never()).unwrap();
    for n in 0..40 {
        publish(&world, &stream, &format!("{n}"));
        if n == 19 {
            stream.compact_frames().unwrap();
        }
        world.clock.advance(Duration::from_secs(4));
    }
    let (_meta, streams) = world.again(meta, streams);
    let stream = streams.get(TENANT, "s").unwrap();
    assert_eq!(stream.status().window_ids, 30, "160 s have passed, of which 120 count");
    for n in 0..40u64 {
        let (sequence, duplicate) = publish(&world, &stream, &format!("{n}"));
        assert_eq!((sequence == n + 1, duplicate), (n >= 10, n >= 10), "{n}");
    }
}

#[test]
fn within_one_batch_an_id_counts_once() {
    let world = World::new(4);
    let meta = world.create().unwrap();
    let streams = world.streams(&meta).unwrap();
    let stream = streams.create(TENANT, "s", config(), &never()).unwrap();
    let message = |id: &str| (world.message("a.b", id.as_bytes()), Some(id.to_owned()));
    let many = [message("a"), message("b"), message("a"), message("c"), message("b")];
    let told = stream.publish_many(&many, &never()).unwrap();
    let told: Vec<_> =
        told.into_iter().map(|one| one.map(|one| (one.sequence, one.duplicate)).unwrap()).collect();
    assert_eq!(told, [(1, false), (2, false), (1, true), (3, false), (2, true)]);
    assert_eq!(texts(&all(&stream)), ["a", "b", "c"]);
}

#[test]
fn of_threads_that_publish_the_same_ids_each_id_is_there_once() {
    let world = World::usual(5);
    let meta = world.create().unwrap();
    let streams = world.streams(&meta).unwrap();
    let stream = streams.create(TENANT, "s", config(), &never()).unwrap();
    let told: Vec<BTreeMap<u64, (u64, bool)>> = std::thread::scope(|scope| {
        let (world, stream) = (&world, &stream);
        let work = move |thread: u64| {
            let order = (0..100).map(|n| (n + 13 * thread) % 100);
            order.map(|n| (n, publish(world, stream, &n.to_string()))).collect()
        };
        let threads: Vec<_> = (0..8).map(|t| scope.spawn(move || work(t))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let there = texts(&all(&stream));
    assert_eq!(there.len(), 100);
    for n in 0..100 {
        let told: Vec<_> = told.iter().filter_map(|told| told.get(&n)).collect();
        assert_eq!(told.iter().filter(|(_, duplicate)| !duplicate).count(), 1, "{n}: {told:?}");
        assert!(told.iter().all(|(at, _)| there[*at as usize - 1] == n.to_string()), "{told:?}");
    }
}

#[test]
fn a_duplicate_of_what_is_on_its_way_waits_for_it() {
    let world = World::new(6);
    let meta = world.create().unwrap();
    let streams = world.streams(&meta).unwrap();
    let stream = streams.create(TENANT, "s", config(), &never()).unwrap();
    let soon = || Deadline::after(Arc::new(SystemClock::default()), Duration::from_millis(50));
    world.drives.iter().for_each(|drive| {
        drive.inject(Fault::new(Effect::Hang).on(Operation::SyncLog));
    });
    let message = world.message("a.b", "one");
    for _ in 0..2 {
        let error = stream.publish(&message, Some("one"), &soon()).unwrap_err();
        assert_eq!(error.detail("outcome"), Some("unknown"), "{error}");
    }
    world.drives.iter().for_each(|drive| {
        drive.heal();
        drive.release();
    });
    assert_eq!(publish(&world, &stream, "one"), (1, true));
    assert_eq!(texts(&all(&stream)), ["one"]);
}

#[test]
fn an_id_whose_message_found_no_room_is_new() {
    let world = World::new(7);
    let meta = world.create().unwrap();
    let streams = world.streams(&meta).unwrap();
    let stream = streams.create(TENANT, "s", config(), &never()).unwrap();
    world.drives.iter().for_each(|drive| drive.set_full(true));
    let refused = (0..500).find(|n| {
        let message = world.message("a.b", vec![0; 5000]);
        stream.publish(&message, Some(&n.to_string()), &never()).is_err()
    });
    let refused = refused.unwrap();
    world.drives.iter().for_each(|drive| drive.set_full(false));
    let count = all(&stream).len() as u64;
    assert_eq!(count, refused);
    assert_eq!(publish(&world, &stream, &refused.to_string()), (count + 1, false));
}

#[test]
fn too_many_ids_shorten_the_window_and_the_status_says_so() {
    let world = World::new(8);
    let meta = world.create().unwrap();
    let streams = world.streams(&meta).unwrap();
    let few = StreamConfig { duplicate_ids_max: 10, ..config() };
    let stream = streams.create(TENANT, "s", few, &never()).unwrap();
    for n in 0..10 {
        publish(&world, &stream, &n.to_string());
    }
    assert!(!stream.status().window_is_short);
    for n in 10..15 {
        publish(&world, &stream, &n.to_string());
    }
    let status = stream.status();
    assert_eq!((status.window_ids, status.window_is_short), (10, true));
    assert_eq!(publish(&world, &stream, "14"), (15, true));
    assert_eq!(publish(&world, &stream, "0"), (16, false));
    world.clock.advance(Duration::from_mins(3));
    assert!(!stream.status().window_is_short);
}

#[test]
fn work_that_is_done_is_not_taken_again_after_opening_again() {
    let world = World::new(9);
    let meta = world.create().unwrap();
    let streams = world.streams(&meta).unwrap();
    let work = StreamConfig { retention: Retention::WorkQueue, ..config() };
    let stream = streams.create(TENANT, "s", work, &never()).unwrap();
    assert_eq!(publish(&world, &stream, "one"), (1, false));
    stream.release(1).unwrap();
    streams.upkeep().unwrap();
    let (meta, streams) = world.again(meta, streams);
    let stream = streams.get(TENANT, "s").unwrap();
    assert!(all(&stream).is_empty());
    assert_eq!(publish(&world, &stream, "one"), (1, true));
    world.clock.advance(Duration::from_mins(3));
    streams.upkeep().unwrap();
    drop(stream);
    let rows = meta.status().rows;
    let (meta, streams) = world.again(meta, streams);
    assert_eq!(
        (meta.status().rows, rows),
        (2, 2),
        "its row is gone, the stream's and its mark stay"
    );
    let stream = streams.get(TENANT, "s").unwrap();
    assert_eq!(publish(&world, &stream, "one"), (2, false), "no number is given again");
}
