//! Items per second through a queue of 1,024, beside crossbeam's `ArrayQueue`.
//!
//! What limits it: with one producer and one consumer the transfer of cache lines between two cores; with
//! more threads than cores also the scheduler. Runs of both sides alternate; printed are medians and the
//! ratio's quartiles. Arguments: how many rounds (11).

#![allow(clippy::unwrap_used, reason = "a bench that fails should stop")]
#![allow(clippy::print_stdout, reason = "a bench prints")]

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_queue::ArrayQueue;
use dwk_base::Deadline;
use dwk_queue::{Queue, Ring, spsc};
use rustix::thread::{CpuSet, sched_setaffinity};

static CAPACITY: AtomicUsize = AtomicUsize::new(1024);
const ITEMS: usize = 2_000_000;
const BATCH: usize = 64;

/// Runs producers and consumers that share `queue` until `ITEMS` went through.
fn through<Q: Sync>(
    queue: &Q,
    pairs: usize,
    put: impl Fn(&Q, usize) + Sync,
    get: impl Fn(&Q) -> usize + Sync,
) -> Duration {
    let taken = AtomicUsize::new(0);
    let start = Instant::now();
    thread::scope(|scope| {
        let (put, get, taken) = (&put, &get, &taken);
        for index in 0..pairs {
            scope.spawn(move || {
                pin(index);
                put(queue, ITEMS / pairs);
            });
            scope.spawn(move || {
                pin(index + 1);
                let mut mine = 0;
                // One counter for all would be measured as well: each asks for its share.
                while mine < ITEMS / pairs {
                    mine += get(queue);
                }
                taken.fetch_add(mine, Relaxed);
            });
        }
    });
    assert!(taken.load(Relaxed) >= ITEMS / pairs * pairs);
    start.elapsed()
}

fn array_queue(pairs: usize) -> Duration {
    let queue = ArrayQueue::new(CAPACITY.load(Relaxed));
    let put = |queue: &ArrayQueue<usize>, count| {
        for item in 0..count {
            while queue.push(item).is_err() {
                thread::yield_now();
            }
        }
    };
    let get = |queue: &ArrayQueue<usize>| queue.pop().map_or_else(|| gave_way(0), |_| 1);
    through(&queue, pairs, put, get)
}

fn ring(pairs: usize) -> Duration {
    let queue = Ring::new(CAPACITY.load(Relaxed)).unwrap();
    let put = |queue: &Ring<usize>, count| {
        for item in 0..count {
            while queue.try_push(item).is_err() {
                thread::yield_now();
            }
        }
    };
    let get = |queue: &Ring<usize>| queue.try_pop().map_or_else(|_| gave_way(0), |_| 1);
    through(&queue, pairs, put, get)
}

fn queue(pairs: usize) -> Duration {
    let queue = Queue::new(CAPACITY.load(Relaxed)).unwrap();
    let put = |queue: &Queue<usize>, count| {
        for item in 0..count {
            while queue.try_push(item).is_err() {
                thread::yield_now();
            }
        }
    };
    let get = |queue: &Queue<usize>| queue.try_pop().map_or_else(|_| gave_way(0), |_| 1);
    through(&queue, pairs, put, get)
}

fn queue_blocking(pairs: usize) -> Duration {
    let queue = Queue::new(CAPACITY.load(Relaxed)).unwrap();
    let put = |queue: &Queue<usize>, count| {
        for item in 0..count {
            queue.push(item, &Deadline::never()).unwrap();
        }
    };
    let get = |queue: &Queue<usize>| queue.pop(&Deadline::never()).map_or(0, |_| 1);
    through(&queue, pairs, put, get)
}

fn queue_batches(pairs: usize) -> Duration {
    let queue = Queue::new(CAPACITY.load(Relaxed)).unwrap();
    let put = |queue: &Queue<usize>, count: usize| {
        for start in (0..count).step_by(BATCH) {
            let items: Vec<usize> = (start..count.min(start + BATCH)).collect();
            let mut items = items.into_iter();
            while queue.try_push_many(0, &mut items).is_ok() && items.len() > 0 {
                thread::yield_now();
            }
        }
    };
    // Each consumer would have to stop at its share exactly: the last batch may not take another's.
    let taken = AtomicUsize::new(0);
    let get = |queue: &Queue<usize>| {
        let mut into = Vec::with_capacity(BATCH);
        let count = queue.try_pop_many(&mut into, BATCH).unwrap();
        if count == 0 {
            if taken.load(Relaxed) == ITEMS / pairs * pairs {
                return ITEMS;
            }
            return gave_way(0);
        }
        taken.fetch_add(count, Relaxed);
        0
    };
    through(&queue, pairs, put, get)
}

fn spsc_single(_: usize) -> Duration {
    let (mut producer, mut consumer) = spsc::queue(CAPACITY.load(Relaxed)).unwrap();
    let start = Instant::now();
    thread::scope(|scope| {
        scope.spawn(move || {
            pin(0);
            for item in 0..ITEMS {
                while producer.try_push(item).is_err() {
                    thread::yield_now();
                }
            }
        });
        scope.spawn(move || {
            pin(1);
            let mut taken = 0;
            while taken < ITEMS {
                taken += consumer.try_pop().map_or_else(|_| gave_way(0), |_| 1);
            }
        });
    });
    start.elapsed()
}

/// Keeps this thread on one of two processors: a pair stands on both, else the scheduler's choice is measured.
fn pin(index: usize) {
    let mut set = CpuSet::new();
    set.set(index % 2);
    sched_setaffinity(None, &set).unwrap();
}

fn gave_way(count: usize) -> usize {
    thread::yield_now();
    count
}

type Run = fn(usize) -> Duration;

fn main() {
    let argument = |index| std::env::args().nth(index).and_then(|text| text.parse().ok());
    let rounds = argument(1).unwrap_or(11);
    CAPACITY.store(argument(2).unwrap_or(1024), Relaxed);
    let ours: [(&str, Run, &[usize]); 5] = [
        ("ring", ring, &[1, 4]),
        ("queue", queue, &[1, 4]),
        ("queue, blocking", queue_blocking, &[1, 4]),
        ("queue, batches of 64", queue_batches, &[1, 4]),
        ("spsc", spsc_single, &[1]),
    ];
    for (name, run, pairs) in ours {
        for &pairs in pairs {
            duel(name, run, pairs, rounds);
        }
    }
}

fn duel(name: &str, run: Run, pairs: usize, rounds: usize) {
    let (mut theirs, mut mine, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        let (a, b) = (array_queue(pairs).as_secs_f64(), run(pairs).as_secs_f64());
        theirs.push(a);
        mine.push(b);
        ratios.push(a / b);
    }
    let rate = |times: &mut Vec<f64>| ITEMS as f64 / quantile(times, 0.5) / 1e6;
    println!(
        "{name:24} {pairs}P{pairs}C  {:6.1} M/s  ArrayQueue {:6.1} M/s  ratio {:.2} ({:.2} to {:.2})",
        rate(&mut mine),
        rate(&mut theirs),
        quantile(&mut ratios, 0.5),
        quantile(&mut ratios, 0.25),
        quantile(&mut ratios, 0.75),
    );
}

fn quantile(values: &mut [f64], at: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    values[((values.len() - 1) as f64 * at).round() as usize]
}
