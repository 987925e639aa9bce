//! What a queue promises, with real threads.
#![cfg(not(any(feature = "loom", feature = "shuttle")))]
#![allow(clippy::unwrap_used, reason = "a test that fails should stop")]

use std::collections::{HashSet, VecDeque};
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::Duration;

use dwk_base::{Deadline, SystemClock, codes};
use dwk_queue::{CAPACITY_MAX, LANES_MAX, Options, PopError, PushError, Queue, Ring};
use proptest::prelude::*;

fn within(limit_ms: u64) -> Deadline {
    Deadline::after(Arc::new(SystemClock::default()), Duration::from_millis(limit_ms))
}

/// Long enough that only a lost wake-up takes as long.
fn patience() -> Deadline {
    within(20_000)
}

#[derive(Clone, Debug)]
enum Step {
    Push,
    Pop,
    PushMany(usize),
    PopMany(usize),
    Close,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => Just(Step::Push),
        8 => Just(Step::Pop),
        4 => (0..20_usize).prop_map(Step::PushMany),
        4 => (0..20_usize).prop_map(Step::PopMany),
        1 => Just(Step::Close),
    ]
}

proptest! {
    #[test]
    fn one_thread_sees_what_a_list_would_do(
        capacity in 1..12_usize,
        alone: bool,
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let queue = Queue::new(capacity).unwrap();
        let (mut model, mut closed, mut next) = (VecDeque::new(), false, 0);
        for step in steps {
            match step {
                Step::Push => {
                    let expected = match (closed, model.len() < capacity) {
                        (true, _) => Err(PushError::Closed(next)),
                        (false, true) => { model.push_back(next); Ok(()) }
                        (false, false) => Err(PushError::Full(next)),
                    };
                    // SAFETY: there is one thread.
                    #[allow(unsafe_code, reason = "nobody else is there")]
                    let outcome = if alone { unsafe { queue.try_push_alone_to(0, next) } } else { queue.try_push(next) };
                    prop_assert_eq!(outcome, expected);
                    next += 1;
                }
                Step::Pop => {
                    let nothing = if closed { PopError::Closed } else { PopError::Empty };
                    // SAFETY: there is one thread.
                    #[allow(unsafe_code, reason = "nobody else is there")]
                    let outcome = if alone { unsafe { queue.try_pop_alone() } } else { queue.try_pop() };
                    prop_assert_eq!(outcome, model.pop_front().ok_or(nothing));
                }
                Step::PushMany(count) => {
                    let mut items = (next..next + count).collect::<Vec<_>>().into_iter();
                    let room = if closed { 0 } else { capacity - model.len() };
                    model.extend(next..next + count.min(room));
                    // SAFETY: there is one thread.
                    #[allow(unsafe_code, reason = "nobody else is there")]
                    let outcome = if alone { unsafe { queue.try_push_many_alone(0, &mut items) } } else { queue.try_push_many(0, &mut items) };
                    if closed {
                        prop_assert_eq!(outcome, Err(PushError::Closed(())));
                    } else {
                        prop_assert_eq!(outcome, Ok(count.min(room)));
                        prop_assert_eq!(items.as_slice(), (next + count.min(room)..next + count).collect::<Vec<_>>());
                    }
                    next += count;
                }
                Step::PopMany(limit) => {
                    let mut taken = vec![usize::MAX];
                    // SAFETY: there is one thread.
                    #[allow(unsafe_code, reason = "nobody else is there")]
                    let outcome = if alone { unsafe { queue.try_pop_many_alone(&mut taken, limit) } } else { queue.try_pop_many(&mut taken, limit) };
                    let expected: Vec<_> = model.drain(..limit.min(model.len())).collect();
                    if closed && expected.is_empty() && limit > 0 {
                        prop_assert_eq!(outcome, Err(PopError::Closed));
                    } else {
                        prop_assert_eq!(outcome, Ok(expected.len()));
                    }
                    prop_assert_eq!(&taken[1..], expected);
                }
                Step::Close => {
                    prop_assert_eq!(queue.close(), !closed);
                    closed = true;
                }
            }
            prop_assert_eq!(queue.len(), model.len());
            let stats = queue.stats();
            prop_assert_eq!(stats.puts - stats.gets, model.len());
            let mut seen = Vec::new();
            // SAFETY: there is one thread.
            #[allow(unsafe_code, reason = "nobody else is there")]
            unsafe { queue.for_each(|item| seen.push(*item)) };
            prop_assert_eq!(seen, model.iter().copied().collect::<Vec<_>>());
        }
    }
}

/// Producers put numbers that say who they are; returns what each consumer took, in its order.
fn exchange(
    queue: &Queue<usize>,
    (producers, consumers): (usize, usize),
    put: impl Fn(&Queue<usize>, Vec<usize>) + Sync,
    get: impl Fn(&Queue<usize>, &mut Vec<usize>) -> Result<(), PopError> + Sync,
) -> Vec<Vec<usize>> {
    thread::scope(|scope| {
        let (put, get) = (&put, &get);
        let takers: Vec<_> = (0..consumers)
            .map(|_| {
                scope.spawn(move || {
                    let mut taken = Vec::new();
                    while get(queue, &mut taken).is_ok() {}
                    taken
                })
            })
            .collect();
        let givers: Vec<_> = (0..producers)
            .map(|who| scope.spawn(move || put(queue, (0..EACH).map(|n| who * EACH + n).collect())))
            .collect();
        for giver in givers {
            giver.join().unwrap();
        }
        queue.close();
        takers.into_iter().map(|taker| taker.join().unwrap()).collect()
    })
}

const EACH: usize = if cfg!(miri) { 60 } else { 20_000 };

fn check_nothing_lost_or_doubled_and_in_order(taken: &[Vec<usize>], producers: usize) {
    let all: Vec<_> = taken.iter().flatten().copied().collect();
    assert_eq!(all.len(), producers * EACH);
    assert_eq!(all.iter().collect::<HashSet<_>>().len(), all.len());
    for mine in taken {
        for who in 0..producers {
            let from: Vec<_> = mine.iter().filter(|item| *item / EACH == who).collect();
            assert!(from.windows(2).all(|pair| pair[0] < pair[1]), "items of {who} changed places");
        }
    }
}

#[test]
fn many_threads_lose_nothing_and_keep_each_producers_order() {
    for capacity in [1, 2, 3, 64] {
        let queue = Queue::new(capacity).unwrap();
        let put = |queue: &Queue<usize>, items: Vec<usize>| {
            for item in items {
                queue.push(item, &patience()).unwrap();
            }
        };
        let get = |queue: &Queue<usize>, taken: &mut Vec<usize>| {
            queue.pop(&patience()).map(|item| taken.push(item))
        };
        check_nothing_lost_or_doubled_and_in_order(&exchange(&queue, (3, 3), put, get), 3);
    }
}

#[test]
fn batches_of_many_threads_lose_nothing_and_keep_each_producers_order() {
    for capacity in [1, 5, 64, 100] {
        let queue = Queue::new(capacity).unwrap();
        let put = |queue: &Queue<usize>, items: Vec<usize>| {
            for part in items.chunks(37) {
                queue.push_many(0, &mut owned(part), &patience()).unwrap();
            }
        };
        let get = |queue: &Queue<usize>, taken: &mut Vec<usize>| {
            let before = taken.len();
            let count = queue.pop_many(taken, 23, &patience())?;
            assert!((1..=23).contains(&count) && taken.len() == before + count);
            Ok(())
        };
        check_nothing_lost_or_doubled_and_in_order(&exchange(&queue, (3, 2), put, get), 3);
    }
}

#[test]
fn batches_and_single_items_mix() {
    let queue = Queue::new(16).unwrap();
    let turn = AtomicUsize::new(0);
    let put = |queue: &Queue<usize>, items: Vec<usize>| {
        for part in items.chunks(9) {
            if turn.fetch_add(1, Ordering::Relaxed).is_multiple_of(2) {
                for item in part {
                    queue.push(*item, &patience()).unwrap();
                }
            } else {
                queue.push_many(0, &mut owned(part), &patience()).unwrap();
            }
        }
    };
    let get = |queue: &Queue<usize>, taken: &mut Vec<usize>| {
        if turn.fetch_add(1, Ordering::Relaxed).is_multiple_of(2) {
            queue.pop(&patience()).map(|item| taken.push(item))
        } else {
            queue.pop_many(taken, 5, &patience()).map(|_| ())
        }
    };
    check_nothing_lost_or_doubled_and_in_order(&exchange(&queue, (2, 2), put, get), 2);
}

#[test]
fn waits_end_with_their_deadline_and_the_item_comes_back() {
    let queue = Queue::new(1).unwrap();
    assert_eq!(queue.pop(&within(20)), Err(PopError::TimedOut));
    queue.try_push(1).unwrap();
    assert_eq!(queue.push(2, &within(20)), Err(PushError::TimedOut(2)));
    let mut rest = vec![3, 4].into_iter();
    assert_eq!(queue.push_many(0, &mut rest, &within(20)), Err(PushError::TimedOut(())));
    assert_eq!(rest.as_slice(), [3, 4]);
    let stats = queue.stats();
    assert_eq!((stats.put_waits, stats.get_waits, stats.putters, stats.getters), (2, 1, 0, 0));
}

#[test]
fn a_batch_that_times_out_says_what_is_left() {
    let queue = Queue::new(2).unwrap();
    let mut items = vec![1, 2, 3].into_iter();
    assert_eq!(queue.push_many(0, &mut items, &within(20)), Err(PushError::TimedOut(())));
    assert_eq!(items.as_slice(), [3]);
    assert_eq!((queue.try_pop(), queue.try_pop()), (Ok(1), Ok(2)));
}

#[test]
fn closing_wakes_everybody_and_what_is_in_it_comes_out() {
    let queue = Queue::<usize>::new(1).unwrap();
    thread::scope(|scope| {
        let getters: Vec<_> = (0..3).map(|_| scope.spawn(|| queue.pop(&patience()))).collect();
        while queue.stats().getters < 3 {
            thread::yield_now();
        }
        queue.close();
        for getter in getters {
            assert_eq!(getter.join().unwrap(), Err(PopError::Closed));
        }
    });
    let queue = Queue::new(1).unwrap();
    queue.try_push(0).unwrap();
    thread::scope(|scope| {
        let putters: Vec<_> = (1..4)
            .map(|item| {
                scope.spawn({
                    let queue = &queue;
                    move || queue.push(item, &patience())
                })
            })
            .collect();
        while queue.stats().putters < 3 {
            thread::yield_now();
        }
        queue.close();
        for (item, putter) in (1..4).zip(putters) {
            assert_eq!(putter.join().unwrap(), Err(PushError::Closed(item)));
        }
    });
    assert_eq!((queue.try_pop(), queue.try_pop()), (Ok(0), Err(PopError::Closed)));
}

fn owned(part: &[usize]) -> std::vec::IntoIter<usize> {
    Vec::from(part).into_iter()
}

/// Counts its drops.
struct Counted<'c>(&'c AtomicUsize);

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn every_item_is_dropped_once() {
    let drops = AtomicUsize::new(0);
    let queue = Queue::new(5).unwrap();
    let mut items = (0..9).map(|_| Counted(&drops)).collect::<Vec<_>>().into_iter();
    assert_eq!(queue.try_push_many(0, &mut items), Ok(5));
    drop(items);
    drop(queue.try_pop());
    assert_eq!(drops.load(Ordering::Relaxed), 5);
    drop(queue);
    assert_eq!(drops.load(Ordering::Relaxed), 9);
}

#[test]
fn a_wake_up_that_nobody_used_goes_to_the_next() {
    let queue = Queue::new(4).unwrap();
    let mut first = queue.turn_to_get(1);
    first.enroll();
    thread::scope(|scope| {
        let second = scope.spawn(|| queue.pop(&patience()));
        while queue.stats().getters < 2 {
            thread::yield_now();
        }
        // The first in the line is told, and gives up.
        queue.try_push(7).unwrap();
        drop(first);
        assert_eq!(second.join().unwrap(), Ok(7));
    });
}

#[test]
fn a_wake_up_is_passed_on_also_by_one_who_went_back_into_the_line() {
    let queue = Queue::new(4).unwrap();
    let mut first = queue.turn_to_get(1);
    first.enroll();
    thread::scope(|scope| {
        let second = scope.spawn(|| queue.pop(&patience()));
        while queue.stats().getters < 2 {
            thread::yield_now();
        }
        queue.try_push(7).unwrap();
        first.enroll();
        drop(first);
        assert_eq!(second.join().unwrap(), Ok(7));
    });
}

#[test]
fn one_batch_wakes_as_many_as_would_take_it() {
    let queue = Queue::new(64).unwrap();
    let mut turns: Vec<_> = [3, 3, 1].map(|wants| queue.turn_to_get(wants)).into();
    turns.iter_mut().for_each(dwk_queue::Turn::enroll);
    queue.try_push_many(0, &mut vec![1, 2, 3, 4].into_iter()).unwrap();
    assert_eq!(queue.stats().getters, 1, "three for the first, one for the second");
}

struct Flag(AtomicUsize);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn a_dropped_future_loses_no_item_and_no_wake_up() {
    let queue = Queue::new(2).unwrap();
    let flags = [(); 2].map(|()| Arc::new(Flag(AtomicUsize::new(0))));
    let wakers = flags.clone().map(Waker::from);
    let mut second = pin!(queue.pop_async());
    {
        let mut first = pin!(queue.pop_async());
        assert_eq!(first.as_mut().poll(&mut Context::from_waker(&wakers[0])), Poll::Pending);
        assert_eq!(second.as_mut().poll(&mut Context::from_waker(&wakers[1])), Poll::Pending);
        queue.try_push(5).unwrap();
        assert_eq!([&flags[0], &flags[1]].map(|flag| flag.0.load(Ordering::SeqCst)), [1, 0]);
        // The first one was told, and is cancelled before it looks.
    }
    assert_eq!(flags[1].0.load(Ordering::SeqCst), 1);
    assert_eq!(second.as_mut().poll(&mut Context::from_waker(&wakers[1])), Poll::Ready(Ok(5)));
}

#[test]
fn a_put_that_waits_goes_on_when_there_is_room() {
    let queue = Queue::new(1).unwrap();
    queue.try_push(1).unwrap();
    let flag = Arc::new(Flag(AtomicUsize::new(0)));
    let waker = Waker::from(Arc::clone(&flag));
    let mut put = pin!(queue.push_async(0, 2));
    assert_eq!(put.as_mut().poll(&mut Context::from_waker(&waker)), Poll::Pending);
    assert_eq!(queue.try_pop(), Ok(1));
    assert_eq!(flag.0.load(Ordering::SeqCst), 1);
    assert_eq!(put.as_mut().poll(&mut Context::from_waker(&waker)), Poll::Ready(Ok(())));
    assert_eq!(queue.try_pop(), Ok(2));
}

#[test]
fn urgent_lanes_come_first_and_relief_keeps_the_others_alive() {
    let lanes = |relief| {
        let queue = Queue::with(&Options { capacity: 8, lanes: 2, relief }).unwrap();
        for item in 0..8 {
            queue.try_push_to(1, 100 + item).unwrap();
            queue.try_push_to(0, item).unwrap();
        }
        assert_eq!(queue.try_push_to(1, 0), Err(PushError::Full(0)), "a lane has room of its own");
        (0..16).map(|_| queue.try_pop().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(lanes(None), (0..8).chain(100..108).collect::<Vec<_>>());
    let relieved = lanes(std::num::NonZero::new(4));
    assert_eq!(&relieved[..8], [0, 1, 2, 100, 3, 4, 5, 101]);
}

#[test]
fn a_batch_takes_from_urgent_lanes_first() {
    let queue = Queue::with(&Options { capacity: 4, lanes: 3, relief: None }).unwrap();
    for (lane, item) in [(2, 20), (0, 0), (1, 10), (0, 1)] {
        queue.try_push_to(lane, item).unwrap();
    }
    let mut taken = Vec::new();
    assert_eq!(queue.try_pop_many(&mut taken, 3), Ok(3));
    assert_eq!(taken, [0, 1, 10]);
    queue.close();
    assert_eq!(queue.try_pop_many(&mut taken, 3), Ok(1));
    assert_eq!(queue.try_pop_many(&mut taken, 3), Err(PopError::Closed));
}

#[test]
fn a_low_lane_wakes_a_waiting_getter() {
    let queue = Queue::with(&Options { capacity: 1, lanes: 3, relief: None }).unwrap();
    thread::scope(|scope| {
        let getter = scope.spawn(|| queue.pop(&patience()));
        while queue.stats().getters < 1 {
            thread::yield_now();
        }
        queue.try_push_to(2, 9).unwrap();
        assert_eq!(getter.join().unwrap(), Ok(9));
    });
}

#[test]
fn impossible_sizes_are_refused() {
    for (capacity, lanes) in [(0, 1), (CAPACITY_MAX + 1, 1), (1, 0), (1, LANES_MAX + 1)] {
        let error = Queue::<u8>::with(&Options { capacity, lanes, relief: None }).unwrap_err();
        assert!(error.is(&codes::QUEUE_CAPACITY), "{error}");
    }
}

#[test]
#[cfg_attr(miri, ignore = "miri ends where the system would say no")]
fn a_queue_without_memory_for_it_is_refused() {
    assert!(Ring::<[u8; 1 << 40]>::new(1 << 20).is_none());
}
