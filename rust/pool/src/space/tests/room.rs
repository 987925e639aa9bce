//! What is known about the room that is left is never more than there is, and no less than need be.

use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use dwk_base::{Error, PoolId, Seams, codes};
use dwk_drive::Drive;
use dwk_drive::faulty::{Effect, Fault, Operation};
use dwk_erasure::CodeSpec;

use super::super::restore::{SYNC_REPAIR, Wanted};
use super::super::room::Purpose;
use super::super::{Space, SpaceOptions, Writing, lock};
use super::repairing::restore;
use super::world::{NEVER, RS42, World, bytes, options};
use crate::Watch;
use crate::asking::ROOM_TIME;

const ONE: CodeSpec = CodeSpec::None { k: 1 };
const CONTENT: usize = 16 << 10;
const PATIENCE: Duration = Duration::from_mins(1);

/// Drives of `capacity_bytes` without a reserve.
fn world(drives: usize, code: CodeSpec, capacity_bytes: u64) -> World {
    let options = SpaceOptions { reserve_fraction: 0.0, ..options() };
    let mut world = World::with(drives, code, 1, options);
    world.memory.iter().for_each(|drive| drive.set_capacity(capacity_bytes));
    world.seat_all();
    world
}

/// What is counted as free on a drive.
fn counted(world: &World, seat: usize) -> u64 {
    world.roster.load().seats[seat].free_bytes()
}

/// What is free there, once its thread did what it was asked for.
fn free(world: &World, seat: usize) -> u64 {
    world.settle();
    world.memory[seat].capacity().unwrap().free_bytes
}

fn assert_exact(world: &World, when: &str) {
    world.settle();
    for seat in 0..world.drives.len() {
        assert_eq!(counted(world, seat), free(world, seat), "{when}, drive {seat}");
    }
}

fn begin(world: &World) -> Writing {
    let mut filling = world.space.fill(CONTENT, &NEVER).unwrap();
    filling.append(&bytes(1, CONTENT));
    world.space.write(filling).unwrap()
}

fn hold(world: &World, effect: Effect, operation: Operation) {
    world.drives.iter().for_each(|d| d.inject(Fault::new(effect).on(operation).times(1)));
}

fn until(what: impl Fn() -> bool) {
    let start = Instant::now();
    while !what() {
        assert!(start.elapsed() < PATIENCE, "it does not come");
        thread::sleep(Duration::from_millis(1));
    }
}

fn release(world: &World) {
    world.drives.iter().for_each(dwk_drive::FaultyDrive::release);
}

#[test]
fn what_is_on_its_way_stays_counted_when_a_drive_says_its_room() {
    let world = world(6, RS42, 1 << 20);
    hold(&world, Effect::Hang, Operation::Put);
    let writing = begin(&world);
    let before: Vec<u64> = (0..6).map(|seat| counted(&world, seat)).collect();
    world.space.ask_room();
    let after: Vec<u64> = (0..6).map(|seat| counted(&world, seat)).collect();
    assert_eq!(before, after);
    release(&world);
    writing.wait(&NEVER).unwrap();
    assert_exact(&world, "written");
    world.space.ask_room();
    assert_exact(&world, "asked");
}

#[test]
fn no_more_is_taken_in_than_fits_beside_what_is_on_its_way() {
    let world = world(1, ONE, 46 << 10);
    hold(&world, Effect::Hang, Operation::Put);
    let writing = begin(&world);
    world.space.ask_room();
    world.space.check_room(CONTENT as u64, 0).unwrap();
    let second = begin(&world);
    world.space.ask_room();
    let error = world.space.check_room(1, 0).unwrap_err();
    assert!(error.is(&codes::POOL_FULL), "{error}");
    release(&world);
    writing.wait(&NEVER).unwrap();
    second.wait(&NEVER).unwrap();
    assert_exact(&world, "written");
}

/// Asks a drive for its room and does `work` meanwhile: before the drive looks, and before its answer comes.
fn while_it_is_asked(world: &World, work: impl Fn()) {
    for effect in [Effect::Hang, Effect::Withhold] {
        hold(world, effect, Operation::Capacity);
        thread::scope(|scope| {
            let asking = scope.spawn(|| world.space.ask_room());
            until(|| world.drives[0].held_calls() == 1);
            work();
            release(world);
            asking.join().unwrap();
        });
        assert!(counted(world, 0) <= free(world, 0), "{effect:?}");
        until(|| world.space.ask_room());
        assert_exact(world, "asked again");
    }
}

#[test]
fn what_is_written_while_a_drive_is_asked_makes_no_room() {
    let world = world(1, ONE, 1 << 20);
    while_it_is_asked(&world, || drop(begin(&world).wait(&NEVER).unwrap()));
}

#[test]
fn what_is_removed_while_a_drive_is_asked_makes_room_once() {
    let world = world(1, ONE, 1 << 20);
    let stripes = Mutex::new([(); 2].map(|()| begin(&world).wait(&NEVER).unwrap()).to_vec());
    while_it_is_asked(&world, || world.remove(&lock(&stripes).pop().unwrap()));
}

#[test]
fn what_a_drive_refused_or_nobody_wants_any_more_takes_no_room() {
    let world = world(7, RS42, 1 << 20);
    let refuse = Fault::new(Effect::Error(&codes::DRIVE_FULL)).on(Operation::Put).times(3);
    world.drives[0].inject(refuse);
    (0..20).for_each(|_| drop(begin(&world).wait(&NEVER).unwrap()));
    assert_exact(&world, "refused");
    hold(&world, Effect::Hang, Operation::Put);
    drop(begin(&world));
    release(&world);
    assert_exact(&world, "dropped");
}

#[test]
fn stripes_that_are_written_and_removed_again_and_again_leave_the_count_right() {
    let world = world(6, RS42, 1 << 20);
    for _ in 0..100 {
        let stripe = begin(&world).wait(&NEVER).unwrap();
        assert_exact(&world, "written");
        world.remove(&stripe);
        // What was gone already gives nothing back.
        world.remove(&stripe);
        assert_exact(&world, "removed");
        world.space.discard(&begin(&world).wait(&NEVER).unwrap());
        assert_exact(&world, "discarded");
    }
}

#[test]
fn who_asks_while_another_does_waits_for_the_answer() {
    // Where the machine takes as long as a drive may, that says nothing.
    assert!((0..20).any(|_| two_ask()), "it is always late");
}

/// Two ask at the same time whether there is room on a drive that has become larger; false if it took too long.
fn two_ask() -> bool {
    let world = world(1, ONE, 1 << 10);
    world.memory[0].set_capacity(1 << 20);
    hold(&world, Effect::Withhold, Operation::Capacity);
    let start = Instant::now();
    let answers = thread::scope(|scope| {
        let ask = || world.space.check_room(CONTENT as u64, 0);
        let first = scope.spawn(ask);
        until(|| world.drives[0].held_calls() == 1);
        let second = scope.spawn(ask);
        thread::sleep(Duration::from_millis(20));
        release(&world);
        [first, second].map(|asking| asking.join().unwrap())
    });
    let in_time = start.elapsed() < ROOM_TIME;
    assert!(!in_time || answers.iter().all(Result::is_ok), "{answers:?}");
    in_time
}

#[test]
fn a_shard_that_was_restored_is_counted_once() {
    let world = world(6, RS42, 1 << 20);
    let stripe = world.put(&bytes(1, CONTENT)).unwrap();
    let (seat, wanted) =
        (usize::from(stripe.placement[0]), Wanted { in_place: vec![0], ..Wanted::default() });
    let (memory, file) = world.entry(&stripe, 0);
    assert!(memory.flip(&file, 5000, 1));
    assert_eq!(restore(&world, &stripe, &wanted).shards, 1);
    assert_exact(&world, "in the place of a damaged one");
    memory.wipe();
    world.space.ask_room();
    let hang = Fault::new(Effect::Hang).on(Operation::Sync).named(SYNC_REPAIR).times(1);
    world.drives[seat].inject(hang);
    thread::scope(|scope| {
        let restoring = scope.spawn(|| restore(&world, &stripe, &wanted));
        until(|| world.drives[seat].held_calls() == 1);
        assert!(counted(&world, seat) < 1 << 20, "it is on its way");
        world.space.ask_room();
        release(&world);
        assert_eq!(restoring.join().unwrap().shards, 1);
    });
    assert_exact(&world, "in the place of none");
}

#[test]
fn what_is_claimed_for_new_data_lies_beside_the_reserve() {
    let options = SpaceOptions { reserve_fraction: 0.5, ..options() };
    let mut world = World::with(1, ONE, 1, options);
    world.memory[0].set_capacity(1000);
    world.reopen();
    let roster = world.roster.load();
    let claim = |bytes, purpose| world.space.shared.claim(&roster.seats[0], bytes, purpose);
    let first = claim(400, Purpose::Store).unwrap();
    assert!(claim(101, Purpose::Store).is_none());
    let second = claim(100, Purpose::Store).unwrap();
    let kept = claim(500, Purpose::Keep).unwrap();
    assert!(claim(1, Purpose::Keep).is_none());
    drop((first, second, kept));
    assert_exact(&world, "given back");
}

#[test]
fn writers_that_meet_never_take_the_reserve_together() {
    const CAPACITY: u64 = 1 << 20;
    for round in 0..20 {
        let mut world = world(1, ONE, CAPACITY);
        world.options.reserve_fraction = 0.5;
        world.reopen();
        let write = || {
            let mut filling = world.space.fill(CONTENT, &NEVER).unwrap();
            filling.append(&bytes(1, CONTENT));
            world.space.write(filling)?.wait(&NEVER)
        };
        thread::scope(|scope| {
            let until_full = || while write().is_ok() {};
            (0..4).for_each(|_| drop(scope.spawn(until_full)));
        });
        // No further stripe fits, content and a header.
        let (free, reserve) = (free(&world, 0), CAPACITY / 2);
        let most = reserve + 2 * CONTENT as u64;
        assert!((reserve..most).contains(&free), "round {round}: {free} bytes are free");
        assert_exact(&world, "full");
    }
}

/// Drops a stripe as soon as it hears of a drive that failed.
#[derive(Default)]
struct Dropping(Mutex<Option<Writing>>);

impl Watch for Dropping {
    fn failed(&self, _index: u16, _error: &Error) {
        drop(lock(&self.0).take());
    }

    fn corrupted(&self, _index: u16, _what: &str) {}
}

#[test]
fn a_stripe_that_is_dropped_while_others_look_after_it_leaves_nothing() {
    // Its shard would go to another drive, or it would be encoded anew.
    for drives in [7, 6] {
        let world = world(drives, RS42, 1 << 20);
        let watch = Arc::new(Dropping::default());
        let space = Space::with_code(
            PoolId::from_u128(7),
            RS42,
            world.options.clone(),
            Arc::clone(&world.roster),
            Arc::clone(&watch) as Arc<dyn Watch>,
            Seams::seeded(1),
        );
        let space = space.unwrap();
        let fails = Fault::new(Effect::Error(&codes::DRIVE_IO)).on(Operation::Put).times(1);
        world.drives[0].inject(fails);
        let dropped = (0..100).any(|_| {
            let mut filling = space.fill(CONTENT, &NEVER).unwrap();
            filling.append(&bytes(1, CONTENT));
            *lock(&watch.0) = Some(space.write(filling).unwrap());
            world.settle();
            space.shared.help_flights();
            lock(&watch.0).take().is_none()
        });
        assert!(dropped, "no drive failed");
        world.settle();
        assert!(world.files().is_empty(), "{:?}", world.files());
        assert_exact(&world, "dropped");
    }
}
