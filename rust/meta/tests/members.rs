//! Who holds the journal when drives fail.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod world;

use std::sync::Arc;
use std::thread::sleep;
use std::time::Duration;

use dwk_base::codes;
use dwk_drive::faulty::{Effect, Fault, Operation};
use dwk_drive::{Entry, Superblock};
use dwk_meta::Meta;
use dwk_pool::{Control, State};
use world::{Model, World, bytes, check, open_on, options, put};

/// The names of the drives that hold the journal, and how they are.
fn members(meta: &Meta) -> Vec<(String, State)> {
    let drives = meta.pool().status(meta).unwrap().drives;
    drives.into_iter().filter(|d| d.journal).map(|d| (d.name, d.state)).collect()
}

#[test]
fn the_journal_leaves_all_its_drives_if_all_of_them_fail_with_shards() {
    // Whether both failures are known when the first one is recorded is a matter of luck.
    (0..30).for_each(all_fail);
}

fn all_fail(seed: u64) {
    let world = World::new(6, "3+1", seed);
    let meta = world.create().unwrap();
    let names =
        |members: Vec<(String, State)>| members.into_iter().map(|m| m.0).collect::<Vec<_>>();
    assert_eq!(names(members(&meta)), ["d1", "d2"]);
    for drive in &world.drives[..2] {
        drive.inject(Fault::new(Effect::Error(&codes::DRIVE_IO)).on(Operation::Put));
    }
    let mut model = Model::new();
    for n in 0..20u64 {
        let (key, content) = (format!("k{n:02}").into_bytes(), bytes(n, 30_000));
        put(&meta, &key, &content).unwrap();
        model.insert(key, content);
    }
    for _ in 0..500 {
        let now = members(&meta);
        if now.len() == 2 && now.iter().all(|(_, state)| *state == State::Ok) {
            break;
        }
        sleep(Duration::from_millis(10));
    }
    assert_eq!(names(members(&meta)), ["d3", "d4"], "{:?}", members(&meta));
    check(&meta, &model, "on other drives");
}

#[test]
fn a_drive_that_takes_no_superblock_holds_no_journal() {
    let mut world = World::new(6, "3+1", 78);
    let meta = world.create().unwrap();
    put(&meta, b"key", b"before").unwrap();
    meta.close().unwrap();
    drop(meta);
    world.restart();
    let broken = Fault::new(Effect::Error(&codes::DRIVE_IO)).on(Operation::WriteSuperblock);
    world.drives[0].inject(broken);
    let meta = world.open().unwrap();
    let now = members(&meta);
    assert_eq!(now, [("d2".to_owned(), State::Ok), ("d3".to_owned(), State::Ok)]);
    put(&meta, b"key", b"after").unwrap();
    drop(meta);
    world.restart();
    // It is back as it was, and one of those that did hold the journal is away.
    let meta = world.open_without(&[1]).unwrap();
    check(&meta, &Model::from([(b"key".to_vec(), b"after".to_vec())]), "another one away");
}

#[test]
fn an_opening_that_fails_with_a_damaged_journal_leaves_the_copies_of_drives_that_are_away_in_force()
{
    let world = World::new(4, "3+1", 79);
    let meta = world.create().unwrap();
    let mut model = Model::new();
    for n in 0..20u64 {
        let (key, content) = (format!("k{n:02}").into_bytes(), bytes(n, 300));
        put(&meta, &key, &content).unwrap();
        model.insert(key, content);
    }
    drop(meta); // as if it were killed
    let mut drives: Vec<_> = world.copies();
    for entry in drives[1].entries() {
        if matches!(entry, Entry::Log(_)) {
            assert!(drives[1].flip(&entry, 5 * 4096 + 50, 1), "in the middle of the log");
        }
    }
    let away = drives.remove(0);
    for _ in 0..2 {
        let error = open_on(&drives, options()).unwrap_err();
        assert!(error.is(&codes::JOURNAL_DAMAGED), "{error}");
    }
    drives.insert(0, away);
    let meta = open_on(&drives, options()).unwrap();
    check(&meta, &model, "with the drive that was away");
}

#[test]
fn who_lets_go_of_a_store_lets_go_of_its_drives_when_nobody_works_on_them_any_more() {
    let world = World::new(6, "3+1", 80);
    let meta = world.create().unwrap();
    let mut model = Model::new();
    for n in 0..20u64 {
        let (key, content) = (format!("k{n:02}").into_bytes(), bytes(n, 30_000));
        put(&meta, &key, &content).unwrap();
        model.insert(key, content);
    }
    // One drive fails, and recording that hangs on another one.
    let hung = &world.drives[0];
    hung.inject(Fault::new(Effect::Hang).on(Operation::WriteSuperblock));
    world.drives[5].inject(Fault::new(Effect::Error(&codes::DRIVE_FAILED)).on(Operation::Read));
    let mut keys = model.keys();
    while hung.held_calls() == 0 {
        if let Some(key) = keys.next() {
            world::get(&meta, key).unwrap();
        }
        sleep(Duration::from_millis(10));
    }
    std::thread::scope(|scope| {
        let dropped = scope.spawn(move || drop(meta));
        sleep(Duration::from_millis(100));
        let other = world.open();
        assert!(other.is_err_and(|error| error.is(&codes::STORE_LOCKED)), "others have its drives");
        world.drives.iter().for_each(dwk_drive::FaultyDrive::heal);
        world.drives.iter().for_each(dwk_drive::FaultyDrive::release);
        dropped.join().unwrap();
    });
    check(&world.open().unwrap(), &model, "opened again");
}

/// Has these drives take no shards, and puts until status says that they failed.
fn fail_with_shards(world: &World, meta: &Arc<Meta>, model: &mut Model, failing: &[usize]) {
    let failed = |meta: &Meta| {
        let drives = meta.pool().status(meta).unwrap().drives;
        failing.iter().all(|n| drives[*n].state == State::Failed)
    };
    for n in failing {
        world.drives[*n].inject(Fault::new(Effect::Error(&codes::DRIVE_IO)).on(Operation::Put));
    }
    for n in 0..500u64 {
        if failed(meta) {
            return;
        }
        let (key, content) = (format!("{failing:?}{n:03}").into_bytes(), bytes(n, 30_000));
        if put(meta, &key, &content).is_ok() {
            model.insert(key, content);
        }
        sleep(Duration::from_millis(10));
    }
    panic!("{failing:?} did not fail");
}

#[test]
fn a_suspected_drive_stays_so_when_membership_changes() {
    let world = World::new(5, "2+1", 84);
    let meta = world.create().unwrap();
    let mut model = Model::new();
    put(&meta, b"key", &bytes(1, 60_000)).unwrap();
    let is_shard =
        |entry: &Entry| matches!(entry, Entry::Blob(name) if name.as_str().starts_with("s/"));
    for shard in world.memory[0].entries().iter().filter(|entry| is_shard(entry)) {
        world.memory[0].flip(shard, 5000, 1);
    }
    world::get(&meta, b"key").unwrap().unwrap();
    let state = || meta.pool().status(&*meta).unwrap().drives[0].state;
    assert_eq!(state(), State::Suspect);
    let epoch = meta.pool().epoch();
    fail_with_shards(&world, &meta, &mut model, &[1]);
    while meta.pool().epoch() == epoch {
        sleep(Duration::from_millis(10));
    }
    assert_eq!(state(), State::Suspect);
}

fn only_two_can_hold_the_journal(seed: u64) -> (World, Arc<Meta>, Model) {
    let world = World::new(6, "3+1", seed);
    let meta = world.create().unwrap();
    for drive in &world.drives[2..] {
        drive.inject(Fault::new(Effect::Error(&codes::DRIVE_IO)).on(Operation::CreateLog));
    }
    (world, meta, Model::new())
}

/// Kills the process; then all drives are well.
fn killed_and_well_again(world: &World, meta: Arc<Meta>, model: &Model) {
    drop(meta);
    world.drives.iter().for_each(dwk_drive::FaultyDrive::heal);
    check(&world.open().unwrap(), model, "with all drives");
}

#[test]
fn a_journal_on_one_drive_that_is_told_of_no_change_is_not_an_old_one() {
    let (world, meta, mut model) = only_two_can_hold_the_journal(81);
    fail_with_shards(&world, &meta, &mut model, &[1]);
    while members(&meta).len() > 1 {
        sleep(Duration::from_millis(10));
    }
    fail_with_shards(&world, &meta, &mut model, &[0]);
    // The others are told twice.
    for _ in 0..2 {
        meta.pool().scrub(&*meta, &Control::default()).unwrap();
    }
    assert_eq!(members(&meta), [("d1".to_owned(), State::Failed)]);
    put(&meta, b"last", b"content").unwrap();
    model.insert(b"last".to_vec(), b"content".to_vec());
    killed_and_well_again(&world, meta, &model);
}

#[test]
fn the_last_drive_of_the_journal_stays_though_another_ones_leaving_was_not_acknowledged() {
    let (world, meta, mut model) = only_two_can_hold_the_journal(83);
    // The first drive's leaving is proposed, and in force on one drive only.
    let once = Fault::new(Effect::Error(&codes::DRIVE_IO)).on(Operation::WriteSuperblock);
    for drive in &world.drives[1..5] {
        drive.inject(once.clone().after(1).times(1));
    }
    fail_with_shards(&world, &meta, &mut model, &[0]);
    while members(&meta).iter().any(|(name, _)| name == "d1") {
        sleep(Duration::from_millis(10));
    }
    fail_with_shards(&world, &meta, &mut model, &[1]);
    put(&meta, b"last", b"content").unwrap();
    model.insert(b"last".to_vec(), b"content".to_vec());
    // What is in force on all drives that are well.
    meta.pool().scrub(&*meta, &Control::default()).unwrap();
    assert_eq!(members(&meta), [("d2".to_owned(), State::Failed)]);
    killed_and_well_again(&world, meta, &model);
}

#[test]
fn more_drives_than_can_be_lost_take_a_change_however_many_failed_since_the_opening() {
    let world = World::new(3, "2+1", 82);
    let meta = world.create().unwrap();
    let mut model = Model::new();
    put(&meta, b"before", b"content").unwrap();
    fail_with_shards(&world, &meta, &mut model, &[0]);
    while members(&meta).iter().any(|(name, _)| name == "d1") {
        sleep(Duration::from_millis(10));
    }
    let in_force = || Superblock::load(&world.drives[2]).unwrap().unwrap().in_force.unwrap();
    let before = in_force().superblock.edition();
    fail_with_shards(&world, &meta, &mut model, &[1]);
    let error = meta.pool().scrub(&*meta, &Control::default()).unwrap_err();
    assert!(error.is(&codes::DRIVES_TOO_MANY_LOST), "{error}");
    assert_eq!(in_force().superblock.edition(), before);
    drop(meta);
    world.drives.iter().for_each(dwk_drive::FaultyDrive::heal);
    // What counts is known without the drive that was the last to be well.
    let meta = world.open_without(&[2]).unwrap();
    assert_eq!(world::get(&meta, b"before").unwrap().unwrap(), b"content");
}
