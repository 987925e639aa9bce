//! Merging keeps rows few, and every reader sees every message once.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod world;

use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use dwk_base::codes;
use dwk_meta::{Change, Meta};
use dwk_stream::{From, Options, Stream};
use world::{TENANT, World, all, config, never, rest, sequences, texts};

/// Keys of rows with messages.
fn rows(meta: &Meta) -> Vec<Vec<u8>> {
    let (from, to): (&[u8], &[u8]) = (&[0x11], &[0x12]);
    let rows = meta.range(Bound::Included(from), Bound::Excluded(to), usize::MAX).unwrap();
    rows.into_iter().map(|(key, _)| key).collect()
}

fn fill(world: &World, stream: &Stream, numbers: std::ops::Range<u64>) {
    for n in numbers {
        let message = world.message("a.b", format!("{n:>0width$}", width = 20 + n as usize % 300));
        stream.publish(&message, None, &never()).unwrap();
        world.clock.advance(std::time::Duration::from_millis(1));
    }
}

fn numbers(stream: &Stream) -> Vec<u64> {
    texts(&all(stream)).iter().map(|text| text.parse().unwrap()).collect()
}

#[test]
fn merged_messages_are_the_same_and_rows_are_few() {
    let world = World::new(1);
    let meta = world.create().unwrap();
    let streams = world.streams(&meta).unwrap();
    let stream = streams.create(TENANT, "s", config(), &never()).unwrap();
    fill(&world, &stream, 1..301);
    let before = all(&stream);
    assert_eq!(rows(&meta).len(), 300);
    stream.compact_frames().unwrap();
    assert_eq!(rows(&meta).len(), 1);
    assert_eq!(all(&stream), before);
    let status = stream.status();
    assert_eq!((status.frames, status.blocks, status.messages), (0, 1, 300));
    fill(&world, &stream, 301..401);
    stream.compact_frames().unwrap();
    assert_eq!(numbers(&stream), (1..401).collect::<Vec<_>>());
    let (meta, streams) = world.again(meta, streams);
    let stream = streams.get(TENANT, "s").unwrap();
    assert_eq!(rows(&meta).len(), 1, "small blocks are merged, too");
    assert_eq!(numbers(&stream), (1..401).collect::<Vec<_>>());
    assert_eq!(stream.status().messages, 400);
    fill(&world, &stream, 401..402);
    assert_eq!(stream.status().last_sequence, 401);
}

#[test]
fn a_hundred_thousand_messages_are_a_few_rows() {
    let mut world = World::usual(2);
    world.options = Options { background: true, merge_bytes: 1 << 20, ..Options::default() };
    let meta = world.create().unwrap();
    let streams = world.streams(&meta).unwrap();
    let stream = streams.create(TENANT, "s", config(), &never()).unwrap();
    for batch in 0..1000u32 {
        let message = |n: u32| (world.message("a.b", (batch * 100 + n).to_be_bytes()), None);
        let many: Vec<_> = (0..100).map(message).collect();
        stream.publish_many(&many, &never()).unwrap();
    }
    stream.compact_frames().unwrap();
    assert!(rows(&meta).len() < 20, "{} rows", rows(&meta).len());
    let mut cursor = stream.cursor(From::First).unwrap();
    for n in 0..100_000u32 {
        if n % 1000 == 0 {
            let read = cursor.next_many(1000, usize::MAX, &never()).unwrap();
            for (at, stored) in (n..).zip(&read) {
                assert_eq!(stored.envelope.data()[..], at.to_be_bytes());
                assert_eq!(stored.sequence, u64::from(at) + 1);
            }
            assert_eq!(read.len(), 1000);
        }
    }
    streams.close();
}

#[test]
fn reading_begins_anywhere_in_a_block_by_number_and_by_time() {
    let world = World::usual(3);
    let meta = world.create().unwrap();
    let streams = world.streams(&meta).unwrap();
    let stream = streams.create(TENANT, "s", config(), &never()).unwrap();
    let mut times = Vec::new();
    for n in 0..2000u64 {
        let message = world.message("a.b", vec![n as u8; 300]);
        times.push(message.unix_ns());
        stream.publish(&message, None, &never()).unwrap();
        world.clock.advance(std::time::Duration::from_millis(1));
    }
    stream.compact_frames().unwrap();
    assert_eq!(stream.status().blocks, 1);
    for n in (1..2000).step_by(37) {
        let read = stream.read(n, 3, usize::MAX, &never()).unwrap();
        assert_eq!(read[0].sequence, n);
        let mut cursor = stream.cursor(From::Time(times[n as usize - 1])).unwrap();
        assert_eq!(cursor.next_many(1, 1, &never()).unwrap()[0].sequence, n);
    }
    assert_eq!(sequences(&all(&stream)), (1..=2000).collect::<Vec<_>>());
}

#[test]
fn who_reads_while_frames_merge_sees_every_message_once() {
    let mut world = World::usual(4);
    world.options.merge_bytes = 20_000;
    let world = world;
    let meta = world.create().unwrap();
    let streams = world.streams(&meta).unwrap();
    let stream = streams.create(TENANT, "s", config(), &never()).unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let merge = scope.spawn(|| {
            while !done.load(Ordering::SeqCst) {
                stream.compact_frames().unwrap();
            }
        });
        let read = |bite: usize| {
            let (mut watch, mut cursor) = (stream.watch(), stream.cursor(From::First).unwrap());
            let mut seen = 0;
            while seen < 3000 {
                for stored in cursor.next_many(bite, usize::MAX, &never()).unwrap() {
                    assert_eq!(stored.sequence, seen + 1);
                    seen += 1;
                }
                if cursor.position() == seen + 1 && seen == stream.status().last_sequence {
                    watch.wait(&dwk_base::Deadline::after(
                        Arc::new(dwk_base::SystemClock::default()),
                        std::time::Duration::from_millis(5),
                    ));
                }
            }
        };
        let readers = [1, 3, 50].map(|bite| scope.spawn(move || read(bite)));
        fill(&world, &stream, 1..3001);
        for reader in readers {
            reader.join().unwrap();
        }
        done.store(true, Ordering::SeqCst);
        merge.join().unwrap();
    });
    assert_eq!(numbers(&stream), (1..3001).collect::<Vec<_>>());
}

#[test]
fn what_is_damaged_is_skipped_told_of_and_left_where_it_is() {
    let world = World::new(5);
    let meta = world.create().unwrap();
    let streams = world.streams(&meta).unwrap();
    let stream = streams.create(TENANT, "s", config(), &never()).unwrap();
    fill(&world, &stream, 1..31);
    let keys = rows(&meta);
    let overwrite = |key: &[u8], body: Option<Vec<u8>>, content: &[u8]| {
        let row = meta.get(key).unwrap().unwrap();
        let mut upload = meta.upload();
        upload.append(content).unwrap();
        let body = body.unwrap_or_else(|| row.body.to_vec());
        let staged = upload.finish().unwrap();
        meta.commit(Change::new().put(key.to_vec(), body, Some(staged))).unwrap();
    };
    overwrite(&keys[9], None, b"no frame at all");
    overwrite(&keys[19], Some(b"\0no header".to_vec()), b"");
    overwrite(&keys[29], None, &[]);
    let read = || {
        let (mut seen, mut skipped) = (Vec::<u64>::new(), 0);
        let mut cursor = stream.cursor(From::First).unwrap();
        loop {
            match cursor.next_many(4, usize::MAX, &never()) {
                Ok(read) if read.is_empty() => return (seen, skipped),
                Ok(read) => seen.extend(sequences(&read)),
                Err(error) => {
                    let again = cursor.next_many(4, usize::MAX, &never()).unwrap_err();
                    assert!(error.is(again.code()), "{error}, then {again}");
                    assert!(error.is(&codes::FORMAT_DAMAGED), "{error}");
                    assert_eq!(cursor.skip(), 1);
                    assert_eq!(cursor.skip(), 0);
                    skipped += 1;
                }
            }
        }
    };
    let good: Vec<u64> = (1..=29).filter(|n| *n != 10 && *n != 20).collect();
    assert_eq!(read(), (good.clone(), 2));
    let error = stream.compact_frames().unwrap_err();
    assert!(error.is(&codes::DATA_CORRUPT), "{error}");
    assert!(stream.status().failure.is_some());
    assert_eq!(read(), (good.clone(), 2));
    assert!(rows(&meta).len() < 10, "{} rows", rows(&meta).len());
    let (_meta, streams) = world.again(meta, streams);
    let stream = streams.get(TENANT, "s").unwrap();
    fill(&world, &stream, 31..32);
    let mut cursor = stream.cursor(From::Sequence(21)).unwrap();
    assert_eq!(sequences(&rest(&mut cursor)).last(), Some(&31));
}

#[test]
fn a_reader_passes_a_frame_that_is_not_there_any_more() {
    let world = World::new(6);
    let meta = world.create().unwrap();
    let streams = world.streams(&meta).unwrap();
    let stream = streams.create(TENANT, "s", config(), &never()).unwrap();
    fill(&world, &stream, 1..11);
    meta.commit(Change::new().delete(rows(&meta)[4].clone())).unwrap();
    assert_eq!(sequences(&all(&stream)), [1, 2, 3, 4, 6, 7, 8, 9, 10]);
    assert_eq!(sequences(&stream.read(5, 1, usize::MAX, &never()).unwrap()), [6]);
}
