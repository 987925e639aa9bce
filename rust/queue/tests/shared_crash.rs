//! Several processes, and some of them killed at the worst moment.
//!
//! The children are this program again, with one ignored test that does what an environment variable says.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "an `unwrap` in a test is an assertion")]

use std::collections::HashMap;
use std::env;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use dwk_base::{Clock, Error, Random, Seams, SeededRandom, SystemClock, codes};
use dwk_queue::shared::{Message, Need, Options, SharedQueue, Try, Waiter};

const PROMPT: Option<Duration> = Some(Duration::from_secs(20));

fn clock() -> Arc<dyn Clock> {
    Arc::new(SystemClock::default())
}

fn make(capacity_bytes: u64) -> SharedQueue {
    SharedQueue::make(&Options { capacity_bytes, name: None }, &Seams::system()).unwrap()
}

/// Kills its process when dropped, so that a failing test leaves none.
struct Peer(Child);

impl Peer {
    /// A process that plays `role` on `queue`; returns when it is ready.
    fn start(role: &str, queue: &str) -> Self {
        let mut peer = Self::launch(role, queue);
        peer.wait_for("ready");
        peer
    }

    fn launch(role: &str, queue: &str) -> Self {
        let mut command = Command::new(env::current_exe().unwrap());
        command.args(["--exact", "--ignored", "--nocapture", "a_peer"]);
        command.env("ROLE", role).env("QUEUE", queue);
        Self(command.stdout(Stdio::piped()).stdin(Stdio::piped()).spawn().unwrap())
    }

    /// Reads lines up to one that ends with `word`.
    fn wait_for(&mut self, word: &str) {
        let mut lines = BufReader::new(self.0.stdout.as_mut().unwrap());
        let mut line = String::new();
        while !line.trim_end().ends_with(word) {
            line.clear();
            assert!(lines.read_line(&mut line).unwrap() > 0, "the peer ended before {word:?}");
        }
    }

    fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    /// Kills it and leaves a zombie, as a parent that does not look does.
    fn kill_unseen(&mut self) {
        self.0.kill().unwrap();
    }

    fn join(mut self) {
        assert!(self.0.wait().unwrap().success());
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn say(word: &str) {
    let mut out = std::io::stdout();
    writeln!(out, "{word}").unwrap();
    out.flush().unwrap();
}

fn sleep_for_ever() -> ! {
    loop {
        thread::park();
    }
}

/// A message whose producer stops in its middle, with the lock.
struct Stuck;

impl Message for Stuck {
    fn bytes(&self) -> usize {
        100
    }

    fn for_each_piece(&self, mut each: impl FnMut(&[u8])) {
        each(&[0xbb; 50]);
        say("ready");
        sleep_for_ever()
    }
}

fn message(producer: u32, index: u32) -> Vec<u8> {
    let mut bytes = [producer.to_le_bytes(), index.to_le_bytes()].concat();
    bytes.resize(8 + index as usize % 300, producer.wrapping_add(index) as u8);
    bytes
}

fn parse(bytes: &[u8]) -> (u32, u32) {
    let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    let (producer, index) = (word(0), word(4));
    assert_eq!(bytes, message(producer, index), "whole and unmixed");
    (producer, index)
}

#[test]
#[ignore = "what the other tests start"]
fn a_peer() {
    let Ok(role) = env::var("ROLE") else { return };
    let name = env::var("QUEUE").unwrap();
    let (role, number) = role.split_once(':').unwrap_or((&role, "0"));
    let number: u32 = number.parse().unwrap();
    if role == "maker" {
        let options = Options { capacity_bytes: 1024, name: Some(name) };
        let _queue = SharedQueue::make(&options, &Seams::system()).unwrap();
        say("ready");
        sleep_for_ever();
    }
    let queue = SharedQueue::attach(&name, clock()).unwrap();
    match role {
        "stuck-put" => drop(queue.try_put(&Stuck)),
        "stuck-get" => {
            let Try::Done(mut taking) = queue.try_take().unwrap() else { panic!("nothing") };
            taking.take().unwrap();
            say("ready");
            sleep_for_ever();
        }
        "woken" => {
            say("ready");
            let mut waiter = Waiter::new(&queue, Need::Item, None);
            while !waiter.is_ready() {
                waiter.step().unwrap();
            }
            say("woken");
            sleep_for_ever();
        }
        "idle" => {
            say("ready");
            sleep_for_ever();
        }
        "left" => {
            drop(queue);
            say("ready");
            sleep_for_ever();
        }
        "put" => {
            say("ready");
            for index in 0.. {
                queue.put(&message(number, index), None).unwrap();
            }
        }
        "put-some" => {
            for index in 0..number {
                queue.put(&message(std::process::id(), index), None).unwrap();
            }
        }
        "get" => {
            say("ready");
            while queue.get(None).is_ok() {}
        }
        "echo" => {
            say("ready");
            let back = SharedQueue::attach(&format!("{name}-back"), clock()).unwrap();
            while let Ok(message) = queue.get(None) {
                back.put(&message, None).unwrap();
            }
        }
        role => panic!("no role {role}"),
    }
}

#[track_caller]
fn abandoned<T>(result: Result<T, Error>) {
    let error = result.err().unwrap();
    assert!(error.is(&codes::QUEUE_ABANDONED) && error.code().retryable, "{error}");
}

#[test]
fn a_producer_killed_in_the_middle_of_a_put_leaves_nothing_behind() {
    let queue = make(1024);
    queue.put(b"before", None).unwrap();
    let mut peer = Peer::start("stuck-put", queue.name());
    assert!(matches!(queue.try_put(&b"x"[..]).unwrap(), Try::Busy), "it has the lock");
    peer.kill_unseen();
    queue.put(b"after", PROMPT).unwrap();
    assert_eq!(queue.get(PROMPT).unwrap(), b"before");
    assert_eq!(queue.get(PROMPT).unwrap(), b"after");
    assert_eq!(queue.depth(), (0, 0));
    assert_eq!(queue.counters().recoveries, 1);
}

#[test]
fn a_message_survives_a_consumer_killed_in_the_middle_of_a_get() {
    let queue = make(1024);
    queue.put(b"one", None).unwrap();
    queue.put(b"two", None).unwrap();
    let mut peer = Peer::start("stuck-get", queue.name());
    queue.put(b"three", None).unwrap();
    peer.kill();
    for expected in [&b"one"[..], b"two", b"three"] {
        assert_eq!(queue.get(PROMPT).unwrap(), expected);
    }
    assert_eq!(queue.counters().recoveries, 1);
}

#[test]
fn a_living_holder_is_waited_for_and_never_robbed() {
    let queue = make(1024);
    let _peer = Peer::start("stuck-put", queue.name());
    let outcome = queue.put(b"x", Some(Duration::from_millis(300)));
    assert!(outcome.is_err_and(|error| error.is(&codes::QUEUE_TIMEOUT)));
    assert_eq!(queue.counters().recoveries, 0);
}

/// The peer sleeps first, is woken first, and takes nothing: the other sleeper has to find out by itself.
#[test]
fn a_wake_that_died_with_who_had_it_is_made_up_for() {
    let queue = make(1024);
    let mut peer = Peer::start("woken", queue.name());
    while queue.counters().get_waits < 1 {
        thread::yield_now();
    }
    thread::sleep(Duration::from_millis(5));
    thread::scope(|scope| {
        let waiting = scope.spawn(|| queue.get(PROMPT));
        while queue.counters().get_waits < 2 {
            thread::yield_now();
        }
        thread::sleep(Duration::from_millis(5));
        queue.put(b"for who lives", None).unwrap();
        peer.wait_for("woken");
        peer.kill();
        let begin = Instant::now();
        assert_eq!(waiting.join().unwrap().unwrap(), b"for who lives");
        assert!(begin.elapsed() < Duration::from_secs(2), "{:?}", begin.elapsed());
    });
}

#[test]
fn who_waits_alone_among_the_dead_is_told() {
    let queue = make(64);
    let mut peer = Peer::start("idle", queue.name());
    let shortly = Some(Duration::from_millis(300));
    let error = queue.get(shortly).unwrap_err();
    assert!(error.is(&codes::QUEUE_TIMEOUT), "somebody lives: {error}");
    peer.kill();
    abandoned(queue.get(PROMPT));
    queue.put(&[0; 56], None).unwrap();
    abandoned(queue.put(b"x", PROMPT));
    assert_eq!(queue.get(None).unwrap(), [0; 56]);
    abandoned(queue.get(PROMPT));
    let alive: Vec<bool> = queue.participants().iter().map(|one| one.is_alive).collect();
    assert_eq!(alive, [true, false]);

    let _next = Peer::start("idle", queue.name());
    let error = queue.get(shortly).unwrap_err();
    assert!(error.is(&codes::QUEUE_TIMEOUT), "somebody came: {error}");
    assert_eq!(queue.counters().deaths, 1);
    assert!(queue.participants().iter().all(|one| one.is_alive));
}

#[test]
fn who_was_always_alone_or_was_left_in_good_order_just_waits() {
    let queue = make(64);
    let shortly = Some(Duration::from_millis(400));
    let timed_out = |error: Error| error.is(&codes::QUEUE_TIMEOUT);
    assert!(queue.get(shortly).is_err_and(timed_out));
    Peer::start("left", queue.name()).kill();
    assert!(queue.get(shortly).is_err_and(timed_out));
}

#[test]
fn leftovers_of_the_killed_are_swept_when_nobody_uses_them() {
    let name = format!("leftover-{}", std::process::id());
    let path = format!("/dev/shm/dwkernel-{}-{name}", rustix::process::geteuid().as_raw());
    let mut maker = Peer::start("maker", &name);
    let mut user = Peer::start("idle", &name);
    drop(make(64));
    assert!(std::fs::exists(&path).unwrap(), "its maker lives");
    maker.kill();
    drop(make(64));
    assert!(std::fs::exists(&path).unwrap(), "it is used");
    user.kill();
    drop(make(64));
    assert!(!std::fs::exists(&path).unwrap());
}

#[test]
fn processes_lose_and_double_nothing() {
    let queue = make(4096);
    let producers: Vec<Peer> =
        (0..3).map(|_| Peer::launch("put-some:4000", queue.name())).collect();
    let mut next: HashMap<u32, u32> = HashMap::new();
    for _ in 0..12_000 {
        let (producer, index) = parse(&queue.get(PROMPT).unwrap());
        let expected = next.entry(producer).or_default();
        assert_eq!(index, *expected, "in the producer's order");
        *expected += 1;
    }
    producers.into_iter().for_each(Peer::join);
    assert_eq!(queue.depth(), (0, 0));
}

#[test]
fn a_round_trip_through_two_processes_gives_everything_back() {
    let there = make(2048);
    let name = Some(format!("{}-back", there.name()));
    let back =
        SharedQueue::make(&Options { capacity_bytes: 2048, name }, &Seams::system()).unwrap();
    let echoes: Vec<Peer> = (0..2).map(|_| Peer::start("echo", there.name())).collect();
    let mut seen = vec![false; 5000];
    thread::scope(|scope| {
        scope.spawn(|| (0..5000).for_each(|index| there.put(&message(1, index), PROMPT).unwrap()));
        for _ in 0..5000 {
            let (_, index) = parse(&back.get(PROMPT).unwrap());
            assert!(!std::mem::replace(&mut seen[index as usize], true), "once each");
        }
    });
    there.close();
    echoes.into_iter().for_each(Peer::join);
}

/// Producers are killed again and again at random moments. Each message is whole, each producer's messages come
/// without a gap, and nobody hangs.
#[test]
fn producers_killed_at_random_moments_harm_nobody() {
    let random = SeededRandom::new(11);
    let queue = make(1500);
    let mut next: HashMap<u32, u32> = HashMap::new();
    let mut drain = |count: usize| {
        for _ in 0..count {
            let (producer, index) = parse(&queue.get(PROMPT).unwrap());
            let expected = next.entry(producer).or_default();
            assert_eq!(index, *expected, "without a gap");
            *expected += 1;
        }
    };
    let lives = if env::var_os("DWK_LONG").is_some() { 400 } else { 40 };
    let _steady = Peer::start(&format!("put:{}", u32::MAX), queue.name());
    for life in 0..lives {
        let mut peer = Peer::start(&format!("put:{life}"), queue.name());
        drain(random.below(400) as usize);
        peer.kill_unseen();
        drain(50);
    }
}

/// Consumers are killed again and again at random moments. What is missing afterwards was taken by one of them:
/// never more than what went out, and what the others take is whole, in order and not doubled.
#[test]
fn consumers_killed_at_random_moments_lose_only_what_they_took() {
    let random = SeededRandom::new(12);
    let queue = make(1500);
    let lives = if env::var_os("DWK_LONG").is_some() { 400 } else { 40 };
    let (mut put, mut last, mut taken) = (0, None, 0u64);
    for _ in 0..lives {
        let mut peer = Peer::start("get", queue.name());
        for _ in 0..random.below(400) {
            queue.put(&message(0, put), PROMPT).unwrap();
            put += 1;
        }
        peer.kill_unseen();
        while queue.depth().0 > 0 {
            // The peer may have taken the last one between the look and the get.
            let Ok(bytes) = queue.get(Some(Duration::from_millis(200))) else { continue };
            let (_, index) = parse(&bytes);
            assert!(last < Some(index), "in order, once each");
            last = Some(index);
            taken += 1;
        }
    }
    queue.put(&message(0, put), PROMPT).unwrap();
    assert_eq!(parse(&queue.get(PROMPT).unwrap()).1, put);
    assert!(taken <= u64::from(put));
}
