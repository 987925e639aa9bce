//! What is published is there: in order, without gaps, after opening again, and told to who waits.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod world;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use dwk_base::{Clock, Deadline, Seams, SeededRandom, SystemClock, codes};
use dwk_bus::{Bus, Limits, Message, Pattern, Subject};
use dwk_drive::faulty::{Effect, Fault, Operation};
use dwk_stream::{From, Published, StreamConfig, Streams};
use world::{TENANT, World, all, config, never, rest, sequences, texts};

fn soon(limit: Duration) -> Deadline {
    Deadline::after(Arc::new(SystemClock::default()), limit)
}

#[test]
fn messages_are_read_as_they_were_published_and_after_opening_again() {
    let world = World::new(1);
    let meta = world.create().unwrap();
    let streams = world.streams(&meta).unwrap();
    let stream = streams.create(TENANT, "s", config(), &never()).unwrap();
    let mut sent = Vec::new();
    for n in 0..50u64 {
        let message = Message::new(Subject::new("a.b").unwrap(), vec![n as u8; n as usize * 20])
            .header("n", n.to_string())
            .keyed(format!("k{n}"));
        let envelope = world.space.stamp(message).unwrap();
        let published = stream.publish(&envelope, None, &never()).unwrap();
        assert_eq!(published, Published { sequence: n + 1, duplicate: false });
        sent.push(envelope);
        world.clock.advance(Duration::from_secs(1));
    }
    let check = |stream: &dwk_stream::Stream| {
        let stored = all(stream);
        assert_eq!(sequences(&stored), (1..=50).collect::<Vec<_>>());
        for (stored, sent) in stored.iter().zip(&sent) {
            assert_eq!(&stored.envelope, sent);
            assert_eq!(stored.published_unix_ns, sent.unix_ns());
        }
        let status = stream.status();
        assert_eq!((status.first_sequence, status.last_sequence, status.messages), (1, 50, 50));
    };
    check(&stream);
    drop(stream);
    let (_meta, streams) = world.again(meta, streams);
    let stream = streams.get(TENANT, "s").unwrap();
    check(&stream);
    let published = stream.publish(&world.message("a.b", "more"), None, &never()).unwrap();
    assert_eq!(published.sequence, 51);
}

#[test]
fn numbers_of_sixteen_threads_are_dense_and_keep_each_threads_order() {
    let world = World::usual(2);
    let meta = world.create().unwrap();
    let streams = world.streams(&meta).unwrap();
    let stream = streams.create(TENANT, "s", config(), &never()).unwrap();
    let told: Vec<Vec<u64>> = std::thread::scope(|scope| {
        let (stream, world) = (&stream, &world);
        let publish = move |thread: usize| {
            let one = |n| {
                let message = world.message("a.b", format!("{thread}:{n}"));
                stream.publish(&message, None, &never()).unwrap().sequence
            };
            (0..200).map(one).collect::<Vec<_>>()
        };
        let threads: Vec<_> = (0..16).map(|t| scope.spawn(move || publish(t))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let stored = all(&stream);
    assert_eq!(sequences(&stored), (1..=3200).collect::<Vec<_>>());
    let texts = texts(&stored);
    for (thread, told) in told.iter().enumerate() {
        assert!(told.is_sorted_by(|a, b| a < b));
        for (n, sequence) in told.iter().enumerate() {
            assert_eq!(texts[*sequence as usize - 1], format!("{thread}:{n}"));
        }
    }
    assert!(stream.status().frames < 3200, "nothing was committed together");
    assert!(stored.is_sorted_by_key(|stored| stored.published_unix_ns));
}

#[test]
fn many_messages_are_published_next_to_each_other_in_one_commit() {
    let world = World::usual(3);
    let meta = world.create().unwrap();
    let streams = world.streams(&meta).unwrap();
    let stream = streams.create(TENANT, "s", config(), &never()).unwrap();
    let many: Vec<_> = (0..1024).map(|n| (world.message("a.b", format!("{n}")), None)).collect();
    let outcomes = stream.publish_many(&many, &never()).unwrap();
    let numbers: Vec<_> = outcomes.into_iter().map(|one| one.unwrap().sequence).collect();
    assert_eq!(numbers, (1..=1024).collect::<Vec<_>>());
    assert_eq!(stream.status().frames, 1);
    assert_eq!(texts(&all(&stream))[1023], "1023");
    let error = stream.publish_many(&[many.clone(), many].concat(), &never()).unwrap_err();
    assert!(error.is(&codes::STREAM_OPTION), "{error}");
    let long: Vec<_> = (0..17).map(|_| (world.message("a.b", vec![0; 1 << 20]), None)).collect();
    assert!(stream.publish_many(&long, &never()).unwrap_err().is(&codes::STREAM_OPTION));
    assert!(stream.publish_many(&[], &never()).unwrap().is_empty());
}

#[test]
fn a_message_longer_than_a_record_is_kept_in_stripes() {
    let world = World::new(4);
    let meta = world.create().unwrap();
    let streams = world.streams(&meta).unwrap();
    let stream = streams.create(TENANT, "s", config(), &never()).unwrap();
    let long: Vec<u8> = (0..200_000u32).map(|n| ((n * 7) >> 3) as u8).collect();
    for n in 0..3 {
        stream.publish(&world.message("a.b", format!("{n}")), None, &never()).unwrap();
        stream.publish(&world.message("a.b", long.clone()), None, &never()).unwrap();
    }
    let stored = all(&stream);
    assert_eq!(stored.len(), 6);
    assert!(stored.iter().skip(1).step_by(2).all(|stored| stored.envelope.data() == &long));
}

#[test]
fn a_cursor_begins_where_it_is_told() {
    let world = World::new(5);
    let meta = world.create().unwrap();
    let streams = world.streams(&meta).unwrap();
    let stream = streams.create(TENANT, "s", config(), &never()).unwrap();
    assert!(rest(&mut stream.cursor(From::First).unwrap()).is_empty());
    assert!(rest(&mut stream.cursor(From::Last).unwrap()).is_empty());
    let mut times = Vec::new();
    for n in 0..30 {
        let message = world.message("a.b", format!("{n}"));
        times.push(message.unix_ns());
        stream.publish(&message, None, &never()).unwrap();
        world.clock.advance(Duration::from_millis(10));
    }
    let from = |from| sequences(&rest(&mut stream.cursor(from).unwrap()));
    assert_eq!(from(From::First).len(), 30);
    assert_eq!(from(From::Last), [30]);
    assert_eq!(from(From::Sequence(0)).len(), 30);
    assert_eq!(from(From::Sequence(28)), [28, 29, 30]);
    assert_eq!(from(From::Sequence(77)), [0u64; 0]);
    assert_eq!(from(From::Time(times[27])), [28, 29, 30]);
    assert_eq!(from(From::Time(times[27] + 1)), [29, 30]);
    assert_eq!(from(From::Time(u64::MAX)), [0u64; 0]);
    let mut next = stream.cursor(From::Next).unwrap();
    assert!(rest(&mut next).is_empty());
    stream.publish(&world.message("a.b", "new"), None, &never()).unwrap();
    assert_eq!(texts(&rest(&mut next)), ["new"]);
    let read = stream.read(5, 3, usize::MAX, &never()).unwrap();
    assert_eq!(sequences(&read), [5, 6, 7]);
    assert_eq!(stream.read(5, 10, 0, &never()).unwrap().len(), 1, "one at least");
}

#[test]
fn who_reads_at_the_end_is_woken() {
    let world = World::new(6);
    let meta = world.create().unwrap();
    let streams = world.streams(&meta).unwrap();
    let stream = streams.create(TENANT, "s", config(), &never()).unwrap();
    let read: Vec<String> = std::thread::scope(|scope| {
        let (mut watch, mut cursor) = (stream.watch(), stream.cursor(From::First).unwrap());
        let reader = scope.spawn(move || {
            let mut read = Vec::new();
            while read.len() < 200 {
                assert!(watch.wait(&soon(Duration::from_secs(20))), "nobody woke it");
                read.extend(texts(&rest(&mut cursor)));
            }
            read
        });
        for n in 0..200 {
            stream.publish(&world.message("a.b", format!("{n}")), None, &never()).unwrap();
        }
        reader.join().unwrap()
    });
    assert_eq!(read, (0..200).map(|n| n.to_string()).collect::<Vec<_>>());
    let mut watch = stream.watch();
    assert!(!watch.wait(&soon(Duration::from_millis(20))));
    streams.close();
    assert!(watch.wait(&never()));
    assert!(stream.cursor(From::First).unwrap_err().is(&codes::STORE_CLOSED));
}

#[test]
fn a_stream_takes_its_own_subjects_and_tenant_only() {
    let world = World::new(7);
    let meta = world.create().unwrap();
    let streams = world.streams(&meta).unwrap();
    let stream = streams.create(TENANT, "s", config(), &never()).unwrap();
    let error = stream.publish(&world.message("b.c", "x"), None, &never()).unwrap_err();
    assert!(error.is(&codes::STREAM_SUBJECT), "{error}");
    let bus = Bus::new(world.clock.clone(), Arc::new(dwk_base::SystemRandom), Limits::default());
    let message = Message::new(Subject::new("a.b").unwrap(), "x");
    let foreign = bus.space("other").unwrap().stamp(message).unwrap();
    let error = stream.publish(&foreign, None, &never()).unwrap_err();
    assert!(error.is(&codes::CONTEXT_INVALID), "{error}");
    assert!(all(&stream).is_empty());
}

#[test]
fn streams_are_made_once_and_listed_by_tenant() {
    let world = World::new(8);
    let meta = world.create().unwrap();
    let streams = world.streams(&meta).unwrap();
    let names = |streams: &Streams, tenant: &str| {
        streams.list(tenant).iter().map(|stream| stream.name().to_owned()).collect::<Vec<_>>()
    };
    for (tenant, name) in [("b", "two"), ("b", "one"), ("", "none"), ("a", "one"), ("b\u{e4}", "x")]
    {
        streams.create(tenant, name, config(), &never()).unwrap();
    }
    let error = streams.create("b", "one", config(), &never()).unwrap_err();
    assert!(error.is(&codes::STREAM_EXISTS), "{error}");
    let bad = StreamConfig { max_bytes: Some(0), ..config() };
    assert!(streams.create("b", "bad", bad, &never()).unwrap_err().is(&codes::STREAM_OPTION));
    assert!(streams.create("b", "b d", config(), &never()).unwrap_err().is(&codes::STREAM_NAME));
    assert!(streams.get("b", "three").unwrap_err().is(&codes::STREAM_NOT_FOUND));
    let (_meta, streams) = world.again(meta, streams);
    assert_eq!(names(&streams, "b"), ["one", "two"]);
    assert_eq!(
        (names(&streams, ""), names(&streams, "a")),
        (vec!["none".into()], vec!["one".into()])
    );
    let ids: std::collections::BTreeSet<u64> =
        ["b", "", "a"].iter().flat_map(|tenant| streams.list(tenant)).map(|s| s.id()).collect();
    assert_eq!(ids.len(), 4);
    let patterns = streams.get("a", "one").unwrap().config().subjects.clone();
    assert_eq!(patterns, [Pattern::new("a.>").unwrap()]);
}

#[test]
fn a_publish_whose_time_is_over_on_its_way_says_so_and_the_message_arrives_once() {
    let world = World::new(9);
    let meta = world.create().unwrap();
    let streams = world.streams(&meta).unwrap();
    let stream = streams.create(TENANT, "s", config(), &never()).unwrap();
    stream.publish(&world.message("a.b", "1"), None, &never()).unwrap();
    world.drives.iter().for_each(|drive| {
        drive.inject(Fault::new(Effect::Hang).on(Operation::SyncLog));
    });
    let publish = |n: u64, deadline: &Deadline| {
        let message = world.message("a.b", format!("late {n}"));
        stream.publish(&message, None, deadline)
    };
    let (outcomes, patient) = std::thread::scope(|scope| {
        let start = |n, limit_ms| {
            let late = soon(Duration::from_millis(limit_ms));
            let thread = scope.spawn(move || publish(n, &late));
            std::thread::sleep(Duration::from_millis(20));
            thread
        };
        // Two are on their way; the others wait behind them, and their time is over before.
        let threads: Vec<_> = (0..8).map(|n| start(n, if n < 2 { 2000 } else { 400 })).collect();
        // It waits with them, and leads in the end.
        let patient = scope.spawn(|| publish(99, &never()));
        let outcomes: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        world.drives.iter().for_each(|drive| {
            drive.heal();
            drive.release();
        });
        (outcomes, patient.join().unwrap().unwrap())
    });
    let mut unknown = 0;
    for outcome in outcomes {
        let error = outcome.unwrap_err();
        assert!(error.is(&codes::CONTEXT_DEADLINE), "{error}");
        unknown += u64::from(error.detail("outcome") == Some("unknown"));
    }
    // All of them if the threads did not come in their order.
    assert!(unknown >= 2, "{unknown} were on their way");
    assert_eq!(patient.sequence, 2 + unknown, "what never was on its way is not there");
    let published = stream.publish(&world.message("a.b", "2"), None, &never()).unwrap();
    assert_eq!(published.sequence, 3 + unknown);
    let texts = texts(&all(&stream));
    assert_eq!(texts.len() as u64, 3 + unknown);
    assert_eq!((texts[0].as_str(), texts.last().unwrap().as_str()), ("1", "2"));
    let status = stream.status();
    assert_eq!((status.messages, status.last_sequence), (3 + unknown, 3 + unknown));
}

#[test]
fn without_room_nothing_is_acknowledged_that_is_not_there_and_numbers_stay_dense() {
    let world = World::new(10);
    let meta = world.create().unwrap();
    let streams = world.streams(&meta).unwrap();
    let stream = streams.create(TENANT, "s", config(), &never()).unwrap();
    let publish =
        |n: usize| stream.publish(&world.message("a.b", format!("{n:01000}")), None, &never());
    let mut told = Vec::new();
    world.drives.iter().for_each(|drive| drive.set_full(true));
    let all_of_them = std::thread::scope(|scope| {
        let work = |thread: usize| (0..100).map(|n| publish(thread * 100 + n)).collect::<Vec<_>>();
        let threads: Vec<_> = (0..4).map(|t| scope.spawn(move || work(t))).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
    });
    let mut refused = 0;
    for outcome in all_of_them {
        match outcome {
            Ok(published) => told.push(published.sequence),
            Err(error) => {
                assert!(error.is(&codes::DRIVE_FULL) || error.is(&codes::POOL_FULL), "{error}");
                refused += 1;
            }
        }
    }
    assert!(refused > 0 && !told.is_empty(), "{refused} refused, {} told", told.len());
    told.sort_unstable();
    assert_eq!(told, (1..=told.len() as u64).collect::<Vec<_>>());
    assert_eq!(sequences(&all(&stream)), told);
    world.drives.iter().for_each(|drive| drive.set_full(false));
    let next = publish(7).unwrap().sequence;
    assert_eq!(next, told.len() as u64 + 1);
    assert_eq!(stream.status().messages, next);
}

#[test]
fn what_was_left_on_its_way_is_told_of_when_it_arrives_though_nobody_asks() {
    let mut world = World::new(12);
    world.options.background = true;
    let meta = world.create().unwrap();
    let streams = Streams::open(meta, Seams::system(), world.options.clone()).unwrap();
    let stream = streams.create(TENANT, "s", config(), &never()).unwrap();
    let mut watch = stream.watch();
    world.drives.iter().for_each(|drive| {
        drive.inject(Fault::new(Effect::Hang).on(Operation::SyncLog));
    });
    let message = world.message("a.b", "x");
    let error = stream.publish(&message, None, &soon(Duration::from_millis(50))).unwrap_err();
    assert_eq!(error.detail("outcome"), Some("unknown"), "{error}");
    world.drives.iter().for_each(|drive| {
        drive.heal();
        drive.release();
    });
    assert!(watch.wait(&soon(Duration::from_secs(20))), "nobody was told");
    assert_eq!(texts(&all(&stream)), ["x"]);
    streams.close();
}

/// A clock that is set.
struct Wall(AtomicU64);

impl Clock for Wall {
    fn unix_ns(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }

    fn monotonic(&self) -> Duration {
        Duration::ZERO
    }

    fn sleep(&self, _: Duration) {}
}

#[test]
fn times_of_messages_do_not_fall_when_the_clock_does_also_after_opening_again() {
    let world = World::new(11);
    let meta = world.create().unwrap();
    let wall = Arc::new(Wall(AtomicU64::new(1000)));
    let open = || {
        let clock = Arc::clone(&wall) as Arc<dyn Clock>;
        let seams = Seams { clock, random: Arc::new(SeededRandom::new(1)) };
        Streams::open(Arc::clone(&meta), seams, world.options.clone()).unwrap()
    };
    let streams = open();
    let stream = streams.create(TENANT, "s", config(), &never()).unwrap();
    let publish = |stream: &dwk_stream::Stream, unix_ns| {
        wall.0.store(unix_ns, Ordering::SeqCst);
        stream.publish(&world.message("a.b", "x"), None, &never()).unwrap();
    };
    for unix_ns in [1000, 3000, 2000] {
        publish(&stream, unix_ns);
    }
    stream.purge(3, &never()).unwrap();
    publish(&stream, 500);
    stream.purge(3, &never()).unwrap();
    drop(stream);
    streams.close();
    let streams = open();
    let stream = streams.get(TENANT, "s").unwrap();
    for unix_ns in [100, 4000] {
        publish(&stream, unix_ns);
    }
    stream.compact_frames().unwrap();
    let times: Vec<_> = all(&stream).iter().map(|stored| stored.published_unix_ns).collect();
    assert_eq!(times, [3000, 3000, 4000]);
    stream.purge(6, &never()).unwrap();
    drop(stream);
    drop(streams);
    let streams = open();
    let stream = streams.get(TENANT, "s").unwrap();
    publish(&stream, 200);
    assert_eq!(all(&stream)[0].published_unix_ns, 4000, "nothing but the mark knew it");
}
