//! What goes, goes in order and for good; what stays is shown exactly.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod world;

use std::time::Duration;

use dwk_base::codes;
use dwk_bus::Pattern;
use dwk_stream::{Discard, From, Options, Retention, Stream, StreamConfig};
use world::{TENANT, World, all, config, never, rest, sequences, texts};

fn fill(world: &World, stream: &Stream, count: usize) {
    for n in 0..count {
        stream.publish(&world.message("a.b", format!("{n:0100}")), None, &never()).unwrap();
        world.clock.advance(Duration::from_secs(1));
    }
}

/// First, last and how many, as status and readers see them.
fn shown(stream: &Stream) -> (u64, u64, u64) {
    let status = stream.status();
    let read = sequences(&all(stream));
    assert_eq!(read.len() as u64, status.messages, "{status:?}");
    assert_eq!(read.first().copied().unwrap_or(status.first_sequence), status.first_sequence);
    (status.first_sequence, status.last_sequence, status.messages)
}

#[test]
fn the_oldest_messages_go_when_there_are_more_than_max_messages_also_out_of_blocks() {
    let world = World::new(1);
    let meta = world.create().unwrap();
    let streams = world.streams(&meta).unwrap();
    let few = StreamConfig { max_messages: Some(10), ..config() };
    let stream = streams.create(TENANT, "s", few.clone(), &never()).unwrap();
    let mut cursor = stream.cursor(From::First).unwrap();
    fill(&world, &stream, 8);
    assert_eq!(shown(&stream), (1, 8, 8));
    assert_eq!(sequences(&cursor.next_many(2, usize::MAX, &never()).unwrap()), [1, 2]);
    stream.compact_frames().unwrap();
    fill(&world, &stream, 17);
    assert_eq!(shown(&stream), (16, 25, 10));
    assert_eq!(sequences(&rest(&mut cursor)).first(), Some(&16));
    streams.upkeep().unwrap();
    let status = stream.status();
    assert_eq!((status.frames, status.blocks), (10, 0), "what is hidden as a whole is removed");
    stream.compact_frames().unwrap();
    fill(&world, &stream, 3);
    assert_eq!(shown(&stream), (19, 28, 10), "a block that is half out is half shown");
    let (_meta, streams) = world.again(meta, streams);
    let stream = streams.get(TENANT, "s").unwrap();
    assert_eq!(shown(&stream), (19, 28, 10));
    streams.update(TENANT, "s", StreamConfig { max_messages: None, ..few }, &never()).unwrap();
    assert_eq!(shown(&stream), (19, 28, 10), "what was hidden does not come back");
}

#[test]
fn what_was_hidden_stays_hidden_after_a_larger_limit_and_opening_again() {
    let world = World::new(2);
    let meta = world.create().unwrap();
    let streams = world.streams(&meta).unwrap();
    let few = StreamConfig { max_messages: Some(3), ..config() };
    let stream = streams.create(TENANT, "s", few, &never()).unwrap();
    fill(&world, &stream, 9);
    streams.update(TENANT, "s", config(), &never()).unwrap();
    drop(stream);
    let (_meta, streams) = world.again(meta, streams);
    let stream = streams.get(TENANT, "s").unwrap();
    assert_eq!(shown(&stream), (7, 9, 3));
    assert_eq!(stream.config().max_messages, None);
}

#[test]
fn messages_go_when_they_are_too_old() {
    let world = World::new(3);
    let meta = world.create().unwrap();
    let streams = world.streams(&meta).unwrap();
    let young = StreamConfig { max_age: Some(Duration::from_secs(10)), ..config() };
    let stream = streams.create(TENANT, "s", young, &never()).unwrap();
    fill(&world, &stream, 30);
    assert_eq!(shown(&stream), (21, 30, 10));
    world.clock.advance(Duration::from_secs(5));
    streams.upkeep().unwrap();
    assert_eq!(shown(&stream), (26, 30, 5));
    world.clock.advance(Duration::from_hours(1));
    streams.upkeep().unwrap();
    assert_eq!(shown(&stream), (31, 30, 0));
    assert_eq!(stream.status().frames, 0);
    let (_meta, streams) = world.again(meta, streams);
    let stream = streams.get(TENANT, "s").unwrap();
    assert_eq!(shown(&stream), (31, 30, 0));
    fill(&world, &stream, 1);
    assert_eq!(shown(&stream), (31, 31, 1), "no number is given again");
}

#[test]
fn the_thread_removes_what_is_too_old_without_being_asked() {
    let mut world = World::usual(4);
    world.options = Options { background: true, ..Options::default() };
    let meta = world.create().unwrap();
    let system = dwk_base::Seams::system();
    let streams = dwk_stream::Streams::open(meta.clone(), system, world.options.clone()).unwrap();
    let young = StreamConfig { max_age: Some(Duration::from_millis(50)), ..config() };
    let stream = streams.create(TENANT, "s", young, &never()).unwrap();
    stream.publish(&world.message("a.b", "x"), None, &never()).unwrap();
    let begin = std::time::Instant::now();
    // The stream's own row and its mark stay.
    while meta.status().rows > 2 {
        assert!(begin.elapsed() < Duration::from_secs(20), "nobody removed it");
        std::thread::sleep(Duration::from_millis(5));
    }
    streams.close();
}

#[test]
fn the_oldest_messages_go_when_they_take_more_than_max_bytes() {
    let world = World::new(5);
    let meta = world.create().unwrap();
    let streams = world.streams(&meta).unwrap();
    let small = StreamConfig { max_bytes: Some(2000), ..config() };
    let stream = streams.create(TENANT, "s", small, &never()).unwrap();
    fill(&world, &stream, 40);
    let (first, last, messages) = shown(&stream);
    let status = stream.status();
    assert!(status.bytes <= 2000 && status.bytes > 1500, "{status:?}");
    assert_eq!((last, messages), (40, 41 - first));
    let long = world.message("a.b", vec![0; 5000]);
    stream.publish(&long, None, &never()).unwrap();
    assert_eq!(shown(&stream), (41, 41, 1), "the last commit stays");
}

#[test]
fn blocks_go_piece_by_piece_when_there_are_too_many_bytes() {
    let world = World::usual(6);
    let meta = world.create().unwrap();
    let streams = world.streams(&meta).unwrap();
    let stream = streams.create(TENANT, "s", config(), &never()).unwrap();
    for batch in 0..20 {
        let message = |n: u32| (world.message("a.b", vec![n as u8; 900]), None);
        let many: Vec<_> = (0..100).map(|n| message(batch * 100 + n)).collect();
        stream.publish_many(&many, &never()).unwrap();
    }
    stream.compact_frames().unwrap();
    let all_bytes = stream.status().bytes;
    let half = StreamConfig { max_bytes: Some(all_bytes / 2), ..config() };
    streams.update(TENANT, "s", half, &never()).unwrap();
    let status = stream.status();
    assert!(status.bytes <= all_bytes / 2 && status.bytes > all_bytes / 2 - 70_000, "{status:?}");
    shown(&stream);
}

#[test]
fn a_stream_that_discards_what_is_new_is_full_and_takes_more_when_something_went() {
    let world = World::new(7);
    let meta = world.create().unwrap();
    let streams = world.streams(&meta).unwrap();
    let full = StreamConfig {
        max_messages: Some(5),
        discard: Discard::New,
        retention: Retention::WorkQueue,
        ..config()
    };
    let stream = streams.create(TENANT, "s", full.clone(), &never()).unwrap();
    fill(&world, &stream, 3);
    let many = |ids: &[&str]| {
        let one = |id: &&str| (world.message("a.b", "x"), Some((*id).to_owned()));
        let messages: Vec<_> = ids.iter().map(one).collect();
        stream.publish_many(&messages, &never()).unwrap()
    };
    let told = many(&["a", "b", "c"]);
    assert!(told.iter().all(|one| one.as_ref().is_err_and(|e| e.is(&codes::STREAM_FULL))));
    assert_eq!(shown(&stream), (1, 3, 3), "of what does not fit together nothing is there");
    // Once is once, however often it stands there.
    let told: Vec<_> =
        many(&["a", "b", "a"]).into_iter().map(|one| one.unwrap().sequence).collect();
    assert_eq!(told, [4, 5, 4]);
    let told = many(&["b", "c"]);
    assert!(told[0].as_ref().is_ok_and(|one| one.duplicate) && told[1].is_err());
    assert_eq!(shown(&stream), (1, 5, 5));
    let told: Vec<_> = std::thread::scope(|scope| {
        stream.release(3).unwrap();
        let publish = || stream.publish(&world.message("a.b", "y"), None, &never());
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(publish)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(told.iter().filter(|one| one.is_ok()).count(), 3);
    assert_eq!(shown(&stream), (4, 8, 5));
    let bytes = StreamConfig { max_messages: None, max_bytes: Some(3000), ..full };
    let stream = streams.create(TENANT, "bytes", bytes, &never()).unwrap();
    let mut taken = 0;
    while stream.publish(&world.message("a.b", vec![0; 100]), None, &never()).is_ok() {
        taken += 1;
    }
    let status = stream.status();
    assert!(taken > 10 && status.bytes <= 3000 && status.bytes > 2700, "{status:?}");
}

#[test]
fn released_messages_go_and_only_where_consumers_have_a_say() {
    let world = World::new(8);
    let meta = world.create().unwrap();
    let streams = world.streams(&meta).unwrap();
    let limits = streams.create(TENANT, "limits", config(), &never()).unwrap();
    assert!(limits.release(1).unwrap_err().is(&codes::STREAM_OPTION));
    for (name, retention) in [("i", Retention::Interest), ("w", Retention::WorkQueue)] {
        let by_consumers = StreamConfig { retention, ..config() };
        let stream = streams.create(TENANT, name, by_consumers, &never()).unwrap();
        fill(&world, &stream, 10);
        stream.release(4).unwrap();
        stream.release(2).unwrap();
        assert_eq!(shown(&stream), (5, 10, 6));
        stream.release(99).unwrap();
        assert_eq!(shown(&stream), (11, 10, 0));
    }
    streams.upkeep().unwrap();
    drop(limits);
    let (_meta, streams) = world.again(meta, streams);
    assert_eq!(shown(&streams.get(TENANT, "w").unwrap()), (11, 10, 0));
}

#[test]
fn purged_messages_are_gone_for_good_by_number_and_by_subject() {
    let world = World::new(9);
    let meta = world.create().unwrap();
    let streams = world.streams(&meta).unwrap();
    let stream = streams.create(TENANT, "s", config(), &never()).unwrap();
    for n in 0..30 {
        let subject = ["a.b", "a.c", "a.d"][n % 3];
        stream.publish(&world.message(subject, n.to_string()), None, &never()).unwrap();
    }
    assert_eq!(stream.purge(9, &never()).unwrap(), 9);
    assert_eq!(shown(&stream), (10, 30, 21));
    let purged = stream.purge_subjects(&Pattern::new("*.c").unwrap(), &never()).unwrap();
    assert_eq!(purged, 7);
    let left: Vec<_> = (9..30).filter(|n| n % 3 != 1).map(|n| n.to_string()).collect();
    assert_eq!(texts(&all(&stream)), left);
    assert_eq!(stream.status().messages, 14);
    assert_eq!(stream.purge_subjects(&Pattern::new("*.c").unwrap(), &never()).unwrap(), 0);
    drop(stream);
    let (_meta, streams) = world.again(meta, streams);
    let stream = streams.get(TENANT, "s").unwrap();
    assert_eq!(texts(&all(&stream)), left);
    let mut cursor = stream.cursor(From::Sequence(11)).unwrap();
    assert_eq!(sequences(&cursor.next_many(2, usize::MAX, &never()).unwrap()), [12, 13]);
    assert_eq!(stream.purge_subjects(&Pattern::new(">").unwrap(), &never()).unwrap(), 14);
    assert!(all(&stream).is_empty());
    stream.publish(&world.message("a.b", "new"), None, &never()).unwrap();
    assert_eq!(sequences(&all(&stream)), [31]);
    assert_eq!(stream.purge(u64::MAX, &never()).unwrap(), 1);
    assert_eq!(shown(&stream), (32, 31, 0));
}

#[test]
fn of_a_key_only_the_last_message_stays_and_messages_without_one() {
    let world = World::new(10);
    let meta = world.create().unwrap();
    let streams = world.streams(&meta).unwrap();
    let last = StreamConfig { keep_last_per_key: true, ..config() };
    let stream = streams.create(TENANT, "s", last, &never()).unwrap();
    let mut expected = std::collections::BTreeMap::new();
    for n in 0..200u64 {
        let key = format!("k{}", n * n % 17);
        let message = if n % 10 == 3 {
            expected.insert(n + 1, n.to_string());
            world.message("a.b", n.to_string())
        } else {
            world.keyed("a.b", &key, format!("{key}={n}"))
        };
        stream.publish(&message, None, &never()).unwrap();
    }
    for (n, stored) in all(&stream).iter().enumerate() {
        if let Some(key) = stored.envelope.key() {
            let later =
                (n as u64 + 1..200).any(|m| m % 10 != 3 && format!("k{}", m * m % 17) == key);
            if !later {
                expected.insert(stored.sequence, texts(std::slice::from_ref(stored))[0].clone());
            }
        }
    }
    stream.compact_frames().unwrap();
    let check = |stream: &Stream| {
        let stored = all(stream);
        let there: Vec<_> = sequences(&stored).into_iter().zip(texts(&stored)).collect();
        assert_eq!(there, expected.clone().into_iter().collect::<Vec<_>>());
        assert_eq!(stream.status().messages, expected.len() as u64);
    };
    check(&stream);
    drop(stream);
    let (_meta, streams) = world.again(meta, streams);
    let stream = streams.get(TENANT, "s").unwrap();
    check(&stream);
    assert_eq!(stream.status().last_sequence, 200);
}

#[test]
fn of_more_keys_than_are_remembered_messages_stay_and_superseded_ids_stay_for_their_window() {
    let mut world = World::new(11);
    world.options.keys_max = 3;
    let world = world;
    let meta = world.create().unwrap();
    let streams = world.streams(&meta).unwrap();
    let last = StreamConfig { keep_last_per_key: true, ..config() };
    let stream = streams.create(TENANT, "s", last, &never()).unwrap();
    for n in 0..20 {
        let key = format!("k{}", n % 5);
        stream.publish(&world.keyed("a.b", &key, n.to_string()), None, &never()).unwrap();
    }
    stream.compact_frames().unwrap();
    let kept = |n: &u64| n % 5 < 2 || *n >= 15;
    assert_eq!(
        texts(&all(&stream)),
        (0..20).filter(kept).map(|n| n.to_string()).collect::<Vec<_>>()
    );
    let publish = |id| stream.publish(&world.keyed("a.b", "x", id), Some(id), &never()).unwrap();
    for id in ["one", "two"] {
        publish(id);
    }
    stream.compact_frames().unwrap();
    assert!(texts(&all(&stream)).contains(&"one".to_owned()));
    world.clock.advance(Duration::from_mins(3));
    publish("three");
    stream.compact_frames().unwrap();
    let texts = texts(&all(&stream));
    assert!(!texts.contains(&"one".to_owned()) && texts.contains(&"three".to_owned()), "{texts:?}");
}
