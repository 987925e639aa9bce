//! Threads that do everything that can be done with consumers, all at a time: nothing is lost, nothing is done
//! twice, and nobody stands still.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod world;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use dwk_base::{Clock, Deadline, Error, Random, SeededRandom, codes};
use dwk_stream::{Consumer, ConsumerConfig, Retention, Stream, StreamConfig, Streams};
use world::{TENANT, World, config, never};

const COUNT: usize = 400;

/// What all threads share.
struct Scene<'a> {
    world: &'a World,
    streams: &'a Streams,
    stream: &'a Stream,
    consumer: &'a Consumer,
    /// Texts of the messages that were acknowledged.
    done: &'a Mutex<BTreeSet<String>>,
    over: &'a AtomicBool,
}

impl Scene<'_> {
    fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }

    fn work(&self, seed: u64) {
        let random = SeededRandom::new(seed);
        while !self.is_over() {
            let clock = Arc::clone(&self.world.clock) as Arc<dyn Clock>;
            let now = Deadline::after(clock, Duration::ZERO);
            for one in self.consumer.fetch(3, &now, &never()).unwrap() {
                match random.below(10) {
                    0 => self.consumer.nak(one.token, None).unwrap(),
                    1 | 2 => self.consumer.term(one.token, "why", &never()).unwrap(),
                    3 => {
                        self.consumer.in_progress(one.token).and_then(|()| self.ack(&one)).unwrap();
                    }
                    _ => self.ack(&one).unwrap(),
                }
            }
        }
    }

    fn ack(&self, one: &dwk_stream::Delivery) -> Result<(), Error> {
        self.consumer.ack(one.token, &never())?;
        let text = String::from_utf8_lossy(one.stored.envelope.data()).into_owned();
        let mut done = self.done.lock().unwrap();
        assert!(done.insert(text.clone()), "{text} was done, and came again");
        if done.len() == COUNT {
            self.over.store(true, Ordering::SeqCst);
        }
        Ok(())
    }

    fn redrive(&self) {
        while !self.is_over() {
            for letter in self.consumer.dead_letters(0, 9, &never()).unwrap() {
                match self.consumer.redrive(letter.letter.sequence, &never()) {
                    Ok(driven) => assert!(driven, "nobody else redrives"),
                    Err(error) => assert!(error.is(&codes::STREAM_FULL), "{error}"),
                }
            }
        }
    }

    fn disturb(&self) {
        while !self.is_over() {
            let other = ConsumerConfig::new("other");
            let other = self.streams.create_consumer(self.stream, other, &never()).unwrap();
            self.consumer.pause(&never()).unwrap();
            self.consumer.flush(&never()).unwrap();
            self.consumer.resume(&never()).unwrap();
            self.streams.upkeep().unwrap();
            other.flush(&never()).unwrap();
            self.streams.delete_consumer(self.stream, "other", &never()).unwrap();
        }
    }
}

#[test]
fn threads_that_do_everything_at_once_lose_nothing_and_do_nothing_twice() {
    let world = World::new(1);
    let meta = world.create().unwrap();
    let streams = world.streams(&meta).unwrap();
    let kept = StreamConfig { retention: Retention::Interest, ..config() };
    let stream = streams.create(TENANT, "s", kept, &never()).unwrap();
    let wanted =
        ConsumerConfig { max_deliver: Some(3), max_ack_pending: 8, ..ConsumerConfig::new("c") };
    let consumer = streams.create_consumer(&stream, wanted, &never()).unwrap();
    let (done, over) = (Mutex::default(), AtomicBool::new(false));
    let scene = Scene {
        world: &world,
        streams: &streams,
        stream: &stream,
        consumer: &consumer,
        done: &done,
        over: &over,
    };
    let begin = Instant::now();
    std::thread::scope(|scope| {
        for seed in 0..3 {
            let scene = &scene;
            scope.spawn(move || scene.work(seed));
        }
        scope.spawn(|| scene.redrive());
        scope.spawn(|| scene.disturb());
        for n in 0..COUNT {
            stream.publish(&world.message("a.b", n.to_string()), None, &never()).unwrap();
        }
        while !scene.is_over() && begin.elapsed() < Duration::from_mins(1) {
            std::thread::sleep(Duration::from_millis(5));
        }
        over.store(true, Ordering::SeqCst);
    });
    assert_eq!(done.lock().unwrap().len(), COUNT, "{:?}", consumer.status());
    consumer.flush(&never()).unwrap();
    assert!(consumer.dead_letters(0, 9, &never()).unwrap().is_empty());
    let status = stream.status();
    assert_eq!(status.first_sequence, status.last_sequence + 1, "everything is done");
}
