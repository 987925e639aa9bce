//! Dead letters: buried whatever happens in between, redriven once, and nobody else's.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod world;

use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use dwk_base::{Clock, Deadline, codes};
use dwk_bus::Pattern;
use dwk_drive::faulty::{Effect, Fault, Operation};
use dwk_meta::Meta;
use dwk_stream::{Consumer, ConsumerConfig, Delivery, Retention, Stream, StreamConfig, Streams};
use world::{TENANT, World, config, never};

/// A store with a stream and a consumer of it.
struct Scene {
    world: World,
    meta: Arc<Meta>,
    streams: Streams,
    stream: Stream,
    consumer: Consumer,
}

impl Scene {
    /// With so many short messages.
    fn new(world: World, kept: Retention, wanted: ConsumerConfig, count: usize) -> Self {
        let meta = world.create().unwrap();
        let streams = world.streams(&meta).unwrap();
        let kept = StreamConfig { retention: kept, ..config() };
        let stream = streams.create(TENANT, "s", kept, &never()).unwrap();
        let consumer = streams.create_consumer(&stream, wanted, &never()).unwrap();
        let scene = Self { world, meta, streams, stream, consumer };
        (0..count).for_each(|n| scene.publish(&n.to_string()));
        scene
    }

    fn publish(&self, text: &str) {
        let message = self.world.message("a.b", text);
        self.stream.publish(&message, None, &never()).unwrap();
    }

    /// Without waiting.
    fn fetch(&self, limit: usize) -> Vec<Delivery> {
        let clock = Arc::clone(&self.world.clock) as Arc<dyn Clock>;
        let now = Deadline::after(clock, Duration::ZERO);
        self.consumer.fetch(limit, &now, &never()).unwrap()
    }

    fn numbers(&self, limit: usize) -> Vec<(u64, u32)> {
        let numbers = |one: Delivery| (one.stored.sequence, one.deliveries);
        self.fetch(limit).into_iter().map(numbers).collect()
    }

    fn letters(&self) -> Vec<u64> {
        let letters = self.consumer.dead_letters(0, 99, &never()).unwrap();
        letters.iter().map(|one| one.letter.sequence).collect()
    }

    /// The power goes and comes back, or it is closed and opened.
    fn again(self, cut: bool) -> Self {
        let Self { mut world, meta, streams, stream, consumer } = self;
        if cut {
            world.power.cut_now();
        }
        streams.close();
        assert_eq!(meta.close().is_err(), cut);
        drop((consumer, stream, streams, meta));
        world.restart();
        let meta = world.open().unwrap();
        let streams = world.streams(&meta).unwrap();
        let stream = streams.get(TENANT, "s").unwrap();
        let consumer = streams.consumer(&stream, "c", &never()).unwrap();
        Self { world, meta, streams, stream, consumer }
    }
}

fn named() -> ConsumerConfig {
    ConsumerConfig::new("c")
}

fn once() -> ConsumerConfig {
    ConsumerConfig { max_deliver: Some(1), max_ack_pending: 1, ..named() }
}

#[test]
fn a_letter_that_was_not_buried_before_a_close_is_buried_and_makes_room() {
    let scene = Scene::new(World::new(1), Retention::Limits, once(), 2);
    scene.consumer.nak(scene.fetch(1)[0].token, None).unwrap();
    let scene = scene.again(false);
    assert_eq!(scene.numbers(1), [(2, 1)]);
    assert_eq!(scene.letters(), [1]);
}

#[test]
fn a_long_message_can_become_a_letter() {
    let scene = Scene::new(World::new(2), Retention::Limits, named(), 0);
    scene.publish(&"x".repeat(30_000));
    scene.consumer.term(scene.fetch(1)[0].token, "too long", &never()).unwrap();
    let letters = scene.consumer.dead_letters(0, 9, &never()).unwrap();
    assert_eq!(letters[0].envelope.as_ref().unwrap().data().len(), 30_000);
}

#[test]
fn a_message_that_cannot_be_read_is_a_letter_without_it() {
    let scene = Scene::new(World::new(3), Retention::Limits, once(), 0);
    scene.publish(&"x".repeat(30_000));
    scene.publish("2");
    scene.consumer.nak(scene.fetch(1)[0].token, None).unwrap();
    for drive in &scene.world.drives {
        drive.inject(Fault::new(Effect::Flip).on(Operation::Read));
    }
    scene.consumer.flush(&never()).unwrap();
    let letters = scene.consumer.dead_letters(0, 9, &never()).unwrap();
    assert!(letters.len() == 1 && letters[0].envelope.is_none());
}

#[test]
fn a_letter_whose_message_is_kept_for_it_alone_waits_until_it_can_be_read() {
    let wanted = ConsumerConfig { max_deliver: Some(1), ..named() };
    let scene = Scene::new(World::new(10), Retention::Interest, wanted, 0);
    scene.publish(&"x".repeat(30_000));
    scene.publish("2");
    for one in scene.fetch(2) {
        scene.consumer.nak(one.token, None).unwrap();
    }
    for drive in &scene.world.drives {
        drive.inject(Fault::new(Effect::Flip).on(Operation::Read));
    }
    let error = scene.consumer.flush(&never()).unwrap_err();
    assert!(error.is(&codes::DATA_CORRUPT), "{error}");
    assert_eq!(scene.letters(), [2], "the other one is buried");
    assert_eq!(scene.stream.status().first_sequence, 1);
    scene.world.drives.iter().for_each(dwk_drive::FaultyDrive::heal);
    scene.consumer.flush(&never()).unwrap();
    let letters = scene.consumer.dead_letters(0, 9, &never()).unwrap();
    assert!(letters.len() == 2 && letters[0].envelope.is_some());
    assert_eq!(scene.stream.status().first_sequence, 3);
}

#[test]
fn a_letter_that_cannot_be_buried_now_holds_nobody_up_and_is_buried_later() {
    let wanted = ConsumerConfig { max_deliver: Some(1), ..named() };
    let scene = Scene::new(World::new(4), Retention::Limits, wanted, 0);
    scene.publish(&"x".repeat(30_000));
    scene.publish("2");
    scene.consumer.nak(scene.fetch(1)[0].token, None).unwrap();
    scene.world.drives.iter().for_each(|drive| drive.set_full(true));
    assert_eq!(scene.numbers(9), [(2, 1)]);
    assert!(scene.consumer.flush(&never()).is_err(), "it has no room");
    scene.world.drives.iter().for_each(|drive| drive.set_full(false));
    assert!(scene.fetch(9).is_empty());
    assert_eq!(scene.letters(), [1]);
}

#[test]
fn a_message_that_is_redriven_is_kept_until_it_is_done_again() {
    let scene = Scene::new(World::new(5), Retention::Interest, named(), 1);
    scene.consumer.term(scene.fetch(1)[0].token, "why", &never()).unwrap();
    assert!(scene.consumer.redrive(1, &never()).unwrap());
    scene.consumer.flush(&never()).unwrap();
    let again = scene.fetch(9);
    assert_eq!((again.len(), again[0].stored.sequence), (1, 1));
    scene.consumer.ack(again[0].token, &never()).unwrap();
    scene.consumer.flush(&never()).unwrap();
    assert_eq!(scene.stream.status().first_sequence, 2);
}

#[test]
fn a_letter_whose_message_was_published_again_does_not_come_back() {
    let scene = Scene::new(World::new(6), Retention::Limits, named(), 1);
    scene.consumer.term(scene.fetch(1)[0].token, "why", &never()).unwrap();
    scene.stream.purge(1, &never()).unwrap();
    // The state that is saved has the letter, and it is buried: the opening offers it once more.
    let scene = scene.again(true);
    assert!(scene.consumer.redrive(1, &never()).unwrap());
    scene.consumer.flush(&never()).unwrap();
    assert!(scene.letters().is_empty());
    let scene = scene.again(true);
    scene.consumer.flush(&never()).unwrap();
    assert!(scene.letters().is_empty());
    assert_eq!(scene.numbers(9), [(2, 1)]);
}

#[test]
fn a_purged_message_that_nobody_saw_is_no_letter() {
    let wanted = ConsumerConfig { max_deliver: Some(2), ..named() };
    let scene = Scene::new(World::new(7), Retention::Limits, wanted, 1);
    assert_eq!(scene.numbers(1), [(1, 1)]);
    let scene = scene.again(true);
    scene.stream.purge_subjects(&Pattern::new("a.b").unwrap(), &never()).unwrap();
    assert!(scene.fetch(1).is_empty());
    let scene = scene.again(true);
    scene.consumer.flush(&never()).unwrap();
    assert!(scene.letters().is_empty());
}

#[test]
fn a_cut_within_a_redrive_leaves_the_letter_or_the_message_that_comes_and_not_both() {
    let (mut letters, mut messages) = (0, 0);
    // What is left of what was not synced is drawn anew for each seed.
    for (seed, step) in (0..20).flat_map(|seed| (1..9).map(move |step| (seed, step))) {
        let world = World::new(1000 * seed + step);
        let scene = Scene::new(world, Retention::Limits, named(), 1);
        scene.consumer.term(scene.fetch(1)[0].token, "why", &never()).unwrap();
        scene.world.power.cut_in(step);
        let done = scene.consumer.redrive(1, &never());
        assert!(scene.world.power.is_cut() || done.unwrap());
        let scene = scene.again(true);
        let left = (scene.letters(), scene.numbers(9));
        if left == (vec![1], vec![]) {
            letters += 1;
        } else {
            assert_eq!(left, (vec![], vec![(1, 1)]), "seed {seed}, step {step}");
            messages += 1;
        }
    }
    assert!(letters > 0 && messages > 0, "{letters} letters, {messages} messages");
}

/// Runs `first` until a drive holds it up, then `second`, in threads of their own; then both may go on.
fn held_up(world: &World, first: impl FnOnce() + Send, second: impl FnOnce() + Send) {
    let drives = &world.drives;
    let hang = Fault::new(Effect::Hang).on(Operation::Put);
    for drive in drives {
        drive.inject(hang.clone());
    }
    let (before, begin) = (world.power.steps(), Instant::now());
    std::thread::scope(|scope| {
        scope.spawn(first);
        while world.power.steps() == before {
            assert!(begin.elapsed() < Duration::from_secs(20), "nothing is written");
            std::thread::yield_now();
        }
        let (tell, told) = mpsc::channel();
        scope.spawn(move || {
            second();
            let _ = tell.send(());
        });
        // It waits for the first one, or is done by then.
        let _ = told.recv_timeout(Duration::from_millis(200));
        drives.iter().for_each(dwk_drive::FaultyDrive::heal);
    });
}

#[test]
fn a_letter_that_is_redriven_while_it_is_buried_does_not_come_back() {
    let scene = Scene::new(World::new(8), Retention::Limits, named(), 0);
    scene.publish(&"x".repeat(30_000));
    scene.consumer.term(scene.fetch(1)[0].token, "why", &never()).unwrap();
    // It is buried, and offered again.
    let scene = scene.again(true);
    let consumer = &scene.consumer;
    // Everything else is saved, so that the first thing written is the letter's message.
    consumer.resume(&never()).unwrap();
    held_up(
        &scene.world,
        || consumer.flush(&never()).unwrap(),
        || assert!(consumer.redrive(1, &never()).unwrap()),
    );
    assert!(scene.letters().is_empty());
    assert_eq!(scene.numbers(9), [(1, 1)]);
}

#[test]
fn a_save_that_is_late_does_not_end_up_in_the_next_consumer_of_that_name() {
    let mut world = World::new(9);
    // A state with something in it goes into stripes, an empty one does not.
    world.options.inline_bytes_max = 100;
    let scene = Scene::new(world, Retention::Limits, named(), 40);
    let out = scene.fetch(40);
    let next = ConsumerConfig { start: dwk_stream::From::Next, ..named() };
    let (streams, stream, consumer) = (&scene.streams, &scene.stream, &scene.consumer);
    consumer.ack(out[0].token, &never()).unwrap();
    held_up(
        &scene.world,
        || drop(consumer.flush(&never())),
        || {
            streams.delete_consumer(stream, "c", &never()).unwrap();
            streams.create_consumer(stream, next.clone(), &never()).unwrap();
        },
    );
    let scene = scene.again(true);
    assert_eq!(scene.consumer.config(), &next);
    assert!(scene.fetch(9).is_empty());
}

#[test]
fn a_new_consumer_has_no_letters_of_an_earlier_one_that_a_cut_left_half_deleted() {
    let mut left = 0;
    for step in 1.. {
        let scene = Scene::new(World::new(80 + step), Retention::Limits, named(), 1);
        scene.consumer.term(scene.fetch(1)[0].token, "why", &never()).unwrap();
        let Scene { mut world, meta, streams, stream, consumer } = scene;
        world.power.cut_in(step);
        let done = streams.delete_consumer(&stream, "c", &never());
        let is_cut = world.power.is_cut();
        assert!(is_cut || done.is_ok());
        drop((consumer, stream, streams, meta));
        world.restart();
        let meta = world.open().unwrap();
        let streams = world.streams(&meta).unwrap();
        let stream = streams.get(TENANT, "s").unwrap();
        let is_gone = streams.consumer(&stream, "c", &never()).is_err();
        left += usize::from(is_gone && is_cut);
        if is_gone {
            let consumer = streams.create_consumer(&stream, named(), &never()).unwrap();
            assert!(consumer.dead_letters(0, 9, &never()).unwrap().is_empty(), "step {step}");
        }
        if !is_cut {
            break;
        }
    }
    assert!(left > 0, "no cut fell in between");
}
