//! A process that cannot write superblocks, for want of descriptors: changes wait, or fail, and no drive pays for it.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod world;

use std::sync::Arc;
use std::time::Duration;

use dwk_base::codes;
use dwk_drive::faulty::{Effect, Fault, Operation};
use dwk_drive::{Drive, FaultyDrive, MemoryDrive, Power, Slot};
use dwk_meta::Meta;
use dwk_pool::{Control, State};
use world::{Model, World, bytes, check, holder, put};

fn exhausted() -> Fault {
    Fault::new(Effect::Error(&codes::PROCESS_EXHAUSTED)).on(Operation::WriteSuperblock)
}

/// A pool of four drives with some content, that was closed.
fn stored(seed: u64) -> (World, Model) {
    let mut world = World::new(4, "3+1", seed);
    world.pool.drive_timeout = Duration::from_millis(60);
    let (meta, mut model) = (world.create().unwrap(), Model::new());
    store(&meta, &mut model, 0..4);
    meta.close().unwrap();
    (world, model)
}

fn store(meta: &Arc<Meta>, model: &mut Model, numbers: std::ops::Range<u64>) {
    for n in numbers {
        let (key, content) = (format!("k{n:02}").into_bytes(), bytes(n, 9000));
        put(meta, &key, &content).unwrap();
        model.insert(key, content);
    }
}

fn states(meta: &Meta) -> Vec<State> {
    meta.pool().status(meta).unwrap().drives.iter().map(|drive| drive.state).collect()
}

/// All drives are well, and any one of them can be lost.
fn check_whole(world: &World, model: &Model, when: &str) {
    let meta = world.open().unwrap();
    assert_eq!(states(&meta), [State::Ok; 4], "{when}");
    check(&meta, model, when);
    meta.close().unwrap();
    drop(meta);
    for gone in 0..4 {
        let copies = world.copies();
        let here = copies.iter().enumerate().filter(|(index, _)| *index != gone);
        let here: Vec<_> = here.map(|(_, drive)| drive.clone()).collect();
        let meta = world::open_on(&here, world::options()).unwrap();
        check(&meta, model, &format!("{when}, without drive {gone}"));
    }
}

#[test]
fn a_superblock_for_which_there_is_no_descriptor_now_is_written_when_there_is() {
    for (drives, times) in [(1, 1), (4, 1), (2, 4)] {
        let (mut world, mut model) = stored(90);
        world.pool.drive_timeout = Duration::from_secs(20);
        let strike = |world: &World| {
            world.drives[..drives].iter().for_each(|drive| drive.inject(exhausted().times(times)));
        };
        strike(&world);
        let meta = world.open().unwrap();
        store(&meta, &mut model, 4..6);
        strike(&world);
        meta.close().unwrap();
        drop(meta);
        let closed = world.open().unwrap();
        assert_eq!(states(&closed), [State::Ok; 4]);
        drop(closed);
        world.restart();
        check_whole(&world, &model, "after waiting");
    }
}

#[test]
fn a_change_that_the_process_cannot_write_anywhere_makes_no_drive_stale() {
    // From the first write on, from the second step on, or later; on one drive or all.
    for (after, drives) in (0..8).flat_map(|after| [1, 2, 4].map(|drives| (after, drives))) {
        let (mut world, mut model) = stored(91);
        let strike = |drive: &FaultyDrive| drive.inject(exhausted().after(after));
        world.drives[..drives].iter().for_each(strike);
        let when = format!("{drives} drives after {after} writes");
        match world.open() {
            Ok(meta) => {
                store(&meta, &mut model, 4..6);
                assert_eq!(states(&meta), [State::Ok; 4], "{when}");
                if let Err(error) = meta.close() {
                    assert!(error.is(&codes::PROCESS_EXHAUSTED), "{when}: {error}");
                }
            }
            Err(error) => assert!(error.is(&codes::PROCESS_EXHAUSTED), "{when}: {error}"),
        }
        world.restart();
        world.drives.iter().for_each(FaultyDrive::heal);
        check_whole(&world, &model, &when);
    }
}

#[test]
fn a_drive_that_fails_while_the_process_can_write_no_superblock_is_recorded_when_it_can() {
    let mut world = World::new(4, "3+1", 92);
    world.pool.journal.member_timeout = Duration::from_secs(20);
    let (meta, mut model) = (world.create().unwrap(), Model::new());
    store(&meta, &mut model, 0..3);
    world.drives[1..].iter().for_each(|drive| drive.inject(exhausted().times(3)));
    let broken = Fault::new(Effect::Error(&codes::DRIVE_IO));
    world.drives[0].inject(broken.on(Operation::WriteLog).on(Operation::Put));
    store(&meta, &mut model, 3..6);
    assert_eq!(states(&meta), [State::Failed, State::Ok, State::Ok, State::Ok]);
    drop(meta);
    world.restart();
    check(&world.open_without(&[0]).unwrap(), &model, "without the one that failed");
}

#[test]
fn a_new_drive_that_the_process_cannot_take_in_is_no_member_or_a_whole_one() {
    for after in 0..12 {
        let (mut world, model) = stored(93);
        let meta = world.open().unwrap();
        let strike = |drive: &FaultyDrive| drive.inject(exhausted().after(after).times(300));
        world.drives.iter().for_each(strike);
        let new: Arc<dyn Drive> = Arc::new(world.spare.clone());
        let replace = || meta.pool().replace(&*meta, "d1", &new, &holder(), &Control::default());
        let replaced = replace();
        if let Err(error) = &replaced {
            // Whether the new list of the journal's drives is durable may not be known: then it stops.
            let expected = [&codes::PROCESS_EXHAUSTED, &codes::JOURNAL_MEMBERS];
            assert!(expected.into_iter().any(|code| error.is(code)), "after {after}: {error}");
        }
        assert!(!states(&meta).contains(&State::Failed), "after {after}");
        check(&meta, &model, "after the replace");
        drop(meta);
        world.restart();
        world.drives.iter().for_each(FaultyDrive::heal);
        let copies = world.copies();
        check(&world::open_on(&copies, world::options()).unwrap(), &model, "after a cut");
    }
}

#[test]
fn whether_a_drive_carries_a_pool_is_not_said_by_who_cannot_look() {
    let (world, _) = stored(94);
    let blank = FaultyDrive::new(Arc::new(MemoryDrive::new("blank")), &Power::new(), 1);
    // The first superblock of all, torn.
    blank.write_superblock(Slot::A, &[1; 4096]).unwrap();
    let (member, slots) = (&world.drives[0], Operation::ReadSuperblock);
    let looks = [(member, slots), (&blank, slots), (&blank, Operation::List)];
    for (drive, look) in looks.into_iter().chain([(&blank, Operation::ListLogs)]) {
        drive.inject(Fault::new(Effect::Error(&codes::PROCESS_EXHAUSTED)).on(look));
        for answer in [dwk_pool::carries_pool(drive), dwk_pool::is_unfinished(drive)] {
            assert!(answer.unwrap_err().is(&codes::PROCESS_EXHAUSTED), "{look:?}");
        }
        drive.heal();
    }
    assert!(dwk_pool::carries_pool(member).unwrap());
    assert!(!dwk_pool::carries_pool(&blank).unwrap());
}
