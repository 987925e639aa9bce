//! Reports say what was found and done, and what was found stays known until it is mended.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use dwk_base::codes;
use dwk_drive::faulty::{Effect, Fault, Operation};
use dwk_drive::{Drive, Entry};

use super::super::{Control, SpaceOptions, header, lock};
use super::damage::{Harm, harm};
use super::dropped::Dropped;
use super::world::{RS42, World, bytes, options};
use crate::State;

/// A world with one damaged stripe that a read has met, and an index of a shard of it that is damaged.
fn noted() -> World {
    let world = World::new(6, RS42, 80);
    let (content, other) = (bytes(1, 60_000), world.put(&bytes(2, 60_000)).unwrap());
    let stripe = world.put(&content).unwrap();
    harm(&world, &stripe, &other, 1, Harm::FlipPayload, 77);
    assert!(world.get(&stripe).unwrap() == content);
    assert_eq!(world.space.noted(&world.table).unwrap(), [stripe]);
    world
}

#[test]
fn what_a_rebuild_repairs_because_a_read_met_it_is_in_its_report() {
    let world = noted();
    let report = world.space.rebuild(&world.table, None, &Control::default()).unwrap();
    assert_eq!((report.missing_shards, report.restored_shards), (1, 1), "{report:?}");
    assert!(report.is_complete() && report.read_bytes > 0 && report.written_bytes > 0);
    assert_eq!(world.space.noted(&world.table).unwrap(), []);
}

#[test]
fn what_could_not_be_mended_stays_noted_and_no_report_calls_that_complete() {
    let world = noted();
    let full = Fault::new(Effect::Error(&codes::DRIVE_FULL)).on(Operation::Put);
    world.drives.iter().for_each(|drive| drive.inject(full.clone()));
    let rebuild = || world.space.rebuild(&world.table, None, &Control::default()).unwrap();
    for _ in 0..2 {
        let report = rebuild();
        assert_eq!((report.unrestored_shards, report.restored_shards), (1, 0), "{report:?}");
        assert!(!report.is_complete());
        assert_eq!(world.space.noted(&world.table).unwrap().len(), 1);
    }
    world.drives.iter().for_each(dwk_drive::FaultyDrive::heal);
    assert!(rebuild().is_complete());
    assert_eq!(world.space.noted(&world.table).unwrap(), []);
}

#[test]
fn what_a_rebuild_missed_and_could_not_write_is_noted() {
    let world = World::new(6, RS42, 81);
    let stripe = world.put(&bytes(1, 60_000)).unwrap();
    let (drive, file) = world.entry(&stripe, 2);
    drive.set_raw(&file, None);
    let full = Fault::new(Effect::Error(&codes::DRIVE_FULL)).on(Operation::Put);
    world.drives.iter().for_each(|drive| drive.inject(full.clone()));
    let report = world.space.rebuild(&world.table, None, &Control::default()).unwrap();
    assert_eq!(report.unrestored_shards, 1);
    assert_eq!(world.space.noted(&world.table).unwrap(), [stripe]);
}

#[test]
fn a_note_ends_when_a_scrub_finds_all_well_or_the_shard_lies_elsewhere_or_the_stripe_is_gone() {
    let world = noted();
    let table = || lock(&world.table.stripes);
    let stripe = world.space.noted(&world.table).unwrap().remove(0);
    let mut moved = stripe.clone();
    moved.placement.swap(0, 1);
    table().insert(stripe.id, moved);
    assert_eq!(world.space.noted(&world.table).unwrap(), []);
    table().remove(&stripe.id);
    assert_eq!(world.space.noted(&world.table).unwrap(), []);
    table().insert(stripe.id, stripe.clone());
    world.get(&stripe).unwrap();
    assert_eq!(world.space.noted(&world.table).unwrap().len(), 1);
    let (drive, file) = world.entry(&stripe, 1);
    let whole = drive.raw(&file).unwrap();
    let mut right = whole;
    // As it was before it was harmed.
    right[4096 + 77] ^= 1 << (77 % 8);
    drive.set_raw(&file, Some(right));
    let report = world.space.scrub(&world.table, &Control::default()).unwrap();
    assert_eq!(report.damaged_shards, 0, "{report:?}");
    assert_eq!(world.space.noted(&world.table).unwrap(), []);
}

#[test]
fn a_rebuild_finds_shards_that_were_cut_short() {
    for cut in [1, 512, 4095, 4096, 5000] {
        let world = World::new(6, RS42, 82);
        let stripe = world.put(&bytes(1, 60_000)).unwrap();
        let (drive, file) = world.entry(&stripe, 3);
        let whole = drive.raw(&file).unwrap();
        drive.set_raw(&file, Some(whole[..whole.len() - cut].to_vec()));
        let report = world.space.rebuild(&world.table, None, &Control::default()).unwrap();
        assert_eq!(report.restored_shards, 1, "{cut} bytes short");
        assert!(drive.raw(&file) == Some(whole));
    }
}

#[test]
fn a_shard_that_was_restored_for_a_stripe_that_was_dropped_meanwhile_goes_again() {
    let world = World::new(6, RS42, 83);
    let stripe = world.write(&bytes(9, 30_000)).unwrap();
    let name = header::name(stripe.id, 0).unwrap();
    let seat = usize::from(stripe.placement[0]);
    world.drives[seat].delete(&name).unwrap();
    let ledger = Dropped(&world, stripe, AtomicBool::new(false));
    world.space.rebuild(&ledger, None, &Control::default()).unwrap();
    world.settle();
    assert!(ledger.2.load(Ordering::SeqCst));
    assert!(world.memory[seat].raw(&Entry::Blob(name)).is_none(), "an orphan was left");
}

#[test]
fn a_mark_that_is_damaged_ends_and_the_next_one_counts() {
    let mut world = World::new(6, RS42, 84);
    let stripe = world.write(&bytes(1, 30_000)).unwrap();
    world.reopen();
    let scrub = |world: &World| world.space.scrub(&world.table, &Control::default()).unwrap();
    assert_eq!(scrub(&world).orphans, 6);
    let mark = format!("q/{}.00", stripe.id);
    let drive = &world.memory[usize::from(stripe.placement[0])];
    drive.flip(&Entry::Blob(dwk_drive::BlobName::new(mark).unwrap()), 3, 1);
    let removed: Vec<u64> = (0..3)
        .map(|_| {
            world.reopen();
            scrub(&world).removed_orphans
        })
        .collect();
    assert_eq!(removed, [5, 1, 0]);
    assert_eq!(world.files(), []);
}

#[test]
fn groups_of_drives_stay_the_same_when_some_fail() {
    let options = crate::SpaceOptions { scatter_width: 12, ..super::world::options() };
    let world = World::with(26, RS42, 85, options);
    let mut partners = vec![std::collections::BTreeSet::new(); 26];
    for round in 0..4 {
        for seed in 0..100 {
            let stripe = world.put(&bytes(seed, 100)).unwrap();
            for seat in &stripe.placement {
                partners[usize::from(*seat)].extend(stripe.placement.iter().copied());
            }
        }
        let state = if round % 2 == 0 { State::Failed } else { State::Stale };
        world.set_state(3 + 4 * round, state);
    }
    assert!(partners.iter().all(|partners| partners.len() <= 13), "{partners:?}");
}

#[test]
fn a_scrub_that_a_drive_did_not_answer_in_time_is_not_clean_and_says_so() {
    let options = SpaceOptions { late_read: Duration::from_millis(20), ..options() };
    let world = World::with(6, RS42, 82, options);
    let stripe = world.put(&bytes(1, 60_000)).unwrap();
    let late = &world.drives[usize::from(stripe.placement[1])];
    late.inject(Fault::new(Effect::Hang).on(Operation::Read));
    let report = world.space.scrub(&world.table, &Control::default()).unwrap();
    assert_eq!((report.unread_shards, report.absent_shards), (1, 0), "{report:?}");
    assert!(report.finished && !report.is_clean());
    late.release();
    late.heal();
    world.settle();
    let report = world.space.scrub(&world.table, &Control::default()).unwrap();
    assert!(report.is_clean() && report.unread_shards == 0, "{report:?}");
    // One that is not here is another matter: a rebuild restores what was on it.
    world.set_state(stripe.placement[1], State::Failed);
    let report = world.space.scrub(&world.table, &Control::default()).unwrap();
    assert!(report.is_clean() && (report.unread_shards, report.absent_shards) == (0, 1));
}
