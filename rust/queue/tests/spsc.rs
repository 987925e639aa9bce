//! One producer, one consumer.
#![cfg(not(any(feature = "loom", feature = "shuttle")))]
#![allow(clippy::unwrap_used, reason = "a test that fails should stop")]

use std::collections::VecDeque;
use std::thread;

use dwk_queue::{PopError, PushError, spsc};
use proptest::prelude::*;

proptest! {
    #[test]
    fn ends_see_what_a_list_would_do(capacity in 1..12_usize, steps in prop::collection::vec((0..4_u8, 0..9_usize), 1..100)) {
        let (mut producer, mut consumer) = spsc::queue(capacity).unwrap();
        let (mut model, mut next) = (VecDeque::new(), 0);
        for (step, count) in steps {
            match step {
                0 => {
                    let fits = model.len() < capacity;
                    prop_assert_eq!(producer.try_push(next), if fits { Ok(()) } else { Err(PushError::Full(next)) });
                    if fits { model.push_back(next) }
                    next += 1;
                }
                1 => prop_assert_eq!(consumer.try_pop(), model.pop_front().ok_or(PopError::Empty)),
                2 => {
                    let room = count.min(capacity - model.len());
                    let mut items = (next..next + count).collect::<Vec<_>>().into_iter();
                    prop_assert_eq!(producer.try_push_many(&mut items), Ok(room));
                    model.extend(next..next + room);
                    next += count;
                }
                _ => {
                    let mut taken = Vec::new();
                    let there = count.min(model.len());
                    prop_assert_eq!(consumer.try_pop_many(&mut taken, count), Ok(there));
                    prop_assert_eq!(taken, model.drain(..there).collect::<Vec<_>>());
                }
            }
        }
    }
}

#[test]
fn every_item_arrives_in_order_and_the_end_is_seen() {
    let count = if cfg!(miri) { 200 } else { 200_000 };
    for capacity in [1, 3, 128] {
        let (mut producer, mut consumer) = spsc::queue(capacity).unwrap();
        let giver = thread::spawn(move || {
            for item in 0..count {
                while producer.try_push(item).is_err() {
                    thread::yield_now();
                }
            }
        });
        let mut expected = 0;
        loop {
            match consumer.try_pop() {
                Ok(item) => {
                    assert_eq!(item, expected);
                    expected += 1;
                }
                Err(PopError::Closed) => break,
                Err(_) => thread::yield_now(),
            }
        }
        assert_eq!(expected, count);
        giver.join().unwrap();
    }
}

#[test]
fn a_producer_learns_that_the_consumer_is_gone_and_nothing_leaks() {
    let (mut producer, consumer) = spsc::queue(2).unwrap();
    producer.try_push(vec![1]).unwrap();
    drop(consumer);
    assert!(producer.is_closed());
    producer.try_push(vec![2]).unwrap();
    assert_eq!(producer.try_push(vec![3]), Err(PushError::Closed(vec![3])));
    assert!(spsc::queue::<u8>(0).is_none());
}
