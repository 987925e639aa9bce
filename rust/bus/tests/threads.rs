//! Many publishers, many consumers, tasks: nothing lost, nothing twice, nobody left asleep.
#![allow(clippy::unwrap_used, reason = "an assertion, also in helpers")]
mod common;

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

use common::{
    NEVER, after_ms, block_on, eventually, message, named, now, number, numbered, numbers, pattern,
    soon, space, texts,
};
use dwk_base::codes;
use dwk_bus::{Options, Policy};

const PUBLISHERS: u32 = 3;
const EACH: u32 = 5000;

/// Every number of every publisher, once, and from each publisher in order.
fn check(mut got: Vec<Vec<u32>>) {
    for one in &got {
        for publisher in 0..PUBLISHERS {
            let mine = one.iter().filter(|number| **number % PUBLISHERS == publisher);
            assert!(mine.is_sorted(), "publisher {publisher} is out of order");
        }
    }
    let mut all: Vec<u32> = got.drain(..).flatten().collect();
    all.sort_unstable();
    assert!(all.windows(2).all(|pair| pair[0] < pair[1]), "something came twice");
    assert_eq!(all.len() as u32, PUBLISHERS * EACH, "something is lost");
}

fn run(options: impl Fn() -> Options, consumers: usize, batched: bool) {
    let space = space();
    let subscription = space.subscribe(pattern("a"), options()).unwrap();
    let got = thread::scope(|scope| {
        let consume = |batch: usize| {
            let mut got = vec![];
            let mut into = vec![];
            loop {
                let outcome = if batch == 0 {
                    subscription.next(&NEVER).map(|delivery| into.extend(delivery))
                } else {
                    subscription.next_many(&mut into, batch, &NEVER).map(drop)
                };
                if let Err(error) = outcome {
                    assert!(error.is(&codes::BUS_CLOSED));
                    return got;
                }
                got.extend(into.drain(..).map(|delivery| number(delivery.data())));
            }
        };
        let consumers: Vec<_> = (0..consumers)
            .map(|n| scope.spawn(move || consume(if n % 2 == 0 { 0 } else { 7 })))
            .collect();
        let publishers: Vec<_> = (0..PUBLISHERS)
            .map(|publisher| {
                let space = &space;
                let numbers = (0..EACH).map(move |n| n * PUBLISHERS + publisher);
                scope.spawn(move || {
                    if batched {
                        for chunk in numbers.collect::<Vec<_>>().chunks(50) {
                            let batch = chunk.iter().map(|n| numbered("a", *n)).collect();
                            space.publish_many(batch, &NEVER).unwrap();
                        }
                    } else {
                        for n in numbers {
                            space.publish(numbered("a", n), &NEVER).unwrap();
                        }
                    }
                })
            })
            .collect();
        for publisher in publishers {
            publisher.join().unwrap();
        }
        subscription.close();
        consumers.into_iter().map(|consumer| consumer.join().unwrap()).collect()
    });
    check(got);
}

#[test]
fn nothing_is_lost_or_twice_among_publishers_that_block_and_many_consumers() {
    for (messages_max, batched) in [(1, false), (3, true), (100, false), (100, true)] {
        for consumers in [1, 4] {
            run(|| named("a", Policy::Block, messages_max), consumers, batched);
        }
    }
}

#[test]
fn nothing_is_lost_when_bytes_are_the_limit() {
    run(|| Options { bytes_max: 2000, ..named("a", Policy::Block, 1000) }, 2, true);
}

#[test]
fn whoever_takes_ahead_does_not_starve_others_that_wait() {
    let space = space();
    let subscription = space.subscribe(pattern("a"), Options::default()).unwrap();
    let waiting = AtomicUsize::new(0);
    thread::scope(|scope| {
        let holders: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    waiting.fetch_add(1, Ordering::SeqCst);
                    let delivery = subscription.next(&soon()).unwrap();
                    assert!(delivery.is_some(), "it slept beside a message");
                    // Nobody takes a second one.
                })
            })
            .collect();
        eventually("all are there", || waiting.load(Ordering::SeqCst) == 4);
        thread::sleep(Duration::from_millis(20));
        space.publish_many((0..4).map(|n| numbered("a", n)).collect(), &now()).unwrap();
        for holder in holders {
            holder.join().unwrap();
        }
    });
}

#[test]
fn a_wait_ends_with_its_deadline_and_loses_no_message() {
    let space = space();
    let subscription = space.subscribe(pattern("a"), Options::default()).unwrap();
    let start = Instant::now();
    assert!(subscription.next(&after_ms(30)).unwrap().is_none());
    assert_eq!(subscription.next_many(&mut vec![], 5, &after_ms(10)).unwrap(), 0);
    assert!(start.elapsed() >= Duration::from_millis(40));
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let consumer = scope.spawn(|| {
            let mut got = vec![];
            while !stop.load(Ordering::SeqCst) || subscription.stats().depth > 0 {
                let delivery = subscription.next(&after_ms(1)).unwrap();
                got.extend(delivery.map(|delivery| number(delivery.data())));
            }
            got
        });
        for number in 0..300 {
            space.publish(numbered("a", number), &now()).unwrap();
            thread::sleep(Duration::from_micros(u64::from(number % 7) * 300));
        }
        stop.store(true, Ordering::SeqCst);
        assert_eq!(consumer.join().unwrap(), (0..300).collect::<Vec<_>>());
    });
}

#[test]
fn tasks_get_every_message_and_the_end() {
    let space = space();
    let subscription = space.subscribe(pattern("a"), named("a", Policy::Block, 5)).unwrap();
    let got = thread::scope(|scope| {
        let tasks: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(|| {
                    let mut got = vec![];
                    block_on(async {
                        while let Ok(delivery) = subscription.next_async().await {
                            got.push(number(delivery.data()));
                        }
                    });
                    got
                })
            })
            .collect();
        for n in 0..PUBLISHERS * EACH {
            space.publish(numbered("a", n), &NEVER).unwrap();
        }
        subscription.close();
        tasks.into_iter().map(|task| task.join().unwrap()).collect()
    });
    check(got);
}

#[test]
fn a_message_survives_a_cancelled_wait() {
    let space = space();
    let subscription = space.subscribe(pattern("a"), Options::default()).unwrap();
    let mut context = Context::from_waker(Waker::noop());
    for number in 0..200 {
        {
            let mut cancelled = pin!(subscription.next_async());
            assert!(cancelled.as_mut().poll(&mut context).is_pending());
        }
        space.publish(numbered("a", number), &now()).unwrap();
        let mut next = pin!(subscription.next_async());
        let Poll::Ready(Ok(delivery)) = next.as_mut().poll(&mut context) else { panic!("lost") };
        assert_eq!(common::number(delivery.data()), number);
    }
}

#[test]
fn tasks_that_wait_in_great_number_are_all_woken_in_the_end() {
    let space = Arc::new(space());
    let subscription = Arc::new(space.subscribe(pattern("a"), Options::default()).unwrap());
    let got = Arc::new(AtomicUsize::new(0));
    let threads: Vec<_> = (0..80)
        .map(|_| {
            let (subscription, got) = (Arc::clone(&subscription), Arc::clone(&got));
            thread::spawn(move || {
                block_on(poll_fn(|context| subscription.poll_next(context))).unwrap();
                got.fetch_add(1, Ordering::SeqCst);
            })
        })
        .collect();
    thread::sleep(Duration::from_millis(20));
    for _ in 0..80 {
        space.publish(message("a", "x"), &now()).unwrap();
    }
    eventually("each has one", || got.load(Ordering::SeqCst) == 80);
    for thread in threads {
        thread.join().unwrap();
    }
    assert!(texts(&subscription).is_empty());
}

#[test]
fn subscribers_come_and_go_while_others_publish() {
    let space = space();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !stop.load(Ordering::SeqCst) {
                    space.publish(numbered("a.b", 1), &NEVER).unwrap();
                }
            });
        }
        for round in 0..300 {
            let about = ["a.*", "a.b", ">"][round % 3];
            let options = named("short", Policy::Block, 3);
            let subscription = space.subscribe(pattern(about), options).unwrap();
            assert!(subscription.next(&soon()).unwrap().is_some(), "{about} hears nothing");
        }
        stop.store(true, Ordering::SeqCst);
    });
    assert_eq!(space.publish(numbered("a.b", 1), &now()).unwrap().matched, 0);
}

#[test]
fn what_is_taken_ahead_stays_small_beside_the_limit() {
    let space = space();
    for (messages_max, ahead) in [(1, 1), (8, 1), (80, 10), (10_000, 64)] {
        let options = named("a", Policy::DropNewest, messages_max);
        let subscription = space.subscribe(pattern("a"), options).unwrap();
        let total = messages_max as u32 + 200;
        for n in 0..messages_max as u32 {
            space.publish(numbered("a", n), &now()).unwrap();
        }
        drop(subscription.next(&now()).unwrap());
        for n in messages_max as u32..total {
            space.publish(numbered("a", n), &now()).unwrap();
        }
        assert_eq!(subscription.stats().depth, messages_max + ahead - 1);
        assert_eq!(numbers(&subscription).len(), messages_max + ahead - 1);
    }
}
