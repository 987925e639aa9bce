//! Random schedules of more threads than a model checker can try out.
//!
//! `cargo test -p dwk-queue --features shuttle --test shuttle`
#![cfg(feature = "shuttle")]
#![allow(clippy::unwrap_used, reason = "a test that fails should stop")]

use std::sync::Arc;

use dwk_base::Deadline;
use dwk_queue::{Options, Queue};
use shuttle::sync::Mutex;
use shuttle::thread;

/// Schedules per scene; a scene that hangs is reported with the schedule that leads there.
const SCHEDULES: usize = 3_000;

#[test]
fn nothing_is_lost_between_sleepers() {
    for capacity in [1, 2] {
        shuttle::check_pct(move || singles(capacity), SCHEDULES, 4);
        shuttle::check_random(move || singles(capacity), SCHEDULES);
    }
}

fn singles(capacity: usize) {
    let queue = Arc::new(Queue::new(capacity).unwrap());
    let taken = Arc::new(Mutex::new(Vec::new()));
    let getters: Vec<_> = (0..3)
        .map(|_| {
            let (queue, taken) = (Arc::clone(&queue), Arc::clone(&taken));
            thread::spawn(move || {
                while let Ok(item) = queue.pop(&Deadline::never()) {
                    taken.lock().unwrap().push(item);
                }
            })
        })
        .collect();
    let putters: Vec<_> = (0..3)
        .map(|who| {
            let queue = Arc::clone(&queue);
            thread::spawn(move || {
                for item in 0..3 {
                    queue.push(who * 3 + item, &Deadline::never()).unwrap();
                }
            })
        })
        .collect();
    finish(&queue, putters, getters, &taken, 9);
}

#[test]
fn batches_in_lanes_lose_nothing_while_somebody_gives_up() {
    shuttle::check_pct(lanes, SCHEDULES, 4);
    shuttle::check_random(lanes, SCHEDULES);
}

fn lanes() {
    let queue = Arc::new(Queue::with(&Options { capacity: 2, lanes: 2, relief: None }).unwrap());
    let taken = Arc::new(Mutex::new(Vec::new()));
    let mut getters: Vec<_> = (0..2)
        .map(|_| {
            let (queue, taken) = (Arc::clone(&queue), Arc::clone(&taken));
            thread::spawn(move || {
                let mut into = Vec::new();
                while queue.pop_many(&mut into, 3, &Deadline::never()).is_ok() {
                    taken.lock().unwrap().append(&mut into);
                }
            })
        })
        .collect();
    let other = Arc::clone(&queue);
    getters.push(thread::spawn(move || {
        let mut turn = other.turn_to_get(2);
        turn.enroll();
        thread::yield_now();
    }));
    let putters: Vec<_> = (0..2)
        .map(|who| {
            let queue = Arc::clone(&queue);
            thread::spawn(move || {
                let mut items = vec![who * 5, who * 5 + 1, who * 5 + 2, who * 5 + 3].into_iter();
                queue.push_many(who, &mut items, &Deadline::never()).unwrap();
                queue.push_to(1 - who, who * 5 + 4, &Deadline::never()).unwrap();
            })
        })
        .collect();
    finish(&queue, putters, getters, &taken, 10);
}

fn finish(
    queue: &Queue<usize>,
    putters: Vec<thread::JoinHandle<()>>,
    getters: Vec<thread::JoinHandle<()>>,
    taken: &Mutex<Vec<usize>>,
    count: usize,
) {
    for putter in putters {
        putter.join().unwrap();
    }
    queue.close();
    for getter in getters {
        getter.join().unwrap();
    }
    let mut taken = taken.lock().unwrap();
    taken.sort_unstable();
    assert_eq!(*taken, (0..count).collect::<Vec<_>>());
}
