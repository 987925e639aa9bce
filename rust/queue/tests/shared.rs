//! One process and its threads: what a shared queue promises, and what it makes of nonsense.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "an `unwrap` in a test is an assertion")]

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use dwk_base::{Clock, Code, Error, Random, Seams, SeededRandom, SystemClock, codes};
use dwk_queue::shared::{Need, Options, SharedQueue, Try, Waiter};

const SHORT: Option<Duration> = Some(Duration::from_millis(30));
const HEADER_BYTES: u64 = 12288;
const TAIL: u64 = 256;
const HEAD: u64 = 512;

fn clock() -> Arc<dyn Clock> {
    Arc::new(SystemClock::default())
}

fn make(capacity_bytes: u64) -> SharedQueue {
    SharedQueue::make(&Options { capacity_bytes, name: None }, &Seams::system()).unwrap()
}

fn named(name: &str) -> Result<SharedQueue, Error> {
    let name = Some(name.to_owned());
    SharedQueue::make(&Options { capacity_bytes: 1024, name }, &Seams::system())
}

fn attach(queue: &SharedQueue) -> Result<SharedQueue, Error> {
    SharedQueue::attach(queue.name(), clock())
}

fn path(name: &str) -> String {
    format!("/dev/shm/dwkernel-{}-{name}", rustix::process::geteuid().as_raw())
}

fn file(queue: &SharedQueue) -> File {
    OpenOptions::new().read(true).write(true).open(path(queue.name())).unwrap()
}

fn poke(queue: &SharedQueue, offset: u64, word: u64) {
    file(queue).write_all_at(&word.to_le_bytes(), offset).unwrap();
}

fn peek(queue: &SharedQueue, offset: u64) -> u64 {
    let mut word = [0; 8];
    file(queue).read_exact_at(&mut word, offset).unwrap();
    u64::from_le_bytes(word)
}

#[track_caller]
fn fails<T>(result: Result<T, Error>, code: &'static Code) {
    match result {
        Ok(_) => panic!("no {}", code.name),
        Err(error) => assert!(error.is(code), "{error}"),
    }
}

fn put(queue: &SharedQueue, message: &[u8]) -> bool {
    matches!(queue.try_put(message).unwrap(), Try::Done(()))
}

#[test]
fn messages_come_out_as_they_went_in_and_in_order() {
    let queue = make(4096);
    let other = attach(&queue).unwrap();
    for round in 0..300usize {
        let messages: Vec<Vec<u8>> =
            (0..4).map(|index| vec![round as u8; (round * 7 + index * 131) % 900]).collect();
        for message in &messages {
            queue.put(message, SHORT).unwrap();
        }
        for message in &messages {
            assert_eq!(&other.get(SHORT).unwrap(), message);
        }
    }
    assert_eq!(queue.depth(), (0, 0));
    assert_eq!((queue.counters().puts, other.counters().gets), (1200, 1200));
}

#[test]
fn a_full_queue_takes_nothing_and_an_empty_one_gives_nothing() {
    let queue = make(128);
    assert!(put(&queue, &[7; 112]));
    assert!(!put(&queue, &[7; 112]) && put(&queue, b"") && !put(&queue, b""));
    fails(queue.put(b"", SHORT), &codes::QUEUE_TIMEOUT);
    fails(queue.put(&[0; 121], SHORT), &codes::QUEUE_MESSAGE_SIZE);
    assert_eq!(queue.depth(), (2, 128));
    assert_eq!(queue.get(SHORT).unwrap(), [7; 112]);
    assert_eq!(queue.get(SHORT).unwrap(), []);
    assert!(matches!(queue.try_take().unwrap(), Try::NotNow));
    fails(queue.get(SHORT), &codes::QUEUE_TIMEOUT);
    assert!(put(&queue, &[1; 120]), "a message that just fits");
}

#[test]
fn a_batch_is_put_as_far_as_there_is_room_and_shown_at_once() {
    let queue = make(160);
    let batch: Vec<&[u8]> = vec![&[1; 8]; 20];
    assert!(matches!(queue.try_put_all(&batch).unwrap(), Try::Done(10)));
    assert!(matches!(queue.try_put_all(&batch).unwrap(), Try::NotNow));
    assert!(matches!(queue.try_put_all(&batch[..0]).unwrap(), Try::NotNow));
    assert_eq!(queue.counters().puts, 10);
    while queue.depth().0 > 0 {
        queue.get(SHORT).unwrap();
    }
    let long = [9; 200];
    let mixed: [&[u8]; 3] = [&[1], &long, &[2]];
    assert!(matches!(queue.try_put_all(&mixed).unwrap(), Try::Done(1)));
    fails(queue.try_put_all(&mixed[1..]), &codes::QUEUE_MESSAGE_SIZE);
}

#[test]
fn what_is_dropped_before_it_is_finished_was_not_taken() {
    let queue = make(1024);
    assert!(put(&queue, b"one") && put(&queue, b"two"));
    let Try::Done(mut taking) = queue.try_take().unwrap() else { panic!("nothing there") };
    assert_eq!(taking.take().unwrap().unwrap(), b"one");
    drop(taking);
    let Try::Done(mut taking) = queue.try_take().unwrap() else { panic!("nothing there") };
    assert_eq!(taking.items(), 2);
    assert_eq!(taking.take().unwrap().unwrap(), b"one");
    assert_eq!(taking.take().unwrap().unwrap(), b"two");
    assert_eq!(taking.take().unwrap(), None);
    taking.finish();
    assert_eq!(queue.depth(), (0, 0));
}

#[test]
fn a_closed_queue_gives_what_it_has_and_takes_no_more() {
    let queue = make(1024);
    let other = attach(&queue).unwrap();
    assert!(put(&queue, b"last"));
    other.close();
    assert!(queue.is_closed());
    fails(queue.try_put(&b"more"[..]), &codes::QUEUE_CLOSED);
    assert_eq!(other.get(None).unwrap(), b"last");
    fails(other.get(None), &codes::QUEUE_CLOSED);
    fails(queue.try_take(), &codes::QUEUE_CLOSED);
}

#[test]
fn closing_wakes_everybody_who_waits() {
    let (empty, full) = (make(64), make(64));
    assert!(put(&full, &[0; 56]));
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| fails(empty.get(None), &codes::QUEUE_CLOSED));
            scope.spawn(|| fails(full.put(b"x", None), &codes::QUEUE_CLOSED));
        }
        let all_wait = || empty.counters().get_waits == 3 && full.counters().put_waits == 3;
        while !all_wait() {
            thread::yield_now();
        }
        empty.close();
        full.close();
    });
}

#[test]
fn a_put_that_is_under_way_when_the_queue_closes_is_refused() {
    struct Closing<'a>(&'a SharedQueue);
    impl dwk_queue::shared::Message for Closing<'_> {
        fn bytes(&self) -> usize {
            3
        }
        fn for_each_piece(&self, mut each: impl FnMut(&[u8])) {
            each(b"ab");
            self.0.close();
            each(b"c");
        }
    }
    let queue = make(64);
    fails(queue.try_put(&Closing(&queue)), &codes::QUEUE_CLOSED);
    fails(queue.try_take(), &codes::QUEUE_CLOSED);
}

#[test]
fn who_has_left_is_refused_and_others_go_on() {
    let queue = make(1024);
    let other = attach(&queue).unwrap();
    other.leave();
    fails(other.try_put(&b"x"[..]), &codes::QUEUE_CLOSED);
    assert!(put(&queue, b"x"));
    assert_eq!(queue.participants().len(), 1);
    fails(other.get(None), &codes::QUEUE_CLOSED);
}

#[test]
fn threads_lose_and_double_nothing() {
    const EACH: usize = 20_000;
    let queue = make(2000);
    let seen: Vec<AtomicUsize> = (0..3 * EACH).map(|_| AtomicUsize::new(0)).collect();
    thread::scope(|scope| {
        let producers: Vec<_> = (0..3)
            .map(|producer| {
                let queue = &queue;
                scope.spawn(move || {
                    for index in 0..EACH {
                        let mut message = (producer * EACH + index).to_le_bytes().to_vec();
                        message.resize(8 + index % 90, index as u8);
                        queue.put(&message, None).unwrap();
                    }
                })
            })
            .collect();
        for _ in 0..3 {
            scope.spawn(|| {
                let mut last = [None; 3];
                loop {
                    let message = match queue.get(None) {
                        Ok(message) => message,
                        Err(error) => break assert!(error.is(&codes::QUEUE_CLOSED), "{error}"),
                    };
                    let number = usize::from_le_bytes(message[..8].try_into().unwrap());
                    let (producer, index) = (number / EACH, number % EACH);
                    assert!(last[producer] < Some(index), "a producer's order");
                    last[producer] = Some(index);
                    assert_eq!(message.len(), 8 + index % 90);
                    assert!(message[8..].iter().all(|byte| *byte == index as u8));
                    seen[number].fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for producer in producers {
            producer.join().unwrap();
        }
        queue.close();
    });
    assert!(seen.iter().all(|count| count.load(Ordering::Relaxed) == 1));
}

/// Runs `round` ten times. A wake that is lost costs up to 100 ms each time, because sleepers look by
/// themselves then; a machine that is too busy for half of that is not so three times.
fn ten_prompt_rounds(round: impl Fn()) {
    let take = || {
        let begin = Instant::now();
        (0..10).for_each(|_| round());
        begin.elapsed()
    };
    let best = (0..3).map(|_| take()).find(|took| *took < Duration::from_millis(500));
    assert!(best.is_some(), "wakes are lost");
}

/// Waits until so many more calls wait, and sleep.
fn asleep(waits: impl Fn() -> u64, before: u64, count: u64) {
    while waits() < before + count {
        thread::yield_now();
    }
    thread::sleep(Duration::from_millis(3));
}

#[test]
fn a_message_wakes_one_sleeper_and_each_of_many_has_its_own() {
    for sleepers in [1, 4] {
        let queue = make(1024);
        let waits = || queue.counters().get_waits;
        ten_prompt_rounds(|| {
            let before = waits();
            thread::scope(|scope| {
                for _ in 0..sleepers {
                    scope.spawn(|| assert_eq!(queue.get(None).unwrap(), b"x"));
                }
                asleep(waits, before, sleepers);
                (0..sleepers).for_each(|_| assert!(put(&queue, b"x")));
            });
        });
    }
}

#[test]
fn room_wakes_one_sleeper_and_each_of_many_has_its_own() {
    for sleepers in [1, 4] {
        let queue = make(64);
        let waits = || queue.counters().put_waits;
        ten_prompt_rounds(|| {
            while put(&queue, b"12345678") {}
            let before = waits();
            thread::scope(|scope| {
                for _ in 0..sleepers {
                    scope.spawn(|| queue.put(b"12345678", None).unwrap());
                }
                asleep(waits, before, sleepers);
                (0..sleepers).for_each(|_| drop(queue.get(None).unwrap()));
            });
        });
    }
}

#[test]
fn a_wake_that_is_not_used_is_passed_on() {
    let queue = make(1024);
    let waits = || queue.counters().get_waits;
    ten_prompt_rounds(|| {
        let before = waits();
        let mut first = Waiter::new(&queue, Need::Item, None);
        thread::scope(|scope| {
            let sleeper = scope.spawn(|| {
                first.step().unwrap();
                first
            });
            thread::sleep(Duration::from_millis(2));
            let other = scope.spawn(|| queue.get(None).unwrap());
            asleep(waits, before, 2);
            assert!(put(&queue, b"x"));
            drop(sleeper.join().unwrap());
            assert_eq!(other.join().unwrap(), b"x");
        });
    });
}

/// Without a wake it takes the rest of 5 ms, each time; with one, the fastest time is what a wake takes.
#[test]
fn who_waits_for_a_lock_is_woken_when_it_is_free() {
    let queue = make(1024);
    (0..20).for_each(|_| assert!(put(&queue, b"x")));
    let round = |_| {
        let Try::Done(taking) = queue.try_take().unwrap() else { panic!("nothing there") };
        thread::scope(|scope| {
            let other = scope.spawn(|| queue.get(None).unwrap());
            thread::sleep(Duration::from_millis(1));
            let begin = Instant::now();
            drop(taking);
            other.join().unwrap();
            begin.elapsed()
        })
    };
    let fastest = (0..20).map(round).min().unwrap();
    assert!(fastest < Duration::from_millis(1), "{fastest:?}");
}

#[test]
fn names_are_checked_and_used_once() {
    for wrong in ["", "a/b", "..\0", "ä", "a b", &"x".repeat(101)] {
        fails(named(wrong), &codes::QUEUE_NAME);
        fails(SharedQueue::attach(wrong, clock()), &codes::QUEUE_NAME);
    }
    let name = format!("used-once-{}", std::process::id());
    let queue = named(&name).unwrap();
    fails(named(&name), &codes::QUEUE_EXISTS);
    assert_eq!(fs::metadata(path(&name)).unwrap().permissions().mode() & 0o777, 0o600);
    drop(queue);
    fails(SharedQueue::attach(&name, clock()), &codes::QUEUE_NOT_FOUND);
}

#[test]
fn a_closed_queue_is_found_until_its_maker_leaves_and_its_name_is_free() {
    let name = format!("closed-{}", std::process::id());
    let first = named(&name).unwrap();
    assert!(put(&first, b"for who comes late"));
    first.close();
    assert_eq!(SharedQueue::attach(&name, clock()).unwrap().get(None).unwrap().len(), 18);
    let second = named(&name).unwrap();
    assert!(!SharedQueue::attach(&name, clock()).unwrap().is_closed());
    first.leave();
    SharedQueue::attach(&name, clock()).expect("the first took only its own name along");
    second.leave();
    fails(SharedQueue::attach(&name, clock()), &codes::QUEUE_NOT_FOUND);
}

#[test]
fn the_name_of_a_closed_queue_is_free_also_while_somebody_sweeps() {
    let name = format!("swept-{}", std::process::id());
    let first = named(&name).unwrap();
    first.close();
    let held = file(&first);
    rustix::fs::flock(&held, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let second = std::thread::scope(|scope| {
        scope.spawn(move || {
            std::thread::sleep(Duration::from_millis(20));
            drop(held);
        });
        named(&name)
    });
    assert!(!second.unwrap().is_closed());
}

#[test]
fn only_the_maker_s_end_removes_the_name() {
    let queue = make(1024);
    drop(attach(&queue).unwrap());
    attach(&queue).unwrap().leave();
    assert!(fs::exists(path(queue.name())).unwrap());
    let name = queue.name().to_owned();
    queue.leave();
    assert!(!fs::exists(path(&name)).unwrap());
}

#[test]
fn a_capacity_out_of_the_limits_is_refused() {
    for capacity_bytes in [0, 63, (8 << 30) + 1, u64::MAX] {
        let options = Options { capacity_bytes, name: None };
        fails(SharedQueue::make(&options, &Seams::system()), &codes::QUEUE_CAPACITY);
    }
    assert_eq!((make(64).message_bytes_max(), make(65).capacity_bytes()), (56, 72));
}

#[test]
fn what_is_no_queue_is_damaged_when_attached_to() {
    let place = |what: &str| format!("{what}-{}", std::process::id());
    let refused = |name: &str| {
        fails(SharedQueue::attach(name, clock()), &codes::QUEUE_DAMAGED);
        fs::remove_file(path(name)).or_else(|_| fs::remove_dir(path(name))).unwrap();
    };
    let (link, directory, short) = (place("link"), place("directory"), place("short"));
    let (zeroes, open, odd) = (place("zeroes"), place("open"), place("odd"));
    symlink("/dev/null", path(&link)).unwrap();
    fs::create_dir(path(&directory)).unwrap();
    fs::write(path(&short), [0; 100]).unwrap();
    fs::write(path(&zeroes), vec![0; 16384]).unwrap();
    fs::write(path(&odd), vec![0; 16383]).unwrap();
    fs::write(path(&open), vec![0; 16384]).unwrap();
    for name in [&short, &zeroes, &odd] {
        fs::set_permissions(path(name), fs::Permissions::from_mode(0o600)).unwrap();
    }
    for name in [&link, &directory, &short, &zeroes, &open, &odd] {
        refused(name);
    }
}

#[test]
fn a_link_to_a_queue_and_a_queue_that_is_not_private_are_refused() {
    let queue = make(1024);
    let link = format!("link-to-{}", queue.name());
    symlink(path(queue.name()), path(&link)).unwrap();
    fails(SharedQueue::attach(&link, clock()), &codes::QUEUE_DAMAGED);
    fs::remove_file(path(&link)).unwrap();
    attach(&queue).unwrap();
    fs::set_permissions(path(queue.name()), fs::Permissions::from_mode(0o640)).unwrap();
    fails(attach(&queue), &codes::QUEUE_DAMAGED);
}

#[test]
fn a_header_of_another_kind_is_refused() {
    for (offset, word, code) in [
        (0, 1, &codes::QUEUE_DAMAGED),
        (8, 2, &codes::QUEUE_DAMAGED),
        (16, 2048, &codes::QUEUE_DAMAGED),
        (16, u64::MAX, &codes::QUEUE_DAMAGED),
        (24, 5, &codes::QUEUE_UNSUPPORTED),
    ] {
        let queue = make(1024);
        poke(&queue, offset, word);
        fails(attach(&queue), code);
    }
    let queue = make(1024);
    file(&queue).set_len(HEADER_BYTES + 2048).unwrap();
    fails(attach(&queue), &codes::QUEUE_DAMAGED);
}

#[test]
fn damage_while_it_is_used_is_an_error_and_never_more() {
    let random = SeededRandom::new(3);
    let tried = |queue: &SharedQueue| {
        let taken = queue.try_take().and_then(|taking| match taking {
            Try::Done(mut taking) => {
                while taking.take()?.is_some_and(|message| message.len() <= 1024) {}
                taking.finish();
                Ok(())
            }
            _ => Ok(()),
        });
        for result in [taken, queue.try_put(&[1; 40][..]).map(drop)] {
            let sound = result.as_ref().is_err_and(|error| {
                !error.is(&codes::QUEUE_DAMAGED) && !error.is(&codes::QUEUE_CLOSED)
            });
            assert!(!sound, "{result:?}");
        }
        queue.depth();
        let _ = queue.put(&[2; 500], Some(Duration::ZERO));
    };
    for round in 0..300 {
        let queue = make(1024);
        for _ in 0..random.below(30) {
            put(&queue, &vec![7; random.below(200) as usize]);
            if random.below(2) == 0 {
                let _ = queue.get(Some(Duration::ZERO));
            }
        }
        match round % 3 {
            0 => poke(&queue, TAIL, random.next_u64()),
            1 => poke(&queue, HEAD, random.next_u64()),
            _ => poke(&queue, HEADER_BYTES + 8 * random.below(128), random.next_u64()),
        }
        for offset in [144, 152, 400, 408] {
            poke(&queue, offset, random.next_u64());
        }
        (0..20).for_each(|_| tried(&queue));
    }
}

#[test]
fn a_record_that_is_longer_than_what_is_there_is_damage() {
    let queue = make(1024);
    assert!(put(&queue, b"abc"));
    let word = peek(&queue, HEADER_BYTES);
    assert_eq!(word as u32, 3);
    for length in [9, 1 << 20, u64::from(u32::MAX)] {
        poke(&queue, HEADER_BYTES, word & !0xffff_ffff | length);
        let Try::Done(mut taking) = queue.try_take().unwrap() else { panic!("nothing there") };
        fails(taking.take(), &codes::QUEUE_DAMAGED);
    }
    poke(&queue, HEADER_BYTES, word);
    assert_eq!(queue.get(SHORT).unwrap(), b"abc");
    poke(&queue, TAIL, 0x7fff_ffff << 33);
    fails(queue.get(SHORT), &codes::QUEUE_DAMAGED);
    fails(queue.put(b"x", SHORT), &codes::QUEUE_DAMAGED);
}

#[test]
fn no_more_processes_than_the_table_holds_can_join() {
    let queue = make(64);
    let me = peek(&queue, 4096);
    for slot in 1..1024 {
        poke(&queue, 4096 + 8 * slot, me);
    }
    fails(attach(&queue), &codes::QUEUE_CAPACITY);
    poke(&queue, 4096 + 8 * 77, 0);
    attach(&queue).unwrap();
}
