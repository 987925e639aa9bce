//! Small messages from a publisher's thread to a subscriber's, one by one and in batches; many subscribers;
//! requests; and the same envelopes through the lock-free queue, which knows nothing of bytes or policies.
//!
//! What limits it: an envelope is allocated on one core and freed on another, which costs more than
//! everything else together; and, one by one, waking whoever sleeps. Each figure is the median of some
//! rounds, which are interleaved, because the machine is seldom alone. Run with `cargo bench -p dwk-bus`;
//! `DWK_BENCH_ROUNDS` says how many rounds, `DWK_BENCH_MESSAGES` how many messages in each,
//! `DWK_BENCH_ONLY` which cases, by a part of their name.
#![allow(clippy::unwrap_used, reason = "a bench that fails has nothing to say")]

use std::sync::Arc;
use std::thread;
use std::time::Instant;

use bytes::Bytes;
use dwk_base::{Deadline, Seams};
use dwk_bus::Subscription;
use dwk_bus::{
    Bus, Envelope, Filter, Limits, Message, Options, Pattern, ServeOptions, Space, Subject,
};
use dwk_queue::Queue;

const NEVER: Deadline = Deadline::never();
const BATCH: usize = 64;

fn space() -> Space {
    let seams = Seams::system();
    Bus::new(seams.clock, seams.random, Limits::default()).space("").unwrap()
}

fn subscribe(space: &Space, filter: Option<&str>) -> Subscription {
    let filter = filter.map(|text| Filter::new(text).unwrap());
    let options = Options { filter, messages_max: 8192, ..Options::default() };
    space.subscribe(Pattern::new("sensors.*.temp").unwrap(), options).unwrap()
}

fn message(subject: &Subject) -> Message {
    Message::new(subject.clone(), Bytes::from_static(b"21.5"))
}

fn subject() -> Subject {
    Subject::new("sensors.a.temp").unwrap()
}

fn publish_singly(space: &Space, count: usize) {
    let subject = subject();
    for _ in 0..count {
        space.publish(message(&subject), &NEVER).unwrap();
    }
}

fn publish_batches(space: &Space, count: usize) {
    let subject = subject();
    for _ in 0..count / BATCH {
        let batch = (0..BATCH).map(|_| message(&subject)).collect();
        space.publish_many(batch, &NEVER).unwrap();
    }
}

fn receive_singly(subscription: &Subscription, count: usize) {
    for _ in 0..count {
        drop(subscription.next(&NEVER).unwrap());
    }
}

fn receive_batches(subscription: &Subscription, count: usize) {
    let (mut got, mut into) = (0, Vec::with_capacity(256));
    while got < count {
        got += subscription.next_many(&mut into, 256, &NEVER).unwrap();
        into.clear();
    }
}

/// Deliveries per second, with a subscriber's thread for each subscription.
fn flow(
    subscribers: usize,
    filter: Option<&str>,
    count: usize,
    publish: fn(&Space, usize),
    receive: fn(&Subscription, usize),
) -> f64 {
    let space = space();
    let all: Vec<_> = (0..subscribers).map(|_| subscribe(&space, filter)).collect();
    let start = Instant::now();
    thread::scope(|scope| {
        for subscription in &all {
            scope.spawn(move || receive(subscription, count));
        }
        publish(&space, count);
    });
    (count * subscribers) as f64 / start.elapsed().as_secs_f64()
}

/// Messages per second that nobody is there for, or that wait without being taken: the publisher alone.
fn publisher_alone(subscribers: usize, count: usize) -> f64 {
    let space = space();
    let options =
        || Options { messages_max: count + 1, bytes_max: usize::MAX, ..Options::default() };
    let pattern = || Pattern::new("sensors.>").unwrap();
    let all: Vec<_> =
        (0..subscribers).map(|_| space.subscribe(pattern(), options()).unwrap()).collect();
    let start = Instant::now();
    publish_singly(&space, count);
    let rate = count as f64 / start.elapsed().as_secs_f64();
    drop(all);
    rate
}

fn requests(count: usize) -> f64 {
    let space = space();
    let options = Options::default();
    let subscription = space.subscribe(Pattern::new("svc.echo").unwrap(), options).unwrap();
    let echo = |envelope: &Envelope| Ok(Some(envelope.data().clone()));
    let service = subscription.serve(echo, &ServeOptions::default()).unwrap();
    let subject = Subject::new("svc.echo").unwrap();
    let start = Instant::now();
    for _ in 0..count {
        space.request(message(&subject), &NEVER).unwrap();
    }
    let rate = count as f64 / start.elapsed().as_secs_f64();
    service.close(&NEVER).unwrap();
    rate
}

/// Envelopes through the lock-free queue.
fn raw_queue(count: usize) -> f64 {
    let (space, queue) = (space(), Arc::new(Queue::<Envelope>::new(8192).unwrap()));
    let subject = subject();
    let start = Instant::now();
    thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..count {
                drop(queue.pop(&NEVER).unwrap());
            }
        });
        for _ in 0..count {
            queue.push(space.stamp(message(&subject)).unwrap(), &NEVER).unwrap();
        }
    });
    count as f64 / start.elapsed().as_secs_f64()
}

/// A name, and what measures one round.
type Case = (&'static str, Box<dyn Fn() -> f64>);

fn setting(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn main() {
    let rounds = setting("DWK_BENCH_ROUNDS", 9);
    let count = setting("DWK_BENCH_MESSAGES", 1 << 20).next_multiple_of(BATCH);
    let filter = Some("token(2) == 'a' and size < 1 KiB and not exists headers.debug");
    let cases: [Case; 11] = [
        ("publish, next", Box::new(move || flow(1, None, count, publish_singly, receive_singly))),
        (
            "publish, next_many",
            Box::new(move || flow(1, None, count, publish_singly, receive_batches)),
        ),
        (
            "publish_many, next",
            Box::new(move || flow(1, None, count, publish_batches, receive_singly)),
        ),
        (
            "publish_many, next_many",
            Box::new(move || flow(1, None, count, publish_batches, receive_batches)),
        ),
        (
            "the same through a filter",
            Box::new(move || flow(1, filter, count, publish_batches, receive_batches)),
        ),
        (
            "publish to 4, next",
            Box::new(move || flow(4, None, count / 4, publish_singly, receive_singly)),
        ),
        (
            "publish_many to 4, next_many",
            Box::new(move || flow(4, None, count / 4, publish_batches, receive_batches)),
        ),
        ("publish to nobody", Box::new(move || publisher_alone(0, count))),
        ("publish into memory", Box::new(move || publisher_alone(1, count / 4))),
        ("request, one after the other", Box::new(move || requests(count / 64))),
        ("dwk_queue alone, push, pop", Box::new(move || raw_queue(count))),
    ];
    let only = std::env::var("DWK_BENCH_ONLY").unwrap_or_default();
    let cases: Vec<_> = cases.into_iter().filter(|(name, _)| name.contains(&only)).collect();
    let mut rates = vec![Vec::new(); cases.len()];
    for _ in 0..rounds {
        for (rates, (_, run)) in rates.iter_mut().zip(&cases) {
            rates.push(run());
        }
    }
    println!(
        "messages of 4 bytes, millions a second, medians of {rounds} interleaved rounds (best)"
    );
    for (mut rates, (name, _)) in rates.into_iter().zip(&cases) {
        rates.sort_by(f64::total_cmp);
        let (median, best) = (rates[rates.len() / 2] / 1e6, rates[rates.len() - 1] / 1e6);
        println!("{name:<30} {median:>8.3} ({best:.3})");
    }
}
