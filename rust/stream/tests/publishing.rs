//! Publishing as a future: committed together whoever asks, taken back in time, and led by somebody always.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod world;

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use dwk_base::{Deadline, Error, Result, SystemClock, codes};
use dwk_drive::faulty::{Effect, Fault, Operation};
use dwk_stream::{Published, Publishing, Stream};
use tokio::runtime::Runtime;
use world::{TENANT, World, all, config, never, sequences, texts};

fn soon(limit: Duration) -> Deadline {
    Deadline::after(Arc::new(SystemClock::default()), limit)
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap()
}

fn publish(world: &World, stream: &Stream, text: impl Into<Vec<u8>>) -> Publishing {
    stream.publish_async(&[(world.message("a.b", text), None)]).unwrap()
}

/// What became of a single message.
fn one(outcomes: Result<Vec<Result<Published>>>) -> Result<u64> {
    Ok(outcomes?.remove(0)?.sequence)
}

fn is_unknown(error: &Error) -> bool {
    error.is(&codes::CONTEXT_DEADLINE) && error.detail("outcome") == Some("unknown")
}

/// Waits, for a while, until something is so.
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !is_so() {
        assert!(begin.elapsed() < Duration::from_secs(20), "{what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// The drives sync nothing until they are let go.
fn hold(world: &World) {
    world.drives.iter().for_each(|drive| {
        drive.inject(Fault::new(Effect::Hang).on(Operation::SyncLog));
    });
}

fn let_go(world: &World) {
    world.drives.iter().for_each(|drive| {
        drive.heal();
        drive.release();
    });
}

/// Fills what may be under way, so that what comes next stays in line: two batches.
fn occupy(world: &World, stream: &Stream) -> [Publishing; 2] {
    hold(world);
    let first = publish(world, stream, "first");
    std::thread::sleep(Duration::from_millis(50));
    let second = publish(world, stream, "second");
    std::thread::sleep(Duration::from_millis(50));
    [first, second]
}

#[test]
fn numbers_are_dense_and_keep_the_order_of_each_tasks_calls() {
    let world = Arc::new(World::usual(1));
    let meta = world.create().unwrap();
    let streams = world.streams(&meta).unwrap();
    let stream = streams.create(TENANT, "s", config(), &never()).unwrap();
    let runtime = runtime();
    let spawn = |task: usize| {
        let (stream, world) = (stream.clone(), Arc::clone(&world));
        runtime.spawn(async move {
            let mut told = Vec::new();
            for n in 0..50 {
                // All of them are in line before the first is waited for.
                let few: Vec<_> = (0..4)
                    .map(|part| publish(&world, &stream, format!("{task}:{n}:{part}")))
                    .collect();
                for publishing in few {
                    told.push(one(publishing.await).unwrap());
                }
            }
            told
        })
    };
    let tasks: Vec<_> = (0..16).map(spawn).collect();
    let told: Vec<Vec<u64>> =
        tasks.into_iter().map(|task| runtime.block_on(task).unwrap()).collect();
    let stored = all(&stream);
    assert_eq!(sequences(&stored), (1..=3200).collect::<Vec<_>>());
    let texts = texts(&stored);
    for (task, told) in told.iter().enumerate() {
        assert!(told.is_sorted_by(|a, b| a < b), "not in the order of its calls");
        for (at, sequence) in told.iter().enumerate() {
            let text = format!("{task}:{}:{}", at / 4, at % 4);
            assert_eq!(texts[*sequence as usize - 1], text);
        }
    }
    assert!(stream.status().frames < 1600, "nothing was committed together");
}

#[test]
fn threads_and_futures_are_committed_together() {
    let world = World::usual(2);
    let meta = world.create().unwrap();
    let streams = world.streams(&meta).unwrap();
    let stream = streams.create(TENANT, "s", config(), &never()).unwrap();
    let runtime = runtime();
    std::thread::scope(|scope| {
        let (stream, world) = (&stream, &world);
        for thread in 0..8 {
            scope.spawn(move || {
                for n in 0..200 {
                    let message = world.message("a.b", format!("{thread}:{n}"));
                    stream.publish(&message, None, &never()).unwrap();
                }
            });
        }
        runtime.block_on(async {
            for n in 0..100 {
                let few: Vec<_> =
                    (0..8).map(|task| publish(world, stream, format!("{task}/{n}"))).collect();
                for publishing in few {
                    one(publishing.await).unwrap();
                }
            }
        });
    });
    let mut texts = texts(&all(&stream));
    assert_eq!(texts.len(), 2400);
    texts.sort();
    texts.dedup();
    assert_eq!(texts.len(), 2400);
}

#[test]
fn a_message_goes_its_way_though_nobody_polls() {
    let world = World::new(3);
    let meta = world.create().unwrap();
    let streams = world.streams(&meta).unwrap();
    let stream = streams.create(TENANT, "s", config(), &never()).unwrap();
    let publishing = publish(&world, &stream, "x");
    until("it did not arrive", || stream.status().messages == 1);
    // A waker that does nothing is enough for what is done.
    let mut publishing = pin!(publishing);
    let mut poll = || publishing.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    until("it was not told", || match poll() {
        Poll::Ready(outcome) => one(outcome).unwrap() == 1,
        Poll::Pending => false,
    });
    assert!(matches!(poll(), Poll::Ready(Err(error)) if error.is(&codes::INTERNAL_BUG)));
}

#[test]
fn many_are_all_or_none_and_what_cannot_be_taken_is_told_at_once() {
    let world = World::usual(4);
    let meta = world.create().unwrap();
    let streams = world.streams(&meta).unwrap();
    let mut limited = config();
    (limited.max_messages, limited.discard) = (Some(5), dwk_stream::Discard::New);
    let stream = streams.create(TENANT, "s", limited, &never()).unwrap();
    let runtime = runtime();
    let many = |count| (0..count).map(|n| (world.message("a.b", format!("{n}")), None));
    let publish_many = |count: usize| {
        runtime.block_on(stream.publish_async(&many(count).collect::<Vec<_>>()).unwrap())
    };
    assert!(publish_many(0).unwrap().is_empty());
    let numbers: Vec<_> = publish_many(3).unwrap().into_iter().map(|one| one.unwrap()).collect();
    assert_eq!(numbers.iter().map(|one| one.sequence).collect::<Vec<_>>(), [1, 2, 3]);
    let full = publish_many(3).unwrap();
    assert!(full.iter().all(|one| one.as_ref().is_err_and(|e| e.is(&codes::STREAM_FULL))));
    assert_eq!(texts(&all(&stream)), ["0", "1", "2"]);
    let foreign = [(world.message("b.c", "x"), None)];
    assert!(stream.publish_async(&foreign).unwrap_err().is(&codes::STREAM_SUBJECT));
    let error = stream.publish_async(&many(2000).collect::<Vec<_>>()).unwrap_err();
    assert!(error.is(&codes::STREAM_OPTION), "{error}");
}

#[test]
fn dropped_in_line_it_is_taken_back_and_dropped_on_its_way_it_arrives() {
    let world = World::new(5);
    let meta = world.create().unwrap();
    let streams = world.streams(&meta).unwrap();
    let stream = streams.create(TENANT, "s", config(), &never()).unwrap();
    let [first, second] = occupy(&world, &stream);
    let (dropped, given_up) =
        (publish(&world, &stream, "dropped"), publish(&world, &stream, "given up"));
    let stays = publish(&world, &stream, "stays");
    drop(dropped);
    let error = one(given_up.give_up()).unwrap_err();
    assert!(error.is(&codes::CONTEXT_DEADLINE) && !is_unknown(&error), "{error}");
    drop(first);
    let error = one(second.give_up()).unwrap_err();
    assert!(is_unknown(&error), "{error}");
    let_go(&world);
    assert_eq!(one(runtime().block_on(stays)).unwrap(), 3);
    assert_eq!(texts(&all(&stream)), ["first", "second", "stays"]);
    let (mut told, woken) = (publish(&world, &stream, "told"), Arc::new(Woken::default()));
    let waker = Waker::from(Arc::clone(&woken));
    if Pin::new(&mut told).poll(&mut Context::from_waker(&waker)).is_pending() {
        until("it was not told", || woken.0.load(Ordering::SeqCst));
        assert_eq!(one(told.give_up()).unwrap(), 4, "it is known what it came to");
    }
}

#[test]
fn a_batch_that_all_have_left_is_not_written_and_holds_nobody_up() {
    let world = World::new(6);
    let meta = world.create().unwrap();
    let streams = world.streams(&meta).unwrap();
    let stream = streams.create(TENANT, "s", config(), &never()).unwrap();
    let [first, second] = occupy(&world, &stream);
    drop((publish(&world, &stream, "x"), publish(&world, &stream, "y")));
    // Its own batch: a thread's time is over in line.
    let late = stream.publish(&world.message("a.b", "z"), None, &soon(Duration::from_millis(50)));
    assert!(late.unwrap_err().is(&codes::CONTEXT_DEADLINE));
    let_go(&world);
    let runtime = runtime();
    assert_eq!(one(runtime.block_on(first)).unwrap(), 1);
    assert_eq!(one(runtime.block_on(second)).unwrap(), 2);
    assert_eq!(one(runtime.block_on(publish(&world, &stream, "last"))).unwrap(), 3);
    assert_eq!(texts(&all(&stream)), ["first", "second", "last"]);
}

#[test]
fn futures_are_led_on_when_their_leaders_time_is_over() {
    // In line, and on the way.
    for batches in [2, 0] {
        let world = World::new(7);
        let meta = world.create().unwrap();
        let streams = world.streams(&meta).unwrap();
        let stream = streams.create(TENANT, "s", config(), &never()).unwrap();
        let before = if batches == 2 { occupy(&world, &stream).into() } else { Vec::new() };
        hold(&world);
        let follower = std::thread::scope(|scope| {
            let leader = scope.spawn(|| {
                let late = soon(Duration::from_millis(300));
                stream.publish(&world.message("a.b", "leader"), None, &late)
            });
            if batches == 2 {
                std::thread::sleep(Duration::from_millis(50));
            }
            let follower = publish(&world, &stream, "follower");
            let error = leader.join().unwrap().unwrap_err();
            assert_eq!(is_unknown(&error), batches == 0, "{error}");
            follower
        });
        let_go(&world);
        let number = one(runtime().block_on(follower)).unwrap();
        if batches == 0 {
            // It is on its way, and nobody waits for it.
            until("the leader's did not arrive", || stream.status().messages == 2);
        }
        let texts = texts(&all(&stream));
        assert_eq!(texts[number as usize - 1], "follower");
        assert_eq!(texts.contains(&"leader".to_owned()), batches == 0, "{texts:?}");
        drop(before);
    }
}

#[test]
fn closing_writes_what_stands_in_line_and_takes_nothing_after() {
    let world = World::usual(8);
    let meta = world.create().unwrap();
    let streams = world.streams(&meta).unwrap();
    let stream = streams.create(TENANT, "s", config(), &never()).unwrap();
    let waiting: Vec<_> = (0..5000).map(|n| publish(&world, &stream, format!("{n}"))).collect();
    streams.close();
    let runtime = runtime();
    for (n, publishing) in waiting.into_iter().enumerate() {
        assert_eq!(one(runtime.block_on(publishing)).unwrap(), n as u64 + 1);
    }
    let late = runtime.block_on(publish(&world, &stream, "late"));
    assert!(late.unwrap_err().is(&codes::STORE_CLOSED));
    drop(streams);
    meta.close().unwrap();
    let meta = world.open().unwrap();
    let streams = world.streams(&meta).unwrap();
    assert_eq!(all(&streams.get(TENANT, "s").unwrap()).len(), 5000);
}

#[test]
fn no_carrier_keeps_a_store_alive() {
    let world = World::new(9);
    let meta = world.create().unwrap();
    let streams = world.streams(&meta).unwrap();
    let stream = streams.create(TENANT, "s", config(), &never()).unwrap();
    one(runtime().block_on(publish(&world, &stream, "x"))).unwrap();
    drop((stream, streams));
    let begin = Instant::now();
    until("something keeps the map", || Arc::strong_count(&meta) == 1);
    assert!(begin.elapsed() < Duration::from_millis(900), "it was kept as long as a carrier idles");
}
