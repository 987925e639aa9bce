//! Every interleaving of a few threads, as far as three preemptions reach.
//!
//! `cargo test -p dwk-queue --features loom --test loom`
#![cfg(feature = "loom")]
#![allow(clippy::unwrap_used, reason = "a test that fails should stop")]

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use dwk_base::Deadline;
use dwk_queue::{PopError, PushError, Queue, Ring, spsc};
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread;

/// Explores `scene`; a thread that sleeps for ever is a deadlock, which loom reports.
fn explore(scene: impl Fn() + Sync + Send + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(scene);
}

fn never() -> Deadline {
    Deadline::never()
}

#[test]
fn two_producers_and_a_consumer_meet_in_one_slot() {
    explore(|| {
        let ring = Arc::new(Ring::new(1).unwrap());
        let producers = [1, 2].map(|item| {
            let ring = Arc::clone(&ring);
            thread::spawn(move || ring.try_push(item).is_ok())
        });
        let taken = ring.try_pop();
        let went_in = producers.map(|producer| producer.join().unwrap());
        let mut out: Vec<_> = taken.into_iter().collect();
        out.extend(ring.try_pop());
        assert_eq!(out.len(), went_in.iter().filter(|ok| **ok).count());
        assert!(went_in.contains(&true));
        assert_eq!(ring.try_pop(), Err(PopError::Empty));
    });
}

#[test]
fn two_consumers_never_take_the_same_item() {
    explore(|| {
        let ring = Arc::new(Ring::new(2).unwrap());
        ring.try_push(1).unwrap();
        let other = Arc::clone(&ring);
        let consumer = thread::spawn(move || other.try_pop().ok());
        ring.try_push(2).unwrap();
        let mine = ring.try_pop().ok();
        let mut taken = vec![mine, consumer.join().unwrap(), ring.try_pop().ok()];
        taken.sort_unstable();
        taken.retain(Option::is_some);
        assert_eq!(taken, [Some(1), Some(2)]);
    });
}

#[test]
fn batches_meet_single_items() {
    explore(|| {
        let ring = Arc::new(Ring::new(2).unwrap());
        let other = Arc::clone(&ring);
        let producer = thread::spawn(move || {
            let mut items = vec![1, 2, 3].into_iter();
            let first = other.try_push_many(&mut items).unwrap();
            first + other.try_push_many(&mut items).unwrap()
        });
        let mut taken: Vec<_> = ring.try_pop().into_iter().collect();
        ring.try_pop_many(&mut taken, 2).unwrap();
        let count = producer.join().unwrap();
        ring.try_pop_many(&mut taken, 3).unwrap();
        assert_eq!(taken, (1..=count).collect::<Vec<_>>());
        assert!(count >= 2);
    });
}

#[test]
fn what_went_in_before_the_close_comes_out() {
    explore(|| {
        let ring = Arc::new(Ring::new(2).unwrap());
        let other = Arc::clone(&ring);
        let producer = thread::spawn(move || other.try_push(1));
        ring.close();
        let pushed = producer.join().unwrap();
        match pushed {
            Ok(()) => assert_eq!(ring.try_pop(), Ok(1)),
            Err(error) => assert_eq!(error, PushError::Closed(1)),
        }
        assert_eq!(ring.try_pop(), Err(PopError::Closed));
    });
}

#[test]
fn a_get_that_sleeps_is_woken() {
    explore(|| {
        let queue = Arc::new(Queue::new(1).unwrap());
        let other = Arc::clone(&queue);
        let getter = thread::spawn(move || other.pop(&never()));
        queue.try_push(1).unwrap();
        assert_eq!(getter.join().unwrap(), Ok(1));
    });
}

#[test]
fn a_put_that_sleeps_is_woken() {
    explore(|| {
        let queue = Arc::new(Queue::new(1).unwrap());
        queue.try_push(1).unwrap();
        let other = Arc::clone(&queue);
        let putter = thread::spawn(move || other.push(2, &never()));
        assert_eq!(queue.try_pop(), Ok(1));
        assert_eq!(putter.join().unwrap(), Ok(()));
        assert_eq!(queue.try_pop(), Ok(2));
    });
}

#[test]
fn two_gets_that_sleep_are_both_woken_by_two_puts() {
    explore(|| {
        let queue = Arc::new(Queue::new(2).unwrap());
        let other = Arc::clone(&queue);
        let getter = thread::spawn(move || other.pop(&never()).unwrap());
        queue.try_push(1).unwrap();
        let other = Arc::clone(&queue);
        let producer = thread::spawn(move || other.try_push(2).unwrap());
        let mut taken = [queue.pop(&never()).unwrap(), getter.join().unwrap()];
        producer.join().unwrap();
        taken.sort_unstable();
        assert_eq!(taken, [1, 2]);
    });
}

#[test]
fn a_close_ends_a_get_that_sleeps() {
    explore(|| {
        let queue = Arc::new(Queue::<u8>::new(1).unwrap());
        let other = Arc::clone(&queue);
        let getter = thread::spawn(move || other.pop(&never()));
        queue.close();
        assert_eq!(getter.join().unwrap(), Err(PopError::Closed));
    });
}

#[test]
fn who_gives_up_passes_on_what_it_was_told() {
    explore(|| {
        let queue = Arc::new(Queue::new(1).unwrap());
        let mut impatient = queue.turn_to_get(1);
        impatient.enroll();
        let other = Arc::clone(&queue);
        let getter = thread::spawn(move || other.pop(&never()));
        let other = Arc::clone(&queue);
        let producer = thread::spawn(move || other.try_push(1).unwrap());
        drop(impatient);
        producer.join().unwrap();
        assert_eq!(getter.join().unwrap(), Ok(1));
    });
}

struct Rung(AtomicUsize);

impl Wake for Rung {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn a_pending_future_is_woken_for_what_comes_later() {
    explore(|| {
        let queue = Arc::new(Queue::new(1).unwrap());
        let other = Arc::clone(&queue);
        let producer = thread::spawn(move || other.try_push(1).unwrap());
        let rung = Arc::new(Rung(AtomicUsize::new(0)));
        let waker = Waker::from(Arc::clone(&rung));
        let mut get = pin!(queue.pop_async());
        let first = get.as_mut().poll(&mut Context::from_waker(&waker));
        producer.join().unwrap();
        if first == Poll::Pending {
            assert_eq!(rung.0.load(Ordering::SeqCst), 1);
            assert_eq!(get.as_mut().poll(&mut Context::from_waker(&waker)), Poll::Ready(Ok(1)));
        }
    });
}

#[test]
fn one_producer_and_one_consumer_hand_slots_over() {
    explore(|| {
        let (mut producer, mut consumer) = spsc::queue(1).unwrap();
        let giver =
            thread::spawn(move || [1, 2].map(|item| producer.try_push(Box::new(item)).is_ok()));
        let mut taken: Vec<_> = (0..2).filter_map(|_| consumer.try_pop().ok()).collect();
        let given = giver.join().unwrap();
        taken.extend(consumer.try_pop());
        assert_eq!(taken.len(), given.iter().filter(|ok| **ok).count());
        assert_eq!(*taken[0], 1);
        assert_eq!(consumer.try_pop(), Err(PopError::Closed));
    });
}
