//! Threads that share a lock, as Python's do: who is told needs the lock, and so one is told at a time.

#![cfg(not(any(feature = "loom", feature = "shuttle")))]
#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]
#![allow(unsafe_code, reason = "the lock is what the queue asks for")]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use dwk_base::{Deadline, SystemClock};
use dwk_queue::{PopError, PushError, Queue, Turn, Waited};

/// A queue and the lock that everybody needs who touches it.
struct World {
    queue: Queue<u64>,
    lock: Mutex<()>,
}

impl World {
    fn new(capacity: usize) -> Arc<Self> {
        Arc::new(Self { queue: Queue::new(capacity).unwrap(), lock: Mutex::new(()) })
    }

    fn try_get(&self) -> Result<u64, PopError> {
        // SAFETY: the caller holds the lock.
        unsafe { self.queue.try_pop_alone() }
    }

    fn try_put(&self, item: u64) -> Result<(), PushError<u64>> {
        // SAFETY: the caller holds the lock.
        unsafe { self.queue.try_push_alone_to(0, item) }
    }

    /// An item; `Err` if there is none in time, `Ok(None)` once it is closed and empty.
    fn get(&self, patience: Duration) -> Result<Option<u64>, ()> {
        let attempt = || match self.try_get() {
            Ok(item) => Some(Some(item)),
            Err(PopError::Closed) => Some(None),
            Err(_) => None,
        };
        let turn = self.queue.turn_to_get(1);
        self.until(turn, patience, attempt, Queue::pass_on_items).ok_or(())
    }

    fn put(&self, item: u64, patience: Duration) -> Option<()> {
        let attempt = || self.try_put(item).ok();
        self.until(self.queue.turn_to_put(0, 1), patience, attempt, |queue| queue.pass_on_room(0))
    }

    /// As the binding does it: everything but the sleep with the lock.
    fn until<R>(
        &self,
        mut turn: Turn,
        patience: Duration,
        attempt: impl Fn() -> Option<R>,
        pass_on: impl Fn(&Queue<u64>),
    ) -> Option<R> {
        let deadline = Deadline::after(Arc::new(SystemClock::default()), patience);
        loop {
            let alone = self.lock.lock().unwrap();
            turn.enroll();
            if let Some(done) = attempt() {
                turn.served();
                pass_on(&self.queue);
                return Some(done);
            }
            drop(alone);
            if turn.wait(&deadline) == Waited::TimedOut {
                let _alone = self.lock.lock().unwrap();
                drop(turn);
                return None;
            }
        }
    }
}

const LONG: Duration = Duration::from_secs(30);

fn until(condition: impl Fn() -> bool) {
    let end = Instant::now() + LONG;
    while !condition() {
        assert!(Instant::now() < end, "it did not happen");
        thread::yield_now();
    }
}

#[test]
fn one_thread_is_told_at_a_time_and_tells_the_next() {
    let world = World::new(8);
    let getters: Vec<_> = (0..3)
        .map(|_| {
            let world = Arc::clone(&world);
            thread::spawn(move || world.get(LONG).unwrap().unwrap())
        })
        .collect();
    until(|| world.queue.stats().get_waits == 3);
    let alone = world.lock.lock().unwrap();
    for item in 0..3 {
        world.try_put(item).unwrap();
        assert_eq!(world.queue.stats().getters, 2, "the others sleep until the first has tried");
    }
    drop(alone);
    let mut items: Vec<_> = getters.into_iter().map(|getter| getter.join().unwrap()).collect();
    items.sort_unstable();
    assert_eq!(items, [0, 1, 2]);
}

#[test]
fn who_was_told_and_gives_up_tells_the_next() {
    let world = World::new(8);
    let mut first = world.queue.turn_to_get(1);
    first.enroll();
    let getter = {
        let world = Arc::clone(&world);
        thread::spawn(move || world.get(LONG))
    };
    until(|| world.queue.stats().get_waits == 1);
    let alone = world.lock.lock().unwrap();
    world.try_put(7).unwrap();
    assert_eq!(world.queue.stats().getters, 1);
    drop(first);
    drop(alone);
    assert_eq!(getter.join().unwrap(), Ok(Some(7)));
}

#[test]
fn no_item_and_no_word_is_lost_whoever_gives_up() {
    let world = World::new(4);
    let (taken, sum) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let (producers, each) = (4_u64, 5_000_u64);
    let all = (producers * each) as usize;
    thread::scope(|scope| {
        for producer in 0..producers {
            let world = &world;
            scope.spawn(move || {
                for number in 0..each {
                    // Every third is impatient, and tries again.
                    let patience = if number % 3 == 0 { Duration::from_micros(20) } else { LONG };
                    while world.put(producer * each + number, patience).is_none() {
                        assert!(patience < LONG, "a put waits for room that is there");
                    }
                }
            });
        }
        for consumer in 0..4_u32 {
            let (world, taken, sum) = (&world, &taken, &sum);
            scope.spawn(move || {
                // Two of them are impatient; for the others no wait may end in vain.
                let patience = if consumer < 2 { Duration::from_micros(50) } else { LONG };
                loop {
                    match world.get(patience) {
                        Ok(Some(item)) => {
                            sum.fetch_add(item as usize, Ordering::SeqCst);
                            if taken.fetch_add(1, Ordering::SeqCst) + 1 == all {
                                let _alone = world.lock.lock().unwrap();
                                world.queue.close();
                            }
                        }
                        Ok(None) => break,
                        Err(()) => assert!(consumer < 2, "a get waits for an item that is there"),
                    }
                }
            });
        }
    });
    assert_eq!(taken.load(Ordering::SeqCst), all);
    assert_eq!(sum.load(Ordering::SeqCst), all * (all - 1) / 2);
}
