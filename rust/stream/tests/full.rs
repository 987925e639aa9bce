//! Drives that are nearly full: who publishes is told, and what was told is there.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod world;

use dwk_base::codes;
use dwk_drive::faulty::{Effect, Fault, Operation};
use dwk_stream::{Retention, StreamConfig};
use world::{TENANT, World, all, config, never, sequences};

const DRIVE_BYTES: u64 = 4 << 20;

#[test]
fn a_full_pool_refuses_keeps_what_it_took_and_takes_more_after_a_purge() {
    let world = World::narrow(1, DRIVE_BYTES);
    let meta = world.create().unwrap();
    let streams = world.streams(&meta).unwrap();
    let stream = streams.create(TENANT, "s", config(), &never()).unwrap();
    let publish = |n: u64| {
        let message = world.message("a.b", vec![n as u8; 5000]);
        stream.publish(&message, None, &never())
    };
    let mut told = 0;
    let error = loop {
        match publish(told) {
            Ok(published) => {
                told += 1;
                assert_eq!(published.sequence, told);
            }
            Err(error) => break error,
        }
        assert!(told * 5000 < 3 * DRIVE_BYTES, "the pool never was full");
        if told % 100 == 0 {
            // It may find no room, which is no reason to lose anything.
            let _ = stream.compact_frames();
        }
    };
    assert!(error.is(&codes::POOL_FULL) || error.is(&codes::DRIVE_FULL), "{error}");
    assert!(told > 50, "only {told} messages had room");
    assert_eq!(sequences(&all(&stream)), (1..=told).collect::<Vec<_>>());
    assert!(publish(0).is_err());
    stream.purge(told - 5, &never()).unwrap();
    for n in 0..20 {
        assert_eq!(publish(n).unwrap().sequence, told + n + 1);
    }
    drop(stream);
    let (_meta, streams) = world.again(meta, streams);
    let stream = streams.get(TENANT, "s").unwrap();
    assert_eq!(sequences(&all(&stream)), (told - 4..=told + 20).collect::<Vec<_>>());
}

#[test]
fn many_times_the_drives_room_goes_through_a_stream_whose_messages_are_released() {
    let world = World::narrow(2, DRIVE_BYTES);
    let meta = world.create().unwrap();
    let streams = world.streams(&meta).unwrap();
    let work = StreamConfig { retention: Retention::WorkQueue, ..config() };
    let stream = streams.create(TENANT, "s", work, &never()).unwrap();
    let count = 6 * DRIVE_BYTES / 5000;
    for n in 1..=count {
        let message = world.message("a.b", vec![n as u8; 5000]);
        let published = stream.publish(&message, None, &never());
        assert_eq!(published.unwrap_or_else(|error| panic!("{n}: {error}")).sequence, n);
        if n % 20 == 0 {
            stream.release(n - 10).unwrap();
            streams.upkeep().unwrap_or_else(|error| panic!("{n}: {error}"));
        }
    }
    assert!(all(&stream).len() < 40);
}

#[test]
fn a_publish_for_which_the_journal_has_no_room_is_tried_once_more() {
    let world = World::new(3);
    let meta = world.create().unwrap();
    let streams = world.streams(&meta).unwrap();
    let stream = streams.create(TENANT, "s", config(), &never()).unwrap();
    // The next segment of the journal cannot be made a few times.
    for drive in &world.drives {
        let full = Fault::new(Effect::Error(&codes::DRIVE_FULL)).on(Operation::CreateLog);
        drive.inject(full.times(3));
    }
    for n in 1..=60_u8 {
        let published = stream.publish(&world.message("a.b", vec![n; 5000]), None, &never());
        assert_eq!(published.unwrap().sequence, u64::from(n), "numbers stay dense");
    }
    assert_eq!(sequences(&all(&stream)), (1..=60).collect::<Vec<_>>());
}

#[test]
fn a_purge_of_a_full_pool_is_durable_or_refused() {
    let mut world = World::narrow(5, DRIVE_BYTES);
    let meta = world.create().unwrap();
    let streams = world.streams(&meta).unwrap();
    let stream = streams.create(TENANT, "s", config(), &never()).unwrap();
    let publish =
        |bytes: usize| stream.publish(&world.message("a.b", vec![b'x'; bytes]), None, &never());
    publish(100).unwrap();
    // The purge ends in the middle of what was committed together.
    let many: Vec<_> = (0..8).map(|_| (world.message("a.b", "many"), None)).collect();
    stream.publish_many(&many, &never()).unwrap();
    while publish(5000).is_ok() {}
    while publish(1).is_ok() {}
    let done = stream.purge(5, &never());
    world.power.cut_now();
    drop((stream, streams, meta));
    world.restart();
    let meta = world.open().unwrap();
    let streams = world.streams(&meta).unwrap();
    let first = sequences(&all(&streams.get(TENANT, "s").unwrap()))[0];
    match done {
        Ok(_) => assert_eq!(first, 6, "it was told to be done"),
        Err(error) => assert!(error.is(&codes::POOL_FULL), "{error}"),
    }
}
