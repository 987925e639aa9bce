//! Several streams and rows in one commit; streams that overlap; deleting.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod world;

use dwk_base::codes;
use dwk_bus::Pattern;
use dwk_meta::{Change, Require};
use dwk_stream::{Discard, From, StreamConfig};
use world::{TENANT, World, all, config, never, sequences, texts};

fn taking(pattern: &str) -> StreamConfig {
    StreamConfig::new(vec![Pattern::new(pattern).unwrap()])
}

#[test]
fn messages_for_several_streams_and_a_row_are_there_together_or_not_at_all() {
    let world = World::new(1);
    let meta = world.create().unwrap();
    let streams = world.streams(&meta).unwrap();
    let one = streams.create(TENANT, "one", taking("a.>"), &never()).unwrap();
    let two = streams.create(TENANT, "two", taking("b.>"), &never()).unwrap();
    let row = |require| {
        let change = Change::new().put(b"\x02row".to_vec(), b"body".to_vec(), None);
        change.require(b"\x02row".to_vec(), require)
    };
    let fill = || {
        let mut outbox = streams.outbox();
        outbox.add(&two, &world.message("b.x", "second"), None).unwrap();
        outbox.add(&one, &world.message("a.x", "first"), Some("id")).unwrap();
        outbox.add(&two, &world.message("b.x", "third"), None).unwrap();
        outbox
    };
    let error = fill().commit(row(Require::Present), &never()).unwrap_err();
    assert!(error.is(&codes::OBJECT_CONFLICT), "{error}");
    assert!(all(&one).is_empty() && all(&two).is_empty());
    let before = meta.status().applied;
    let routed = fill().commit(row(Require::Absent), &never()).unwrap();
    assert_eq!(meta.status().applied, before + 1);
    let told: Vec<_> = routed.iter().map(|one| (&*one.stream, one.published.sequence)).collect();
    assert_eq!(told, [("two", 1), ("one", 1), ("two", 2)]);
    assert_eq!(
        (texts(&all(&one)), texts(&all(&two))),
        (vec!["first".into()], vec!["second".into(), "third".into()])
    );
    let again = fill().commit(Change::new(), &never()).unwrap();
    assert!(again[1].published.duplicate && again[1].published.sequence == 1);
    assert_eq!((again[0].published.sequence, again[2].published.sequence), (3, 4));
    assert!(meta.get(b"\x02row").unwrap().is_some());
    assert_eq!(one.status().messages + two.status().messages, 5);
}

#[test]
fn one_stream_that_refuses_stops_all_and_no_number_is_lost() {
    let world = World::new(2);
    let meta = world.create().unwrap();
    let streams = world.streams(&meta).unwrap();
    let full = StreamConfig { max_messages: Some(1), discard: Discard::New, ..taking("b.>") };
    let one = streams.create(TENANT, "one", taking("a.>"), &never()).unwrap();
    let two = streams.create(TENANT, "two", full, &never()).unwrap();
    let mut outbox = streams.outbox();
    outbox.add(&one, &world.message("a.x", "x"), Some("id")).unwrap();
    outbox.add(&two, &world.message("b.x", "x"), None).unwrap();
    outbox.add(&two, &world.message("b.x", "x"), None).unwrap();
    let error = outbox.commit(Change::new(), &never()).unwrap_err();
    assert!(error.is(&codes::STREAM_FULL), "{error}");
    assert!(all(&one).is_empty() && all(&two).is_empty());
    let published = one.publish(&world.message("a.x", "y"), Some("id"), &never()).unwrap();
    assert_eq!((published.sequence, published.duplicate), (1, false));
    let mut outbox = streams.outbox();
    let long = world.message("a.x", vec![0; 15_000]);
    outbox.add(&one, &long, None).unwrap();
    outbox.add(&two, &world.message("b.x", "x"), None).unwrap();
    let too_much = Change::new().put(vec![2; 4000], vec![0; 19_000], None);
    let error = outbox.commit(too_much, &never()).unwrap_err();
    assert!(error.is(&codes::JOURNAL_RECORD_SIZE), "{error}");
    assert_eq!(one.publish(&long, None, &never()).unwrap().sequence, 2);
    assert!(all(&two).is_empty());
    let published = two.publish(&world.message("b.x", "z"), None, &never()).unwrap();
    assert_eq!(published.sequence, 1);
}

#[test]
fn threads_that_write_into_the_same_streams_in_any_order_do_not_hold_each_other_up() {
    let world = World::usual(3);
    let meta = world.create().unwrap();
    let streams = world.streams(&meta).unwrap();
    let names: Vec<_> = (0..4).map(|n| format!("s{n}")).collect();
    let all_of_them: Vec<_> = names
        .iter()
        .map(|name| streams.create(TENANT, name, config(), &never()).unwrap())
        .collect();
    std::thread::scope(|scope| {
        let (streams, all_of_them, world) = (&streams, &all_of_them, &world);
        for thread in 0..8usize {
            scope.spawn(move || {
                for n in 0..50 {
                    let mut outbox = streams.outbox();
                    for k in 0..4 {
                        let stream = &all_of_them[(thread * (k + 1) + n) % 4];
                        let message = world.message("a.b", format!("{thread}:{n}:{k}"));
                        outbox.add(stream, &message, None).unwrap();
                    }
                    outbox.commit(Change::new(), &never()).unwrap();
                    let message = world.message("a.b", format!("{thread}:{n}:alone"));
                    all_of_them[n % 4].publish(&message, None, &never()).unwrap();
                }
            });
        }
    });
    let mut there: Vec<String> = Vec::new();
    for stream in &all_of_them {
        let stored = all(stream);
        assert_eq!(sequences(&stored), (1..=stored.len() as u64).collect::<Vec<_>>());
        there.extend(texts(&stored));
    }
    assert_eq!(there.len(), 8 * 50 * 5);
    there.sort_unstable();
    there.dedup();
    assert_eq!(there.len(), 8 * 50 * 5);
}

#[test]
fn a_message_goes_to_every_stream_of_its_tenant_that_takes_it() {
    let world = World::new(4);
    let meta = world.create().unwrap();
    let streams = world.streams(&meta).unwrap();
    streams.create(TENANT, "all", taking(">"), &never()).unwrap();
    streams.create(TENANT, "some", taking("a.*"), &never()).unwrap();
    streams.create("other", "all", taking(">"), &never()).unwrap();
    let before = meta.status().applied;
    let routed = streams.publish(&world.message("a.b", "both"), Some("id"), &never()).unwrap();
    assert_eq!(meta.status().applied, before + 1);
    let names: Vec<_> = routed.iter().map(|one| &*one.stream).collect();
    assert_eq!(names.len(), 2);
    assert!(names.contains(&"all") && names.contains(&"some"));
    let routed = streams.publish(&world.message("c", "one"), None, &never()).unwrap();
    assert_eq!((&*routed[0].stream, routed[0].published.sequence), ("all", 2));
    let routed = streams.publish(&world.message("a.b", "both"), Some("id"), &never()).unwrap();
    assert!(routed.iter().all(|one| one.published.duplicate));
    let count = |tenant, name| streams.get(tenant, name).unwrap().status().messages;
    assert_eq!((count(TENANT, "all"), count(TENANT, "some"), count("other", "all")), (2, 1, 0));
    streams.delete(TENANT, "all", &never()).unwrap();
    let error = streams.publish(&world.message("c", "x"), None, &never()).unwrap_err();
    assert!(error.is(&codes::STREAM_SUBJECT), "{error}");
}

#[test]
fn a_deleted_stream_is_gone_with_its_rows_and_everybody_is_told() {
    let world = World::new(5);
    let meta = world.create().unwrap();
    let streams = world.streams(&meta).unwrap();
    let rows = meta.status().rows;
    let stream = streams.create(TENANT, "s", config(), &never()).unwrap();
    let id = stream.id();
    for n in 0..300u32 {
        stream.publish(&world.message("a.b", n.to_string()), None, &never()).unwrap();
    }
    let (mut cursor, mut watch) = (stream.cursor(From::First).unwrap(), stream.watch());
    cursor.next_many(3, usize::MAX, &never()).unwrap();
    std::thread::scope(|scope| {
        let publish = || {
            let message = world.message("a.b", "x");
            loop {
                if let Err(error) = stream.publish(&message, None, &never()) {
                    return error;
                }
            }
        };
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(publish)).collect();
        streams.delete(TENANT, "s", &never()).unwrap();
        for thread in threads {
            let error = thread.join().unwrap();
            assert!(error.is(&codes::STREAM_NOT_FOUND), "{error}");
        }
    });
    assert_eq!(meta.status().rows, rows);
    assert!(watch.wait(&never()));
    let error = loop {
        match cursor.next_many(100, usize::MAX, &never()) {
            Ok(read) => assert!(!read.is_empty()),
            Err(error) => break error,
        }
    };
    assert!(error.is(&codes::STREAM_NOT_FOUND), "{error}");
    assert!(streams.delete(TENANT, "s", &never()).unwrap_err().is(&codes::STREAM_NOT_FOUND));
    let stream = streams.create(TENANT, "s", config(), &never()).unwrap();
    assert!(all(&stream).is_empty() && stream.id() != id);
    assert_eq!(stream.publish(&world.message("a.b", "x"), None, &never()).unwrap().sequence, 1);
}

#[test]
fn rows_of_a_stream_that_is_gone_are_removed_at_the_next_opening() {
    let world = World::new(6);
    let meta = world.create().unwrap();
    let streams = world.streams(&meta).unwrap();
    let stream = streams.create(TENANT, "s", config(), &never()).unwrap();
    let kept = streams.create(TENANT, "kept", config(), &never()).unwrap();
    for n in 0..200u32 {
        stream.publish(&world.message("a.b", n.to_string()), None, &never()).unwrap();
        kept.publish(&world.message("a.b", n.to_string()), None, &never()).unwrap();
    }
    // What a cut in the middle of deleting leaves.
    let row = [&[0x10], TENANT.as_bytes(), &[0], b"s"].concat();
    let mark = [&[0x12][..], &stream.id().to_be_bytes()].concat();
    meta.commit(Change::new().delete(row).delete(mark)).unwrap();
    drop((stream, kept));
    let (meta, streams) = world.again(meta, streams);
    assert_eq!(meta.status().rows, 2 + 200);
    assert_eq!(all(&streams.get(TENANT, "kept").unwrap()).len(), 200);
}

#[test]
fn an_announcement_goes_to_streams_that_name_what_it_is_about_and_to_no_other() {
    let world = World::new(9);
    let meta = world.create().unwrap();
    let streams = world.streams(&meta).unwrap();
    let create = |name, pattern| streams.create(TENANT, name, taking(pattern), &never()).unwrap();
    let (named, any, all) =
        (create("named", "store.*"), create("any", "*.made"), create("all", ">"));
    let subject = |text: &str| dwk_bus::Subject::new(text).unwrap();
    assert!(streams.is_taken(TENANT, &subject("store.made")));
    assert!(!streams.is_taken(TENANT, &subject("other.made")));
    assert!(!streams.is_taken("somebody", &subject("store.made")));
    let mut outbox = streams.outbox();
    assert_eq!(outbox.offer(&world.announcement("store.made", "1"), None).unwrap(), 1);
    assert_eq!(outbox.offer(&world.announcement("other.made", "2"), None).unwrap(), 0);
    outbox.commit(Change::new(), &never()).unwrap();
    assert_eq!(texts(&world::all(&named)), ["1"]);
    assert!(world::all(&any).is_empty() && world::all(&all).is_empty());
    let refused = all.publish(&world.announcement("store.made", "3"), None, &never());
    assert!(refused.is_err_and(|error| error.is(&codes::STREAM_SUBJECT)));
}
