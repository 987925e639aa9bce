//! Drives that hang while superblocks are written: who stores something does not wait for them.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod world;

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use dwk_drive::faulty::{Effect, Fault, Operation};
use dwk_meta::Meta;
use dwk_pool::{Control, State};
use world::{Model, World, bytes, check, put};

/// As long as a drive may take for a superblock.
const DRIVE_TIME: Duration = Duration::from_secs(20);
/// What nothing here takes, unless it waits for a superblock.
const SOON: Duration = Duration::from_secs(8);

fn world(seed: u64) -> (World, Arc<Meta>, Model) {
    let mut world = World::new(6, "4+2", seed);
    world.pool.drive_timeout = DRIVE_TIME;
    world.pool.space.drive_timeout = Duration::from_millis(200);
    world.pool.journal.member_timeout = Duration::from_millis(200);
    let (meta, mut model) = (world.create().unwrap(), Model::new());
    store(&meta, &mut model, 0..2);
    (world, meta, model)
}

fn store(meta: &Arc<Meta>, model: &mut Model, numbers: std::ops::Range<u64>) {
    for n in numbers {
        let (key, content) = (format!("k{n:02}").into_bytes(), bytes(n, 30_000));
        put(meta, &key, &content).unwrap();
        model.insert(key, content);
    }
}

fn hang(world: &World, drives: std::ops::Range<usize>, operation: Operation) {
    for drive in &world.drives[drives] {
        let hang = Fault::new(Effect::Hang);
        drive.inject(hang.on(operation).on(Operation::WriteSuperblock));
    }
}

fn release(world: &World) {
    for drive in &world.drives {
        drive.heal();
        drive.release();
    }
}

fn failed(meta: &Meta) -> Vec<usize> {
    let roster = meta.pool().roster();
    let seats = roster.seats.iter().enumerate();
    seats.filter(|(_, seat)| seat.state == State::Failed).map(|(index, _)| index).collect()
}

#[test]
fn a_put_does_not_wait_for_the_superblock_of_a_drive_that_hangs() {
    let (world, meta, mut model) = world(1);
    hang(&world, 5..6, Operation::Put);
    let begun = Instant::now();
    thread::scope(|scope| {
        // It writes every superblock, and holds membership meanwhile.
        let scrub = scope.spawn(|| meta.pool().scrub(&*meta, &Control::default()));
        thread::sleep(Duration::from_millis(100));
        store(&meta, &mut model, 2..4);
        assert!(begun.elapsed() < SOON, "the put waited {:?}", begun.elapsed());
        assert_eq!(failed(&meta), [5]);
        scrub.join().unwrap().unwrap();
        assert!(begun.elapsed() < SOON, "the scrub waited {:?}", begun.elapsed());
    });
    release(&world);
    check(&meta, &model, "after the drive was given up");
}
